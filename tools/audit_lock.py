"""Audits the packages of `requirements.lock`: a part of `make check`.

Two things are looked at. Always, and without a network: every package is pinned to one version and to SHA-256
hashes, and what `pyproject.toml` asks for is what is locked. And where an advisory service can be reached: no
locked version has a known vulnerability, by pip-audit.

A vulnerability fails the check. A service that is away, slow, or speaks a format that pip-audit does not know
does not: it says so, and what was not audited, because a build must not depend on somebody else's server.
With `--require` it fails too.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[1]
ACCEPTED: Final[Mapping[str, str]] = {}
"""Advisories that do not concern us, by id, each with the reason."""

_HASH: Final = re.compile(r"--hash=(\S+)")
_SHA256: Final = re.compile(r"sha256:[0-9a-f]{64}")
_ONE_TIMEOUT_S: Final = 10
_ALL_TIMEOUT_S: Final = 180


class Locked(Struct, frozen=True):
    """A package in the lock. `text` is its entry, as pip reads it."""

    requirement: Requirement
    hashes: Sequence[str]
    text: str


class Unaudited(Exception):
    """No advisory service has answered in a way that says anything."""


def locked(lock: str) -> list[Locked]:
    """The packages of a lock."""
    joined = lock.replace("\\\n", " ")
    entries = [line for line in joined.splitlines() if line.strip() and line[0] not in "#-"]
    return [
        Locked(Requirement(_HASH.sub("", entry).strip()), _HASH.findall(entry), entry)
        for entry in entries
    ]


def loose(packages: Sequence[Locked], project: Mapping[str, Any]) -> Iterator[str]:
    """What is not held fast: in words, one a problem."""
    versions: dict[str, list[str]] = {}
    for one in packages:
        pins = list(one.requirement.specifier)
        if len(pins) != 1 or pins[0].operator != "==" or "*" in pins[0].version:
            yield f"{one.requirement.name} is not pinned to one version"
            continue
        if not one.hashes or not all(_SHA256.fullmatch(each) for each in one.hashes):
            yield f"{one.requirement.name} has no SHA-256 hash, or something else"
        versions.setdefault(_plain(one.requirement.name), []).append(pins[0].version)
    for wanted in _asked_for(project):
        found = versions.get(_plain(wanted.name), [])
        if not any(wanted.specifier.contains(version, prereleases=True) for version in found):
            had = ", ".join(found) or "nothing"
            yield f"pyproject.toml asks for {wanted}; the lock has {had}: run make lock"


def vulnerabilities(packages: Sequence[Locked], osv_url: str | None) -> tuple[list[str], list[str]]:
    """Known vulnerabilities in words, and the names of packages that no service knows.

    Raises `Unaudited`.
    """
    # One package tells whether there is a service; a hundred would only take longer to tell the same.
    _, unknown = _pip_audit(packages[:1], osv_url, _ONE_TIMEOUT_S * 3)
    if unknown:
        raise Unaudited(f"the service knows nothing of {unknown[0]}")
    return _pip_audit(packages, osv_url, _ALL_TIMEOUT_S)


def _pip_audit(
    packages: Sequence[Locked], osv_url: str | None, timeout_s: float
) -> tuple[list[str], list[str]]:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.writelines(f"{one.text}\n" for one in packages)
        file.flush()
        command = [
            *(sys.executable, "-m", "pip_audit", "--requirement", file.name),
            *("--disable-pip", "--require-hashes", "--format", "json"),
            *("--progress-spinner", "off", "--timeout", str(_ONE_TIMEOUT_S)),
            *(("--vulnerability-service", "osv", "--osv-url", osv_url) if osv_url else ()),
            *(f"--ignore-vuln={advisory}" for advisory in ACCEPTED),
        ]
        try:
            done = subprocess.run(  # noqa: S603 - our own command, and no shell
                command, capture_output=True, text=True, check=False, timeout=timeout_s
            )
        except subprocess.TimeoutExpired:
            raise Unaudited(f"no answer within {timeout_s:g} s") from None
    try:
        return _read(msgspec.json.decode(done.stdout))
    except (msgspec.DecodeError, KeyError, TypeError):
        last = done.stderr.strip().splitlines()[-1:] or [f"pip-audit ended with {done.returncode}"]
        raise Unaudited(last[0]) from None


def _read(report: Any) -> tuple[list[str], list[str]]:
    found, unknown = [], []
    for one in report["dependencies"]:
        if "skip_reason" in one:
            unknown.append(str(one["name"]))
        for advisory in one.get("vulns", ()):
            fixed = ", ".join(advisory["fix_versions"]) or "no version yet"
            found.append(f"{one['name']} {one['version']}: {advisory['id']}, fixed in {fixed}")
    return found, unknown


def _asked_for(project: Mapping[str, Any]) -> Iterator[Requirement]:
    package = project["project"]
    groups = (*package["optional-dependencies"].values(), *project["dependency-groups"].values())
    for texts in (package["dependencies"], *groups):
        yield from map(Requirement, texts)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit, and say what was found; the exit code: 1 for a problem."""
    parser = argparse.ArgumentParser(prog="audit_lock", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--osv-url", help="ask this OSV service instead of the package index")
    parser.add_argument("--require", action="store_true", help="fail when nothing was audited")
    chosen = parser.parse_args(arguments)
    packages = locked((chosen.folder / "requirements.lock").read_text())
    project = tomllib.loads((chosen.folder / "pyproject.toml").read_text())
    problems = [*loose(packages, project)]
    if not packages:
        problems.append("the lock is empty")
    gap = ""
    if not problems:
        try:
            problems, unknown = vulnerabilities(packages, chosen.osv_url)
            gap = f"the service does not know {', '.join(unknown)}" if unknown else ""
        except Unaudited as reason:
            gap = str(reason)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    audited = "pinned by hash" if gap else "pinned by hash, no known vulnerability"
    if not problems:
        sys.stdout.write(f"{len(packages)} packages: {audited}\n")
    if gap:
        sys.stdout.write(f"WARNING: not audited for known vulnerabilities: {gap}\n")
    return 1 if problems or (gap and chosen.require) else 0


if __name__ == "__main__":
    sys.exit(main())

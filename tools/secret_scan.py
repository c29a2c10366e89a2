"""Looks for secrets in the files of a checkout and in its history: a part of `make check`.

The scanner is Kingfisher, kept off the network, with its own rules and those of `.gitleaks.toml`. A file that
git ignores is not looked at; a secret that was committed once and removed is found all the same. Exit code 0:
none; 1: some, named by file and line and never shown; 2: the scan did not come to an end.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).parents[1]
_RULES: Final = ROOT / ".gitleaks.toml"
# What the examples say in a key's place.
_PLACEHOLDERS: Final = (r"^oh_live_YOUR_API_KEY$",)
_CLEAN, _FOUND = 0, 200
_TIMEOUT_S: Final = 300


class ScanFailed(Exception):
    """The scanner or git did not do what they were asked."""


def secrets_in(checkout: Path) -> list[str]:
    """Where secrets are in a checkout: `path:line: rule`, and the commit where it is history.

    Raises `ScanFailed`: an unfinished scan has found nothing and says nothing.
    """
    listed = _run(
        [*_git(checkout), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        checkout,
        (0,),
    )
    files = [name for name in listed.split("\0") if name and (checkout / name).is_file()]
    history = _run([*_git(checkout), "rev-parse", "--git-common-dir"], checkout, (0,)).strip()
    return _scan(checkout, [history, *files])


def _git(checkout: Path) -> list[str]:
    # A checkout that another user made is read all the same: nothing in it is run.
    return ["git", "-c", f"safe.directory={checkout}"]


def _scan(checkout: Path, targets: Sequence[str]) -> list[str]:
    command = [
        *(str(Path(sys.executable).with_name("kingfisher")), "scan", *targets),
        *("--git-history", "full", "--rules-path", str(_RULES), "--format", "json"),
        # A secret is not tried out on the service that it may be for, and nobody is asked for updates.
        *("--no-validate", "--no-update-check"),
        *(f"--skip-regex={pattern}" for pattern in _PLACEHOLDERS),
    ]
    # The report comes first, a summary below it.
    report = _run(command, checkout, (_CLEAN, _FOUND)).partition("\n")[0]
    try:
        findings = msgspec.json.decode(report)["findings"]
        return [_place(one["rule"]["id"], one["finding"]) for one in findings]
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise ScanFailed(f"kingfisher's report reads differently: {error!r}") from error


def _place(rule: str, finding: dict[str, Any]) -> str:
    commit = finding.get("git_metadata", {}).get("commit", {}).get("id")
    where = f"{finding['path']}:{finding['line']}: {rule}"
    return f"{where} (commit {commit})" if commit else where


def _run(command: Sequence[str], folder: Path, expected: Sequence[int]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - our own commands, and no shell
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ScanFailed(f"{command[0]}: {error}") from error
    if done.returncode not in expected:
        raise ScanFailed(f"{command[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def main(checkout: Path = ROOT) -> int:
    """Scan, and say what was found; the exit code."""
    try:
        found = secrets_in(checkout)
    except ScanFailed as error:
        sys.stderr.write(f"The secret scan failed: {error}\n")
        return 2
    for place in found:
        sys.stdout.write(f"{place}\n")
    sys.stdout.write(
        f"{len(found)} secrets: revoke them first, then remove them\n" if found else "No secrets\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))

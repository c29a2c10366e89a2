"""`make check` finds a secret that is planted, the documented patterns find real keys and nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from opdata.keys import new_key
from tools.secret_scan import ROOT, main

DOCS = ROOT / "docs"
RULES = {rule["id"]: rule for rule in tomllib.loads((ROOT / ".gitleaks.toml").read_text())["rules"]}
MASTER_KEY = "0123456789abcdef" * 4


def git(checkout: Path, *arguments: str) -> None:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
    subprocess.run(["git", *who, *arguments], cwd=checkout, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("ignored/\n")
    (tmp_path / "README").write_text("export OPDATA_API_KEY=oh_live_YOUR_API_KEY\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    return tmp_path


def test_planted_secrets_are_found_wherever_they_are_and_never_shown(
    checkout: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(checkout) == 0
    assert "No secrets" in capsys.readouterr().out

    new, removed, ignored = (new_key().key for _ in range(3))
    master = os.urandom(32).hex()
    (checkout / "removed.env").write_text(f"OPDATA_API_KEY={removed}\n")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "a key")
    git(checkout, "rm", "-q", "removed.env")
    git(checkout, "commit", "-qm", "and away with it")
    (checkout / "new.py").write_text(f"# not committed yet\nKEY = {new!r}\n")
    (checkout / "opdata.toml").write_text(f'master_key = "{master}"\n')
    (checkout / "ignored").mkdir()
    (checkout / "ignored" / "own.env").write_text(ignored)

    assert main(checkout) == 1

    said = capsys.readouterr().out
    assert "new.py:2: custom.opdata-api-key" in said
    assert "opdata.toml:1: custom.opdata-master-key" in said
    assert re.search(r"removed\.env:1: custom\.opdata-api-key \(commit [0-9a-f]{40}\)", said)
    assert "ignored" not in said
    for secret in (new, removed, ignored, master):
        assert secret not in said


def test_a_scan_that_cannot_be_done_is_no_clean_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(tmp_path / "nowhere") == 2
    assert "The secret scan failed" in capsys.readouterr().err


def documented_patterns() -> list[str]:
    """Every regular expression for keys that a page shows, for whatever scanner."""
    pages = "\n".join(page.read_text() for page in DOCS.glob("*.md"))
    return re.findall(r"(?:\\b)?oh_live_\[\S*\{64\}(?:\\b)?", pages)


def test_the_patterns_match_real_keys_and_no_masked_cut_or_made_up_ones() -> None:
    patterns = {*documented_patterns(), RULES["opdata-api-key"]["regex"]}
    assert len(documented_patterns()) >= 4
    for pattern in patterns:
        for _ in range(20):
            made = new_key()
            for text in (made.key, f'KEY="{made.key}"', f"Bearer {made.key}\n"):
                [found] = re.findall(pattern, text)
                assert found == made.key
            for text in (
                made.masked_key,
                made.key[:-1],
                made.key.upper(),
                made.key.replace("live", "test"),
                made.key_hash.hex(),
                "oh_live_YOUR_API_KEY",
            ):
                assert re.search(pattern, text) is None


def test_the_page_shows_the_rules_that_are_run() -> None:
    shown = re.search(
        r"^```toml\n(# What `make check`.*?|\[extend\].*?)^```",
        (DOCS / "security.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    assert shown
    assert tomllib.loads(shown[1]) == tomllib.loads((ROOT / ".gitleaks.toml").read_text())


@pytest.mark.parametrize(
    "text",
    [
        f"OPDATA_MASTER_KEY={MASTER_KEY}",
        f"OPDATA_MASTER_KEY=1:{MASTER_KEY},2:{MASTER_KEY}",
        f"OPDATA_MASTER_KEY='{MASTER_KEY.upper()}'",
        f'master_key = "{MASTER_KEY}"',
        f'{{"master_key": "{MASTER_KEY}"}}',
    ],
)
def test_the_pattern_of_master_keys_matches_where_one_is_set(text: str) -> None:
    found = re.search(RULES["opdata-master-key"]["regex"], text)
    assert found
    assert found[1].lower() == MASTER_KEY


@pytest.mark.parametrize(
    "text", ["OPDATA_MASTER_KEY=$(openssl rand -hex 32)", f"sha256:{MASTER_KEY}", "master_key: str"]
)
def test_the_pattern_of_master_keys_leaves_the_rest(text: str) -> None:
    assert re.search(RULES["opdata-master-key"]["regex"], text) is None

"""Types generated from the OpenAPI document compile in strict mode, refuse mistakes, and work."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.examples.conftest import EXAMPLES
from tests.support.running import OPDATA, RunningServer

FOLDER = EXAMPLES / "typescript"


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example, with the types generated as its README says."""
    if not (FOLDER / "node_modules").is_dir():
        assert "CI" not in os.environ, "CI runs `npm ci` in examples/typescript"
        pytest.skip("needs Node.js and `npm ci` in examples/typescript")
    copy = tmp_path / "typescript"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("node_modules", "dist", "api.ts"))
    (copy / "node_modules").symlink_to(FOLDER / "node_modules")
    run(copy, "generate")
    return copy


def run(folder: Path, script: str, **variables: str) -> str:
    """What a script of package.json prints."""
    done = subprocess.run(
        ["npm", "run", "--silent", script],
        cwd=folder,
        env={
            "PATH": f"{Path(OPDATA).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_program_with_the_generated_types_compiles_and_runs(
    example: Path, example_server: RunningServer, variables: dict[str, str]
) -> None:
    assert run(example, "start", **variables).splitlines() == [
        'refused ts_002 at 1: VALIDATION_FAILED Missing required field: "email"',
        "ts_001 is a player, e-mail alice@example.com",
        "5 events",
        "ts_002: 404 NOT_FOUND",
    ]
    assert example_server.stored.rows("SELECT count(*) FROM events") == [(5,)]


def test_the_example_pins_its_packages_and_names_no_registry() -> None:
    lock = (FOLDER / "package-lock.json").read_text()

    assert '"integrity"' in lock
    assert '"resolved"' not in lock

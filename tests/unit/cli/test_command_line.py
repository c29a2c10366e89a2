"""The command line as a whole: usage errors, exit codes, what is loaded when."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from opdata import __version__
from opdata.cli.exits import Exit
from tests.unit.cli.conftest import Run, connected, rows_of

OPDATA = str(Path(sys.executable).with_name("opdata"))


def test_the_version_is_the_packages(run: Run) -> None:
    assert run("--version") == (0, f"opdata {__version__}\n", "")


def test_help_names_every_command(run: Run) -> None:
    ran = run("--help")

    assert ran.code == 0
    for command in ("serve", "load", "operators", "keys", "jobs", "db", "doctor"):
        assert f"  {command}: " in ran.out


def test_the_module_is_the_same_command_as_the_script() -> None:
    for command in ([OPDATA], [sys.executable, "-m", "opdata"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"opdata {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "There is no command opdata nonsense. See: opdata --help"),
        (["keys", "nonsense"], "There is no command opdata keys nonsense. See: opdata keys --help"),
        (["keys", "list", "--oprator", "x"], "Did you mean --operator"),
        (["keys", "list"], "--operator"),
        (["jobs", "list", "--limit", "many"], "--limit"),
        (["serve", "--port", "http"], "--port"),
        (["serve", "--port", "99999"], "port must be 0 to 65535"),
        (["serve", "--limit-read", "lots"], "requests/seconds"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], message: str
) -> None:
    ran = run(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("opdata: ")
    assert ran.err.count("\n") == 1
    assert message in ran.err


@pytest.mark.parametrize("flag", ["--master-key", "--ops-token"])
def test_a_secret_on_the_command_line_is_refused_and_not_repeated(run: Run, flag: str) -> None:
    for arguments in ([f"{flag}=hunter2"], [flag, "hunter2"]):
        ran = run("serve", *arguments)
        assert ran.code == 2
        assert f"OPDATA_{flag[2:].replace('-', '_').upper()}" in ran.err
        assert "hunter2" not in ran.err


def test_a_missing_database_is_an_error_and_not_a_new_one(run: Run, tmp_path: Path) -> None:
    ran = run("operators", "create", "acme", "--db", "sqlite:///mistyped.db")

    assert ran.code == 2
    assert "mistyped.db" in ran.err
    assert "opdata db migrate" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_a_locked_database_is_exit_code_4_with_the_reason(
    run: Run, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPDATA_BUSY_TIMEOUT_S", "0.1")
    with connected(database) as holder:
        holder.execute("BEGIN IMMEDIATE")
        ran = run("operators", "create", "acme")
        holder.execute("ROLLBACK")

    assert ran.code == 4
    assert "locked" in ran.err
    assert "Traceback" not in ran.err
    assert rows_of(database, "SELECT name FROM operators") == [("default",)]


def test_a_database_that_cannot_be_opened_is_exit_code_4(run: Run, tmp_path: Path) -> None:
    (tmp_path / "folder.db").mkdir()

    ran = run("operators", "list", "--db", "sqlite:///folder.db")
    assert ran.code == 4
    assert ran.err.count("\n") == 1


def test_settings_come_from_flags_then_variables_then_the_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def location(*flags: str) -> str:
        return str(run("db", "check", "--json", *flags).json["location"])

    (tmp_path / "opdata.toml").write_text('data_dir = "from-file"\n')
    assert location() == "from-file/opdata.db"
    monkeypatch.setenv("OPDATA_DATA_DIR", "from-variable")
    assert location() == "from-variable/opdata.db"
    assert location("--data-dir", "from-flag") == "from-flag/opdata.db"


def test_a_reader_that_leaves_early_is_no_error(database: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", "-c", f"'{OPDATA}' operators list --json | true"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""


HEAVY = ["apsw", "asyncpg", "cryptography", "duckdb", "rich", "starlette", "uvicorn"]
UNNEEDED = ["asyncpg", "duckdb", "httpx2", "opdata.api.openapi", "opdata.client"]


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], {"rich"}),
        (["nonsense"], {"rich"}),
        (["keys", "--help"], {"apsw", "rich"}),
        (["keys", "list", "--operator", "default"], {"apsw"}),
    ],
)
def test_a_command_loads_only_what_it_needs(
    database: Path, tmp_path: Path, arguments: list[str], allowed: set[str]
) -> None:
    code = (
        "import sys; from opdata.cli import main; main(sys.argv[2:]); "
        "print(*(set(sys.argv[1].split(',')) & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, ",".join(HEAVY), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(done.stderr.splitlines()[-1].split()) <= allowed


def test_a_server_that_has_started_has_loaded_nothing_that_it_does_not_serve_with(
    tmp_path: Path,
) -> None:
    code = """
import sys
from opdata.__main__ import main
try:
    main(sys.argv[2:])
finally:
    print(*(set(sys.argv[1].split(",")) & set(sys.modules)), file=sys.stderr)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code, ",".join(UNNEEDED), "serve", "--port", "0"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stderr is not None
        try:
            while json.loads(server.stderr.readline())["event"] != "started":
                pass
        finally:
            server.terminate()
        *_, loaded = server.stderr.read().split("\n")[:-1]
    assert (server.returncode, loaded) == (0, "")


def test_a_fault_of_ours_is_told_from_a_refusal(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("opdata.cli.completion.say", broken)

    ran = run("completion", "bash")

    assert (ran.code, ran.out) == (Exit.FAULT, "")
    assert "ZeroDivisionError" in ran.err

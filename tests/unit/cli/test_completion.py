"""Completion scripts, run in the shells they are for; none of them starts Python on Tab."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from opdata.cli import main
from tests.docs.test_documented import COMMANDS, flags
from tests.unit.cli.conftest import Run

TOP_LEVEL = sorted({name.split()[1] for name in COMMANDS})


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script_of("bash", tmp_path_factory.mktemp("bash") / "opdata")


@pytest.fixture(scope="module")
def zsh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script_of("zsh", tmp_path_factory.mktemp("zsh") / "_opdata")


@pytest.fixture(scope="module")
def fish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script_of("fish", tmp_path_factory.mktemp("fish") / "opdata.fish")


def script_of(shell: str, path: Path) -> Path:
    """A file with the script that the command prints."""
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    printed = StringIO()
    with redirect_stdout(printed):
        assert main(["completion", shell]) == 0
    path.write_text(printed.getvalue())
    return path


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words, with no program to be found on its path."""
    code = (
        'script=$1; shift; PATH=; . "$script"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        "_opdata; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    done = subprocess.run(
        ["/bin/bash", "-c", code, "bash", script, "opdata", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=script.parent,
    )
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_bash_completes_the_commands(bash: Path) -> None:
    assert sorted(completed(bash, "")) == TOP_LEVEL
    assert completed(bash, "oper") == ["operators"]
    assert completed(bash, "keys", "") == ["create", "list", "revoke"]


def test_bash_completes_every_flag_of_every_command(bash: Path) -> None:
    for command in COMMANDS:
        offered = set(completed(bash, *command.split()[1:], "--"))
        assert offered - {"--help", "--version"} == flags(command), command


def test_bash_completes_the_values_of_a_flag(bash: Path) -> None:
    assert completed(bash, "jobs", "list", "--status", "q") == ["queued"]
    assert completed(bash, "completion", "") == ["bash", "zsh", "fish"]


def test_bash_falls_back_to_the_names_of_files(bash: Path) -> None:
    code = '. "$1"; complete -p opdata'
    done = subprocess.run(
        ["/bin/bash", "-c", code, "bash", bash], capture_output=True, text=True, check=True
    )

    assert done.stdout == "complete -o bashdefault -o default -F _opdata opdata\n"
    assert completed(bash, "load", "entities", "play") == []


ZSH_WAYS = {
    "sourced": 'compinit -D; . "$1"',
    "found on fpath": 'fpath=("${1:h}" $fpath); compinit -D; _arguments() { print ran }; _opdata',
}


@pytest.mark.parametrize("way", ZSH_WAYS)
def test_zsh_knows_what_completes_opdata(zsh: Path, way: str) -> None:
    code = f"autoload -Uz compinit; {ZSH_WAYS[way]}; print ${{_comps[opdata]}}"
    done = subprocess.run(
        ["zsh", "-fc", code, "zsh", zsh], capture_output=True, text=True, check=False
    )

    expected = {"sourced": "_cyclopts_opdata\n", "found on fpath": "ran\n_opdata\n"}
    assert (done.stdout, done.stderr) == (expected[way], "")


def test_zsh_completes_files_of_a_load(zsh: Path) -> None:
    sources = [line for line in zsh.read_text().splitlines() if "'*:CSV" in line]

    assert len(sources) >= 3
    assert all(line.endswith(":_files' \\") for line in sources)


def test_fish_completes_commands_flags_and_files(fish: Path, tmp_path: Path) -> None:
    (tmp_path / "players.csv").touch()

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            ["fish", "--no-config", "-c", "source $argv[1]; complete -C $argv[2]", fish, line],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "PATH": os.environ["PATH"]},
        )
        return [line.partition("\t")[0] for line in done.stdout.splitlines()]

    assert offered("opdata oper") == ["operators"]
    assert "--rejects" in offered("opdata load entities --re")
    assert offered("opdata load entities play") == ["players.csv"]


def test_a_command_whose_extra_is_missing_is_left_out() -> None:
    code = (
        "import sys; sys.modules['duckdb'] = None; from opdata.cli import main; "
        "main(['completion', 'bash'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert '"serve"' in done.stdout
    assert '"load"' not in done.stdout


def test_a_shell_without_a_script_is_a_usage_error(run: Run) -> None:
    ran = run("completion", "tcsh")

    assert (ran.code, ran.out) == (2, "")
    assert '"bash", "zsh", "fish"' in ran.err

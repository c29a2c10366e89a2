"""The examples of the documentation, run for real against a server.

A bash or Python block below `<!-- run -->` is executed, block by block in the order of its page, in one
directory: bash with the variables of the bash blocks before, Python in one interpreter for the page.
`<!-- run, exit code 1 -->` says how a bash block ends. What a reader has and we have not, such as a spreadsheet,
is made by the bash commands of a comment `<!-- prepare` before anything is run. A block below `<!-- answer -->` is what the block
before it prints: JSON, or text in which `…` stands for anything. Ids and times differ each time: what a page
calls by an id of its own is looked up by the id the server gave it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.support.running import OPDATA, RunningServer

ROOT = Path(__file__).parents[2]
PREPARED = re.compile(r"^<!-- prepare\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(
    r"^<!-- (run|answer)(?:, exit code (\d+))? -->\n```(bash|json|python|text)\n(.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
DOCUMENTED_URL = "http://127.0.0.1:8080"
VARIES = re.compile(
    r"(job|ent)_[0-9a-f]{16}|eev_[0-9a-f]{32}"  # ids
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"  # times
    r"|Wz[\w-]{10,}"  # cursors: an array in Base64
)


class Example(Struct):
    """A block to run, and what it is to print; None when the page does not say."""

    language: str
    code: str
    exit_code: int = 0
    values: list[Any] | None = None
    text: str | None = None


def values(text: str) -> list[Any]:
    """JSON values in a row. Numbers stay text: the digits count."""
    decoder = json.JSONDecoder(parse_float=str)
    found = []
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def examples(page: Path) -> list[Example]:
    found: list[Example] = []
    for kind, code, language, text in BLOCK.findall(page.read_text()):
        if kind == "run":
            found.append(Example(language, text, int(code or 0)))
        elif language == "json":
            found[-1].values = values(text)
        else:
            found[-1].text = text
    return found


PAGES = [
    page
    for page in (
        ROOT / "README.md",
        *sorted(ROOT.glob("docs/**/*.md")),
        *sorted(ROOT.glob("examples/*/README.md")),
    )
    if examples(page)
]


def test_the_pages_for_newcomers_have_examples() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "quickstart.md", "ingesting.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_examples_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    if page.is_relative_to(ROOT / "examples"):
        unwanted = shutil.ignore_patterns("node_modules", "dist")
        shutil.copytree(page.parent, tmp_path, dirs_exist_ok=True, ignore=unwanted)
    # Pages are written for the directory that the repository is in.
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    server = RunningServer(tmp_path / "opdata-data").start()
    shell = Shell(tmp_path, server.url)
    try:
        for commands in PREPARED.findall(page.read_text()):
            shell.run(commands, 0)
        actual_of: dict[str, str] = {}
        for example in examples(page):
            code = example.code
            for documented, actual in actual_of.items():
                code = code.replace(documented, actual)
            if example.language == "python":
                printed = shell.run_python(code)
            else:
                printed = shell.run(code, example.exit_code)
            if example.values is not None:
                assert_same(example.values, values(printed), actual_of, code)
            if example.text is not None:
                assert_matches(example.text, printed, code)
    finally:
        shell.close()
        server.stop()


INTERPRETER = """
import json, sys, traceback
scope = {"__name__": "__main__"}
for line in sys.stdin:
    try:
        exec(compile(json.loads(line), "<page>", "exec"), scope)
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
    print("\\0", flush=True)
"""
"""Takes a block a line, as a JSON string; ends what each printed with a NUL, or itself when it fails."""


class Shell:
    """A user's terminal: one directory, variables that stay, `opdata` on the path."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._variables = folder / "variables.sh"
        self._variables.write_text("")
        self._python: subprocess.Popen[str] | None = None
        # An error status ends an example, unless it shows one.
        (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")
        self._environment = {
            "PATH": f"{Path(OPDATA).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "CURL_HOME": str(folder),
            "LC_ALL": "C.UTF-8",
        }

    def run(self, commands: str, exit_code: int) -> str:
        """What commands print on standard output; the last of them ends with the exit code."""
        commands = commands.replace(DOCUMENTED_URL, self._url)
        script = f". {self._variables}\n{commands}\nexport -p > {self._variables}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self._folder,
            env=self._environment,
            timeout=60,
        )
        assert done.returncode == exit_code, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def run_python(self, code: str) -> str:
        """What Python code prints, with the names of the code before it."""
        if self._python is None:
            self._python = subprocess.Popen(
                [
                    "bash",
                    "-c",
                    f'. {self._variables}; exec {sys.executable} -W error -c "$0"',
                    INTERPRETER,
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self._folder,
                env=self._environment,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(code.replace(DOCUMENTED_URL, self._url)) + "\n")
        self._python.stdin.flush()
        printed = ""
        for line in self._python.stdout:
            if line == "\0\n":
                return printed
            printed += line
        raise AssertionError(f"{code}\n{printed}")

    def close(self) -> None:
        """End the interpreter."""
        if self._python is not None:
            self._python.communicate(timeout=60)


def assert_matches(documented: str, actual: str, where: str) -> None:
    pattern = ".*?".join(re.escape(part.strip()) for part in documented.split("…"))
    loose = re.sub(r"(\\\s|\s)+", r"\\s+", pattern)
    assert re.fullmatch(loose, actual.strip(), re.DOTALL), f"{where}\n{actual}"


def assert_same(
    documented: Any, actual: Any, actual_of: dict[str, str], where: str, path: str = "$"
) -> None:
    if isinstance(documented, str) and isinstance(actual, str) and documented != actual:
        varies = VARIES.fullmatch(documented) and VARIES.fullmatch(actual)
        assert varies, f"{where}\n{path}: {actual!r}, not {documented!r}"
        actual_of[documented] = actual
    elif isinstance(documented, dict) and isinstance(actual, dict):
        assert list(documented) == list(actual), f"{where}\n{path}"
        for name in documented:
            assert_same(documented[name], actual[name], actual_of, where, f"{path}.{name}")
    elif isinstance(documented, list) and isinstance(actual, list):
        assert len(documented) == len(actual), f"{where}\n{path}: {actual}"
        for at, (one, other) in enumerate(zip(documented, actual, strict=True)):
            assert_same(one, other, actual_of, where, f"{path}[{at}]")
    else:
        assert documented == actual, f"{where}\n{path}"

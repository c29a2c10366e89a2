"""The examples of the documentation, run for real against a server.

A bash block below `<!-- run -->` is executed, block by block in the order of its page, in one directory
and with the variables of the blocks before. A JSON block below `<!-- answer -->` is what the block before
it prints. Ids and times differ each time: what a page calls by an id of its own is looked up by the id the
server gave it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tests.support.running import OPDATA, RunningServer

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(
    r"^<!-- (run|answer) -->\n```(?:bash|json)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)
DOCUMENTED_URL = "http://127.0.0.1:8080"
VARIES = re.compile(
    r"(job|ent)_[0-9a-f]{16}|eev_[0-9a-f]{32}"  # ids
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"  # times
    r"|Wz[\w-]{10,}"  # cursors: an array in Base64
)


class Example(Struct):
    """A block to run, and the JSON values it is to print; None when the page does not say."""

    commands: str
    answers: list[Any] | None = None


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
    for kind, text in BLOCK.findall(page.read_text()):
        if kind == "run":
            found.append(Example(text))
        else:
            found[-1].answers = values(text)
    return found


PAGES = [page for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))) if examples(page)]


def test_the_pages_for_newcomers_have_examples() -> None:
    names = {page.name for page in PAGES}
    assert {"README.md", "quickstart.md", "ingesting.md"} <= names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_do_what_the_page_says(page: Path, tmp_path: Path) -> None:
    server = RunningServer(tmp_path / "opdata-data").start()
    try:
        shell = Shell(tmp_path, server.url)
        actual_of: dict[str, str] = {}
        for example in examples(page):
            commands = example.commands
            for documented, actual in actual_of.items():
                commands = commands.replace(documented, actual)
            printed = shell.run(commands)
            if example.answers is not None:
                assert_same(example.answers, values(printed), actual_of, commands)
    finally:
        server.stop()


class Shell:
    """A user's terminal: one directory, variables that stay, `opdata` on the path."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url
        self._variables = folder / "variables.sh"
        self._variables.write_text("")
        # An error status ends an example, unless it shows one.
        (folder / ".curlrc").write_text("silent\nshow-error\nfail-with-body\n")

    def run(self, commands: str) -> str:
        commands = commands.replace(DOCUMENTED_URL, self._url)
        script = f". {self._variables}\n{commands}\nexport -p > {self._variables}\n"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            cwd=self._folder,
            env={
                "PATH": f"{Path(OPDATA).parent}:{os.environ['PATH']}",
                "HOME": str(self._folder),
                "CURL_HOME": str(self._folder),
                "LC_ALL": "C.UTF-8",
            },
            timeout=60,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        return done.stdout


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

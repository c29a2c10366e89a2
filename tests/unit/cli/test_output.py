"""What is printed, on a terminal and elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from opdata.cli.db import size_text
from opdata.cli.exits import Exit, exit_of, explain
from opdata.cli.output import print_table, short_time, visible
from opdata.errors import Conflict, MasterKeyMismatch, Unauthorized, Unavailable


class Terminal(io.StringIO):
    """A terminal, narrow."""

    def isatty(self) -> bool:
        return True


def test_columns_line_up_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["ID", "NAME"], [["1", "a"], ["12345", "b"]])

    assert capsys.readouterr().out == "ID     NAME\n1      a\n12345  b\n"


def test_a_table_is_never_cut_to_the_terminals_width(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "20")
    wide = "key_" + "0" * 40

    print_table(["ID", "NAME"], [[wide, "[bold]as is[/bold]"]])
    assert f"{wide}  [bold]as is[/bold]" in terminal.getvalue()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é ✓", "plain é ✓"),
        ("a\x1b[2Jb", "a\\x1b[2Jb"),
        ("\u202eabc\ud800", "\\u202eabc\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_times_in_tables_are_to_the_second_and_in_utc() -> None:
    assert short_time(1_775_476_801_500) == "2026-04-06T12:00:01Z"
    assert short_time(None, none="never") == "never"


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 * 2**40, "3.0 TiB")],
)
def test_sizes_are_for_people(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Conflict(), Exit.PROBLEM),
        (MasterKeyMismatch(), Exit.USAGE),
        (Unauthorized(), Exit.AUTH),
        (Unavailable(), Exit.UNAVAILABLE),
        (PermissionError(13, "Permission denied"), Exit.UNAVAILABLE),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error: OSError | Conflict, code: int) -> None:
    assert exit_of(error) == code


def test_an_unavailable_store_says_why() -> None:
    error = Unavailable("Try again.")
    error.__cause__ = OSError("database is locked")

    assert explain(error) == "Try again. (database is locked)"

"""The header Prefer, read as RFC 7240 says."""

from __future__ import annotations

import pytest

from opdata.api.preferences import RESPOND_ASYNC, prefers


@pytest.mark.parametrize(
    "header",
    [
        "respond-async",
        "Respond-ASYNC",
        "  respond-async  ",
        "return=minimal, respond-async, wait=10",
        "wait=10, respond-async",
        'respond-async; foo="a, b"',
        "respond-async ; foo ; bar=1",
        'respond-async=""',
        'foo="a\\", b", respond-async',
        ", ,respond-async",
    ],
)
def test_a_preference_is_found_wherever_it_stands(header: str) -> None:
    assert prefers(header, RESPOND_ASYNC)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "return=minimal",
        "respond-asynchronously",
        "respond async",
        "foo; respond-async",
        "foo=respond-async",
        'foo="a, respond-async"',
        "respond-async=no",
        'foo="a, respond-async',
        "respond-async, " + "x" * 1_000,
        '"' + '\\"' * 30_000,
    ],
)
def test_what_only_looks_like_it_is_another_one(header: str) -> None:
    assert not prefers(header, RESPOND_ASYNC)

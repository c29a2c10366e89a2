"""The chart of docs/performance.md, as SVG: items a second of server, floor and bare driver."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

from benchmarks.checks import best_upsert

_COLOURS: Final = {"server": "#0969da", "floor": "#8c959f", "bare driver": "#d0d7de"}
_LEFT, _WIDTH, _BAR, _GAP, _TOP = 190, 760, 13, 14, 40


class _Group(NamedTuple):
    label: str
    values: Mapping[str, float]


def chart(results: Mapping[str, Any]) -> str:
    """Bars by store and kind of batch: new rows, one worker, one connection."""
    groups = list(_groups(results))
    longest = max(value for group in groups for value in group.values.values())
    height = _TOP + sum(len(group.values) * _BAR + _GAP for group in groups)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}"',
            ' font-family="sans-serif" font-size="11" role="img">',
            "<title>New items a second, one worker, one connection</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            *_legend(),
            *_bars(groups, (_WIDTH - _LEFT - 80) / longest),
            "</svg>\n",
        ]
    )


def _groups(results: Mapping[str, Any]) -> Iterator[_Group]:
    for store, name in (("sqlite", "SQLite"), ("postgres", "PostgreSQL")):
        for kind, cells in results[store]["batches"].items():
            cell = cells["1"]
            bare = cell["bare"]["new"]
            found = (cell["served"]["1"]["new"], cell["floor"]["new"], bare[best_upsert(bare)])
            rates = [one["items_a_second"]["median"] for one in found]
            yield _Group(f"{name}, {kind}", dict(zip(_COLOURS, rates, strict=True)))


def _legend() -> Iterator[str]:
    for at, (name, colour) in enumerate(_COLOURS.items()):
        x = _LEFT + at * 110
        yield f'<rect x="{x}" y="12" width="11" height="11" fill="{colour}"/>'
        yield f'<text x="{x + 16}" y="22">{escape(name)}</text>'


def _bars(groups: Sequence[_Group], scale: float) -> Iterator[str]:
    y = _TOP
    for group in groups:
        middle = y + len(group.values) * _BAR / 2 + 4
        yield f'<text x="{_LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(group.label)}</text>'
        for name, value in group.values.items():
            width = value * scale
            yield f'<rect x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR - 2}" fill="{_COLOURS[name]}"/>'
            yield f'<text x="{_LEFT + width + 5:.0f}" y="{y + 10}">{value:,.0f}</text>'
            y += _BAR
        y += _GAP

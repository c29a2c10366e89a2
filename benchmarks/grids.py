"""The tables of the results: the same on the terminal and on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.checks import best_upsert, checks
from benchmarks.places import STORES

Results = Mapping[str, Any]

_STORE = {"sqlite": "SQLite", "postgres": "PostgreSQL"}


class Grid(NamedTuple):
    """A table; `name` is how the page asks for it."""

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def grids(results: Results) -> list[Grid]:
    """A table for each part that was measured, the targets last."""
    machine = [[name, value] for name, value in results["machine"].items()]
    found = [Grid("machine", "The machine", ("", ""), machine)]
    for store in STORES:
        measured = results.get(store, {})
        if kinds := measured.get("batches"):
            found += [_rates(store, kinds), _beside(store, kinds)]
        if singles := measured.get("singles"):
            found.append(_singles(store, singles))
        if growth := measured.get("growth"):
            found += _growth(store, growth)
        if sizes := measured.get("tables"):
            found += _tables(store, sizes)
        if stages := measured.get("stages"):
            found.append(_stages(store, stages))
        if loader := measured.get("loader"):
            found.append(_loader(store, loader))
        if memory := measured.get("memory"):
            found.append(_memory(store, memory))
    found.append(_targets(results))
    return found


def _rates(store: str, kinds: Results) -> Grid:
    rows = []
    for kind, cells in kinds.items():
        for connections, cell in cells.items():
            for name, one in cell["served"]["1"].items():
                two = cell["served"]["2"][name]
                rows.append(
                    [
                        *(f"{kind}, {name}", connections, _rate(one["items_a_second"])),
                        *(f"{one['p50_ms']:.1f}", f"{one['p99_ms']:.1f}", _cores(one["cores"])),
                        *(
                            _rate(two["items_a_second"]),
                            f"{two['p50_ms']:.1f}",
                            f"{two['p99_ms']:.1f}",
                        ),
                        _times(cell["two_workers"][name]),
                    ]
                )
    columns = (
        *("batch", "connections", "1 worker, items/s", "p50 ms", "p99 ms"),
        "cores: server, client, database",
        *("2 workers, items/s", "p50 ms", "p99 ms", "2 beside 1"),
    )
    return Grid(f"batches-{store}", f"{_STORE[store]}: batches", columns, rows)


def _beside(store: str, kinds: Results) -> Grid:
    rows = []
    for kind, cells in kinds.items():
        for connections, cell in cells.items():
            for name, floor in cell["floor"].items():
                bare = ["", "", ""]
                if name in cell["bare"]:
                    form = best_upsert(cell["bare"][name])
                    rate = cell["bare"][name][form]["items_a_second"]
                    bare = [form, _rate(rate), _times(cell["beside_bare"][name][form])]
                share = _times(cell["beside_floor"][name])
                rows.append(
                    [f"{kind}, {name}", connections, _rate(floor["items_a_second"]), share, *bare]
                )
    columns = (
        *("batch", "connections", "floor, items/s", "server beside it"),
        *("bare driver's best form", "items/s", "server beside it"),
    )
    return Grid(f"beside-{store}", f"{_STORE[store]}: beside floor and driver", columns, rows)


def _singles(store: str, singles: Results) -> Grid:
    rows = []
    for what, by_connections in singles.items():
        for connections, measured in by_connections.items():
            one, shared = measured["figures"], measured["writes_a_commit"]
            rows.append(
                [
                    *(what, connections, _rate(one["items_a_second"])),
                    *(f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", _cores(one["cores"])),
                    *([f"{shared:.1f}" if shared else ""] if store == "sqlite" else []),
                ]
            )
    columns = [
        *("request", "connections", "items/s", "p50 ms", "p99 ms"),
        "cores: server, client, database",
        *(["writes a commit"] if store == "sqlite" else []),
    ]
    return Grid(f"singles-{store}", f"{_STORE[store]}: single items", columns, rows)


def _growth(store: str, growth: Results) -> Iterator[Grid]:
    points = {
        **{f"{kind} a batch": found for kind, found in growth["batch_size"].items()},
        "bytes an item, players": growth["item_bytes"],
        "operators, 100 players a batch": growth["operators"],
    }
    rows = [
        [
            *(what, f"{one['at']:,}", f"{one['items']:,}", f"{one['p50_ms']:.2f}"),
            *(
                f"{one['p99_ms']:.2f}",
                f"{one['us_an_item']:,.1f}",
                _times(one["time_beside_first"]),
            ),
        ]
        for what, found in points.items()
        for one in found
    ]
    columns = ("", "", "items", "p50 ms", "p99 ms", "µs an item", "time beside the first")
    yield Grid(f"growth-{store}", f"{_STORE[store]}: larger batches and items", columns, rows)


def _tables(store: str, sizes: Sequence[Results]) -> Iterator[Grid]:
    for part, title in (("batches", "batches"), ("reads", "reads")):
        if part not in sizes[0]:
            continue
        rows = []
        for what in sizes[0][part]:
            cells = []
            for size in sizes:
                one = size[part][what]
                cells.append(f"{one['p50_ms']:.2f}, {_times(one['time_beside_small'])}")
            rows.append([what, *cells])
        columns = ("p50 ms, and time beside small tables", *(f"{size['rows']:,}" for size in sizes))
        name = f"tables-{part}-{store}"
        yield Grid(name, f"{_STORE[store]}: {title} as tables grow", columns, rows)


def _stages(store: str, batches: Results) -> Grid:
    names = list(dict.fromkeys(stage for stages in batches.values() for stage in stages))
    rows = [
        [name, *(f"{stages[name]:.2f}" if name in stages else "" for stages in batches.values())]
        for name in names
    ]
    rows.append(["sum", *(f"{sum(stages.values()):.2f}" for stages in batches.values())])
    title = f"{_STORE[store]}: processor time of a batch by stage, ms"
    return Grid(f"stages-{store}", title, ("stage", *batches), rows)


def _loader(store: str, loader: Results) -> Grid:
    rows = [
        ["rows", f"{loader['rows']:,}"],
        ["rows a second", f"{loader['rows_a_second']:,.0f}"],
        ["beside bodies that were encoded beforehand", f"{loader['beside_prepared']:.2f}"],
        ["processor time of the loader, s", f"{loader['loader_s']:.1f}"],
        ["of the server, s", f"{loader['server_s']:.1f}"],
        ["of the database, s", f"{loader['database_s']:.1f}"],
        ["most memory of the loader, MiB", f"{loader['loader_mib']:.0f}"],
    ]
    return Grid(f"loader-{store}", f"{_STORE[store]}: opdata load", ("", ""), rows)


def _memory(store: str, memory: Results) -> Grid:
    rows = [
        [f"after {memory['batches'] // 10:,} batches", f"{memory['mib_after_a_tenth']:.0f}"],
        [f"after {memory['batches']:,}", f"{memory['mib']:.0f}"],
    ]
    return Grid(f"memory-{store}", f"{_STORE[store]}: memory of the server", ("", "MiB"), rows)


def _targets(results: Results) -> Grid:
    rows = [
        [
            *(one.target, f"{'≤' if one.at_most else '≥'} {one.bound:,g}", _short(one.measured)),
            "met" if one.met else "**missed**",
        ]
        for one in checks(results)
    ]
    return Grid("targets", "Targets", ("target", "", "measured", ""), rows)


def _rate(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:,.0f} ({spread['low']:,.0f} to {spread['high']:,.0f})"


def _times(spread: Mapping[str, float]) -> str:
    return f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"


def _cores(cores: Mapping[str, float]) -> str:
    return ", ".join(
        f"{cores[name]:.2f}" for name in ("server", "client", "database") if name in cores
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.2f}"

"""The targets, what was measured of each, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

from benchmarks.bare_postgres import NEW_ONLY
from benchmarks.places import STORES

Results = Mapping[str, Any]


class Check(Struct, frozen=True):
    """A target and what was measured of it. `bound` is the least, or with `at_most` the most, that meets it."""

    target: str
    measured: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        """Whether the target is met."""
        return self.measured <= self.bound if self.at_most else self.measured >= self.bound


def checks(results: Results) -> list[Check]:
    """Those whose part was measured, in the order of the parts."""
    found: list[Check] = []
    for store in STORES:
        measured = results.get(store, {})
        found += _batches(store, measured.get("batches", {}))
        found += _tables(store, measured.get("tables", []))
        found += _others(store, measured)
    return found


def best_upsert(by_form: Mapping[str, Any]) -> str:
    """The bare form of the highest rate among those that can meet rows that exist."""
    able = [form for form in by_form if form != NEW_ONLY]
    return max(able, key=lambda form: by_form[form]["items_a_second"]["median"])


def _batches(store: str, kinds: Results) -> Iterator[Check]:
    floors = {
        "players": (("new",), 0.75),
        "events": (("new",), 0.8),
        "states": (("new", "updated"), 0.75),
    }
    for kind, cells in kinds.items():
        one, four, sixteen = cells["1"], cells["4"], cells["16"]
        if store == "sqlite":
            variants, bound = floors[kind]
            share = min(one["beside_floor"][name]["median"] for name in variants)
            yield Check(f"sqlite: {kind} beside the straight-line floor", share, bound)
        else:
            by_form = four["bare"]["new"]
            share = four["beside_bare"]["new"][best_upsert(by_form)]["median"]
            what = f"postgres: {kind} beside the bare driver, 4 connections"
            yield Check(what, share, 0.85)
        if kind == "players":
            yield from _players(store, one, four, sixteen)


def _players(store: str, one: Results, four: Results, sixteen: Results) -> Iterator[Check]:
    new = one["served"]["1"]["new"]
    if store == "sqlite":
        rate = new["items_a_second"]["median"]
        yield Check("sqlite: new players a second, 1 worker, 1 connection", rate, 80_000)
    resent = one["beside_new"]["resent"]["median"]
    yield Check(f"{store}: unchanged resend beside new", resent, 2 if store == "sqlite" else 4)
    crowd = four["served"]["1"]["new"]
    times = crowd["p99_ms"] / crowd["p50_ms"]
    yield Check(f"{store}: p99 beside p50 of new players, 4 connections", times, 4, at_most=True)
    if store == "postgres":
        gain = max(cell["two_workers"]["new"]["median"] for cell in (four, sixteen))
        yield Check(
            "postgres: two workers beside one, players, the better of 4 and 16 connections",
            gain,
            1.5,
        )


def _tables(store: str, sizes: list[Results]) -> Iterator[Check]:
    if len(sizes) < 2:
        return
    last = sizes[-1]
    span = f"from {sizes[0]['rows']:,} to {last['rows']:,}"
    if batches := last.get("batches"):
        worst = max(
            batches[what]["time_beside_small"]["median"]
            for what in ("new players", "updated players")
        )
        yield Check(
            f"{store}: a batch of players, {span} entities, times", worst, 1.5, at_most=True
        )
    if reads := last.get("reads"):
        worst = max(read["time_beside_small"]["median"] for read in reads.values())
        yield Check(f"{store}: the worst read, {span} events, times", worst, 1.5, at_most=True)


def _others(store: str, measured: Results) -> Iterator[Check]:
    if store == "sqlite" and (singles := measured.get("singles")):
        shared = min(singles[what]["16"]["writes_a_commit"] or 0 for what in singles)
        yield Check("sqlite: single writes that share a commit, 16 connections", shared, 2)
    if loader := measured.get("loader"):
        share = loader["loader_s"] / (loader["server_s"] + loader["database_s"])
        yield Check(
            f"{store}: processor time of the loader beside the server's", share, 1, at_most=True
        )
        missing = loader["rows"] - loader["stored"]
        yield Check(f"{store}: rows loaded and not stored", missing, 0, at_most=True)
    if memory := measured.get("memory"):
        target = f"{store}: server's memory after {memory['batches']:,} batches, MiB"
        yield Check(target, memory["mib"], 200, at_most=True)

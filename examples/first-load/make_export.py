"""Writes four files in the shape of a real operator's export, for docs/guides/first-load.md.

    python make_export.py FOLDER

They are messy as exports are: no e-mail, country codes as numbers, dates in two forms, `NULL` as text, amounts
such as 1839.2800000000002, a few players without a country, and bets of players who are not in the file.
"""

from __future__ import annotations

import csv
import gzip
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

PLAYERS = 1_000
WITHOUT_COUNTRY = (17, 404, 811)
UNKNOWN_PLAYERS = 2
NO_POKER_SHARE = 0.8
PRODUCTS = ("sports-book-fixed-odds", "sports-book-live-action", "casino-boss-media")


def main(folder: Path) -> None:
    """Write the files; the same ones every time."""
    rng = random.Random(2005)  # noqa: S311 - made-up data
    folder.mkdir(parents=True, exist_ok=True)
    ids = [str(1_324_354 + number) for number in range(PLAYERS)]
    write(
        folder / "players.csv.gz",
        ["UserID", "Country", "Language", "RegDate", "FirstPay", "FirstPo", "Gender"],
        (
            [
                player,
                "" if number in WITHOUT_COUNTRY else rng.choice((40, 276, 300, 724)),
                rng.choice((1, 2, 8)),
                f"2005-02-{rng.randint(1, 28):02}",
                f"200503{rng.randint(1, 28):02}",
                "NULL" if rng.random() < NO_POKER_SHARE else f"200506{rng.randint(1, 28):02}",
                rng.choice((0, 1)),
            ]
            for number, player in enumerate(ids)
        ),
    )
    strangers = [str(9_000_000 + number) for number in range(UNKNOWN_PLAYERS)]
    write(
        folder / "sports_activity.csv.gz",
        ["UserID", "Product", "FirstActiveDate", "LastActiveDate", "Bets", "Stakes", "Winnings"],
        (
            [
                player,
                product,
                "2005-02-24",
                f"2005-09-{rng.randint(1, 28):02}",
                float(rng.randint(1, 300)),
                sum(rng.uniform(0, 99) for _ in range(9)),
                rng.uniform(0, 999),
            ]
            for player in ids + strangers
            for product in PRODUCTS
        ),
    )
    write(
        folder / "poker_chips.csv.gz",
        ["UserID", "Month", "ChipsBought", "ChipsSold"],
        ([player, "2005-06", rng.uniform(0, 99) / 3, rng.uniform(0, 99)] for player in ids[::3]),
    )
    write(
        folder / "balances.csv.gz",
        ["UserID", "Balance", "Last_Trans"],
        ([player, rng.uniform(-500, 500), "2005-06-15"] for player in ids[::4]),
    )


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a compressed CSV file."""
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

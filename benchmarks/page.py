"""`python -m benchmarks.page`: the tables and the chart of docs/performance.md, from latest.json.

A table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is rewritten.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.chart import chart
from benchmarks.grids import Grid, grids

LATEST: Final = Path("benchmarks/results/latest.json")
PAGE: Final = Path("docs/performance.md")
CHART: Final = Path("docs/performance.svg")

_SECTION: Final = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Rewrite both."""
    results = json.loads(LATEST.read_text())
    PAGE.write_text(rewritten(PAGE.read_text(), results))
    CHART.write_text(chart(results))
    return 0


def rewritten(page: str, results: Mapping[str, Any]) -> str:
    """The page with the tables of these results. Raises `KeyError` for a table that they do not have."""
    by_name = {grid.name: grid for grid in grids(results)}
    return _SECTION.sub(lambda found: found[1] + _markdown(by_name[found[2]]) + found[3], page)


def _markdown(grid: Grid) -> str:
    rows = [list(grid.columns), ["---"] * len(grid.columns), *map(list, grid.rows)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())

"""Tables of measurements, as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

Table = list[tuple[str, ...]]


def milliseconds(seconds: Iterable[float]) -> str:
    """Return the median, such as `35 ms`."""
    return f"{statistics.median(seconds) * 1000:,.0f} ms"


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """Return the median of the ratios of times that were taken in turn."""
    return statistics.median(a / b for a, b in zip(over, under, strict=True))


def show(table: Table) -> None:
    """Print the first column to the left and the others to the right, words to the left."""
    columns = max(map(len, table))
    rows = [[*row, *[""] * (columns - len(row))] for row in table]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [
        all(not row[number] or row[number][0].isdigit() for row in rows[1:])
        for number in range(columns)
    ]
    for row in rows:
        cells = [
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        print("  ".join(cells).rstrip(), flush=True)

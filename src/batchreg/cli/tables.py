"""How the columns of a table share the room: no word is ever broken."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest

GAP = 2  # blanks between columns


def room_on_stdout() -> int | None:
    """Return how many characters a line on stdout may have, None if it is not a terminal."""
    return os.get_terminal_size(1).columns if sys.stdout.isatty() else None


def columns(rows: Sequence[Sequence[str]], room: int | None) -> Iterator[str]:
    """Yield the lines of a table whose cells wrap between words where the room is limited.

    Elsewhere a row is a line of any length, and so it is where the longest words do not fit, but
    then without columns: their blanks would wrap.
    """
    import textwrap

    natural = [max(map(len, column)) for column in zip(*rows, strict=True)]
    widths = narrowed(rows, room) if room else natural
    if widths is None:
        yield from ((" " * GAP).join(row).rstrip() for row in rows)
        return
    for row in rows:
        cells = [
            textwrap.wrap(cell, width, break_long_words=False, break_on_hyphens=False) or [""]
            for cell, width in zip(row, widths, strict=True)
        ]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (f"{part:<{width}}" for part, width in zip(parts, widths, strict=True))
            yield (" " * GAP).join(padded).rstrip()


def narrowed(rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Return the widths of columns that share the room, None if their longest words do not fit.

    The widest column is narrowed first, and none to less than its longest word.
    """
    from rich.cells import cell_len

    columns = list(zip(*rows, strict=True))
    widths = [max(map(cell_len, column)) for column in columns]
    words = [[word for cell in column for word in cell.split()] for column in columns]
    least = [max(map(cell_len, some), default=0) for some in words]
    excess = sum(widths) + GAP * (len(columns) - 1) - room
    while excess > 0:
        slack = [(width, n) for n, width in enumerate(widths) if width > least[n]]
        if not slack:
            return None
        widths[max(slack)[1]] -= 1
        excess -= 1
    return widths

"""Draws traces as SVG. Positions are percentages, so one drawing fits a phone and a wide screen.

A mark has a shape as well as a color: a dot passes, a cross in a square is broken, a question mark
in a dashed ring is not known, and an empty ring is not reached.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from itertools import pairwise, zip_longest

from batchreg.doctor.page.traces import Figure, Mark, Node, Trace

# What XML does not allow, and what turns the direction of a text: a command would read unlike it runs.
UNPRINTABLE = re.compile(
    "[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)

MOST = 21  # characters of a label: an id of EC2
MIDDLE = 15  # of a row, in pixels from its top
SHAPES = {
    Mark.PASSES: '<circle r="5" class="dot"/>',
    Mark.BROKEN: '<rect x="-11" y="-11" width="22" height="22" rx="5" class="stop"/>'
    '<path d="M-4.5-4.5 4.5 4.5M4.5-4.5-4.5 4.5" class="cross"/>',
    Mark.UNKNOWN: '<circle r="9" class="ring"/>'
    '<text y="4" class="question" text-anchor="middle">?</text>',
    Mark.BEYOND: '<circle r="4" class="empty"/>',
}


def text(value: str) -> str:
    """Return a text for HTML and XML: escaped, without characters that cannot be printed."""
    return html.escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", value))


def figure(drawn: Figure) -> Iterator[str]:
    """Yield the stages' names and a row for each trace, as HTML with an SVG in each row."""
    stages = "".join(f"<span>{text(stage)}</span>" for stage in drawn.stages)
    yield f'<div class="row stages" aria-hidden="true"><span></span><div>{stages}</div></div>'
    yield '<ul class="rows">'
    for trace, following in zip_longest(drawn.traces, drawn.traces[1:]):
        detail = f"<small>{text(trace.detail)}</small>" if trace.detail else ""
        yield (
            f'<li class="row"><span class="name">{text(trace.name)}{detail}</span>'
            f"{svg(trace, following)}</li>"
        )
    yield "</ul>"


def svg(trace: Trace, following: Trace | None = None) -> str:
    """Return the drawing of one trace, with its title and description in words.

    Nodes have labels where that of the `following` trace, which comes below, is another one.
    """
    count = len(trace.nodes)
    below = following.nodes if following else (None,) * count
    placed = [
        (node, f"{(2 * number + 1) * 50 / count:.2f}%")
        for number, node in enumerate(trace.nodes)
        if node
    ]
    lines = [
        f'<line x1="{one}" x2="{other}" y1="{MIDDLE}" y2="{MIDDLE}" class="{_line(node)}"/>'
        for (_, one), (node, other) in pairwise(placed)
    ]
    labels = {
        node.stage: _label(node)
        for node, other in zip(trace.nodes, below, strict=True)
        if node and not (other and (node.at, node.mark) == (other.at, other.mark))
    }
    nodes = [
        f'<svg x="{place}" y="{MIDDLE}" overflow="visible" class="{node.mark.name.lower()}">'
        f"{SHAPES[node.mark]}{labels.get(node.stage, '')}</svg>"
        for node, place in placed
    ]
    height = 46 if any(labels.values()) else 30
    return (
        f'<svg class="track" width="100%" height="{height}" role="img">'
        f"<title>{text(_title(trace))}</title><desc>{text(_description(trace))}</desc>"
        f"{''.join((*lines, *nodes))}</svg>"
    )


def _line(to: Node) -> str:
    return {Mark.UNKNOWN: "unsure", Mark.BEYOND: "lost"}.get(to.mark, "way")


def _label(node: Node) -> str:
    """Return the name under a node, and its kind, which is shorter, for a narrow screen."""
    if node.mark is Mark.BEYOND or not (node.at and (node.kind or node.mark is Mark.BROKEN)):
        return ""
    name = node.at if len(node.at) <= MOST else f"{node.at[: MOST - 1]}…"
    return (
        f'<text y="25" text-anchor="middle" class="id">{text(name)}</text>'
        f'<text y="25" text-anchor="middle" class="kind">{text(node.kind)}</text>'
    )


def _title(trace: Trace) -> str:
    stop = trace.stop
    if stop is None:
        return f"{trace.name}: arrives"
    why = f": {stop.why}" if stop.why else ""
    return f"{trace.name}: {stop.mark.value} at {stop.stage}{why}"


def _description(trace: Trace) -> str:
    return ", ".join(
        f"{node.stage}{f' {node.at}' if node.at else ''}: {node.mark.value}"
        for node in trace.nodes
        if node
    )

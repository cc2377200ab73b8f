"""What doctor's page draws: the ways of packets and of credentials, as rows of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum


class Mark(Enum):
    """How a node is drawn. BEYOND: what comes after a broken one."""

    PASSES = "passes"
    BROKEN = "broken"
    UNKNOWN = "not known"
    BEYOND = "not reached"


@dataclass(frozen=True)
class Node:
    """A hop or a step; `at` is the name of what it is, `why` what is broken or unknown about it.

    `kind`: what it is, where its stage has several kinds.
    """

    stage: str
    mark: Mark
    at: str = ""
    why: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Trace:
    """The way to one destination; None stands for a stage that is not on it."""

    name: str
    nodes: tuple[Node | None, ...]
    detail: str = ""

    @property
    def stop(self) -> Node | None:
        """The node that is broken, else the one that nobody knows, None where all is well."""
        for mark in (Mark.BROKEN, Mark.UNKNOWN):
            for node in self.nodes:
                if node and node.mark is mark:
                    return node
        return None


@dataclass(frozen=True)
class Figure:
    """Traces with the same stages; `details` is what they have in common."""

    title: str
    details: tuple[str, ...]
    stages: tuple[str, ...]
    traces: tuple[Trace, ...]

    @property
    def broken(self) -> bool:
        return any(trace.stop and trace.stop.mark is Mark.BROKEN for trace in self.traces)

    def stops(self, mark: Mark) -> Iterator[tuple[str, str, list[str], list[str]]]:
        """Yield (what it is, why, names of its nodes, names of its traces) of what is marked so."""
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for trace in self.traces:
            for node in trace.nodes:
                if node and node.mark is mark and node.why:
                    what = node.kind or node.stage
                    found.setdefault((what, node.why), []).append((node.at, trace.name))
        for (what, why), some in found.items():
            yield what, why, [at for at, _ in some if at], [name for _, name in some]


def until_broken(nodes: Sequence[Node | None]) -> tuple[Node | None, ...]:
    """Return the nodes with those after a broken one as not reached."""
    shown: list[Node | None] = []
    broken = False
    for node in nodes:
        beyond = broken and node is not None and node.mark is not Mark.BROKEN
        shown.append(replace(node, mark=Mark.BEYOND, why="") if node and beyond else node)
        broken = broken or (node is not None and node.mark is Mark.BROKEN)
    return tuple(shown)

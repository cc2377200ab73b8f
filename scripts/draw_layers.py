"""Draw which parts of src/batchreg import which, and how deep: the highest part comes first."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Set
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "batchreg"
Graph = Mapping[str, Set[str]]


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return {dotted name: syntax tree} of every module, packages included."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports anywhere, in functions and for types as well."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "a relative import"
            for one in node.names:
                submodule = f"{node.module}.{one.name}"
                yield submodule if submodule in modules() else node.module


def between_modules() -> Graph:
    """Return {module: modules of ours that it imports}."""
    return {name: set(imports(tree)) & modules().keys() for name, tree in modules().items()}


def part_of(module: str) -> str:
    """Return the part that a module belongs to: a package, or a module beside the packages."""
    return module.split(".")[1] if "." in module else "__init__"


def between_parts() -> Graph:
    """Return {part: parts that it imports}."""
    graph: dict[str, set[str]] = {}
    for module, others in between_modules().items():
        parts = graph.setdefault(part_of(module), set())
        parts |= {part_of(other) for other in others} - {part_of(module)}
    return graph


def cycles(graph: Graph) -> list[set[str]]:
    """Return the groups of nodes that reach each other."""

    @functools.cache
    def reach(start: str) -> frozenset[str]:
        seen, waiting = set[str](), [start]
        while waiting:
            for other in graph[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return frozenset(seen)

    groups = {
        frozenset(other for other in reach(node) if node in reach(other))
        for node in graph
        if node in reach(node)
    }
    return [set(group) for group in groups]


def levels(graph: Graph) -> dict[str, int]:
    """Return {node: length of the longest chain of imports below it}, of a graph without cycles."""

    @functools.cache
    def level(node: str) -> int:
        return 1 + max(map(level, graph[node]), default=-1)

    return {node: level(node) for node in graph}


def picture(graph: Graph) -> str:
    """Return a line for each part, the highest level first, and a summary."""
    if found := cycles(graph):
        return "\n".join(f"cycle: {', '.join(sorted(group))}" for group in found)
    level = levels(graph)
    lines = [
        f"{level[part]}  {part:14} → {', '.join(sorted(graph[part], key=lambda p: (-level[p], p)))}"
        for part in sorted(graph, key=lambda part: (-level[part], part))
    ]
    arrows = sum(map(len, graph.values()))
    summary = f"{len(graph)} parts, {max(level.values()) + 1} levels, {arrows} arrows, no cycle"
    return "\n".join([*(line.removesuffix("→ ").rstrip() for line in lines), summary])


if __name__ == "__main__":
    print(picture(between_parts()))

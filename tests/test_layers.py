"""The packages are layers: each imports only what is below it, and one alone deals with people."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import draw_layers
import pytest

# From the top down. A part imports parts further down alone; `stack` and below, side by side, are
# what AWS has, what a registry says, and what a template is: render and registry ignore each other.
BELOW = {
    "__main__": {"cli"},
    "cli": {"doctor"},
    "doctor": {"attach"},
    "attach": {"cache"},
    "cache": {"stack"},
    "stack": {"jobs", "render"},
    "jobs": {"registry"},
    "registry": {"registry_login", "aws"},
    "render": {"aws"},
    "aws": {"waiting"},
    "errors": {"__init__"},
    "waiting": {"errors"},
    "registry_login": set(),  # it travels to the instances alone
    "__init__": set(),
}
PACKAGES = sorted(path.parent.name for path in draw_layers.SOURCE.glob("*/__init__.py"))
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb"}
STREAMS = {"sys.stdin", "sys.stdout", "sys.__stdin__", "sys.__stdout__", "print", "input"}


def below(part: str) -> set[str]:
    """Return everything that a part may import."""
    return BELOW[part].union(*map(below, BELOW[part]))


def outside_cli(*exempt: str) -> Iterator[tuple[str, ast.AST]]:
    """Yield (module, node) of all code outside of `cli`, but not of the parts in `exempt`."""
    for module, tree in draw_layers.modules().items():
        if draw_layers.part_of(module) not in {"cli", *exempt}:
            yield from ((module, node) for node in ast.walk(tree))


def uses(node: ast.AST) -> set[str]:
    """Return {"sys.stdout"} for that expression, and for the import of this name."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return {f"{node.value.id}.{node.attr}"}
    if isinstance(node, ast.ImportFrom):
        return {f"{node.module}.{one.name}" for one in node.names}
    return {node.id} if isinstance(node, ast.Name) else set()


@pytest.mark.parametrize("part", sorted(draw_layers.between_parts()))
def test_part_imports_only_parts_below_it(part):
    """Else a change at the bottom could need one at the top, and nothing could be used alone."""
    assert draw_layers.between_parts()[part] - below(part) == set()


def test_no_modules_import_each_other():
    """Not even inside functions: one could not be understood without the other."""
    assert draw_layers.cycles(draw_layers.between_modules()) == []


def test_only_cli_knows_click():
    """What acts does not ask: another front end could use it."""
    for module, tree in draw_layers.modules().items():
        if draw_layers.part_of(module) != "cli":
            assert "click" not in {name.split(".")[0] for name in draw_layers.imports(tree)}, module


def test_only_cli_reads_the_environment():
    """But for AWS's own variables, and on the instance, where there is no command line of ours."""
    found = [
        module for module, node in outside_cli("aws", "registry_login") if uses(node) & ENVIRONMENT
    ]
    assert found == []


def test_environment_of_aws_is_its_own():
    """A setting of batchreg's that is read there would bypass its options."""
    tree = draw_layers.modules()["batchreg.aws"]
    read = [node for node in ast.walk(tree) if uses(node) & ENVIRONMENT]
    names = [
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("os.getenv", "os.environ.get")
        and isinstance(node.args[0], ast.Constant)
    ]
    assert len(read) == len(names) > 0
    assert all(name.startswith("AWS_") for name in names)


def test_only_cli_reads_and_prints():
    """`__main__` flushes what was printed; a program on the instance has a console."""
    found = [
        (module, ast.unparse(node))
        for module, node in outside_cli("__main__", "registry_login")
        if uses(node) & STREAMS
    ]
    assert found == []


@pytest.mark.parametrize("name", PACKAGES)
def test_package_itself_imports_nothing(name):
    """What a command does not need costs it no time."""
    assert list(draw_layers.imports(draw_layers.modules()[f"batchreg.{name}"])) == []


def test_drawing_shows_a_cycle():
    """The tests above can fail."""
    assert draw_layers.cycles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [{"a", "b"}]
    assert draw_layers.picture({"a": {"b"}, "b": set()}).splitlines() == [
        "1  a              → b",
        "0  b",
        "2 parts, 2 levels, 1 arrows, no cycle",
    ]

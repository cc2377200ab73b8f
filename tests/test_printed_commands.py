"""Commands that batchreg prints carry the context they need, as the user gave it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import click
import draw_layers
import pytest

from batchreg.cli.commands import cli
from batchreg.cli.console import command_here
from batchreg.errors import BatchregError

COMMAND = re.compile(rf"\bbatchreg ({'|'.join(cli.commands)})\b")
# Sentences that name a command; nobody is told to run it.
NAMED = {
    "See batchreg deploy --help.",
    "for `batchreg submit --fargate`:",  # the command to make that stack follows
    " is not a companion stack of batchreg attach.",
    "batchreg doctor</title>",
    '<p class="program">batchreg doctor</p>',
    "Cancelled by batchreg cancel",
    "  1  in a new compute environment and job queue (batchreg deploy)",  # an answer to choose
    "batchreg rotate",  # what Systems Manager shows as the reason of a command
}
# Comments in the settings of an engine, which are a file, and know their stack.
FILES = {"batchreg.jobs.engines"}


def literals(tree: ast.AST) -> Iterator[str]:
    """Yield the strings of a module, but not docstrings and what `--help` shows."""
    hidden = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.keyword) and node.arg in ("example", "help")
        for part in ast.walk(node)
    }
    hidden |= {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)
    }  # a docstring
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in hidden:
            yield from [node.value] if isinstance(node.value, str) else []


def test_no_text_has_a_command_of_its_own():
    """One function writes them all: a command without its region is about another stack."""
    found = {
        (module, text)
        for module, tree in draw_layers.modules().items()
        if module not in FILES
        for text in literals(tree)
        if COMMAND.search(text) and not any(named in text for named in NAMED)
    }
    assert found == set()


def written(line: str, *words: str) -> str:
    """Return what a command line makes of the words of a command."""
    with cli.make_context("batchreg", line.split()) as root:
        name, command, arguments = cli.resolve_command(root, [*root._protected_args, *root.args])
        assert command
        with command.make_context(name, arguments, parent=root):
            return command_here(*words)


@pytest.mark.parametrize(
    ("line", "words", "text"),
    [
        ("status", "doctor", "doctor"),
        ("status", "status --stack-name batchreg", "status"),
        ("status", "status --stack-name other", "status --stack-name other"),
        (
            "status --stack-name batchreg",
            "deploy --stack-name batchreg",
            "deploy --stack-name batchreg",
        ),
        ("submit --stack-name lab x", "doctor --job 1", "doctor --stack-name lab --job 1"),
        ("submit --stack-name lab x", "logs --follow 1", "logs --follow 1"),
        ("status --stack-name lab", "status --queue q", "status --queue q"),
        (
            "deploy --region eu-west-3 --profile lab --endpoint-url http://x",
            "status",
            "status --region eu-west-3 --profile lab --endpoint-url http://x",
        ),
        ("attach x --region eu-west-3", "render --fargate", "render --fargate"),
        ("attach x --region eu-west-3", "detach x", "detach x --region eu-west-3"),
        ("attach x --stack-name lab", "detach x", "detach x"),
    ],
)
def test_command_has_the_context_of_the_line_that_prints_it(line, words, text):
    """What is the default, and what the command does not take, stays out."""
    assert written(line, *words.split()) == f"batchreg {text}"


def test_command_repeats_what_a_named_file_says(tmp_path):
    """The next command does not read that file; one in the folder it does."""
    path = tmp_path / "lab.yaml"
    path.write_text("region: eu-west-3\nstack_name: lab\n")
    assert written(f"status --config {path}", "doctor") == (
        "batchreg doctor --stack-name lab --region eu-west-3"
    )


def test_error_from_a_lower_layer_gets_its_place_once():
    """What has no screen names the words of a command alone."""
    error = BatchregError("It is attached.", "Detach it first:", ("detach", "lab env"))
    assert str(error) == "It is attached. Detach it first: batchreg detach 'lab env'"
    for _ in range(2):
        error.place(lambda *words: f"batchreg {' '.join(words)} --region eu-west-3")
    assert error.step == "Detach it first: batchreg detach lab env --region eu-west-3"


def test_without_a_command_line_a_command_is_its_words():
    """As for somebody who imports a module of ours."""
    assert click.get_current_context(silent=True) is None
    assert command_here("status", "--stack-name", "lab") == "batchreg status --stack-name lab"

"""The help: complete, uncut at 80 columns, with an example that is right."""

from __future__ import annotations

import re
import shlex

import click
import pytest

from batchreg.cli.commands import cli
from batchreg.cli.grammar import Command, Option

COMMANDS = [pytest.param(command, id=name) for name, command in cli.commands.items()]


def help_of(command: click.Command) -> str:
    """Return the help of a command on a terminal of 80 columns."""
    context = command.context_class(command, info_name=command.name, terminal_width=80)
    return command.get_help(context)


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("command", [pytest.param(cli, id="batchreg"), *COMMANDS])
def test_help_fits_80_columns(command):
    """Nothing wraps on the narrowest terminal that people use."""
    assert max(map(len, help_of(command).splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_summary_is_a_sentence_that_is_shown_whole(command):
    """In the list of commands, and at the top of the command's own help."""
    assert re.fullmatch("[A-Z].*[.]", command.summary)
    assert f"{command.name} {command.summary}" in words(help_of(cli))
    assert command.summary in words(help_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained_whole_below_a_heading(command):
    """What it does, what it takes, and what it excludes: no option is its name alone."""
    shown = help_of(command)
    for option in command.params:
        if isinstance(option, click.Argument):
            continue
        assert isinstance(option, Option)
        assert re.fullmatch(r"[A-Z-].*[.](  \[.*\])?", option.help), option.name
        assert words(option.help) in words(shown)
        assert option.is_flag or option.metavar
        (section,) = re.findall(
            rf"(?ms)^({re.escape(option.heading)}:$.*?)(?:^\S|\Z)", shown + "\n"
        )
        assert f"{option.opts[-1]} " in section


@pytest.mark.parametrize("command", COMMANDS)
def test_no_name_of_an_option_is_broken(command):
    """A name that is copied from the help works."""
    assert not re.search(r"--[a-z-]*-\n", help_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_example_is_one_that_the_command_accepts(command, tmp_path, monkeypatch):
    """Its options exist, and their values fit."""
    monkeypatch.chdir(tmp_path)
    assert isinstance(command, Command)
    program, name, *arguments = shlex.split(command.example)
    assert (program, name) == ("batchreg", command.name)
    assert help_of(command).endswith(f"Example:\n  {command.example}")
    command.make_context(name, arguments)


def test_width_of_the_terminal_is_the_helps(batchreg):
    """COLUMNS says it, as for other programs; without a terminal it is 80."""
    narrow = batchreg("render", "--help", environ={"COLUMNS": "60"}).stdout.splitlines()
    assert 50 < max(map(len, narrow)) <= 60
    for nonsense in ("", "0", "many", "-1"):
        shown = batchreg("deploy", "--help", environ={"COLUMNS": nonsense}).stdout
        assert 70 < max(map(len, shown.splitlines())) <= 80

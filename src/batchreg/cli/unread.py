"""Variables and files that look like batchreg's, but that nothing reads."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Set

import click

from batchreg.cli import PREFIX
from batchreg.cli.output import report

PASSWORD = f"{PREFIX}PASSWORD"


def check(known: Set[str], flags: Mapping[str, str], context: click.Context) -> None:
    """Warn about each BATCHREG_ variable that no command reads, and name the right one.

    `known` are the variables that commands read; `flags` is {variable that an option might have
    had: the option}.

    Raises UsageError for two that people would rely on: a confirmation, and a misspelled dry run.
    """
    known = {PASSWORD, *known, *_variables(context)}
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in known or not os.environ[name]:
            continue
        # Without the prefix, which makes all of them alike.
        names = {each.removeprefix(PREFIX): each for each in known}
        found = difflib.get_close_matches(name.removeprefix(PREFIX), names, n=1, cutoff=0.7)
        near = [names[each] for each in found]
        if name == f"{PREFIX}YES" and "yes" in context.params:
            raise click.UsageError(
                f"{name} is not supported, because it would confirm every command. Use --yes.",
                context,
            )
        if name == f"{PREFIX}PASSWORD_STDIN":
            step = f"Use --password-stdin, or set {PASSWORD}."
        elif name in flags:
            step = f"Use {flags[name]} on the command line."
        elif near:
            step = f"Did you mean {near[0]}?"
            if near[0] == f"{PREFIX}DRY_RUN" and "dry_run" in context.params:
                raise click.UsageError(f"Nothing reads {name}. {step}", context)
        else:
            step = "The reference lists the variables that batchreg reads."
        report(f"warning: nothing reads {name}. {step}")


def _variables(context: click.Context) -> list[str]:
    """Return the variables that the registries of this run name as the source of a password."""
    return re.findall(r"password=env:(\w+)", " ".join(context.params.get("registries", ())))

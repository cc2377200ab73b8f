"""Products on stdout or in a file, and the one line of a failure on stderr."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

from batchreg.errors import BatchregError


def write(text: str, output: str | None) -> None:
    """Write to stdout, or to a file in one step: it is complete, or unchanged."""
    if output in (None, "-", "/dev/stdout"):
        click.echo(text, nl=False)
        return
    from pathlib import Path

    given = Path(str(output))
    try:
        if given.exists() and not given.is_file():  # a device or a pipe
            given.write_text(text, encoding="utf-8")
            return
        path = Path(os.path.realpath(given))
        scratch = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            scratch.write_text(text, encoding="utf-8")
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BatchregError(f"Cannot write {output}: {error.strerror}.") from None


def say(text: str) -> None:
    """Print a line whose reader may leave, as `head` does, without ending the command.

    For commands whose exit status tells more than their output: a verdict, or a job's exit code.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        drop(sys.stdout)


def report(message: str) -> None:
    """Say the one line on stderr; over the ^C, if a terminal has just shown one."""
    start = "\r" if sys.stderr.isatty() else ""
    try:
        sys.stderr.write(f"{start}batchreg: {message}\n")
    except OSError:
        drop(sys.stderr)


def one_line(message: str) -> str:
    return " ".join(message.split())


def drop(stream: IO[str]) -> None:
    """Keep Python from failing again when it flushes the stream at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

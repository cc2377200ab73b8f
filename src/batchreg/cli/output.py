"""Products on stdout or in a file, and the one line of a failure on stderr."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

from batchreg.errors import BatchregError


def write(text: str, output: str | None) -> None:
    """Write to stdout, or to a file in one step: it is complete, or as it was."""
    if output in (None, "-"):
        click.echo(text, nl=False)
        return
    from pathlib import Path

    path = os.path.realpath(str(output))
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe
            Path(path).write_text(text, encoding="utf-8")
            return
        scratch = f"{path}.{os.getpid()}"
        try:
            Path(scratch).write_text(text, encoding="utf-8")
            os.replace(scratch, path)
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise BatchregError(f"Cannot write {output}: {error.strerror}.") from None


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
    """Keep Python from failing once more when it flushes the stream at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

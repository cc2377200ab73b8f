"""Products on stdout or in a file, and the one line of a failure on stderr."""

from __future__ import annotations

import os
import sys
from typing import IO

import click

from batchreg.errors import BatchregError

STDOUT = (None, "-", "/dev/stdout")


def write(text: str, output: str | None, *, private: bool = False) -> None:
    """Write to stdout, or to a file in one step: it is complete, or unchanged.

    A `private` file can be read by its owner alone.
    """
    if output in STDOUT:
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
            if private:
                scratch.touch(0o600, exist_ok=False)
            scratch.write_text(text, encoding="utf-8")
            if path.exists() and not private:  # who could read the file can do so afterwards
                scratch.chmod(path.stat().st_mode & 0o777)
            os.replace(scratch, path)
        finally:
            scratch.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise BatchregError(f"Cannot write {output}: {error.strerror}.") from None


def check_writable(output: str | None) -> None:
    """Raise a BatchregError if `write` could not write there, before anything else is done."""
    if output in STDOUT:
        return
    import tempfile
    from pathlib import Path

    path = Path(os.path.realpath(str(output)))
    if path.is_dir():
        raise BatchregError(f"Cannot write {output}: it is a directory.", "Name a file in it.")
    if not path.parent.is_dir():
        raise BatchregError(
            f"Cannot write {output}: the directory {path.parent} does not exist.",
            "Create it, or name a file elsewhere.",
        )
    if path.exists() and not path.is_file():
        return  # a device or a pipe
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise BatchregError(
            f"Cannot write {output}: {error.strerror}.", "Name a file in a directory of your own."
        ) from None


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

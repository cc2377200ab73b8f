"""How the command line ends: each way becomes an exit status, and a failure one line on stderr."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click

from batchreg import waiting
from batchreg.cli.commands import cli
from batchreg.cli.display import StderrDisplay
from batchreg.cli.options import PLACES
from batchreg.cli.output import drop, one_line, report
from batchreg.errors import BatchregError, Interrupted

NAME, COMPLETION = "batchreg", "_BATCHREG_COMPLETE"


def main() -> int:
    """Run the command line and return the exit status: 0, 1 failure, 2 usage, 130 after Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by `2>&-`: its number must not go to a socket
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115  open until the process ends
    sys.unraisablehook = _unraisable
    status = _status()
    # A request that is still under way must not delay a second Ctrl-C.
    _on_interrupt(lambda *_: os._exit(status))
    return status


def _status() -> int:
    try:
        try:
            _on_interrupt(_interrupt)
            status = _run()
            sys.stdout.flush()
        finally:
            _on_interrupt(lambda *_: None)  # the outcome is known: the last line is printed whole
            waiting.show_on(None)
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        report(f"a command is missing.\n\n{error.message}")
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else NAME
        problem = f"{one_line(_usage(error))} See `{command} --help`."
        if "--json" in sys.argv:  # a program reads the last line, whatever went wrong
            import json  # a millisecond of every --help

            print(json.dumps({"type": "result", "error": problem}), flush=True)
        report(problem)
        return error.exit_code
    except click.ClickException as error:
        report(one_line(error.format_message()))
        return error.exit_code
    except BatchregError as error:
        report(str(error))
        return error.status
    except (click.Abort, KeyboardInterrupt, Interrupted) as error:
        report(str(error) or "interrupted; no changes were made.")
        return 128 + _received
    except BrokenPipeError:
        # The reader has left, as `head` does, which is not a failure; nobody reads the rest.
        drop(sys.stdout)
        return 0
    except Exception as error:
        line = _explain(error)
        if line is None:
            raise
        drop(sys.stdout)
        report(line)
        return 1


def _run() -> int:
    """Run the command that the arguments name; click's own `main` hides Ctrl-C and closed pipes."""
    if question := os.environ.get(COMPLETION):
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, NAME, COMPLETION, question)
    waiting.show_on(StderrDisplay())
    try:
        with cli.make_context(NAME, sys.argv[1:]) as context:
            status = cli.invoke(context)
    except click.exceptions.Exit as end:  # --help and --version
        return end.exit_code
    return status if isinstance(status, int) else 0


def _usage(error: click.UsageError) -> str:
    """Return click's message in our words, with the variable or the line that a value is from."""
    options = error.ctx.command.params if error.ctx else []
    if "unexpected extra argument" in error.message:
        stack = any(option.name == "stack_name" for option in options)
        return "Unexpected argument (not quoted: it may be a password)." + (
            " Did you mean --stack-name?" if stack else ""
        )
    if isinstance(error, click.NoSuchOption) and not error.possibilities:
        command = any(option.name == "command" for option in options)
        return error.format_message() + (
            " Put -- before the container's command." if command else ""
        )
    if isinstance(error, click.BadParameter) and error.ctx and error.param and error.param.name:
        name = error.param.name
        source = error.ctx.get_parameter_source(name)
        if source is click.core.ParameterSource.DEFAULT_MAP:
            return f"{error.ctx.meta[PLACES][name]}: {error.message}"
        if source is click.core.ParameterSource.ENVIRONMENT:
            variables = error.param.envvar
            names = [variables] if isinstance(variables, str) else variables or ()
            given = next((variable for variable in names if os.environ.get(variable)), name)
            return f"Invalid value in {given}: {error.message}"
    return error.format_message()


# What ends batchreg as Ctrl-C does: what it has begun is cleaned up, or goes on and is named.
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_received = int(signal.SIGINT)


def _interrupt(number: int, frame: Any) -> None:
    global _received
    _received = number
    waiting.forget()
    raise KeyboardInterrupt


def _on_interrupt(handler: Any) -> None:
    for number in ENDINGS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup or `&` leave it
            signal.signal(number, handler)


def _unraisable(problem: Any) -> None:
    """End at once after a Ctrl-C inside a destructor or a callback, where Python only notes it."""
    if problem.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(problem)
        return
    report("interrupted; to continue, run the same command again.")
    os._exit(130)


def _explain(error: Exception) -> str | None:
    """Return one line for a failure of AWS or of the output, None for a bug of ours."""
    if "botocore" in sys.modules:
        from batchreg import aws

        line = aws.explain(error)
        if line:
            return line
    if isinstance(error, OSError):
        return (
            f"{error.filename}: {error.strerror}."
            if error.filename
            else f"Cannot write the output: {error.strerror or error}."
        )
    return None

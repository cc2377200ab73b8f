"""What a shell completes besides commands and options: files, and what AWS and its files name.

A completion must be quick and silent, whatever is missing: a complaint would land in the middle of
the line that somebody types. Regions and profiles are read from files, without botocore. AWS gets
CALL_SECONDS; an answer that comes later is not used.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import click
from click.shell_completion import CompletionItem

from batchreg.cli import target

CALL_SECONDS = 0.8
MOST = 100  # what nobody would read through

Names = Mapping[str, str]  # {name: what it is, which zsh and fish show}


def complete(
    what: str, ctx: click.Context, incomplete: str, settings_file: str
) -> list[CompletionItem]:
    """Return what a word may become; `what` is a key of FILES or ASKED, or "files"."""
    if what == "files":
        return [CompletionItem(incomplete, type="file")]
    names: Names = {}
    with suppress(Exception):  # whatever it is, it is not worth a line
        names = FILES[what]() if what in FILES else _ask(ASKED[what], ctx, settings_file)
    fitting = [name for name in names if name.startswith(incomplete)]
    return [CompletionItem(name, help=names[name] or None) for name in fitting[:MOST]]


# --- From files ---


def _regions() -> Names:
    """Return {region: where it is}, from the data that botocore ships."""
    spec = find_spec("botocore")  # does not import it
    folders = (spec and spec.submodule_search_locations) or [""]
    with open(os.path.join(folders[0], "data", "partitions.json"), encoding="utf-8") as file:
        partitions = json.load(file)["partitions"]
    return {
        name: str(about.get("description", ""))
        for partition in partitions
        for name, about in partition["regions"].items()
        if not name.endswith("-global")
    }


def _profiles() -> Names:
    """Return the profiles of AWS's two files."""
    names: dict[str, str] = {}
    for variable, place, pattern in (
        ("AWS_CONFIG_FILE", "~/.aws/config", r"\s*\[\s*(?:profile\s+)?(.+?)\s*\]"),
        ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials", r"\s*\[\s*(.+?)\s*\]"),
    ):
        path = os.path.expanduser(os.environ.get(variable) or place)
        with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                found = re.match(pattern, line)
                if found and not re.match(r"(sso-session|services)\s", found[1]):
                    names[found[1].strip("\"'")] = ""
    return names


# --- From AWS ---

Client = Callable[[str], Any]


def _stacks(client: Client, _: click.Context) -> Names:
    return dict.fromkeys(target.batchreg_stacks(client("cloudformation")), "")


def _queues(client: Client, _: click.Context) -> Names:
    found = client("batch").describe_job_queues()["jobQueues"]
    return {one["jobQueueName"]: one.get("status", "") for one in found}


def _environments(client: Client, _: click.Context) -> Names:
    found = client("batch").describe_compute_environments()["computeEnvironments"]
    return {one["computeEnvironmentName"]: one.get("status", "") for one in found}


def _attachable(client: Client, ctx: click.Context) -> Names:
    return {**_environments(client, ctx), **_queues(client, ctx)}


def _jobs(client: Client, ctx: click.Context) -> Names:
    """Return the jobs of the queue, or of the stack's queues, with what tells them apart."""
    from batchreg.jobs import listing
    from batchreg.stack import states

    queues = [ctx.params["queue"]] if ctx.params.get("queue") else []
    if not queues:
        stack = states.find(client("cloudformation"), ctx.params["stack_name"])
        queues = stack.arns("JobQueueArn") if stack else []
    found = listing.look(client("batch"), queues)[:MOST]
    return {job.id: f"{job.name}, {job.status}" for job in found}


def _ask(
    find: Callable[[Client, click.Context], Names], ctx: click.Context, settings_file: str
) -> Names:
    """Return what AWS answers in time."""
    from batchreg import aws

    # A credential process may write there, and so may a library.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    place = {
        **_settings(ctx, settings_file),
        **{name: ctx.params.get(name) for name in PLACE if ctx.params.get(name)},
    }
    found: list[Names] = []

    def look() -> None:
        with suppress(Exception):
            found.append(
                find(lambda service: aws.quick_client(service, CALL_SECONDS, **place), ctx)
            )

    import botocore.session  # noqa: F401  half of the time, which no deadline shortens

    thread = threading.Thread(target=look, daemon=True)  # the program ends without it
    thread.start()
    thread.join(CALL_SECONDS)
    return found[0] if found else {}


PLACE = ("profile", "region", "endpoint_url")


def _settings(ctx: click.Context, settings_file: str) -> dict[str, Any]:
    """Return the profile and the region of batchreg.yaml, which parsing leaves out here."""
    from pathlib import Path

    from batchreg.cli import config
    from batchreg.cli.grammar import Command

    if not os.path.exists(settings_file) or not isinstance(ctx.command, Command):
        return {}
    found: Iterable[tuple[str, Any]] = config.read(
        Path(settings_file), config.keys(ctx.command.group)
    ).items()
    return {key: value for key, (value, _) in found if key in PLACE}


FILES: dict[str, Callable[[], Names]] = {"regions": _regions, "profiles": _profiles}
ASKED: dict[str, Callable[[Client, click.Context], Names]] = {
    "stacks": _stacks,
    "queues": _queues,
    "environments": _environments,
    "attachable": _attachable,
    "jobs": _jobs,
}

"""The stack that a command is about: found, created by batchreg, or an error."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource

from batchreg import __version__
from batchreg.aws import Connect, Session
from batchreg.cli.console import command_here
from batchreg.errors import BatchregError
from batchreg.jobs import listing
from batchreg.stack import states
from batchreg.stack.screen import Screen
from batchreg.stack.states import Stack

if TYPE_CHECKING:
    from batchreg.render.text import Deployed

MOST_NAMES = 5  # in a hint


@dataclass(frozen=True)
class Target:
    """A stack by name, and how to reach it.

    `client`: of CloudFormation. `stack`: None if it does not exist.
    """

    name: str
    session: Session
    client: Any
    stack: Stack | None

    @property
    def region(self) -> str:
        return str(self.client.meta.region_name)

    def existing(self) -> Stack:
        """Return the stack; BatchregError, with the stacks that do exist, if there is none."""
        return self.stack or self._missing()

    def template(self) -> str:
        """Return the text of the deployed template, empty if there is none."""
        return states.template_of(self.client, self.stack) if self.stack else ""

    def _missing(self) -> NoReturn:
        names = batchreg_stacks(self.client)
        near = difflib.get_close_matches(self.name, names, n=1)
        hint = (
            f"Did you mean {near[0]}? "
            if near
            else f"The stacks of batchreg there: {', '.join(names[:MOST_NAMES])}. "
            if names
            else "Check --region. "
        )
        raise BatchregError(
            f"There is no stack {self.name} in {self.region}.",
            f"{hint}To create it: {command_here('deploy', '--stack-name', self.name)}",
        )


def session(
    *,
    profile: str | None = None,
    region: str | None = None,
    endpoint_url: str | None = None,
    connect: Connect = Session,
) -> Session:
    """Return the session for the options that say where AWS is."""
    return connect(profile=profile, region=region, endpoint=endpoint_url)


def is_named() -> bool:
    """Tell whether the user named a stack on the command line."""
    return _source() is ParameterSource.COMMANDLINE


def is_given() -> bool:
    """Tell whether the user named a stack anywhere: it is not just the default."""
    return _source() not in (None, ParameterSource.DEFAULT)


def _source() -> ParameterSource | None:
    context = click.get_current_context(silent=True)
    return context.get_parameter_source("stack_name") if context else None


def check_name(name: str) -> None:
    """Refuse a name that no stack can have, as wrong usage."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise click.UsageError(
            f"{name!r} cannot be a stack's name: use letters, digits and hyphens, a letter first."
        )


def find(name: str, **place: Any) -> Target:
    """Look for the stack; `place` is for `session`."""
    check_name(name)
    found = session(**place)
    client = found.client("cloudformation")
    return Target(name, found, client, states.find(client, name))


def job_queues(found: Session, stack_name: str, queue: str | None) -> list[str]:
    """Return where to look for jobs: the queue, the stack's queues, or all in the region.

    The last if there is no stack and the user named none.
    """
    if queue:
        if is_named():
            raise click.UsageError("Give one of --stack-name and --queue.")
        return [queue]
    check_name(stack_name)
    client = found.client("cloudformation")
    place = Target(stack_name, found, client, states.find(client, stack_name))
    if place.stack is None and not is_given():
        pages = found.client("batch").get_paginator("describe_job_queues").paginate()
        return [each["jobQueueArn"] for page in pages for each in page["jobQueues"]]
    queues = place.existing().arns("JobQueueArn")
    if not queues:
        raise BatchregError(
            f"{stack_name} has no job queue.",
            f"For its status: {command_here('status', '--stack-name', stack_name)}",
        )
    return queues


class JobMissing(BatchregError):
    """No job has the id that the user gave, or one that starts like it."""


def job_id(found: Session, text: str, stack_name: str, queue: str | None = None) -> str:
    """Return the whole id of the job that the user means by an id or by the start of one.

    A whole id needs no call. BatchregError if the start fits several jobs, JobMissing if none.
    """
    text = text.lower()
    if listing.is_whole(text):
        return text
    place = ["--queue", queue] if queue else ["--stack-name", stack_name]
    if not queue and not is_given():
        place = []
    step = f"To list the jobs: {command_here('jobs', *place)}"
    if not listing.can_start(text):
        raise JobMissing(f"{text!r} is not the id of a job, or the start of one.", step)
    queues = job_queues(found, stack_name, queue)
    jobs = listing.meant(listing.look(found.client("batch"), queues), text)
    if not jobs:
        names = ", ".join(each.rpartition("/")[2] for each in queues[:MOST_NAMES])
        raise JobMissing(
            f"No job in {names or 'this region'} has an id that starts with {text}.", step
        )
    if len(jobs) > 1:
        some = [
            f"{start} ({job.name}, {job.status})"
            for start, job in zip(listing.short(jobs), jobs, strict=True)
        ]
        more = f" and {len(some) - MOST_NAMES} more" if len(some) > MOST_NAMES else ""
        raise BatchregError(
            f"{len(jobs)} jobs have an id that starts with {text}: "
            f"{', '.join(some[:MOST_NAMES])}{more}.",
            "Give more of the id.",
        )
    return jobs[0].id + text[len(re.split("[:#]", text)[0]) :]


def require_batchreg_stack(
    stack: Stack | None, body: str, screen: Screen, *, force: bool = False
) -> Deployed | None:
    """Return what the template of a stack says; BatchregError for one that is not batchreg's.

    With `force` such a stack is allowed, and the answer is None.
    """
    from batchreg.render.text import read_template

    deployed = read_template(body) if body else None
    if stack and body and not deployed and not force:
        raise BatchregError(
            f"{stack.name} was not created by batchreg.",
            "Choose another --stack-name, or give --force.",
        )
    if deployed and deployed.version != __version__:
        screen.note(f"The stack was created by batchreg {deployed.version}; this is {__version__}.")
    return deployed


def refuse_companion(deployed: Deployed | None, name: str) -> None:
    """Refuse a companion stack, which only `attach` and `detach` can change."""
    if deployed and deployed.attached:
        environment = str(deployed.attached["ComputeEnvironment"])
        raise BatchregError(
            f"{name} is the companion stack of the compute environment {environment}.",
            f"To change it: {command_here('attach', environment)}",
        )


def batchreg_stacks(client: Any) -> list[str]:
    """Return the names of stacks here that look like batchreg's; at most one page of stacks."""
    names: list[str] = []
    with suppress(Exception):  # it is only for a hint: without permission there is none
        for stack in client.describe_stacks()["Stacks"]:
            if states.may_be_ours(one["ParameterKey"] for one in stack.get("Parameters", ())):
                names.append(stack["StackName"])
    return sorted(names)

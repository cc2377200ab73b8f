"""`status`: show what the stack looks like now."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import click

from batchreg.attach import status as attached
from batchreg.attach.status import QueueStatus
from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, TextScreen, screen
from batchreg.cli.target import Target
from batchreg.stack import states
from batchreg.stack.status import Part, Status, look

if TYPE_CHECKING:
    from batchreg.attach.survey import Standing

WIDTH = 80


def run(
    *,
    stack_name: str,
    queue: str | None = None,
    compute_environment: str | None = None,
    outputs: bool = False,
    json_output: bool,
    **place: Any,
) -> int:
    """Print what a stack, a queue or an environment looks like; `place`: for `target.session`."""
    if sum(map(bool, (target.is_named(), queue, compute_environment))) > 1:
        raise click.UsageError("Give one of --stack-name, --queue and --compute-environment.")
    show = screen(json_output)
    if queue or compute_environment:
        if outputs:
            raise click.UsageError("--outputs is about a stack: give --stack-name.")
        about = {"queue": queue, "compute_environment": compute_environment}
        wanted = ShowQueue(**about, stack_name=stack_name, place=place, screen=show)
        return runner.run(wanted, show, **about)
    command = Show(stack_name=stack_name, outputs=outputs, place=place, screen=show)
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class Show:
    """The stages of `status`."""

    stack_name: str
    outputs: bool
    place: dict[str, Any]
    screen: AnyScreen

    def gather(self) -> str:
        target.check_name(self.stack_name)
        return self.stack_name

    def resolve(self, name: str) -> Target:
        return target.find(name, **self.place)

    def ask(self, found: Target) -> Target:
        return found

    def act(self, found: Target) -> int:
        stack = found.existing()
        if self.outputs and isinstance(self.screen, TextScreen):
            values = "".join(f"{name}: {value}\n" for name, value in stack.outputs.items())
            self.screen.product("result", values)
            return 0
        seen = look(found.session.client, stack)
        standing = _standing(found, seen.attached) if seen.attached else None
        shown = [
            *lines(seen, self.screen),
            *(lines_of_attachment(standing, seen.status, self.screen) if standing else ()),
        ]
        shown += settings(seen)
        fields = {**asdict(seen), "attached": asdict(standing) if standing else None}
        self.screen.product("result", "".join(f"{line}\n" for line in shown), **fields)
        return 0


def _standing(found: Target, environment: str) -> Standing | None:
    """Return how the environment of a companion stack is doing, None if it is gone."""
    from batchreg.attach import survey

    clients = found.session.client
    batch = clients("batch")
    answers = batch.describe_compute_environments(computeEnvironments=[environment])
    if not answers["computeEnvironments"]:
        return None
    queues = [
        queue
        for page in batch.get_paginator("describe_job_queues").paginate()
        for queue in page["jobQueues"]
    ]
    return survey.standing(
        survey.survey(clients, answers["computeEnvironments"][0], queues, found.name)
    )


def lines_of_attachment(standing: Standing, stack: str, screen: AnyScreen) -> Iterator[str]:
    """Yield the lines about an attached environment; `stack`: the state of its companion stack."""
    again = screen.command("attach", standing.environment)
    state, reason = {
        "ours": ("yes", ""),
        "theirs": ("reverted", f"It has its own launch template again. To attach it: {again}"),
        "changed": ("changed", f"It has another launch template. To attach that: {again}"),
    }[standing.uses]
    if standing.uses == "theirs" and stack == "CREATE_IN_PROGRESS":
        state, reason = "not yet", f"If attach was interrupted, continue it: {again}"
    yield from row(
        "Attached", state, f"{standing.environment}, created by {standing.created_by}", reason
    )
    for newer in standing.newer:
        yield from row("Launch template", "newer", newer, f"To copy it again: {again}")


@dataclass(frozen=True, kw_only=True)
class ShowQueue:
    """The stages of `status` about a queue or an environment; `stack_name` may be its stack."""

    queue: str | None
    compute_environment: str | None
    stack_name: str
    place: dict[str, Any]
    screen: AnyScreen

    def gather(self) -> None:
        target.check_name(self.stack_name)

    def resolve(self, _: None) -> QueueStatus:
        return attached.look(
            target.session(**self.place).client,
            queue=self.queue or "",
            name=self.compute_environment or "",
            stacks=[self.stack_name],
        )

    def ask(self, seen: QueueStatus) -> QueueStatus:
        return seen

    def act(self, seen: QueueStatus) -> int:
        text = "".join(f"{line}\n" for line in lines_of_queue(seen, self.screen))
        self.screen.product("result", text, **asdict(seen))
        return 0


def lines_of_queue(seen: QueueStatus, screen: AnyScreen) -> Iterator[str]:
    """Put the status of a queue into lines that fit 80 columns."""
    for part in seen.job_queues:
        yield from part_row("Job queue", part)
    for part in seen.compute_environments:
        yield from part_row("Compute environment", part)
        yield from row("  created by", seen.created_by[part.name])
    if seen.jobs:
        yield from jobs_row(seen.jobs)
    if seen.stack:
        yield from row("Stack", "attached" if seen.attached else "deployed", seen.stack)
        for host in seen.registries:
            yield from row("Registry", host)
    else:
        yield from row("Credentials", "none from batchreg")
        for name in seen.with_instances:
            yield f"{'':<19}  To add some: {screen.command('attach', name)}"


def row(kind: str, state: str, name: str = "", reason: str = "") -> Iterator[str]:
    """Yield a line about one thing, and its reason below."""
    yield f"{kind:<19}  {state}  {name}".rstrip()
    if reason:
        yield f"{'':<19}  {' '.join(reason.split())}"


def part_row(kind: str, part: Part) -> Iterator[str]:
    """Yield the lines about a queue or an environment; a healthy one's reason is left out."""
    healthy = (part.status, part.state) == ("VALID", "ENABLED")
    yield from row(kind, f"{part.status}, {part.state}", part.name, "" if healthy else part.reason)


def jobs_row(jobs: dict[str, int]) -> Iterator[str]:
    counts = [f"{count} {state}" for state, count in jobs.items() if count]
    yield from row("Jobs", ", ".join(counts) or "none")


def settings(seen: Status) -> Iterator[str]:
    """Yield the settings of a stack by the labels of its template, in lines of 80 columns."""
    width = max((len(each.label) for each in seen.settings), default=0)
    for each in seen.settings:
        values = textwrap.wrap(each.value.replace(",", ", "), WIDTH - width - 2) or [""]
        for label, value in zip_longest([each.label], values, fillvalue=""):
            yield f"{label:<{width}}  {value}".rstrip()


def lines(seen: Status, screen: AnyScreen) -> Iterator[str]:
    """Put a status into lines that fit 80 columns."""
    yield from row("Stack", seen.status, seen.stack, seen.reason)
    for kind, parts in (
        ("Compute environment", seen.compute_environments),
        ("Job queue", seen.job_queues),
    ):
        for part in parts:
            yield from part_row(kind, part)
    for arn, changed in seen.secrets.items():
        when = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", changed)
        state = f"changed {when[1]} {when[2]}" if when else changed
        prefix = seen.caches.get(arn)
        cached = f", pulled through ECR as {prefix}/..." if prefix else ""
        yield from row("Secret", state, seen.registries[arn] + cached)
    if seen.instances:
        yield from row("Instances", str(seen.instances))
    if seen.jobs:
        yield from jobs_row(seen.jobs)
    if seen.attached:
        return
    yield from row(
        "Template",
        {
            None: "none yet" if seen.status in states.NOT_CREATED else "not batchreg's",
            False: "as rendered now",
            True: "not as rendered now",
        }[seen.differs],
        f"batchreg {seen.version}" if seen.version else "",
        f"To update it: {screen.command('deploy', '--stack-name', seen.stack)}"
        if seen.differs
        else "",
    )

"""`status`: show what the stack looks like now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.stack import states
from batchreg.stack.status import Status, look

if TYPE_CHECKING:
    from batchreg.attach.survey import Standing


def run(*, stack_name: str, json_output: bool, **place: Any) -> int:
    """Print what the stack looks like now; `place` is for `target.session`."""
    show = screen(json_output)
    command = Show(stack_name=stack_name, place=place, screen=show)
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class Show:
    """The stages of `status`."""

    stack_name: str
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
        seen = look(found.session.client, found.existing())
        standing = _standing(found, seen.attached) if seen.attached else None
        lines = [*_lines(seen), *(_attached(standing, self.screen) if standing else ())]
        fields = {**asdict(seen), "attached": asdict(standing) if standing else None}
        self.screen.product("result", "".join(f"{line}\n" for line in lines), **fields)
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


def _attached(standing: Standing, screen: AnyScreen) -> Iterator[str]:
    again = screen.command("attach", standing.environment)
    state, reason = {
        "ours": ("yes", ""),
        "theirs": ("reverted", f"It has its own launch template again. To attach it: {again}"),
        "changed": ("changed", f"It has another launch template. To attach that: {again}"),
    }[standing.uses]
    yield from _row(
        "Attached", state, f"{standing.environment}, created by {standing.created_by}", reason
    )
    for newer in standing.newer:
        yield from _row("Launch template", "newer", newer, f"To copy it again: {again}")


def _lines(seen: Status) -> Iterator[str]:
    """Put a status into lines that fit 80 columns; the reason of a healthy part is left out."""

    yield from _row("Stack", seen.status, seen.stack, seen.reason)
    for kind, parts in (
        ("Compute environment", seen.compute_environments),
        ("Job queue", seen.job_queues),
    ):
        for part in parts:
            healthy = (part.status, part.state) == ("VALID", "ENABLED")
            yield from _row(
                kind, f"{part.status}, {part.state}", part.name, "" if healthy else part.reason
            )
    for arn, changed in seen.secrets.items():
        when = re.match(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d)", changed)
        state = f"changed {when[1]} {when[2]}" if when else changed
        yield from _row("Secret", state, seen.registries[arn])
    if seen.instances:
        yield from _row("Instances", str(seen.instances))
    if seen.jobs:
        counts = [f"{count} {state}" for state, count in seen.jobs.items() if count]
        yield from _row("Jobs", ", ".join(counts) or "none")
    if seen.attached:
        return
    yield from _row(
        "Template",
        {
            None: "none yet" if seen.status in states.NOT_CREATED else "not batchreg's",
            False: "as rendered now",
            True: "not as rendered now: batchreg deploy updates it",
        }[seen.differs],
        f"batchreg {seen.version}" if seen.version else "",
    )


def _row(kind: str, state: str, name: str = "", reason: str = "") -> Iterator[str]:
    yield f"{kind:<19}  {state}  {name}".rstrip()
    if reason:
        yield f"{'':<19}  {' '.join(reason.split())}"

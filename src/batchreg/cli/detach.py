"""`detach`: give a compute environment back what it had before `attach`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import click

from batchreg import waiting
from batchreg.attach import companion, environment, survey
from batchreg.attach import detach as detaching
from batchreg.attach.companion import Recorded
from batchreg.attach.detach import Plan
from batchreg.aws import Session
from batchreg.cli import prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.errors import BatchregError
from batchreg.render.text import read_template
from batchreg.stack import following, states
from batchreg.stack.destroy import destroy
from batchreg.stack.screen import Ask, Screen
from batchreg.stack.states import Stack
from batchreg.waiting import Sleep

AGAIN = "detach again"

Detached = Plan | Stack  # a stack that was never created has nothing to give back


def run(
    *,
    name: str | None,
    stack_name: str | None,
    json_output: bool,
    yes: bool,
    wait: bool,
    job_timeout_minutes: int | None,
    terminate_jobs: bool,
    role_arn: str | None,
    wait_timeout: float | None = None,
    **place: Any,
) -> int:
    """Detach the environment and delete its companion stack; `place` is for `target.session`."""
    if bool(name) == bool(stack_name):
        raise click.UsageError("Give a compute environment or job queue, or --stack-name.")
    show = screen(json_output)
    command = Detach(
        name=name,
        stack_name=stack_name,
        place=place,
        policy={"job_timeout_minutes": job_timeout_minutes, "terminate_jobs": terminate_jobs},
        how={"role_arn": role_arn, "wait": wait, "sleep": waiting.limited(wait_timeout)},
        yes=yes,
        screen=show,
    )
    return runner.run(command, show, name=name or stack_name)


@dataclass(frozen=True, kw_only=True)
class Detach:
    """The stages of `detach`; `how` is for `detach.detach`, `policy` for `detach.plan`."""

    name: str | None
    stack_name: str | None
    place: dict[str, Any] = field(repr=False)
    policy: dict[str, Any]
    how: dict[str, Any]
    yes: bool
    screen: AnyScreen

    def gather(self) -> str | None:
        if self.stack_name:
            target.check_name(self.stack_name)
        return self.stack_name

    def resolve(self, stack_name: str | None) -> tuple[Session, Detached | None]:
        session = target.session(**self.place)
        name = stack_name or self._companion(session)
        sleep = self.how["sleep"]
        return session, resolve(session, name, self.screen, self.policy, sleep)

    def ask(self, resolved: tuple[Session, Detached | None]) -> tuple[Session, Detached | None]:
        return resolved  # `act` asks, after it has shown what will be done

    def act(self, resolved: tuple[Session, Detached | None]) -> int:
        session, plan = resolved
        name = self.name or self.stack_name
        if plan:
            act(session, plan, self.screen, prompts.asker(self.yes), self.how)
        else:
            self.screen.note(f"There is nothing to detach from {name}.")
        self.screen.emit("result", name=name)
        return 0

    def _companion(self, session: Session) -> str:
        answer, _ = survey.find(session.client, self.name or "")
        return environment.companion_name(answer["computeEnvironmentName"])


def resolve(
    session: Session, name: str, screen: Screen, policy: Mapping[str, Any], sleep: Sleep
) -> Detached | None:
    """Return what to detach, None if there is no such stack; `policy` is for `detach.plan`."""
    found = find(session, name, screen, sleep)
    if not found:
        return None
    stack, recorded = found
    return (
        detaching.plan(stack, recorded, *_around(session, recorded), **policy)
        if recorded
        else stack
    )


def act(session: Session, plan: Detached, screen: Screen, ask: Ask, how: Mapping[str, Any]) -> None:
    """Detach; `how` is for `detach.detach`."""
    if isinstance(plan, Stack):
        clients = (session.client("cloudformation"), session.client("batch"))
        destroy(*clients, plan, screen, ask, keep_jobs=True, **how)
    else:
        detaching.detach(session.client, plan, screen, ask, **how)


def find(
    session: Session, name: str, screen: Screen, sleep: Sleep
) -> tuple[Stack, Recorded | None] | None:
    """Return a companion stack and what it records, None if it does not exist.

    One that was never created records nothing: an earlier run was interrupted. Waits for an operation
    that an earlier run started. Raises BatchregError for any other stack.
    """
    client = session.client("cloudformation")
    stack = states.find(client, name)
    if stack and stack.busy and not stack.status.startswith("DELETE"):
        stack = following.resume(client, stack, screen, again=AGAIN, sleep=sleep)
    if not stack:
        return None
    if stack.status in states.NOT_CREATED:
        return stack, None
    deployed = read_template(states.template_of(client, stack))
    if not deployed or not deployed.attached:
        raise BatchregError(
            f"{name} is not a companion stack of batchreg attach.",
            "Give the name of the compute environment, or of its companion stack.",
        )
    return stack, companion.recorded(deployed.attached)


def _around(
    session: Session, recorded: Recorded
) -> tuple[environment.Environment | None, list[environment.Queue]]:
    """Return the environment that is attached, None if it is gone, and all queues."""
    batch = session.client("batch")
    found = batch.describe_compute_environments(computeEnvironments=[recorded.environment])
    answers = found["computeEnvironments"]
    pages: Any = (
        batch.get_paginator("describe_job_queues").paginate() if recorded.blue_green else []
    )
    queues = [environment.read_queue(queue) for page in pages for queue in page["jobQueues"]]
    return environment.read(answers[0]) if answers else None, queues

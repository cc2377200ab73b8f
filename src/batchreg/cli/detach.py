"""`detach`: give a compute environment back what it had before `attach`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import click

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
from batchreg.stack.screen import Screen
from batchreg.stack.states import Stack

AGAIN = "detach again"


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
        how={"role_arn": role_arn, "wait": wait},
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

    def resolve(self, stack_name: str | None) -> tuple[Session, Plan | None]:
        session = target.session(**self.place)
        name = stack_name or self._companion(session)
        found = find(session, name, self.screen)
        if not found:
            return session, None
        stack, recorded = found
        return session, detaching.plan(stack, recorded, _present(session, stack), **self.policy)

    def ask(self, resolved: tuple[Session, Plan | None]) -> tuple[Session, Plan | None]:
        return resolved  # `detach.detach` asks, after it has shown what it will do

    def act(self, resolved: tuple[Session, Plan | None]) -> int:
        session, plan = resolved
        if plan is None:
            name = self.name or self.stack_name
            self.screen.note(f"There is nothing to detach from {name}.")
        else:
            detaching.detach(session.client, plan, self.screen, prompts.asker(self.yes), **self.how)
        self.screen.emit("result", name=self.name or self.stack_name)
        return 0

    def _companion(self, session: Session) -> str:
        answer, _ = survey.find(session.client, self.name or "")
        return survey.companion_name(answer["computeEnvironmentName"])


def find(session: Session, name: str, screen: Screen) -> tuple[Stack, Recorded] | None:
    """Return a companion stack and what it records, None if it does not exist.

    Waits for an operation that an earlier run started. Raises BatchregError for any other stack.
    """
    client = session.client("cloudformation")
    stack = states.find(client, name)
    if stack and stack.busy and not stack.status.startswith("DELETE"):
        stack = following.resume(client, stack, screen, again=AGAIN)
    if not stack:
        return None
    body = states.template_of(client, stack)
    deployed = read_template(body) if body else None
    if not deployed or not deployed.attached:
        raise BatchregError(
            f"{name} is not a companion stack of batchreg attach.",
            "Give the name of the compute environment, or of its companion stack.",
        )
    return stack, companion.recorded(deployed.attached)


def _present(session: Session, stack: Stack) -> Any:
    arns = stack.arns("ComputeEnvironmentArn")
    if not arns:
        return None
    batch = session.client("batch")
    found = batch.describe_compute_environments(computeEnvironments=arns[:1])
    answers = found["computeEnvironments"]
    return environment.read(answers[0]) if answers else None

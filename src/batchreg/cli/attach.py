"""`attach`: add registry credentials to a compute environment that something else created.

The stages (`cli.runner`):

1. gather: what the user gave becomes frozen `Inputs`, as for deploy.
2. resolve (`attach.survey`, `attach.attach.plan`): a look at the environment, read-only, and from
   that and the inputs a plan, by a pure function.
3. ask (`prompts`): a person is asked for the credentials that are missing.
4. act (`attach.attach`): the plan is shown and confirmed; then come the companion stack and the
   update of the environment.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from batchreg.attach import attach as attaching
from batchreg.attach import survey
from batchreg.attach.attach import Choices, Plan
from batchreg.attach.environment import companion_name
from batchreg.aws import Connect, Session
from batchreg.cli import inputs, preflight, prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.stack.plan import Inputs


def run(
    *,
    name: str,
    stack_name: str | None,
    json_output: bool,
    yes: bool,
    wait: bool,
    dry_run: bool,
    emit: str | None,
    no_check: bool = False,
    check: tuple[str, ...] = (),
    job_timeout_minutes: int | None,
    terminate_jobs: bool,
    image_type: str | None,
    blue_green: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    connect: Connect = Session,
    **options: Any,
) -> int:
    """Attach credentials to the environment, and print the companion stack's outputs."""
    place = {"profile": profile, "region": region, "endpoint_url": endpoint_url, "connect": connect}
    show = screen(json_output)
    command = Attach(
        name=name,
        stack_name=stack_name,
        place=place,
        options=options,
        choices=Choices(
            job_timeout_minutes=job_timeout_minutes,
            terminate_jobs=terminate_jobs,
            image_type=image_type or "",
            blue_green=blue_green,
            emit=bool(emit),
        ),
        how=How(yes=yes, wait=wait, dry_run=dry_run, emit=emit, no_check=no_check, check=check),
        screen=show,
    )
    return runner.run(command, show, name=name)


@dataclass(frozen=True, kw_only=True)
class How:
    """The options that say how to act."""

    yes: bool
    wait: bool
    dry_run: bool
    emit: str | None
    no_check: bool
    check: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Attach:
    """The stages of `attach`. `place`: for `target.session`; `options`: for `inputs.gather`."""

    name: str
    stack_name: str | None
    place: dict[str, Any] = field(repr=False)
    options: dict[str, Any] = field(repr=False)
    choices: Choices
    how: How
    screen: AnyScreen

    def gather(self) -> Inputs:
        if self.stack_name:
            target.check_name(self.stack_name)
        return inputs.gather(
            stack_name=self.stack_name or "",
            image_type=None,
            user_data=None,
            fargate=None,
            on_failure=None,
            default_vpc=False,
            protect=None,
            **self.options,
        )

    def resolve(self, given: Inputs) -> tuple[Session, Plan]:
        session = target.session(**self.place)
        with self.screen.waiting(f"looking at {self.name}"):
            answer, queues = survey.find(session.client, self.name)
            name = self.stack_name or companion_name(answer["computeEnvironmentName"])
            found = survey.survey(session.client, answer, queues, name)
        return session, attaching.plan(found, replace(given, stack_name=name), self.choices)

    def ask(self, resolved: tuple[Session, Plan]) -> tuple[Session, Plan]:
        session, plan = resolved
        if self.how.emit or self.how.dry_run:
            return session, plan
        confirmed = self.how.yes or bool(plan.stack.kept)
        return session, replace(plan, stack=prompts.complete(plan.stack, session, yes=confirmed))

    def act(self, resolved: tuple[Session, Plan]) -> int:
        session, plan = resolved
        if self.how.emit:
            from batchreg.attach import emit

            code = emit.emit(self.how.emit, plan.attachment)
            self.screen.product("code", code, text=code)
            self.screen.emit("result", stack=plan.stack.name, status=None, outputs={})
            return 0
        for line in () if plan.is_attached else attaching.lines(plan):
            self.screen.note(line)
        client = session.client("cloudformation")
        preflight.require_ready(
            Target(plan.stack.name, session, client, plan.survey.stack),
            plan.stack,
            None,
            self.screen,
            check=not self.how.no_check,
            force=False,
        )
        if self.how.dry_run:
            self.screen.note(f"Dry run: no changes were made to {plan.name}.")
            self.screen.emit("result", stack=plan.stack.name, status=None, outputs={})
            return 0
        if self.how.check:
            from batchreg.cli.check import before_deploy

            before_deploy(self.how.check, plan.stack, session, self.screen)
        stack = attaching.attach(
            session.client, plan, self.screen, prompts.asker(self.how.yes), wait=self.how.wait
        )
        outputs = dict(stack.outputs)
        self.screen.product(
            "result",
            "".join(f"{name}: {value}\n" for name, value in outputs.items()),
            stack=stack.name,
            status=stack.status,
            outputs=outputs,
        )
        return 0

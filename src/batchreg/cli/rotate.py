"""`rotate`: give the stack a new registry password."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from batchreg import aws, waiting
from batchreg.aws import Session
from batchreg.cli import inputs, prompts, runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.errors import BatchregError, Interrupted
from batchreg.registry import check as registry_check
from batchreg.registry.images import Image, parse
from batchreg.registry.logins import Credentials
from batchreg.stack import following, registries, repair, rotate, states
from batchreg.stack.registries import StackRegistry
from batchreg.stack.rotate import Outcome
from batchreg.stack.screen import Screen
from batchreg.stack.states import Stack
from batchreg.waiting import Sleep, TimedOut


@dataclass(frozen=True, kw_only=True)
class Given:
    """What the user gave."""

    registry_url: str | None
    image: Image | None
    password: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """Whose password becomes which one; None until it is asked for.

    `username`: empty where the secret was changed by hand and does not tell it.
    """

    target: Target
    stack: Stack
    body: str
    registry: StackRegistry
    image: Image | None
    username: str = field(default="", repr=False)
    password: str | None = field(repr=False)


def run(
    *,
    stack_name: str,
    registry_url: str | None,
    image: str | None,
    check: bool,
    now: bool,
    follow: bool,
    undo: bool,
    password_stdin: bool,
    yes: bool,
    json_output: bool,
    wait_timeout: float | None = None,
    **place: Any,
) -> int:
    """Make a new password current, and say when the instances will have it.

    `place` is for `target.session`.
    """
    show = screen(json_output)
    command = Rotate(
        stack_name=stack_name,
        registry_url=registry_url,
        image=image,
        password_stdin=password_stdin,
        undo=undo,
        check=check,
        refresh=now or follow,
        follow=follow,
        yes=yes,
        sleep=waiting.limited(wait_timeout),
        screen=show,
        place=place,
    )
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class Rotate:
    """The stages of `rotate`, over its options."""

    stack_name: str
    registry_url: str | None
    image: str | None
    password_stdin: bool
    undo: bool
    check: bool
    refresh: bool
    follow: bool
    yes: bool
    sleep: Sleep
    screen: AnyScreen
    place: dict[str, Any]

    def gather(self) -> Given:
        image = parse(self.image) if self.image else None
        target.check_name(self.stack_name)
        password = None if self.undo else inputs.password(self.password_stdin)
        if password is not None:
            inputs.require_usable("Password", password)
        return Given(registry_url=self.registry_url, image=image, password=password)

    def resolve(self, given: Given) -> Rotation:
        found = target.find(self.stack_name, **self.place)
        stack: Stack | None = found.existing()
        if (
            stack and stack.busy
        ):  # an earlier rotate, interrupted, or another one that has just begun
            stack = following.resume(
                found.client, stack, self.screen, again=rotate.AGAIN, sleep=self.sleep
            )
        if stack is None or stack.status not in states.UPDATABLE:
            state = f"is in {stack.status}" if stack else "was deleted"
            command = self.screen.command("deploy", "--stack-name", self.stack_name)
            step = "Recover it first" if stack else "To create it again"
            raise BatchregError(f"{self.stack_name} {state}.", f"{step}: {command}")
        body = states.template_of(found.client, stack)
        deployed = target.require_batchreg_stack(stack, body, self.screen)
        manager = found.session.client("secretsmanager")
        known = registries.of(stack, deployed.settings if deployed else None)
        return Rotation(
            target=found,
            stack=stack,
            body=body,
            registry=rotate.choose(manager, known, given.registry_url),
            image=given.image,
            password=given.password,
        )

    def ask(self, plan: Rotation) -> Rotation:
        manager = plan.target.session.client("secretsmanager")
        if self.undo:
            before = rotate.stored(manager, plan.registry, registries.PREVIOUS)
            inputs.require_usable("Password", before.credentials.password)
            plan = replace(plan, password=before.credentials.password)
        plan = replace(plan, username=rotate.username(manager, plan.registry))
        if self.check and not plan.username:
            raise repair.unknown_username(plan.stack.name, plan.registry, self.screen)
        if plan.password is None:
            label = f"New password for {plan.registry.host}"
            return replace(plan, password=prompts.ask_password(label))
        return plan

    def act(self, plan: Rotation) -> int:
        session, host = plan.target.session, plan.registry.host
        credentials = Credentials(plan.username, str(plan.password))
        manager = session.client("secretsmanager")
        if self.check:
            _check(plan, credentials)
        what = "Go back to the previous password of" if self.undo else "Change the password of"
        if not prompts.asker(self.yes)(f"{what} {host} in {plan.stack.name}?"):
            raise BatchregError(f"No changes were made to {plan.stack.name}.")
        outcome = rotate.make_current(
            plan.target.client,
            manager,
            plan.stack,
            plan.body,
            plan.registry,
            credentials,
            self.screen,
            sleep=self.sleep,
        )
        changed = outcome is not Outcome.UNCHANGED
        if not changed:
            self.screen.note(f"{host} has this password already: nothing to change.")
        cached = bool(plan.registry.prefix)
        told = self._refresh(plan) if changed and self.refresh and not cached else {}
        if changed:
            what = "its previous password again" if self.undo else "a new password"
            if outcome is Outcome.REPAIRED:
                what = "a working secret again"
            if cached:
                self.screen.note(f"{host} has {what}. ECR uses it with its next pull from there.")
            else:
                _say_when(plan.stack, f"{host} has {what}.", told, self.screen)
        self.screen.emit(
            "result", stack=plan.stack.name, registry=host, changed=changed, instances=told
        )
        failed = [name for name, status in told.items() if status not in ("Success", "Asked")]
        if failed:
            raise BatchregError(
                f"{', '.join(failed)} did not take the password; the timer tries again.",
                "The reason is on the instance's console.",
            )
        return 0

    def _refresh(self, plan: Rotation) -> dict[str, str]:
        try:
            return _refresh(plan.target.session, plan.stack, self.screen, self.follow, self.sleep)
        except TimedOut as timeout:
            status = self.screen.command("status", "--stack-name", plan.stack.name)
            raise BatchregError(
                f"{plan.registry.host} has its new password, but asking the instances to refresh "
                f"{timeout.after}.",
                f"Those that have not refreshed yet do so by their timer. For their state: {status}",
            ) from None
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {plan.registry.host} has its new password, and instances that have "
                "not refreshed yet do so by their timer."
            ) from None


def _check(plan: Rotation, credentials: Credentials) -> None:
    """Refuse a password that the registry refuses."""
    verdict = (
        registry_check.check(plan.image, credentials)
        if plan.image
        else registry_check.check_login(registries.address_of(plan.registry), credentials)
    )
    if not verdict.ok:
        raise BatchregError(
            f"{verdict.text} No changes were made.", "To skip this check, give --no-check."
        )


def _refresh(
    session: Session, present: Stack, screen: Screen, follow: bool, sleep: Sleep = time.sleep
) -> dict[str, str]:
    """Ask the instances that Systems Manager reaches to refresh; return {instance: status}.

    The password is current by now: whatever AWS refuses here, the timer does it later.
    """
    try:
        return _asked(session, present, screen, follow, sleep)
    except Exception as error:
        line = aws.explain(error)
        if line is None:
            raise
        screen.note(f"{line} The instances wait for their timer.")
        return {}


def _asked(
    session: Session, present: Stack, screen: Screen, follow: bool, sleep: Sleep
) -> dict[str, str]:
    running = rotate.instances(
        session.client("batch"), session.client("ecs"), present.outputs["ComputeEnvironmentArn"]
    )
    if not running:
        return {}
    ssm = session.client("ssm")
    reached = rotate.reachable(ssm, running)
    if len(reached) < len(running):
        screen.note(
            f"Systems Manager reaches {len(reached)} of {len(running)} instances; the "
            "others wait for their timer. For all: attach AmazonSSMManagedInstanceCore to "
            "the instance role."
        )
    if not reached:
        return {}
    asked = rotate.refresh(ssm, reached)
    if not follow:
        return dict.fromkeys(reached, "Asked")
    with screen.waiting("Waiting for the instances to refresh"):
        return rotate.reported(ssm, asked, reached, sleep=sleep)


def _say_when(present: Stack, what: str, told: dict[str, str], screen: Screen) -> None:
    minutes = int(present.parameters.get("CredentialRefreshMinutes") or 30) + 1
    latest = datetime.now() + timedelta(minutes=minutes)
    done, asked = (
        sum(status == wanted for status in told.values()) for wanted in ("Success", "Asked")
    )
    who = "Running instances use it"
    if done or asked:
        number = f"{done or asked} instance{'s' * (done + asked > 1)}"
        has = ("has" if done == 1 else "have") + " it" if done else "asked to refresh now"
        who = f"{number} {has}; any other uses it"
    screen.note(f"{what} {who} by {latest:%H:%M} at the latest, new ones at once.")

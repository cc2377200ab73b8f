"""What `rotate` does with its options."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from batchreg import aws
from batchreg.aws import Session
from batchreg.cli import deploy as commands
from batchreg.cli import prompts as asking
from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.registry import check as registry
from batchreg.registry.images import parse
from batchreg.registry.logins import Credentials
from batchreg.registry.names import host_of
from batchreg.registry_login import HUB
from batchreg.stack import deploy, rotate
from batchreg.stack import states as stacks
from batchreg.stack.states import Stack


@commands.failures_too
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
    machine: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
) -> None:
    """Make a new password current, and say when the instances will have it."""
    console = Console(machine=machine)
    parsed = parse(image) if image else None
    stacks.check_name(stack_name)
    password = None if undo else asking.password(password_stdin)
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    client, manager = session.client("cloudformation"), session.client("secretsmanager")
    present = stacks.find(client, stack_name)
    if present is None:
        raise BatchregError(
            f"There is no stack {stack_name} in this region: batchreg deploy "
            f"--stack-name {stack_name} makes it."
        )
    if present.busy:  # an earlier rotate, interrupted, or somebody else's that has just begun
        present = deploy.attach(client, present, console, again="rotate again")
    if present is None or present.status not in stacks.UPDATABLE:
        state = f"is in {present.status}" if present else "is gone"
        raise BatchregError(
            f"{stack_name} {state}: batchreg deploy --stack-name {stack_name} leads on from there."
        )
    body = stacks.template_of(client, present)
    made = commands.ours(present, body, False, console)
    target = rotate.choose(rotate.targets(present, made, manager), registry_url)
    host = host_of(target.key)
    if undo:
        password = rotate.read(manager, target.secret, rotate.PREVIOUS).fields["password"]
    elif password is None:
        password = asking.ask_password(f"New password for {host}")
    if rule := asking.misfit("Password", str(password)):
        raise BatchregError(f"{rule} Give it as the registry shows it.")
    if check:
        _check(target, rotate.read(manager, target.secret).username, str(password), parsed)
    what = "Go back to the previous password of" if undo else "Change the password of"
    if not asking.asker(yes)(f"{what} {host} in {stack_name}?"):
        raise BatchregError(f"{stack_name} is as it was.")
    changed = rotate.make_current(client, manager, present, body, target, str(password), console)
    if not changed:
        console.note(f"{host} has this password already: nothing to change.")
    try:
        told = _refresh(session, present, console, follow) if changed and (now or follow) else {}
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; {host} has its new password, and instances that have not "
            "refreshed yet do so by their timer."
        ) from None
    if changed:
        _say_when(present, host, told, console, undo)
    console.emit("result", stack=stack_name, registry=host, changed=changed, instances=told)
    failed = [instance for instance, status in told.items() if status not in ("Success", "Asked")]
    if failed:
        raise BatchregError(
            f"{', '.join(failed)} did not take the password: the timer tries "
            "again; the reason is on the instance's console."
        )


def _check(target: rotate.Target, username: str, password: str, image: Any) -> None:
    """Refuse a password that the registry refuses."""
    login = Credentials(username, password)
    verdict = (
        registry.check(image, login)
        if image
        else registry.check_login("docker.io" if target.key == HUB else target.key, login)
    )
    if not verdict.ok:
        raise BatchregError(f"{verdict.text} Nothing has changed. --no-check skips this.")


def _refresh(session: Session, present: Stack, console: Console, follow: bool) -> dict[str, str]:
    """Ask the instances that Systems Manager reaches to refresh; return {instance: status}.

    The password is current by now: whatever AWS refuses here, the timer does it later.
    """
    try:
        return _asked(session, present, console, follow)
    except Exception as error:
        line = aws.explain(error)
        if line is None:
            raise
        console.note(f"{line} The instances wait for their timer.")
        return {}


def _asked(session: Session, present: Stack, console: Console, follow: bool) -> dict[str, str]:
    running = rotate.instances(
        session.client("batch"), session.client("ecs"), present.outputs["ComputeEnvironmentArn"]
    )
    if not running:
        return {}
    ssm = session.client("ssm")
    reached = rotate.reachable(ssm, running)
    if len(reached) < len(running):
        console.note(
            f"Systems Manager reaches {len(reached)} of {len(running)} instances; the "
            "others wait for their timer. For all: attach AmazonSSMManagedInstanceCore to "
            "the instance role."
        )
    if not reached:
        return {}
    asked = rotate.refresh(ssm, reached)
    if not follow:
        return dict.fromkeys(reached, "Asked")
    return rotate.reported(ssm, asked, reached)


def _say_when(
    present: Stack, host: str, told: dict[str, str], console: Console, undo: bool
) -> None:
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
    what = "its previous password again" if undo else "a new password"
    console.note(f"{host} has {what}. {who} by {latest:%H:%M} at the latest, new ones at once.")

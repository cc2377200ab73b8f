"""Create or update a stack, from whatever state it is in."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError
from batchreg.stack import changesets, states
from batchreg.stack.changesets import ChangeSet
from batchreg.stack.following import (
    Operation,
    explaining_interrupt,
    follow,
    resume,
    without_failure,
)
from batchreg.stack.plan import Plan
from batchreg.stack.screen import Ask, Screen
from batchreg.stack.states import Sleep, Stack, StackFailed

if TYPE_CHECKING:
    from batchreg.stack.preview import Change as Setting


def deploy(
    client: Any,
    plan: Plan,
    screen: Screen,
    ask: Ask,
    *,
    dry_run: bool = False,
    wait: bool = True,
    running: Callable[[], int] = lambda: 0,
    restore: Callable[[Stack], bool] = lambda stack: False,
    sleep: Sleep = time.sleep,
) -> Stack | None:
    """Do what the plan says and return the stack; None if there is none, as after a dry run.

    `running` counts the jobs that run now; it is called only if an update affects them. `restore`
    repairs what CloudFormation does not look at, and returns whether it had to. Raises StackFailed
    if CloudFormation fails, and BatchregError if the user says no.
    """
    present, body = plan.stack, plan.present_body
    if present and present.busy:
        present = resume(client, present, screen, sleep=sleep)
        body = ""  # unknown by now
    while present and present.status not in (*states.UPDATABLE, *states.NOT_CREATED):
        present = _recover(client, plan, present, screen, ask, dry_run, sleep)
        body = ""
        if dry_run and present:
            return present
    creates = present is None or present.status in states.NOT_CREATED
    parameters = fill_in(plan, {} if creates or not present else present.parameters)
    change_set = None
    if creates or not present or not unchanged(plan, present, body):
        change_set = _create(client, plan, parameters, present, creates, screen, sleep)
    if not change_set or change_set.id is None:
        protected = _protect(client, plan, present, screen, dry_run)
        if not (present and restore(present)) and not protected:
            screen.note(f"{plan.name} is up to date: nothing to change.")
        return present
    with changesets.discarding_on_failure(client, change_set):
        _preview(client, plan, change_set, present, body, screen, running)
        agreed = not dry_run and ask(
            f"{'Create' if creates else 'Update'} {states.placed(change_set.stack_id)}?"
        )
        if not agreed:
            changesets.discard(client, change_set)
    nothing = "nothing was created." if creates else f"no changes were made to {plan.name}."
    if dry_run:
        screen.note(f"Dry run: {nothing}")
        return present
    if not agreed:
        raise BatchregError(nothing[0].upper() + nothing[1:])
    done = _execute(client, plan, change_set, screen, wait, sleep)
    if done and wait and not creates:
        restore(done)
    return done


def _create(
    client: Any,
    plan: Plan,
    parameters: Mapping[str, str | None],
    present: Stack | None,
    creates: bool,
    screen: Screen,
    sleep: Sleep,
) -> ChangeSet:
    secrets = [plan.parameters[name] for name in plan.masked & plan.parameters.keys()]
    with screen.waiting("CloudFormation works out what would change"), masking(secrets):
        return changesets.create(
            client,
            plan.name,
            plan.body,
            parameters,
            creates=creates,
            tags=_tags(plan, present),
            role_arn=plan.role_arn,
            sleep=sleep,
        )


def _preview(
    client: Any,
    plan: Plan,
    change_set: ChangeSet,
    present: Stack | None,
    body: str,
    screen: Screen,
    running: Callable[[], int],
) -> None:
    """Show what changes: the settings with both values, the resources, and the effect on jobs."""
    from batchreg.stack import preview

    old = None
    if present and not change_set.creates:
        # After an operation of an earlier run, the template is another one.
        body = body or states.template_of(client, present)
        old = preview.deployment(body, present.parameters, tags=present.tags)
    if old and present:
        values = {**present.parameters, **plan.parameters}
        tags = {**present.tags, **plan.tags}
        secrets = _replaced(plan, change_set)
        new = preview.deployment(plan.body, values, tags=tags, secrets=secrets)
        assert new  # it is ours
        seen = preview.compare(old, new)
        protection = _protection(plan, present)
        screen.settings((*seen.changes, *protection))
        screen.changes(change_set.changes)
        if text := preview.effect_on_jobs(seen, new, running() if seen.affects_jobs else 0):
            screen.note(text)
        if text := preview.image_names(
            old, new, screen.command("image", "--stack-name", plan.name, "IMAGE")
        ):
            screen.note(text)
        return
    screen.changes(change_set.changes)


def _replaced(plan: Plan, change_set: ChangeSet) -> frozenset[str]:
    """Return the given parameters that CloudFormation found to be new: those of changed secrets."""
    changed = {change.logical_id for change in change_set.changes}
    return frozenset(
        name
        for name in plan.masked & plan.parameters.keys()
        if re.sub("^(Username|Password)", "RegistrySecret", name) in changed
    )


def _protection(plan: Plan, present: Stack) -> tuple[Setting, ...]:
    from batchreg.stack.preview import Change

    if plan.protect in (None, present.protected):
        return ()
    return (Change("termination protection", present.protected, bool(plan.protect)),)


def _execute(
    client: Any, plan: Plan, change_set: ChangeSet, screen: Screen, wait: bool, sleep: Sleep
) -> Stack | None:
    verb = "Creating" if change_set.creates else "Updating"
    with explaining_interrupt(plan.name, screen):
        token = changesets.execute(client, change_set)
        if not wait:
            begun = states.find(client, plan.name)
            _protect(client, plan, begun, screen)
            status = screen.command("status", "--stack-name", plan.name)
            screen.note(f"{verb} {plan.name}. For its status: {status}")
            return begun
        operation = Operation(stack_id=change_set.stack_id, name=plan.name, token=token, verb=verb)
        final = follow(client, operation, screen, sleep=sleep)
        done = states.find(client, plan.name)
        if final not in ("CREATE_COMPLETE", "UPDATE_COMPLETE") or not done:
            raise without_failure(plan.name, final)
        _protect(client, plan, done, screen)
        screen.note(f"{plan.name} is {'up' if change_set.creates else 'up to date'}.")
    return done


@contextmanager
def masking(secrets: Sequence[str]) -> Iterator[None]:
    """Keep credentials out of an error of CloudFormation's, which may quote the request."""
    from botocore.exceptions import ClientError

    try:
        yield
    except StackFailed as failure:
        if any(secret in str(failure) for secret in secrets):
            raise StackFailed(_masked(failure.fact, secrets), failure.step) from None
        raise
    except ClientError as error:
        details = error.response.get("Error", {})
        details["Message"] = _masked(details.get("Message", ""), secrets)
        raise


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "****")
    return text


def unchanged(plan: Plan, present: Stack, body: str) -> bool:
    """Tell, without asking CloudFormation, whether an update would change nothing."""
    same_values = all(
        name not in plan.masked and present.parameters.get(name) == value
        for name, value in plan.parameters.items()
    )
    return (
        body == plan.body
        and same_values
        and not plan.role_arn
        and all(present.tags.get(key) == value for key, value in plan.tags.items())
    )


def fill_in(plan: Plan, present: Mapping[str, str]) -> dict[str, str | None]:
    """Return a value for each parameter that needs one; None keeps the present one.

    Raises BatchregError for parameters that have no value.
    """
    values: dict[str, str | None] = {}
    missing = []
    for name, has_default in plan.declared.items():
        if name in plan.parameters:
            values[name] = plan.parameters[name]
        elif name in present:
            values[name] = None
        elif not has_default:
            missing.append(name)
    if missing:
        raise BatchregError(f"The stack needs {', '.join(missing)}.", "See batchreg deploy --help.")
    return values


def _recover(
    client: Any, plan: Plan, present: Stack, screen: Screen, ask: Ask, dry_run: bool, sleep: Sleep
) -> Stack | None:
    """Bring a stack to a state in which it can be updated; return None if it is deleted."""
    deletes = present.status in states.ONLY_DELETABLE
    if not deletes and present.status not in states.TO_ROLL_BACK:
        raise BatchregError(
            f"batchreg cannot recover a stack in {present.status}.",
            f"Look at {present.name} in the CloudFormation console.",
        )
    what = "delete what is left of it" if deletes else "finish its rollback"
    why = (
        "an update failed"
        if not deletes
        else ("a delete got stuck" if present.status == "DELETE_FAILED" else "it was never created")
    )
    screen.note(f"{present.name} is in {present.status}: {why}.")
    if dry_run:
        screen.note(f"Dry run: a deploy would first {what}.")
        return present
    if not ask(f"First {what}?"):
        raise BatchregError(f"No changes were made to {present.name}.")
    with explaining_interrupt(plan.name, screen):
        operation = Operation(
            stack_id=present.id,
            name=present.name,
            token=states.recover(client, present, role_arn=plan.role_arn),
            verb="Deleting" if deletes else "Rolling back",
        )
        try:
            follow(client, operation, screen, sleep=sleep)
        except StackFailed as failure:
            raise leaving_behind(failure, present.name, screen, deletes=deletes) from None
        return states.find(client, present.name)


def leaving_behind(
    failure: StackFailed, name: str, screen: Screen, *, deletes: bool
) -> StackFailed:
    """Return the failure with the way on without the resources that got stuck, if there are any."""
    if not failure.stuck:
        return failure
    if deletes:
        options = [word for resource in failure.stuck for word in ("--retain", resource)]
        command = screen.command("destroy", "--stack-name", name, *options)
        way = f"Or leave it behind: {command}"
    else:
        way = (
            "Or leave it as it is: aws cloudformation continue-update-rollback "
            f"--stack-name {name} --resources-to-skip {' '.join(failure.stuck)}"
        )
    return StackFailed(failure.fact, f"{failure.step} {way}".strip(), failure.stuck)


def _tags(plan: Plan, present: Stack | None) -> dict[str, str] | None:
    if not plan.tags:
        return None  # keeps the present ones
    return {**(present.tags if present else {}), **plan.tags}


def _protect(
    client: Any, plan: Plan, present: Stack | None, screen: Screen, dry_run: bool = False
) -> bool:
    """Switch termination protection if the plan says so; return whether that is a change."""
    if not present or plan.protect in (None, present.protected):
        return False
    word = "on" if plan.protect else "off"
    if dry_run:
        screen.note(f"Dry run: a deploy would turn termination protection {word}.")
        return True
    client.update_termination_protection(
        StackName=present.name, EnableTerminationProtection=plan.protect
    )
    screen.note(f"Termination protection is {word}.")
    return True

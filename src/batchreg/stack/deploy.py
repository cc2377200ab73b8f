"""Create or update a stack, from whatever state it is in."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from batchreg import aws
from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.stack import changesets
from batchreg.stack import states as stacks
from batchreg.stack.states import Stack, StackFailed, plain_reason


class Ask(Protocol):
    """Asks a yes-or-no question; False leaves everything as it is."""

    def __call__(self, question: str) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the user wants. `parameters` holds given values alone: others stay, or are defaults."""

    name: str
    body: str
    parameters: Mapping[str, str] = field(repr=False)
    declared: Mapping[str, bool]  # parameter: whether it has a default
    masked: frozenset[str] = frozenset()  # parameters whose present value nobody can read
    tags: Mapping[str, str] = field(default_factory=dict)
    role_arn: str | None = None
    protect: bool | None = None
    dry_run: bool = False
    wait: bool = True


def deploy(
    client: Any,
    request: Request,
    present: Stack | None,
    body: str,
    console: Console,
    ask: Ask,
    *,
    sleep: stacks.Sleep = time.sleep,
) -> Stack | None:
    """Bring the stack to what `request` says and return it; None where there is none (a dry run).

    `present` is the stack as it is, and `body` its template. Raises StackFailed, and BatchregError
    where the user says no.
    """
    if present and present.busy:
        present = attach(client, present, console, sleep=sleep)
        body = ""  # unknown by now
    while present and present.status not in (*stacks.UPDATABLE, *stacks.NOT_CREATED):
        present = _recover(client, request, present, console, ask, sleep)
        body = ""
        if request.dry_run and present:
            return present
    creates = present is None or present.status in stacks.NOT_CREATED
    parameters = fill_in(request, {} if creates or not present else present.parameters)
    if present and not creates and unchanged(request, present, body):
        return _finish(client, request, present, console)
    secrets = [request.parameters[name] for name in request.masked & request.parameters.keys()]
    with console.waiting("CloudFormation works out what would change"), masking(secrets):
        change_set = changesets.plan(
            client,
            request.name,
            request.body,
            parameters,
            creates=creates,
            tags=_tags(request, present),
            role_arn=request.role_arn,
            sleep=sleep,
        )
    if change_set.id is None:
        return _finish(client, request, present, console)
    with changesets.discarding_on_failure(client, change_set):
        console.changes(change_set.changes)
        if any(
            (change.action, change.type) == ("Modify", "AWS::EC2::LaunchTemplate")
            for change in change_set.changes
        ):
            console.note(
                "New instances take the place of the running ones; jobs that run there "
                "have six hours to end."
            )
        agreed = not request.dry_run and ask(
            f"{'Create' if creates else 'Update'} {stacks.placed(change_set.stack_id)}?"
        )
        if not agreed:
            changesets.discard(client, change_set)
    if request.dry_run:
        console.note(f"Dry run: {request.name} is as it was.")
        return present
    if not agreed:
        raise BatchregError(f"{request.name} is as it was.")
    verb = "Creating" if creates else "Updating"
    with explaining_interrupt(request.name):
        token = changesets.execute(client, change_set)
        if not request.wait:
            begun = stacks.find(client, request.name)
            _protect(client, request, begun, console)
            console.note(f"{verb} {request.name}. Look at it: {status_of(request.name)}")
            return begun
        settled = follow(
            client, change_set.stack_id, request.name, token, console, verb, sleep=sleep
        )
        done = stacks.find(client, request.name)
        if settled not in ("CREATE_COMPLETE", "UPDATE_COMPLETE") or not done:
            raise StackFailed(
                f"{request.name} ended in {settled}, without a failure of its own: deploy again."
            )
        _protect(client, request, done, console)
        console.note(f"{request.name} is {'up' if creates else 'up to date'}.")
    return done


@contextmanager
def masking(secrets: Sequence[str]) -> Iterator[None]:
    """Keep the login out of a refusal, which may quote the request."""
    from botocore.exceptions import ClientError

    try:
        yield
    except StackFailed as failure:
        if any(secret in str(failure) for secret in secrets):
            raise StackFailed(_masked(str(failure), secrets)) from None
        raise
    except ClientError as error:
        details = error.response.get("Error", {})
        details["Message"] = _masked(details.get("Message", ""), secrets)
        raise


def _masked(text: str, secrets: Sequence[str]) -> str:
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "****")
    return text


def status_of(name: str) -> str:
    return f"batchreg status --stack-name {name}"


@contextmanager
def explaining_interrupt(name: str) -> Iterator[None]:
    """Say, after a Ctrl-C in the block, that CloudFormation goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; {name} goes on without batchreg. To follow it, run the same command "
            f"again; to look at it: {status_of(name)}"
        ) from None


def attach(
    client: Any,
    present: Stack,
    console: Console,
    *,
    again: str = "deploy again",
    sleep: stacks.Sleep = time.sleep,
) -> Stack | None:
    """Follow an operation of ours that an earlier run began; return the stack as it then is.

    Raises BatchregError where somebody else began it.
    """
    token = stacks.latest_token(client, present.id)
    if not token.startswith(stacks.PREFIX):
        raise BatchregError(
            f"{present.name} is in {present.status}, which batchreg did not begin: "
            "wait until it has settled, then try again."
        )
    console.note(f"{present.name} is in {present.status} since an earlier run: following it.")
    try:
        follow(
            client, present.id, present.name, token, console, "Following", again=again, sleep=sleep
        )
    except StackFailed as failure:
        console.note(str(failure))
    return stacks.find(client, present.name)


def follow(
    client: Any,
    stack_id: str,
    name: str,
    token: str,
    console: Console,
    verb: str,
    *,
    again: str = "deploy again",
    sleep: stacks.Sleep = time.sleep,
) -> str:
    """Show an operation until it settles and return the stack's state.

    `again` names the command that the user runs next. Raises StackFailed with the first cause where
    something failed, and BatchregError where AWS is out of reach.
    """
    happened = []
    try:
        with explaining_interrupt(name), console.following(f"{verb} {name}") as follower:
            for event in stacks.follow(client, stack_id, token, sleep=sleep):
                follower.show(event)
                happened.append(event)
    except Exception as error:
        line = aws.explain(error)
        if line is None:
            raise
        raise BatchregError(f"{line} {name} goes on; {again} to follow it.") from None
    failed = stacks.failures(happened)
    settled = happened[-1].status if happened and happened[-1].settles else ""
    if failed and settled in ("CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"):
        # The clean-up after an update may fail; the update has taken place.
        names = ", ".join(dict.fromkeys(event.logical_id for event in failed))
        console.note(
            f"{name}: something is left behind of {names}: {plain_reason(failed[0].reason)}"
        )
    elif failed:
        cause = failed[0]
        raise StackFailed(
            f"{name}: {cause.logical_id} ({cause.type}) failed: {plain_reason(cause.reason)} "
            f"{next_step(cause.reason, again)}",
            dict.fromkeys(event.logical_id for event in failed if not event.of_stack),
        )
    if happened and happened[-1].settles:
        return happened[-1].status
    present = stacks.find(client, stack_id)
    return present.status if present else "DELETE_COMPLETE"


def unchanged(request: Request, present: Stack, body: str) -> bool:
    """Tell, without asking CloudFormation, whether an update would change nothing."""
    same_values = all(
        name not in request.masked and present.parameters.get(name) == value
        for name, value in request.parameters.items()
    )
    return (
        body == request.body
        and same_values
        and not request.role_arn
        and all(present.tags.get(key) == value for key, value in request.tags.items())
    )


def fill_in(request: Request, present: Mapping[str, str]) -> dict[str, str | None]:
    """Return a value for each parameter that needs one; None keeps the present one.

    Raises BatchregError for parameters that nobody has given.
    """
    values: dict[str, str | None] = {}
    missing = []
    for name, has_default in request.declared.items():
        if name in request.parameters:
            values[name] = request.parameters[name]
        elif name in present:
            values[name] = None
        elif not has_default:
            missing.append(name)
    if missing:
        raise BatchregError(f"The stack needs {', '.join(missing)}: see batchreg deploy --help.")
    return values


# What the reason of a failed resource calls for.
NEXT_STEPS = {
    r"not authorized to perform|AccessDenied|access denied": "Ask for this permission, or give --role-arn",
    r"rate exceeded|throttl": "Wait a minute",
    r"security.?group": "Give security groups of the subnets' VPC with --security-group-id",
    r"subnet": "Give subnets of this region with --subnet-id",
    r"MIME|user ?data": "Mend the file of --user-data",
    r"JobQueue relationship": "Take the compute environment out of the queue that still uses it",
    r"limit ?exceeded|exceeded your|vcpu limit|quota": "Ask for a higher quota in the Service Quotas console",
    r"instance ?type": "Give types that this region has with --instance-type",
}


def next_step(reason: str, again: str = "deploy again") -> str:
    """Return what to do about a failed resource."""
    for pattern, step in NEXT_STEPS.items():
        if re.search(pattern, reason, re.IGNORECASE):
            return f"{step}, then {again}."
    return f"Mend that, then {again}."


def _recover(
    client: Any, request: Request, present: Stack, console: Console, ask: Ask, sleep: stacks.Sleep
) -> Stack | None:
    """Lead a stack out of a state in which it cannot be updated; None where it is gone."""
    deletes = present.status in stacks.ONLY_DELETABLE
    if not deletes and present.status not in stacks.TO_ROLL_BACK:
        raise BatchregError(
            f"{present.name} is in {present.status}, which batchreg cannot lead "
            "out of: look at it in the CloudFormation console."
        )
    what = "remove what is left of it" if deletes else "finish its rollback"
    why = (
        "an update went wrong"
        if not deletes
        else ("a delete got stuck" if present.status == "DELETE_FAILED" else "it never came up")
    )
    console.note(f"{present.name} is in {present.status}: {why}.")
    if request.dry_run:
        console.note(f"Dry run: a deploy would first {what}.")
        return present
    if not ask(f"First {what}?"):
        raise BatchregError(f"{present.name} is as it was.")
    with explaining_interrupt(request.name):
        token = stacks.recover(client, present, role_arn=request.role_arn)
        verb = "Removing" if deletes else "Rolling back"
        try:
            follow(client, present.id, present.name, token, console, verb, sleep=sleep)
        except StackFailed as failure:
            raise StackFailed(
                f"{failure}{leave_out(present.name, failure.stuck, deletes)}", failure.stuck
            ) from None
        return stacks.find(client, present.name)


def leave_out(name: str, stuck: Sequence[str], deletes: bool) -> str:
    """Return the way on without the resources that get stuck, empty where there are none."""
    if not stuck:
        return ""
    if deletes:
        options = " ".join(f"--retain {resource}" for resource in stuck)
        return f" Or leave it behind: batchreg destroy --stack-name {name} {options}"
    return (
        " Or leave it as it is: aws cloudformation continue-update-rollback "
        f"--stack-name {name} --resources-to-skip {' '.join(stuck)}"
    )


def _tags(request: Request, present: Stack | None) -> dict[str, str] | None:
    if not request.tags:
        return None  # keeps the present ones
    return {**(present.tags if present else {}), **request.tags}


def _finish(client: Any, request: Request, present: Stack | None, console: Console) -> Stack | None:
    _protect(client, request, present, console)
    console.note(f"{request.name} is up to date: nothing to change.")
    return present


def _protect(client: Any, request: Request, present: Stack | None, console: Console) -> None:
    if not present or request.protect in (None, present.protected):
        return
    word = "on" if request.protect else "off"
    if request.dry_run:
        console.note(f"Dry run: a deploy would turn termination protection {word}.")
    else:
        client.update_termination_protection(
            StackName=present.name, EnableTerminationProtection=request.protect
        )
        console.note(f"Termination protection is {word}.")

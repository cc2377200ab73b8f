"""Give a stack a new registry password, in the place where it lasts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

from batchreg.errors import BatchregError
from batchreg.registry.logins import Credentials
from batchreg.registry.names import host_of, key_of
from batchreg.render.settings import suffix
from batchreg.stack import changesets, registries, repair
from batchreg.stack.deploy import masking
from batchreg.stack.following import Operation, explaining_interrupt, follow, without_failure
from batchreg.stack.instances import registered
from batchreg.stack.registries import CURRENT, Problem, StackRegistry, Stored, read
from batchreg.stack.screen import Screen
from batchreg.stack.states import Sleep, Stack

AGAIN = "rotate again"
# Twice, because a start joins a refresh that is under way and may have read the old password.
REFRESH = "systemctl start batchreg.service; systemctl start batchreg.service"


class Outcome(Enum):
    """What a rotation did."""

    UNCHANGED = "the password was current already"
    CHANGED = "the password is new"
    REPAIRED = "the secret, changed by hand, has its credentials again"


UNFINISHED = ("No answer", "Pending", "InProgress", "Delayed", "Cancelling")


def choose(manager: Any, registries: Sequence[StackRegistry], wanted: str | None) -> StackRegistry:
    """Return the one registry that is meant, with its key; BatchregError if that is not clear.

    A secret that cannot be read does not keep the other registries from a new password.
    """
    found = [_with_key(manager, registry) for registry in registries]
    usable = [registry for registry in found if isinstance(registry, StackRegistry)]
    if not usable:
        problems = [registry for registry in found if isinstance(registry, Problem)]
        raise problems[0].error if problems else BatchregError("The stack has no registry.")
    names = ", ".join(registry.host for registry in usable)
    if wanted is None:
        if len(usable) == 1:
            return usable[0]
        raise BatchregError(
            "The stack has several registries.", f"Give --registry, one of {names}."
        )
    key = key_of(wanted)
    for registry in usable:
        if registry.key == key:
            return registry
    raise BatchregError(f"The stack has no credentials for {host_of(key)}; it has {names}.")


def stored(manager: Any, registry: StackRegistry, stage: str = CURRENT) -> Stored:
    """Return what the registry's secret holds; BatchregError if it gives no credentials."""
    found = read(manager, registry, stage)
    if isinstance(found, Problem):
        raise found.error
    return found


def _with_key(manager: Any, registry: StackRegistry) -> StackRegistry | Problem:
    if registry.key:
        return registry
    found = read(manager, registry)
    return found if isinstance(found, Problem) else replace(registry, key=found.key)


def username(manager: Any, registry: StackRegistry) -> str:
    """Return the user name that a new password is for; empty where a broken secret hides it."""
    if registry.slot is None:
        return stored(manager, registry).credentials.username
    return registries.username(manager, registry)


def make_current(
    client: Any,
    manager: Any,
    present: Stack,
    body: str,
    registry: StackRegistry,
    credentials: Credentials,
    screen: Screen,
    *,
    sleep: Sleep = time.sleep,
) -> Outcome:
    """Make the credentials current.

    If the stack made the secret, the stack's parameters decide: the next update of the stack would
    overwrite a value that only the secret has. Where they are right and the secret was changed by
    hand, CloudFormation has nothing to do, and the secret is written as it would write it. A secret
    of the user's own gets a new version, with its other fields unchanged.
    """
    if registry.slot is None:
        current = stored(manager, registry)
        if current.credentials.password == credentials.password:
            return Outcome.UNCHANGED
        repair.write(manager, registry, {**current.fields, "password": credentials.password})
        return Outcome.CHANGED
    if _update(client, present, body, registry.slot, credentials, screen, sleep):
        return Outcome.CHANGED
    if repair.differs(manager, registry, credentials):
        if not credentials.username:
            raise repair.unknown_username(present.name, registry, screen)
        repair.write(manager, registry, repair.content(present, registry, credentials))
        return Outcome.REPAIRED
    return Outcome.UNCHANGED


def _update(
    client: Any,
    present: Stack,
    body: str,
    slot: int,
    credentials: Credentials,
    screen: Screen,
    sleep: Sleep,
) -> bool:
    """Update the stack's parameters to the credentials; return whether that is a change."""
    given = {f"Password{suffix(slot)}": credentials.password}
    if credentials.username:  # the secret's, which somebody may have changed by hand
        given[f"Username{suffix(slot)}"] = credentials.username
    parameters = {key: given.get(key) for key in present.parameters}
    with masking(list(given.values())):
        change_set = changesets.create(
            client, present.name, body, parameters, creates=False, sleep=sleep
        )
    if change_set.id is None:
        return False
    with explaining_interrupt(present.name, screen):
        try:
            token = changesets.execute(client, change_set)
        except (
            client.exceptions.ChangeSetNotFoundException,
            client.exceptions.InvalidChangeSetStatusException,
        ):
            raise BatchregError(
                f"Another change of {present.name} came first, so this one was not made.",
                f"{AGAIN.capitalize()}.",
            ) from None
        operation = Operation(
            stack_id=change_set.stack_id,
            name=present.name,
            token=token,
            verb="Updating",
            again=AGAIN,
        )
        final = follow(client, operation, screen, sleep=sleep)
    if final != "UPDATE_COMPLETE":
        raise without_failure(present.name, final, AGAIN)
    return True


def instances(batch: Any, ecs: Any, environment: str) -> list[str]:
    """Return the ids of the compute environment's running instances."""
    found = batch.describe_compute_environments(computeEnvironments=[environment])[
        "computeEnvironments"
    ]
    cluster = found[0].get("ecsClusterArn") if found else None
    if not cluster:
        return []
    return list(registered(ecs, cluster))


def reachable(ssm: Any, wanted: Sequence[str]) -> list[str]:
    """Return the instances that Systems Manager reaches."""
    pages = ssm.get_paginator("describe_instance_information").paginate()
    online = {
        found["InstanceId"]
        for page in pages
        for found in page["InstanceInformationList"]
        if found.get("PingStatus") == "Online"
    }
    return [instance for instance in wanted if instance in online]


def refresh(ssm: Any, ids: Sequence[str]) -> list[str]:
    """Ask instances to read their secrets at once; return the commands' ids."""
    return [
        ssm.send_command(
            DocumentName="AWS-RunShellScript",
            InstanceIds=list(ids[start : start + 50]),
            Comment="batchreg rotate",
            Parameters={"commands": [REFRESH]},
        )["Command"]["CommandId"]
        for start in range(0, len(ids), 50)  # the most that one call accepts
    ]


def reported(
    ssm: Any,
    commands: Sequence[str],
    ids: Sequence[str],
    *,
    sleep: Callable[[float], None] = time.sleep,
    patience_seconds: float = 300,
) -> dict[str, str]:
    """Wait until every instance has reported; return {instance id: status}.

    One that has not within `patience_seconds` has the status "No answer".
    """
    pause, waited = 0.2, 0.0
    while True:
        found = dict.fromkeys(ids, "No answer") | {
            invocation["InstanceId"]: invocation["Status"]
            for command in commands
            for page in ssm.get_paginator("list_command_invocations").paginate(CommandId=command)
            for invocation in page["CommandInvocations"]
        }
        pending = any(status in UNFINISHED for status in found.values())
        if not pending or waited >= patience_seconds:
            return found
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 5)

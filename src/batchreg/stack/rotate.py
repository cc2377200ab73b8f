"""Give a stack a new registry password, by the road that keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from batchreg import registry_login
from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.registry.names import host_of, key_of
from batchreg.render.settings import Settings, slots_of, suffix
from batchreg.stack import changesets
from batchreg.stack import states as stacks
from batchreg.stack.deploy import explaining_interrupt, follow, masking
from batchreg.stack.states import Stack, StackFailed

PREVIOUS = "AWSPREVIOUS"
# Twice, because a start joins a refresh that is under way and may have read the old password.
REFRESH = "systemctl start batchreg.service; systemctl start batchreg.service"
UNFINISHED = ("No answer", "Pending", "InProgress", "Delayed", "Cancelling")


@dataclass(frozen=True)
class Target:
    """A registry of a stack: its key, its secret and, where the stack made that, its slot."""

    key: str
    secret: str
    slot: int | None


@dataclass(frozen=True)
class Current:
    """What a secret holds now: all its fields, values never in a repr."""

    fields: Mapping[str, Any] = field(repr=False)

    @property
    def username(self) -> str:
        return str(self.fields.get("username", ""))


def targets(present: Stack, made: Settings, manager: Any) -> list[Target]:
    """Return the stack's registries, its own secrets' first to last."""
    if not made.secret_arns:
        return [
            Target(
                key_of(present.parameters[f"RegistryUrl{suffix(slot)}"]),
                present.outputs[f"RegistrySecret{suffix(slot)}Arn"],
                slot,
            )
            for slot in slots_of(present.parameters)
        ]
    found, broken = [], []
    for arn in made.secret_arns:
        try:
            url = read(manager, arn).fields.get("registry_url") or registry_login.HUB
            found.append(Target(key_of(str(url)), arn, None))
        except BatchregError as problem:
            broken.append(problem)
    if not found:
        raise broken[0]
    return found  # one broken secret does not keep the others from a new password


def choose(found: Sequence[Target], registry: str | None) -> Target:
    """Return the one registry that is meant; BatchregError where that is not clear."""
    names = ", ".join(host_of(target.key) for target in found)
    if registry is None:
        if len(found) == 1:
            return found[0]
        raise BatchregError(f"The stack has several registries: give --registry, one of {names}.")
    key = key_of(registry)
    for target in found:
        if target.key == key:
            return target
    raise BatchregError(f"The stack has no login for {host_of(key)}: it has {names}.")


def read(manager: Any, secret: str, stage: str = "AWSCURRENT") -> Current:
    """Return what the secret holds; BatchregError where it is gone or is not a login.

    No message quotes the text, which may hold a password whatever its form.
    """
    from botocore.exceptions import ClientError

    try:
        text = manager.get_secret_value(SecretId=secret, VersionStage=stage).get("SecretString", "")
    except ClientError as error:
        if error.response["Error"]["Code"] != "ResourceNotFoundException":
            raise
        what = "no earlier password" if stage == PREVIOUS else "no value"
        raise BatchregError(f"The secret {secret.rsplit(':', 1)[-1]} has {what}.") from None
    try:
        fields = json.loads(text, strict=False)
        registry_login.login(text)
    except (ValueError, registry_login.Refused):
        raise BatchregError(
            f"The secret {secret.rsplit(':', 1)[-1]} does not hold a login: mend "
            "it in the Secrets Manager console."
        ) from None
    return Current(fields)


def make_current(
    client: Any,
    manager: Any,
    present: Stack,
    body: str,
    target: Target,
    password: str,
    console: Console,
    *,
    sleep: stacks.Sleep = time.sleep,
) -> bool:
    """Make `password` the current one; False where it is that already.

    Where the stack made the secret, its parameter is the truth: a value put past it would come back
    with the next update of the stack. A secret of the user's own gets a new version, its other
    fields as they are. Either is one call that takes place or does not.
    """
    current = read(manager, target.secret)
    if current.fields["password"] == password:
        return False
    if target.slot is None:
        try:
            manager.put_secret_value(
                SecretId=target.secret,
                SecretString=json.dumps({**current.fields, "password": password}),
            )
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; {host_of(target.key)} has either its old or its new "
                "password: run the same command again."
            ) from None
        return True
    name = f"Password{suffix(target.slot)}"
    parameters = {key: password if key == name else None for key in present.parameters}
    with masking([password]):
        change_set = changesets.plan(
            client, present.name, body, parameters, creates=False, sleep=sleep
        )
    if change_set.id is None:
        return False
    with explaining_interrupt(present.name):
        try:
            token = changesets.execute(client, change_set)
        except (
            client.exceptions.ChangeSetNotFoundException,
            client.exceptions.InvalidChangeSetStatusException,
        ):
            raise BatchregError(
                f"Another change of {present.name} came first, and this one has "
                "not taken place: rotate again."
            ) from None
        settled = follow(
            client,
            change_set.stack_id,
            present.name,
            token,
            console,
            "Updating",
            again="rotate again",
            sleep=sleep,
        )
    if settled != "UPDATE_COMPLETE":
        raise StackFailed(
            f"{present.name} ended in {settled}, without a failure of its own: rotate again."
        )
    return True


def instances(batch: Any, ecs: Any, environment: str) -> list[str]:
    """Return the ids of the compute environment's running instances."""
    found = batch.describe_compute_environments(computeEnvironments=[environment])[
        "computeEnvironments"
    ]
    cluster = found[0].get("ecsClusterArn") if found else None
    if not cluster:
        return []
    pages = ecs.get_paginator("list_container_instances").paginate(cluster=cluster)
    arns = [arn for page in pages for arn in page["containerInstanceArns"]]
    return [
        instance["ec2InstanceId"]
        for start in range(0, len(arns), 100)  # as many as one call takes
        for instance in ecs.describe_container_instances(
            cluster=cluster, containerInstances=arns[start : start + 100]
        )["containerInstances"]
        if instance.get("ec2InstanceId")
    ]


def reachable(ssm: Any, wanted: Sequence[str]) -> list[str]:
    """Return those of the instances that Systems Manager reaches."""
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
        for start in range(0, len(ids), 50)  # as many as one call takes
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

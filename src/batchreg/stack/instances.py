"""The instances of a compute environment: which have joined its cluster, and what keeps others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from batchreg import aws
from batchreg.stack.console_lines import State, lines, state_of

if TYPE_CHECKING:
    from types_boto3_ec2 import EC2Client
    from types_boto3_ecs import ECSClient

MOST_CONSOLES = 20  # that are read: they are for a person
NOT_CONNECTED = "not connected"


@dataclass(frozen=True)
class Standing:
    """An instance that takes no jobs, or takes them without credentials.

    `state`: a State of `console_lines`, or NOT_CONNECTED where its console does not tell one.
    `why`: in the program's words, or why the console could not be read.
    """

    id: str
    state: str
    why: str


@dataclass(frozen=True)
class Instances:
    """The instances of a cluster. `running`: how many take jobs and have their credentials.

    `others`: those that do not. `unknown`: why the cluster could not be read, None if it was.
    """

    running: int = 0
    others: tuple[Standing, ...] = ()
    unknown: str | None = None

    def __str__(self) -> str:
        """Return "2 running, 1 parked: why"."""
        if self.unknown:
            return f"unknown: {self.unknown}"
        groups = Counter((one.state, one.why) for one in self.others)
        running = [f"{self.running} running"] if self.running else []
        found = [
            f"{number} {state}{f': {why}' if why else ''}"
            for (state, why), number in groups.items()
        ]
        return ", ".join([*running, *found]) or "none"


def look(ecs: ECSClient, ec2: EC2Client, cluster: str, *, join: bool) -> Instances:
    """Look at a cluster's instances; a call that AWS refuses costs only what it would tell.

    `join`: the stack lets instances take jobs without credentials, so that a connected agent does
    not mean that there are some.
    """
    try:
        agents = registered(ecs, cluster)
    except Exception as error:
        if (line := aws.explain(error)) is None:
            raise
        return Instances(unknown=line)
    suspects = [name for name, connected in agents.items() if not connected]
    if join:
        suspects += [name for name, connected in agents.items() if connected]
    read = suspects[:MOST_CONSOLES]
    with ThreadPoolExecutor(max(len(read), 1)) as pool:
        told = dict(zip(read, pool.map(lambda name: _state(ec2, name), read), strict=True))
    others = tuple(
        standing
        for name in agents
        if (standing := _standing(name, agents[name], *told.get(name, (State.UNKNOWN, ""))))
    )
    return Instances(len(agents) - len(others), others)


def _standing(name: str, connected: bool, state: State, why: str) -> Standing | None:
    """Return what keeps an instance from its work, None if nothing does."""
    if connected:
        return Standing(name, state, why) if state is State.WITHOUT else None
    if state in (State.PARKED, State.POWERED_OFF):
        return Standing(name, state, why)
    return Standing(name, NOT_CONNECTED, "" if state is State.READY else why)


def _state(ec2: EC2Client, name: str) -> tuple[State, str]:
    try:
        return state_of(lines(console_output(ec2, name)))
    except Exception as error:
        if (line := aws.explain(error)) is None:
            raise
        return State.UNKNOWN, line.rstrip(".")


def registered(ecs: ECSClient, cluster: str) -> dict[str, bool]:
    """Return {instance id: whether its agent is connected} of a cluster's container instances."""
    return dict(_registered(ecs, cluster))


def _registered(ecs: ECSClient, cluster: str) -> Iterator[tuple[str, bool]]:
    for page in ecs.get_paginator("list_container_instances").paginate(cluster=cluster):
        arns = page["containerInstanceArns"]  # at most 100, the most that the next call accepts
        if not arns:
            continue
        found = ecs.describe_container_instances(cluster=cluster, containerInstances=arns)
        for one in found["containerInstances"]:
            if name := one.get("ec2InstanceId"):
                yield name, one.get("agentConnected", False)


def console_output(ec2: EC2Client, name: str) -> str:
    """Return an instance's console output: the latest, where the instance type has it."""
    from botocore.exceptions import ClientError

    try:
        return ec2.get_console_output(InstanceId=name, Latest=True).get("Output", "")
    except ClientError as error:
        if "UnsupportedOperation" not in str(error):
            raise
        # Only Nitro instances have the latest; others have what was posted after the boot.
        return ec2.get_console_output(InstanceId=name).get("Output", "")

"""What a job queue or a compute environment looks like now, whoever created it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from batchreg.attach import environment, owner
from batchreg.errors import BatchregError
from batchreg.jobs import batch as jobs
from batchreg.stack import registries
from batchreg.stack.status import Part

Clients = Callable[[str], Any]
Raw = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class QueueStatus:
    """Job queues, the compute environments behind them, and who provides credentials.

    `created_by`: {environment: what seems to have created it}. `stack`: of batchreg's, None where
    none has an environment. `attached`: the stack was made by attach. `registries`: its hosts.
    `with_instances`: the environments whose instances could have credentials, as Fargate's have not.
    """

    job_queues: tuple[Part, ...]
    compute_environments: tuple[Part, ...]
    created_by: dict[str, str]
    jobs: dict[str, int]
    stack: str | None
    attached: bool
    registries: tuple[str, ...]
    with_instances: tuple[str, ...]


def look(
    clients: Clients, *, queue: str = "", name: str = "", stacks: Iterable[str]
) -> QueueStatus:
    """Look at a queue and its environments, or at the environment `name` and its queues.

    Each by name or ARN; `stacks` may be theirs. Raises BatchregError where there is none.
    """
    batch = clients("batch")
    queues, environments = _find(batch, queue, name)
    with ThreadPoolExecutor() as pool:
        owned = pool.submit(owner.find, clients, environments, stacks)
        counts = [
            pool.submit(jobs.per_state, batch, one["jobQueueName"]).result() for one in queues
        ]
        stack, deployed = owned.result() or (None, None)
    read = [environment.read(one) for one in environments]
    hosts = registries.of(stack, deployed.settings) if stack and deployed else ()
    return QueueStatus(
        job_queues=tuple(_part(one, "jobQueueName") for one in queues),
        compute_environments=tuple(_part(one, "computeEnvironmentName") for one in environments),
        created_by={one.name: environment.created_by(one).name for one in read},
        jobs={state: sum(len(one[state]) for one in counts) for state in jobs.STATES if counts},
        stack=stack.name if stack else None,
        attached=bool(deployed and deployed.attached),
        registries=tuple(one.host for one in hosts),
        with_instances=tuple(one.name for one in read if one.kind in ("EC2", "SPOT")),
    )


def _find(batch: Any, queue: str, name: str) -> tuple[list[Raw], list[Raw]]:
    """Return the queues and the environments that are meant."""
    queues: list[Raw] = [
        one
        for page in batch.get_paginator("describe_job_queues").paginate()
        for one in page["jobQueues"]
    ]
    names = [name]
    if queue:
        queues = [one for one in queues if queue in (one["jobQueueName"], one["jobQueueArn"])]
        orders = [order for one in queues for order in one["computeEnvironmentOrder"]]
        names = [order["computeEnvironment"] for order in orders]
    found: list[Raw] = []
    if names:
        answer = batch.describe_compute_environments(computeEnvironments=names)
        found = answer["computeEnvironments"]
    if not (queues if queue else found):
        kind = "job queue" if queue else "compute environment"
        raise BatchregError(
            f"There is no {kind} {queue or name} in {batch.meta.region_name}.",
            "To list the queues there:",
            ("list",),
        )
    if name:
        users = {one.name for one in environment.queues(queues, environment.read(found[0]))}
        queues = [one for one in queues if one["jobQueueName"] in users]
    return queues, found


def _part(raw: Raw, name: str) -> Part:
    return Part(raw[name], raw.get("state", ""), raw.get("status", ""), raw.get("statusReason", ""))

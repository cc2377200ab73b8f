"""What there is in a region: the stacks of batchreg, and the job queues that belong to none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from batchreg.jobs.batch import UNFINISHED
from batchreg.stack import registries, states
from batchreg.stack.states import Stack

WAITING = tuple(state for state in UNFINISHED if state not in ("STARTING", "RUNNING"))
PAGE = 100  # jobs that are counted per state and queue


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A stack of batchreg's, or a job queue that belongs to none.

    `kind`: "stack", "companion" or "queue". `state`: of the stack, its queues and environments,
    where one is not VALID and ENABLED. `waiting`: how many jobs wait, "100+" for more than a page.
    """

    name: str
    kind: str
    state: str
    registries: tuple[str, ...]
    queues: tuple[str, ...]
    waiting: str


def look(clients: Callable[[str], Any]) -> tuple[tuple[Listed, ...], tuple[Listed, ...]]:
    """Return the stacks and the other queues, each by name. Calls run in parallel."""
    batch, cloudformation = clients("batch"), clients("cloudformation")
    with ThreadPoolExecutor() as pool:
        described = pool.submit(_all, batch, "describe_compute_environments", "computeEnvironments")
        queues = pool.submit(_all, batch, "describe_job_queues", "jobQueues")
        candidates = [
            states.read(raw)
            for raw in _all(cloudformation, "describe_stacks", "Stacks")
            if states.may_be_ours(one["ParameterKey"] for one in raw.get("Parameters", ()))
        ]
        deployed = list(pool.map(lambda one: states.deployed(cloudformation, one), candidates))
        waiting = {
            queue["jobQueueArn"]: pool.submit(_waiting, batch, queue["jobQueueArn"])
            for queue in queues.result()
        }
        by_arn = {raw["jobQueueArn"]: raw for raw in queues.result()}
        environments = {raw["computeEnvironmentArn"]: raw for raw in described.result()}
        counts = {arn: one.result() for arn, one in waiting.items()}
    stacks, taken = [], set[str]()
    for stack, what in zip(candidates, deployed, strict=True):
        if what:
            mine = [arn for arn in stack.arns("JobQueueArn") if arn in by_arn]
            taken |= {*mine}
            stacks.append(
                Listed(
                    name=stack.name,
                    kind="companion" if what.attached else "stack",
                    state=_state(stack, [by_arn[arn] for arn in mine], environments),
                    registries=tuple(one.host for one in registries.of(stack, what.settings)),
                    queues=tuple(by_arn[arn]["jobQueueName"] for arn in mine),
                    waiting=_sum([counts[arn] for arn in mine]),
                )
            )
    others = [
        Listed(
            name=raw["jobQueueName"],
            kind="queue",
            state=_state(None, [raw], environments),
            registries=(),
            queues=(raw["jobQueueName"],),
            waiting=_sum([counts[arn]]),
        )
        for arn, raw in by_arn.items()
        if arn not in taken
    ]
    return _sorted(stacks), _sorted(others)


def _all(client: Any, method: str, items: str) -> list[dict[str, Any]]:
    return [one for page in client.get_paginator(method).paginate() for one in page[items]]


def _waiting(batch: Any, queue: str) -> tuple[int, bool]:
    """Return how many jobs wait, and whether there are more: a page of each state is counted."""
    pages = [batch.list_jobs(jobQueue=queue, jobStatus=state, maxResults=PAGE) for state in WAITING]
    return sum(len(one["jobSummaryList"]) for one in pages), any(
        one.get("nextToken") for one in pages
    )


def _sum(counts: Sequence[tuple[int, bool]]) -> str:
    return f"{sum(count for count, _ in counts)}{'+' if any(more for _, more in counts) else ''}"


def _state(
    stack: Stack | None,
    queues: Sequence[Mapping[str, Any]],
    environments: Mapping[str, Mapping[str, Any]],
) -> str:
    """Return the stack's status, or what is not in order: "INVALID", "DISABLED"."""
    parts = list(queues)
    for queue in queues:
        for order in queue.get("computeEnvironmentOrder", ()):
            parts += [
                environments[arn] for arn in [order["computeEnvironment"]] if arn in environments
            ]
    for bad in ("INVALID", "DISABLED"):
        if any(bad in (one.get("status"), one.get("state")) for one in parts):
            return bad
    return stack.status if stack else "VALID"


def _sorted(found: list[Listed]) -> tuple[Listed, ...]:
    return tuple(sorted(found, key=lambda one: one.name))

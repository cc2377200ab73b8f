"""Jobs of a queue, over an injected Batch client."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from batchreg.errors import BatchregError

UNFINISHED = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
STATES = (*UNFINISHED, "SUCCEEDED", "FAILED")


def in_state(batch: Any, queue: str, state: str) -> list[dict[str, Any]]:
    """Return the queue's jobs in one state."""
    pages = batch.get_paginator("list_jobs").paginate(jobQueue=queue, jobStatus=state)
    return [job for page in pages for job in page["jobSummaryList"]]


def per_state(batch: Any, queue: str, states: Sequence[str] = STATES) -> dict[str, list[Any]]:
    """Return {state: jobs}; Batch lists one state a call, so the calls go out side by side."""
    with ThreadPoolExecutor(len(states)) as pool:
        found = pool.map(lambda state: in_state(batch, queue, state), states)
        return dict(zip(states, found, strict=True))


def unfinished(batch: Any, queue: str) -> list[dict[str, Any]]:
    """Return the queue's jobs that wait or run."""
    return [job for jobs in per_state(batch, queue, UNFINISHED).values() for job in jobs]


def counted(jobs: Sequence[dict[str, Any]]) -> str:
    """Say how many jobs there are of each state: "2 RUNNABLE, 1 RUNNING"."""
    counts = Counter(job["status"] for job in jobs)
    return ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])


def terminate(batch: Any, queue: str, jobs: Sequence[dict[str, Any]], reason: str, *,
              sleep: Callable[[float], None] = time.sleep, patience_seconds: float = 300) -> None:
    """End the jobs and wait until the queue has none left.

    Raises BatchregError where some are still there after `patience_seconds`.
    """
    for job in jobs:
        batch.terminate_job(jobId=job["jobId"], reason=reason)
    pause, waited = 0.2, 0.0
    while left := unfinished(batch, queue):
        if waited > patience_seconds:
            raise BatchregError(f"{len(left)} jobs have not ended after {waited:.0f} s: wait, then "
                                "destroy again.")
        sleep(pause)
        waited += pause
        pause = min(pause * 2, 5)

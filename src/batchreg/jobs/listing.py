"""The jobs of queues, and the job that the start of an id means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from batchreg.errors import BatchregError
from batchreg.jobs.batch import STATES, state

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient

_WHOLE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_START = re.compile(r"[0-9a-f][0-9a-f-]*")

PARALLEL = 8  # calls at a time
SHORT = 8  # characters of an id: enough to tell apart what a queue holds, nearly always


@dataclass(frozen=True)
class Listed:
    """A job in a list. `created` is in milliseconds since 1970.

    `size`: how many children an array job has, 0 for any other; `children` counts them per state.
    """

    id: str
    name: str
    status: str
    reason: str
    created: int
    queue: str
    size: int
    children: Mapping[str, int]


def look(
    batch: BatchClient, queues: Iterable[str], statuses: Sequence[str] = STATES
) -> list[Listed]:
    """Return the jobs of the queues, the newest first; of an array job itself, not its children.

    `queues` are names or ARNs; BatchregError if the only one does not exist. AWS Batch lists one
    state per call, so the calls run in parallel.
    """
    names = [*queues]
    try:
        return _newest_first(batch, [{"jobQueue": queue} for queue in names], statuses)
    except batch.exceptions.ClientException as error:
        if len(names) != 1 or "does not exist" not in str(error):
            raise
        raise BatchregError(
            f"There is no job queue {names[0]} in {batch.meta.region_name}.",
            "To list the queues there:",
            ("list",),
        ) from None


def children(batch: BatchClient, job_id: str, statuses: Sequence[str] = STATES) -> list[Listed]:
    """Return the children of an array job in the order of their numbers."""
    found = _newest_first(batch, [{"arrayJobId": job_id}], statuses)
    return sorted(found, key=lambda job: int(job.id.rpartition(":")[2]))


def _newest_first(
    batch: BatchClient, places: Iterable[dict[str, str]], statuses: Sequence[str]
) -> list[Listed]:
    def ask(request: dict[str, Any]) -> list[Listed]:
        pages = batch.get_paginator("list_jobs").paginate(**request)
        queue = request.get("jobQueue", "").rpartition("/")[2]
        return [_listed(raw, queue) for page in pages for raw in page["jobSummaryList"]]

    requests = [{**place, "jobStatus": status} for place in places for status in statuses]
    with ThreadPoolExecutor(PARALLEL) as pool:
        # A job that changes its state meanwhile may be in two lists: the later state counts.
        found = {job.id: job for jobs in pool.map(ask, requests) for job in jobs}
    return sorted(found.values(), key=lambda job: (-job.created, job.id))


def _listed(raw: Mapping[str, Any], queue: str) -> Listed:
    seen = state(raw)
    said = raw.get("container", {}).get("reason", "")  # why a pull failed, say
    return Listed(
        id=raw["jobId"],
        name=raw.get("jobName", ""),
        status=seen.status,
        reason=" ".join(said.split()) or seen.reason,
        created=int(raw.get("createdAt", 0)),
        queue=queue,
        size=raw.get("arrayProperties", {}).get("size") or 0,
        children=dict(seen.children),
    )


def is_whole(text: str) -> bool:
    """Tell whether a text is a whole id, of a job or of a child such as ID:0 (array) or ID#0."""
    return bool(_WHOLE.fullmatch(re.split("[:#]", text, maxsplit=1)[0]))


def can_start(text: str) -> bool:
    """Tell whether an id can start like this."""
    return bool(_START.fullmatch(re.split("[:#]", text, maxsplit=1)[0]))


def meant(jobs: Iterable[Listed], text: str) -> list[Listed]:
    """Return the jobs whose ids start like this; of ID:0 the number of the child does not count."""
    start = re.split("[:#]", text, maxsplit=1)[0]
    return [job for job in jobs if job.id.startswith(start)]


def short(jobs: Sequence[Listed]) -> list[str]:
    """Return the start of each job's id that no other of these jobs has; children keep a number."""
    parts = [job.id.partition(":") for job in jobs]
    ids = {parent for parent, _, _ in parts}
    length = next(n for n in range(SHORT, 37) if len({each[:n] for each in ids}) == len(ids))
    return [parent[:length] + mark + number for parent, mark, number in parts]

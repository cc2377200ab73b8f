"""`jobs`: the jobs of a queue, or the children of an array job."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from batchreg.aws import Session
from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.tables import room_on_stdout
from batchreg.jobs import listing
from batchreg.jobs.batch import STATES
from batchreg.jobs.listing import Listed

MOST_OF_A_NAME = 30  # characters of a job's name that a terminal shows


def run(
    *,
    job: str | None,
    stack_name: str,
    queue: str | None,
    statuses: tuple[str, ...],
    limit: int,
    json_output: bool,
    **place: Any,
) -> int:
    """Print the jobs; `place` is for `target.session`."""
    show = screen(json_output)
    command = ListJobs(
        job=job,
        stack_name=stack_name,
        queue=queue,
        statuses=tuple(status for status in STATES if status in statuses or not statuses),
        limit=limit,
        place=place,
        screen=show,
    )
    return runner.run(command, show)


@dataclass(frozen=True, kw_only=True)
class ListJobs:
    """The stages of `jobs`."""

    job: str | None
    stack_name: str
    queue: str | None
    statuses: Sequence[Any]
    limit: int
    place: dict[str, Any]
    screen: AnyScreen

    def gather(self) -> None:
        return

    def resolve(self, _: None) -> Session:
        return target.session(**self.place)

    def ask(self, session: Session) -> Session:
        return session

    def act(self, session: Session) -> int:
        batch = session.client("batch")
        with self.screen.waiting("looking at jobs"):
            if self.job:
                parent = target.job_id(session, self.job, self.stack_name, self.queue)
                found = listing.children(batch, parent, self.statuses)
                none = f"{parent} has no such children; only an array job has any.\n"
            else:
                queues = target.job_queues(session, self.stack_name, self.queue)
                found = listing.look(batch, queues, self.statuses)
                names = ", ".join(name.rpartition("/")[2] for name in queues)
                none = f"There are no such jobs in {names or 'this region'}.\n"
        shown = found[: self.limit]
        self.screen.product(
            "result",
            "".join(f"{line}\n" for line in _lines(shown, time.time())) or none,
            jobs=[_fields(one) for one in shown],
            total=len(found),
        )
        if len(found) > len(shown):
            self.screen.tell(f"{len(shown)} of {len(found)} jobs; --limit shows more.")
        return 0


def _fields(job: Listed) -> dict[str, Any]:
    created = datetime.fromtimestamp(job.created / 1000, UTC).isoformat(timespec="milliseconds")
    return {**asdict(job), "created": created}


def _lines(jobs: Sequence[Listed], now: float) -> Iterator[str]:
    """Yield a table; on a terminal a row is a line, and the reason ends where the line does."""
    if not jobs:
        return
    rows = [("JOB", "NAME", "STATUS", "AGE", "REASON")]
    for start, job in zip(listing.short(jobs), jobs, strict=True):
        counts = ", ".join(f"{count} {status}" for status, count in job.children.items())
        size = f"{job.size} children{f': {counts}' if counts else ''}" if job.size else ""
        reason = ". ".join(filter(None, (size, job.reason)))
        name = _cut(job.name, MOST_OF_A_NAME)
        rows.append((start, name, job.status, _age(now - job.created / 1000), reason or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    width = room_on_stdout() or sys.maxsize
    for *cells, reason in rows:
        begin = "".join(f"{cell:<{w}}  " for cell, w in zip(cells, widths, strict=True))
        yield begin + _cut(reason, max(width - len(begin), len("REASON")))


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _age(seconds: float) -> str:
    """Return an age in its largest unit: "5 s", "12 min", "3 h", "2 d"."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"

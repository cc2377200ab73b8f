"""`status`: show what the stack looks like now."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.target import Target
from batchreg.stack import states
from batchreg.stack.status import Status, look


def run(*, stack_name: str, json_output: bool, **place: Any) -> int:
    """Print what the stack looks like now; `place` is for `target.session`."""
    show = screen(json_output)
    command = Show(stack_name=stack_name, place=place, screen=show)
    return runner.run(command, show, stack=stack_name)


@dataclass(frozen=True, kw_only=True)
class Show:
    """The stages of `status`."""

    stack_name: str
    place: dict[str, Any]
    screen: AnyScreen

    def gather(self) -> str:
        target.check_name(self.stack_name)
        return self.stack_name

    def resolve(self, name: str) -> Target:
        return target.find(name, **self.place)

    def ask(self, found: Target) -> Target:
        return found

    def act(self, found: Target) -> int:
        seen = look(found.session.client, found.existing())
        self.screen.product("result", "".join(f"{line}\n" for line in _lines(seen)), **asdict(seen))
        return 0


def _lines(seen: Status) -> Iterator[str]:
    """Put a status into lines that fit 80 columns; the reason of a healthy part is left out."""

    def row(kind: str, state: str, name: str = "", reason: str = "") -> Iterator[str]:
        yield f"{kind:<19}  {state}  {name}".rstrip()
        if reason:
            yield f"{'':<19}  {' '.join(reason.split())}"

    yield from row("Stack", seen.status, seen.stack, seen.reason)
    for kind, parts in (
        ("Compute environment", seen.compute_environments),
        ("Job queue", seen.job_queues),
    ):
        for part in parts:
            healthy = (part.status, part.state) == ("VALID", "ENABLED")
            yield from row(
                kind, f"{part.status}, {part.state}", part.name, "" if healthy else part.reason
            )
    for arn, changed in seen.secrets.items():
        when = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d)", changed)
        yield from row("Secret", f"changed {when[1]}" if when else changed, seen.registries[arn])
    if seen.jobs:
        counts = [f"{count} {state}" for state, count in seen.jobs.items() if count]
        yield from row("Jobs", ", ".join(counts) or "none")
    yield from row(
        "Template",
        {
            None: "none yet" if seen.status in states.NOT_CREATED else "not batchreg's",
            False: "as rendered now",
            True: "not as rendered now: batchreg deploy updates it",
        }[seen.differs],
        f"batchreg {seen.version}" if seen.version else "",
    )

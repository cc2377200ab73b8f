"""`list`: the stacks of batchreg and the other job queues in a region."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from batchreg.attach import listing
from batchreg.attach.listing import Listed
from batchreg.aws import Session
from batchreg.cli import runner, target
from batchreg.cli.console import AnyScreen, screen
from batchreg.cli.tables import columns, room_on_stdout


def run(*, json_output: bool, **place: Any) -> int:
    """Print the stacks and the queues; `place` is for `target.session`."""
    show = screen(json_output)
    return runner.run(List(place=place, screen=show), show)


@dataclass(frozen=True, kw_only=True)
class List:
    """The stages of `list`."""

    place: dict[str, Any] = field(repr=False)
    screen: AnyScreen

    def gather(self) -> None:
        return

    def resolve(self, _: None) -> Session:
        return target.session(**self.place)

    def ask(self, session: Session) -> Session:
        return session

    def act(self, session: Session) -> int:
        with self.screen.waiting("looking at stacks and job queues"):
            stacks, queues = listing.look(session.client)
        lines = [*_lines("STACK", stacks), *_lines("OTHER QUEUE", queues)]
        self.screen.product(
            "result",
            "".join(f"{line}\n" for line in lines) or "There are no stacks and no job queues.\n",
            stacks=[asdict(one) for one in stacks],
            queues=[asdict(one) for one in queues],
        )
        return 0


def _lines(heading: str, found: tuple[Listed, ...]) -> Iterator[str]:
    """Yield a table without borders, of which programs read the JSON instead."""
    if found:
        rows = (
            (one.name, one.state, ", ".join(one.registries) or "-", one.waiting) for one in found
        )
        yield from columns([(heading, "STATE", "REGISTRIES", "WAITING"), *rows], room_on_stdout())

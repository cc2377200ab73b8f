"""What the core asks of whoever shows its progress: `cli.console` has two of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from batchreg.stack.changesets import Change
    from batchreg.stack.events import Event
    from batchreg.stack.preview import Change as Setting


@dataclass(frozen=True)
class Resource:
    """A resource of a stack: its logical id and its type."""

    logical_id: str
    type: str


class Ask(Protocol):
    """Asks a yes-or-no question; False changes nothing."""

    def __call__(self, question: str) -> bool: ...


class Screen(Protocol):
    """Shows what happens, to a person or to a program."""

    def command(self, *words: str) -> str:
        """Return a batchreg command to run next, for the same region and profile."""

    def note(self, text: str) -> None:
        """Show one line."""

    def changes(self, changes: Sequence[Change]) -> None:
        """Show what a change set would do."""

    def settings(self, settings: Sequence[Setting]) -> None:
        """Show the settings that an update would change, with both values."""

    def deletions(self, resources: Sequence[Resource]) -> None:
        """Show what would be deleted."""

    def waiting(self, text: str) -> AbstractContextManager[None]:
        """Show what batchreg is waiting for, as long as the block runs."""

    def following(self, title: str) -> AbstractContextManager[Callable[[Event], None]]:
        """Return the function that shows each event of an operation."""

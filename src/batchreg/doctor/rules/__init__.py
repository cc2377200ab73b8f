"""The rules of doctor: small functions from facts to what speaks for one cause.

A rule yields (evidence, fix) for each thing that shows its cause. It says nothing where the facts
that it needs were not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from batchreg.doctor.facts import Facts

Found = Iterator[tuple[str, str]]
Look = Callable[[Facts], Found]


@dataclass(frozen=True)
class Rule:
    """A cause, in a word for programs and in a line for people, and how it shows.

    Several rules may show one cause. `unless`: causes that explain what the rule sees; next to one
    of them it is silent.
    """

    cause: str
    text: str
    look: Look
    unless: frozenset[str]


ANY = "*"  # in `unless`: whatever has been found


class Table(list[Rule]):
    """The rules of one module, the most likely first."""

    def rule(
        self, cause: str, text: str, *, unless: Collection[str] = ()
    ) -> Callable[[Look], Look]:
        """Enter a function as a rule."""

        def enter(look: Look) -> Look:
            self.append(Rule(cause, text, look, frozenset(unless)))
            return look

        return enter


def deploy(facts: Facts, *options: str) -> str:
    """Return the command that deploys the stack with these options."""
    return " ".join(["batchreg deploy --stack-name", stack_name(facts), *options])


def stack_name(facts: Facts) -> str:
    return facts.stack.name if facts.stack else "NAME"

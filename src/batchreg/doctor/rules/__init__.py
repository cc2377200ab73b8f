"""The rules of doctor: small functions from facts to the evidence of one cause.

A rule yields one Evidence for each thing that shows its cause. It yields nothing where the facts
that it needs were not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Flag, auto

from batchreg.doctor.facts import Environment, Facts, Job


class Layer(Flag):
    """What a rule looks at, from the bottom up: a cause in one layer shows as symptoms above it."""

    STACK = auto()
    ENVIRONMENT = auto()  # compute environments and job queues
    SECRET = auto()
    ROLE = auto()
    LAUNCH = auto()  # the launch template and its user data
    NETWORK = auto()
    IMAGE = auto()
    JOB = auto()
    INSTANCE = auto()


NOTHING = Layer(0)
NO_CREDENTIALS = Layer.SECRET | Layer.ROLE | Layer.LAUNCH  # why an instance has none
ANYTHING = ~NOTHING


@dataclass(frozen=True)
class Evidence:
    """One thing that shows a cause.

    `fix`: a command that runs exactly as it is, fixes this, and breaks nothing that works. `step`:
    what a person has to do where no command can, or has to know before running it.
    """

    text: str
    fix: str = ""
    step: str = ""


Found = Iterator[Evidence]
Look = Callable[[Facts], Found]


@dataclass(frozen=True)
class Rule:
    """A cause, in a word for programs and in a line for people, and how it shows.

    Several rules may show one cause. `source`: where the knowledge comes from. `symptom_of`: layers
    whose causes explain what the rule sees; next to one of them the rule is silent.
    """

    cause: str
    text: str
    look: Look
    layer: Layer
    source: str
    symptom_of: Layer


class Table(list[Rule]):
    """The rules of one module, the most likely first within each layer."""

    def rule(
        self, cause: str, text: str, *, layer: Layer, source: str, symptom_of: Layer = NOTHING
    ) -> Callable[[Look], Look]:
        """Enter a function as a rule."""

        def enter(look: Look) -> Look:
            self.append(Rule(cause, text, look, layer, source, symptom_of))
            return look

        return enter


def main(facts: Facts) -> Environment | None:
    """Return the environment that the launch template, the role and the network belong to."""
    on_ec2 = [one for one in present(facts) if not one.fargate]
    named = [one for one in on_ec2 if one.name == facts.environment]
    return next(iter(named or on_ec2), None)


def present(facts: Facts) -> Iterator[Environment]:
    """Yield the compute environments that exist."""
    return (environment for environment in facts.environments or () if environment.exists)


def stuck(facts: Facts) -> Iterator[Job]:
    """Yield the jobs that wait or have failed."""
    return (job for job in facts.jobs or () if job.stuck)


def waiting(facts: Facts) -> Iterator[Job]:
    """Yield the jobs that wait for an instance."""
    return (job for job in facts.jobs or () if job.status == "RUNNABLE" and not job.fargate)

"""From facts to findings: why jobs wait or images fail to pull, the most likely cause first."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from operator import or_

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import (
    NOTHING,
    Evidence,
    Layer,
    Rule,
    capacity,
    credentials,
    environment,
    hints,
    image,
    job,
    launch_template,
    launches,
    network,
    role,
    stack,
)

RULES: list[Rule] = [
    *stack.RULES,
    *environment.RULES,
    *credentials.RULES,
    *role.RULES,
    *launch_template.RULES,
    *network.RULES,
    *environment.CONSEQUENCES,
    *image.RULES,
    *capacity.RULES,
    *launches.RULES,
    *job.RULES,
    *hints.RULES,
]

OF_ALL = Layer.IMAGE | Layer.JOB
MOST = 4  # pieces of evidence, fixes and steps that are shown


@dataclass(frozen=True)
class Finding:
    """A cause with its evidence.

    `fix`: commands that run exactly as they are. `steps`: what a person has to do or to know.
    """

    cause: str
    text: str
    evidence: tuple[str, ...]
    fix: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


def diagnose(facts: Facts, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """Return what is wrong, the most likely cause first; nothing if all is well."""
    found: dict[str, tuple[str, list[Evidence]]] = {}
    views = list(facts.views())
    explained = [NOTHING] * len(views)
    for rule in rules:
        # A job may have run in any of the environments.
        anywhere = functools.reduce(or_, explained) if rule.layer in OF_ALL else NOTHING
        for number, view in enumerate(views):
            if rule.symptom_of & (explained[number] | anywhere):
                continue
            if seen := list(rule.look(view)):
                found.setdefault(rule.cause, (rule.text, []))[1].extend(seen)
                explained[number] |= rule.layer
    return [_finding(cause, text, seen) for cause, (text, seen) in found.items()]


def signature(facts: Facts) -> list[tuple[str, tuple[str, ...]]]:
    """Return what must stay the same when secrets are redacted: the causes and their fixes."""
    return [(finding.cause, finding.fix) for finding in diagnose(facts)]


def _finding(cause: str, text: str, seen: list[Evidence]) -> Finding:
    lines = _different(" ".join(one.text.split()) for one in seen)
    more = [f"and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return Finding(
        cause,
        text,
        (*lines[:MOST], *more),
        _different(one.fix for one in seen)[:MOST],
        _different(one.step for one in seen)[:MOST],
    )


def _different(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(filter(None, texts)))

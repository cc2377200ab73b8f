"""From facts to findings: why jobs wait or images fail to pull, the most likely cause first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from batchreg.doctor.facts import Facts
from batchreg.doctor.rules import (
    NOTHING,
    Evidence,
    Rule,
    credentials,
    environment,
    hints,
    image,
    job,
    launch_template,
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
    *image.RULES,
    *job.RULES,
    *hints.RULES,
]

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
    explained = NOTHING
    for rule in rules:
        if rule.symptom_of & explained:
            continue
        if seen := list(rule.look(facts)):
            found.setdefault(rule.cause, (rule.text, []))[1].extend(seen)
            explained |= rule.layer
    return [_finding(cause, text, seen) for cause, (text, seen) in found.items()]


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

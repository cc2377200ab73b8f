"""The commands that findings print: complete, so that they run exactly as they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from batchreg.doctor.facts import Facts


def batchreg(facts: Facts, command: str, *options: str) -> str:
    """Return a command of batchreg about this stack, as it can be run."""
    return shlex.join(["batchreg", command, "--stack-name", facts.stack_name, *_place(facts)]) + (
        f" {shlex.join(options)}" if options else ""
    )


def deploy(facts: Facts, *options: str) -> str:
    """Return the command that deploys the stack with these options."""
    return batchreg(facts, "deploy", *options)


def aws(facts: Facts, *words: str) -> str:
    """Return a command of the AWS CLI, as it can be run."""
    return shlex.join(["aws", *words, *_place(facts)])


def repeated(option: str, values: Iterable[str]) -> list[str]:
    """Return [option, value, option, value, ...]."""
    return [word for value in values for word in (option, value)]


def second_stack(facts: Facts) -> str:
    """Return the step for what CloudFormation cannot recreate in place."""
    return (
        "This cannot be fixed in place. Deploy a second stack under another name, submit your jobs "
        f"to its queue, and destroy this one when its jobs have finished: "
        f"{batchreg(facts, 'destroy')}"
    )


def _place(facts: Facts) -> list[str]:
    words = ["--region", facts.region] if facts.region else []
    return words + (["--profile", facts.profile] if facts.profile else [])

"""The commands that findings print: complete, so that they run exactly as they are."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from batchreg.doctor.facts import Environment, Facts
from batchreg.doctor.rules import main

# What deploy calls the properties of a compute environment.
PROPERTIES = {
    "--max-vcpus": "maxvCpus",
    "--subnet-id": "subnets",
    "--security-group-id": "securityGroupIds",
    "--instance-type": "instanceTypes",
    "--image-type": "ec2Configuration",
}


def batchreg(facts: Facts, command: str, *options: str) -> str:
    """Return a command of batchreg about this stack or queue, as it can be run."""
    about = ["--stack-name", facts.stack_name] if facts.stack_name else []
    if command == "status" and not facts.stack_name:
        about = _asked(facts)
    if command == "jobs" and not (facts.stack_name and facts.stack):
        about = ["--queue", facts.queues[0].name] if facts.queues else []
    return shlex.join(["batchreg", command, *about, *_place(facts)]) + (
        f" {shlex.join(options)}" if options else ""
    )


def deploy(facts: Facts, *options: str) -> str:
    """Return the command that gives the compute environment these options of deploy.

    It is AWS Batch's own where no stack of batchreg's made the environment; there the options are
    those of PROPERTIES.
    """
    environment = main(facts)
    if facts.ours or not environment or not {*options} & {*PROPERTIES}:
        return batchreg(facts, "deploy", *options)
    return update(facts, environment, *options)


def update(facts: Facts, environment: Environment, *options: str) -> str:
    """Return the command of AWS Batch that updates an environment; `options` as for deploy."""
    given: dict[str, list[str]] = {}
    for option, value in zip(options[::2], options[1::2], strict=False):
        given.setdefault(PROPERTIES[option], []).append(value)
    words = []
    for name, values in given.items():
        if name == "ec2Configuration":
            words.append(f"{name}=[{{imageType={values[0]}}}]")
        else:
            words.append(f"{name}={','.join(values)}")
    return aws(
        facts,
        *("batch", "update-compute-environment", "--compute-environment", environment.name),
        *("--compute-resources", ",".join(words)),
    )


def attach(facts: Facts, host: str) -> tuple[str, str]:
    """Return (fix, step) that give the instances credentials for a registry."""
    environment = main(facts)
    if not environment or environment.orchestration == "EKS" or environment.type == "UNMANAGED":
        return "", "Give the credentials in the job definition: repositoryCredentials."
    command = attach_again(facts, environment)
    owned = [one.registry for one in facts.secrets or () if one.owned and one.registry]
    present = owned if facts.attached else []
    # The list of --registry is complete: what is left out is removed.
    words = repeated("--registry", [*present, host]) if present else ["--registry-url", host]
    words += [] if environment.updatable else ["--blue-green"]
    step = f"It asks for the credentials of {host}, and shows its plan first."
    return f"{command} {shlex.join(words)}", step


def attach_again(facts: Facts, environment: Environment) -> str:
    """Return the command that attaches an environment again, with the credentials it has."""
    return shlex.join(["batchreg", "attach", environment.name, *_place(facts)])


def aws(facts: Facts, *words: str) -> str:
    """Return a command of the AWS CLI, as it can be run."""
    return shlex.join(["aws", *words, *_place(facts)])


def repeated(option: str, values: Iterable[str]) -> list[str]:
    """Return [option, value, option, value, ...]."""
    return [word for value in values for word in (option, value)]


def second_stack(facts: Facts) -> str:
    """Return the step for what cannot be recreated in place."""
    if not facts.ours:
        return (
            "This cannot be fixed in place. Create a compute environment with the same settings, "
            "put it first in the queue, and delete this one when its jobs have finished."
        )
    return (
        "This cannot be fixed in place. Deploy a second stack under another name, submit your jobs "
        f"to its queue, and destroy this one when its jobs have finished: "
        f"{batchreg(facts, 'destroy')}"
    )


def diagnose(facts: Facts, queue: str) -> str:
    """Return the command that looks at a queue."""
    return shlex.join(["batchreg", "doctor", "--queue", queue, *_place(facts)])


def _asked(facts: Facts) -> list[str]:
    if facts.queues:
        return ["--queue", facts.queues[0].name]
    return ["--compute-environment", facts.environment] if facts.environment else []


def _place(facts: Facts) -> list[str]:
    words = ["--region", facts.region] if facts.region else []
    return words + (["--profile", facts.profile] if facts.profile else [])

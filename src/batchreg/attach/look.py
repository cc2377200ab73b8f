"""Can credentials be attached to an environment, and what should its owner know before?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchreg.attach import archive, launch_templates, scripts
from batchreg.attach.environment import UPDATABLE_STRATEGIES, Environment, TemplateReference
from batchreg.errors import BatchregError

IN_THE_JOB = "Give the credentials in the job definition instead:"
FARGATE = (
    "Name a secret in the job definition instead, as repositoryCredentials. A stack with such a "
    "secret and a queue on Fargate, for `batchreg submit --fargate`:"
)
SUBMIT = ("submit", "--auth", "job", "IMAGE")
# Launch templates that AWS Batch makes from somebody's: docs.aws.amazon.com/batch/latest/userguide/
# launch-templates.html says not to copy them.
BATCH_TEMPLATE = "Batch-lt-"


@dataclass(frozen=True)
class Refusal:
    """Why nothing can be attached, and what to do instead: two sentences.

    `command`: what the second one ends with, as for BatchregError.
    """

    fact: str
    step: str
    command: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Base:
    """A launch template version to copy. `version` is its number, 0 where there is no template."""

    reference: TemplateReference
    id: str = ""
    name: str = ""
    version: int = 0
    newest: int = 0
    data: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Copied:
    """A base, its copy, and its user data."""

    base: Base
    copy: launch_templates.Copy
    archive: archive.Archive
    review: scripts.Review


def refusals(environment: Environment, *, updates: bool = True) -> Iterator[Refusal]:
    """Yield what stands in the way, the most fundamental first and alone.

    `updates`: whether the environment itself would be updated in place.
    """
    name = environment.name
    if not environment.managed:
        yield Refusal(
            f"{name} is UNMANAGED: AWS Batch does not start its instances.",
            "Put what this prints into the user data of your own instances:",
            ("user-data", "--secret-id", "ID"),
        )
    elif environment.orchestration == "EKS":
        yield Refusal(
            f"{name} runs its jobs on EKS, where Kubernetes pulls the images.",
            "Create a docker-registry secret in its namespace, and name it under imagePullSecrets "
            "in the job definition.",
        )
    elif environment.kind.startswith("FARGATE"):
        fact = f"{name} is on Fargate, which has no instances of yours."
        yield Refusal(fact, FARGATE, ("deploy", "--fargate"))
    elif environment.kind == "ECS_MANAGED_INSTANCES":
        yield Refusal(
            f"{name} uses ECS Managed Instances, which take no user data.", IN_THE_JOB, SUBMIT
        )
    elif environment.status in ("DELETING", "DELETED"):
        yield Refusal(f"{name} is being deleted.", "Name another compute environment.")
    elif updates:
        yield from _refused_in_place(environment)


def _refused_in_place(environment: Environment) -> Iterator[Refusal]:
    name = environment.name
    step = (
        f"Run the same command with --blue-green: it adds a copy of {name} and puts it first in "
        "the queues."
    )
    if environment.status == "INVALID":
        reason = f": {environment.reason}" if environment.reason else ""
        yield Refusal(f"{name} is INVALID{reason}".rstrip(".") + ".", step)
    if not environment.has_service_linked_role:
        yield Refusal(
            f"AWS Batch cannot update {name} in place: its service role is "
            f"{environment.service_role or 'unknown'}, not the service-linked role.",
            step,
        )
    if environment.allocation_strategy not in UPDATABLE_STRATEGIES:
        yield Refusal(
            f"AWS Batch cannot update {name} in place: its allocation strategy is "
            f"{environment.allocation_strategy}.",
            step,
        )


def bases(
    environment: Environment, answers: Mapping[TemplateReference, Mapping[str, Any]]
) -> tuple[Base, ...]:
    """Return what to copy: the environment's launch template, then its overrides', in order.

    `answers`: a version of DescribeLaunchTemplateVersions for each reference, without ResolveAlias.
    """
    return tuple(
        Base(
            reference=reference,
            id=answers[reference]["LaunchTemplateId"],
            name=answers[reference]["LaunchTemplateName"],
            version=answers[reference]["VersionNumber"],
            data=answers[reference]["LaunchTemplateData"],
        )
        if reference
        else Base(reference=reference, data={})
        for reference in (environment.template, *environment.overrides)
    )


def judge(bases: Sequence[Base]) -> tuple[tuple[Copied, ...], tuple[Refusal, ...]]:
    """Return the bases with their copies, and what cannot be copied; one of them is empty."""
    copies: list[Copied] = []
    refused: dict[Refusal, None] = {}  # in order, each once
    for base in bases:
        if base.name.startswith(BATCH_TEMPLATE):
            refused[
                Refusal(
                    f"{base.name} is a launch template that AWS Batch made for itself.",
                    "Let the environment use your own launch template, then attach again.",
                )
            ] = None
            continue
        copy = launch_templates.copy(dict(base.data))
        if copy.refused:
            refused[
                Refusal(
                    f"CloudFormation cannot set {', '.join(copy.refused)}, which {base.name} has.",
                    "Add the credentials in your own code instead, with "
                    f"--emit terraform, {archive.ELSEWHERE}.",
                )
            ] = None
            continue
        try:
            user_data = archive.read(
                archive.decode(copy.user_data), f"{base.name} (version {base.version})"
            )
            review = scripts.review(user_data)
        except BatchregError as error:
            refused[Refusal(error.fact, error.step, error.command)] = None
            continue
        copies.append(Copied(base=base, copy=copy, archive=user_data, review=review))
    return ((), tuple(refused)) if refused else (tuple(copies), ())


def notes(copies: Sequence[Copied]) -> tuple[str, ...]:
    """Return what the owner should know of the copies, each sentence once, by template."""
    found: dict[str, None] = {}
    for copied in copies:
        about = copied.base.name or "the instances"
        for text in (*copied.copy.notes, *copied.review.warnings):
            found[f"{about}: {text}"] = None
        if lines := copied.review.credentials:
            found[
                f"{about}: {lines[0]} sets registry credentials by hand. They stay; for a registry "
                "that is attached too, the attached credentials win."
            ] = None
    return tuple(found)


def amazon_linux_2_lines(copies: Sequence[Copied]) -> tuple[str, ...]:
    """Return the lines that may fail on Amazon Linux 2023, with the word that says so."""
    return tuple(
        dict.fromkeys(
            f"{copied.base.name}, {line}: {line.word}"
            for copied in copies
            for line in copied.review.amazon_linux_2
        )
    )

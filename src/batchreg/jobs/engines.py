"""Workflow engines: what each needs to know of a stack, in the form of its own settings.

docs/engines.md shows these texts, and what else each engine needs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

HUB = "docker.io"  # as names of images may start
BUCKET = "BUCKET"  # stands for one that the user has not named


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an engine's jobs run.

    `queue`, `job_role`: ARNs; `job_role` is empty if the stack has none. `bucket`: for the engine's
    files. `cached`: {a registry's host: what takes its place in names of images, such as
    111122223333.dkr.ecr.eu-central-1.amazonaws.com/genomics/ghcr}. `others`: hosts of the stack's
    registries from which the instances pull.
    """

    stack: str
    region: str
    queue: str
    job_role: str = ""
    bucket: str = BUCKET
    cached: Mapping[str, str] = field(default_factory=dict)
    others: tuple[str, ...] = ()

    @property
    def only(self) -> str:
        """The host of the stack's only registry, if it is cached; else empty."""
        return next(iter(self.cached)) if len(self.cached) == 1 and not self.others else ""


class Configuration(NamedTuple):
    """An engine's settings, and what else to know about them, in sentences."""

    settings: str
    notes: list[str]


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine.

    `file`: where its settings belong. `comment`: what starts a comment there; empty where the form
    has none. `configure`: returns the settings.
    """

    name: str
    file: str
    comment: str
    configure: Callable[[Place], Configuration]


def configuration(engine: Engine, place: Place) -> Configuration:
    """Return an engine's settings for a stack, with the notes as comments where the form has them.

    What cannot be a comment there stays a note.
    """
    settings, notes = engine.configure(place)
    if place.bucket == BUCKET and BUCKET in settings:
        notes = [f"Replace {BUCKET} with an S3 bucket that the jobs can use.", *notes]
    about = f"{engine.name}: {engine.file}, for the stack {place.stack} in {place.region}."
    if not engine.comment:
        return Configuration(settings, [about, *notes])
    lines = [line for note in [about, *notes] for line in _wrapped(note, 96)]
    return Configuration("".join(f"{engine.comment} {line}\n" for line in lines) + settings, [])


def _wrapped(text: str, width: int) -> list[str]:
    from textwrap import wrap

    return wrap(text, width, break_long_words=False, break_on_hyphens=False)


def _nextflow(place: Place) -> Configuration:
    role = f"        jobRole = '{place.job_role}'\n" if place.job_role else ""
    batch = f"    batch {{\n{role}    }}\n" if role else ""
    settings = f"""\
process {{
    executor = 'awsbatch'
    queue    = '{place.queue}'
}}
workDir = 's3://{place.bucket}/nextflow'
aws {{
    region = '{place.region}'
{batch}}}
"""
    # Nextflow puts `registry` before names without a registry, and with `registryOverride` in place
    # of every registry (nextflow/container/ContainerHandler.groovy).
    notes, override = [], ""
    if host := HUB if HUB in place.cached else place.only:
        if host == HUB:
            notes = [
                "docker.registry stands before every image without a registry in its name. It adds "
                "no library/: write an official image as library/ubuntu, not ubuntu. An image that "
                "names docker.io itself is not pulled through ECR."
            ]
        else:
            override = "    registryOverride = true\n"
            notes = [
                "docker.registryOverride requires Nextflow 25.10. It replaces the registry of every "
                f"image, not only {host}: leave the docker block out if a process uses an image of "
                "another registry, a name from `batchreg image`, or a job definition."
            ]
        settings += f"docker {{\n    registry = '{place.cached[host]}'\n{override}}}\n"
    return Configuration(settings, [*_role(place), *notes, *_names(place, host)])


def _snakemake(place: Place) -> Configuration:
    role = f"aws-batch-job-role: {place.job_role}\n" if place.job_role else ""
    settings = f"""\
executor: aws-batch
aws-batch-region: {place.region}
aws-batch-job-queue: {place.queue}
{role}aws-batch-task-timeout: 86400
default-storage-provider: s3
default-storage-prefix: s3://{place.bucket}/snakemake
"""
    required = "The executor plugin requires a job role: aws-batch-job-role."
    return Configuration(settings, [*_role(place, required), *_names(place)])


def _cromwell(place: Place) -> Configuration:
    settings = f"""\
include required(classpath("application"))

aws {{
  application-name = "cromwell"
  auths = [{{ name = "default", scheme = "default" }}]
  region = "{place.region}"
}}

engine.filesystems.s3.auth = "default"
docker.hash-lookup.enabled = false

backend {{
  default = "AWSBatch"
  providers.AWSBatch {{
    actor-factory = "cromwell.backend.impl.aws.AwsBatchBackendLifecycleActorFactory"
    config {{
      root = "s3://{place.bucket}/cromwell"
      auth = "default"
      numSubmitAttempts = 6
      numCreateDefinitionAttempts = 6
      default-runtime-attributes {{
        queueArn = "{place.queue}"
        scriptBucketName = "{place.bucket}"
      }}
      filesystems.s3.auth = "default"
    }}
  }}
}}
"""
    notes = []
    if place.job_role:
        notes.append(f"In the workflow options: aws_batch_job_role_arn = {place.job_role}")
    return Configuration(settings, [*notes, *_names(place)])


def _miniwdl(place: Place) -> Configuration:
    settings = f"""\
[scheduler]
container_backend = aws_batch_job_no_efs

[file_io]
root = /mnt/shared

[aws]
region = {place.region}
task_queue = {place.queue}
"""
    shared = "Replace /mnt/shared with the file system that miniwdl and the instances share."
    return Configuration(settings, [shared, *_names(place)])


def _metaflow(place: Place) -> Configuration:
    settings = {
        "METAFLOW_DEFAULT_DATASTORE": "s3",
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{place.bucket}/metaflow",
        "METAFLOW_BATCH_JOB_QUEUE": place.queue,
    }
    notes = []
    if place.job_role:
        settings["METAFLOW_ECS_S3_ACCESS_IAM_ROLE"] = place.job_role
    if hub := place.cached.get(HUB):
        settings["METAFLOW_BATCH_CONTAINER_REGISTRY"] = hub
        notes.append(
            "Metaflow puts METAFLOW_BATCH_CONTAINER_REGISTRY before names without a registry. It "
            "adds no library/: write library/python:3.12, not python:3.12, and set "
            "METAFLOW_BATCH_CONTAINER_IMAGE or the image of each step, because the default image "
            "is python."
        )
    required = "Metaflow requires a job role: METAFLOW_ECS_S3_ACCESS_IAM_ROLE."
    return Configuration(
        json.dumps(settings, indent=2) + "\n",
        [*_role(place, required), *notes, *_names(place, HUB)],
    )


def _airflow(place: Place) -> Configuration:
    settings = f"""\
BATCH = {{
    "job_queue": "{place.queue}",
    "region_name": "{place.region}",
    "awslogs_enabled": True,
}}
"""
    notes = [
        "Pass it to the DAG as default_args, or to each operator: BatchOperator(..., **BATCH).",
        f"The job definition: batchreg job-definition --stack-name {place.stack} IMAGE",
    ]
    return Configuration(settings, notes)


ENGINES = {
    "nextflow": Engine(name="Nextflow", file="nextflow.config", comment="//", configure=_nextflow),
    "snakemake": Engine(
        name="Snakemake", file="config.yaml of a profile", comment="#", configure=_snakemake
    ),
    "cromwell": Engine(name="Cromwell", file="aws.conf", comment="#", configure=_cromwell),
    "miniwdl": Engine(
        name="miniwdl", file="~/.config/miniwdl.cfg", comment="#", configure=_miniwdl
    ),
    "metaflow": Engine(
        name="Metaflow", file="~/.metaflowconfig/config.json", comment="", configure=_metaflow
    ),
    "airflow": Engine(name="Airflow", file="a DAG", comment="#", configure=_airflow),
}


def _role(place: Place, required: str = "") -> list[str]:
    """Say how the jobs get access to S3, if the stack has no job role."""
    if place.job_role:
        return []
    if required:
        return [
            f"{required} Deploy the stack with --job-policy-arn, or create a role for ECS tasks."
        ]
    return ["The stack has no job role: the jobs use the role of the instances for S3."]


def _names(place: Place, rewritten: str = "") -> list[str]:
    """Say how to name images that ECR pulls, except those of a host that the engine rewrites."""
    return [
        f"ECR pulls images of {host} as {prefix}/...; for their names: batchreg image "
        f"--stack-name {place.stack} IMAGE"
        for host, prefix in place.cached.items()
        if host != rewritten
    ]

"""`batchreg submit` and its like as processes, and what AWS Batch then knows."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemas
from lab.environ import clean
from local_aws import LocalAws

BATCHREG = str(Path(sys.executable).with_name("batchreg"))
USER, PASSWORD = "canary-user", 'canary-"pass\\word'
CANARIES = ("canary", "Y2FuYXJ5")  # the second is how base64 of "canary-user:..." starts
IMAGE = "ghcr.io/lab/align:3"
GROUP = "/aws/batch/job"
EXITED = "Essential container in task exited"
NO_PULL = (
    "CannotPullContainerError: Error response from daemon:\n pull access denied for "
    "ghcr.io/lab/align, repository does not exist or may require 'docker login'."
)
TOO_LARGE = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job "
    "queue cannot meet the CPU requirement specified in the job."
)


def environ(aws: LocalAws, **more: str) -> dict[str, str]:
    return clean(**{**aws.environ, "BATCHREG_STACK_NAME": "lab", **more})


@dataclass(frozen=True)
class Run:
    """What a process has left."""

    status: int
    out: str
    err: str

    def __post_init__(self) -> None:
        for canary in CANARIES:  # no output of any test here may have a part of the login
            assert canary not in self.out + self.err

    @property
    def line(self) -> str:
        """The one line that it said on stderr."""
        (line,) = self.err.splitlines()
        return line


def run(aws: LocalAws, *arguments: str, **more: str) -> Run:
    done = subprocess.run(
        [BATCHREG, *arguments],
        env=environ(aws, **more),
        text=True,
        capture_output=True,
        timeout=60,
        cwd="/",
    )
    schemas.check_lines(arguments, done.stdout)
    return Run(done.returncode, done.stdout, done.stderr)


def deploy(aws: LocalAws, name: str, *arguments: str) -> None:
    secret = {} if "--secret-arn" in arguments else {"BATCHREG_PASSWORD": PASSWORD}
    done = run(aws, "deploy", "--yes", "--stack-name", name, *arguments, **secret)
    assert done.status == 0, done.err


def detached(aws: LocalAws, *arguments: str, **more: str) -> dict[str, Any]:
    """Submit a job, and return it as Batch describes it."""
    done = run(aws, "submit", "--detach", *arguments, **more)
    assert done.status == 0, done.err
    return described(aws, done.out.strip())


def described(aws: LocalAws, job_id: str) -> dict[str, Any]:
    (job,) = aws.client("batch").describe_jobs(jobs=[job_id])["jobs"]
    return job


def definition_of(aws: LocalAws, job: dict[str, Any]) -> dict[str, Any]:
    (found,) = aws.client("batch").describe_job_definitions(jobDefinitions=[job["jobDefinition"]])[
        "jobDefinitions"
    ]
    return found


def outputs(aws: LocalAws, name: str) -> dict[str, str]:
    (found,) = aws.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in found["Outputs"]}

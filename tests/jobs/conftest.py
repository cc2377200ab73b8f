"""What the tests of jobs share: an embedded AWS with stacks, and jobs in it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

import pytest
from local_aws import LocalAws
from submitting import EXITED, GROUP, IMAGE, PASSWORD, USER, deploy, described, detached


@pytest.fixture(scope="session")
def aws() -> Iterator[LocalAws]:
    """An AWS with two stacks, one with GPUs; jobs wait until somebody moves them."""
    with LocalAws() as aws:
        login = ("--registry-url", "ghcr.io", "--username", USER)
        deploy(aws, "lab", "--fargate", *login)
        deploy(aws, "plain", "--image-type", "ECS_AL2023_NVIDIA", *login)
        aws.set_jobs("RUNNABLE")
        yield aws


@pytest.fixture(scope="session")
def spoken(aws: LocalAws) -> str:
    """The id of a job that has ended and has a log."""
    job_id = detached(aws, IMAGE)["jobId"]
    aws.set_jobs("FAILED", job_id=job_id, exit_code=3, reason=EXITED)
    logs, stream = aws.client("logs"), described(aws, job_id)["container"]["logStreamName"]
    with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_group(logGroupName=GROUP)
    logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)
    logs.put_log_events(
        logGroupName=GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": 1_700_000_000_000, "message": text} for text in ("one", "two")],
    )
    return job_id


@pytest.fixture(scope="session")
def own(aws: LocalAws) -> dict[str, str]:
    """A stack with three secrets of its user's own: {registry: ARN}. One is of no use."""
    manager = aws.client("secretsmanager")
    texts = {
        url: json.dumps({"username": USER, "password": PASSWORD, "registry_url": url})
        for url in ("https://quay.io/", "docker.io", "broken.example.com")
    }
    arns = {
        name.partition(".example")[0]: manager.create_secret(
            Name=f"own{number}", SecretString=text
        )["ARN"]
        for number, (name, text) in enumerate(texts.items())
    }
    deploy(
        aws, "own", "--fargate", *(part for arn in arns.values() for part in ("--secret-arn", arn))
    )
    # After the deploy, which refuses such a secret.
    manager.put_secret_value(SecretId=arns["broken"], SecretString=f"{PASSWORD}: not JSON")
    return arns

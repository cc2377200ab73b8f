"""How jobs end, what to do about it, and queues that cannot run one."""

from __future__ import annotations

from typing import Any

import botocore.session
import pytest
from botocore.stub import Stubber

from batchreg.cli import jobs as job_commands
from batchreg.cli.console import TextScreen, command_here
from batchreg.errors import BatchregError
from batchreg.jobs import batch as jobs


def client(service: str) -> Any:
    return botocore.session.get_session().create_client(
        service, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        ({"status": "SUCCEEDED", "container": {"exitCode": 0}}, (0, "")),
        (
            {"status": "FAILED", "statusReason": "exited", "container": {"exitCode": 3}},
            (3, "exited"),
        ),
        (
            {
                "status": "FAILED",
                "statusReason": "Task failed to start",
                "container": {"reason": "CannotPullContainerError:\n no"},
            },
            (1, "CannotPullContainerError: no"),
        ),
        (
            {
                "status": "FAILED",
                "container": {"exitCode": 137, "reason": "OutOfMemoryError: killed"},
            },
            (137, "OutOfMemoryError: killed"),
        ),
        (
            {"status": "FAILED", "statusReason": "timeout", "container": {"exitCode": 0}},
            (1, "timeout"),
        ),
        ({"status": "FAILED", "statusReason": "big", "container": {"exitCode": 256}}, (1, "big")),
        (
            {"status": "FAILED", "statusReason": "Array Child Job failed"},
            (1, "Array Child Job failed"),
        ),
        ({"status": "FAILED"}, (1, "no reason given")),
        (
            {
                "status": "FAILED",
                "statusReason": "Essential container in task exited",
                "container": {"exitCode": 3, "reason": "CannotPullImageManifestError: denied"},
            },
            (3, "Essential container in task exited"),
        ),
    ],
)
def test_verdict_is_the_jobs_own_exit_code_or_one(job, expected):
    """A failed job never counts as a success."""
    assert jobs.verdict(job) == expected


PULL = "CannotPullContainerError: Error response from daemon: "
MANIFEST = (
    "CannotPullImageManifestError: Error response from daemon: Get "
    '"https://ghcr.io/v2/lab/align/manifests/3": '
)
ASM = (
    "Asm fetching secret from the service for "
    "arn:aws:secretsmanager:eu-central-1:111122223333:secret:jobs-AbCdEf: "
)


@pytest.mark.parametrize(
    ("reason", "step"),
    [
        (
            PULL
            + "pull access denied for lab/x, repository does not exist or may require 'docker login'",
            "The credentials may be wrong",
        ),
        (
            PULL + "Head https://ghcr.io/v2/lab/x/manifests/3: denied",
            "The credentials may be wrong",
        ),
        (PULL + "Get http://quay.io/v2/: no basic auth credentials", "has no credentials"),
        (MANIFEST + "no basic auth credentials", "has no credentials for this registry"),
        (MANIFEST + "unauthorized: authentication required", "The credentials may be wrong"),
        (MANIFEST + "dial tcp 140.82.121.33:443: i/o timeout", "do not reach the registry"),
        (ASM + "AccessDeniedException: User is not authorized to perform", "The execution role"),
        (ASM + "ResourceNotFoundException: Secrets Manager can't find it", "not in this region"),
        (ASM + "RequestCanceled: context deadline exceeded", "a VPC endpoint for secretsmanager"),
        (ASM + "InternalServiceError", "Check that the execution role"),
        (PULL + "unauthorized: authentication required", "The credentials may be wrong"),
        (PULL + "manifest for ghcr.io/lab/x:9 not found: manifest unknown", "name and tag"),
        (PULL + "toomanyrequests: You have reached your pull rate limit", "limits pulls"),
        (PULL + "received unexpected HTTP status: 429 Too Many Requests", "limits pulls"),
        (PULL + f"denied: ghcr.io/lab/x@sha256:{'429' * 21}a", "The credentials may be wrong"),
        (PULL + "denied: ghcr.io/api/ollama", "The credentials may be wrong"),
        (PULL + "write /var/lib/docker/x: no space left on device", "--root-volume-gib"),
        (
            PULL + "no matching manifest for linux/arm64/v8 in the manifest list entries",
            "another architecture",
        ),
        (PULL + "Get https://ghcr.io/v2/: dial tcp 140.82.121.33:443: i/o timeout", "do not reach"),
        (
            PULL + "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
            "do not reach",
        ),
        (
            "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue "
            "cannot meet the CPU requirement specified in the job.",
            "--max-vcpus",
        ),
        (
            "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) "
            "is higher than that can be met by the CE(s) attached to the job queue.",
            "--instance-type",
        ),
        (
            "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for "
            "instance type [m7i.large]",
            "wait, or use more types: batchreg deploy",
        ),
        ("ACTION_REQUIRED - CE(s) associated with the job queue are invalid.", "batchreg doctor"),
        ("MISCONFIGURATION:SERVICE_ROLE_PERMISSIONS - x", "AWSServiceRoleForBatch"),
        ("UNDETERMINED - Batch job is blocked, root cause is undetermined.", "vCPU quota"),
        (
            "ResourceInitializationError: unable to pull secrets or registry auth: i/o timeout",
            "Secrets Manager",
        ),
        (
            'CannotStartContainerError: exec: "align": executable file not found in $PATH',
            "after --",
        ),
        ("OutOfMemoryError: Container killed due to memory usage", "--memory"),
        ("Job attempt duration exceeded timeout", "--timeout"),
        ("Host EC2 (instance i-0abc) terminated.", "--retries"),
        ("Essential container in task exited", ""),
        ("", ""),
    ],
)
def test_reason_calls_for_a_step(reason, step):
    """Each reason that is known to stop a job, with what helps; none where it speaks for itself."""
    found = jobs.advice(reason, command_here)
    assert step in found
    assert bool(found) == bool(step)


def queue_answers(stub: Stubber, queue: dict[str, str], environment: dict[str, str]) -> None:
    stub.add_response(
        "describe_job_queues",
        {
            "jobQueues": [
                {
                    "jobQueueName": "q",
                    "jobQueueArn": "arn:q",
                    "priority": 1,
                    "state": "ENABLED",
                    "computeEnvironmentOrder": [{"order": 1, "computeEnvironment": "arn:ce"}],
                    **queue,
                }
            ]
        },
    )
    stub.add_response(
        "describe_compute_environments",
        {
            "computeEnvironments": [
                {
                    "computeEnvironmentName": "ce",
                    "computeEnvironmentArn": "arn:ce",
                    "state": "ENABLED",
                    "status": "VALID",
                    **environment,
                }
            ]
        },
        {"computeEnvironments": ["arn:ce"]},
    )


@pytest.mark.parametrize(
    ("queue", "environment", "line"),
    [
        (
            {"status": "INVALID", "statusReason": "see the compute environment"},
            {"status": "INVALID", "statusReason": "CLIENT_ERROR - Access denied\n for role."},
            "The compute environment ce is INVALID: CLIENT_ERROR - Access denied for role. Fix the "
            "cause. If it stays INVALID, replace it: batchreg deploy --replace-environment",
        ),
        (
            {"status": "VALID"},
            {"state": "DISABLED", "statusReason": "ComputeEnvironment Healthy"},
            "The compute environment ce is DISABLED. Enable it in the AWS Batch console.",
        ),
        (
            {"status": "VALID", "state": "DISABLED"},
            {},
            "The job queue q is DISABLED. Enable it in the AWS Batch console.",
        ),
        (
            {"status": "INVALID"},
            {},
            "The job queue q is INVALID: no reason given. Fix the cause, then deploy again: "
            "batchreg deploy",
        ),
    ],
)
def test_queue_that_cannot_run_a_job_is_refused(queue, environment, line):
    """Submitted there, the job would wait for ever."""
    batch = client("batch")
    with Stubber(batch) as stub:
        queue_answers(stub, queue, environment)
        with pytest.raises(BatchregError) as refusal:
            jobs.check_queue(batch, "arn:q")
    assert str(refusal.value) == line


def test_queue_that_is_gone_is_refused():
    """Somebody deleted it behind the stack's back."""
    batch = client("batch")
    with Stubber(batch) as stub:
        stub.add_response("describe_job_queues", {"jobQueues": []})
        with pytest.raises(
            BatchregError, match=r"job queue genomics-q no longer exists. Destroy the stack"
        ):
            jobs.check_queue(batch, "arn:aws:batch:r:1:job-queue/genomics-q")


def test_healthy_queue_passes():
    """And an update under way does not stop a job."""
    batch = client("batch")
    with Stubber(batch) as stub:
        queue_answers(stub, {"status": "VALID"}, {"status": "UPDATING"})
        jobs.check_queue(batch, "arn:q")


@pytest.mark.parametrize(("status", "advised"), [("STARTING", True), ("RUNNING", False)])
def test_a_job_that_runs_gets_no_advice_about_a_failed_pull(status, advised, capsys):
    """It carries that reason although it runs from an image that the instance had."""
    state = jobs.State(status, MANIFEST + "no basic auth credentials")
    job_commands._print(state, TextScreen(), print)
    assert ("has no credentials for this registry" in capsys.readouterr().err) is advised

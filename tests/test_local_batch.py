"""The embedded AWS's Batch does what AWS's does, as far as this project can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloud import Cloud
from local_aws import LocalAws


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with LocalAws() as aws:
        yield Cloud(aws)


@pytest.fixture(scope="module")
def name(cloud: Cloud) -> str:
    """A stack that no test changes."""
    return cloud.create(Password="pass", MaxvCpus="32")


# Jobs


@pytest.fixture
def submit(cloud: Cloud, name: str) -> Callable[..., dict[str, Any]]:
    queue = cloud.outputs(name)["Queue"]
    definition = cloud.batch.register_job_definition(
        jobDefinitionName="job",
        type="container",
        containerProperties={"image": "ghcr.io/a", "command": ["true"]},
    )["jobDefinitionArn"]

    def submit(**more: Any) -> dict[str, Any]:
        job: dict[str, Any] = cloud.batch.submit_job(
            jobName="job", jobQueue=queue, jobDefinition=definition, **more
        )
        return look(cloud, job["jobId"])

    return submit


def look(cloud: Cloud, job_id: str) -> dict[str, Any]:
    job: dict[str, Any]
    (job,) = cloud.batch.describe_jobs(jobs=[job_id])["jobs"]
    return job


def test_a_job_succeeds_at_once(submit: Callable[..., dict[str, Any]]) -> None:
    """Unless told otherwise, jobs have done their work."""
    job = submit()
    assert (job["status"], job["container"]["exitCode"]) == ("SUCCEEDED", 0)


def test_a_job_has_a_log(submit: Callable[..., dict[str, Any]]) -> None:
    """A follower knows where to read."""
    job = submit()
    assert job["container"]["logStreamName"] == f"job/default/{job['jobId']}"


def test_a_log_is_read_on_from_its_token(cloud: Cloud) -> None:
    """The token that was sent comes back at the end, and only there."""
    logs = cloud.aws.client("logs")
    stream = {"logGroupName": "/aws/batch/job", "logStreamName": "job/default/1"}
    logs.create_log_group(logGroupName=stream["logGroupName"])
    logs.create_log_stream(**stream)
    answer = {"nextForwardToken": None}
    for text in ("a", "b", "c"):
        logs.put_log_events(**stream, logEvents=[{"timestamp": 1, "message": text}])
        token = {"nextToken": answer["nextForwardToken"]} if answer["nextForwardToken"] else {}
        answer = logs.get_log_events(**stream, **token, startFromHead=True)
        assert [event["message"] for event in answer["events"]] == [text]
        end = logs.get_log_events(**stream, nextToken=answer["nextForwardToken"])
        assert (end["events"], end["nextForwardToken"]) == ([], answer["nextForwardToken"])


def test_a_waiting_job_has_no_log(submit: Callable[..., dict[str, Any]]) -> None:
    """Batch names the stream once the job runs."""
    assert "logStreamName" not in submit(tags={"local-aws-status": "RUNNABLE"})["container"]


def test_an_array_job_has_its_size_and_no_log(cloud: Cloud) -> None:
    """Its jobs have the logs; tests tell how many are in which state."""
    cloud.batch.register_job_definition(
        jobDefinitionName="array", type="container", containerProperties={"image": "x"}
    )
    queue = cloud.batch.describe_job_queues()["jobQueues"][0]["jobQueueName"]
    job_id = cloud.batch.submit_job(
        jobName="a",
        jobQueue=queue,
        jobDefinition="array",
        arrayProperties={"size": 3},
        tags={"local-aws-status": "PENDING"},
    )["jobId"]
    cloud.aws.set_jobs("PENDING", job_id=job_id, arrayProperties={"statusSummary": {"RUNNING": 3}})
    job = look(cloud, job_id)
    assert job["arrayProperties"] == {"size": 3, "statusSummary": {"RUNNING": 3}}
    assert "logStreamName" not in job["container"]


def test_a_running_job_ends_by_termination(
    cloud: Cloud, submit: Callable[..., dict[str, Any]]
) -> None:
    """A job with this tag runs until somebody ends it."""
    job = submit(tags={"local-aws-status": "RUNNING"})
    assert job["status"] == "RUNNING"
    cloud.batch.terminate_job(jobId=job["jobId"], reason="enough")
    job = look(cloud, job["jobId"])
    assert (job["status"], job["statusReason"]) == ("FAILED", "enough")


def test_a_list_has_the_running_jobs(cloud: Cloud, submit: Callable[..., dict[str, Any]]) -> None:
    """Without a status, Batch lists running jobs only."""
    submit()
    running = submit(parameters={"local-aws-status": "RUNNING"})
    listed = cloud.batch.list_jobs(jobQueue=running["jobQueue"])["jobSummaryList"]
    assert [job["jobId"] for job in listed] == [running["jobId"]]
    cloud.batch.terminate_job(jobId=running["jobId"], reason="done")


def test_a_waiting_job_can_be_cancelled(
    cloud: Cloud, submit: Callable[..., dict[str, Any]]
) -> None:
    """A job that never ran has no exit code."""
    job = submit(tags={"local-aws-status": "RUNNABLE"})
    cloud.batch.cancel_job(jobId=job["jobId"], reason="no")
    job = look(cloud, job["jobId"])
    assert job["status"] == "FAILED"
    assert "exitCode" not in job["container"]


def test_tests_move_jobs(cloud: Cloud, submit: Callable[..., dict[str, Any]]) -> None:
    """A job submitted by a command can be told to wait, and then to fail with an exit code."""
    cloud.aws.set_jobs("RUNNABLE", reason="MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT")
    job = submit()
    cloud.aws.set_jobs("SUCCEEDED")
    assert job["statusReason"] == "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT"
    cloud.aws.set_jobs("FAILED", job_id=job["jobId"], exit_code=3)
    assert look(cloud, job["jobId"])["container"]["exitCode"] == 3


def test_a_job_needs_its_queue(cloud: Cloud) -> None:
    """A job for nobody is refused."""
    with pytest.raises(ClientError, match="Object does not exist: nowhere"):
        cloud.batch.submit_job(jobName="job", jobQueue="nowhere", jobDefinition="job")

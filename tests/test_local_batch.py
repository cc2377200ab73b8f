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


# Jobs that run: the tests are the runner


class Runner:
    """Runs jobs by saying how they go; `jobs=True` would take a machine that can."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws, self.batch = aws, aws.client("batch")
        aws.set_jobs("RUN")

    def submit(self, definition: dict[str, Any] | None = None, **more: Any) -> str:
        """Submit a job with a definition of its own; return its ID."""
        container = {"image": "ghcr.io/a", "command": ["true"]}
        more = {
            "jobDefinition": self.define(containerProperties=container, **(definition or {})),
            **more,
        }
        queue = self.batch.describe_job_queues()["jobQueues"][0]["jobQueueName"]
        submitted = self.batch.submit_job(**{"jobName": "job", "jobQueue": queue, **more})
        return str(submitted["jobId"])

    def define(self, **properties: Any) -> str:
        made = self.batch.register_job_definition(
            jobDefinitionName="run", type="container", **properties
        )
        return str(made["jobDefinitionArn"])

    def look(self, job_id: str) -> dict[str, Any]:
        (job,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return dict(job)

    def waiting(self) -> dict[str, dict[str, Any]]:
        """Return what is to be started, by job."""
        return {order["jobId"]: order for order in self.aws.work()["start"]}

    def end(self, job_id: str, code: int | None = 0, **details: Any) -> dict[str, Any]:
        """Start a job that waits, and end it."""
        assert job_id in self.waiting()
        self.aws.report(job_id, "STARTING")
        if code is not None:
            self.aws.report(job_id, "RUNNING")
            details = {
                "exitCode": code,
                "statusReason": "Essential container in task exited",
                **details,
            }
        self.aws.report(job_id, "STOPPED", **details)
        return self.look(job_id)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    with LocalAws() as aws:
        Cloud(aws).create()
        yield Runner(aws)


def test_a_job_goes_through_its_states(runner: Runner) -> None:
    """As a follower sees them."""
    job_id = runner.submit()
    assert runner.look(job_id)["status"] == "RUNNABLE"
    for status in ("STARTING", "RUNNING"):
        runner.aws.report(job_id, status)
        assert runner.look(job_id)["status"] == status
    runner.aws.report(job_id, "STOPPED", exitCode=0, statusReason="Essential container exited")
    job = runner.look(job_id)
    assert (job["status"], job["container"]["exitCode"]) == ("SUCCEEDED", 0)
    assert job["createdAt"] <= job["startedAt"] <= job["stoppedAt"]


def test_an_ended_job_stays_so(runner: Runner) -> None:
    """A late status does not revive it, wherever it comes from."""
    job_id = runner.submit()
    runner.batch.terminate_job(jobId=job_id, reason="enough")
    runner.aws.report(job_id, "RUNNING")
    runner.aws.set_jobs("RUNNING", job_id=job_id)
    job = runner.look(job_id)
    assert (job["status"], job["statusReason"]) == ("FAILED", "enough")


def test_overrides_merge_by_name_and_by_type(runner: Runner) -> None:
    """What an override does not name stays as the definition has it."""
    definition = runner.define(
        containerProperties={
            "image": "ghcr.io/a",
            "command": ["a", "Ref::b"],
            "environment": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "resourceRequirements": [
                {"type": "VCPU", "value": "1"},
                {"type": "MEMORY", "value": "512"},
            ],
        },
        parameters={"b": "default"},
    )
    job_id = runner.submit(
        jobDefinition=definition,
        parameters={"b": "given"},
        containerOverrides={
            "environment": [{"name": "B", "value": "3"}],
            "resourceRequirements": [{"type": "MEMORY", "value": "1024"}],
        },
    )
    container = runner.waiting()[job_id]["container"]
    assert container["environment"] == [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}]
    assert container["resourceRequirements"] == [
        {"type": "VCPU", "value": "1"},
        {"type": "MEMORY", "value": "1024"},
    ]
    assert container["command"] == ["a", "given"]


def test_a_job_waits_for_those_it_depends_on(runner: Runner) -> None:
    """And fails with one of them."""
    first, second = runner.submit(), runner.submit()
    both = runner.submit(dependsOn=[{"jobId": first}, {"jobId": second}])
    assert runner.look(both)["status"] == "PENDING"
    runner.end(first)
    assert both not in runner.waiting()
    after = runner.submit(dependsOn=[{"jobId": both}])
    runner.end(second)
    assert both in runner.waiting()
    runner.end(both, 1)
    job = runner.look(after)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Dependent Job failed")


def test_an_arrays_children_run_side_by_side_or_one_after_the_other(runner: Runner) -> None:
    """N_TO_N lets a child wait for the child of its index."""
    size = {"arrayProperties": {"size": 2}}
    first = runner.submit(**size)
    second = runner.submit(**size, dependsOn=[{"jobId": first, "type": "N_TO_N"}])
    rows = runner.submit(**size, dependsOn=[{"type": "SEQUENTIAL"}])
    ours = {job for job in runner.waiting() if job.partition(":")[0] in (first, second, rows)}
    assert ours == {f"{first}:0", f"{first}:1", f"{rows}:0"}
    variables = runner.waiting()[f"{first}:1"]["variables"]
    assert variables["AWS_BATCH_JOB_ARRAY_INDEX"] == "1"
    assert variables["AWS_BATCH_JOB_ARRAY_SIZE"] == "2"
    runner.end(f"{first}:1")
    assert f"{second}:1" in runner.waiting()
    assert runner.look(first)["arrayProperties"]["statusSummary"] == {"RUNNABLE": 1, "SUCCEEDED": 1}
    for child in (f"{first}:0", f"{second}:0", f"{second}:1", f"{rows}:0", f"{rows}:1"):
        runner.end(child)
    assert [runner.look(job)["status"] for job in (first, second, rows)] == ["SUCCEEDED"] * 3
    listed = runner.batch.list_jobs(arrayJobId=first, jobStatus="SUCCEEDED")["jobSummaryList"]
    assert {job["jobId"] for job in listed} == {f"{first}:0", f"{first}:1"}


def test_terminating_an_array_ends_its_children(runner: Runner) -> None:
    """Those that wait at once, those that run when their containers have ended."""
    array = runner.submit(arrayProperties={"size": 2})
    runner.aws.report(f"{array}:0", "RUNNING")
    runner.batch.terminate_job(jobId=array, reason="enough")
    assert runner.aws.work()["stop"] == [f"{array}:0"]
    assert runner.look(f"{array}:1")["statusReason"] == "enough"
    runner.aws.report(f"{array}:0", "STOPPED", exitCode=137)
    assert runner.look(f"{array}:0")["statusReason"] == "enough"
    assert runner.look(array)["status"] == "FAILED"


@pytest.mark.parametrize(
    ("rules", "code", "reason", "again"),
    [
        ([], 1, "", True),
        ([{"onExitCode": "1", "action": "EXIT"}], 1, "", False),
        ([{"onExitCode": "2", "action": "EXIT"}], 1, "", True),
        (
            [{"onReason": "CannotPull*", "action": "exit"}],
            None,
            "CannotPullImageManifestError: x",
            False,
        ),
        ([{"onStatusReason": "Host EC2*", "action": "EXIT"}], 1, "", True),
        (
            [
                {"onStatusReason": "Essential*", "onExitCode": "1", "action": "RETRY"},
                {"onReason": "*", "action": "EXIT"},
            ],
            2,
            "",
            False,
        ),
    ],
)
def test_a_retry_strategy_decides_on_another_attempt(
    runner: Runner, rules: list[dict[str, str]], code: int | None, reason: str, again: bool
) -> None:
    """The first rule counts all of whose conditions hold; without one the job is tried again."""
    job_id = runner.submit(retryStrategy={"attempts": 2, "evaluateOnExit": rules})
    job = runner.end(job_id, code, **({"reason": reason} if reason else {}))
    assert job["status"] == ("RUNNABLE" if again else "FAILED")
    if again:
        assert "exitCode" not in job["container"]
        assert runner.waiting()[job_id]["variables"]["AWS_BATCH_JOB_ATTEMPT"] == "2"
        job = runner.end(job_id, 1)
        assert (job["status"], len(job["attempts"])) == ("FAILED", 2)


def test_the_submission_says_more_than_the_definition(runner: Runner) -> None:
    """Timeout and strategy of a submission replace those of its definition."""
    plan = {"timeout": {"attemptDurationSeconds": 60}, "retryStrategy": {"attempts": 2}}
    job = runner.look(runner.submit(plan))
    assert (job["timeout"], job["retryStrategy"]) == (plan["timeout"], plan["retryStrategy"])
    job = runner.look(runner.submit(plan, timeout={"attemptDurationSeconds": 90}))
    assert job["timeout"] == {"attemptDurationSeconds": 90}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"timeout": {"attemptDurationSeconds": 59}}, "at least 60 seconds"),
        ({"retryStrategy": {"attempts": 11}}, "between 1 and 10"),
        ({"arrayProperties": {"size": 1}}, "between 2 and 10000"),
        ({"dependsOn": [{"jobId": "nobody"}]}, "Object does not exist: nobody"),
    ],
)
def test_refuses_a_submission_out_of_limits(
    runner: Runner, more: dict[str, Any], message: str
) -> None:
    """As AWS Batch does, before there is a job."""
    with pytest.raises(ClientError, match=message):
        runner.submit(**more)


def test_whatever_batch_has_may_have_tags(runner: Runner) -> None:
    """Tag, untag, list."""
    arn = runner.look(runner.submit())["jobArn"]
    runner.batch.tag_resource(resourceArn=arn, tags={"a": "1", "b": "2"})
    runner.batch.untag_resource(resourceArn=arn, tagKeys=["a"])
    assert runner.batch.list_tags_for_resource(resourceArn=arn)["tags"] == {"b": "2"}


def test_a_queues_snapshot_shows_who_is_next(runner: Runner) -> None:
    """The oldest job that waits is at the front."""
    queue = runner.batch.describe_job_queues()["jobQueues"][0]["jobQueueName"]
    last = runner.look(runner.submit())["jobArn"]
    front = runner.batch.get_job_queue_snapshot(jobQueue=queue)["frontOfQueue"]["jobs"]
    assert front[-1]["jobArn"] == last
    assert front == sorted(front, key=lambda job: job["earliestTimeAtPosition"])


def test_a_list_is_filtered_by_name(runner: Runner) -> None:
    """Whatever the status."""
    queue = runner.batch.describe_job_queues()["jobQueues"][0]["jobQueueName"]
    job_id = runner.submit(jobName="Unique")
    filters = [{"name": "JOB_NAME", "values": ["uni*"]}]
    found = runner.batch.list_jobs(jobQueue=queue, filters=filters)["jobSummaryList"]
    assert [job["jobId"] for job in found] == [job_id]


def test_a_definition_may_describe_an_ecs_task(runner: Runner) -> None:
    """The newer way, with overrides of its own."""
    task = {
        "containers": [
            {
                "name": "main",
                "image": "ghcr.io/b",
                "command": ["true"],
                "environment": [{"name": "A", "value": "1"}],
            }
        ],
        "taskRoleArn": "arn:aws:iam::123456789012:role/Job",
    }
    definition = runner.define(ecsProperties={"taskProperties": [task]})
    override = {"containers": [{"name": "main", "environment": [{"name": "B", "value": "2"}]}]}
    job_id = runner.submit(
        jobDefinition=definition, ecsPropertiesOverride={"taskProperties": [override]}
    )
    container = runner.waiting()[job_id]["container"]
    assert (container["image"], container["jobRoleArn"]) == ("ghcr.io/b", task["taskRoleArn"])
    assert [each["name"] for each in container["environment"]] == ["A", "B"]


def test_a_job_that_is_too_large_waits_and_says_so(runner: Runner) -> None:
    """Larger than the environment, which has 16 vCPUs."""
    needs = [{"type": "VCPU", "value": "17"}, {"type": "MEMORY", "value": "512"}]
    job_id = runner.submit(containerOverrides={"resourceRequirements": needs})
    assert job_id not in runner.waiting()
    job = runner.look(job_id)
    assert job["status"] == "RUNNABLE"
    assert job["statusReason"].startswith("MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - ")

"""From an image's name to a container's exit code, with nothing between them but real parts.

The embedded AWS runs the jobs: an instance boots with AWS Batch's part and the launch template's,
a stand-in for the ECS agent reads its ecs.config, and the real Docker Engine pulls and runs.
"""

from __future__ import annotations

import base64
import json
import subprocess
import time
from dataclasses import dataclass
from typing import Any

import pytest
from lab.images import with_python
from lab.parts import PullError, Registry
from local_aws import LocalAws
from real_parts import batchreg, deployed, require

from batchreg.errors import BatchregError
from batchreg.registry import images as image

HURRY = 30  # a timeout of a minute takes two seconds
Outcome = subprocess.CompletedProcess


@dataclass
class Lab:
    """A stack that has the registry's credentials, and an environment of somebody else's."""

    aws: LocalAws
    registry: Registry
    outputs: dict[str, str]
    image: str

    def __post_init__(self) -> None:
        self.batch = self.aws.client("batch")

    def run(self, *arguments: str) -> Outcome:
        """Submit a job, and follow it to its end."""
        return batchreg("submit", "--stack-name", "run", *arguments, **self.aws.environ)

    def submit(self, *command: str, queue: str = "", more: Any = None, **container: Any) -> str:
        """Submit a job without batchreg; `more` is more of SubmitJob."""
        definition = self.batch.register_job_definition(
            jobDefinitionName="lab",
            type="container",
            containerProperties={
                "image": self.image,
                "command": list(command),
                "resourceRequirements": [
                    {"type": "VCPU", "value": "1"},
                    {"type": "MEMORY", "value": "64"},
                ],
                **container,
            },
        )["jobDefinitionArn"]
        return self.batch.submit_job(
            jobName="lab",
            jobQueue=queue or self.outputs["JobQueueArn"],
            jobDefinition=definition,
            **(more or {}),
        )["jobId"]

    def look(self, job_id: str) -> dict[str, Any]:
        (job,) = self.batch.describe_jobs(jobs=[job_id])["jobs"]
        return job

    def wait(self, job_id: str, *statuses: str) -> dict[str, Any]:
        """Return a job once it has one of these statuses, or has ended."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            job = self.look(job_id)
            if job["status"] in (*statuses, "SUCCEEDED", "FAILED"):
                return job
            time.sleep(0.05)
        raise TimeoutError(f"{job['status']}: {job['statusReason']}")

    def end(self, *command: str, **options: Any) -> dict[str, Any]:
        return self.wait(self.submit(*command, **options))

    def log(self, job: dict[str, Any]) -> list[str]:
        events = self.aws.client("logs").get_log_events(
            logGroupName="/aws/batch/job", logStreamName=job["container"]["logStreamName"]
        )["events"]
        return [event["message"] for event in events]

    def environment(self, name: str, **resources: Any) -> str:
        """Make a compute environment of somebody else's with a queue; return the queue's name."""
        ours = self.batch.describe_compute_environments(
            computeEnvironments=[self.outputs["ComputeEnvironmentArn"]]
        )["computeEnvironments"][0]["computeResources"]
        keys = ("type", "allocationStrategy", "minvCpus", "maxvCpus", "instanceTypes")
        keys += ("instanceRole", "subnets", "securityGroupIds")
        self.batch.create_compute_environment(
            computeEnvironmentName=name,
            type="MANAGED",
            computeResources={
                **{key: ours[key] for key in keys if key in ours},
                "minvCpus": 0,
                **resources,
            },
        )
        self.batch.create_job_queue(
            jobQueueName=name,
            priority=1,
            computeEnvironmentOrder=[{"order": 1, "computeEnvironment": name}],
        )
        return name

    def update(self, name: str, **changes: Any) -> dict[str, Any]:
        """Update an environment, and return it once that is over."""
        self.batch.update_compute_environment(computeEnvironment=name, **changes)
        while True:
            (environment,) = self.batch.describe_compute_environments(computeEnvironments=[name])[
                "computeEnvironments"
            ]
            if environment["status"] != "UPDATING":
                return environment
            time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(registry):
    """One for all tests."""
    require("registry", "engine", "machine")
    with LocalAws(jobs=True, hurry=HURRY) as aws:
        outputs, _ = deployed(
            aws,
            "--stack-name",
            "run",
            "--username",
            registry.username,
            "--registry-url",
            f"http://{registry.host}/",
            "--fargate",
            BATCHREG_PASSWORD=registry.password,
        )
        yield Lab(aws, registry, outputs, registry.push("lab/align", "3"))


# What a user sees


def test_login_of_the_instance_pulls_the_image_and_runs_the_command(lab):
    """The walk-through's end: a private image, its output, success."""
    done = lab.run(lab.image, "--", "echo", "aligned", "$HOME")
    assert (done.returncode, done.stdout) == (0, "aligned $HOME\n"), done.stderr


def test_exit_code_of_the_container_is_batchregs(lab):
    """Through engine, agent and Batch."""
    done = lab.run(lab.image, "--", "sh", "-c", "echo no; exit 3")
    assert (done.returncode, done.stdout) == (3, "no\n")


def test_pull_of_a_missing_tag_says_so(lab):
    """The login is right, and is not blamed."""
    done = lab.run(f"{lab.registry.host}/lab/align:nine", "--", "true")
    assert done.returncode == 1
    assert "CannotPullImageManifestError: Error response from daemon: " in done.stderr
    last = done.stderr.splitlines()[-1]
    assert " Check the image's name and tag. To find out why: batchreg doctor " in last


@pytest.mark.parametrize("options", [("--auth", "job"), ("--fargate",)])
def test_job_that_carries_its_login_needs_none_on_the_instance(lab, options):
    """The execution role hands the secret's user name and password to the registry."""
    done = lab.run(*options, lab.image, "--", "echo", "aligned")
    assert (done.returncode, done.stdout) == (0, "aligned\n"), done.stderr


def test_the_same_job_fails_without_our_part_and_succeeds_with_it(lab):
    """In somebody else's environment, before and after its launch template is ours."""
    queue = lab.environment("theirs")
    job = lab.end("true", queue=queue)
    assert (job["status"], job["statusReason"]) == ("FAILED", "Task failed to start")
    reason = job["container"]["reason"]
    assert reason.startswith("CannotPullImageManifestError: Error response from daemon: ")
    assert "no basic auth credentials" in reason
    template = {"launchTemplateId": lab.outputs["LaunchTemplateId"], "version": "$Latest"}
    assert lab.update(queue, computeResources={"launchTemplate": template})["status"] == "VALID"
    assert lab.end("true", queue=queue)["status"] == "SUCCEEDED"


# What the ECS agent and Batch say


def test_output_reaches_the_log_while_the_job_runs(lab):
    """A follower need not wait for the end."""
    job_id = lab.submit("sh", "-c", "echo begun; sleep 60")
    job = lab.wait(job_id, "RUNNING")
    end = time.monotonic() + 10
    while lab.log(job) != ["begun"] and time.monotonic() < end:
        time.sleep(0.05)
    assert (lab.log(job), lab.look(job_id)["status"]) == (["begun"], "RUNNING")
    lab.batch.terminate_job(jobId=job_id, reason="enough")
    job = lab.wait(job_id)
    assert (job["status"], job["statusReason"], job["isTerminated"]) == ("FAILED", "enough", True)
    assert job["container"]["exitCode"] == 137


@pytest.mark.parametrize(
    ("command", "status", "code", "reason", "container"),
    [
        ("exit 0", "SUCCEEDED", 0, "Essential container in task exited", None),
        ("exit 3", "FAILED", 3, "Essential container in task exited", None),
        (
            "a=x; while :; do a=$a$a; done",
            "FAILED",
            137,
            "Essential container in task exited",
            "OutOfMemoryError: Container killed due to memory usage",
        ),
        ("sleep 600", "FAILED", 137, "Job attempt duration exceeded timeout", None),
    ],
    ids=["0", "3", "memory", "timeout"],
)
def test_how_a_container_ends_is_how_its_job_does(lab, command, status, code, reason, container):
    """Exit code, memory, time."""
    more = {"timeout": {"attemptDurationSeconds": 60}}
    job = lab.end("sh", "-c", command, more=more)
    found = job["container"]
    assert (job["status"], job["statusReason"]) == (status, reason)
    assert (found["exitCode"], found.get("reason")) == (code, container)


def test_a_digest_fails_in_other_words_than_a_tag(lab):
    """Nothing is resolved first, so it is the pull itself that fails."""
    name = f"{lab.registry.host}/lab/align@sha256:{'0' * 64}"
    job = lab.end("true", image=name)
    assert job["container"]["reason"].startswith("CannotPullContainerError: Error response from")


def test_a_command_that_is_not_there_cannot_start(lab):
    """The engine's words."""
    reason = lab.end("nonsense")["container"]["reason"]
    assert reason.startswith("CannotStartContainerError: Error response from daemon: ")


@pytest.mark.parametrize("role", ["JobExecutionRoleArn", ""])
def test_a_secret_that_cannot_be_read_is_the_tasks_reason(lab, role):
    """The container has none; nothing falls back to the instance's credentials."""
    secret = lab.aws.client("secretsmanager").create_secret(
        Name=f"other{role}", SecretString=json.dumps({"username": "x", "password": "y"})
    )["ARN"]
    account = "arn:aws:iam::123456789012:role/nobody"
    job = lab.end(
        "true",
        repositoryCredentials={"credentialsParameter": secret},
        executionRoleArn=lab.outputs.get(role, account),
    )
    assert job["statusReason"].startswith(f"Asm fetching secret from the service for {secret}: ")
    assert "reason" not in job["container"]


def test_a_secret_of_a_container_is_in_its_environment(lab):
    """Read with the execution role's rights, whole or by a key."""
    secret = lab.outputs["RegistrySecretArn"]
    job = lab.end(
        "sh",
        "-c",
        'echo "$NAME"; echo "$ALL"',
        secrets=[
            {"name": "NAME", "valueFrom": f"{secret}:username::"},
            {"name": "ALL", "valueFrom": secret},
        ],
        executionRoleArn=lab.outputs["JobExecutionRoleArn"],
    )
    name, text = lab.log(job)
    assert (name, json.loads(text)["username"]) == (lab.registry.username,) * 2


# Attempts, arrays, dependencies


def test_an_array_jobs_children_know_their_index(lab):
    """The array has the sum of their states."""
    command = "echo $AWS_BATCH_JOB_ARRAY_INDEX; exit $AWS_BATCH_JOB_ARRAY_INDEX"
    job_id = lab.submit("sh", "-c", command, more={"arrayProperties": {"size": 2}})
    job = lab.wait(job_id)
    assert (job["status"], job["arrayProperties"]) == (
        "FAILED",
        {"size": 2, "statusSummary": {"SUCCEEDED": 1, "FAILED": 1}},
    )
    children = [lab.look(f"{job_id}:{index}") for index in range(2)]
    assert [lab.log(child) for child in children] == [["0"], ["1"]]


def test_a_job_is_tried_again_and_its_attempts_are_kept(lab):
    """Each attempt has a log of its own."""
    job = lab.end(
        "sh",
        "-c",
        "echo $AWS_BATCH_JOB_ATTEMPT; [ $AWS_BATCH_JOB_ATTEMPT = 2 ]",
        more={"retryStrategy": {"attempts": 3}},
    )
    assert (job["status"], lab.log(job)) == ("SUCCEEDED", ["2"])
    assert [attempt["container"]["exitCode"] for attempt in job["attempts"]] == [1, 0]


# Environments


def test_jobs_run_on_when_the_environment_is_updated(lab):
    """A new instance takes the next job; the old one's job has its time."""
    template = {"launchTemplateId": lab.outputs["LaunchTemplateId"], "version": "$Latest"}
    queue = lab.environment("busy", launchTemplate=template)
    policy = {"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 600}
    old = lab.submit("sleep", "600", queue=queue)
    first = lab.wait(old, "RUNNING")["container"]["containerInstanceArn"]
    lab.update(queue, computeResources={"instanceTypes": ["c7i"]}, updatePolicy=policy)
    new = lab.end("true", queue=queue)
    assert new["status"] == "SUCCEEDED"
    assert new["container"]["containerInstanceArn"] != first
    assert lab.look(old)["status"] == "RUNNING"
    lab.batch.terminate_job(jobId=old, reason="enough")
    assert lab.wait(old)["statusReason"] == "enough"


@pytest.mark.parametrize(
    "policy",
    [
        {"terminateJobsOnUpdate": True, "jobExecutionTimeoutMinutes": 600},
        {"terminateJobsOnUpdate": False, "jobExecutionTimeoutMinutes": 1},
    ],
    ids=["at once", "after a minute"],
)
def test_an_updates_policy_ends_jobs(lab, policy):
    """For the same reason as a Spot instance that is taken away."""
    queue = "busy"
    old = lab.submit("sleep", "600", queue=queue)
    instance = lab.wait(old, "RUNNING")["container"]["containerInstanceArn"].rpartition("/")[2]
    types = "m7i" if policy["terminateJobsOnUpdate"] else "c7i"
    lab.update(queue, computeResources={"instanceTypes": [types]}, updatePolicy=policy)
    job = lab.wait(old)
    assert job["statusReason"] == f"Host EC2 (instance {instance}) terminated."


def test_an_environment_of_which_no_instance_joins_becomes_invalid(lab):
    """For good: no update helps."""
    user_data = (
        'MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary="=="\n\n--==\n'
        "Content-Type: text/x-shellscript\n\n#!/bin/sh\nsystemctl --no-block poweroff\n--==--\n"
    )
    made = lab.aws.client("ec2").create_launch_template(
        LaunchTemplateName="off",
        LaunchTemplateData={"UserData": base64.b64encode(user_data.encode()).decode()},
    )["LaunchTemplate"]
    template = {"launchTemplateId": made["LaunchTemplateId"], "version": "1"}
    queue = lab.environment("off", launchTemplate=template)
    job_id = lab.submit("true", queue=queue)
    end = time.monotonic() + 90
    while True:
        (environment,) = lab.batch.describe_compute_environments(computeEnvironments=[queue])[
            "computeEnvironments"
        ]
        if environment["status"] == "INVALID" or time.monotonic() > end:
            break
        time.sleep(0.2)
    assert "none of the instances joined the underlying ECS Cluster" in environment["statusReason"]
    assert lab.look(job_id)["status"] == "RUNNABLE"
    lab.batch.terminate_job(jobId=job_id, reason="hopeless")
    assert lab.update(queue, computeResources={"instanceTypes": ["c7i"]})["status"] == "INVALID"


# Roles


def test_a_job_uses_s3_with_its_own_role_and_another_with_that_of_the_instance(lab):
    """Each by the credentials that the SDK finds by itself."""
    aws = lab.aws
    aws.client("s3").create_bucket(Bucket="results")
    role = aws.client("iam").create_role(
        RoleName="JobRole", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[]}'
    )["Role"]["Arn"]
    name = lab.registry.push(
        "lab/python", "3", image=with_python("botocore", "jmespath", "dateutil", "urllib3", "six")
    )
    code = (
        "import botocore.session, sys; s = botocore.session.get_session();"
        "c = lambda name: s.create_client(name, region_name='us-east-1');"
        "c('s3').put_object(Bucket='results', Key=sys.argv[1], Body=b'aligned');"
        "print(c('sts').get_caller_identity()['Arn'])"
    )
    memory = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
    command = ("python3", "-c", code)
    own = lab.end(*command, "own", image=name, jobRoleArn=role, resourceRequirements=memory)
    instances = lab.end(*command, "instance", image=name, resourceRequirements=memory)
    assert [job["status"] for job in (own, instances)] == ["SUCCEEDED"] * 2, lab.log(own)
    assert ":assumed-role/JobRole/" in lab.log(own)[-1]
    assert ":assumed-role/run-InstanceRole" in lab.log(instances)[-1]
    for key in ("own", "instance"):
        body = aws.client("s3").get_object(Bucket="results", Key=key)["Body"].read()
        assert body == b"aligned"


@pytest.mark.parametrize(
    "name",
    [
        "ghcr.io/Lab/x",
        "https://ghcr.io/lab/x",
        "a//b",
        "-a/b",
        "a___b/c",
        "ghcr.io/lab/x:-3",
        "ghcr.io/",
        "-ghcr.io/x",
        "ghcr.io:port/x",
        "x@sha256:12",
    ],
)
def test_engine_refuses_the_names_that_we_refuse(engine, name):
    """Before it asks any registry."""
    with pytest.raises(BatchregError):
        image.parse(name)
    with pytest.raises(PullError, match=r"invalid (reference|tag) format"):
        engine.pull(name)

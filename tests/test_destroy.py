"""`batchreg destroy` as a subprocess against the embedded AWS: jobs, stuck deletes, nothing."""

from __future__ import annotations

import json
import subprocess

import pytest
from account import LOGIN, submit
from lab.forwarder import Call, Forwarder, Reply

FOREIGN = 'Resources: {Role: {Type: "AWS::IAM::Role", Properties: {AssumeRolePolicyDocument: {}}}}'


@pytest.fixture
def destroy(batchreg, account):
    """Run `batchreg destroy` for the stack, with --yes."""

    def run(*arguments: str, yes: bool = True) -> subprocess.CompletedProcess[str]:
        return batchreg(
            "destroy",
            "--stack-name",
            account.name,
            *["--yes"] * yes,
            *arguments,
            environ=account.aws.environ,
        )

    return run


def test_destroyed_stack_is_gone_and_destroying_it_again_is_a_success(destroy, made):
    """A clean-up script may run twice; what goes is said before it goes."""
    result = destroy()
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].split() == ["Will", "be", "deleted", "Type"]
    assert ["JobQueue", "AWS::Batch::JobQueue"] in [line.split() for line in lines]
    assert lines[-1] == f"{made.name} is gone."
    assert made.stack is None
    again = destroy(yes=False)
    assert (again.returncode, again.stderr) == (
        0,
        f"There is no stack {made.name} in us-east-1: nothing to destroy.\n",
    )


def test_job_definitions_of_submit_go_with_the_stack(destroy, made, batchreg):
    """What others have registered stays ACTIVE, and so does what has no tag of a stack."""
    batch = made.aws.client("batch")
    submit(made, "SUCCEEDED")  # registers a definition as others do
    for tag in ("1", "2"):
        image = f"ghcr.io/{made.name}/align:{tag}"
        done = batchreg(
            "submit", "--detach", "--stack-name", made.name, image, environ=made.aws.environ
        )
        assert done.returncode == 0, done.stderr

    def active(name: str) -> list[str]:
        found = batch.describe_job_definitions(jobDefinitionName=name, status="ACTIVE")
        return [one["jobDefinitionArn"] for one in found["jobDefinitions"]]

    ours, theirs = f"ghcr-io-{made.name}-align", made.name
    assert (len(active(ours)), len(active(theirs))) == (2, 1)
    result = destroy("--terminate-jobs")
    assert result.returncode == 0, result.stderr
    assert "Deregistered 2 job definitions of submit." in result.stderr.splitlines()
    assert (len(active(ours)), len(active(theirs))) == (0, 1)


class Denying(Forwarder):
    """An AWS that does not let the caller list job definitions."""

    def before(self, call: Call) -> Reply | None:
        if call.operation != "/v1/describejobdefinitions":
            return None
        headers = {"x-amzn-errortype": "AccessDeniedException"}
        return Reply(403, b'{"message": "no permission"}', headers)


def test_missing_permission_to_deregister_is_a_note(batchreg, made):
    """The stack goes all the same."""
    with Denying(made.aws.endpoint) as aws:
        result = batchreg(
            *("destroy", "--stack-name", made.name, "--yes"),
            environ={**made.aws.environ, "AWS_ENDPOINT_URL": aws.url},
        )
    assert result.returncode == 0, result.stderr
    assert (
        "The job definitions of submit stay ACTIVE: AWS rejected DescribeJobDefinitions: "
        "no permission." in result.stderr
    )
    assert made.stack is None


def test_off_a_terminal_destroy_needs_yes(destroy, made):
    """Nobody is there to answer, so nothing goes."""
    result = destroy(yes=False)
    assert result.returncode == 2
    assert "give --yes" in result.stderr.splitlines()[-1]
    assert made.stack["StackStatus"] == "CREATE_COMPLETE"


def test_stack_of_another_tool_is_left_alone(destroy, account):
    """A mistyped name must not cost a colleague's stack; --force says that it may."""
    account.cfn.create_stack(
        StackName=account.name, TemplateBody=FOREIGN, Capabilities=["CAPABILITY_IAM"]
    )
    result = destroy()
    assert result.returncode == 1
    assert result.stderr == (
        f"batchreg: {account.name} was not created by batchreg. Choose another --stack-name, or give "
        "--force.\n"
    )
    assert account.stack
    assert destroy("--force").returncode == 0
    assert account.stack is None


def test_protected_stack_stays_and_the_message_says_how_to_lift_it(destroy, made):
    """Termination protection is there to be respected."""
    made.cfn.update_termination_protection(StackName=made.name, EnableTerminationProtection=True)
    result = destroy()
    assert result.returncode == 1
    assert "--no-termination-protection" in result.stderr
    assert made.stack["StackStatus"] == "CREATE_COMPLETE"


def test_jobs_that_have_not_finished_keep_the_stack(destroy, made):
    """Their work would be lost: the message counts them and names the option that ends them."""
    jobs = submit(made, "RUNNING", "RUNNABLE", "RUNNABLE", "SUCCEEDED")
    result = destroy()
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert "3 jobs" in last
    assert "2 RUNNABLE, 1 RUNNING" in last
    assert "--terminate-jobs" in last
    result = destroy("--terminate-jobs")
    assert result.returncode == 0, result.stderr
    assert "Terminating 3 jobs." in result.stderr.splitlines()
    described = made.aws.client("batch").describe_jobs(jobs=jobs)["jobs"]
    assert {job["jobId"]: job["status"] for job in described} == dict(
        zip(jobs, ["FAILED", "FAILED", "FAILED", "SUCCEEDED"], strict=True)
    )
    assert described[0]["statusReason"] == f"{made.name} is being destroyed"
    assert made.stack is None


def test_queue_of_others_is_named_and_once_it_is_gone_destroy_works(destroy, made):
    """The best-known stuck delete of AWS Batch, whose own message names no queue."""
    batch = made.aws.client("batch")
    other = f"colleagues-{made.name}"
    batch.create_job_queue(
        jobQueueName=other,
        priority=1,
        computeEnvironmentOrder=[
            {"order": 1, "computeEnvironment": made.outputs["ComputeEnvironmentArn"]}
        ],
    )
    result = destroy()
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"batchreg: {made.name}: the job queue {other} still uses its compute")
    assert made.stack["StackStatus"] == "DELETE_FAILED"
    batch.update_job_queue(jobQueue=other, state="DISABLED")
    batch.delete_job_queue(jobQueue=other)
    result = destroy()
    assert result.returncode == 0, result.stderr
    assert made.stack is None


def test_what_cannot_go_can_be_left_behind(destroy, made):
    """--retain is the way out of a delete that nothing fixes; only then CloudFormation accepts it."""
    batch = made.aws.client("batch")
    other = f"stubborn-{made.name}"
    environment = made.outputs["ComputeEnvironmentArn"]
    batch.create_job_queue(
        jobQueueName=other,
        priority=1,
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": environment}],
    )
    early = destroy("--retain", "ComputeEnvironment")
    assert (early.returncode, len(early.stderr.splitlines())) == (1, 1)
    assert destroy().returncode == 1
    result = destroy("--retain", "ComputeEnvironment")
    assert result.returncode == 0, result.stderr
    assert made.stack is None
    assert batch.describe_compute_environments(computeEnvironments=[environment])[
        "computeEnvironments"
    ]


def test_no_wait_returns_while_the_stack_goes(batchreg, slow_aws, stack):
    """A pipeline may have better things to do."""
    environ = {**slow_aws.environ, **LOGIN}
    assert batchreg("deploy", "--stack-name", stack, "--yes", environ=environ).returncode == 0
    result = batchreg(
        "destroy", "--stack-name", stack, "--yes", "--no-wait", "--json", environ=environ
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "type": "result",
        "stack": stack,
        "status": "DELETE_IN_PROGRESS",
    }


def test_json_events_end_with_the_result(destroy, made):
    """Each line of stdout is JSON, and stderr is silent."""
    result = destroy("--json")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, result.stderr) == (0, "")
    assert lines[0]["type"] == "resources"
    assert {"event", "note"} <= {line["type"] for line in lines}
    assert lines[-1] == {"type": "result", "stack": made.name, "status": None}

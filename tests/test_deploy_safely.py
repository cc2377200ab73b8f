"""What a deploy checks and says before it changes a stack, and how it replaces a broken one."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from account import LOGIN, PASSWORD, Account
from interrupted import BATCHREG
from lab.environ import clean
from registry_server import RegistryServer, index
from terminal import Terminal


@pytest.fixture
def environ(aws):
    return {**aws.environ, **LOGIN, "BATCHREG_NO_CHECK": "0"}


@pytest.fixture
def registry():
    """A registry that accepts the tests' credentials."""
    with RegistryServer(
        users={LOGIN["BATCHREG_USERNAME"]: PASSWORD},
        rights={LOGIN["BATCHREG_USERNAME"]: {"lab/align"}},
        images={"lab/align": {"3": index("linux/amd64")}},
    ) as server:
        yield server


def problems(result) -> list[str]:
    return [line.removeprefix("batchreg: ") for line in result.stderr.splitlines()]


def test_credentials_that_the_registry_accepts_are_deployed(batchreg, environ, stack, registry):
    result = batchreg(
        "deploy", "--stack-name", stack, "--registry-url", registry.host, "--yes", environ=environ
    )
    assert result.returncode == 0, result.stderr


def test_a_wrong_password_creates_nothing(batchreg, environ, account, registry):
    """Without the check, every instance would start, find out, and wait for somebody."""
    arguments = ["--stack-name", account.name, "--registry-url", registry.host, "--yes"]
    wrong = {**environ, "BATCHREG_PASSWORD": "canary-wrong"}
    for more in ([], ["--dry-run"]):
        result = batchreg("deploy", *arguments, *more, environ=wrong)
        assert result.returncode == 1
        (line,) = problems(result)
        assert line.startswith(f"{registry.host} rejects these credentials. Check the user name")
        assert line.endswith("To skip this check, give --no-check. No changes were made.")
        assert "canary" not in result.stderr + result.stdout
        assert account.stack is None
    result = batchreg("deploy", *arguments, "--no-check", environ=wrong)
    assert result.returncode == 0, result.stderr


def test_several_problems_are_told_at_once(batchreg, environ, account, tmp_path, registry):
    """And a registry that is out of reach is only a warning."""
    part = tmp_path / "setup.sh"
    part.write_text("#!/bin/sh\necho X=1 > /etc/ecs/ecs.config\n")
    result = batchreg(
        "deploy",
        *("--stack-name", account.name, "--registry-url", "127.0.0.1:9", "--yes"),
        *("--subnet-id", "subnet-0dead", "--security-group-id", "sg-0dead"),
        *("--user-data", str(part)),
        *("--kms-key-arn", "arn:aws:kms:eu-west-1:123456789012:key/abc"),
        environ=environ,
    )
    assert (result.returncode, account.stack) == (1, None)
    lines = problems(result)
    assert lines[0].startswith("Warning: 127.0.0.1:9 refused the connection.")
    starts = [
        f"{part}, line 2 replaces /etc/ecs/ecs.config",
        "There is no subnet subnet-0dead in us-east-1.",
        "There is no security group sg-0dead in us-east-1.",
        "KMS key arn:aws:kms:eu-west-1:123456789012:key/abc is in eu-west-1, the stack is in",
    ]
    assert [line.startswith(start) for line, start in zip(lines[1:], starts, strict=True)] == [
        True
    ] * len(starts), lines


def test_a_part_that_overwrites_the_agents_file_needs_force(batchreg, environ, stack, tmp_path):
    part = tmp_path / "setup.sh"
    part.write_text("#!/bin/sh\necho ECS_CLUSTER=mine >> /etc/ecs/ecs.config\n")
    arguments = ["--stack-name", stack, "--user-data", str(part), "--yes", "--no-check"]
    refused = batchreg("deploy", *arguments, environ=environ)
    assert refused.returncode == 1
    assert "line 2 sets ECS_CLUSTER, which AWS Batch sets itself." in refused.stderr
    assert batchreg("deploy", *arguments, "--force", environ=environ).returncode == 0


def test_problems_are_json_and_the_result_is_last(batchreg, environ, stack):
    result = batchreg(
        "deploy",
        *("--stack-name", stack, "--registry-url", "gchr.io", "--yes", "--json"),
        environ=environ,
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["type"] for line in lines] == ["problem", "result"]
    assert lines[0]["certain"] is True
    assert lines[1]["stack"] == stack
    assert lines[1]["error"].startswith("gchr.io looks like a misspelling of ghcr.io or gcr.io")


def test_wrong_usage_ends_with_a_result_too(batchreg, environ, stack):
    result = batchreg("deploy", "--stack-name", stack, "--json", "--max-vcpus", "lots")
    assert result.returncode == 2
    assert json.loads(result.stdout)["type"] == "result"


@pytest.mark.parametrize(
    ("arguments", "row", "effect"),
    [
        (["--max-vcpus", "1024"], ("Maximum vCPUs", "256", "1024"), None),
        (["--tag", "team=lab"], ("tag team", "-", "lab"), None),
        (["--root-volume-gib", "200"], ("Root volume (GiB)", "100", "200"), "launch template"),
        (["--instance-type", "m7i"], ("Instance types", "optimal", "m7i"), "instance types"),
        (["--provisioning-model", "SPOT"], ("Provisioning model", "EC2", "SPOT"), "type"),
        (
            ["--image-type", "ECS_AL2023_NVIDIA"],
            ("image type", "ECS_AL2023", "ECS_AL2023_NVIDIA"),
            "ec2configuration",
        ),
        (["--registry-url", "quay.io"], ("registry", "Docker Hub", "quay.io"), None),
        (
            ["--termination-protection", "--max-vcpus", "2"],
            ("termination protection", "off", "on"),
            None,
        ),
    ],
)
def test_an_update_is_shown_in_the_users_language(batchreg, aws, made, arguments, row, effect):
    """With both values, and with what it does to running jobs."""
    result = batchreg(
        "deploy", "--stack-name", made.name, *arguments, "--dry-run", environ=aws.environ
    )
    assert result.returncode == 0, result.stderr
    cells = [tuple(line.split("  ")) for line in result.stderr.splitlines()]
    shown = [tuple(cell.strip() for cell in line if cell.strip()) for line in cells]
    assert row in shown, result.stderr
    told = [line for line in result.stderr.splitlines() if "replaces the instances" in line]
    assert bool(told) == bool(effect)
    if effect:
        assert effect in told[0]
        assert "may continue for 6 hours (--job-timeout-minutes)" in told[0]


def test_jobs_that_would_be_terminated_at_once_are_said_to_be(batchreg, aws, made):
    result = batchreg(
        "deploy",
        *("--stack-name", made.name, "--root-volume-gib", "200", "--terminate-jobs", "--dry-run"),
        environ=aws.environ,
    )
    assert "Running jobs are terminated at once (--terminate-jobs)" in result.stderr


def test_termination_protection_alone_is_no_contradiction(batchreg, aws, made):
    """It once said that it would turn it on, and that there is nothing to change."""
    result = batchreg(
        "deploy",
        "--stack-name",
        made.name,
        "--termination-protection",
        "--dry-run",
        environ=aws.environ,
    )
    assert result.stderr == "Dry run: a deploy would turn termination protection on.\n"


def invalidate(made: Account) -> str:
    for _ in range(2):
        made.aws.lost(made.outputs["ComputeEnvironmentArn"], "powered off")
    assert made.environment["status"] == "INVALID"
    return made.outputs["ComputeEnvironmentArn"]


def test_an_invalid_environment_is_replaced_behind_the_same_queue(batchreg, aws, made):
    """Nothing else makes it VALID again; the queue's ARN is in everybody's pipelines."""
    broken, before = invalidate(made), made.outputs
    result = batchreg(
        "deploy", "--stack-name", made.name, "--replace-environment", "--yes", environ=aws.environ
    )
    assert result.returncode == 0, result.stderr
    assert "behind the same queue" in result.stderr
    after = made.outputs
    assert after["ComputeEnvironmentArn"] != broken
    assert {name: arn for name, arn in after.items() if name != "ComputeEnvironmentArn"} == {
        name: arn for name, arn in before.items() if name != "ComputeEnvironmentArn"
    }
    assert made.environment["status"] == "VALID"
    batch = aws.client("batch")
    (queue,) = batch.describe_job_queues(jobQueues=[after["JobQueueArn"]])["jobQueues"]
    (order,) = queue["computeEnvironmentOrder"]
    assert order["computeEnvironment"] == after["ComputeEnvironmentArn"]
    left = batch.describe_compute_environments(computeEnvironments=[broken])
    assert left["computeEnvironments"] == []
    # A later deploy keeps the new one, and a second accident is repaired as well.
    again = batchreg("deploy", "--stack-name", made.name, "--yes", environ=aws.environ)
    assert "nothing to change" in again.stderr
    invalidate(made)
    result = batchreg(
        "deploy", "--stack-name", made.name, "--replace-environment", "--yes", environ=aws.environ
    )
    assert (result.returncode, made.environment["status"]) == (0, "VALID")


def test_yes_alone_does_not_replace_an_environment(batchreg, aws, made):
    broken = invalidate(made)
    result = batchreg("deploy", "--stack-name", made.name, "--yes", environ=aws.environ)
    assert result.returncode == 0
    assert f"batchreg deploy --stack-name {made.name} --replace-environment" in result.stderr
    assert made.outputs["ComputeEnvironmentArn"] == broken


def test_a_person_is_asked_whether_to_replace_it(aws, made, tmp_path: Path):
    broken = invalidate(made)
    terminal = Terminal(
        BATCHREG, "deploy", "--stack-name", made.name, environ=clean(**aws.environ), folder=tmp_path
    )
    try:
        terminal.expect("Replace it with a new one, behind the same job queue? [y/N]:")
        terminal.type("y\n")
        terminal.expect("Update")
        terminal.type("n\n")
        assert terminal.wait() == 1
    finally:
        terminal.close()
    assert made.outputs["ComputeEnvironmentArn"] == broken


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_at_the_question_leaves_nothing_behind(aws, account, tmp_path: Path, number):
    """A closed terminal once left a stack in REVIEW_IN_PROGRESS."""
    terminal = Terminal(
        BATCHREG,
        "deploy",
        "--stack-name",
        account.name,
        "--no-check",
        environ=clean(**aws.environ, **LOGIN),
        folder=tmp_path,
    )
    try:
        terminal.expect("[y/N]:")
        terminal.signal(number)
        assert terminal.wait() == 128 + number
    finally:
        terminal.close()
    end = time.monotonic() + 5
    while account.stack and time.monotonic() < end:
        time.sleep(0.1)
    assert account.stack is None


def delete_cluster(made: Account) -> None:
    """As somebody who tidies up in the ECS console does; the environment stays VALID."""
    made.aws.client("ecs").delete_cluster(cluster=made.environment["ecsClusterArn"])


def delete_environment(made: Account) -> None:
    """AWS Batch deletes none that a queue uses, so the queue gets another one first."""
    batch, environment = made.aws.client("batch"), made.environment
    name = f"{made.name}-other"
    batch.create_compute_environment(
        computeEnvironmentName=name,
        type="MANAGED",
        computeResources=environment["computeResources"],
    )
    batch.update_job_queue(
        jobQueue=made.outputs["JobQueueArn"],
        computeEnvironmentOrder=[{"order": 1, "computeEnvironment": name}],
    )
    arn = environment["computeEnvironmentArn"]
    batch.update_compute_environment(computeEnvironment=arn, state="DISABLED")
    batch.delete_compute_environment(computeEnvironment=arn)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete_cluster, "has lost the ECS cluster that AWS Batch created for it."),
        (delete_environment, "does not exist."),
    ],
)
def test_an_environment_that_is_gone_or_without_its_cluster_is_replaced(
    batchreg, aws, made, harm, said
):
    """No update gives AWS Batch's environment another cluster, and CloudFormation misses neither."""
    before = made.outputs
    harm(made)
    result = batchreg(
        "deploy", "--stack-name", made.name, "--replace-environment", "--yes", environ=aws.environ
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith(f"The compute environment of {made.name} {said}\n")
    after = made.outputs
    assert after["ComputeEnvironmentArn"] != before["ComputeEnvironmentArn"]
    assert after["JobQueueArn"] == before["JobQueueArn"]
    assert made.environment["status"] == "VALID"
    (queue,) = aws.client("batch").describe_job_queues(jobQueues=[after["JobQueueArn"]])[
        "jobQueues"
    ]
    (order,) = queue["computeEnvironmentOrder"]
    assert order["computeEnvironment"] == after["ComputeEnvironmentArn"]


def test_a_healthy_environment_is_not_replaced(batchreg, aws, made):
    """The option says what may be done, not what must be."""
    result = batchreg(
        "deploy", "--stack-name", made.name, "--replace-environment", "--yes", environ=aws.environ
    )
    assert result.stderr == f"{made.name} is up to date: nothing to change.\n"

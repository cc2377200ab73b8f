"""doctor, status and list on what batchreg did not create, and on what it has attached to."""

from __future__ import annotations

import json
from typing import Any

import pytest
from account import LOGIN, PASSWORD, Account
from attach_lab import Lab
from local_aws import LocalAws

from batchreg.render import text


@pytest.fixture(scope="module")
def world(aws: LocalAws) -> LocalAws:
    """A queue of somebody's."""
    Lab(aws, "theirs").make()
    return aws


@pytest.fixture
def run(batchreg: Any, world: LocalAws) -> Any:
    return lambda *arguments: batchreg(*arguments, environ={**world.environ, **LOGIN})


@pytest.fixture(scope="module")
def attached(aws: LocalAws) -> Lab:
    lab = Lab(aws, "attached").make()
    policy = {"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}
    lab.iam.put_role_policy(
        RoleName="attached-ecs",
        PolicyName="ecs",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [policy]}),
    )
    return lab


def test_queue_that_has_no_stack_is_told_as_what_it_is(run: Any) -> None:
    """Whose it is, its state, and where credentials would come from."""
    result = run("status", "--queue", "theirs")
    assert result.stdout == (
        "Job queue            VALID, ENABLED  theirs\n"
        "Compute environment  VALID, ENABLED  theirs\n"
        "  created by         the console, a script, or code without tags\n"
        "Jobs                 none\n"
        "Credentials          none from batchreg\n"
        "                     To add some: batchreg attach theirs\n"
    )
    by_environment = run("status", "--compute-environment", "theirs", "--json")
    answer = json.loads(by_environment.stdout)
    assert (answer["job_queues"][0]["name"], answer["stack"]) == ("theirs", None)


@pytest.mark.parametrize("command", ["status", "doctor"])
def test_only_one_thing_is_asked_about(run: Any, command: str) -> None:
    """A stack, a queue, or a compute environment."""
    result = run(command, "--queue", "theirs", "--stack-name", "lab")
    assert result.returncode == 2
    assert "Give one of --stack-name, --queue and --compute-environment." in result.stderr


@pytest.mark.parametrize("option", ["--queue", "--compute-environment"])
def test_what_does_not_exist_is_named(run: Any, option: str) -> None:
    """With the way to what does."""
    result = run("status", option, "nowhere")
    assert result.returncode == 1
    assert "nowhere in us-east-1. To list the queues there: batchreg list" in result.stderr


def test_queue_that_does_not_exist_has_no_jobs_to_list(run: Any) -> None:
    """The hint is that of status, and not AWS's words."""
    result = run("jobs", "--queue", "nowhere")
    assert result.stderr == (
        "batchreg: There is no job queue nowhere in us-east-1. To list the queues there: "
        "batchreg list\n"
    )


def test_queue_on_fargate_is_told_of_no_command_that_refuses_it(run: Any, aws: LocalAws) -> None:
    """attach needs instances; its refusal has the way that works."""
    Lab(aws, "serverless").make(
        resources={
            "type": "FARGATE",
            **dict.fromkeys(("allocationStrategy", "instanceTypes", "instanceRole"), ""),
            **dict.fromkeys(("minvCpus", "ec2Configuration"), ""),
        }
    )
    status = run("status", "--queue", "serverless").stdout
    assert status.endswith("Credentials          none from batchreg\n")
    refusal = run("attach", "serverless", "--dry-run").stderr
    assert "batchreg submit --auth job" not in refusal
    assert refusal.endswith("batchreg deploy --fargate\n")


def test_doctor_without_a_stack_lists_the_queues(run: Any, aws: LocalAws) -> None:
    """Nobody who has no stack learns anything from its absence."""
    Lab(aws, "a-queue").make()  # the first by name: the list is cut where there are many
    result = run("doctor", "--json")
    assert result.returncode == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert finding["cause"] == "stack-missing"
    assert "a-queue" in finding["steps"][0]
    assert "batchreg doctor --queue " in finding["steps"][0]


def test_attached_queue_is_healthy_and_belongs_to_its_companion(run: Any, attached: Lab) -> None:
    """The secret's own policy lets the role of the instances read it: IAM does not simulate it."""
    done = run("attach", "attached", "--registry-url", "ghcr.io", "--username", "lab", "--yes")
    assert done.returncode == 0, done.stderr
    run("doctor", "--queue", "attached")  # ministack imports a service when it is first called
    result = run("doctor", "--queue", "attached", "--json")
    answer = json.loads(result.stdout)
    assert answer["findings"] == []
    looked = {row["what"]: row["is"] for row in answer["looked_at"]}
    assert looked["Stack batchreg-attached"] == "CREATE_COMPLETE"
    assert looked["Role attached-ecs"] == "has its permissions"
    assert PASSWORD not in result.stdout

    status = run("status", "--queue", "attached")
    assert "Stack                attached  batchreg-attached\n" in status.stdout
    assert "Registry             ghcr.io\n" in status.stdout

    lines = run("list").stdout.splitlines()
    assert [line.split() for line in lines if line.startswith("batchreg-attached ")] == [
        ["batchreg-attached", "CREATE_COMPLETE", "ghcr.io", "0"]
    ]
    found = json.loads(run("list", "--json").stdout)
    (companion,) = [one for one in found["stacks"] if one["name"] == "batchreg-attached"]
    assert (companion["kind"], companion["queues"]) == ("companion", ["attached"])
    others = {one["name"] for one in found["queues"]}
    assert "theirs" in others
    assert "attached" not in others

    # What attach has created is what people mean when they leave out --stack-name.
    missing = run("rotate").stderr
    assert "There is no stack batchreg in us-east-1." in missing
    assert "Did you mean batchreg-" in missing  # other tests have stacks with such names, too


def test_attachment_that_was_undone_is_named_with_its_fix(run: Any, attached: Lab) -> None:
    """The next run of whoever owns the environment reverts the change; attaching again helps."""
    template = attached.template("own", b"")
    attached.batch.update_compute_environment(
        computeEnvironment="attached",
        computeResources={"launchTemplate": {"launchTemplateId": template, "version": "1"}},
    )
    (finding,) = json.loads(run("doctor", "--queue", "attached", "--json").stdout)["findings"]
    assert finding["cause"] == "user-data-without-credentials"
    assert finding["fix"] == ["batchreg attach attached --region us-east-1"]


def test_job_alone_leads_to_its_queue_and_its_reason_is_shown(run: Any, world: LocalAws) -> None:
    """Whatever the reason, and although no rule knows it."""
    batch = world.client("batch")
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
    batch.register_job_definition(
        jobDefinitionName="new",
        type="container",
        containerProperties={"image": "127.0.0.1:9/lab/align", "resourceRequirements": needs},
    )
    world.set_jobs("FAILED", reason="HoloDeckError: the containment field collapsed")
    job = batch.submit_job(jobName="align", jobQueue="theirs", jobDefinition="new")["jobId"]
    world.set_jobs("SUCCEEDED")
    result = run("doctor", "--job", job, "--json")
    assert result.returncode == 1
    answer = json.loads(result.stdout)
    reasons = {one["cause"]: one["evidence"] for one in answer["findings"]}
    assert reasons["job-failed"] == ["Job align: HoloDeckError: the containment field collapsed"]
    assert {"what": "Job queue theirs", "is": "VALID, ENABLED"} in answer["looked_at"]


def test_stack_of_somebody_else_is_examined_as_what_it_is(
    run: Any, world: LocalAws, template: str
) -> None:
    """By its resources, whatever its outputs are; and nothing of batchreg's is missed in it."""
    body = text.parse(template)
    del body["Metadata"], body["Outputs"]
    account = Account(world, "somebodys")
    account.make(json.dumps(body))
    answer = json.loads(run("doctor", "--stack-name", "somebodys", "--json").stdout)
    looked = [row["what"] for row in answer["looked_at"]]
    assert "Stack somebodys" in looked
    assert [what for what in looked if what.startswith("Job queue somebodys-")]
    assert [what for what in looked if what.startswith("Compute environment somebodys-")]
    assert answer["findings"] == []

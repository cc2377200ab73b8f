"""Environments in the states that people have them in, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attach_archives import multipart, shell
from attach_lab import THEIRS, Lab
from lab.forwarder import Call, Forwarder, Reply

OLD = multipart(shell("amazon-linux-extras install -y epel", "yum install -y jq"))

STATES: dict[str, dict[str, Any]] = {
    "Spot": {"resources": {"type": "SPOT", "allocationStrategy": "SPOT_PRICE_CAPACITY_OPTIMIZED"}},
    "Graviton": {"resources": {"instanceTypes": ["c7g", "m7g.large"]}},
    "GPU": {
        "resources": {
            "instanceTypes": ["g4dn"],
            "ec2Configuration": [{"imageType": "ECS_AL2023_NVIDIA"}],
        }
    },
    "custom image": {
        "resources": {
            "ec2Configuration": [{"imageType": "ECS_AL2", "imageIdOverride": "ami-12345678"}]
        }
    },
    "image of an SSM parameter": {
        "template": {"ImageId": "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/x"}
    },
    "custom image, the old field": {
        "resources": {"imageId": "ami-12345678", "ec2Configuration": ""}
    },
    "no image type": {"resources": {"ec2Configuration": []}},
    "disabled": {"state": "DISABLED"},
    "instances at rest": {"resources": {"minvCpus": 4, "desiredvCpus": 4}},
    "tags": {"tags": {"team": "lab"}, "resources": {"tags": {"Name": "genomics"}}},
}


@pytest.mark.parametrize("name", STATES)
def test_environment_in_each_state_is_attached_and_comes_back(lab, run, name):
    """Nothing of it changes but the launch template."""
    choices = dict(STATES[name])
    template = lab.template("base", THEIRS, **choices.pop("template", {}))
    lab.make({"launchTemplateId": template, "version": "1"}, **choices)
    before, (theirs,) = lab.environment, lab.versions_in_use()
    run("attach", lab.name, "--yes")
    attached, (ours,) = lab.environment, lab.versions_in_use()
    attached["computeResources"]["launchTemplate"] = before["computeResources"]["launchTemplate"]
    assert {**attached, "statusReason": ""} == {**before, "statusReason": ""}
    assert {**ours, "UserData": ""} == {**theirs, "UserData": ""}
    assert b"/opt/batchreg/" in lab.user_data()
    run("detach", lab.name, "--yes")
    assert {**lab.environment, "statusReason": ""} == {**before, "statusReason": ""}
    assert lab.companion is None


def test_amazon_linux_2_changes_only_on_request(lab, run):
    """With the lines that may fail afterwards."""
    old = [{"imageType": "ECS_AL2"}]
    lab.make({"launchTemplateId": lab.template("base", OLD)}, resources={"ec2Configuration": old})
    shown = run("attach", lab.name, "--yes").stderr
    assert "--image-type ECS_AL2023" in shown
    assert lab.environment["computeResources"]["ec2Configuration"] == old
    shown = run("attach", lab.name, "--yes", "--image-type", "ECS_AL2023").stderr
    assert f"{lab.name}-base, part 1, line 2: amazon-linux-extras" in shown
    assert f"{lab.name}-base, part 1, line 3: yum" in shown
    assert lab.environment["computeResources"]["ec2Configuration"] == [{"imageType": "ECS_AL2023"}]
    run("detach", lab.name, "--yes")
    assert lab.environment["computeResources"]["ec2Configuration"] == old


def test_two_environments_share_a_role_and_are_detached_one_by_one(lab, run, aws):
    """Each has its own secret, and neither takes the other's permission away."""
    other = Lab(aws, f"{lab.name}b")
    lab.make()
    other.make(resources={"instanceRole": lab.role()})
    for each in (lab, other):
        run("attach", each.name, "--yes")
    run("detach", lab.name, "--yes")
    assert b"/opt/batchreg/" in other.user_data()
    policy = aws.client("secretsmanager").get_resource_policy(
        SecretId=other.outputs["RegistrySecretArn"]
    )["ResourcePolicy"]
    assert f"role/{lab.name}-ecs" in policy


def test_running_jobs_are_counted_before_anything_happens(lab, run, aws):
    """An update may end them."""
    lab.make()
    definition = lab.batch.register_job_definition(
        jobDefinitionName=lab.name,
        type="container",
        containerProperties={
            "image": "x",
            "resourceRequirements": [
                {"type": "VCPU", "value": "1"},
                {"type": "MEMORY", "value": "128"},
            ],
        },
    )["jobDefinitionArn"]
    for status in ("RUNNING", "RUNNING", "RUNNABLE"):
        lab.batch.submit_job(
            jobName="job",
            jobQueue=lab.name,
            jobDefinition=definition,
            parameters={"local-aws-status": status},
        )
    shown = run("attach", lab.name, "--dry-run", "--job-timeout-minutes", "90").stderr
    assert "2 running jobs may continue for 90 minutes" in shown
    shown = run("attach", lab.name, "--dry-run", "--terminate-jobs").stderr
    assert "2 running jobs are terminated at once" in shown


class Meanwhile(Forwarder):
    """Does something when AWS has answered a certain call for the first time."""

    def __init__(self, target: str, operation: str, action: Callable[[], Any]) -> None:
        super().__init__(target)
        self._operation, self._action = operation, action

    def after(self, call: Call, reply: Reply) -> Reply:
        if call.operation == self._operation:
            self._operation = ""
            self._action()
        return reply


def test_change_between_look_and_update_is_reported_and_kept(lab, run, aws):
    """Nothing of theirs is overwritten; the next run starts from it."""
    lab.make()
    other = {"launchTemplateId": lab.template("other", THEIRS, KeyName="o"), "version": "1"}

    def change() -> None:
        lab.batch.update_compute_environment(
            computeEnvironment=lab.name, computeResources={"launchTemplate": other}
        )

    with Meanwhile(aws.endpoint, "ExecuteChangeSet", change) as server:
        result = run("attach", lab.name, "--yes", status=1, AWS_ENDPOINT_URL=server.url)
    assert "was changed while batchreg worked" in result.stderr
    assert lab.specification == other
    run("attach", lab.name, "--yes")
    assert lab.versions_in_use()[0]["KeyName"] == "o"
    run("detach", lab.name, "--yes")
    assert lab.specification == other


class Refusing(Forwarder):
    """Denies one operation, as IAM does."""

    def __init__(self, target: str, operation: str, reply: Reply) -> None:
        super().__init__(target)
        self._operation, self._reply = operation, reply

    def before(self, call: Call) -> Reply | None:
        return self._reply if call.operation == self._operation else None


def test_missing_permission_is_named_and_the_next_run_continues(lab, run, aws):
    """The companion stack is there by then, and the environment is as it was."""
    lab.make()
    denied = Reply(
        403,
        b'{"message": "User: arn:aws:iam::1:user/ada is not authorized to perform: iam:PassRole on '
        b'resource: arn:aws:iam::1:role/ecs"}',
        {"Content-Type": "application/json", "x-amzn-ErrorType": "AccessDeniedException"},
    )
    with Refusing(aws.endpoint, "/v1/updatecomputeenvironment", denied) as server:
        result = run("attach", lab.name, "--yes", status=1, AWS_ENDPOINT_URL=server.url)
    assert "iam:PassRole on resource: arn:aws:iam::1:role/ecs" in result.stderr
    assert lab.specification is None
    run("attach", lab.name, "--yes")
    assert b"/opt/batchreg/" in lab.user_data()


def test_role_that_was_created_again_may_read_the_secret(lab, run, aws):
    """IAM keeps the id of a role, not its name: the policy has to change."""
    lab.make()
    run("attach", lab.name, "--yes")
    manager = aws.client("secretsmanager")
    arn = lab.outputs["RegistrySecretArn"]
    before = manager.get_resource_policy(SecretId=arn)["ResourcePolicy"]
    role = f"{lab.name}-ecs"
    lab.iam.remove_role_from_instance_profile(InstanceProfileName=role, RoleName=role)
    lab.iam.detach_role_policy(
        RoleName=role,
        PolicyArn="arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role",
    )
    lab.iam.delete_role(RoleName=role)
    lab.iam.delete_instance_profile(InstanceProfileName=role)
    lab.role()
    run("attach", lab.name, "--yes")
    assert manager.get_resource_policy(SecretId=arn)["ResourcePolicy"] != before

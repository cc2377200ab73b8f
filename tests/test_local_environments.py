"""UpdateComputeEnvironment in the embedded AWS refuses and does what AWS Batch's does."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloud import USER_DATA, Cloud, eventually
from local_aws import LocalAws

LINKED_ROLE = (
    "arn:aws:iam::123456789012:role/aws-service-role/batch.amazonaws.com/AWSServiceRoleForBatch"
)
ROLE = "arn:aws:iam::123456789012:role/BatchServiceRole"


class Account:
    """An account with an instance profile, a launch template, and environments that use them."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud, self.batch, self.ec2 = cloud, cloud.batch, cloud.ec2
        self.iam = cloud.aws.client("iam")
        self.iam.create_instance_profile(InstanceProfileName="instances")
        self.iam.create_role(
            RoleName="instances", AssumeRolePolicyDocument='{"Version":"2012-10-17","Statement":[]}'
        )
        self.template = self.version()

    def version(self, user_data: str = USER_DATA) -> str:
        """Make the launch template, or another version of it; return its ID."""
        data = {"UserData": base64.b64encode(user_data.encode()).decode()}
        if not hasattr(self, "template"):
            made = self.ec2.create_launch_template(
                LaunchTemplateName="base", LaunchTemplateData=data
            )
            return str(made["LaunchTemplate"]["LaunchTemplateId"])
        self.ec2.create_launch_template_version(
            LaunchTemplateId=self.template, LaunchTemplateData=data
        )
        return self.template

    def environment(self, name: str, *, role: str = "", **resources: Any) -> dict[str, Any]:
        self.batch.create_compute_environment(
            computeEnvironmentName=name,
            type="MANAGED",
            **({"serviceRole": role} if role else {}),
            computeResources={
                "type": "EC2",
                "allocationStrategy": "BEST_FIT_PROGRESSIVE",
                "minvCpus": 0,
                "maxvCpus": 16,
                "instanceTypes": ["m7i"],
                "instanceRole": "instances",
                "subnets": self.cloud.aws.subnet_ids,
                "securityGroupIds": self.cloud.aws.security_group_ids,
                "launchTemplate": {"launchTemplateId": self.template, "version": "$Latest"},
                **resources,
            },
        )
        return self.look(name)

    def look(self, name: str) -> dict[str, Any]:
        found = self.batch.describe_compute_environments(computeEnvironments=[name])
        environment: dict[str, Any] = found["computeEnvironments"][0]
        return environment

    def update(self, name: str, **changes: Any) -> dict[str, Any]:
        """Update an environment's resources, and wait for the end of that."""
        self.batch.update_compute_environment(computeEnvironment=name, computeResources=changes)
        return eventually(lambda: self.look(name), lambda it: it["status"] != "UPDATING")


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with LocalAws() as aws:
        yield Account(Cloud(aws))


def test_an_environment_without_a_role_has_the_linked_one(account: Account) -> None:
    """As Describe shows it on AWS."""
    assert account.environment("linked")["serviceRole"] == LINKED_ROLE


def test_an_update_of_the_infrastructure_takes_a_while(account: Account) -> None:
    """A follower sees UPDATING, and nobody else may update meanwhile."""
    account.environment("slow")
    change = {"computeEnvironment": "slow", "computeResources": {"instanceTypes": ["c7i"]}}
    account.batch.update_compute_environment(**change)
    assert account.look("slow")["status"] == "UPDATING"
    with pytest.raises(ClientError, match="Cannot update, resource is being modified"):
        account.batch.update_compute_environment(**change)
    eventually(lambda: account.look("slow")["status"], lambda status: status == "VALID")


def test_scaling_is_no_update_of_the_infrastructure(account: Account) -> None:
    """Any environment can be scaled at once."""
    account.environment("scaled", role=ROLE, allocationStrategy="BEST_FIT")
    account.batch.update_compute_environment(
        computeEnvironment="scaled", computeResources={"maxvCpus": 32}
    )
    environment = account.look("scaled")
    assert (environment["status"], environment["computeResources"]["maxvCpus"]) == ("VALID", 32)


@pytest.mark.parametrize(
    ("name", "role", "resources"),
    [("own-role", ROLE, {}), ("best-fit", "", {"allocationStrategy": "BEST_FIT"})],
)
def test_an_environment_of_the_old_kind_cannot_be_updated(
    account: Account, name: str, role: str, resources: dict[str, Any]
) -> None:
    """A role of one's own, or BEST_FIT: only a new environment helps."""
    account.environment(name, role=role, **resources)
    with pytest.raises(ClientError, match="can be updated only for Non-fargate Compute Env"):
        account.update(name, launchTemplate={"launchTemplateId": account.template, "version": "1"})


def test_best_fit_may_be_unsaid(account: Account) -> None:
    """An environment whose description has no strategy has BEST_FIT."""
    account.environment("unsaid", allocationStrategy="BEST_FIT_PROGRESSIVE")
    account.batch.create_compute_environment(
        computeEnvironmentName="plain",
        type="MANAGED",
        computeResources={
            key: value
            for key, value in account.look("unsaid")["computeResources"].items()
            if key != "allocationStrategy"
        },
    )
    assert "allocationStrategy" not in account.look("plain")["computeResources"]
    with pytest.raises(ClientError, match="can be updated only for"):
        account.update("plain", instanceTypes=["c7i"])


def test_a_service_role_stays_of_its_kind(account: Account) -> None:
    """A role of one's own cannot be changed for the linked one."""
    account.environment("role", role=ROLE)
    with pytest.raises(ClientError, match="The service role cannot be changed"):
        account.batch.update_compute_environment(computeEnvironment="role", serviceRole=LINKED_ROLE)


def test_a_launch_template_without_overrides_unsets_them(account: Account) -> None:
    """Whoever sends one sends the overrides along."""
    template = {"launchTemplateId": account.template, "version": "1"}
    override = {**template, "targetInstanceTypes": ["m7i.large"]}
    account.environment("overrides", launchTemplate={**template, "overrides": [override]})
    shown = account.look("overrides")["computeResources"]["launchTemplate"]
    assert shown["overrides"] == [override]
    environment = account.update("overrides", launchTemplate=template)
    assert environment["computeResources"]["launchTemplate"] == template


def test_eleven_overrides_are_too_many(account: Account) -> None:
    """Ten is the limit, and each has its instance types."""
    template = {"launchTemplateId": account.template, "version": "1"}
    account.environment("many")
    for count, types, message in ((11, ["m7i"], "at most 10"), (1, [], "targetInstanceTypes")):
        overrides = [{**template, "targetInstanceTypes": types}] * count
        with pytest.raises(ClientError, match=message):
            account.update("many", launchTemplate={**template, "overrides": overrides})


def test_an_empty_id_takes_the_launch_template_away(account: Account) -> None:
    """As the API has it."""
    account.environment("bare")
    environment = account.update("bare", launchTemplate={"launchTemplateId": ""})
    assert "launchTemplate" not in environment["computeResources"]


def test_user_data_that_is_not_mime_makes_it_invalid(account: Account) -> None:
    """The request is accepted; the environment then says what is wrong, and can be helped."""
    account.environment("mime")
    account.version("#!/bin/sh\n")
    latest = {"launchTemplateId": account.template, "version": "$Latest"}
    environment = account.update("mime", launchTemplate=latest)
    assert (environment["status"], environment["statusReason"]) == (
        "INVALID",
        "CLIENT_ERROR - Launch Template UserData is not MIME multipart format",
    )
    environment = account.update("mime", launchTemplate={**latest, "version": "1"})
    assert environment["status"] == "VALID"
    account.version()


def test_the_update_policy_is_shown_and_limited(account: Account) -> None:
    """Half an hour for running jobs, unless it is told otherwise; a week is too long."""
    assert account.environment("policy")["updatePolicy"] == {
        "terminateJobsOnUpdate": False,
        "jobExecutionTimeoutMinutes": 30,
    }
    account.batch.update_compute_environment(
        computeEnvironment="policy", updatePolicy={"jobExecutionTimeoutMinutes": 60}
    )
    assert account.look("policy")["updatePolicy"]["jobExecutionTimeoutMinutes"] == 60
    with pytest.raises(ClientError, match="between 1 and 7200"):
        account.batch.update_compute_environment(
            computeEnvironment="policy", updatePolicy={"jobExecutionTimeoutMinutes": 7201}
        )


def test_an_environment_that_is_updated_cannot_be_deleted(account: Account) -> None:
    """Nor disabled first."""
    account.environment("doomed")
    account.batch.update_compute_environment(
        computeEnvironment="doomed", state="DISABLED", computeResources={"instanceTypes": ["c7i"]}
    )
    with pytest.raises(ClientError, match="Cannot delete, resource is being modified"):
        account.batch.delete_compute_environment(computeEnvironment="doomed")


def test_a_stack_makes_a_policy_for_a_secret_and_for_a_role(account: Account) -> None:
    """Both are read before they are made, and go with the stack."""
    secrets, cloud = account.cloud.secrets, account.cloud
    arn = secrets.create_secret(Name="theirs", SecretString="{}")["ARN"]
    document = {"Version": "2012-10-17", "Statement": []}
    body = {
        "Resources": {
            "ResourcePolicy": {
                "Type": "AWS::SecretsManager::ResourcePolicy",
                "Properties": {"SecretId": arn, "ResourcePolicy": document},
            },
            "RolePolicy": {
                "Type": "AWS::IAM::RolePolicy",
                "Properties": {
                    "RoleName": "instances",
                    "PolicyName": "read",
                    "PolicyDocument": document,
                },
            },
        },
        "Outputs": {"Secret": {"Value": {"Ref": "ResourcePolicy"}}},
    }
    request = {"TemplateBody": json.dumps(body), "Capabilities": ["CAPABILITY_IAM"]}
    cloud.cfn.create_stack(StackName="policies", **request)
    assert cloud.settled("policies")["StackStatus"] == "CREATE_COMPLETE"
    assert cloud.outputs("policies") == {"Secret": arn}
    assert json.loads(secrets.get_resource_policy(SecretId=arn)["ResourcePolicy"]) == document
    shown = account.iam.get_role_policy(RoleName="instances", PolicyName="read")
    assert shown["PolicyDocument"] == document
    cloud.cfn.create_stack(StackName="again", **request)
    assert cloud.settled("again")["StackStatus"] == "ROLLBACK_COMPLETE"
    assert "already exists" in cloud.reasons("again")
    cloud.delete("policies")
    assert "ResourcePolicy" not in secrets.get_resource_policy(SecretId=arn)
    assert account.iam.list_role_policies(RoleName="instances")["PolicyNames"] == []


def test_latest_is_the_version_of_the_last_update(account: Account) -> None:
    """A new version alone reaches no instance."""
    account.environment("latest")

    def user_data() -> str:
        started = account.cloud.aws.work()["environments"]["latest"]
        return base64.b64decode(started["userData"]).decode()

    changed = USER_DATA.replace("HOME", "PATH")
    account.version(changed)
    assert user_data() == USER_DATA
    account.update("latest", instanceTypes=["c7i"])
    assert user_data() == changed
    account.version()


def test_an_override_counts_for_its_instance_types(account: Account) -> None:
    """Others start with the environment's own template."""
    account.version(USER_DATA.replace("HOME", "PATH"))
    template = {"launchTemplateId": account.template, "version": "1"}
    override = {**template, "version": "$Latest", "targetInstanceTypes": ["c7i"]}
    account.environment(
        "types", instanceTypes=["m7i"], launchTemplate={**template, "overrides": [override]}
    )
    for kind, word in (("m7i", "HOME"), ("c7i.large", "PATH")):
        account.update("types", instanceTypes=[kind])
        started = account.cloud.aws.work()["environments"]["types"]
        assert word in base64.b64decode(started["userData"]).decode()
    account.version()


def test_an_environment_that_no_instance_has_joined_is_lost(account: Account) -> None:
    """The second instance that ends before it has joined invalidates it, for good."""
    account.environment("lost")
    for status in ("VALID", "INVALID"):
        account.cloud.aws.lost("lost", "it has ended")
        assert account.look("lost")["status"] == status
    assert "none of the instances joined" in account.look("lost")["statusReason"]
    assert account.update("lost", instanceTypes=["c7i"])["status"] == "INVALID"

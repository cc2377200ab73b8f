"""The embedded AWS's CloudFormation does what AWS's does, as far as this project can tell."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from cloud import Cloud, eventually, template
from local_aws import LocalAws


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    with LocalAws() as aws:
        yield Cloud(aws)


@pytest.fixture(scope="module")
def slow_cloud() -> Iterator[Cloud]:
    with LocalAws(pace=0.1) as aws:
        yield Cloud(aws)


@pytest.fixture(scope="module")
def name(cloud: Cloud) -> str:
    """A stack that no test changes."""
    return cloud.create(Password="pass", MaxvCpus="32")


# What a stack makes


def test_outputs_are_arns(cloud: Cloud, name: str) -> None:
    """Ref of a Batch resource is its ARN, as on AWS."""
    outputs = cloud.outputs(name)
    assert outputs["Queue"] == outputs["QueueArn"]
    assert outputs["Environment"] == outputs["EnvironmentArn"]


def test_batch_describes_what_cloudformation_made(cloud: Cloud, name: str) -> None:
    """Names, lists and numbers arrive in the API's shapes."""
    outputs = cloud.outputs(name)
    assert cloud.environment(name)["computeResources"] == {
        "type": "EC2",
        "allocationStrategy": "BEST_FIT_PROGRESSIVE",
        "maxvCpus": 32,
        "instanceTypes": ["m7i"],
        "instanceRole": outputs["ProfileArn"],
        "subnets": cloud.aws.subnet_ids,
        "securityGroupIds": cloud.aws.security_group_ids,
        "ec2Configuration": [{"imageType": "ECS_AL2023"}],
        "launchTemplate": {"launchTemplateId": outputs["Template"], "version": "1"},
    }


def test_names_say_where_they_come_from(cloud: Cloud, name: str) -> None:
    """A resource without a name gets one from its stack."""
    assert cloud.environment(name)["computeEnvironmentName"].startswith(f"{name}-Environment-")


def test_a_queue_uses_its_environment(cloud: Cloud, name: str) -> None:
    """The queue can be found by its ARN, and leads to the compute environment."""
    outputs = cloud.outputs(name)
    (queue,) = cloud.batch.describe_job_queues(jobQueues=[outputs["Queue"]])["jobQueues"]
    assert queue["computeEnvironmentOrder"] == [
        {"order": 1, "computeEnvironment": outputs["Environment"]}
    ]


def test_a_secret_goes_by_its_arn(cloud: Cloud, name: str) -> None:
    """Ref of a secret is its ARN, as on AWS."""
    arn = cloud.outputs(name)["Secret"]
    assert arn.startswith("arn:aws:secretsmanager:us-east-1:123456789012:secret:")
    assert cloud.secrets.get_secret_value(SecretId=arn)["SecretString"] == '{"password":"pass"}'


def test_an_instance_profile_goes_by_its_name(cloud: Cloud, name: str) -> None:
    """Ref of an instance profile is its name; its Arn is an attribute."""
    outputs = cloud.outputs(name)
    assert outputs["ProfileArn"].endswith(f":instance-profile/{outputs['Profile']}")


def test_sub_keeps_literals(cloud: Cloud, name: str) -> None:
    """A shell script in user data may have variables of its own."""
    outputs = cloud.outputs(name)
    (version,) = cloud.ec2.describe_launch_template_versions(LaunchTemplateId=outputs["Template"])[
        "LaunchTemplateVersions"
    ]
    user_data = base64.b64decode(version["LaunchTemplateData"]["UserData"]).decode()
    assert f"echo ${{HOME}} {outputs['Secret']}" in user_data


def test_conditions_leave_resources_out(cloud: Cloud, name: str) -> None:
    """A condition may join a list."""
    assert "Unwanted" not in {resource for resource, _ in cloud.events(name)}


def test_events_come_in_order(cloud: Cloud, name: str) -> None:
    """A follower sees a resource start before it is complete, within one millisecond too."""
    events = [status for resource, status in cloud.events(name) if resource == "Queue"]
    assert events == ["CREATE_IN_PROGRESS", "CREATE_IN_PROGRESS", "CREATE_COMPLETE"]


def test_events_carry_their_requests_token(cloud: Cloud) -> None:
    """A follower tells the events of its own operation by the token."""
    name = cloud.create(Subnets="subnet-x")
    identity = cloud.stack(name)["StackId"]
    cloud.cfn.delete_stack(StackName=name, ClientRequestToken="mine")
    cloud.settled(identity)
    events = cloud.cfn.describe_stack_events(StackName=identity)["StackEvents"]
    assert [e["ResourceStatus"] for e in events if e.get("ClientRequestToken") == "mine"] == [
        "DELETE_COMPLETE",
        "DELETE_IN_PROGRESS",
    ]


def test_a_job_definition_updates_to_a_revision(cloud: Cloud) -> None:
    """Job definitions cannot be changed: the next revision takes over."""
    body = {
        "Resources": {
            "Job": {
                "Type": "AWS::Batch::JobDefinition",
                "Properties": {
                    "Type": "container",
                    "ContainerProperties": {"Image": "ghcr.io/a", "Vcpus": "1", "Memory": 512},
                },
            }
        },
        "Outputs": {"Job": {"Value": {"Ref": "Job"}}},
    }
    plain = {"TemplateBody": json.dumps(body), "StackName": "definition"}
    cloud.cfn.create_stack(**plain)
    cloud.settled("definition")
    plain["TemplateBody"] = plain["TemplateBody"].replace("512", "1024")
    cloud.cfn.update_stack(**plain)
    cloud.settled("definition")
    arn = cloud.outputs("definition")["Job"]
    definitions = cloud.batch.describe_job_definitions(
        jobDefinitionName=arn.split("/")[1].split(":")[0]
    )["jobDefinitions"]
    assert [(d["revision"], d["status"]) for d in definitions] == [(1, "INACTIVE"), (2, "ACTIVE")]
    assert arn == definitions[1]["jobDefinitionArn"]


def test_fargate_needs_no_instances(cloud: Cloud) -> None:
    """A Fargate environment has a network and a limit, and that is all."""
    body = template(
        Environment__ComputeResources={
            "Type": "FARGATE",
            "MaxvCpus": 4,
            "Subnets": {"Ref": "Subnets"},
            "SecurityGroupIds": {"Ref": "Groups"},
        }
    )
    assert cloud.stack(cloud.create(body))["StackStatus"] == "CREATE_COMPLETE"


# Updates


def test_a_new_launch_template_version_reaches_the_environment(cloud: Cloud) -> None:
    """New user data reaches the instances without a new compute environment."""
    name = cloud.create()
    before = cloud.outputs(name)
    cloud.update(name, Label="b")
    assert cloud.environment(name)["computeResources"]["launchTemplate"]["version"] == "2"
    assert cloud.outputs(name) == before


def test_a_new_password_keeps_the_secret(cloud: Cloud) -> None:
    """Instances and job definitions that know the ARN go on working."""
    name = cloud.create()
    arn = cloud.outputs(name)["Secret"]
    cloud.update(name, Password="new")
    assert cloud.outputs(name)["Secret"] == arn
    assert cloud.secrets.get_secret_value(SecretId=arn)["SecretString"] == '{"password":"new"}'


def test_an_update_tells_of_changes_only(cloud: Cloud) -> None:
    """What does not change has no events."""
    name = cloud.create()
    before = len(cloud.events(name))
    cloud.update(name, Password="new")
    assert {resource for resource, _ in cloud.events(name)[before:]} == {name, "Secret"}


def test_tags_replace_an_environment(cloud: Cloud) -> None:
    """Tags are create-only: another environment takes over, and the old one goes."""
    name = cloud.create()
    old = cloud.outputs(name)["Environment"]
    cloud.update(name, template(Environment__Tags={"a": "b"}))
    (queue,) = cloud.batch.describe_job_queues(jobQueues=[cloud.outputs(name)["Queue"]])[
        "jobQueues"
    ]
    assert queue["computeEnvironmentOrder"][0]["computeEnvironment"] != old
    assert not cloud.batch.describe_compute_environments(computeEnvironments=[old])[
        "computeEnvironments"
    ]


def test_a_failed_update_goes_back(cloud: Cloud) -> None:
    """What has been updated before the failure is as it was, and still there."""
    name = cloud.create()
    stack = cloud.update(
        name,
        template(
            Queue__JobStateTimeLimitActions=[
                {"Action": "CANCEL", "MaxTimeSeconds": 5, "Reason": "R", "State": "RUNNABLE"}
            ]
        ),
        MaxvCpus="64",
        Password="new",
    )
    secret = cloud.secrets.get_secret_value(SecretId=cloud.outputs(name)["Secret"])
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert cloud.environment(name)["computeResources"]["maxvCpus"] == 16
    assert secret["SecretString"] == '{"password":"hunter2"}'


def test_a_change_set_marks_replacements(cloud: Cloud) -> None:
    """A replacement is what a user wants to know before."""
    name = cloud.create()
    changes = cloud.change_set(name, template(Queue__Tags={"a": "b"}))["Changes"]
    assert [
        (c["ResourceChange"]["LogicalResourceId"], c["ResourceChange"]["Replacement"])
        for c in changes
    ] == [("Queue", "True")]


def test_a_change_set_shows_what_depends_on_a_change(cloud: Cloud) -> None:
    """A new launch template version changes the compute environment, too."""
    name = cloud.create()
    changes = cloud.change_set(name, Label="b")["Changes"]
    assert {"Environment", "Template"} <= {
        c["ResourceChange"]["LogicalResourceId"] for c in changes
    }


def test_a_change_set_leaves_out_what_conditions_leave_out(cloud: Cloud) -> None:
    """The table before a deployment shows what will be there afterwards."""
    changes = cloud.change_set("review", kind="CREATE")["Changes"]
    assert "Unwanted" not in {c["ResourceChange"]["LogicalResourceId"] for c in changes}


def test_a_change_set_without_changes_fails(cloud: Cloud, name: str) -> None:
    """Deploying the same again is told apart by these words."""
    change_set = cloud.change_set(name, Password="pass", MaxvCpus="32")
    assert (change_set["Status"], change_set["ExecutionStatus"]) == ("FAILED", "UNAVAILABLE")
    assert "didn't contain changes" in change_set["StatusReason"]


def test_a_change_set_can_be_discarded(cloud: Cloud) -> None:
    """A change set that is not wanted goes, and so does the stack that it was made for."""
    cloud.change_set("draft", kind="CREATE")
    cloud.cfn.delete_change_set(StackName="draft", ChangeSetName="change")
    assert cloud.cfn.list_change_sets(StackName="draft")["Summaries"] == []
    assert cloud.delete("draft")["StackStatus"] == "DELETE_COMPLETE"


def test_another_output_is_a_change(cloud: Cloud) -> None:
    """A release may add nothing but an output."""
    name, body = cloud.create(), template()
    body["Outputs"]["More"] = {"Value": "more"}
    assert cloud.change_set(name, body)["Status"] == "CREATE_COMPLETE"


# Secrets


def test_a_change_set_masks_secrets(cloud: Cloud) -> None:
    """NoEcho values are visible nowhere."""
    parameters = cloud.change_set("masked", kind="CREATE")["Parameters"]
    assert {"ParameterKey": "Password", "ParameterValue": "****"} in parameters


def test_a_stack_masks_secrets(cloud: Cloud, name: str) -> None:
    """NoEcho values are visible nowhere."""
    parameters = cloud.stack(name)["Parameters"]
    assert {"ParameterKey": "Password", "ParameterValue": "****"} in parameters


# Refusals


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"Url": "ghcr.io"}, "Parameter Url failed to satisfy constraint: A URL, please."),
        ({"Label": "A"}, r"Parameter 'Label' must match pattern \[a-z\]\*"),
        ({"Label": "abcdefghi"}, "Parameter 'Label' must contain at most 8 characters"),
        ({"Password": ""}, "Parameter 'Password' must contain at least 1 characters"),
        ({"Size": "29"}, "Parameter 'Size' must be a number not less than 30"),
        ({"Size": "101"}, "Parameter 'Size' must be a number not greater than 100"),
        ({"Model": "GPU"}, "Parameter 'Model' must be one of AllowedValues"),
        ({"Colour": "red"}, r"Parameters: \[Colour\] do not exist in the template"),
    ],
)
def test_refuses_parameters(cloud: Cloud, parameters: dict[str, str], message: str) -> None:
    """A parameter is refused before anything is made."""
    with pytest.raises(ClientError, match=message):
        cloud.create(**parameters)


def test_refuses_a_missing_parameter(cloud: Cloud) -> None:
    """What has no default must be given."""
    with pytest.raises(ClientError, match=r"Parameters: \[Password, Subnets\] must have values"):
        cloud.cfn.create_stack(
            StackName="bare", TemplateBody=json.dumps(template()), Capabilities=["CAPABILITY_IAM"]
        )


def test_a_refused_change_set_leaves_no_stack(cloud: Cloud) -> None:
    """A stack in REVIEW_IN_PROGRESS has a change set."""
    with pytest.raises(ClientError, match="do not exist in the template"):
        cloud.change_set("nothing", kind="CREATE", Colour="red")
    with pytest.raises(ClientError, match="Stack with id nothing does not exist"):
        cloud.stack("nothing")


@pytest.mark.parametrize("call", ["create_stack", "update_stack", "create_change_set"])
def test_refuses_roles_without_a_capability(cloud: Cloud, name: str, call: str) -> None:
    """Whoever makes roles says so."""
    request = {
        **cloud.request(name if "update" in call else "roles", template(), {}),
        "Capabilities": [],
        **({"ChangeSetName": "c", "ChangeSetType": "CREATE"} if "change" in call else {}),
    }
    with pytest.raises(ClientError) as refusal:
        getattr(cloud.cfn, call)(**request)
    assert refusal.value.response["Error"] == {
        "Type": "Sender",
        "Code": "InsufficientCapabilitiesException",
        "Message": "Requires capabilities : [CAPABILITY_IAM]",
    }


def test_refuses_a_large_template(cloud: Cloud) -> None:
    """A template body has at most 51,200 bytes."""
    body = json.dumps({**template(), "Description": "é" * 25_600}, ensure_ascii=False)
    with pytest.raises(ClientError, match="length less than or equal to 51200"):
        cloud.create(body)


def test_refuses_unresolved_references(cloud: Cloud) -> None:
    """A `${` in user data that should be `${!` is found."""
    body = template(Secret__Description={"Fn::Sub": "${HOME}"})
    with pytest.raises(ClientError, match=r"Unresolved resource dependencies \[HOME\]"):
        cloud.create(body)


@pytest.mark.parametrize(
    ("body", "parameters", "message"),
    [
        (template(), {"Subnets": "subnet-x"}, "The subnet ID 'subnet-x' does not exist"),
        (template(), {"Groups": "sg-x"}, "The security group 'sg-x' does not exist"),
        (
            template(Template__LaunchTemplateData__UserData={"Fn::Base64": "#!/bin/sh"}),
            {},
            "Launch Template UserData is not MIME multipart format",
        ),
        (
            template(Template__LaunchTemplateData__UserData="#!/bin/sh"),
            {},
            "Invalid BASE64 encoding",
        ),
        (
            template(Template__LaunchTemplateData__UserData={"Fn::Base64": "x" * 16_385}),
            {},
            "User data is limited to 16384 bytes",
        ),
        (
            template(Environment__ComputeResources__InstanceRole="nobody"),
            {},
            "Invalid IamInstanceProfile: nobody",
        ),
        (
            template(Environment__ComputeResources__Colour="red"),
            {},
            "extraneous key [Colour] is not permitted",
        ),
        (template(Environment__ComputeResources__Type="GPU"), {}, "GPU is not a valid enum value"),
        (template(Environment__ComputeResources__MaxvCpus="many"), {}, "expected type: Integer"),
        (
            template(Queue__ComputeEnvironmentOrder=[{"ComputeEnvironment": "none", "Order": 1}]),
            {},
            "Object does not exist: none",
        ),
        (
            template(Secret__Description={"Fn::GetAtt": ["Role", "Colour"]}),
            {},
            "Requested attribute Colour does not exist in schema for AWS::IAM::Role",
        ),
    ],
)
def test_a_stack_with_a_mistake_rolls_back(
    cloud: Cloud, body: dict[str, Any], parameters: dict[str, str], message: str
) -> None:
    """What AWS finds out while it makes a resource, it says in that resource's event."""
    name = cloud.create(copy.deepcopy(body), **parameters)
    assert cloud.stack(name)["StackStatus"] == "ROLLBACK_COMPLETE"
    assert message in cloud.reasons(name)


def test_an_update_checks_user_data(cloud: Cloud) -> None:
    """Plain user data would make the compute environment INVALID at the update as well."""
    name = cloud.create()
    stack = cloud.update(
        name, template(Template__LaunchTemplateData__UserData={"Fn::Base64": "#!/bin/sh"})
    )
    assert stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert "UserData is not MIME multipart format" in cloud.reasons(name)


# Deleting


def test_an_environment_in_use_does_not_go(cloud: Cloud) -> None:
    """Somebody's own queue on the stack's compute environment blocks the deletion."""
    name = cloud.create()
    cloud.batch.create_job_queue(
        jobQueueName="own",
        priority=1,
        computeEnvironmentOrder=[
            {"order": 1, "computeEnvironment": cloud.outputs(name)["Environment"]}
        ],
    )
    stack = cloud.delete(name)
    assert stack["StackStatus"] == "DELETE_FAILED"
    assert "failed to delete: [Environment]" in stack["StackStatusReason"]
    assert "Cannot delete, found existing JobQueue relationship" in cloud.reasons(name)
    cloud.batch.update_job_queue(jobQueue="own", state="DISABLED")
    cloud.batch.delete_job_queue(jobQueue="own")
    assert cloud.delete(name)["StackStatus"] == "DELETE_COMPLETE"


def test_a_stuck_resource_can_be_left_behind(cloud: Cloud) -> None:
    """A stack in DELETE_FAILED goes when it retains what does not."""
    name = cloud.create()
    environment = cloud.environment(name)
    cloud.batch.create_job_queue(
        jobQueueName="other",
        priority=1,
        computeEnvironmentOrder=[
            {"order": 1, "computeEnvironment": environment["computeEnvironmentArn"]}
        ],
    )
    identity = cloud.delete(name)["StackId"]
    cloud.cfn.delete_stack(StackName=name, RetainResources=["Environment"])
    assert cloud.settled(identity)["StackStatus"] == "DELETE_COMPLETE"
    assert cloud.batch.describe_compute_environments(
        computeEnvironments=[environment["computeEnvironmentName"]]
    )["computeEnvironments"]


def test_deletes_everything(cloud: Cloud) -> None:
    """No secret and no compute environment stays behind."""
    name = cloud.create()
    outputs = cloud.outputs(name)
    cloud.delete(name)
    with pytest.raises(ClientError, match="can't find the specified secret"):
        cloud.secrets.get_secret_value(SecretId=outputs["Secret"])
    assert not cloud.batch.describe_compute_environments(
        computeEnvironments=[outputs["Environment"]]
    )["computeEnvironments"]


def test_a_deleted_name_is_unknown(cloud: Cloud) -> None:
    """A deleted stack has its ID only."""
    name = cloud.create()
    identity = cloud.delete(name)["StackId"]
    with pytest.raises(ClientError, match=f"Stack with id {name} does not exist"):
        cloud.stack(name)
    with pytest.raises(ClientError, match="does not exist"):
        cloud.events(name)
    assert cloud.events(identity)[-1] == (name, "DELETE_COMPLETE")


def test_a_deleted_name_is_free(cloud: Cloud) -> None:
    """The new stack has the name, the old one keeps its history."""
    name = cloud.create()
    identity = cloud.delete(name)["StackId"]
    cloud.cfn.create_stack(**cloud.request(name, template(), {}))
    assert cloud.settled(name)["StackStatus"] == "CREATE_COMPLETE"
    assert cloud.stack(identity)["StackStatus"] == "DELETE_COMPLETE"


def test_protection_keeps_a_stack(cloud: Cloud) -> None:
    """Termination protection is shown and obeyed."""
    name = cloud.create()
    cloud.cfn.update_termination_protection(StackName=name, EnableTerminationProtection=True)
    assert cloud.stack(name)["EnableTerminationProtection"]
    with pytest.raises(ClientError, match="TerminationProtection is enabled"):
        cloud.cfn.delete_stack(StackName=name)


def test_a_rolled_back_stack_can_only_be_deleted(cloud: Cloud) -> None:
    """ROLLBACK_COMPLETE is a dead end."""
    name = cloud.create(Subnets="subnet-x")
    for kind, message in (
        ("UPDATE", "is in ROLLBACK_COMPLETE state and can not be updated"),
        ("CREATE", "already exists and cannot be created again"),
    ):
        with pytest.raises(ClientError, match=message):
            cloud.change_set(name, kind=kind)


# Time


def test_events_arrive_one_after_the_other(slow_cloud: Cloud) -> None:
    """With a pace, a follower sees the stack grow, and the server answers meanwhile."""
    request = slow_cloud.request("slow", template(), {})
    slow_cloud.cfn.create_stack(**request)
    seen = set()

    def look() -> str:
        seen.add(len(slow_cloud.events("slow")))
        status: str = slow_cloud.stack("slow")["StackStatus"]
        return status

    assert eventually(look, lambda status: "IN_PROGRESS" not in status) == "CREATE_COMPLETE"
    assert len(seen) > 4


def test_a_failure_cancels_what_is_under_way(slow_cloud: Cloud) -> None:
    """The root cause is one event among those of cancelled resources."""
    name = slow_cloud.create(template(Template__LaunchTemplateData__UserData="?"))
    assert "Resource creation cancelled" in slow_cloud.reasons(name)


def test_a_change_set_takes_its_time(slow_cloud: Cloud) -> None:
    """A change set is not ready at once."""
    assert slow_cloud.change_set("wait", kind="CREATE")["Status"] == "CREATE_IN_PROGRESS"
    eventually(
        lambda: slow_cloud.cfn.describe_change_set(StackName="wait", ChangeSetName="change"),
        lambda change_set: change_set["Status"] == "CREATE_COMPLETE",
    )


def test_a_creation_can_be_interrupted(slow_cloud: Cloud) -> None:
    """Deleting a stack that is being created leaves nothing behind."""
    slow_cloud.cfn.create_stack(**slow_cloud.request("stopped", template(), {}))
    eventually(
        lambda: slow_cloud.events("stopped"), lambda events: ("Secret", "CREATE_COMPLETE") in events
    )
    assert slow_cloud.delete("stopped")["StackStatus"] == "DELETE_COMPLETE"
    secrets = slow_cloud.secrets.list_secrets()["SecretList"]
    assert not [secret for secret in secrets if "stopped" in secret["Name"]]


def test_an_update_cannot_be_deleted(slow_cloud: Cloud) -> None:
    """A stack that is being updated has to settle first."""
    name = slow_cloud.create()
    slow_cloud.cfn.update_stack(**slow_cloud.request(name, template(), {"Label": "b"}))
    with pytest.raises(ClientError, match="cannot be deleted while in status UPDATE_IN_PROGRESS"):
        slow_cloud.cfn.delete_stack(StackName=name)

"""`batchreg rotate --now` and --follow: running instances are asked to refresh."""

from __future__ import annotations

from dataclasses import dataclass

import boto3
import pytest
from botocore.stub import ANY, Stubber

from batchreg.cli import rotate as rotate_command
from batchreg.cli.console import TextScreen
from batchreg.stack import rotate
from batchreg.stack.states import Stack


@dataclass
class Stubbed:
    """AWS's clients with scripted answers."""

    stubs: dict[str, Stubber]

    def __init__(self, *services: str) -> None:
        self.stubs = {}
        for service in services:
            client = boto3.client(
                service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
            )
            self.stubs[service] = Stubber(client)
            self.stubs[service].activate()

    def client(self, service: str):
        return self.stubs[service].client

    def answer(self, service: str, operation: str, answer: dict, request: dict) -> None:
        self.stubs[service].add_response(operation, answer, request)


ARN = "arn:aws:batch:us-east-1:123456789012:compute-environment/x"
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/x"
PRESENT = Stack(
    "lab", "id", "UPDATE_COMPLETE", "", {}, {"ComputeEnvironmentArn": ARN}, {}, None, False
)


@pytest.fixture
def fleet():
    """Three instances, of which Systems Manager reaches two."""
    aws = Stubbed("batch", "ecs", "ssm")
    aws.answer(
        "batch",
        "describe_compute_environments",
        {
            "computeEnvironments": [
                {
                    "computeEnvironmentName": "x",
                    "computeEnvironmentArn": ARN,
                    "ecsClusterArn": CLUSTER,
                }
            ]
        },
        {"computeEnvironments": [ARN]},
    )
    arns = [f"{CLUSTER}/{number}" for number in range(3)]
    aws.answer(
        "ecs", "list_container_instances", {"containerInstanceArns": arns}, {"cluster": CLUSTER}
    )
    aws.answer(
        "ecs",
        "describe_container_instances",
        {"containerInstances": [{"ec2InstanceId": f"i-{number}"} for number in range(3)]},
        {"cluster": CLUSTER, "containerInstances": arns},
    )
    return aws


def reach(aws: Stubbed, **statuses: str) -> None:
    aws.answer(
        "ssm",
        "describe_instance_information",
        {
            "InstanceInformationList": [
                {"InstanceId": f"i-{name[1:]}", "PingStatus": status}
                for name, status in statuses.items()
            ]
        },
        {},
    )


def sent(aws: Stubbed, *ids: str) -> None:
    aws.answer(
        "ssm",
        "send_command",
        {"Command": {"CommandId": "c" * 36}},
        {
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": list(ids),
            "Comment": ANY,
            "Parameters": {"commands": [rotate.REFRESH]},
        },
    )


def listed(aws: Stubbed, **statuses: str) -> None:
    aws.answer(
        "ssm",
        "list_command_invocations",
        {
            "CommandInvocations": [
                {"InstanceId": f"i-{name[1:]}", "Status": status}
                for name, status in statuses.items()
            ]
        },
        {"CommandId": "c" * 36},
    )


def test_now_asks_those_that_can_be_reached_and_names_the_timer_for_the_rest(fleet, capsys):
    """The unit is started, so that two refreshes never run at a time."""
    reach(fleet, i0="Online", i1="ConnectionLost", i2="Online", i9="Online")
    sent(fleet, "i-0", "i-2")
    told = rotate_command._refresh(fleet, PRESENT, TextScreen(), False)
    assert told == {"i-0": "Asked", "i-2": "Asked"}
    assert "reaches 2 of 3 instances; the others wait for their timer" in capsys.readouterr().err


def test_now_without_systems_manager_falls_back_to_the_timer(fleet, capsys):
    """As on instances without the policy for it."""
    reach(fleet)
    assert rotate_command._refresh(fleet, PRESENT, TextScreen(), True) == {}
    assert "reaches 0 of 3 instances" in capsys.readouterr().err


def test_now_without_permission_falls_back_to_the_timer(fleet, capsys):
    """The password is current by then, so nothing has failed."""
    fleet.stubs["ssm"].add_client_error("describe_instance_information", "AccessDeniedException")
    assert rotate_command._refresh(fleet, PRESENT, TextScreen(), False) == {}
    assert "The instances wait for their timer." in capsys.readouterr().err


def test_follow_waits_until_all_have_reported():
    """Systems Manager lists an instance only a while after it was asked."""
    aws, pauses = Stubbed("ssm"), []
    listed(aws)
    listed(aws, i0="Success")
    listed(aws, i0="Success", i2="InProgress")
    listed(aws, i0="Success", i2="Failed")
    found = rotate.reported(aws.client("ssm"), ["c" * 36], ["i-0", "i-2"], sleep=pauses.append)
    assert (found, pauses) == ({"i-0": "Success", "i-2": "Failed"}, [0.2, 0.4, 0.8])


def test_follow_ends_where_an_instance_never_reports():
    """It was terminated, say."""
    aws, pauses = Stubbed("ssm"), []
    for _ in range(10):
        listed(aws, i0="Success")
    found = rotate.reported(
        aws.client("ssm"), ["c" * 36], ["i-0", "i-2"], sleep=pauses.append, patience_seconds=10
    )
    assert found == {"i-0": "Success", "i-2": "No answer"}
    assert sum(pauses) >= 10


def test_environment_without_instances_has_none_to_ask():
    """Batch makes the cluster with the environment, and it may be gone."""
    aws = Stubbed("batch", "ecs")
    aws.answer(
        "batch",
        "describe_compute_environments",
        {"computeEnvironments": []},
        {"computeEnvironments": [ARN]},
    )
    assert rotate.instances(aws.client("batch"), aws.client("ecs"), ARN) == []


def test_more_instances_than_one_call_takes_are_asked_by_several():
    """Fifty a command."""
    aws = Stubbed("ssm")
    ids = [f"i-{number:017}" for number in range(120)]
    for start in (0, 50, 100):
        sent(aws, *ids[start : start + 50])
    assert len(rotate.refresh(aws.client("ssm"), ids)) == 3

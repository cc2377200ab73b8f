"""The embedded AWS as its own tests speak to it: small stacks, and their states."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from typing import Any, TypeVar

from local_aws import LocalAws

T = TypeVar("T")
USER_DATA = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==PART=="

--==PART==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/sh
echo ${!HOME} ${Secret}

--==PART==--
"""


def template(**changes: Any) -> dict[str, Any]:
    """Return a small stack; changes go to resources' properties, `Name__Property=value`."""
    body: dict[str, Any] = {
        "Parameters": {
            "Password": {"Type": "String", "NoEcho": True, "MinLength": 1},
            "Url": {
                "Type": "String",
                "Default": "https://ghcr.io",
                "AllowedPattern": "https://.+",
                "ConstraintDescription": "A URL, please.",
            },
            "Size": {"Type": "Number", "Default": 30, "MinValue": 30, "MaxValue": 100},
            "Label": {"Type": "String", "Default": "a", "AllowedPattern": "[a-z]*", "MaxLength": 8},
            "Model": {"Type": "String", "Default": "EC2", "AllowedValues": ["EC2", "SPOT"]},
            "Subnets": {"Type": "List<AWS::EC2::Subnet::Id>"},
            "Groups": {"Type": "CommaDelimitedList", "Default": "sg-00000001"},
            "MaxvCpus": {"Type": "Number", "Default": 16},
        },
        "Conditions": {
            "Never": {"Fn::Equals": [{"Fn::Join": ["", {"Ref": "Groups"}]}, ""]},
            "Spot": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Model"}, "EC2"]}]},
        },
        "Resources": {
            "Secret": {
                "Type": "AWS::SecretsManager::Secret",
                "Properties": {
                    "SecretString": {"Fn::Join": ["", ['{"password":"', {"Ref": "Password"}, '"}']]}
                },
            },
            "Role": {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": {}}},
            "Profile": {
                "Type": "AWS::IAM::InstanceProfile",
                "Properties": {"Roles": [{"Ref": "Role"}]},
            },
            "Template": {
                "Type": "AWS::EC2::LaunchTemplate",
                "Properties": {
                    "LaunchTemplateData": {
                        "UserData": {"Fn::Base64": {"Fn::Sub": USER_DATA}},
                        "KeyName": {"Ref": "Label"},
                    }
                },
            },
            "Environment": {
                "Type": "AWS::Batch::ComputeEnvironment",
                "Properties": {
                    "Type": "MANAGED",
                    "ReplaceComputeEnvironment": False,
                    "ComputeResources": {
                        "Type": "EC2",
                        "AllocationStrategy": "BEST_FIT_PROGRESSIVE",
                        "MaxvCpus": {"Ref": "MaxvCpus"},
                        "InstanceTypes": ["m7i"],
                        "InstanceRole": {"Fn::GetAtt": ["Profile", "Arn"]},
                        "Subnets": {"Ref": "Subnets"},
                        "SecurityGroupIds": {"Ref": "Groups"},
                        "Ec2Configuration": [{"ImageType": "ECS_AL2023"}],
                        "LaunchTemplate": {
                            "LaunchTemplateId": {"Ref": "Template"},
                            "Version": {"Fn::GetAtt": ["Template", "LatestVersionNumber"]},
                        },
                    },
                },
            },
            "Queue": {
                "Type": "AWS::Batch::JobQueue",
                "Properties": {
                    "Priority": 1,
                    "ComputeEnvironmentOrder": [
                        {"ComputeEnvironment": {"Ref": "Environment"}, "Order": 1}
                    ],
                },
            },
            "Unwanted": {
                "Type": "AWS::Batch::JobQueue",
                "Condition": "Never",
                "Properties": {"Priority": 1},
            },
        },
        "Outputs": {
            "Secret": {"Value": {"Ref": "Secret"}},
            "Profile": {"Value": {"Ref": "Profile"}},
            "ProfileArn": {"Value": {"Fn::GetAtt": ["Profile", "Arn"]}},
            "Template": {"Value": {"Ref": "Template"}},
            "Environment": {"Value": {"Ref": "Environment"}},
            "EnvironmentArn": {"Value": {"Fn::GetAtt": ["Environment", "ComputeEnvironmentArn"]}},
            "Queue": {"Value": {"Ref": "Queue"}},
            "QueueArn": {"Value": {"Fn::GetAtt": ["Queue", "JobQueueArn"]}},
        },
    }
    for path, value in changes.items():
        resource, *keys, last = path.split("__")
        properties = body["Resources"][resource]["Properties"]
        for key in keys:
            properties = properties[key]
        properties[last] = value
    return body


class Cloud:
    """CloudFormation as these tests speak to it."""

    def __init__(self, aws: LocalAws) -> None:
        self.aws = aws
        self.cfn, self.batch = aws.client("cloudformation"), aws.client("batch")
        self.secrets, self.ec2 = aws.client("secretsmanager"), aws.client("ec2")
        self.numbers = itertools.count()

    def request(self, name: str, body: Any, parameters: dict[str, str]) -> dict[str, Any]:
        parameters = {"Password": "hunter2", "Subnets": ",".join(self.aws.subnet_ids), **parameters}
        return {
            "StackName": name,
            "TemplateBody": body if isinstance(body, str) else json.dumps(body),
            "Capabilities": ["CAPABILITY_IAM"],
            "Parameters": [
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
        }

    def create(self, body: Any = None, **parameters: str) -> str:
        name = f"stack{next(self.numbers)}"
        self.cfn.create_stack(**self.request(name, body or template(), parameters))
        self.settled(name)
        return name

    def update(self, name: str, body: Any = None, **parameters: str) -> dict[str, Any]:
        self.cfn.update_stack(**self.request(name, body or template(), parameters))
        return self.settled(name)

    def change_set(
        self, name: str, body: Any = None, kind: str = "UPDATE", **parameters: str
    ) -> dict[str, Any]:
        request = self.request(name, body or template(), parameters)
        self.cfn.create_change_set(**request, ChangeSetName="change", ChangeSetType=kind)
        description: dict[str, Any] = self.cfn.describe_change_set(
            StackName=name, ChangeSetName="change"
        )
        return description

    def delete(self, name: str) -> dict[str, Any]:
        identity = self.stack(name)["StackId"]
        self.cfn.delete_stack(StackName=name)
        return self.settled(identity)

    def stack(self, name: str) -> dict[str, Any]:
        described: dict[str, Any] = self.cfn.describe_stacks(StackName=name)["Stacks"][0]
        return described

    def settled(self, name: str) -> dict[str, Any]:
        return eventually(
            lambda: self.stack(name), lambda stack: "IN_PROGRESS" not in stack["StackStatus"]
        )

    def outputs(self, name: str) -> dict[str, str]:
        return {o["OutputKey"]: o["OutputValue"] for o in self.stack(name)["Outputs"]}

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return (resource, status) of all events, oldest first."""
        events = self.cfn.describe_stack_events(StackName=name)["StackEvents"]
        return [(e["LogicalResourceId"], e["ResourceStatus"]) for e in reversed(events)]

    def reasons(self, name: str) -> str:
        events = self.cfn.describe_stack_events(StackName=name)["StackEvents"]
        return "\n".join(e.get("ResourceStatusReason", "") for e in events)

    def environment(self, name: str) -> dict[str, Any]:
        arn = self.outputs(name)["Environment"]
        found = self.batch.describe_compute_environments(computeEnvironments=[arn])
        environment: dict[str, Any] = found["computeEnvironments"][0]
        return environment


def eventually(look: Callable[[], T], enough: Callable[[T], bool]) -> T:
    deadline = time.monotonic() + 5
    while not enough(seen := look()):
        assert time.monotonic() < deadline, seen
        time.sleep(0.01)
    return seen

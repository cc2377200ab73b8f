"""A copy of an environment that AWS Batch cannot update in place."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import cfnlint
import pytest
from attach_environments import answer

from batchreg.attach import blue_green, environment
from batchreg.errors import BatchregError

DECIDED = blue_green.DROPPED | blue_green.DROPPED_WITH_NOTE | blue_green.ELSEWHERE


def answer_paths() -> set[str]:
    """Return what DescribeComputeEnvironments can answer with."""

    def walk(shape: Any, path: str) -> Iterator[str]:
        if shape.type_name == "structure":
            for name, member in shape.members.items():
                yield from walk(member, f"{path}.{name}".lstrip("."))
        elif shape.type_name == "list":
            yield from walk(shape.member, f"{path}[]")
        else:
            yield path

    model = botocore.session.get_session().get_service_model("batch")
    return set(walk(model.shape_for("ComputeEnvironmentDetail"), ""))


def schema_paths() -> set[str]:
    """Return what CloudFormation's schema of AWS::Batch::ComputeEnvironment takes."""
    schemas = Path(cfnlint.__file__).parent / "data/schemas"
    names = json.loads((schemas / "providers/us-east-1.json").read_text())
    schema = json.loads(
        (schemas / "resources" / f"{names['AWS::Batch::ComputeEnvironment']}.json").read_text()
    )

    def walk(node: dict[str, Any], path: str) -> Iterator[str]:
        while "$ref" in node:
            node = schema["definitions"][node["$ref"].rpartition("/")[2]]
        if "properties" in node:
            for name, member in node["properties"].items():
                yield from walk(member, f"{path}.{name}".lstrip("."))
        elif node.get("type") == "array":
            yield from walk(node["items"], f"{path}[]")
        else:
            yield path

    return set(walk(schema, ""))


def as_cloudformation(path: str) -> str:
    return ".".join(name[0].upper() + name[1:] for name in path.split("."))


def is_decided(path: str) -> bool:
    return any(path == rule or path.startswith((f"{rule}.", f"{rule}[]")) for rule in DECIDED)


def test_every_field_of_an_environment_is_decided():
    """Only the case of the first letter differs."""
    assert {
        path
        for path in answer_paths()
        if not is_decided(path) and as_cloudformation(path) not in schema_paths()
    } == set()


def test_every_rule_is_about_a_field_that_exists():
    """A rule for a field that AWS has renamed would lose it."""
    for rule in DECIDED | blue_green.MAPS:
        assert any(
            path == rule or path.startswith((f"{rule}.", f"{rule}[")) for path in answer_paths()
        ), rule


def test_copy_has_the_same_network_sizes_and_tags():
    """Jobs should not notice."""
    copied = blue_green.copy(
        answer(
            resources={
                "tags": {"aws:batch:x": "y", "team": "lab"},
                "launchTemplate": {"launchTemplateId": "lt-1"},
                "ec2Configuration": [{"imageType": "ECS_AL2023", "batchImageStatus": "LATEST"}],
                "scalingPolicy": {"minScaleDownDelayMinutes": 20},
            },
            tags={"aws:cloudformation:stack-name": "lab", "team": "lab"},
            uuid="1",
            updatePolicy={"terminateJobsOnUpdate": True, "jobExecutionTimeoutMinutes": 90},
        )
    )
    assert copied.notes == ()
    assert copied.properties == {
        "Type": "MANAGED",
        "State": "ENABLED",
        "ReplaceComputeEnvironment": False,
        "UpdatePolicy": {"TerminateJobsOnUpdate": True, "JobExecutionTimeoutMinutes": 90},
        "Tags": {"team": "lab"},
        "ComputeResources": {
            "Type": "EC2",
            "AllocationStrategy": "BEST_FIT_PROGRESSIVE",
            "MinvCpus": 0,
            "MaxvCpus": 256,
            "InstanceTypes": ["optimal"],
            "Subnets": ["subnet-1"],
            "SecurityGroupIds": ["sg-1"],
            "InstanceRole": "arn:aws:iam::111122223333:instance-profile/ecs",
            "Ec2Configuration": [{"ImageType": "ECS_AL2023"}],
            "ScalingPolicy": {"MinScaleDownDelayMinutes": 20},
            "Tags": {"team": "lab"},
            "UpdateToLatestImageVersion": True,
        },
    }


def test_what_keeps_it_from_being_updated_is_left_behind_and_said():
    """terraform-aws-modules/batch has both by default."""
    theirs = answer(serviceRole="arn:aws:iam::111122223333:role/batch")
    del theirs["computeResources"]["allocationStrategy"]
    copied = blue_green.copy(theirs)
    assert "ServiceRole" not in copied.properties
    assert copied.properties["ComputeResources"]["AllocationStrategy"] == "BEST_FIT_PROGRESSIVE"
    role, strategy = copied.notes
    assert "instead of arn:aws:iam::111122223333:role/batch." in role
    assert "BEST_FIT_PROGRESSIVE instead of BEST_FIT." in strategy


def test_amazon_linux_2_needs_a_decision():
    """AWS Batch refuses new environments on its own images of it, and nothing changes silently."""
    theirs = answer(resources={"ec2Configuration": [{"imageType": "ECS_AL2"}]})
    with pytest.raises(BatchregError, match="creates no new environments") as caught:
        blue_green.copy(theirs)
    assert "--image-type ECS_AL2023" in caught.value.step
    copied = blue_green.copy(theirs, image_type="ECS_AL2023")
    assert copied.properties["ComputeResources"]["Ec2Configuration"] == [
        {"ImageType": "ECS_AL2023"}
    ]
    custom = {"imageType": "ECS_AL2", "imageIdOverride": "ami-1"}
    copied = blue_green.copy(answer(resources={"ec2Configuration": [custom]}))
    assert copied.properties["ComputeResources"]["Ec2Configuration"] == [
        {"ImageType": "ECS_AL2", "ImageIdOverride": "ami-1"}
    ]


def test_environment_without_an_image_type_gets_todays_default_and_says_so():
    """Its instances may have been Amazon Linux 2 until now."""
    copied = blue_green.copy(answer(resources={"ec2Configuration": []}))
    assert "Amazon Linux 2023" in copied.notes[0]


def test_original_answer_is_left_alone():
    """It is what detach compares with."""
    theirs = answer(tags={"aws:x": "y"})
    before = json.dumps(theirs)
    blue_green.copy(theirs)
    assert json.dumps(theirs) == before
    assert environment.read(theirs).tags == {"aws:x": "y"}

"""A copy of a launch template has everything of the original that CloudFormation can set."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import botocore.session
import cfnlint
import pytest
from troposphere import AWSProperty, ec2

from batchreg.attach import launch_templates
from batchreg.attach.launch_templates import copy

DECIDED = {
    *launch_templates.DROPPED,
    *launch_templates.DROPPED_WITH_NOTE,
    *launch_templates.REFUSED,
}


def botocore_paths(shape: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, type) of every value in a shape of botocore's."""
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            yield from botocore_paths(member, f"{path}.{name}".lstrip("."))
    elif shape.type_name == "list":
        yield from botocore_paths(shape.member, f"{path}[]")
    else:
        yield path, shape.type_name


def answer_paths() -> dict[str, str]:
    """Return what DescribeLaunchTemplateVersions can answer with."""
    ec2_model = botocore.session.get_session().get_service_model("ec2")
    return dict(botocore_paths(ec2_model.shape_for("ResponseLaunchTemplateData")))


def schema_paths() -> set[str]:
    """Return what CloudFormation's schema of AWS::EC2::LaunchTemplate takes."""
    schemas = Path(cfnlint.__file__).parent / "data/schemas"
    names = json.loads((schemas / "providers/us-east-1.json").read_text())
    schema = json.loads(
        (schemas / "resources" / f"{names['AWS::EC2::LaunchTemplate']}.json").read_text()
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

    return set(walk(schema["properties"]["LaunchTemplateData"], ""))


def troposphere_paths(cls: type[AWSProperty], path: str = "") -> Iterator[str]:
    """Yield what troposphere's classes accept; an untyped value ends the path."""
    for name, (kind, _) in cls.props.items():
        inner, below = kind, f"{path}.{name}".lstrip(".")
        if isinstance(kind, list):
            inner, below = kind[0], below + "[]"
        if isinstance(inner, type) and issubclass(inner, AWSProperty):
            yield from troposphere_paths(inner, below)
        else:
            yield below


def is_decided(path: str) -> bool:
    return any(path == rule or path.startswith((f"{rule}.", f"{rule}[]")) for rule in DECIDED)


def value_at(path: str, kind: str) -> dict[str, Any]:
    """Return the smallest answer that has a value at `path`."""
    values = {
        "timestamp": datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC),
        "boolean": True,
        "integer": 7,
        "long": 7,
        "double": 7.5,
        "float": 7.5,
    }
    value: Any = values.get(kind, "eA==" if path == "UserData" else "text")
    for name in reversed(path.split(".")):
        bare = name.removesuffix("[]")
        for _ in range(name.count("[]")):
            value = [value]
        value = {bare: value}
    return value


def test_every_field_that_ec2_answers_with_is_decided():
    """A new field of EC2's must not be lost in silence."""
    undecided = {path for path in answer_paths().keys() - schema_paths() if not is_decided(path)}
    assert undecided == set()


def test_every_rule_is_about_a_field_that_exists_and_that_cloudformation_lacks():
    """A rule that no longer applies would drop what CloudFormation can set by now."""
    answer, schema = answer_paths(), schema_paths()
    newer = {"Monitoring.MetricCategoryIds"}  # than the botocore that the tests pin
    for rule in DECIDED - newer:
        paths = {
            path for path in answer if path == rule or path.startswith((f"{rule}.", f"{rule}["))
        }
        assert paths, rule
        assert not paths & schema, rule


def test_every_field_that_is_kept_has_a_place_in_troposphere():
    """The companion stack's template is built with it."""
    places = set(troposphere_paths(ec2.LaunchTemplateData))

    def fits(path: str) -> bool:
        stems = {path, path.removesuffix("[]")}
        return any(
            place in stems or path.startswith((f"{place}.", f"{place}[")) for place in places
        )

    kept = {path for path in answer_paths() if not is_decided(path)}
    assert {path for path in kept if not fits(path)} == set()


def test_types_that_cloudformation_writes_in_another_way_are_converted():
    """JSON has no date; every other type is the same in both."""
    dates = {path for path, kind in answer_paths().items() if kind == "timestamp"}
    assert dates == launch_templates.CONVERTED
    assert not set(answer_paths().values()) - {
        "string",
        "integer",
        "long",
        "boolean",
        "double",
        "float",
        "timestamp",
    }


@pytest.mark.parametrize(("path", "kind"), answer_paths().items())
def test_each_field_is_kept_dropped_or_refused_as_decided(path, kind):
    """One answer for each field, with nothing else in it."""
    data = value_at(path, kind)
    result = copy(data)
    if path == "UserData":
        assert (result.data, result.user_data) == ({}, "eA==")
    elif path in launch_templates.CONVERTED:
        assert result.data == value_at(path, "string") | {
            "InstanceMarketOptions": {"SpotOptions": {"ValidUntil": "2030-01-02T03:04:05Z"}}
        }
    elif not is_decided(path):
        assert result.data == data
        assert result.notes == result.refused == ()
    else:
        assert path not in json.dumps(result.data)
        rule = next(rule for rule in DECIDED if path.startswith(rule))
        assert bool(result.refused) is (
            rule in launch_templates.REFUSED or path == "Operator.Managed"
        )
        assert bool(result.notes) is (rule in launch_templates.DROPPED_WITH_NOTE)


def test_copy_of_a_whole_template_is_what_troposphere_writes():
    """All kept fields at once, through the class that the companion stack uses."""
    data: dict[str, Any] = {
        "ImageId": "resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended",
        "EbsOptimized": True,
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 500, "Encrypted": False}}
        ],
        "MetadataOptions": {"State": "pending", "HttpTokens": "required"},
        "TagSpecifications": [{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
        "Operator": {"Managed": False},
    }
    result = copy(data)
    written = ec2.LaunchTemplateData.from_dict("LaunchTemplateData", result.data).to_dict()
    assert written == {
        "ImageId": data["ImageId"],
        "EbsOptimized": True,
        "BlockDeviceMappings": data["BlockDeviceMappings"],
        "MetadataOptions": {"HttpTokens": "required"},
        "TagSpecifications": data["TagSpecifications"],
    }


def test_date_of_another_time_zone_is_the_same_moment():
    """CloudFormation takes UTC."""
    moment = datetime(2030, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    data = {"InstanceMarketOptions": {"SpotOptions": {"ValidUntil": moment}}}
    assert copy(data).data["InstanceMarketOptions"]["SpotOptions"] == {
        "ValidUntil": "2030-01-02T01:04:05Z"
    }


def test_fields_that_are_off_are_no_reason_to_refuse():
    """EC2 answers with some of them although nobody has set them."""
    result = copy(
        {
            "SecondaryInterfaces": [],
            "Monitoring": {"Enabled": True, "MetricCategoryIds": []},
            "InstanceRequirements": {"RequireEncryptionInTransit": False},
        }
    )
    assert (result.notes, result.refused) == ((), ())
    assert result.data == {"Monitoring": {"Enabled": True}, "InstanceRequirements": {}}


def test_text_that_cloudformation_would_replace_is_refused():
    """A dynamic reference in a tag is text for EC2, and a lookup for CloudFormation."""
    tags = [{"Key": "a", "Value": "{{resolve:ssm:x}}"}]
    data = {"TagSpecifications": [{"ResourceType": "instance", "Tags": tags}]}
    assert copy(data).refused == ("TagSpecifications[].Tags[].Value",)


def test_original_is_left_alone():
    """The answer is also what `detach` and the comparison before and after rely on."""
    data = {"MetadataOptions": {"State": "pending"}, "UserData": "eA=="}
    copy(data)
    assert data == {"MetadataOptions": {"State": "pending"}, "UserData": "eA=="}

"""What a deploy says it would change, for every parameter and every structural option."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import botocore.session
import pytest
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.stack.preview import REPLACES_INSTANCES, Change, Deployment, compare

VALUES = {
    "RegistryUrl": "ghcr.io",
    "Username": "****",
    "Password": "****",
    "SubnetIDs": "subnet-1,subnet-2",
    "SecurityGroupIDs": "sg-1",
}
ARN = "arn:aws:secretsmanager:eu-west-1:111122223333:secret:own-AbCdEf"


def deployment(settings: Settings | None = None, **more: object) -> Deployment:
    settings = settings or Settings()
    options = {"values": VALUES, **more}
    return Deployment(template.build(settings).to_dict(), settings, **options)


def given(**values: str) -> Deployment:
    return deployment(values={**VALUES, **values})


@pytest.mark.parametrize(
    ("name", "value", "change", "replaced"),
    [
        ("MaxvCpus", "1024", ("256", "1024"), ()),
        ("InstanceTypes", "m7i,c7i", ("optimal", "m7i,c7i"), ("InstanceTypes",)),
        ("SubnetIDs", "subnet-1", ("subnet-1,subnet-2", "subnet-1"), ("Subnets",)),
        ("SecurityGroupIDs", "sg-2", ("sg-1", "sg-2"), ("SecurityGroupIds",)),
        ("ProvisioningModel", "SPOT", ("EC2", "SPOT"), ("AllocationStrategy", "Type")),
        ("RootVolumeGiB", "200", ("100", "200"), ("LaunchTemplate",)),
        ("ImagePullBehavior", "once", ("default", "once"), ("LaunchTemplate",)),
        ("CredentialRefreshMinutes", "60", ("30", "60"), ("LaunchTemplate",)),
        ("KmsKeyArn", "arn:aws:kms:eu-west-1:1:key/x", ("", "arn:aws:kms:eu-west-1:1:key/x"), ()),
    ],
)
def test_a_parameter_is_shown_with_both_values(name, value, change, replaced):
    """`Modify ComputeEnvironment` tells nobody what happens to the jobs."""
    seen = compare(deployment(), given(**{name: value}))
    assert [(each.old, each.new) for each in seen.changes] == [change]
    assert seen.replaced == replaced


def test_every_parameter_is_shown_by_its_label():
    """No parameter can be added to the template and be forgotten here."""
    for name, declared in template.build(Settings()).to_dict()["Parameters"].items():
        if declared.get("NoEcho"):
            continue
        seen = compare(deployment(), given(**{name: "quay.io" if "Url" in name else "other"}))
        assert len(seen.changes) == 1, name
        assert name not in seen.changes[0].setting, "a label, not the parameter's name"


@pytest.mark.parametrize(
    ("settings", "changes", "replaced"),
    [
        (
            Settings(image_type="ECS_AL2023_NVIDIA"),
            [
                Change("image type", "ECS_AL2023", "ECS_AL2023_NVIDIA"),
                Change("Instance types", "optimal", "g4dn"),
            ],
            ("Ec2Configuration", "InstanceTypes"),
        ),
        (Settings(fargate=True), [Change("Fargate queue", False, True)], ()),
        (
            Settings(on_failure="join"),
            [Change("without credentials", "park", "join")],
            ("LaunchTemplate",),
        ),
        (
            Settings(user_parts=("Content-Type: text/x-shellscript\n\n#!/bin/sh\n",)),
            [Change("your user data", "none", "44 bytes")],
            ("LaunchTemplate",),
        ),
    ],
)
def test_a_structural_option_is_shown(settings, changes, replaced):
    seen = compare(deployment(), deployment(settings))
    assert list(seen.changes) == changes
    assert seen.replaced == replaced


def test_a_removed_registry_is_named():
    """Its secret is deleted: people must see which one."""
    two = {**VALUES, "RegistryUrl2": "harbor.example.com"}
    seen = compare(deployment(Settings(slots=(1, 2)), values=two), deployment())
    assert Change("registry", "harbor.example.com", "") in seen.changes
    assert seen.replaced == ("LaunchTemplate",)


def test_new_credentials_are_said_and_not_shown():
    seen = compare(deployment(), deployment(secrets=frozenset({"Password"})))
    assert seen.changes == (
        Change("credentials of ghcr.io", "as deployed", "replaced by those given"),
    )


def test_a_switch_to_a_secret_of_ones_own_shows_what_is_deleted():
    seen = compare(deployment(), deployment(Settings(secret_arns=(ARN,))))
    assert Change("registry", "ghcr.io", "") in seen.changes
    assert Change("secret of your own", "", ARN) in seen.changes


def test_tags_are_changes_too():
    seen = compare(deployment(tags={"a": "1"}), deployment(tags={"a": "2", "b": "3"}))
    assert seen.changes == (Change("tag a", "1", "2"), Change("tag b", "", "3"))


def test_the_same_stack_has_no_changes():
    assert compare(deployment(), deployment()) == compare(given(), given(MaxvCpus="256"))
    assert compare(deployment(), given(MaxvCpus="256")).changes == ()


def test_pairs_of_changes_are_the_sum_of_both():
    """Nothing hides behind something else."""
    single = {
        name: compare(deployment(), given(**{name: value})).changes
        for name, value in {"MaxvCpus": "9", "RootVolumeGiB": "99", "SubnetIDs": "subnet-9"}.items()
    }
    for one, other in product(single, repeat=2):
        if one != other:
            values = {each: {"MaxvCpus": "9", "RootVolumeGiB": "99", "SubnetIDs": "subnet-9"}[each]
                      for each in (one, other)}  # fmt: skip
            both = compare(deployment(), given(**values)).changes
            assert set(both) == {*single[one], *single[other]}


def test_what_replaces_instances_is_aws_own_list():
    """CloudFormation's schema and botocore's documentation name the same properties."""
    schema = PROVIDER_SCHEMA_MANAGER.get_resource_schema(
        "us-east-1", "AWS::Batch::ComputeEnvironment"
    ).schema
    start = "/properties/ComputeResources/"
    conditional = {
        path.removeprefix(start)
        for path in schema["conditionalCreateOnlyProperties"]
        if path.startswith(start)
    }
    # ScalingPolicy is a scaling update; the last one exists for updates alone.
    assert conditional - {"ScalingPolicy"} | {"UpdateToLatestImageVersion"} == REPLACES_INSTANCES
    shape = botocore.session.get_session().get_service_model("batch").shape_for(
        "ComputeResourceUpdate"
    )  # fmt: skip
    documented = {
        name[0].upper() + name[1:]
        for name, member in shape.members.items()
        if re.search("requires\\s+an infrastructure update", member.documentation)
    }
    assert documented <= REPLACES_INSTANCES


def test_an_unreadable_condition_is_a_bug_not_a_guess():
    old = deployment()
    body = {**old.template, "Conditions": {"IsSpot": {"Fn::Odd": []}, "HasKmsKey": {"Fn::Odd": []}}}
    with pytest.raises(ValueError, match="Fn::Odd"):
        compare(replace(old, template=body), replace(old, template=body))

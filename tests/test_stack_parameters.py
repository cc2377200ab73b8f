"""What engines and large images need from the stack: roles, machine image, disk, update policy."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

ECS = "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
SSM = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
S3 = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
READ = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def policies(made, output: str) -> set[str]:
    name = made.outputs[output].rsplit("/", 1)[-1]
    found = made.aws.client("iam").list_attached_role_policies(RoleName=name)
    return {policy["PolicyArn"] for policy in found["AttachedPolicies"]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {ECS}),
        ({"Ssm": "true"}, {ECS, SSM}),
        ({"InstancePolicyArns": S3}, {ECS, S3}),
        ({"InstancePolicyArns": f"{S3},{READ}", "Ssm": "true"}, {ECS, SSM, S3, READ}),
    ],
)
def test_instance_role_has_the_policies_that_were_asked_for(account, template, values, expected):
    """Nextflow's tasks stage files with the role of the instance."""
    account.make(template, **values)
    assert policies(account, "InstanceRoleArn") == expected


def test_a_job_role_exists_only_with_policies(account, template):
    """metaflow, Snakemake and redun refuse to run without one; others need none."""
    account.make(template, JobPolicyArns=f"{S3},{READ}")
    assert policies(account, "JobRoleArn") == {S3, READ}


def test_without_policies_there_is_no_job_role(made):
    assert "JobRoleArn" not in made.outputs


def test_a_machine_image_of_ones_own_replaces_aws_batchs(account, template):
    account.make(template, ImageId="ami-0123456789abcdef0")
    (configuration,) = account.environment["computeResources"]["ec2Configuration"]
    assert configuration == {"imageType": "ECS_AL2023", "imageIdOverride": "ami-0123456789abcdef0"}


def test_the_root_volume_is_faster_than_gp3s_least(made):
    """A 10 GB image is written there, layer by layer, before the job can start."""
    wanted = made.environment["computeResources"]["launchTemplate"]
    (version,) = made.aws.client("ec2").describe_launch_template_versions(
        LaunchTemplateId=wanted["launchTemplateId"], Versions=[wanted["version"]]
    )["LaunchTemplateVersions"]
    (disk,) = version["LaunchTemplateData"]["BlockDeviceMappings"]
    assert (disk["Ebs"]["Throughput"], disk["Ebs"]["Iops"]) == (300, 3000)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ImageId", "al2023"),
        ("RootVolumeThroughput", "3000"),
        ("RootVolumeIops", "100"),
        ("JobTimeoutMinutes", "0"),
        ("Ssm", "yes"),
    ],
)
def test_the_template_refuses_what_aws_would(account, template, name, value):
    with pytest.raises(ClientError, match=name):
        account.make(template, **{name: value})

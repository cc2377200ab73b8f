"""The companion stack's template: what it adds, what it leaves alone, and what it remembers."""

from __future__ import annotations

import base64
from typing import Any

import attach_archives
import lint_templates
import pytest
from attach_archives import multipart, shell
from attach_environments import QUEUE, ROLE, TEN_OVERRIDES, attachment, env, version

from batchreg.attach import companion, update
from batchreg.attach.environment import UpdatePolicy
from batchreg.errors import BatchregError
from batchreg.render import template as stack_template
from batchreg.render import userdata
from batchreg.render.settings import Settings
from batchreg.render.text import read_template, to_yaml

SECRET = "arn:aws:secretsmanager:eu-central-1:111122223333:secret:ghcr-AbCdEf"
BASE = {"launchTemplateId": "lt-base", "version": "$Latest"}
THEIRS = multipart(shell("echo ${HOME} > /etc/theirs"))


def built(*arguments: Any, **choices: Any) -> dict[str, Any]:
    return companion.build(attachment(*arguments, **choices)).to_dict()


def ten(size: int) -> dict[str, Any]:
    """Return a template for ten overrides, each with user data of its own of this many bytes."""
    versions = [
        version(name, 1, multipart(shell(f"# {name}".ljust(size, "x"))), ImageId=f"ami-{name}")
        for name in ["base", *(f"o{number}" for number in range(1, 11))]
    ]
    return built(env(resources={"launchTemplate": TEN_OVERRIDES}), versions)


def user_data(body: dict[str, Any], logical_id: str) -> bytes:
    """Return what CloudFormation makes of a launch template's user data."""
    intrinsic = body["Resources"][logical_id]["Properties"]["LaunchTemplateData"]["UserData"]
    delimiter, (theirs, ours) = intrinsic["Fn::Join"]
    assert delimiter == ""
    text = ours["Fn::Base64"]["Fn::Sub"]
    values = dict(attach_archives.VALUES)
    if isinstance(text, list):
        text, variables = text
        for name, found in variables.items():
            mapping, top, second = found["Fn::FindInMap"]
            values[name] = body["Mappings"][mapping][top][second]
    resolved = userdata.resolve(text, values)
    return base64.b64decode(theirs + base64.b64encode(resolved.encode()).decode(), validate=True)


def recorded(body: dict[str, Any]) -> companion.Recorded:
    return companion.recorded(body["Metadata"]["batchreg"]["Attached"])


def resources_of(body: dict[str, Any]) -> dict[str, str]:
    return {name: resource["Type"] for name, resource in body["Resources"].items()}


def test_stack_has_what_an_attached_environment_needs_and_no_more():
    """No environment, no queue and no instance role: those exist."""
    assert resources_of(built()) == {
        "RegistrySecret": "AWS::SecretsManager::Secret",
        "RegistrySecretPolicy": "AWS::SecretsManager::ResourcePolicy",
        "InstanceRoleKeyPolicy": "AWS::IAM::RolePolicy",
        "JobExecutionRole": "AWS::IAM::Role",
        "KeyPolicy": "AWS::IAM::Policy",
        "LaunchTemplate": "AWS::EC2::LaunchTemplate",
    }


def test_role_is_changed_only_for_a_customer_key():
    """A policy on our own secret is enough otherwise."""
    policy = built()["Resources"]["InstanceRoleKeyPolicy"]
    assert policy["Condition"] == "HasKmsKey"
    (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", {"Ref": "KmsKeyArn"})
    assert policy["Properties"]["RoleName"] == "ecs"


def test_secret_names_the_role_and_its_id():
    """A role that was deleted and created again gets a policy that names the new one."""
    policy = built()["Resources"]["RegistrySecretPolicy"]["Properties"]
    assert policy["SecretId"] == {"Ref": "RegistrySecret"}
    (statement,) = policy["ResourcePolicy"]["Statement"]
    assert statement == {
        "Sid": "ReadAROAEXAMPLE",
        "Effect": "Allow",
        "Principal": {
            "AWS": {"Fn::Sub": "arn:${AWS::Partition}:iam::${AWS::AccountId}:role/lab/ecs"}
        },
        "Action": "secretsmanager:GetSecretValue",
        "Resource": {"Ref": "RegistrySecret"},
    }


def test_secret_of_their_own_is_read_through_the_role():
    """We do not change a policy of a secret that is not ours."""
    body = built(secret_arns=(SECRET,))
    assert "AWS::SecretsManager::ResourcePolicy" not in resources_of(body).values()
    assert "AWS::SecretsManager::Secret" not in resources_of(body).values()
    policy = body["Resources"]["InstanceRolePolicy"]
    assert "Condition" not in policy
    (read,) = policy["Properties"]["PolicyDocument"]["Statement"]
    assert read["Resource"] == [SECRET]
    key = body["Resources"]["InstanceRoleKeyPolicy"]
    assert key["Condition"] == "HasKmsKey"
    assert key["Properties"]["PolicyName"] != policy["Properties"]["PolicyName"]
    assert f"--secret-id={SECRET}\n".encode() in user_data(body, "LaunchTemplate")


def test_several_registries_are_several_secrets():
    """Each with its policy, and a number for life."""
    body = built(slots=(1, 3))
    assert {"RegistrySecret3", "RegistrySecretPolicy3"} <= body["Resources"].keys()
    assert {"RegistryUrl3", "Username3", "Password3"} <= body["Parameters"].keys()
    assert "RegistrySecret3Arn" in body["Outputs"]
    for name in ("RegistrySecret", "RegistrySecret3"):
        assert f"--secret-id={attach_archives.VALUES[name]}\n".encode() in user_data(
            body, "LaunchTemplate"
        )


def test_parameters_and_their_rules_are_those_of_a_normal_stack():
    """People know them, and the console shows them in the same groups."""
    normal = stack_template.build(Settings(slots=(1, 2))).to_dict()
    body = built(slots=(1, 2))
    for name, parameter in body["Parameters"].items():
        assert parameter == normal["Parameters"][name]
    assert body["Parameters"].keys() == {
        "RegistryUrl",
        "Username",
        "Password",
        "RegistryUrl2",
        "Username2",
        "Password2",
        "KmsKeyArn",
        "CredentialRefreshMinutes",
    }
    groups = body["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(
        body["Parameters"]
    )


def test_outputs_have_the_names_that_other_commands_know():
    """They name the queue and the environment that exist."""
    outputs = built()["Outputs"]
    assert outputs["JobQueueArn"]["Value"] == QUEUE
    assert outputs["ComputeEnvironmentArn"]["Value"] == env().arn
    assert outputs["InstanceRoleArn"]["Value"] == ROLE.arn
    assert outputs["LaunchTemplateVersion"]["Value"] == {
        "Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]
    }
    normal = stack_template.build(Settings()).to_dict()["Outputs"]
    assert outputs.keys() - normal.keys() == {"LaunchTemplateVersion"}
    assert normal.keys() - outputs.keys() == {"InstanceProfileArn", "JobRoleArn"}


def test_environment_without_a_queue_has_no_output_for_one():
    """An empty output would be taken for a queue's name."""
    assert "JobQueueArn" not in built(queues=())["Outputs"]


def test_copy_has_everything_of_theirs_and_our_part_after_theirs():
    """The launch template that a new instance gets."""
    found = env(resources={"launchTemplate": BASE})
    body = built(found, [version("base", 7, THEIRS, ImageId="ami-1", KeyName="ada")])
    data = body["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert {**data, "UserData": ""} == {"ImageId": "ami-1", "KeyName": "ada", "UserData": ""}
    whole = user_data(body, "LaunchTemplate")
    assert whole.startswith(THEIRS.removesuffix(b"--==MYBOUNDARY==--\n"))
    assert b"/opt/batchreg/registry_login.py" in whole


def test_no_setting_of_the_agent_changes_but_the_credentials():
    """When images are pulled was somebody's decision, or AWS's default."""
    assert b"ECS_IMAGE_PULL_BEHAVIOR" not in user_data(built(), "LaunchTemplate")


def test_identical_copies_share_a_launch_template():
    """Most overrides differ in instance types alone."""
    versions = [version(f"o{number}", number, THEIRS) for number in range(11)]
    body = built(env(resources={"launchTemplate": TEN_OVERRIDES}), versions)
    assert list(resources_of(body).values()).count("AWS::EC2::LaunchTemplate") == 1
    record = recorded(body)
    assert record
    assert {copy[0] for copy in record.copies} == {"LaunchTemplate"}
    assert [copy[1:] for copy in record.copies] == [(f"lt-o{n}", n) for n in range(11)]


def test_ten_different_overrides_fit_and_each_has_its_own_user_data():
    """The constant part of ours is in the template once."""
    body = ten(700)
    for number, name in enumerate(["base", *(f"o{number}" for number in range(1, 11))], 1):
        logical_id = f"LaunchTemplate{number if number > 1 else ''}"
        properties = body["Resources"][logical_id]["Properties"]["LaunchTemplateData"]
        assert properties["ImageId"] == f"ami-{name}"
        whole = user_data(body, logical_id)
        assert f"# {name}x".encode() in whole
        assert our_part_resolved() in whole.decode()


def test_shared_texts_are_in_the_template_that_is_sent():
    """A reference to a mapping that is missing fails only in AWS."""
    versions = [version(f"o{number}", 1, THEIRS, KeyName=f"k{number}") for number in range(11)]
    found = env(resources={"launchTemplate": TEN_OVERRIDES})
    text = to_yaml(companion.build(attachment(found, versions)))
    assert f"\nMappings:\n  {companion.MAPPING}:\n" in text
    assert text.count("OnUnitInactiveSec") == 1


def our_part_resolved() -> str:
    return userdata.resolve(companion.our_part(attachment()), attach_archives.VALUES).rstrip()


def test_overrides_that_do_not_fit_are_refused_before_anything_is_created():
    """CloudFormation takes 51,200 bytes."""
    with pytest.raises(BatchregError, match="11 different launch templates take most") as caught:
        ten(3_500)
    assert "share a launch template" in caught.value.step


def test_user_data_that_leaves_no_room_is_refused_by_name():
    """With the bytes that are too many."""
    found = env(resources={"launchTemplate": BASE})
    with pytest.raises(BatchregError, match=r"user data of base \(version 7\) is 2\d,\d{3} bytes"):
        built(found, [version("base", 7, multipart(shell("x" * 14_000)))])


def test_template_remembers_what_was_there():
    """To the letter: detach puts it back."""
    found = env(
        resources={"launchTemplate": TEN_OVERRIDES},
        updatePolicy={"terminateJobsOnUpdate": True, "jobExecutionTimeoutMinutes": 90},
        tags={"aws:cloudformation:stack-name": "lab"},
    )
    versions = [version(f"o{number}", number) for number in range(11)]
    text = to_yaml(companion.build(attachment(found, versions)))
    deployed = read_template(text)
    assert deployed
    assert deployed.attached
    record = companion.recorded(deployed.attached)
    assert record
    assert record.specification == TEN_OVERRIDES
    assert record.update_policy == UpdatePolicy(terminate_jobs=True, job_timeout_minutes=90)
    assert record.created_by == "CloudFormation"
    assert record.queues == {QUEUE: (found.arn,)}
    request = update.restore_request(found.arn, record.specification, record.update_policy)
    assert request["computeResources"]["launchTemplate"] == TEN_OVERRIDES


def test_environment_without_a_template_is_remembered_as_such():
    """CloudFormation refuses a null."""
    body = built()
    assert "LaunchTemplate" not in body["Metadata"]["batchreg"]["Attached"]
    record = recorded(body)
    assert record
    assert record.specification is None
    assert "null" not in to_yaml(companion.build(attachment()))


def test_image_type_is_remembered_only_where_it_changes():
    """Detach gives back what was there, and leaves alone what we did not touch."""
    found = env(resources={"ec2Configuration": [{"imageType": "ECS_AL2"}]})
    record = recorded(built(found, image_type="ECS_AL2023"))
    assert record
    assert (record.image_type, record.ec2_configuration) == (
        "ECS_AL2023",
        ({"imageType": "ECS_AL2"},),
    )
    record = recorded(built(found))
    assert record
    assert (record.image_type, record.ec2_configuration) == ("", ())


def test_template_of_a_normal_stack_is_not_a_companion():
    """destroy must not detach what was never attached."""
    deployed = read_template(to_yaml(stack_template.build(Settings())))
    assert deployed
    assert deployed.attached is None


def test_same_attachment_gives_the_same_bytes():
    """Running attach twice changes nothing."""
    texts = {to_yaml(companion.build(attachment())) for _ in range(2)}
    assert len(texts) == 1


def test_templates_are_lint_clean(tmp_path):
    """In every region, informational rules included."""
    found = env(resources={"launchTemplate": BASE})
    rich = version(
        "base",
        7,
        THEIRS,
        ImageId="resolve:ssm:/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended/image_id",
        EbsOptimized=True,
        BlockDeviceMappings=[
            {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 500, "VolumeType": "gp3"}}
        ],
        MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 2},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "a", "Value": "b"}]}],
    )
    overrides = [
        version(f"o{number}", number, THEIRS, KeyName=f"k{number}") for number in range(11)
    ]
    for name, value in {
        "plain": attachment(),
        "rich": attachment(found, [rich], slots=(1, 2)),
        "own": attachment(secret_arns=(SECRET,)),
        "ten": attachment(env(resources={"launchTemplate": TEN_OVERRIDES}), overrides),
    }.items():
        (tmp_path / f"{name}.yaml").write_text(to_yaml(companion.build(value)))
    result = lint_templates.lint(*map(str, sorted(tmp_path.iterdir())))
    assert (result.returncode, result.stdout) == (0, "")


def test_what_detach_has_to_know_is_part_of_a_resource():
    """CloudFormation ignores an update of metadata alone, and would remember what was before."""

    def description(**specification: str) -> str:
        found = env(resources={"launchTemplate": {"launchTemplateId": "lt-base", **specification}})
        resources = built(found, [version("base", 7, THEIRS)])["Resources"]
        return str(resources["LaunchTemplate"]["Properties"]["VersionDescription"])

    assert description(version="$Latest").startswith("Copy of lt-base, version 7 (")
    assert description(version="$Latest") == description(version="$Latest")
    assert description(version="$Latest") != description(version="7")

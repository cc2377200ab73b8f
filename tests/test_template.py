"""The template: what it holds, and what it leaves out."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import lint_templates
import pytest
import write_templates
from cfnlint.decode.cfn_yaml import loads
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import batchreg
from batchreg import registry_login
from batchreg.render import constraints, template, userdata
from batchreg.render.settings import Settings
from batchreg.render.text import read_template, to_json, to_yaml

ARNS = tuple(
    f"arn:aws:secretsmanager:eu-central-1:111122223333:secret:registry/{name}-AbCdEf"
    for name in ("ghcr", "quay")
)
STRUCTURES = {
    "plain": Settings(),
    "gpu": Settings(image_type="ECS_AL2023_NVIDIA"),
    "secrets": Settings(secret_arns=ARNS),
    "fargate": Settings(fargate=True),
    "slots": Settings(slots=(1, 3)),
    "generation": Settings(generation=2),
    "parts": Settings(user_parts=('Content-Type: text/x-shellscript\n\n#!/bin/sh\necho "${X}"\n',)),
}


def body(settings: Settings = STRUCTURES["plain"]) -> dict:
    return json.loads(to_json(template.build(settings)))


@pytest.mark.parametrize("name", write_templates.rendered())
def test_committed_template_is_fresh(name):
    """People launch these from the console; `make templates` renders them anew."""
    assert (write_templates.FOLDER / name).read_text() == write_templates.rendered()[name]


def test_linter_would_find_something(tmp_path):
    """`make check` lints every kind of template; here is one that cfn-lint refuses."""
    broken = json.loads(to_json(template.build(Settings())))
    broken["Resources"]["JobQueue"]["Properties"]["Priority"] = "high"
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(broken))
    assert lint_templates.lint(str(path)).returncode != 0
    assert len(lint_templates.batch_regions()) > 30


@pytest.mark.parametrize("settings", STRUCTURES.values(), ids=STRUCTURES)
def test_yaml_and_json_are_the_same_template(settings):
    """YAML's short forms must mean what JSON's long forms say."""
    built = template.build(settings)

    def plain(value):
        if isinstance(value, dict):
            if "Fn::GetAtt" in value:
                return {
                    "Fn::GetAtt": ".".join(value["Fn::GetAtt"])
                    if isinstance(value["Fn::GetAtt"], list)
                    else value["Fn::GetAtt"]
                }
            return {str(key): plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list) else value

    assert plain(loads(to_yaml(built))) == plain(json.loads(to_json(built)))


def test_template_fits_into_a_request():
    """CloudFormation takes at most 51,200 bytes as TemplateBody."""
    for settings in STRUCTURES.values():
        assert len(to_yaml(template.build(settings)).encode()) < 51_200


def test_logical_ids_and_parameters_are_the_promised_ones():
    """Other stacks, scripts and documents refer to them."""
    promised = {
        "RegistrySecret",
        "InstanceRole",
        "InstanceProfile",
        "JobExecutionRole",
        "KeyPolicy",
        "JobRole",  # if it is asked for
        "LaunchTemplate",
        "ComputeEnvironment",
        "JobQueue",
    }
    assert set(body()["Resources"]) == promised
    outputs = {re.sub("(Arn|Id|Name)$", "", name) for name in body()["Outputs"]}
    assert outputs == promised - {"KeyPolicy"}
    assert {"Username", "Password", "RegistryUrl", "SubnetIDs", "SecurityGroupIDs"} <= set(
        body()["Parameters"]
    )


def test_a_new_generation_has_a_logical_id_of_its_own_and_the_same_outputs():
    """CloudFormation creates it, switches the queue to it, and deletes the old one last."""
    old, new = body(), body(replace(STRUCTURES["plain"], generation=2))
    assert new["Resources"].keys() - old["Resources"].keys() == {"ComputeEnvironment2"}
    assert old["Resources"].keys() - new["Resources"].keys() == {"ComputeEnvironment"}
    assert old["Outputs"].keys() == new["Outputs"].keys()
    (order,) = new["Resources"]["JobQueue"]["Properties"]["ComputeEnvironmentOrder"]
    assert order["ComputeEnvironment"] == {"Ref": "ComputeEnvironment2"}


def test_every_parameter_but_login_and_network_has_a_default():
    """The console's form asks for what nobody else can know, and for nothing else."""
    without = {name for name, rules in body()["Parameters"].items() if "Default" not in rules}
    assert without == {"Username", "Password", "SubnetIDs", "SecurityGroupIDs"}


def test_every_parameter_has_a_label_a_group_and_a_description():
    """Somebody who never saw batchreg fills the form in."""
    form = body()["Metadata"]["AWS::CloudFormation::Interface"]
    parameters = body()["Parameters"]
    grouped = [name for group in form["ParameterGroups"] for name in group["Parameters"]]
    assert sorted(grouped) == sorted(parameters) == sorted(form["ParameterLabels"])
    assert all(rules["Description"] for rules in parameters.values())
    assert all(
        "ConstraintDescription" in rules
        for rules in parameters.values()
        if "AllowedPattern" in rules
    )


def test_login_is_masked_and_nowhere_but_in_the_secret():
    """A secret in an output, a tag or the user data would be readable by many."""
    parameters = body()["Parameters"]
    assert parameters["Username"]["NoEcho"] is parameters["Password"]["NoEcho"] is True
    rest = body()
    del rest["Resources"]["RegistrySecret"]
    assert not re.search(
        r'"Ref": "(Username|Password)"|\$\{(Username|Password)\}', json.dumps(rest)
    )


def test_roles_read_exactly_the_secrets():
    """Neither role may read any other secret of the account."""
    for settings, secrets in (
        (STRUCTURES["plain"], [{"Ref": "RegistrySecret"}]),
        (STRUCTURES["secrets"], list(ARNS)),
    ):
        for role in ("InstanceRole", "JobExecutionRole"):
            (policy,) = body(settings)["Resources"][role]["Properties"]["Policies"]
            (statement,) = policy["PolicyDocument"]["Statement"]
            assert statement["Action"] == "secretsmanager:GetSecretValue"
            assert statement["Resource"] == secrets
        key = body(settings)["Resources"]["KeyPolicy"]
        assert key["Condition"] == "HasKmsKey"
        assert key["Properties"]["Roles"] == [{"Ref": "InstanceRole"}, {"Ref": "JobExecutionRole"}]
        (statement,) = key["Properties"]["PolicyDocument"]["Statement"]
        assert (statement["Action"], statement["Resource"]) == ("kms:Decrypt", {"Ref": "KmsKeyArn"})
        assert list(statement["Condition"]["StringEquals"]) == ["kms:ViaService"]


def test_existing_secrets_leave_no_trace_of_a_login():
    """With --secret-arn, CloudFormation never sees a password."""
    of_secrets = body(STRUCTURES["secrets"])
    assert not {"Username", "Password", "RegistryUrl"} & set(of_secrets["Parameters"])
    assert "RegistrySecret" not in of_secrets["Resources"]
    assert "RegistrySecretArn" not in of_secrets["Outputs"]


def test_compute_environment_can_be_updated_in_place():
    """The conditions under which AWS Batch does not ask for a replacement."""
    properties = body()["Resources"]["ComputeEnvironment"]["Properties"]
    compute = properties["ComputeResources"]
    assert properties["ReplaceComputeEnvironment"] is False
    assert not {"ServiceRole", "ComputeEnvironmentName", "Tags"} & set(properties)
    assert "DesiredvCpus" not in compute
    assert compute["LaunchTemplate"]["Version"] == {
        "Fn::GetAtt": ["LaunchTemplate", "LatestVersionNumber"]
    }
    assert compute["AllocationStrategy"]["Fn::If"][1:] == [
        "SPOT_PRICE_CAPACITY_OPTIMIZED",
        "BEST_FIT_PROGRESSIVE",
    ]
    assert not re.search(
        r'"[A-Za-z]*Name": "(?!ReadRegistryLogin|DecryptRegistryCredentials|/dev/xvda)',
        json.dumps(body()["Resources"]),
    )


def test_instances_take_imdsv2_only_from_one_hop_away():
    """A container with a network of its own cannot take the instance's role."""
    data = body()["Resources"]["LaunchTemplate"]["Properties"]["LaunchTemplateData"]
    assert data["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
    assert data["BlockDeviceMappings"][0]["Ebs"]["Encrypted"] is True


spellings = st.one_of(
    st.text(max_size=30),
    st.from_regex(
        re.compile(
            r"\s*(https?://|HTTPS://)?([A-Za-z0-9.-]{1,12}|localhost|docker\.io)"
            r"(:[0-9]{1,6})?(/[a-z0-9/]*)?\s*"
        ),
        fullmatch=True,
    ),
)


@hypothesis_settings(max_examples=1000, deadline=None)
@given(spellings)
@example("https://a.io:443")
@example("https://a.io:443 ")
@example("http://a.io:80/x")
@example("http://a.io:443")
@example("a.io:443")
@example("myhost")
@example("https://localhost")
@example("a..b")
@example("docker.io:443")
@example("https://u:p@ghcr.io")
def test_console_takes_the_registry_urls_that_the_instance_takes(url):
    """A spelling that could never match an image is refused before anything is made."""
    try:
        registry_login.registry_key(url)
        works = True
    except registry_login.Refused:
        works = False
    pattern = body()["Parameters"]["RegistryUrl"]["AllowedPattern"]
    # Java's \s and $, which CloudFormation uses, know ASCII only.
    assert bool(re.fullmatch(pattern, url, re.ASCII)) == works or not url.isascii()


def test_packaged_templates_need_no_batchreg():
    """They are launched from the console, with nothing else at hand."""
    for path in Path(write_templates.FOLDER).iterdir():
        assert "Transform" not in path.read_text()


# --- read back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [to_yaml, to_json])
@pytest.mark.parametrize("settings", STRUCTURES.values(), ids=STRUCTURES)
def test_settings_are_read_back_from_a_rendered_template(settings, write):
    """A later deploy builds the same template, whichever form is deployed."""
    body = write(template.build(settings))
    deployed = read_template(body)
    assert write(template.build(deployed.settings)) == body
    assert deployed.settings.slots == settings.slots
    assert deployed.version == batchreg.__version__


def test_user_data_is_read_back_with_its_values():
    """What doctor compares: what CloudFormation made of it, not what another version would make."""
    values = {
        "AWS::Region": "eu-central-1",
        "AWS::URLSuffix": "amazonaws.com",
        "RegistrySecret": ARNS[0],
        "CredentialRefreshMinutes": "30",
        "ImagePullBehavior": "default",
    }
    deployed = read_template(to_yaml(template.build(Settings())))
    assert deployed.user_data_with(values) == userdata.for_instance([ARNS[0]], "eu-central-1")
    assert deployed.user_data_with({}) is None


@pytest.mark.parametrize(
    "body", ["no: {template", "Resources: {}", "[]", "", "Metadata: {batchreg: {Version: 1}}"]
)
def test_other_templates_are_not_read(body):
    """Nothing is taken for ours that is not."""
    assert read_template(body) is None


def test_docker_hub_has_one_address():
    """The program on the instance is one file, so the address is in two."""
    assert constraints.DOCKER_HUB == registry_login.HUB

"""Code for somebody's own Terraform, CDK or CloudFormation, with the same result as attach."""

from __future__ import annotations

import base64
import json
import re
from types import SimpleNamespace
from typing import Any

import hcl2
import lint_templates
import pytest
import yaml
from attach_shapes import KEY, SECRET, SHAPES, VALUES, expected, one_template, overrides

from batchreg.attach import emit, terraform
from batchreg.attach.companion import Attachment
from batchreg.render import userdata


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> Attachment:
    return SHAPES[request.param]


@pytest.mark.parametrize("form", emit.FORMS)
def test_code_has_no_credentials_and_says_how_to_fill_the_secret(shape, form):
    """It goes into version control."""
    text = emit.emit(form, shape)
    assert "Password" not in text
    assert ("put-secret-value" in text) is not bool(shape.secret_arns)


@pytest.mark.parametrize("form", emit.FORMS)
def test_code_is_the_same_each_time(shape, form):
    """A second run must not show a difference."""
    assert emit.emit(form, shape) == emit.emit(form, shape)


# CloudFormation


def intrinsics(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    """Return an intrinsic's long form."""
    if isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_scalar(node)
    if tag == "GetAtt":
        return {"Fn::GetAtt": str(value).split(".")}
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms."""


Loader.add_multi_constructor("!", intrinsics)


def test_cloudformation_is_lint_clean(tmp_path):
    """Informational rules included, but for the ARN of a secret of one's own, which is what it is."""
    for name, shape in SHAPES.items():
        (tmp_path / f"{name}.yaml").write_text(emit.emit("cloudformation", shape))
    output = lint_templates.lint(*map(str, sorted(tmp_path.iterdir()))).stdout
    findings = [line for line in output.splitlines() if re.match("[EWI][0-9]", line)]
    assert [line for line in findings if not line.startswith("I3042")] == []
    assert all("own secret" in line for line in re.findall(r"I3042.*\n(.*)", output))


def test_cloudformation_gives_instances_the_user_data(shape):
    """As CloudFormation evaluates it."""
    body = yaml.load(emit.emit("cloudformation", shape, refresh_minutes=45), Loader)
    data = body["Resources"]["RegistryLaunchTemplate"]["Properties"]["LaunchTemplateData"]
    theirs, ours = data["UserData"]["Fn::Join"][1]
    text = ours["Fn::Base64"]
    if not isinstance(text, str):
        text = userdata.resolve(text["Fn::Sub"], VALUES)
    assert base64.b64decode(theirs) + text.encode() == expected(shape)


def test_cloudformation_shows_the_environment_what_to_use():
    """As a comment that is YAML once it is none."""
    text = emit.emit("cloudformation", overrides())
    comment = text.split("under ComputeResources:\n")[1]
    block = yaml.load(re.sub("(?m)^#   ", "", comment), Loader)["LaunchTemplate"]
    assert block["LaunchTemplateId"] == {"Ref": "RegistryLaunchTemplate"}
    assert block["Version"] == {"Fn::GetAtt": ["RegistryLaunchTemplate", "LatestVersionNumber"]}
    assert [one["TargetInstanceTypes"] for one in block["Overrides"]] == [
        [f"m{number}i"] for number in range(1, 11)
    ]
    assert block["Overrides"][0]["LaunchTemplateId"] == {"Ref": "RegistryLaunchTemplate"}
    assert block["Overrides"][9]["LaunchTemplateId"] == {"Ref": "RegistryLaunchTemplate9"}


# Terraform


def unquoted(value: Any) -> Any:
    """Return what Terraform makes of the literals in a parsed file."""
    if isinstance(value, dict):
        return {
            unquoted(key): unquoted(item)
            for key, item in value.items()
            if key != "__is_block__" and not key.startswith("__")
        }
    if isinstance(value, list):
        return [unquoted(item) for item in value]
    if isinstance(value, str) and value.startswith('"'):
        return json.loads(value).replace("$${", "${").replace("%%{", "%{")
    return value


def parsed(text: str) -> dict[str, dict[str, Any]]:
    """Return {kind: {name: arguments}} of the resources in HCL."""
    found: dict[str, dict[str, Any]] = {}
    for resource in unquoted(hcl2.loads(text))["resource"]:
        for kind, named in resource.items():
            found.setdefault(kind, {}).update(named)
    return found


ARNS = {"registry_secret": VALUES["RegistrySecret"], "registry_secret3": VALUES["RegistrySecret3"]}


def evaluated(expression: str) -> Any:
    """Evaluate an expression of Terraform's; these are Python as well."""
    secrets = {name: SimpleNamespace(arn=arn) for name, arn in ARNS.items()}
    functions = {
        "join": lambda delimiter, items: delimiter.join(items),
        "replace": lambda text, old, new: text.replace(old, new),
        "base64encode": lambda text: base64.b64encode(text.encode()).decode(),
        "base64decode": lambda text: base64.b64decode(text, validate=True).decode(),
        "aws_secretsmanager_secret": SimpleNamespace(**secrets),
    }
    code = re.fullmatch(r"\$\{(.*)\}", expression, re.DOTALL)
    assert code
    return eval(code[1], {"__builtins__": {}}, functions)


def test_terraform_gives_instances_the_user_data(shape):
    """Whatever looks like a template in their scripts."""
    resources = parsed(emit.emit("terraform", shape, refresh_minutes=45))
    template = resources["aws_launch_template"]["registry_launch_template"]
    whole = base64.b64decode(evaluated(template["user_data"]), validate=True)
    assert whole == expected(shape)


def test_terraform_has_every_field_of_the_launch_template():
    """In the provider's names and blocks."""
    resources = parsed(emit.emit("terraform", one_template()))
    template = resources["aws_launch_template"]["registry_launch_template"]
    del template["user_data"]
    assert template == {
        "image_id": "resolve:ssm:/lab/image",
        "ebs_optimized": "true" if isinstance(template["ebs_optimized"], str) else True,
        "block_device_mappings": [
            {"device_name": "/dev/xvda", "ebs": [{"volume_size": 500, "kms_key_id": KEY}]},
            {"device_name": "/dev/xvdb", "no_device": ""},
        ],
        "metadata_options": [{"http_tokens": "required", "http_put_response_hop_limit": 2}],
        "vpc_security_group_ids": ["sg-01234567", "sg-12345678"],
        "network_interfaces": [
            {"device_index": 0, "security_groups": ["sg-23456789"], "ipv6_prefixes": ["::/80"]}
        ],
        "tag_specifications": [{"resource_type": "instance", "tags": {'a"b': "${c} %{d} \\ \n ü"}}],
    }


def test_terraform_lets_the_role_read_the_secret():
    """The secret's own policy, or the role's where the secret is not ours."""
    resources = parsed(emit.emit("terraform", one_template(slots=(1, 3))))
    assert resources["aws_secretsmanager_secret"].keys() == ARNS.keys()
    policies = resources["aws_secretsmanager_secret_policy"]
    assert policies["registry_secret3"]["secret_arn"] == (
        "${aws_secretsmanager_secret.registry_secret3.arn}"
    )
    assert "arn:aws:iam::111122223333:role/lab/ecs" in policies["registry_secret"]["policy"]
    resources = parsed(emit.emit("terraform", one_template(secret_arns=(SECRET,))))
    assert "aws_secretsmanager_secret" not in resources
    assert SECRET in resources["aws_iam_role_policy"]["registry_credentials"]["policy"]


def test_terraform_shows_the_environment_what_to_use():
    """As a comment that is HCL once it is none."""
    text = emit.emit("terraform", overrides())
    block = text.split("under compute_resources:\n")[1].split("# Its")[0]
    (template,) = unquoted(hcl2.loads(re.sub("(?m)^#   ", "", block)))["launch_template"]
    assert template == {
        "launch_template_id": "${aws_launch_template.registry_launch_template.id}",
        "version": "${aws_launch_template.registry_launch_template.latest_version}",
    }
    assert text.count("# For m") == 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ImageId", "image_id"),
        ("HttpProtocolIpv6", "http_protocol_ipv6"),
        ("Ipv6AddressCount", "ipv6_address_count"),
        ("EnableResourceNameDnsAAAARecord", "enable_resource_name_dns_aaaa_record"),
        ("EnableResourceNameDnsARecord", "enable_resource_name_dns_a_record"),
        ("MemoryGiBPerVCpu", "memory_gib_per_vcpu"),
        ("AcceleratorTotalMemoryMiB", "accelerator_total_memory_mib"),
        ("TotalLocalStorageGB", "total_local_storage_gb"),
        ("VCpuCount", "vcpu_count"),
        ("RegistrySecret3", "registry_secret3"),
        ("PrimaryIpv6", "primary_ipv6"),
    ],
)
def test_names_are_the_providers(name, expected):
    """Its documentation lists them."""
    assert terraform.snake_case(name) == expected


def test_fields_that_the_provider_lacks_are_comments():
    """Nobody should believe that they are set."""
    lines = list(terraform.body({"NetworkPerformanceOptions": {"BandwidthWeighting": "ebs-1"}}))
    assert lines == [
        "  # The AWS provider cannot set network_performance_options: "
        '{"BandwidthWeighting": "ebs-1"}\n'
    ]

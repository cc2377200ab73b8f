"""What to add to one's own code instead of a companion stack, where code owns the environment.

Nothing here holds a password: a secret that the code creates is empty until its owner fills it.
Everything of theirs is data (base64, or strings with every escape), so that no `${` in a script is
taken for a variable of the language.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from troposphere import Base64, Join, Ref, Sub, Template, ec2, iam, secretsmanager

from batchreg.attach import archive, companion, terraform
from batchreg.attach.companion import Attachment
from batchreg.attach.terraform import Expression
from batchreg.aws import url_suffix
from batchreg.render.policies import allow, document
from batchreg.render.settings import suffix
from batchreg.render.text import dump, to_yaml

FORMS = ("terraform", "cdk", "cloudformation")

# CKV_AWS_149 asks for a customer managed key, which is for the owner of the template to have.
OWN_KEY = {
    "checkov": {"skip": [{"id": "CKV_AWS_149", "comment": "Add KmsKeyId for a key of your own."}]}
}

FILL = """\
Then put the credentials into each secret that this creates:
  aws secretsmanager put-secret-value --region {region} --secret-id ARN --secret-string file://FILE
where FILE has {{"username": "…", "password": "…", "registry_url": "…"}}, and is deleted afterwards.
"""
KEY = "With a customer managed KMS key, the role {role} needs kms:Decrypt on it, too.\n"


def emit(form: str, attachment: Attachment, *, refresh_minutes: int = 30) -> str:
    """Return code in one of FORMS, which changes nothing by itself.

    Raises BatchregError where the user data is too long.
    """
    writer = {"terraform": _terraform, "cdk": _cdk, "cloudformation": _cloudformation}[form]
    return writer(attachment, _Resources(attachment, refresh_minutes))


class _Resources:
    """The resources that every form has, as CloudFormation's, with names that few templates use."""

    def __init__(self, attachment: Attachment, refresh_minutes: int) -> None:
        self.secrets = tuple(
            f"RegistrySecret{suffix(slot)}"
            for slot in (() if attachment.secret_arns else attachment.slots)
        )
        region = attachment.environment.arn.split(":")[3]
        values = {
            "AWS::Region": region,
            "AWS::URLSuffix": url_suffix(region),
            "CredentialRefreshMinutes": str(refresh_minutes),
        }
        part = re.sub(
            r"\$\{([^!}]+)\}",
            lambda found: values.get(found[1], found[0]),
            companion.our_part(attachment),
        )
        placed = companion.places(attachment.copies)
        self.placed = tuple(f"Registry{logical_id}" for logical_id in placed)
        self.copies = dict(zip(self.placed, attachment.copies, strict=True))
        self.user_data = {
            name: archive.splice(copied.archive, part) for name, copied in self.copies.items()
        }


def _header(attachment: Attachment, comment: str) -> str:
    """Return comments: what it is, and what remains to be done by hand."""
    region = attachment.environment.arn.split(":")[3]
    text = (
        f"Registry credentials for the AWS Batch compute environment "
        f"{attachment.environment.name}, written by batchreg.\n"
    )
    if not attachment.secret_arns:
        text += FILL.format(region=region)
    text += KEY.format(role=attachment.role.name)
    return "".join(f"{comment} {line}".rstrip() + "\n" for line in text.splitlines())


def _template(attachment: Attachment, resources: _Resources) -> Template:
    template = Template()
    for name in resources.secrets:
        template.add_resource(
            secretsmanager.Secret(
                name,
                Description=f"Registry credentials of {attachment.environment.name}",
                DeletionPolicy="Delete",
                UpdateReplacePolicy="Delete",
                Metadata=OWN_KEY,
            )
        )
        template.add_resource(
            secretsmanager.ResourcePolicy(
                name.replace("Secret", "SecretPolicy"),
                SecretId=Ref(name),
                ResourcePolicy=companion.secret_policy(attachment.role, Ref(name)),
            )
        )
    if attachment.secret_arns:
        template.add_resource(
            iam.RolePolicy(
                "RegistryRolePolicy",
                RoleName=attachment.role.name,
                PolicyName="registry-credentials",
                PolicyDocument=_read_policy(attachment),
                **companion.lint_exception(attachment),
            )
        )
    for name, spliced in resources.user_data.items():
        data = ec2.LaunchTemplateData.from_dict(name, resources.copies[name].copy.data)
        # Without secrets to refer to, nothing is left to substitute.
        ours = Sub(spliced.ours) if resources.secrets else spliced.ours.replace("${!", "${")
        data.UserData = Join("", [spliced.theirs, Base64(ours)])
        metadata = companion.launch_template_metadata(attachment)
        template.add_resource(ec2.LaunchTemplate(name, LaunchTemplateData=data, Metadata=metadata))
    return template


def _read_policy(attachment: Attachment) -> dict[str, Any]:
    return document(allow("secretsmanager:GetSecretValue", Resource=list(attachment.secret_arns)))


def _cloudformation(attachment: Attachment, resources: _Resources) -> str:
    """Return resources in YAML, and the environment's property in comments."""
    text = to_yaml(_template(attachment, resources))
    block = dump({"LaunchTemplate": _plain(companion.specification(attachment, "Registry"))})
    return (
        _header(attachment, "#")
        + text
        + "# And in the compute environment, under ComputeResources:\n"
        + "".join(f"#   {line}\n" for line in block.splitlines())
    )


def _cdk(attachment: Attachment, resources: _Resources) -> str:
    """Return a TypeScript module with a function that takes the environment."""
    created = _plain(_template(attachment, resources).to_dict()["Resources"])
    lines = []
    for name, resource in created.items():
        properties = _typescript(resource["Properties"], created, "    ")
        unused = "Policy" in name
        lines.append(
            ("  " if unused else f"  const {_variable(name)} = ")
            + f"new CfnResource(scope, {json.dumps(name)}, {{\n"
            f"    type: {json.dumps(resource['Type'])},\n"
            f"    properties: {properties},\n  }});\n"
        )
    specification = _typescript(
        _plain(companion.specification(attachment, "Registry")), created, "  "
    )
    return (
        _header(attachment, "//")
        + """\
// In your stack: addRegistryCredentials(this, environment.node.defaultChild as CfnComputeEnvironment);
import { CfnResource, Fn } from "aws-cdk-lib";
import { CfnComputeEnvironment } from "aws-cdk-lib/aws-batch";
import { Construct } from "constructs";

export function addRegistryCredentials(scope: Construct, environment: CfnComputeEnvironment): void {
"""
        + "".join(lines)
        + f'  environment.addPropertyOverride("ComputeResources.LaunchTemplate", {specification});\n'
        + "  environment.addPropertyDeletionOverride("
        + '"ComputeResources.LaunchTemplate.LaunchTemplateName");\n'
        + "}\n"
    )


def _plain(value: Any) -> Any:
    """Return what troposphere writes for a value: dicts, lists and scalars."""
    if hasattr(value, "to_dict"):
        return _plain(value.to_dict())
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _variable(logical_id: str) -> str:
    return logical_id[0].lower() + logical_id[1:]


def _typescript(value: Any, created: Mapping[str, Any], indent: str) -> str:
    """Write a value as TypeScript, with intrinsics as the CDK's functions and references."""
    inner = indent + "  "
    if isinstance(value, list):
        items = "".join(f"{inner}{_typescript(item, created, inner)},\n" for item in value)
        return f"[\n{items}{indent}]"
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    match value:
        case {"Ref": name}:
            return f"{_variable(name)}.ref"
        case {"Fn::GetAtt": [name, attribute]}:
            return f"{_variable(name)}.getAtt({json.dumps(attribute)}).toString()"
        case {"Fn::Join": [delimiter, items]}:
            return f"Fn.join({json.dumps(delimiter)}, {_typescript(items, created, indent)})"
        case {"Fn::Base64": text}:
            return f"Fn.base64({_typescript(text, created, indent)})"
        case {"Fn::Sub": text}:
            names = [name for name in created if f"${{{name}}}" in text]
            values = ", ".join(f"{name}: {_variable(name)}.ref" for name in names)
            variables = f", {{ {values} }}" if names else ""
            return f"Fn.sub({json.dumps(text, ensure_ascii=False)}{variables})"
    fields = "".join(
        f"{inner}{json.dumps(key)}: {_typescript(item, created, inner)},\n"
        for key, item in value.items()
    )
    return f"{{\n{fields}{indent}}}"


def _terraform(attachment: Attachment, resources: _Resources) -> str:
    """Return resources in HCL, and the environment's block in comments."""
    return _header(attachment, "#") + "".join(_hcl(attachment, resources))


def _hcl(attachment: Attachment, resources: _Resources) -> Iterator[str]:
    names = {secret: terraform.snake_case(secret) for secret in resources.secrets}
    for name in names.values():
        description = f"Registry credentials of {attachment.environment.name}"
        yield _resource("aws_secretsmanager_secret", name, {"Description": description})
        created = Expression(f"aws_secretsmanager_secret.{name}.arn")
        policy = companion.secret_policy(attachment.role, created)
        policy["Statement"][0]["Principal"] = {"AWS": attachment.role.arn}
        yield _resource(
            "aws_secretsmanager_secret_policy",
            name,
            {"SecretArn": created, "Policy": Expression(f"jsonencode({_object(policy)})")},
        )
    if attachment.secret_arns:
        yield _resource(
            "aws_iam_role_policy",
            "registry_credentials",
            {
                "Role": attachment.role.name,
                "Policy": Expression(f"jsonencode({_object(_read_policy(attachment))})"),
            },
        )
    for name, spliced in resources.user_data.items():
        # Fn::Sub's text becomes data with marks in it, which the secrets' ARNs replace.
        ours = spliced.ours
        for secret in names:
            ours = ours.replace(f"${{{secret}}}", f"@{secret}@")
        encoded = base64.b64encode(ours.replace("${!", "${").encode()).decode()
        code = f"base64decode({terraform.text(encoded)})"
        for secret, resource in names.items():
            arn = f"aws_secretsmanager_secret.{resource}.arn"
            code = f"replace({code}, {terraform.text(f'@{secret}@')}, {arn})"
        data = {
            **resources.copies[name].copy.data,
            "UserData": Expression(
                f'join("", [{terraform.text(spliced.theirs)}, base64encode({code})])'
            ),
        }
        yield _resource("aws_launch_template", terraform.snake_case(name), data)
    yield "# And in the aws_batch_compute_environment, under compute_resources:\n"
    own, *others = resources.placed
    for line in _launch_template_block(own, ()):
        yield f"#   {line}"
    if others:
        yield "# Its overrides need a version of the AWS provider that knows them; 6.25 does not.\n"
    for name, reference in zip(others, attachment.environment.overrides, strict=True):
        yield f"# For {', '.join(reference.targets)}:\n"
        for line in _launch_template_block(name, reference.targets):
            yield f"#   {line}"


def _launch_template_block(name: str, targets: Sequence[str]) -> Iterator[str]:
    resource = f"aws_launch_template.{terraform.snake_case(name)}"
    block: dict[str, Any] = {
        "LaunchTemplateId": Expression(f"{resource}.id"),
        "Version": Expression(f"{resource}.latest_version"),
    }
    if targets:
        block["TargetInstanceTypes"] = list(targets)
    yield from terraform.body({"LaunchTemplate": block}, "")


def _resource(kind: str, name: str, fields: Mapping[str, Any]) -> str:
    return f'resource "{kind}" "{name}" {{\n{"".join(terraform.body(fields))}}}\n\n'


def _object(value: Any) -> str:
    """Write a value as an HCL expression, objects included."""
    if isinstance(value, dict):
        fields = ", ".join(
            f"{terraform.text(key)} = {_object(item)}" for key, item in value.items()
        )
        return f"{{ {fields} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_object, value))}]"
    return terraform.expression(value)

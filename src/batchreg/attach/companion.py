"""The template of a companion stack: what an attached environment uses, and what it had before.

The stack leaves the environment, its role and its launch templates alone. Its outputs have the
names of a stack that batchreg deploys, so that the other commands work on it as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troposphere import (
    Base64,
    FindInMap,
    GetAtt,
    If,
    Join,
    NoValue,
    Output,
    Ref,
    Select,
    Split,
    Sub,
    Template,
    ec2,
    iam,
    secretsmanager,
)

from batchreg import __version__
from batchreg.attach import archive
from batchreg.attach.environment import Environment, UpdatePolicy, created_by
from batchreg.attach.look import Copied
from batchreg.errors import BatchregError
from batchreg.render import template as stack_template
from batchreg.render.settings import Settings, suffix
from batchreg.render.text import to_yaml

# docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
TEMPLATE_LIMIT = 51_200

# Texts of ours that are as long as this are worth a place in Mappings where several copies use them.
SHARED_CHARACTERS = 300
MAPPING = "RegistryCredentials"


@dataclass(frozen=True, kw_only=True)
class InstanceRole:
    """The role behind an environment's instance profile. `id`: what IAM keeps for its ARN."""

    arn: str
    id: str

    @property
    def name(self) -> str:
        return self.arn.rpartition("/")[2]


@dataclass(frozen=True, kw_only=True)
class Attachment:
    """Everything that shapes a companion stack's template. The same values give the same bytes.

    `copies`: of the environment's launch template and its overrides, in order. `queues`: ARNs; the
    first is the one that people submit to. `slots`, `secret_arns`: as in Settings. `part`: our
    part of the user data, as text for `Fn::Sub`. `image_type`: what it changes to, if it does.
    """

    environment: Environment
    role: InstanceRole
    queues: tuple[str, ...]
    copies: tuple[Copied, ...]
    part: str
    slots: tuple[int, ...] = (1,)
    secret_arns: tuple[str, ...] = ()
    image_type: str = ""


def build(attachment: Attachment) -> Template:
    """Return the template. Raises BatchregError where the user data or the template is too long."""
    settings = Settings(secret_arns=attachment.secret_arns, slots=attachment.slots)
    base = stack_template.build(settings)
    template = Template(
        "Registry credentials for the AWS Batch compute environment "
        f"{attachment.environment.name}, which something else created."
    )
    template.set_version()
    _parameters(template, base)
    _take(template, base, *(name for name in base.resources if name.startswith("RegistrySecret")))
    _policies(template, attachment)
    _take(template, base, "JobExecutionRole")
    placed = _launch_templates(template, attachment)
    _outputs(template, attachment)
    metadata = {"Version": __version__, "SecretArns": list(attachment.secret_arns)}
    template.set_metadata(
        {"batchreg": {**metadata, "Attached": _record(attachment, placed)}, **template.metadata}
    )
    _refuse_what_is_too_long(template, placed)
    return template


def places(copies: Sequence[Copied]) -> tuple[str, ...]:
    """Return the logical id of the launch template for each copy; identical copies share one."""
    distinct: list[Any] = []
    for copied in copies:
        if (content := (copied.copy.data, copied.copy.user_data)) not in distinct:
            distinct.append(content)
    return tuple(
        f"LaunchTemplate{suffix(distinct.index((copied.copy.data, copied.copy.user_data)) + 1)}"
        for copied in copies
    )


def secret_ids(attachment_secret_arns: Sequence[str], slots: Sequence[int]) -> tuple[str, ...]:
    """Return what our part of the user data calls the secrets: ARNs, or placeholders."""
    return tuple(attachment_secret_arns) or tuple(
        f"${{RegistrySecret{suffix(slot)}}}" for slot in slots
    )


def secret_policy(role: InstanceRole) -> dict[str, Any]:
    """Return a secret's resource policy that lets the role of the instances read it."""
    arn = "arn:${AWS::Partition}:iam::${AWS::AccountId}:" + role.arn.split(":", 5)[5]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                # IAM replaces the ARN by the role's id. A role that was deleted and created again
                # has another, and only a changed policy names it.
                "Sid": f"Read{role.id}",
                "Effect": "Allow",
                "Principal": {"AWS": Sub(arn)},
                "Action": "secretsmanager:GetSecretValue",
                "Resource": "*",
            }
        ],
    }


def shared(part: str) -> tuple[str, dict[str, str]]:
    """Return our part with its long constant texts replaced by placeholders, and the texts."""
    texts: dict[str, str] = {}
    pieces = re.split(r"(\$\{[^!][^}]*\})", part)
    for index, piece in enumerate(pieces):
        if len(piece) >= SHARED_CHARACTERS:
            name = f"Text{len(texts) + 1}"
            # What takes a placeholder's place is not read again: a literal ${ needs no escape.
            texts[name] = piece.replace("${!", "${")
            pieces[index] = f"${{{name}}}"
    return "".join(pieces), texts


def _take(template: Template, base: Template, *names: str) -> None:
    """Add resources of a normal stack, with the outputs that are about them."""
    for name in names:
        template.add_resource(base.resources[name])
        template.add_output(base.outputs[f"{name}Arn"])


def _parameters(template: Template, base: Template) -> None:
    """Add the parameters of a normal stack that are about credentials, with their labels."""
    interface = base.metadata["AWS::CloudFormation::Interface"]
    groups = []
    for group in interface["ParameterGroups"]:
        kept = [name for name in group["Parameters"] if _is_about_credentials(name)]
        if kept:
            groups.append({**group, "Parameters": kept})
        for name in kept:
            template.add_parameter(base.parameters[name])
    labels = interface["ParameterLabels"]
    template.set_metadata(
        {
            "AWS::CloudFormation::Interface": {
                "ParameterGroups": groups,
                "ParameterLabels": {name: labels[name] for name in template.parameters},
            }
        }
    )
    template.add_condition("HasKmsKey", base.conditions["HasKmsKey"])


def _is_about_credentials(parameter: str) -> bool:
    return parameter in ("KmsKeyArn", "CredentialRefreshMinutes") or bool(
        re.fullmatch("(RegistryUrl|Username|Password)[0-9]*", parameter)
    )


def _policies(template: Template, attachment: Attachment) -> None:
    """Let the environment's own role read the secrets, without a change to that role if possible.

    A resource policy on a secret of ours is enough in one account, survives Terraform's exclusive
    inline policies, and does not keep anybody from deleting the role.
    """
    role = attachment.role
    for slot in () if attachment.secret_arns else attachment.slots:
        template.add_resource(
            secretsmanager.ResourcePolicy(
                f"RegistrySecretPolicy{suffix(slot)}",
                SecretId=Ref(f"RegistrySecret{suffix(slot)}"),
                ResourcePolicy=secret_policy(role),
            )
        )
    decrypt = {
        "Effect": "Allow",
        "Action": "kms:Decrypt",
        "Resource": Ref("KmsKeyArn"),
        "Condition": {
            "StringEquals": {
                "kms:ViaService": Sub("secretsmanager.${AWS::Region}.${AWS::URLSuffix}")
            }
        },
    }
    statements: list[Any] = [decrypt]
    options: dict[str, Any] = {"Condition": "HasKmsKey"}
    if attachment.secret_arns:
        read = {
            "Effect": "Allow",
            "Action": "secretsmanager:GetSecretValue",
            "Resource": list(attachment.secret_arns),
        }
        statements = [read, If("HasKmsKey", decrypt, NoValue)]
        options = _lint_exception(attachment)
    # AWS::IAM::Policy refuses a name that another stack has, and has no drift detection.
    template.add_resource(
        iam.RolePolicy(
            "InstanceRolePolicy",
            RoleName=role.name,
            PolicyName=Join("-", ["batchreg", Select(2, Split("/", Ref("AWS::StackId")))]),
            PolicyDocument={"Version": "2012-10-17", "Statement": statements},
            **options,
        )
    )


def _launch_templates(template: Template, attachment: Attachment) -> tuple[str, ...]:
    """Add a launch template for each distinct copy; return the logical ids, one for each copy."""
    placed = places(attachment.copies)
    part, texts = attachment.part, dict[str, str]()
    if len(set(placed)) > 1:
        part, texts = shared(attachment.part)
        template.add_mapping(MAPPING, {"UserData": texts})
    found = {name: FindInMap(MAPPING, "UserData", name) for name in texts}
    for logical_id, copied in dict(zip(placed, attachment.copies, strict=True)).items():
        spliced = archive.splice(copied.archive, attachment.part)
        ours = spliced.ours.replace(attachment.part.rstrip(), part.rstrip())
        data = ec2.LaunchTemplateData.from_dict("LaunchTemplateData", copied.copy.data)
        data.UserData = Join("", [spliced.theirs, Base64(Sub(ours, **found))])
        template.add_resource(
            ec2.LaunchTemplate(logical_id, LaunchTemplateData=data, **_lint_exception(attachment))
        )
    return placed


def _lint_exception(attachment: Attachment) -> dict[str, Any]:
    """I3042 asks for pseudo parameters in ARNs; the ARN of a secret of one's own is what it is."""
    exception = {"cfn-lint": {"config": {"ignore_checks": ["I3042"]}}}
    return {"Metadata": exception} if attachment.secret_arns else {}


def _outputs(template: Template, attachment: Attachment) -> None:
    def add(name: str, value: Any, text: str) -> None:
        template.add_output(Output(name, Description=text, Value=value))

    for name in template.resources:
        if name.startswith("LaunchTemplate"):
            add(f"{name}Id", Ref(name), "Copy of a launch template, with the credentials")
            add(f"{name}Version", GetAtt(name, "LatestVersionNumber"), "Its newest version")
    add("InstanceRoleArn", attachment.role.arn, "Role of the instances, created elsewhere")
    add(
        "ComputeEnvironmentArn",
        attachment.environment.arn,
        "Compute environment, created elsewhere",
    )
    for queue in attachment.queues[:1]:
        add("JobQueueArn", queue, "Job queue, created elsewhere: submit your jobs here")


def _record(attachment: Attachment, placed: Sequence[str]) -> dict[str, Any]:
    """Return what `detach` needs to put everything back, and what status and doctor compare."""
    environment = attachment.environment
    record: dict[str, Any] = {
        "ComputeEnvironment": environment.name,
        "CreatedBy": created_by(environment).name,
        "JobQueues": list(attachment.queues),
        "UpdatePolicy": {
            "TerminateJobsOnUpdate": environment.update_policy.terminate_jobs,
            "JobExecutionTimeoutMinutes": environment.update_policy.job_timeout_minutes,
        },
        "Copies": [
            {"Copy": name, "Base": copied.base.id, "BaseVersion": copied.base.version}
            if copied.base.id
            else {"Copy": name}
            for name, copied in zip(placed, attachment.copies, strict=True)
        ],
    }
    if environment.specification:
        record["LaunchTemplate"] = dict(environment.specification)
    if attachment.image_type:
        record["ImageType"] = attachment.image_type
        record["Ec2Configuration"] = [dict(image) for image in environment.ec2_configuration]
    return record


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a companion stack's template says of the environment before it was attached.

    `copies`: (logical id, id of the base template or "", its version or 0), in order.
    """

    environment: str
    created_by: str
    queues: tuple[str, ...]
    specification: Mapping[str, Any] | None
    update_policy: UpdatePolicy
    copies: tuple[tuple[str, str, int], ...]
    secret_arns: tuple[str, ...]
    image_type: str = ""
    ec2_configuration: tuple[Mapping[str, Any], ...] = ()


def recorded(template: Mapping[str, Any]) -> Recorded | None:
    """Return what a parsed template records, None for a template of any other kind."""
    ours = template.get("Metadata", {}).get("batchreg", {})
    if "Attached" not in ours:
        return None
    record = ours["Attached"]
    policy = record["UpdatePolicy"]
    return Recorded(
        environment=record["ComputeEnvironment"],
        created_by=record["CreatedBy"],
        queues=tuple(record["JobQueues"]),
        specification=record.get("LaunchTemplate"),
        update_policy=UpdatePolicy(
            terminate_jobs=policy["TerminateJobsOnUpdate"],
            job_timeout_minutes=policy["JobExecutionTimeoutMinutes"],
        ),
        copies=tuple(
            (copy["Copy"], copy.get("Base", ""), copy.get("BaseVersion", 0))
            for copy in record["Copies"]
        ),
        secret_arns=tuple(ours["SecretArns"]),
        image_type=record.get("ImageType", ""),
        ec2_configuration=tuple(record.get("Ec2Configuration", ())),
    )


def _refuse_what_is_too_long(template: Template, placed: Sequence[str]) -> None:
    size = len(to_yaml(template).encode())
    if size > TEMPLATE_LIMIT:
        count = len(set(placed))
        raise BatchregError(
            f"The companion stack's template is {size:,} bytes, of which {count} different launch "
            f"templates take most; CloudFormation's limit is {TEMPLATE_LIMIT:,}.",
            "Let overrides share a launch template, or shorten their user data by fetching longer "
            f"scripts from S3, {archive.ELSEWHERE}.",
        )

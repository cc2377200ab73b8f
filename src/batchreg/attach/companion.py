"""The template of a companion stack: what an attached environment uses, and what it had before.

The stack leaves the environment, its role and its launch templates alone. Its outputs have the
names of a stack that batchreg deploys, so that the other commands work on it as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from troposphere import (
    Base64,
    FindInMap,
    GetAtt,
    Join,
    Output,
    Ref,
    Select,
    Split,
    Sub,
    Template,
    batch,
    ec2,
    iam,
    secretsmanager,
)

from batchreg.attach import archive, blue_green
from batchreg.attach.environment import Environment, Queue, UpdatePolicy, created_by
from batchreg.attach.look import Copied
from batchreg.errors import BatchregError
from batchreg.render import cache, userdata
from batchreg.render import template as stack_template
from batchreg.render.policies import allow, document
from batchreg.render.settings import Cached, Settings, suffix
from batchreg.render.text import to_yaml

# docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
TEMPLATE_LIMIT = 51_200

JOIN: dict[str, Any] = {"on_failure": "join", "image_pull_behavior": None}
MAPPING = "RegistryCredentials"

GREEN = "ComputeEnvironment"


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

    `copies`: of the environment's launch template and its overrides, in order. `queues`: as they
    were before; the first is the one that people submit to. `slots`, `secret_arns`: as in Settings.
    `image_type`: what it changes to, if it does. `green`: a copy of the environment, where the
    environment itself cannot be updated. `cached`: as in Settings; where ECR pulls from all
    registries there are no `copies`.
    """

    environment: Environment
    role: InstanceRole
    queues: tuple[Queue, ...]
    copies: tuple[Copied, ...]
    slots: tuple[int, ...] = (1,)
    secret_arns: tuple[str, ...] = ()
    image_type: str = ""
    green: blue_green.Copy | None = None
    cached: Cached = ()

    @property
    def settings(self) -> Settings:
        """Return the settings of a normal stack with the same registries."""
        return Settings(secret_arns=self.secret_arns, slots=self.slots, cached=self.cached)

    @property
    def on_instances(self) -> tuple[int, ...]:
        """Return the slots whose secrets the stack creates for the instances."""
        return () if self.secret_arns else self.settings.on_instances


def build(attachment: Attachment) -> Template:
    """Return the template. Raises BatchregError where the user data or the template is too long."""
    base = stack_template.build(attachment.settings)
    template = Template(
        "Registry credentials for the AWS Batch compute environment "
        f"{attachment.environment.name}, which something else created."
    )
    template.set_version()
    _parameters(template, base)
    _take(
        template,
        base,
        *(name for name in base.resources if name.startswith(("RegistrySecret", "Cache"))),
    )
    _policies(template, attachment)
    _take(template, base, "JobExecutionRole")
    if "KeyPolicy" in base.resources:
        template.add_resource(stack_template.key_policy(base.resources["JobExecutionRole"]))
    placed = _launch_templates(template, attachment)
    if attachment.green:
        _green(template, attachment, attachment.green)
    _outputs(template, attachment)
    metadata = {
        key: value
        for key, value in base.metadata["batchreg"].items()
        if key in ("Version", "SecretArns", "Cached")
    }
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


def our_part(attachment: Attachment) -> str:
    """Return our part of the user data, as text for `Fn::Sub`.

    An environment worked before we came, so that its instances join without credentials as well,
    and the agent keeps every other setting. The program is packed: the room is theirs.
    """
    return userdata.part(_secret_ids(attachment), **JOIN, packed=True)


def _secret_ids(attachment: Attachment) -> tuple[str, ...]:
    return attachment.secret_arns or tuple(
        f"${{RegistrySecret{suffix(slot)}}}" for slot in attachment.on_instances
    )


def secret_policy(role: InstanceRole, secret: Any) -> dict[str, Any]:
    """Return a resource policy that lets the role of the instances read `secret`, an ARN."""
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
                "Resource": secret,
            }
        ],
    }


def _take(template: Template, base: Template, *names: str) -> None:
    """Add resources of a normal stack, with the outputs that are about them."""
    for name in names:
        template.add_resource(base.resources[name])
        output = name.replace("Rule", "RepositoryPrefix") if "Rule" in name else f"{name}Arn"
        if output in base.outputs:
            template.add_output(base.outputs[output])


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
    return parameter in (
        "KmsKeyArn",
        "CredentialRefreshMinutes",
        "CachePrefix",
        "CacheDays",
    ) or bool(re.fullmatch("(RegistryUrl|Username|Password)[0-9]*", parameter))


def _policies(template: Template, attachment: Attachment) -> None:
    """Let the environment's own role read the secrets, without a change to that role if possible.

    A resource policy on a secret of ours is enough in one account, survives Terraform's exclusive
    inline policies, and does not keep anybody from deleting the role.
    """
    role = attachment.role
    for slot in attachment.on_instances:
        template.add_resource(
            secretsmanager.ResourcePolicy(
                f"RegistrySecretPolicy{suffix(slot)}",
                SecretId=Ref(f"RegistrySecret{suffix(slot)}"),
                ResourcePolicy=secret_policy(role, Ref(f"RegistrySecret{suffix(slot)}")),
            )
        )
    if attachment.secret_arns:
        reading = document(
            allow("secretsmanager:GetSecretValue", Resource=list(attachment.secret_arns))
        )
        exception = lint_exception(attachment)
        template.add_resource(
            _role_policy(role, "InstanceRolePolicy", "batchreg", reading, **exception)
        )
    elif attachment.cached:
        pulling = document(*cache.pull_statements())
        template.add_resource(_role_policy(role, "InstanceRolePolicy", "batchreg", pulling))
    if attachment.secret_arns or attachment.on_instances:
        decrypt = stack_template.decrypt_policy()
        template.add_resource(
            _role_policy(
                role, "InstanceRoleKeyPolicy", "batchreg-key", decrypt, Condition="HasKmsKey"
            )
        )


def _role_policy(
    role: InstanceRole, logical_id: str, name: str, document: dict[str, Any], **options: Any
) -> iam.RolePolicy:
    # AWS::IAM::Policy refuses a name that another stack has, and has no drift detection.
    return iam.RolePolicy(
        logical_id,
        RoleName=role.name,
        PolicyName=Join("-", [name, Select(2, Split("/", Ref("AWS::StackId")))]),
        PolicyDocument=document,
        **options,
    )


def _launch_templates(template: Template, attachment: Attachment) -> tuple[str, ...]:
    """Add a launch template for each distinct copy; return the logical ids, one for each copy."""
    placed = places(attachment.copies)
    if not placed:
        return ()
    whole = part = our_part(attachment)
    program = {}
    if len(set(placed)) > 1:
        # What takes a placeholder's place is not read again, so that the text needs no escapes.
        template.add_mapping(MAPPING, {"UserData": {"Program": userdata.constant_portion(True)}})
        program = {"Program": FindInMap(MAPPING, "UserData", "Program")}
        part = userdata.variable_portion(_secret_ids(attachment), **JOIN) + "${Program}"
    for logical_id, copied in dict(zip(placed, attachment.copies, strict=True)).items():
        spliced = archive.splice(copied.archive, whole)
        ours = spliced.ours.replace(whole.rstrip(), part)
        data = ec2.LaunchTemplateData.from_dict("LaunchTemplateData", copied.copy.data)
        data.UserData = Join("", [spliced.theirs, Base64(Sub(ours, **program))])
        template.add_resource(
            ec2.LaunchTemplate(
                logical_id,
                LaunchTemplateData=data,
                VersionDescription=_description(attachment, copied),
                Metadata=launch_template_metadata(attachment),
            )
        )
    return placed


def _description(attachment: Attachment, copied: Copied) -> str:
    """Say what a version was copied from, and change with what `detach` has to know.

    CloudFormation ignores an update of a template's metadata alone.
    """
    environment = attachment.environment
    known = [
        environment.specification,
        environment.update_policy.terminate_jobs,
        environment.update_policy.job_timeout_minutes,
        attachment.image_type,
    ]
    digest = sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:8]
    base = copied.base
    what = (
        f"Copy of {base.id}, version {base.version}"
        if base.id
        else "For an environment without one"
    )
    return f"{what} ({digest})"


def launch_template_metadata(attachment: Attachment) -> dict[str, Any]:
    """Silence CKV_AWS_79, which asks for IMDSv2: a copy has the options of what it is a copy of."""
    comment = "Metadata options are the environment owner's."
    skipped: dict[str, Any] = {"checkov": {"skip": [{"id": "CKV_AWS_79", "comment": comment}]}}
    return {**skipped, **lint_exception(attachment).get("Metadata", {})}


def lint_exception(attachment: Attachment) -> dict[str, Any]:
    """I3042 asks for pseudo parameters in ARNs; the ARN of a secret of one's own is what it is."""
    exception = {"cfn-lint": {"config": {"ignore_checks": ["I3042"]}}}
    return {"Metadata": exception} if attachment.secret_arns else {}


def specification(attachment: Attachment, prefix: str = "") -> dict[str, Any]:
    """Return the property LaunchTemplate of an environment that uses the copies."""
    own, *others = (prefix + name for name in places(attachment.copies))

    def used(name: str) -> dict[str, Any]:
        return {"LaunchTemplateId": Ref(name), "Version": GetAtt(name, "LatestVersionNumber")}

    whole = used(own)
    if others:
        whole["Overrides"] = [
            {**used(name), "TargetInstanceTypes": list(reference.targets)}
            for name, reference in zip(others, attachment.environment.overrides, strict=True)
        ]
    return whole


def _green(template: Template, attachment: Attachment, green: blue_green.Copy) -> None:
    resources = {
        **green.properties["ComputeResources"],
        "LaunchTemplate": specification(attachment),
    }
    environment = batch.ComputeEnvironment(GREEN, Type="MANAGED")
    # Not as arguments: troposphere takes UpdatePolicy for the resource attribute of that name.
    environment.properties.update({**green.properties, "ComputeResources": resources})
    template.add_resource(environment)


def _outputs(template: Template, attachment: Attachment) -> None:
    def add(name: str, value: Any, text: str) -> None:
        template.add_output(Output(name, Description=text, Value=value))

    for name in template.resources:
        if name.startswith("LaunchTemplate"):
            add(f"{name}Id", Ref(name), "Copied launch template")
            add(f"{name}Version", GetAtt(name, "LatestVersionNumber"), "Its version")
    add("InstanceRoleArn", attachment.role.arn, "Role of the instances, created elsewhere")
    if attachment.green:
        add("ComputeEnvironmentArn", Ref(GREEN), "Copy of the compute environment")
    else:
        arn = attachment.environment.arn
        add("ComputeEnvironmentArn", arn, "Compute environment, created elsewhere")
    for queue in attachment.queues[:1]:
        add("JobQueueArn", queue.arn, "Job queue, created elsewhere: submit your jobs here")


def _record(attachment: Attachment, placed: Sequence[str]) -> dict[str, Any]:
    """Return what `detach` needs to put everything back, and what status and doctor compare."""
    environment = attachment.environment
    record: dict[str, Any] = {
        "ComputeEnvironment": environment.name,
        "CreatedBy": created_by(environment).name,
        "JobQueues": [
            {"Arn": queue.arn, "ComputeEnvironments": list(queue.environments)}
            for queue in attachment.queues
        ],
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
    if attachment.green:
        record["BlueGreen"] = True
    if attachment.image_type:
        record["ImageType"] = attachment.image_type
        record["Ec2Configuration"] = [dict(image) for image in environment.ec2_configuration]
    return record


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a companion stack's template says of the environment before it was attached.

    `queues`: {ARN: its environments then, in order}. `copies`: (logical id, id of the base template
    or "", its version or 0), in order; without any, ECR pulls all images. `blue_green`: the stack
    has a copy of the environment.
    """

    environment: str
    created_by: str
    queues: Mapping[str, tuple[str, ...]]
    specification: Mapping[str, Any] | None
    update_policy: UpdatePolicy
    copies: tuple[tuple[str, str, int], ...]
    image_type: str = ""
    ec2_configuration: tuple[Mapping[str, Any], ...] = ()
    blue_green: bool = False

    @property
    def cache_alone(self) -> bool:
        """Tell whether ECR pulls from all registries, so that the environment stays as it is."""
        return not self.copies

    @property
    def updates(self) -> bool:
        """Tell whether the environment itself uses a launch template of the stack."""
        return not self.blue_green and not self.cache_alone


def recorded(record: Mapping[str, Any]) -> Recorded:
    """Return what a companion stack's metadata record (`Deployed.attached`)."""
    policy = record["UpdatePolicy"]
    return Recorded(
        environment=record["ComputeEnvironment"],
        created_by=record["CreatedBy"],
        queues={queue["Arn"]: tuple(queue["ComputeEnvironments"]) for queue in record["JobQueues"]},
        specification=record.get("LaunchTemplate"),
        update_policy=UpdatePolicy(
            terminate_jobs=policy["TerminateJobsOnUpdate"],
            job_timeout_minutes=policy["JobExecutionTimeoutMinutes"],
        ),
        copies=tuple(
            (copy["Copy"], copy.get("Base", ""), copy.get("BaseVersion", 0))
            for copy in record["Copies"]
        ),
        image_type=record.get("ImageType", ""),
        ec2_configuration=tuple(record.get("Ec2Configuration", ())),
        blue_green=record.get("BlueGreen", False),
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

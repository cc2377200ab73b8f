"""Repairs that several rules call for: (fix, step), either of them empty."""

from __future__ import annotations

import json

from batchreg.doctor.facts import Environment, Facts, LaunchTemplate, Role, Secret
from batchreg.doctor.rules import main
from batchreg.doctor.rules.commands import aws, batchreg, deploy, repeated, second_stack

# EC2 makes no version without data of its own: this is what the stack's template says already.
SAME_DATA = "InstanceInitiatedShutdownBehavior=terminate"
SHAPE = '{"username": "...", "password": "...", "registry_url": "..."}'


def replace_environment(facts: Facts, environment: Environment) -> tuple[str, str]:
    """Return (fix, step) for a compute environment that no update can repair.

    A deploy replaces the one on EC2, behind the same queue.
    """
    fargate = environment.fargate or "FargateComputeEnvironment" in environment.name
    if facts.stack and facts.ours and not fargate:
        return deploy(facts, "--replace-environment"), ""
    return "", second_stack(facts)


def restore_launch_template(facts: Facts) -> tuple[str, str]:
    """Return (fix, step) that make the compute environment use what the stack's template says.

    A deploy cannot: CloudFormation sees no change where somebody has added a version by hand. Only
    a version that has the stack's user data and disk size is restored. It becomes the newest
    again, or the next deploy would switch to the one made by hand; nothing is deleted.
    """
    template = facts.launch_template
    environment = main(facts)
    if not facts.ours and template and environment:
        use = ("batch", "update-compute-environment", "--compute-environment", environment.name)
        key = "launchTemplateId" if template.id.startswith("lt-") else "launchTemplateName"
        specification = f"launchTemplate={{{key}={template.id},version=N}}"
        return "", (
            f"Fix it in a new version N of {template.id}, then let the compute environment use it: "
            f"{aws(facts, *use)} --compute-resources '{specification}'"
        )
    if not template or not environment or template.restorable in (0, template.version):
        return "", (
            "Fix your own part of the user data, then deploy it: "
            f"{deploy(facts, '--user-data')} FILE"
        )
    number = str(template.restorable)
    if template.restorable < template.latest:
        number = f"$({copy_version(facts, template)})"
    specification = f"launchTemplate={{launchTemplateId={template.id},version={number}}}"
    update = ("batch", "update-compute-environment", "--compute-environment", environment.name)
    step = (
        f"Version {template.restorable} is the one that the stack deployed. Switching to it "
        "replaces the instances; jobs that are running keep the time that the update policy of the "
        "compute environment gives them."
    )
    return f'{aws(facts, *update)} --compute-resources "{specification}"', step


def copy_version(facts: Facts, template: LaunchTemplate) -> str:
    """Return the command that makes the stack's version the newest, and prints its number."""
    return aws(
        facts,
        *("ec2", "create-launch-template-version", "--launch-template-id", template.id),
        *("--source-version", str(template.restorable)),
        *("--launch-template-data", SAME_DATA),
        *("--query", "LaunchTemplateVersion.VersionNumber", "--output", "text"),
    )


def rewrite(facts: Facts, secret: Secret) -> tuple[str, str]:
    """Return (fix, step) that put correct credentials into a secret, whoever made it."""
    if secret.owned:
        return batchreg(
            facts, "rotate", *repeated("--registry", filter(None, [secret.registry]))
        ), ""
    command = aws(
        facts,
        *("secretsmanager", "put-secret-value", "--secret-id", secret.name),
        *("--secret-string", "file://credentials.json"),
    )
    return "", f"The secret is your own. Put {SHAPE} into credentials.json, then run: {command}"


def attach_agent_policy(facts: Facts, role: Role) -> str:
    """Return the command that lets a role register instances and write the jobs' logs."""
    return attach_policy(facts, role, "AmazonEC2ContainerServiceforEC2Role")


def attach_policy(facts: Facts, role: Role, name: str) -> str:
    """Return the command that gives a role one of AWS's own policies for services."""
    return aws(
        facts,
        *("iam", "attach-role-policy", "--role-name", role.name),
        *("--policy-arn", f"arn:{role.partition}:iam::aws:policy/service-role/{name}"),
    )


def trust(facts: Facts, role: Role, service: str) -> tuple[str, str]:
    """Return (fix, step) that let a service take a role; whoever else is trusted stays so."""
    if not role.trust:
        return "", f"Add {service}.amazonaws.com to the trust policy, in the IAM console."
    policy = json.loads(role.trust)
    statements = policy.get("Statement", [])
    policy["Statement"] = [
        *([statements] if isinstance(statements, dict) else statements),
        {
            "Effect": "Allow",
            "Principal": {"Service": f"{service}.amazonaws.com"},
            "Action": "sts:AssumeRole",
        },
    ]
    command = ("iam", "update-assume-role-policy", "--role-name", role.name)
    return aws(facts, *command, "--policy-document", json.dumps(policy)), ""


def unusable(facts: Facts, role: Role, service: str) -> tuple[str, str, str] | None:
    """Return (text, fix, step) where a service cannot take a role, None where it can."""
    if not role.exists:
        return f"IAM has no role named {role.name}.", "", "Create it again under the same name."
    if not role.trusted:
        text = f"The trust policy of {role.name} does not allow {service}.amazonaws.com."
        return text, *trust(facts, role, service)
    return None

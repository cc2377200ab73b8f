"""From the secret to the ECS agent: the credentials, the role, the launch template."""

from __future__ import annotations

import json
from collections import Counter

from batchreg.doctor.facts import Denial, Facts, LaunchTemplate, Role, Secret
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, batchreg, deploy, repeated, second_stack
from batchreg.doctor.rules.stack import restore_launch_template

RULES = Table()
rule = RULES.rule

SECRETS = "docs.aws.amazon.com/secretsmanager/latest/"
PROGRAM = "registry_login.py, the program on the instance"
SIMULATION = "docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html"
AGENT_ROLE = "docs.aws.amazon.com/AmazonECS/latest/developerguide/instance_IAM_role.html"
USER_DATA = "docs.aws.amazon.com/AWSEC2/latest/UserGuide/user-data.html"

SHAPE = '{"username": "...", "password": "...", "registry_url": "..."}'
READ_POLICY = "ReadRegistryLogin"  # of the template's instance role


def readable(facts: Facts) -> list[Secret]:
    return [secret for secret in facts.secrets or () if secret.exists and not secret.deleted]


def own_registries(facts: Facts) -> list[str]:
    """Return the registries whose secrets the stack has made, as `deploy --registry` takes them."""
    return [one.registry for one in facts.secrets or () if one.owned and one.registry]


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


@rule(
    "secret-missing",
    "The secret with the credentials does not exist",
    layer=Layer.SECRET,
    source=SECRETS + "apireference/API_DescribeSecret.html",
)
def secret_missing(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if secret.exists:
            continue
        text = f"Secrets Manager has no secret named {secret.name}."
        others = [name for name in own_registries(facts) if name != secret.registry]
        if secret.owned and others:
            # Taken out and put in again: CloudFormation does not notice that the secret is gone.
            without = deploy(facts, *repeated("--registry", others))
            again = deploy(facts, *repeated("--registry", [*others, secret.registry]))
            yield Evidence(
                text,
                fix=f"{without} && {again}",
                step=f"The second command asks for the credentials of {secret.registry}.",
            )
        elif secret.owned:
            yield Evidence(text, step=second_stack(facts))
        else:
            yield Evidence(
                text,
                step=f"Create it again with {SHAPE} as its value, and give the stack its new ARN "
                f"in place of the old one: {_with_secrets(facts, secret)}",
            )


def _with_secrets(facts: Facts, lost: Secret) -> str:
    """Return the deploy command that keeps all secrets of the user's own but one."""
    arns = [one.arn for one in facts.secrets or () if not one.of_job and one.name != lost.name]
    return deploy(facts, *repeated("--secret-arn", arns), "--secret-arn") + " NEW-ARN"


@rule(
    "secret-deleted",
    "The secret with the credentials is scheduled for deletion",
    layer=Layer.SECRET,
    source=SECRETS + "apireference/API_RestoreSecret.html",
)
def secret_deleted(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if secret.exists and secret.deleted:
            yield Evidence(
                f"{secret.name} was marked for deletion at {secret.deleted}.",
                fix=aws(
                    facts,
                    "secretsmanager",
                    "restore-secret",
                    "--secret-id",
                    secret.arn or secret.name,
                ),
            )


@rule("secret-empty", "The secret has no text", layer=Layer.SECRET, source=PROGRAM)
def secret_empty(facts: Facts) -> Found:
    for secret in readable(facts):
        if not secret.has_value:
            yield Evidence(
                f"{secret.name} has no current value, or a binary one.", *rewrite(facts, secret)
            )


@rule("secret-not-json", "The secret is not JSON", layer=Layer.SECRET, source=PROGRAM)
def secret_not_json(facts: Facts) -> Found:
    for secret in readable(facts):
        if secret.has_value and not secret.is_json:
            yield Evidence(
                f"The value of {secret.name} is not a JSON object.", *rewrite(facts, secret)
            )


@rule("secret-incomplete", "The secret lacks a field", layer=Layer.SECRET, source=PROGRAM)
def secret_incomplete(facts: Facts) -> Found:
    for secret in readable(facts):
        lacking = [key for key in ("username", "password") if key not in secret.keys]
        if secret.has_value and secret.is_json and lacking:
            has = ", ".join(secret.keys) or "no field that batchreg knows"
            more = f" and {secret.others} more" if secret.others else ""
            yield Evidence(
                f"{secret.name} has {has}{more}, but no {' and no '.join(lacking)}.",
                *rewrite(facts, secret),
            )


@rule(
    "secret-unusable",
    "The credentials in the secret cannot work",
    layer=Layer.SECRET,
    source=PROGRAM,
)
def secret_unusable(facts: Facts) -> Found:
    for secret in readable(facts):
        if secret.problem and secret.is_json and {"username", "password"} <= set(secret.keys):
            yield Evidence(f"{secret.name}: {secret.problem}.", *rewrite(facts, secret))


@rule(
    "secrets-clash",
    "Two secrets have credentials for the same registry",
    layer=Layer.SECRET,
    source="amazon-ecs-agent, dockerauth.go: one key for each host",
)
def secrets_clash(facts: Facts) -> Found:
    usable = [secret for secret in facts.secrets or () if secret.host and not secret.of_job]
    for host, count in Counter(secret.host for secret in usable).items():
        if count > 1:
            names = [secret.name for secret in usable if secret.host == host]
            yield Evidence(
                f"{' and '.join(names)} are both for {host}; an instance can use only one.",
                step=f"Decide which one is right, and deploy the complete list without the other: "
                f"{_list_of_secrets(facts)}",
            )


def _list_of_secrets(facts: Facts) -> str:
    if names := own_registries(facts):
        return deploy(facts, *repeated("--registry", list(dict.fromkeys(names))))
    arns = [secret.arn or secret.name for secret in facts.secrets or () if not secret.of_job]
    return deploy(facts, *repeated("--secret-arn", arns))


@rule(
    "key-unusable",
    "The KMS key of the secret cannot be used",
    layer=Layer.SECRET,
    source="docs.aws.amazon.com/kms/latest/developerguide/key-state.html",
)
def key_unusable(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        text = f"The key {secret.key} of {secret.name} is {secret.key_state}."
        enable = aws(facts, "kms", "enable-key", "--key-id", secret.key)
        if secret.key_state == "PendingDeletion":
            cancel = aws(facts, "kms", "cancel-key-deletion", "--key-id", secret.key)
            yield Evidence(text, fix=f"{cancel} && {enable}")
        elif secret.key_state == "Disabled":
            yield Evidence(text, fix=enable)
        elif secret.key_state not in ("", "Enabled"):
            yield Evidence(
                text,
                step="Nothing can decrypt the secret until its key is usable. Use another key.",
            )


@rule("profile-missing", "The instances have no role", layer=Layer.ROLE, source=AGENT_ROLE)
def profile_missing(facts: Facts) -> Found:
    role = facts.role
    if not role:
        return
    profile = ("--instance-profile-name", role.profile)
    put = aws(facts, "iam", "add-role-to-instance-profile", *profile, "--role-name", role.name)
    if not role.exists:
        yield Evidence(f"IAM has no role named {role.name}.", step=second_stack(facts))
    elif not role.profile_exists:
        create = aws(facts, "iam", "create-instance-profile", *profile)
        yield Evidence(
            f"IAM has no instance profile named {role.profile}.",
            fix=f"{create} && {put}" if role.name else "",
            step="" if role.name else second_stack(facts),
        )
    elif not role.in_profile and role.name:
        take = aws(
            facts, "iam", "remove-role-from-instance-profile", *profile, "--role-name", role.held
        )
        yield Evidence(
            f"The instance profile {role.profile} has "
            f"{f'the role {role.held}' if role.held else 'no role'}, not {role.name}.",
            fix=f"{take} && {put}" if role.held else put,
        )
    elif not role.in_profile:
        yield Evidence(
            f"The instance profile {role.profile} has no role.", step=second_stack(facts)
        )


@rule(
    "role-not-trusted",
    "EC2 is not allowed to give the role to instances",
    layer=Layer.ROLE,
    source=AGENT_ROLE,
)
def role_not_trusted(facts: Facts) -> Found:
    role = facts.role
    if role and role.exists and not role.trusted:
        text = f"The trust policy of {role.name} does not allow ec2.amazonaws.com."
        if not role.trust:
            yield Evidence(
                text, step="Add ec2.amazonaws.com to the trust policy, in the IAM console."
            )
            return
        # Whoever else is trusted stays so.
        policy = json.loads(role.trust)
        statements = policy.get("Statement", [])
        policy["Statement"] = [
            *([statements] if isinstance(statements, dict) else statements),
            {
                "Effect": "Allow",
                "Principal": {"Service": "ec2.amazonaws.com"},
                "Action": "sts:AssumeRole",
            },
        ]
        yield Evidence(
            text,
            fix=aws(
                facts,
                *("iam", "update-assume-role-policy", "--role-name", role.name),
                *("--policy-document", json.dumps(policy)),
            ),
        )


@rule(
    "role-denied",
    "The instances are not allowed to read the secret",
    layer=Layer.ROLE,
    source=SIMULATION,
)
def role_denied(facts: Facts) -> Found:
    for role, denial in _denied(facts, "secretsmanager:"):
        # The policy that the stack gave to its role, whole and under its own name: a foreign one
        # would keep CloudFormation from deleting the role.
        arns = [one.arn for one in facts.secrets or () if one.arn and not one.of_job]
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Action": denial.action, "Resource": arns}],
        }
        fix = aws(
            facts,
            *("iam", "put-role-policy", "--role-name", role.name),
            *("--policy-name", READ_POLICY, "--policy-document", json.dumps(policy)),
        )
        yield _refusal(role, denial, fix if arns else "")


@rule(
    "key-denied",
    "The instances are not allowed to decrypt the secret",
    layer=Layer.ROLE,
    source=SECRETS + "userguide/security-encryption.html",
)
def key_denied(facts: Facts) -> Found:
    for role, denial in _denied(facts, "kms:"):
        known = facts.stack.kms_key if facts.stack else ""
        fix = deploy(facts, "--kms-key-arn", denial.resource) if not known else ""
        yield _refusal(
            role,
            denial,
            fix,
            f"Allow {denial.action} on the key, in the policy of the role {role.name} or in the "
            "key's own policy.",
        )


@rule(
    "role-without-ecs",
    "The instances are not allowed to join the ECS cluster",
    layer=Layer.ROLE,
    source=AGENT_ROLE,
)
def role_without_ecs(facts: Facts) -> Found:
    for role, denial in _denied(facts, "ecs:"):
        yield _refusal(role, denial, attach_agent_policy(facts, role))


def attach_agent_policy(facts: Facts, role: Role) -> str:
    """Return the command that lets a role register instances and write the jobs' logs."""
    name = "service-role/AmazonEC2ContainerServiceforEC2Role"
    return aws(
        facts,
        *("iam", "attach-role-policy", "--role-name", role.name),
        *("--policy-arn", f"arn:{role.partition}:iam::aws:policy/{name}"),
    )


@rule(
    "launch-template-missing",
    "The launch template does not exist",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeLaunchTemplateVersions.html",
)
def launch_template_missing(facts: Facts) -> Found:
    template = facts.launch_template
    if template and not template.exists:
        version = f" in version {template.version}" if template.version else ""
        text = f"EC2 has no launch template {template.id}{version}."
        if template.restorable:
            yield Evidence(text, *restore_launch_template(facts))
        else:
            yield Evidence(text, step=second_stack(facts))


@rule(
    "user-data-without-credentials",
    "The instances' user data fetches no credentials",
    layer=Layer.LAUNCH,
    source=PROGRAM,
)
def user_data_without_credentials(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.mime and not template.fetches_credentials:
        yield Evidence(
            f"Version {template.version} of the launch template {template.id} does not run "
            "registry_login.py with a secret.",
            *restore_launch_template(facts),
        )


@rule(
    "user-data-blocks",
    "The instances' user data waits for the ECS agent, which waits for the user data",
    layer=Layer.LAUNCH,
    source="github.com/aws/amazon-ecs-agent/issues/1707",
)
def user_data_blocks(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.blocks:
        text = f"It runs `{template.blocks}`, and ecs.service starts when the user data has ended."
        fix, step = restore_launch_template(facts) if template.differs else ("", "")
        yield Evidence(
            text,
            fix,
            step
            or "Put --no-block after systemctl in your part of the user data, then deploy it: "
            f"{deploy(facts, '--user-data')} FILE",
        )


@rule(
    "user-data-too-long",
    "The instances' user data is too long",
    layer=Layer.LAUNCH,
    source=USER_DATA,
)
def user_data_too_long(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.bytes > 16_384:
        fix, step = restore_launch_template(facts) if template.differs else ("", "")
        yield Evidence(
            f"It is {template.bytes:,} bytes; the limit is 16,384.",
            fix,
            step
            or f"Shorten your part of the user data, then deploy it: {deploy(facts, '--user-data')} "
            "FILE",
        )


@rule(
    "metadata-off",
    "The instances cannot get the credentials of their role",
    layer=Layer.LAUNCH,
    source="docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-IMDS-existing-instances.html",
)
def metadata_off(facts: Facts) -> Found:
    template = _existing(facts)
    if template and template.metadata == "disabled":
        yield Evidence(
            f"The launch template {template.id} disables the instance metadata service.",
            *restore_launch_template(facts),
        )


def _existing(facts: Facts) -> LaunchTemplate | None:
    template = facts.launch_template
    return template if template and template.exists else None


def _denied(facts: Facts, service: str) -> list[tuple[Role, Denial]]:
    role = facts.role
    if not role or not role.exists:
        return []
    return [(role, denial) for denial in role.denied if denial.action.startswith(service)]


def _refusal(role: Role, denial: Denial, fix: str, step: str = "") -> Evidence:
    """Return what IAM said and what helps: an allow statement helps only where nothing allows."""
    what = f"{denial.action} on {denial.resource}"
    match denial.by:
        case "statement":
            policy = f" ({denial.policy})" if denial.policy else ""
            return Evidence(
                f"A policy{policy} explicitly denies {role.name} {what}.",
                step="No allow statement overrides an explicit deny: remove it from that policy, or "
                "ask whoever manages the policy.",
            )
        case "boundary":
            return Evidence(
                f"The permissions boundary of {role.name} does not allow {what}.",
                step=f"Allow {denial.action} in the boundary as well, or ask whoever manages it: "
                "the role's own policies cannot.",
            )
        case "organization":
            return Evidence(
                f"A service control policy of your organization does not allow {role.name} {what}.",
                step="This cannot be fixed in this account: ask the administrator of the "
                "organization.",
            )
    return Evidence(f"No policy allows {role.name} {what}.", fix, "" if fix else step)

"""From the secret to the ECS agent: the login, the role, the launch template."""

from __future__ import annotations

from collections import Counter

from batchreg.doctor.facts import Facts, Secret
from batchreg.doctor.rules import Found, Table, deploy
from batchreg.doctor.rules.stack import restore_user_data

RULES = Table()
rule = RULES.rule

SHAPE = '{"username": "...", "password": "...", "registry_url": "ghcr.io"}'


def _put(facts: Facts, secret: Secret) -> str:
    """Return how to write the secret anew; `deploy` writes what the stack has made."""
    return (
        f"{deploy(facts)} with the login; a secret of your own: aws secretsmanager "
        f"put-secret-value --secret-id {secret.name} --secret-string file://login.json, with "
        f"{SHAPE} in the file"
    )


@rule("secret-missing", "The secret with the login is gone")
def secret_missing(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if not secret.exists:
            yield (
                f"Secrets Manager knows no secret {secret.name}.",
                f"batchreg destroy, then {deploy(facts)}; a secret of your own: make it anew and "
                f"{deploy(facts, '--secret-arn ARN')}",
            )


@rule("secret-deleted", "The secret with the login is marked for deletion")
def secret_deleted(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if secret.exists and secret.deleted:
            yield (
                f"{secret.name} is to be deleted since {secret.deleted}.",
                f"aws secretsmanager restore-secret --secret-id {secret.name}",
            )


@rule("secret-empty", "The secret holds no text")
def secret_empty(facts: Facts) -> Found:
    for secret in _readable(facts):
        if not secret.has_value:
            yield f"{secret.name} has no current value, or a binary one.", _put(facts, secret)


@rule("secret-not-json", "The secret is not JSON")
def secret_not_json(facts: Facts) -> Found:
    for secret in _readable(facts):
        if secret.has_value and not secret.is_json:
            yield f"The text of {secret.name} is no JSON object.", _put(facts, secret)


@rule("secret-incomplete", "The secret lacks a field")
def secret_incomplete(facts: Facts) -> Found:
    for secret in _readable(facts):
        lacking = [key for key in ("username", "password") if key not in secret.keys]
        if secret.has_value and secret.is_json and lacking:
            has = ", ".join(secret.keys) or "none of batchreg's fields"
            more = f" and {secret.others} more" if secret.others else ""
            yield (
                f"{secret.name} has {has}{more}, but no {' and no '.join(lacking)}.",
                _put(facts, secret),
            )


@rule("secret-unusable", "The login in the secret cannot work")
def secret_unusable(facts: Facts) -> Found:
    for secret in _readable(facts):
        if secret.problem and secret.is_json and {"username", "password"} <= set(secret.keys):
            yield f"{secret.name}: {secret.problem}.", _put(facts, secret)


@rule("secrets-clash", "Two secrets hold logins for one registry")
def secrets_clash(facts: Facts) -> Found:
    hosts = Counter(secret.host for secret in facts.secrets or () if secret.host)
    for host, count in hosts.items():
        if count > 1:
            names = " and ".join(
                secret.name for secret in facts.secrets or () if secret.host == host
            )
            yield (
                f"{names} are both for {host}; an instance can use one.",
                "Leave one out: batchreg deploy with the --secret-arn of the others",
            )


@rule("key-unusable", "The KMS key of the secret cannot be used")
def key_unusable(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if secret.key_state not in ("", "Enabled"):
            step = (
                "aws kms cancel-key-deletion, then enable-key"
                if "Deletion" in secret.key_state
                else "aws kms enable-key"
            )
            yield (
                f"The key {secret.key} of {secret.name} is {secret.key_state}.",
                f"{step} --key-id {secret.key}",
            )


@rule("profile-missing", "The instances have no role")
def profile_missing(facts: Facts) -> Found:
    role = facts.role
    if role and not role.profile_exists:
        yield (
            f"IAM knows no instance profile {role.profile}.",
            f"batchreg destroy, then {deploy(facts)}",
        )
    elif role and not role.exists:
        yield f"IAM knows no role {role.name}.", f"batchreg destroy, then {deploy(facts)}"
    elif role and not role.in_profile:
        yield (
            f"The instance profile {role.profile} does not hold the role {role.name}.",
            (
                "aws iam add-role-to-instance-profile --instance-profile-name "
                f"{role.profile} --role-name {role.name}"
            ),
        )


@rule("role-not-trusted", "EC2 may not give the role to the instances")
def role_not_trusted(facts: Facts) -> Found:
    if facts.role and facts.role.exists and not facts.role.trusted:
        yield (
            f"The trust policy of {facts.role.name} does not name ec2.amazonaws.com.",
            (
                f"IAM console, role {facts.role.name}, Trust relationships: allow ec2.amazonaws.com "
                "sts:AssumeRole"
            ),
        )


@rule("role-denied", "The instances may not read the secret")
def role_denied(facts: Facts) -> Found:
    yield from _denied(facts, "secretsmanager:")


@rule("key-denied", "The instances may not decrypt the secret")
def key_denied(facts: Facts) -> Found:
    for evidence, _ in _denied(facts, "kms:"):
        yield evidence, deploy(facts, "--kms-key-arn ARN") + " with the key's ARN"


@rule("role-without-ecs", "The instances may not join the ECS cluster")
def role_without_ecs(facts: Facts) -> Found:
    for evidence, _ in _denied(facts, "ecs:"):
        assert facts.role
        yield (
            evidence,
            (
                f"aws iam attach-role-policy --role-name {facts.role.name} --policy-arn "
                "arn:aws:iam::aws:policy/service-role/AmazonEC2ContainerServiceforEC2Role"
            ),
        )


@rule("launch-template-missing", "The launch template is gone")
def launch_template_missing(facts: Facts) -> Found:
    template = facts.launch_template
    if template and not template.exists:
        version = f" in version {template.version}" if template.version else ""
        yield (
            f"EC2 knows no launch template {template.id}{version}.",
            f"batchreg destroy, then {deploy(facts)}",
        )


@rule("user-data-without-login", "The instances' user data fetches no login")
def user_data_without_login(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.exists and template.mime and not template.has_login:
        yield (
            (
                f"Version {template.version} of the launch template {template.id} does not run "
                "registry_login.py."
            ),
            restore_user_data(facts),
        )


@rule("user-data-blocks", "The instances' user data waits for the ECS agent, which waits for it")
def user_data_blocks(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.blocks:
        yield (
            f"It runs `{template.blocks}`, and ecs.service starts when user data has ended.",
            f"Write --no-block behind systemctl, then {deploy(facts, '--user-data FILE')}",
        )


@rule("user-data-too-long", "The instances' user data is too long")
def user_data_too_long(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.bytes > 16_384:
        yield (
            f"It is {template.bytes:,} bytes long; EC2 takes 16,384.",
            f"Fetch longer scripts from S3 in it, then {deploy(facts, '--user-data FILE')}",
        )


@rule("metadata-off", "The instances cannot ask for their role's keys")
def metadata_off(facts: Facts) -> Found:
    template = facts.launch_template
    if template and template.metadata == "disabled":
        yield (
            f"The launch template {template.id} switches the instance metadata service off.",
            restore_user_data(facts),
        )


def _readable(facts: Facts) -> list[Secret]:
    return [secret for secret in facts.secrets or () if secret.exists and not secret.deleted]


def _denied(facts: Facts, service: str) -> Found:
    role = facts.role
    if role and role.exists:
        for action, resource in role.denied:
            if action.startswith(service):
                yield (
                    f"IAM denies {role.name} {action} on {resource}.",
                    (
                        f"{deploy(facts)}; if that changes nothing: IAM console, role {role.name}, "
                        f"allow {action} on {resource}"
                    ),
                )

"""The secrets with the credentials."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from batchreg.doctor.facts import Facts, Secret
from batchreg.doctor.rules import Evidence, Found, Layer, Table
from batchreg.doctor.rules.commands import aws, batchreg, deploy, repeated, second_stack
from batchreg.doctor.rules.repairs import SHAPE, rewrite

RULES = Table()
rule = RULES.rule

SECRETS = "docs.aws.amazon.com/secretsmanager/latest/"
PROGRAM = "registry_login.py, the program on the instance"


def readable(facts: Facts) -> list[Secret]:
    return [
        secret
        for secret in facts.secrets or ()
        if secret.exists and not secret.deleted and secret.seen
    ]


def fields_of(secret: Secret) -> tuple[str, str]:
    """Return the fields that a secret must have, for the instances or for ECR."""
    return "username", "accessToken" if secret.cached else "password"


def unusable(secret: Secret) -> bool:
    """Tell whether a rule of this module says that a secret cannot be used."""
    if not secret.exists or secret.deleted or secret.key_state not in ("", "Enabled"):
        return True
    lacking = not {*fields_of(secret)} <= {*secret.keys}
    whole = secret.has_value and secret.is_json and not lacking
    return secret.seen and (not whole or bool(secret.problem))


def own_registries(facts: Facts) -> list[str]:
    """Return the registries whose secrets the stack has made, as `deploy --registry` takes them."""
    return [one.registry for one in facts.secrets or () if one.owned and one.registry]


@rule(
    "secret-elsewhere",
    "The secret with the credentials is in another region",
    layer=Layer.SECRET,
    source=PROGRAM,
)
def secret_elsewhere(facts: Facts) -> Found:
    for secret in facts.secrets or ():
        if facts.region and secret.region not in ("", facts.region) and not secret.of_job:
            yield Evidence(
                f"{secret.name} is in {secret.region}; the instances look for it in "
                f"{facts.region}.",
                step="Replicate it, then give the instances the ARN of the replica: "
                f"{_replicate(facts, secret)}",
            )


def _replicate(facts: Facts, secret: Secret) -> str:
    command = ("secretsmanager", "replicate-secret-to-regions", "--secret-id", secret.arn)
    there = replace(facts, region=secret.region)
    return aws(there, *command, "--add-replica-regions", f"Region={facts.region}")


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
        if secret.owned and others and facts.ours:
            # Taken out and put in again: CloudFormation does not notice that the secret is gone.
            without = deploy(facts, *repeated("--registry", others))
            by_ecr = [one.registry for one in facts.secrets or () if one.cached]
            caching = ["--pull-through-cache", ",".join(by_ecr)] if secret.cached else []
            again = deploy(facts, *repeated("--registry", [*others, secret.registry]), *caching)
            yield Evidence(
                text,
                fix=f"{without} && {again}",
                step=f"The second command asks for the credentials of {secret.registry}.",
            )
        elif secret.owned and facts.attached:
            yield Evidence(
                text,
                step=f"Detach the environment, then attach it again: {batchreg(facts, 'destroy')}",
            )
        elif secret.owned:
            yield Evidence(text, step=second_stack(facts))
        else:
            yield Evidence(
                text,
                step=f"Create it again with {SHAPE} as its value, and give the stack its new ARN "
                f"in place of the old one: {_with_secrets(facts, secret)}"
                if facts.ours
                else f"Create it again with {SHAPE} as its value, and give the instances its new "
                "ARN in place of the old one.",
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
                f"{secret.name} is scheduled for deletion; its DeletedDate is {secret.deleted}.",
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
        lacking = [key for key in fields_of(secret) if key not in secret.keys]
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
        if secret.problem and secret.is_json and {*fields_of(secret)} <= set(secret.keys):
            yield Evidence(f"{secret.name}: {secret.problem}.", *rewrite(facts, secret))


@rule(
    "secrets-clash",
    "Two secrets have credentials for the same registry",
    layer=Layer.SECRET,
    source="amazon-ecs-agent, dockerauth.go: one key for each host",
)
def secrets_clash(facts: Facts) -> Found:
    usable = [secret for secret in facts.on_instances if secret.host]
    for host, count in Counter(secret.host for secret in usable).items():
        if count > 1:
            names = [secret.name for secret in usable if secret.host == host]
            yield Evidence(
                f"{' and '.join(names)} are both for {host}; an instance can use only one.",
                step=f"Decide which one is right, and deploy the complete list without the other: "
                f"{_list_of_secrets(facts)}"
                if facts.ours
                else "Decide which one is right, and give the instances only that.",
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

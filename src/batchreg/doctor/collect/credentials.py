"""The secrets, the role that reads them, and the launch template that says how."""

from __future__ import annotations

import base64
import binascii
import email
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from batchreg import registry_login
from batchreg.aws import url_suffix
from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen, name_of
from batchreg.doctor.collect.redact import words

# The fields that people use, whether right or wrong. Others are counted: a name could be a secret.
FIELDS = (
    "username",
    "password",
    "registry_url",
    "user",
    "login",
    "url",
    "registry",
    "auth",
    "auths",
    "email",
    "token",
)
ECS = (
    "ecs:DiscoverPollEndpoint",
    "ecs:Poll",
    "ecs:RegisterContainerInstance",
    "ecs:SubmitTaskStateChange",
)
BLOCKS = re.compile(
    r"(?:systemctl|service)\b[^\n;&|#]*\b(?:re)?start\b[^\n;&|#]*\b(?:ecs|docker)\b"
    r"|systemctl\b[^\n;&|#]*--now\b[^\n;&|#]*\b(?:ecs|docker)\b"
)


@dataclass(frozen=True)
class Read:
    """A secret's facts, with what must stay out of them."""

    fact: facts.Secret
    arn: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    words: tuple[str, ...] = field(default=(), repr=False)


def secret(asker: Caller, arn: str) -> Read:
    """Look at a secret: whether it is there, and what its text looks like."""
    # Without the six characters that Secrets Manager puts behind a name to make an ARN of it.
    name = re.sub("-[A-Za-z0-9]{6}$", "", arn.rsplit(":", 1)[-1]) if arn[:4] == "arn:" else arn
    try:
        described = asker.ask("secret", "secretsmanager", "describe_secret", SecretId=arn)
    except Absent:
        return Read(facts.Secret(name=name, exists=False), arn)
    except Unseen:
        described = {}
    changed, deleted = described.get("LastChangedDate"), described.get("DeletedDate")
    more: dict[str, Any] = {
        "changed": changed.isoformat(timespec="seconds") if changed else "",
        "deleted": deleted.isoformat(timespec="seconds") if deleted else "",
        "key": described.get("KmsKeyId", ""),
    }
    if more["key"] and "alias/aws/" not in more["key"]:
        more["key_state"] = _key_state(asker, more["key"])
    username = password = ""
    text = None
    if not deleted:
        try:
            text = asker.ask(
                "secret's shape", "secretsmanager", "get_secret_value", SecretId=arn
            ).get("SecretString")
        except Absent:
            pass
        except Unseen:
            return Read(facts.Secret(name=name, **more, keys=("username", "password")), arn)
        more |= shape(text)
        if text and {"username", "password"} <= set(more.get("keys", ())):
            fields = json.loads(text, strict=False)
            username, password = str(fields["username"]), str(fields["password"])
    return Read(
        facts.Secret(name=name, **more), arn, username, password, words(text) if text else ()
    )


def shape(text: str | None) -> dict[str, Any]:
    """Say what the text of a secret looks like, and nothing of what it says but the registry."""
    if text is None:
        return {"has_value": False}
    try:
        fields = json.loads(text, strict=False)
    except (ValueError, RecursionError):
        fields = None
    if not isinstance(fields, dict):
        return {"is_json": False}
    known = tuple(key for key in FIELDS if key in fields)
    found: dict[str, Any] = {"keys": known, "others": len(fields) - len(known)}
    try:
        found["host"] = registry_login.login(text)[0]
    except registry_login.Refused as refusal:
        found["problem"] = str(refusal)
    return found


def _key_state(asker: Caller, key: str) -> str:
    try:
        found = asker.ask("KMS key", "kms", "describe_key", KeyId=key)["KeyMetadata"]
    except Absent:
        return "missing"
    except Unseen:
        return ""
    return str(found.get("KeyState", ""))


def service_linked_role(asker: Caller) -> bool:
    """Tell whether AWS Batch has made its role in this account."""
    try:
        asker.ask("service-linked role", "iam", "get_role", RoleName="AWSServiceRoleForBatch")
    except Absent:
        return False
    return True


def role(
    asker: Caller, profile: str, expected: str, region: str, secrets: Iterable[Read]
) -> facts.Role:
    """Look at the instances' role: `expected` is its ARN, or empty for the profile's own."""
    held, more = [], dict[str, Any]()
    try:
        held = [
            one["Arn"]
            for one in asker.ask(
                "instance profile",
                "iam",
                "get_instance_profile",
                InstanceProfileName=name_of(profile),
            )["InstanceProfile"]["Roles"]
        ]
        more["in_profile"] = expected in held if expected else bool(held)
    except Absent:
        more["profile_exists"] = False
    except Unseen:
        pass
    arn = expected or (held[0] if held else "")
    if not arn:
        return facts.Role(name="", profile=name_of(profile), **more)
    try:
        found = asker.ask("role", "iam", "get_role", RoleName=name_of(arn))["Role"]
        more["trusted"] = "ec2.amazonaws.com" in _services(found["AssumeRolePolicyDocument"])
    except Absent:
        more["exists"] = False
    except Unseen:
        pass
    if more.get("exists", True):
        more["denied"] = tuple(_denied(asker, arn, region, list(secrets)))
    return facts.Role(name=name_of(arn), profile=name_of(profile), **more)


def _services(document: Any) -> list[str]:
    """Return the services that a trust policy lets in; boto3 decodes it, AWS sends it quoted."""
    if isinstance(document, str):
        document = json.loads(unquote(document))
    statements = document.get("Statement", [])
    named: list[str] = []
    for statement in [statements] if isinstance(statements, dict) else statements:
        service = (statement.get("Principal") or {}).get("Service", [])
        named += [service] if isinstance(service, str) else service
    return [name.replace(".com.cn", ".com") for name in named]


def _denied(asker: Caller, arn: str, region: str, secrets: list[Read]) -> Iterable[tuple[str, str]]:
    questions: list[dict[str, Any]] = [{"ActionNames": list(ECS)}]
    readable = [read.arn for read in secrets if read.fact.exists and read.arn.startswith("arn:")]
    if readable:
        questions.append(
            {"ActionNames": ["secretsmanager:GetSecretValue"], "ResourceArns": readable}
        )
    keys = [read.fact.key for read in secrets if read.fact.key.startswith("arn:")]
    if keys:
        suffix = url_suffix(region)
        questions.append(
            {
                "ActionNames": ["kms:Decrypt"],
                "ResourceArns": keys,
                "ContextEntries": [
                    {
                        "ContextKeyName": "kms:ViaService",
                        "ContextKeyType": "string",
                        "ContextKeyValues": [f"secretsmanager.{region}.{suffix}"],
                    }
                ],
            }
        )
    for question in questions:
        try:
            results = asker.ask(
                "role's permissions",
                "iam",
                "simulate_principal_policy",
                items="EvaluationResults",
                PolicySourceArn=arn,
                **question,
            )
        except (Absent, Unseen):
            return
        for result in results:
            if result["EvalDecision"] != "allowed":
                yield result["EvalActionName"], result.get("EvalResourceName", "*")


def launch_template(
    asker: Caller, used: Mapping[str, str], written: str | None
) -> facts.LaunchTemplate:
    """Look at the version that the compute environment uses; `written` is what batchreg wrote."""
    by = "launchTemplateId" if used.get("launchTemplateId") else "launchTemplateName"
    wanted = used.get("version") or "$Default"
    try:
        versions = asker.ask(
            "launch template",
            "ec2",
            "describe_launch_template_versions",
            **{by[0].upper() + by[1:]: used[by]},
            Versions=list({wanted, "$Latest"}),
        )["LaunchTemplateVersions"]
    except Absent:
        versions = []
    numbers = [version["VersionNumber"] for version in versions]
    mine = [
        version
        for version in versions
        if wanted == str(version["VersionNumber"])
        or (wanted == "$Latest" and version["VersionNumber"] == max(numbers))
        or (wanted == "$Default" and version.get("DefaultVersion"))
    ]
    if not mine:
        number = int(wanted) if wanted.isdecimal() else 0
        return facts.LaunchTemplate(id=used[by], exists=False, version=number)
    data = mine[0]["LaunchTemplateData"]
    return facts.LaunchTemplate(
        id=used[by],
        version=mine[0]["VersionNumber"],
        latest=max(numbers),
        metadata=data.get("MetadataOptions", {}).get("HttpEndpoint") or "enabled",
        machine_image=data.get("ImageId", ""),
        **user_data(data.get("UserData", ""), written),
    )


def user_data(encoded: str, written: str | None) -> dict[str, Any]:
    """Say what user data does, and nothing of its text but a command that blocks the boot."""
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    archive = email.message_from_bytes(raw)
    text = raw.decode(errors="replace")
    leaves = [leaf.get_payload(decode=True) for leaf in archive.walk() if not leaf.is_multipart()]
    commands = BLOCKS.finditer(
        "\n".join(leaf.decode(errors="replace") for leaf in leaves if isinstance(leaf, bytes))
    )
    return {
        "mime": not raw or (archive.is_multipart() and not archive.defects),
        "bytes": len(raw),
        "has_login": "registry_login.py" in text and "--secret-id" in text,
        "differs": None if written is None else text != written,
        "blocks": next((found[0][:80] for found in commands if "--no-block" not in found[0]), ""),
    }

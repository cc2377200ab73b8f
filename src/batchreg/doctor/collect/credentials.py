"""The secrets with the credentials."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from typing import Any

from batchreg import registry_login
from batchreg.doctor import facts
from batchreg.doctor.collect.calls import Absent, Caller, Unseen
from batchreg.doctor.collect.redact import words
from batchreg.registry_login import HUB

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


@dataclass(frozen=True)
class Read:
    """A secret's facts, with what must stay out of them."""

    fact: facts.Secret
    arn: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    words: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        return self.fact.name

    def marked(self, *, owned: bool, of_job: bool, registry: str) -> Read:
        """Add whose secret it is; `registry` where the stack tells it."""
        known = "docker.io" if self.fact.host == HUB else self.fact.host
        fact = replace(self.fact, owned=owned, of_job=of_job, registry=registry or known)
        return replace(self, fact=fact)


def secret(caller: Caller, arn: str) -> Read:
    """Look at a secret: whether it is there, and what its text looks like.

    One in another region is left alone: Secrets Manager here would say that it does not exist.
    """
    # Without the six characters that Secrets Manager appends to a name to make an ARN of it.
    name = re.sub("-[A-Za-z0-9]{6}$", "", arn.rsplit(":", 1)[-1]) if arn[:4] == "arn:" else arn
    fact = facts.Secret(name=name, arn=arn, keys=("username", "password"))
    if fact.region not in ("", caller.client("secretsmanager").meta.region_name):
        return Read(replace(fact, seen=False), arn)
    try:
        described = caller.ask("secret", "secretsmanager", "describe_secret", SecretId=arn)
    except Absent:
        return Read(facts.Secret(name=name, arn=arn, exists=False), arn)
    except Unseen:
        described = {}
    changed, deleted = described.get("LastChangedDate"), described.get("DeletedDate")
    fact = replace(
        fact,
        arn=described.get("ARN") or arn,
        changed=changed.isoformat(timespec="seconds") if changed else "",
        deleted=deleted.isoformat(timespec="seconds") if deleted else "",
        seen=bool(described),
        **_key(caller, described.get("KmsKeyId", "")),
    )
    if deleted:
        return Read(replace(fact, keys=()), fact.arn)
    text = None
    try:
        text = caller.ask("secret's shape", "secretsmanager", "get_secret_value", SecretId=arn).get(
            "SecretString"
        )
    except Absent:
        pass
    except Unseen:
        return Read(fact, fact.arn)
    fact = replace(fact, seen=True, **{"keys": (), **shape(text)})
    username = password = ""
    if text and {"username", "password"} <= set(fact.keys):
        fields = json.loads(text, strict=False)
        username, password = str(fields["username"]), str(fields["password"])
    return Read(fact, fact.arn, username, password, words(text) if text else ())


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


def _key(caller: Caller, key: str) -> dict[str, Any]:
    """Return the ARN and the state of a secret's customer managed key; DescribeSecret gives an ARN,
    an id or an alias. Nothing where the key is AWS's own."""
    if not key or "alias/aws/" in key:
        return {}
    try:
        found = caller.ask("KMS key", "kms", "describe_key", KeyId=key)["KeyMetadata"]
    except Absent:
        return {"key": key, "key_state": "missing"}
    except Unseen:
        return {"key": key}
    if found.get("KeyManager") == "AWS":
        return {}
    return {"key": found.get("Arn") or key, "key_state": str(found.get("KeyState", ""))}

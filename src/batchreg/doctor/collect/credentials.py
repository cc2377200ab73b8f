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
from batchreg.stack.registries import StackRegistry, as_on_instances, why_refused

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
    "accessToken",
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


def secret(caller: Caller, arn: str, cached: StackRegistry | None = None) -> Read:
    """Look at a secret: whether it is there, and what its text looks like.

    `cached`: the registry that ECR reads it for. One in another region is left alone: Secrets
    Manager here would say that it does not exist.
    """
    read = _secret(caller, arn, cached)
    if not cached:
        return read
    fact = replace(read.fact, cached=True, host=cached.key or "")
    return replace(read, fact=fact)


def _secret(caller: Caller, arn: str, cached: StackRegistry | None) -> Read:
    fields = ("username", "accessToken" if cached else "password")
    # Without the six characters that Secrets Manager appends to a name to make an ARN of it.
    name = re.sub("-[A-Za-z0-9]{6}$", "", arn.rsplit(":", 1)[-1]) if arn[:4] == "arn:" else arn
    fact = facts.Secret(name=name, arn=arn, keys=fields)
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
    fact = replace(fact, seen=True, **{"keys": (), **shape(text, cached)})
    username = password = ""
    if text and {*fields} <= set(fact.keys):
        held = json.loads(text, strict=False)
        username, password = (str(held[name]) for name in fields)
    return Read(fact, fact.arn, username, password, words(text) if text else ())


def shape(text: str | None, cached: StackRegistry | None = None) -> dict[str, Any]:
    """Say what the text of a secret looks like, and nothing of what it says but the registry.

    `cached`: as for `secret`.
    """
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
        usable = as_on_instances(text, cached) if cached else text
        found["host"] = registry_login.login(usable)[0]
    except registry_login.Refused as refusal:
        found["problem"] = why_refused(refusal, cached)
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

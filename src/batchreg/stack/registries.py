"""The registries of a stack: their secrets, and the credentials in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from batchreg import aws, registry_login
from batchreg.errors import BatchregError
from batchreg.registry.logins import Credentials
from batchreg.registry.names import host_of
from batchreg.render.constraints import USERNAME
from batchreg.render.settings import Settings, slots_of, suffix
from batchreg.stack.states import Stack, deployed

CURRENT, PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"
DENIED = ("AccessDenied", "AccessDeniedException")


@dataclass(frozen=True)
class StackRegistry:
    """A registry of a stack.

    `key`: the ECS agent's key for it; None where only the secret tells. `arn`: of its secret.
    `slot`: its number in the template; None for a secret that the user made. `prefix`: of its
    images in ECR, if ECR pulls from it; then the secret has the form that ECR reads.
    """

    key: str | None
    arn: str
    slot: int | None = None
    prefix: str = ""

    @property
    def secret_name(self) -> str:
        return self.arn.rsplit(":", 1)[-1]

    @property
    def host(self) -> str:
        """What people call the registry; the secret's name where nothing tells the host."""
        return host_of(self.key) if self.key else self.secret_name


@dataclass(frozen=True)
class Stored:
    """What a secret holds: the key of its registry, credentials for it, and all of its fields."""

    key: str
    credentials: Credentials
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Problem:
    """Why a secret gives no credentials.

    `denied`: it may be fine, but AWS does not let us read it. `broken`: it is there, and its value
    is of no use. The text quotes nothing of the secret, which may be a password whatever its form.
    """

    fact: str
    step: str = ""
    command: tuple[str, ...] = ()
    denied: bool = False
    broken: bool = False

    def __str__(self) -> str:
        return str(self.error)

    @property
    def error(self) -> BatchregError:
        return BatchregError(self.fact, self.step, self.command)


def of(stack: Stack, settings: Settings | None) -> tuple[StackRegistry, ...]:
    """Return the registries of a stack whose template has these settings.

    The stack's own secrets come in the order of their slots; without any, the user's as listed.
    """
    own = []
    for slot in slots_of(stack.parameters):
        arn = stack.outputs.get(f"RegistrySecret{suffix(slot)}Arn")
        if arn:  # else the stack was not created to the end
            prefix = stack.outputs.get(f"CacheRepositoryPrefix{suffix(slot)}", "")
            own.append(StackRegistry(_key(stack, slot), arn, slot, prefix))
    return tuple(own) or tuple(map(_of_user, settings.secret_arns if settings else ()))


def find(client: Any, stack: Stack) -> tuple[StackRegistry, ...]:
    """Return the registries of a stack; its template is read only where they are not its own."""
    own = of(stack, None)
    if own:
        return own
    template = deployed(client, stack)
    return of(stack, template.settings if template else None)


def read(manager: Any, registry: StackRegistry, stage: str = CURRENT) -> Stored | Problem:
    """Return what the registry's secret holds at a stage, by the rules of the instances or of ECR."""
    text = _text(manager, registry, stage)
    if isinstance(text, Problem):
        return text
    if registry.prefix:
        text = as_on_instances(text, registry)
    try:
        key, _ = registry_login.login(text)
    except registry_login.Refused as refusal:
        step = "Fix it in the Secrets Manager console."
        if registry.slot:  # the stack's own
            return Problem(
                f"The secret {registry.secret_name}: {why_refused(refusal, registry)}.",
                "To repair it:",
                ("rotate",),
                broken=True,
            )
        return Problem(f"The secret {registry.secret_name}: {refusal}.", step, broken=True)
    fields = json.loads(text, strict=False)
    return Stored(key, Credentials(fields["username"], fields["password"]), fields)


def username(manager: Any, registry: StackRegistry) -> str:
    """Return the user name in a secret; in one that is broken, that of its previous value.

    Empty if neither has a usable one. Raises BatchregError if AWS does not give the secret.
    """
    for stage in (CURRENT, PREVIOUS):
        text = _text(manager, registry, stage)
        if isinstance(text, Problem):
            if stage == CURRENT and not text.broken:
                raise text.error
            continue
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            name = json.loads(text, strict=False)["username"]
            if isinstance(name, str) and re.fullmatch(USERNAME, name):
                return name
    return ""


def address_of(registry: StackRegistry) -> str:
    """Return the registry as --registry and --registry-url take it."""
    return "docker.io" if registry.key == registry_login.HUB else str(registry.key)


def _text(manager: Any, registry: StackRegistry, stage: str) -> str | Problem:
    """Return the text of a secret at a stage, empty for a binary one."""
    from botocore.exceptions import ClientError

    name = registry.secret_name
    try:
        answer = manager.get_secret_value(SecretId=registry.arn, VersionStage=stage)
    except ClientError as error:
        details = error.response.get("Error", {})
        code, missing = details.get("Code"), "staging label" in details.get("Message", "")
        if code == "ResourceNotFoundException" and stage == PREVIOUS:
            return Problem(f"The secret {name} has no earlier password.")
        if code == "ResourceNotFoundException" and not missing:
            return Problem(
                f"The secret {name} does not exist.", "To find out what to do:", ("doctor",)
            )
        return Problem(
            f"The secret {name}: {aws.explain(error)}",
            denied=code in DENIED,
            broken=code == "ResourceNotFoundException",
        )
    return str(answer.get("SecretString", ""))


def fields_of(registry: StackRegistry, credentials: Credentials, url: str) -> dict[str, str]:
    """Return the fields of a stack's own secret, as its template writes them."""
    if registry.prefix:
        return {"username": credentials.username, "accessToken": credentials.password}
    return {"username": credentials.username, "password": credentials.password, "registry_url": url}


def as_on_instances(text: str, registry: StackRegistry) -> str:
    """Return a secret in ECR's form as one in that of the instances, for one way to judge both."""
    with suppress(ValueError, TypeError, RecursionError):
        fields = json.loads(text, strict=False)
        if isinstance(fields, dict):
            fields.pop("password", None)  # which ECR does not read
            if "accessToken" in fields:
                fields["password"] = fields["accessToken"]
            return json.dumps({**fields, "registry_url": registry.key})
    return text


def why_refused(refusal: registry_login.Refused, registry: StackRegistry | None) -> str:
    """Return the reason in the words of the secret's own form."""
    ecrs = registry and registry.prefix
    return str(refusal).replace("password", "accessToken") if ecrs else str(refusal)


def _key(stack: Stack, slot: int) -> str | None:
    try:
        return str(registry_login.registry_key(stack.parameters[f"RegistryUrl{suffix(slot)}"]))
    except registry_login.Refused:  # of a template that is not batchreg's
        return None


def _of_user(arn: str) -> StackRegistry:
    return StackRegistry(None, arn)

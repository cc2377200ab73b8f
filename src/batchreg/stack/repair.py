"""Repair the stack's own secrets that somebody changed by hand.

CloudFormation compares parameters and never looks into a secret: where these are right, it has
nothing to change.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from batchreg.errors import BatchregError, Interrupted
from batchreg.registry.logins import Credentials
from batchreg.render.settings import suffix
from batchreg.stack import registries
from batchreg.stack.plan import Plan
from batchreg.stack.registries import StackRegistry, Stored, address_of
from batchreg.stack.screen import Ask, Screen
from batchreg.stack.states import Stack


def restore(
    manager: Any, plan: Plan, stack: Stack, screen: Screen, ask: Ask, *, dry_run: bool = False
) -> bool:
    """Write the credentials that a plan gives into secrets that differ; return whether some did.

    Raises BatchregError if the user says no, or if a password comes without a user name.
    """
    found = list(_given(manager, plan, stack, screen))
    for registry, credentials in found:
        if dry_run:
            screen.note(
                f"Dry run: a deploy would repair the secret of {registry.host}, which was changed "
                "by hand."
            )
            continue
        question = (
            f"The secret of {registry.host} was changed by hand. Write the given credentials to it?"
        )
        if not ask(question):
            raise BatchregError(f"No changes were made to the secret of {registry.host}.")
        write(manager, registry, content(stack, registry, credentials))
        screen.note(f"The secret of {registry.host} has the given credentials again.")
    return bool(found)


def _given(
    manager: Any, plan: Plan, stack: Stack, screen: Screen
) -> Iterator[tuple[StackRegistry, Credentials]]:
    """Yield the registries whose secrets differ from the password that the plan gives."""
    for registry in registries.of(stack, None):
        n = suffix(registry.slot or 1)
        credentials = Credentials(
            plan.parameters.get(f"Username{n}", ""), plan.parameters.get(f"Password{n}", "")
        )
        if not credentials.password or not differs(manager, registry, credentials):
            continue
        name = credentials.username or registries.username(manager, registry)
        if not name:
            raise unknown_username(stack.name, registry, screen)
        yield registry, Credentials(name, credentials.password)


def differs(manager: Any, registry: StackRegistry, wanted: Credentials) -> bool:
    """Tell whether an instance would get other credentials; a user name of "" is not compared.

    False where AWS does not let us look.
    """
    found = registries.read(manager, registry)
    if not isinstance(found, Stored):
        return found.broken
    there = found.credentials
    same_user = wanted.username in ("", there.username)
    return found.key != registry.key or there.password != wanted.password or not same_user


def content(stack: Stack, registry: StackRegistry, credentials: Credentials) -> dict[str, str]:
    """Return the fields of a secret as the stack's template writes them."""
    url = stack.parameters[f"RegistryUrl{suffix(registry.slot or 1)}"]
    return registries.fields_of(registry, credentials, url)


def write(manager: Any, registry: StackRegistry, fields: Mapping[str, Any]) -> None:
    """Give a secret a new value: one call, which takes place or does not."""
    try:
        manager.put_secret_value(SecretId=registry.arn, SecretString=json.dumps(fields))
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; {registry.host} has either its old or its new password: run the same "
            "command again."
        ) from None


def unknown_username(name: str, registry: StackRegistry, screen: Screen) -> BatchregError:
    """Return the failure for a secret in which nobody can find the user name of a password."""
    command = screen.command(
        *("deploy", "--stack-name", name, "--registry-url", address_of(registry)),
        *("--username", "USER", "--password-stdin"),
    )
    return BatchregError(
        f"The secret of {registry.host} was changed by hand, and its user name is lost.",
        f"Give user name and password: {command}",
    )

"""What the user gave to `deploy` or `check`: options, environment, batchreg.yaml and stdin, checked."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from batchreg.cli.options import structure_settings
from batchreg.errors import BatchregError
from batchreg.registry import logins
from batchreg.registry.names import host_of, key_of
from batchreg.render.constraints import PASSWORD, USERNAME
from batchreg.render.settings import PARAMETERS, Settings
from batchreg.stack import caching
from batchreg.stack.plan import CREDENTIALS, Inputs, RegistryInput


def gather(
    *,
    stack_name: str,
    secret_arn: tuple[str, ...],
    image_type: str | None,
    user_data: Path | None,
    fargate: bool | None,
    password_stdin: bool,
    default_vpc: bool,
    tag: tuple[str, ...],
    role_arn: str | None,
    protect: bool | None,
    registries: tuple[str, ...] = (),
    from_docker_config: bool = False,
    on_failure: str | None = None,
    pull_through_cache: str | None = None,
    **values: Any,
) -> Inputs:
    """Return the inputs of `deploy`; `values` are the options that set a parameter of the template.

    Takes the passwords out of the environment. Raises BatchregError or click.UsageError for what
    cannot work.
    """
    listed = _registries(registries, from_docker_config)
    if listed and secret_arn:
        raise click.UsageError("--registry and --secret-arn exclude each other.")
    values["password"] = password(password_stdin)
    settings = structure_settings(secret_arn, image_type, user_data, fargate, on_failure)
    Settings(**settings)  # raises for what cannot work
    return Inputs(
        stack_name=stack_name,
        parameters=parameters(values, credentials=not listed),
        registries=listed,
        settings=settings,
        cache=caching.wanted(pull_through_cache),
        default_vpc=default_vpc,
        on_command_line=on_command_line(),
        tags=dict(map(_tag, tag)),
        role_arn=role_arn,
        protect=protect,
    )


def on_command_line() -> frozenset[str]:
    """Return the options on the command line itself; --password-stdin counts as password too."""
    context = click.get_current_context(silent=True)
    found = {
        name
        for name in (context.params if context else ())
        if context and context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    return frozenset(found | {"password"} if "password_stdin" in found else found)


def parameters(values: Mapping[str, Any], *, credentials: bool = True) -> dict[str, str]:
    """Return {the template's parameter: value} for the options that were given, checked.

    With --registry there are no `credentials`: those of a single registry, from batchreg.yaml or
    the environment, are not meant for the registries listed.
    """
    given = {
        PARAMETERS[name]: _text(value)
        for name, value in values.items()
        if value not in (None, (), ("",)) and (credentials or name not in CREDENTIALS)
    }
    if "RegistryUrl" in given:
        key_of(given["RegistryUrl"])  # raises for what no image could match
    for name in ("Username", "Password"):
        if name in given:
            require_usable(name, given[name])
    return given


def _text(value: Any) -> str:
    """Return a parameter's value as CloudFormation takes it: lists joined, booleans in lower case."""
    if isinstance(value, tuple):
        return ",".join(filter(None, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def password(from_stdin: bool) -> str | None:
    """Return the password that the user gave on stdin or in the environment, if any."""
    # Taken out of it, so that no program that a credential helper starts sees it.
    given = os.environ.pop("BATCHREG_PASSWORD", None) or None
    if not from_stdin:
        return given
    if sys.stdin.isatty():
        raise click.UsageError(
            "--password-stdin reads a pipe or a file; without it, the password is asked for."
        )
    text = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def credential_problem(name: str, value: str) -> str | None:
    """Return what is wrong with a Username or a Password, without showing any of it."""
    pattern, what, rule = {
        "Username": (USERNAME, "user name", "has a colon or a control character"),
        "Password": (PASSWORD, "password", "has a line break or another control character"),
    }[name]
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"The {what} is not text in UTF-8."
    if value and not value.strip():
        return f"The {what} has only blanks."
    return None if re.fullmatch(pattern, value) else f"The {what} is empty or {rule}."


def require_usable(name: str, value: str, host: str = "") -> None:
    """Raise BatchregError for a Username or a Password that no registry can have."""
    if problem := credential_problem(name, value):
        start = f"{host}: " if host else ""
        raise BatchregError(f"{start}{problem}", "Give it as the registry shows it.")


def _registries(entries: tuple[str, ...], from_docker_config: bool) -> tuple[RegistryInput, ...]:
    """Return the registries of --registry, with the passwords that the environment has."""
    listed = logins.merged([logins.RegistrySpec.parse(text) for text in entries])
    mistakes = [
        f"--{name.replace('_', '-')}"
        for name in CREDENTIALS
        if listed and name in on_command_line()
    ]
    if mistakes:
        raise click.UsageError(f"--registry and {', '.join(mistakes)} exclude each other.")
    if from_docker_config and not listed:
        raise click.UsageError("--from-docker-config needs --registry.")
    if from_docker_config:
        listed = [replace(one, source=logins.DOCKER) for one in listed]
    names = {
        one.source.removeprefix(logins.ENV) for one in listed if one.source.startswith(logins.ENV)
    }
    # Taken out of the environment once: two registries may share one.
    passwords = {name: os.environ.pop(name, "") for name in names}
    found = tuple(
        RegistryInput(
            one.url,
            one.username,
            one.source,
            passwords.get(one.source.removeprefix(logins.ENV), ""),
        )
        for one in listed
    )
    for one in found:
        for name, value in (("Username", one.username), ("Password", one.password)):
            if value:
                require_usable(name, value, host_of(one.key))
    return found


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"Invalid value for '--tag': {text!r} is not KEY=VALUE.")
    return key, value

"""What the user has given: the values of parameters, and the logins of registries."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from batchreg.cli import prompts as asking
from batchreg.errors import BatchregError
from batchreg.registry import docker_config, logins
from batchreg.registry.names import host_of, key_of
from batchreg.render.settings import PARAMETERS

LOGIN = ("registry_url", "username", "password")


def parameters(values: dict[str, Any], password_stdin: bool) -> dict[str, str]:
    """Return {parameter: value} for what the user gave, checked before anything is done."""
    values["password"] = asking.password(password_stdin)
    given = {
        PARAMETERS[name]: ",".join(filter(None, value)) if isinstance(value, tuple) else str(value)
        for name, value in values.items()
        if value not in (None, (), ("",))
    }
    if "RegistryUrl" in given:
        key_of(given["RegistryUrl"])
    for name in ("Username", "Password"):
        if name in given and (rule := asking.misfit(name, given[name])):
            raise BatchregError(f"{rule} Give it as the registry shows it.")
    return given


def registries(entries: tuple[str, ...], from_docker_config: bool) -> list[logins.RegistrySpec]:
    """Return the registries of --registry, one an entry; refuses the options for a single one."""
    wanted = logins.merged([logins.RegistrySpec.parse(text) for text in entries])
    single = [f"--{name.replace('_', '-')}" for name in LOGIN if wanted and asking.typed(name)]
    if single:
        raise click.UsageError(f"--registry and {', '.join(single)} exclude each other.")
    if from_docker_config and not wanted:
        raise click.UsageError("--from-docker-config needs --registry.")
    return [replace(one, source=logins.DOCKER) for one in wanted] if from_docker_config else wanted


def login_finder(
    wanted: list[logins.RegistrySpec],
) -> Callable[[logins.RegistrySpec, bool], logins.Credentials]:
    """Return the function that finds logins.

    The variables are taken out of the environment: no credential helper sees them.
    """
    names = {
        one.source.removeprefix(logins.ENV) for one in wanted if one.source.startswith(logins.ENV)
    }
    passwords = {name: os.environ.pop(name, "") for name in names}
    return lambda one, new: _find_login(one, new, passwords)


def _find_login(
    wanted: logins.RegistrySpec, new: bool, passwords: Mapping[str, str]
) -> logins.Credentials:
    """Find a registry's login where it shall come from; only a new registry's is asked for."""
    host = host_of(wanted.key)
    # What the stack has stays: it may come from a rotation that Docker's store knows nothing of.
    if wanted.source == logins.DOCKER and (new or asking.typed("from_docker_config")):
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        stored = docker_config.stored(wanted, Path(folder))
        login = logins.Credentials(wanted.username or stored.username, stored.password)
    elif wanted.source.startswith(logins.ENV):
        name = wanted.source.removeprefix(logins.ENV)
        password = passwords[name]
        if new and not password:
            raise BatchregError(f"{host}: the variable {name} is not set: put the password there.")
        login = logins.Credentials(wanted.username, password)
    else:
        login = logins.Credentials(wanted.username)
    if new and not (login.username and login.password):
        if not asking.interactive():
            raise click.UsageError(
                f"Missing the login of {host}: give --registry "
                f"{wanted.url},username=...,password=env:NAME."
            )
        with asking.line_ended():
            username = login.username or click.prompt(f"User name at {host}", err=True)
            password = login.password or click.prompt(
                f"Password or access token for {host}", hide_input=True, err=True
            )
        login = logins.Credentials(username, password)
    for name, value in (("Username", login.username), ("Password", login.password)):
        if value and (rule := asking.misfit(name, value)):
            raise BatchregError(f"{host}: {rule} Give it as the registry shows it.")
    return login


def tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"Invalid value for '--tag': {text!r} is not KEY=VALUE.")
    return key, value

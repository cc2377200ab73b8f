"""What `check` and `deploy --check` do with their options."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import click

from batchreg import aws, registry_login
from batchreg.aws import Connect, Session
from batchreg.cli import inputs
from batchreg.cli import prompts as asking
from batchreg.cli.console import Console
from batchreg.cli.output import report
from batchreg.errors import BatchregError
from batchreg.registry import check as registry
from batchreg.registry.check import Verdict
from batchreg.registry.images import Image, architectures, parse
from batchreg.registry.logins import Credentials
from batchreg.render import settings
from batchreg.stack import states as stacks
from batchreg.stack.states import Stack


@dataclass(frozen=True)
class Logins:
    """What there is to log in with: {the ECS agent's key for a registry: login}.

    `problems`: one line for each secret that gives none. `whose`: where they come from.
    """

    found: Mapping[str, Credentials] = field(default_factory=dict)
    problems: Sequence[str] = ()
    whose: str = ""

    def of(self, image: Image) -> Credentials | None:
        return self.found.get(registry_login.HUB if image.on_hub else image.registry)


def check(
    *,
    image: tuple[str, ...],
    architecture: str | None,
    machine: bool,
    stack_name: str | None,
    registry_url: str | None,
    username: str | None,
    password_stdin: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    connect: Connect = Session,
) -> int:
    """Print a verdict an image, and return the exit status: 0 where all can be pulled."""
    console = Console(machine=machine)
    typed_stack = asking.typed("stack_name")
    if typed_stack and (password_stdin or asking.typed("username") or asking.typed("registry_url")):
        raise click.UsageError(
            "--stack-name stands for the stack's own login: leave out either "
            "it or --username, --registry-url and --password-stdin."
        )
    try:
        images = [parse(name) for name in dict.fromkeys(image)]
        wanted: tuple[str, ...] = ("amd64",)
        if stack_name and (typed_stack or not username):
            session = connect(profile=profile, region=region, endpoint=endpoint_url)
            present = _present(session, stack_name)
            logins = deployed(session, present)
            wanted = architectures(present.parameters.get("InstanceTypes", "").split(","))
        else:
            logins = _given(registry_url, username, password_stdin)
    except BatchregError as error:
        console.emit("result", ok=False, error=str(error))
        raise
    verdicts = _side_by_side(images, logins, (architecture,) if architecture else wanted)
    for verdict in verdicts:
        console.emit("verdict", **_fields(verdict))
        if not machine and verdict.ok:
            click.echo(f"ok  {verdict.image}  {verdict.text}")
        elif not machine:
            report(f"{verdict.image}: {verdict.text}")
    for problem in logins.problems:
        console.note(problem)
    ok = all(verdict.ok for verdict in verdicts) and not logins.problems
    console.emit("result", ok=ok)
    return 0 if ok else 1


def before_deploy(
    names: Sequence[str],
    given: Mapping[str, str],
    shape: settings.Settings,
    session: Session,
    present: Stack | None,
    console: Console,
) -> None:
    """Check the images with the login that the stack will have; BatchregError if one fails.

    `given` are the template's parameters from the user; what is not there comes from `present`.
    """
    images = [parse(name) for name in dict.fromkeys(names)]
    logins = _future(given, shape, session, present)
    for problem in logins.problems:
        raise BatchregError(f"{problem} Nothing has changed.")
    types = given.get("InstanceTypes") or (
        present.parameters.get("InstanceTypes") if present else None
    )
    failed = []
    for verdict in _side_by_side(images, logins, architectures((types or "").split(","))):
        console.emit("verdict", **_fields(verdict))
        line = f"{verdict.image}: {verdict.text}"
        if not verdict.ok:
            failed.append(line)
        elif not console.machine:
            console.note(f"ok  {verdict.image}  {verdict.text}")
    for line in failed[:-1]:
        report(line)
    if failed:
        raise BatchregError(f"{failed[-1]} Nothing has changed.")


def _present(session: Session, name: str) -> Stack:
    stacks.check_name(name)
    present = stacks.find(session.client("cloudformation"), name)
    if present is None:
        raise BatchregError(
            f"There is no stack {name} in this region: check --region, or give the "
            "login with --username."
        )
    return present


def deployed(session: Session, present: Stack) -> Logins:
    """Return the logins of a stack, out of its secrets; BatchregError where there is none."""
    arns = [
        value
        for name, value in present.outputs.items()
        if re.fullmatch("RegistrySecret[0-9]*Arn", name)
    ]
    if not arns:
        from batchreg.render.text import read_template

        made = read_template(stacks.template_of(session.client("cloudformation"), present))
        arns = list(made.settings.secret_arns) if made else []
    logins = _read(session.client("secretsmanager"), arns)
    if not logins.found:
        raise BatchregError(
            next(
                iter(logins.problems),
                f"{present.name} has no registry login: give one with --username.",
            )
        )
    return logins


def _read(manager: Any, arns: Sequence[str]) -> Logins:
    """Read secrets as an instance does: one that is broken does not cost the others."""
    from botocore.exceptions import ClientError

    found: dict[str, Credentials] = {}
    problems = []
    for arn in arns:
        name = arn.rsplit(":", 1)[-1]
        try:
            text = manager.get_secret_value(SecretId=arn).get("SecretString", "")
            key, auth = registry_login.login(text)
        except ClientError as error:
            problems.append(f"The secret {name}: {aws.explain(error)}")
        except registry_login.Refused as refusal:
            problems.append(f"The secret {name}: {refusal}. Mend it in Secrets Manager.")
        else:
            username, _, password = base64.b64decode(auth).decode().partition(":")
            found.setdefault(key, Credentials(username, password))
    return Logins(found, problems, "the stack's")


def _given(registry_url: str | None, username: str | None, password_stdin: bool) -> Logins:
    """Return the login of the options, asked for as `deploy` does, or none at all."""
    if not username:
        if password_stdin or os.environ.get("BATCHREG_PASSWORD") or (asking.typed("registry_url")):
            raise click.UsageError("Missing --username.")
        return Logins()
    given = inputs.parameters({"registry_url": registry_url, "username": username}, password_stdin)
    if "Password" not in given:
        if not asking.interactive():
            raise click.UsageError(f"Missing {asking.SOURCES['Password']}.")
        asking.ask_for_login(given, {"Password"})
    key = registry_login.registry_key(given.get("RegistryUrl", registry_login.HUB))
    return Logins({key: Credentials(given["Username"], given["Password"])}, (), "the given")


def _future(
    given: Mapping[str, str], shape: settings.Settings, session: Session, present: Stack | None
) -> Logins:
    """Return the logins that a stack has after a deploy with the `given` parameters."""
    if shape.secret_arns:
        return _read(session.client("secretsmanager"), shape.secret_arns)
    slots = [settings.suffix(slot) for slot in shape.slots]
    complete = all({f"Username{n}", f"Password{n}"} <= given.keys() for n in slots)
    stored = Logins() if complete or not present else deployed(session, present)
    before = present.parameters if present else {}
    found = {}
    for n in slots:
        old_key = registry_login.registry_key(before.get(f"RegistryUrl{n}") or registry_login.HUB)
        key = registry_login.registry_key(given.get(f"RegistryUrl{n}") or old_key)
        old = stored.found.get(old_key) or Credentials()
        found[key] = Credentials(
            given.get(f"Username{n}") or old.username, given.get(f"Password{n}") or old.password
        )
    return Logins(found, stored.problems, "the stack's")


def _side_by_side(
    images: Sequence[Image], logins: Logins, wanted: tuple[str, ...]
) -> list[Verdict]:
    waits = [registry.start(image, logins.of(image), architectures=wanted) for image in images]
    return [_explained(wait(), logins) for wait in waits]


def _explained(verdict: Verdict, logins: Logins) -> Verdict:
    """Say which registry the login is for, where the image is in another one."""
    if verdict.cause != "login-needed" or not logins.found:
        return verdict
    hosts = ", ".join("Docker Hub" if key == registry_login.HUB else key for key in logins.found)
    step = ": --registry-url changes that" if logins.whose == "the given" else ""
    here = f"Here, {logins.whose} credentials are for {hosts}{step}."
    return replace(verdict, step=f"{verdict.step} {here}")


def _fields(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as `--json` prints it."""
    return {**vars(verdict), "text": verdict.text, "details": dict(verdict.details)}

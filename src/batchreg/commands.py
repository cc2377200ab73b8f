"""What `deploy`, `destroy` and `status` do between the options and the modules that act."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click

from batchreg import __version__, settings
from batchreg import deploy as deploying
from batchreg import destroy as destroying
from batchreg import stack as stacks
from batchreg.aws import Session
from batchreg.cli import make_settings
from batchreg.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.settings import PARAMETERS
from batchreg.stack import Stack

LOGIN = ("registry_url", "username", "password")

Connect = Callable[..., Session]


def deploy(*, stack_name: str, machine: bool, yes: bool, force: bool, wait: bool, dry_run: bool,
           protect: bool | None, role_arn: str | None, tag: tuple[str, ...], profile: str | None,
           region: str | None, endpoint_url: str | None, secret_arn: tuple[str, ...],
           image_type: str | None, user_data: Any, fargate: bool | None, password_stdin: bool,
           default_vpc: bool, connect: Connect = Session, **values: Any) -> None:
    """Create or update the stack and print its outputs."""
    from batchreg import template

    console = Console(machine=machine)
    given = _given(values, password_stdin)
    tags = dict(_tag(text) for text in tag)
    check_name(stack_name)
    # What is wrong shows before AWS is asked.
    make_settings(secret_arn, image_type, user_data, fargate)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    client = session.client("cloudformation")
    present = stacks.find(client, stack_name)
    body = stacks.template_of(client, present) if present else ""
    made = _ours(present, body, force, console)
    shape = make_settings(secret_arn, image_type, user_data, fargate, made)
    built = template.build(shape)
    declared = {name: hasattr(parameter, "Default")
                for name, parameter in built.parameters.items()}
    masked = frozenset(name for name, parameter in built.parameters.items()
                       if getattr(parameter, "NoEcho", False))
    known = set()
    if present and present.status not in stacks.FORGETTING:
        known = set(present.parameters)
    _ask_for_login(given, declared, known)
    if default_vpc or {"SubnetIDs", "SecurityGroupIDs"} & (
            declared.keys() - known - given.keys()):
        _choose_network(session, given, default_vpc)
    unused = given.keys() - declared.keys()
    if unused:
        raise BatchregError(f"With --secret-arn the stack takes no {', '.join(sorted(unused))}: "
                            "leave it out.")
    request = deploying.Request(
        name=stack_name, body=template.to_yaml(built), parameters=given, declared=declared,
        masked=masked, tags=tags, role_arn=role_arn, protect=protect, dry_run=dry_run, wait=wait)
    done = deploying.deploy(client, request, present, body, console, _asker(yes))
    outputs = dict(done.outputs) if done else {}
    try:
        if machine:
            console.emit("result", stack=stack_name, status=done.status if done else None,
                         outputs=outputs)
        elif not dry_run:
            click.echo("\n".join(f"{name}: {value}" for name, value in outputs.items()), nl=bool(outputs))
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the work is done. To look at it: "
                          f"{deploying.status_of(stack_name)}") from None


def destroy(*, stack_name: str, machine: bool, yes: bool, force: bool, wait: bool,
            terminate_jobs: bool, retain: tuple[str, ...], role_arn: str | None,
            profile: str | None, region: str | None, endpoint_url: str | None,
            connect: Connect = Session) -> None:
    """Delete the stack; one that does not exist is a success."""
    console = Console(machine=machine)
    check_name(stack_name)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    client = session.client("cloudformation")
    present = stacks.find(client, stack_name)
    if present is None:
        console.note(f"There is no stack {stack_name}: nothing to destroy.")
    else:
        _ours(present, stacks.template_of(client, present), force, console)
        destroying.destroy(
            client, session.client("batch"), present, console, _asker(yes),
            terminate_jobs=terminate_jobs, retain=retain, role_arn=role_arn, wait=wait)
    left = None if wait else stacks.find(client, stack_name)
    console.emit("result", stack=stack_name, status=left.status if left else None)


def status(*, stack_name: str, machine: bool, profile: str | None, region: str | None,
           endpoint_url: str | None, connect: Connect = Session) -> None:
    """Print what the stack looks like now."""
    from batchreg.status import look

    check_name(stack_name)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    present = stacks.find(session.client("cloudformation"), stack_name)
    if present is None:
        raise BatchregError(f"There is no stack {stack_name} in this region: batchreg deploy "
                            f"--stack-name {stack_name} makes it.")
    seen = look(session.client, present)
    if machine:
        click.echo(json.dumps({"type": "result", **asdict(seen)}))
        return
    rows = [("Stack", seen.stack, seen.status, seen.reason)]
    for kind, part in (("Compute environment", seen.compute_environment),
                       ("Job queue", seen.job_queue)):
        if part:
            rows.append((kind, part.name, f"{part.status}, {part.state}", part.reason))
    for arn, changed in seen.secrets.items():
        rows.append(("Secret", arn.rsplit(":", 1)[-1], "", f"last changed {changed}"))
    counts = [f"{count} {state}" for state, count in seen.jobs.items() if count]
    if seen.jobs:
        rows.append(("Jobs", ", ".join(counts) or "none", "", ""))
    template = {None: "not batchreg's", False: "as batchreg renders it now",
                True: "differs from what batchreg renders now: batchreg deploy updates it"}
    rows.append(("Template", f"batchreg {seen.version}" if seen.version else "", "",
                 template[seen.differs]))
    for kind, name, state, reason in rows:
        state = f"  {state}" if state else ""
        reason = f"  {reason}" if reason else ""
        click.echo(f"{kind + ':':<21}{name}{state}{reason}")


def check_name(name: str) -> None:
    """Refuse what CloudFormation would refuse as a stack's name."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise BatchregError(f"{name!r} cannot be a stack's name: letters, digits and hyphens, "
                            "a letter first.")


def _given(values: dict[str, Any], password_stdin: bool) -> dict[str, str]:
    """Return {parameter: value} for what the user gave, checked before anything is done."""
    from batchreg import registry_login, template

    values["password"] = (sys.stdin.read().removesuffix("\n").removesuffix("\r")
                          if password_stdin else os.environ.get("BATCHREG_PASSWORD") or None)
    given = {
        PARAMETERS[name]: ",".join(value) if isinstance(value, tuple) else str(value)
        for name, value in values.items() if value not in (None, ())
    }
    if "RegistryUrl" in given:
        try:
            registry_login.registry_key(given["RegistryUrl"])
        except registry_login.Refused as refusal:
            raise BatchregError(f"--registry-url: {refusal}.".replace("registry_url", "it")
                                .replace("it: ", "")) from None
    for name, pattern, rule in (
            ("Username", template.USERNAME, "The user name is empty or has a colon or a control "
             "character."),
            ("Password", template.CREDENTIAL, "The password is empty or has a line break or "
             "another control character.")):
        if name in given and not re.fullmatch(pattern, given[name]):
            raise BatchregError(f"{rule} Give it as the registry shows it.")
    return given


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"Invalid value for '--tag': {text!r} is not KEY=VALUE.")
    return key, value


def _ours(present: Stack | None, body: str, force: bool, console: Console) -> Any:
    """Return the settings of a stack of ours; refuse to touch another unless told to."""
    made = settings.of_template(body) if body else None
    if present and body and not made and not force:
        raise BatchregError(f"{present.name} was not made by batchreg: choose another "
                            "--stack-name, or give --force.")
    if made and made[0] != __version__:
        console.note(f"The stack was made by batchreg {made[0]}; this is {__version__}.")
    return made[1] if made else None


def _interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _asker(yes: bool) -> deploying.Ask:
    def ask(question: str) -> bool:
        if yes:
            return True
        if not _interactive():
            raise click.UsageError(f"{question} There is no terminal to ask on: give --yes.")
        with _line_ended():
            return click.confirm(question, err=True)
    return ask


@contextmanager
def _line_ended() -> Iterator[None]:
    """End the line of a question that Ctrl-C or Ctrl-D leaves without an answer."""
    try:
        yield
    except click.Abort:
        click.echo(err=True)
        raise


def _ask_for_login(given: dict[str, str], declared: dict[str, bool], known: set[str]) -> None:
    """Ask for the login that a new stack needs, where there is a terminal."""
    missing = [name for name in ("Username", "Password")
               if name in declared and name not in given and name not in known]
    if missing and not _interactive():
        flags = {"Username": "--username", "Password": "--password-stdin or BATCHREG_PASSWORD"}
        raise click.UsageError(f"Missing {' and '.join(flags[name] for name in missing)}.")
    for name in missing:
        label = "User name at the registry" if name == "Username" else "Password or access token"
        given[name] = click.prompt(label, hide_input=name == "Password", err=True)
    _given_again = {name: given[name] for name in missing}
    if _given_again:
        from batchreg import template

        for name, pattern in (("Username", template.USERNAME), ("Password", template.CREDENTIAL)):
            if name in _given_again and not re.fullmatch(pattern, given[name]):
                raise BatchregError(f"The {label.lower()} has a colon or a control character.")


def _choose_network(session: Session, given: dict[str, str], default_vpc: bool) -> None:
    """Fill in subnets and security groups: the default VPC's, or chosen from a list."""
    from batchreg import network

    if not default_vpc and not _interactive():
        flags = [flag for name, flag in (("SubnetIDs", "--subnet-id"),
                                         ("SecurityGroupIDs", "--security-group-id"))
                 if name not in given]
        raise click.UsageError(f"Missing {' and '.join(flags)}, or --default-vpc.")
    ec2 = session.client("ec2")
    if default_vpc:
        vpc = network.default_vpc(ec2)
        if "SubnetIDs" not in given:
            given["SubnetIDs"] = ",".join(subnet.id for subnet in network.subnets(ec2, vpc))
        if "SecurityGroupIDs" not in given:
            given["SecurityGroupIDs"] = network.security_groups(ec2, vpc)[0].id
        return
    console = Console()
    found = network.subnets(ec2)
    if "SubnetIDs" not in given:
        console.table(["", "Subnet", "Name", "Zone", "CIDR", "Internet", "VPC"], [
            [str(number), subnet.id, subnet.name, subnet.zone, subnet.cidr, subnet.internet,
             subnet.vpc_id] for number, subnet in enumerate(found, 1)])
        given["SubnetIDs"] = ",".join(subnet.id for subnet in _chosen("Subnets", found))
    ids = given["SubnetIDs"].split(",")
    vpcs = {subnet.vpc_id for subnet in found if subnet.id in ids}
    if len(vpcs) != 1:
        raise BatchregError("The subnets must be of one VPC: choose them again.")
    if "SecurityGroupIDs" not in given:
        groups = network.security_groups(ec2, vpcs.pop())
        console.table(["", "Security group", "Name", "Description"], [
            [str(number), group.id, group.name, group.description]
            for number, group in enumerate(groups, 1)])
        given["SecurityGroupIDs"] = ",".join(
            group.id for group in _chosen("Security groups", groups))


def _chosen(what: str, items: list[Any]) -> list[Any]:
    """Ask for numbers out of a list, such as "1,3"; asks again after a slip."""
    if not items:
        raise BatchregError(f"{what}: this region has none. Make some, or choose another --region.")

    def parse(text: str) -> list[Any]:
        numbers = re.split(r"[\s,]+", text.strip())
        if not all(number.isdecimal() and 1 <= int(number) <= len(items) for number in numbers):
            raise click.UsageError(f"write numbers from 1 to {len(items)}, such as 1,2")
        return [items[int(number) - 1] for number in dict.fromkeys(numbers)]

    with _line_ended():
        chosen: list[Any] = click.prompt(
            f"{what} (numbers, such as 1,2)", value_proc=parse, err=True)
    return chosen

"""What somebody at a terminal is asked, and what a script must give instead."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from batchreg.cli.console import Console
from batchreg.errors import BatchregError
from batchreg.render.constraints import PASSWORD, USERNAME

if TYPE_CHECKING:
    from batchreg.aws import Session
    from batchreg.stack.deploy import Ask


# Where what a new stack needs comes from, if there is no terminal to ask on.
SOURCES = {
    "Username": "--username",
    "Password": "--password-stdin or BATCHREG_PASSWORD",
    "SubnetIDs": "--subnet-id or --default-vpc",
    "SecurityGroupIDs": "--security-group-id or --default-vpc",
}


def typed(option: str) -> bool:
    """Tell whether an option stands in the command line itself."""
    if option == "password":
        option = "password_stdin"
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(option) if context else None
    return source is click.core.ParameterSource.COMMANDLINE


def interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


@contextmanager
def line_ended() -> Iterator[None]:
    """End the line of a question that Ctrl-C or Ctrl-D leaves without an answer."""
    try:
        yield
    except click.Abort:
        click.echo(err=True)
        raise


def asker(yes: bool) -> Ask:
    def ask(question: str) -> bool:
        if yes:
            return True
        if not interactive():
            raise click.UsageError(f"{question} There is no terminal to ask on: give --yes.")
        with line_ended():
            return click.confirm(question, err=True)

    return ask


def check_complete(missing: Set[str], *, default_vpc: bool, yes: bool) -> None:
    """Name all that is missing at once, before anything is done."""
    flags = [
        flag
        for name, flag in SOURCES.items()
        if name in missing and not (default_vpc and "--default-vpc" in flag)
    ]
    flags += [] if yes else ["--yes"]
    if flags:
        raise click.UsageError(f"Missing {', '.join(flags)}.")


def ask_for_login(given: dict[str, str], missing: Set[str]) -> None:
    """Ask for the login that a new stack needs; asks again after a user name that cannot be one."""

    def username(text: str) -> str:
        if rule := misfit("Username", text):
            raise click.UsageError(rule)
        return text

    if "Username" in missing:
        with line_ended():
            given["Username"] = click.prompt(
                "User name at the registry", value_proc=username, err=True
            )
    if "Password" in missing:
        given["Password"] = click.prompt("Password or access token", hide_input=True, err=True)
        if rule := misfit("Password", given["Password"]):
            raise BatchregError(f"{rule} Give it as the registry shows it.")


def ask_password(label: str) -> str:
    """Ask for a password, unseen; where there is no terminal, name the ways to give one."""
    if not interactive():
        raise click.UsageError(f"Missing {SOURCES['Password']}.")
    text: str = click.prompt(label, hide_input=True, err=True)
    return text


def password(from_stdin: bool) -> str | None:
    """Return the password that the user gave, by stdin or the environment, if at all."""
    # Taken out of it: no program that a credential helper starts sees it.
    given = os.environ.pop("BATCHREG_PASSWORD", None) or None
    return _read_password() if from_stdin else given


def _read_password() -> str:
    """Read the password from a pipe; a terminal would show what is typed."""
    if sys.stdin.isatty():
        raise click.UsageError(
            "--password-stdin reads a pipe or a file; without it, the password is asked for."
        )
    text = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def misfit(name: str, value: str) -> str | None:
    """Return what is wrong with a user name or a password, without showing any of it."""
    pattern, rule = {
        "Username": (USERNAME, "The user name is empty or has a colon or a control character."),
        "Password": (
            PASSWORD,
            "The password is empty or has a line break or another control character.",
        ),
    }[name]
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"The {'user name' if name == 'Username' else 'password'} is not text in UTF-8."
    return None if re.fullmatch(pattern, value) else rule


def choose_network(session: Session, given: dict[str, str], default_vpc: bool) -> None:
    """Fill in subnets and security groups: the default VPC's, or chosen from a list."""
    from batchreg.stack import network

    ec2 = session.client("ec2")
    if default_vpc:
        vpc = network.default_vpc(ec2)
        if "SubnetIDs" not in given or not typed("subnet_id"):
            given["SubnetIDs"] = ",".join(subnet.id for subnet in network.subnets(ec2, vpc))
        if "SecurityGroupIDs" not in given or not typed("security_group_id"):
            given["SecurityGroupIDs"] = network.security_groups(ec2, vpc)[0].id
        return
    console = Console()
    found = {subnet.id: subnet for subnet in network.subnets(ec2)}
    if "SubnetIDs" not in given:
        for vpc in dict.fromkeys(subnet.vpc_id for subnet in found.values()):
            console.note(f"Subnets of {vpc}:")
            console.table(
                ["", "Subnet", "Name", "Zone", "CIDR", "Internet"],
                [
                    [str(number), subnet.id, subnet.name, subnet.zone, subnet.cidr, subnet.internet]
                    for number, subnet in enumerate(found.values(), 1)
                    if subnet.vpc_id == vpc
                ],
            )
        chosen = _chosen(
            "Subnets",
            list(found.values()),
            lambda subnets: (
                len({subnet.vpc_id for subnet in subnets}) > 1 and "choose subnets of one VPC"
            ),
        )
        given["SubnetIDs"] = ",".join(subnet.id for subnet in chosen)
    subnets = given["SubnetIDs"].split(",")
    for unknown in set(subnets) - found.keys():
        raise BatchregError(f"There is no subnet {unknown} here: check --subnet-id and --region.")
    vpcs = {found[subnet].vpc_id for subnet in subnets}
    if len(vpcs) > 1:
        raise BatchregError("The subnets are of several VPCs: give --subnet-id of one VPC.")
    if "SecurityGroupIDs" not in given:
        groups = network.security_groups(ec2, vpcs.pop())
        console.table(
            ["", "Security group", "Name", "Description"],
            [
                [str(number), group.id, group.name, group.description]
                for number, group in enumerate(groups, 1)
            ],
        )
        given["SecurityGroupIDs"] = ",".join(
            group.id for group in _chosen("Security groups", groups)
        )


def _chosen(
    what: str, items: list[Any], objection: Callable[[list[Any]], str | bool] = lambda _: False
) -> list[Any]:
    """Ask for numbers out of a list, such as "1,3"; asks again after a slip or an objection."""
    if not items:
        raise BatchregError(f"{what}: this region has none. Make some, or choose another --region.")

    def parse(text: str) -> list[Any]:
        numbers = re.split(r"[\s,]+", text.strip(" ,"))
        if not all(number.isdecimal() and 1 <= int(number) <= len(items) for number in numbers):
            raise click.UsageError(f"write numbers from 1 to {len(items)}, such as 1,2")
        some = [items[number - 1] for number in dict.fromkeys(map(int, numbers))]
        if why := objection(some):
            raise click.UsageError(str(why))
        return some

    with line_ended():
        chosen: list[Any] = click.prompt(
            f"{what} (numbers, such as 1,2)", value_proc=parse, err=True
        )
    return chosen

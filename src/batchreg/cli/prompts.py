"""What a person at a terminal is asked, and what a script must give instead."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchreg.cli.console import TextScreen
from batchreg.cli.inputs import credential_problem, require_usable
from batchreg.errors import BatchregError
from batchreg.registry import docker_config
from batchreg.registry.logins import DOCKER, PROMPT, Credentials
from batchreg.registry.names import host_of
from batchreg.stack.plan import DEFAULT_VPC, NETWORK, Missing, Plan

if TYPE_CHECKING:
    from batchreg.aws import Session
    from batchreg.stack.network import Subnet
    from batchreg.stack.screen import Ask

# What a new stack needs, and the options that give it without a terminal.
SOURCES = {
    "Username": "--username",
    "Password": "--password-stdin or BATCHREG_PASSWORD",
    "SubnetIDs": "--subnet-id or --default-vpc",
    "SecurityGroupIDs": "--security-group-id or --default-vpc",
}


def interactive() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def asker(yes: bool) -> Ask:
    """Return what asks a question on the terminal, or says yes to all of them."""

    def ask(question: str) -> bool:
        if yes:
            return True
        if not interactive():
            raise click.UsageError(f"{question} There is no terminal to ask on: give --yes.")
        with line_ended():
            return click.confirm(question, err=True)

    return ask


def complete(plan: Plan, session: Session, *, yes: bool) -> Plan:
    """Return the plan with all that was missing: from Docker's store, from the VPC, or asked for.

    Without a terminal, raises click.UsageError that names all of it at once; `yes` tells whether
    the question before the change is answered too.
    """
    if not interactive():
        _require_complete(plan, yes)
    values = _from_docker(plan.missing)
    for missing in plan.missing:
        if missing.source == PROMPT and missing.parameter not in NETWORK.values():
            values[missing.parameter] = ask_credential(missing)
    if any(missing.parameter in NETWORK.values() for missing in plan.missing):
        values |= network_values(plan, session)
    return plan.complete(values)


def ask_password(label: str) -> str:
    """Ask for a password without showing it; without a terminal, name the ways to give one."""
    if not interactive():
        raise click.UsageError(f"Missing {SOURCES['Password']}.")
    text: str = click.prompt(label, hide_input=True, err=True)
    require_usable("Password", text)
    return text


@contextmanager
def line_ended() -> Iterator[None]:
    """End the line of a question that Ctrl-C or Ctrl-D leaves without an answer."""
    try:
        yield
    except click.Abort:
        click.echo(err=True)
        raise


def _require_complete(plan: Plan, yes: bool) -> None:
    found = []
    for missing in plan.missing:
        if missing.source != PROMPT:
            continue
        if missing.registry:
            url, host = missing.registry.url, host_of(missing.registry.key)
            found.append(
                f"the credentials of {host} (--registry {url},username=...,password=env:NAME)"
            )
        elif missing.parameter in SOURCES:
            found.append(SOURCES[missing.parameter])
    if not yes:
        found.append("--yes")
    if found:
        raise click.UsageError(f"Missing {', '.join(dict.fromkeys(found))}.")


def ask_credential(missing: Missing) -> str:
    """Ask for a user name or a password; again after a user name that no registry can have."""

    def username(text: str) -> str:
        if problem := credential_problem("Username", text):
            raise click.UsageError(problem)
        return text

    host = host_of(missing.registry.key) if missing.registry else ""
    if missing.parameter.startswith("Username"):
        label = f"User name at {host or 'the registry'}"
        with line_ended():
            text: str = click.prompt(label, value_proc=username, err=True)
        return text
    label = f"Password or access token{f' for {host}' if host else ''}"
    text = click.prompt(label, hide_input=True, err=True)
    require_usable("Password", text, host)
    return text


def _from_docker(missing: Sequence[Missing]) -> dict[str, str]:
    """Return the missing credentials that `docker login` stored."""
    folder = Path(os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker"))
    values: dict[str, str] = {}
    found: dict[str, Credentials] = {}
    for each in missing:
        if each.source != DOCKER or not each.registry:
            continue
        key = each.registry.key
        if key not in found:  # a credential helper is asked once
            found[key] = docker_config.stored(each.registry, folder)
        name = "Username" if each.parameter.startswith("Username") else "Password"
        value = found[key].username if name == "Username" else found[key].password
        require_usable(name, value, host_of(key))
        values[each.parameter] = value
    return values


def network_values(plan: Plan, session: Session) -> dict[str, str]:
    """Return subnets and security groups: the default VPC's, or chosen from a list."""
    from batchreg.stack import network

    ec2 = session.client("ec2")
    from_default = [each.parameter for each in plan.missing if each.source == DEFAULT_VPC]
    if from_default:
        vpc = network.default_vpc(ec2)
        found: dict[str, str] = {}
        if "SubnetIDs" in from_default:
            found["SubnetIDs"] = ",".join(subnet.id for subnet in network.subnets(ec2, vpc))
        if "SecurityGroupIDs" in from_default:
            found["SecurityGroupIDs"] = network.security_groups(ec2, vpc)[0].id
        return found
    screen = TextScreen()
    values = {name: plan.parameters[name] for name in NETWORK.values() if name in plan.parameters}
    known = {subnet.id: subnet for subnet in network.subnets(ec2)}
    if "SubnetIDs" not in values:
        values["SubnetIDs"] = _choose_subnets(screen, ec2, list(known.values()))
    subnets = values["SubnetIDs"].split(",")
    for unknown in set(subnets) - known.keys():
        raise BatchregError(
            f"There is no subnet {unknown} in this region.", "Check --subnet-id and --region."
        )
    vpcs = {known[subnet].vpc_id for subnet in subnets}
    if len(vpcs) > 1:
        raise BatchregError(
            "The subnets belong to several VPCs.", "Give --subnet-id for subnets of one VPC."
        )
    if "SecurityGroupIDs" not in values:
        groups = network.security_groups(ec2, vpcs.pop())
        screen.table(
            ["", "Security group", "Name", "Description"],
            [
                [str(number), group.id, group.name, group.description]
                for number, group in enumerate(groups, 1)
            ],
        )
        values["SecurityGroupIDs"] = ",".join(
            group.id for group in choose("Security groups", groups)
        )
    return values


def _choose_subnets(screen: TextScreen, ec2: Any, subnets: list[Subnet]) -> str:
    """Return the ids of subnets of one VPC; those that nothing leaves are confirmed."""
    from batchreg.stack import network

    vpc = _choose_vpc(screen, ec2, subnets)
    mine = [subnet for subnet in subnets if subnet.vpc_id == vpc]
    closed = {subnet.id: subnet.internet for subnet in mine if subnet.internet in network.CLOSED}
    if closed and network.has_endpoints(ec2, [vpc]):
        closed = {}
    screen.table(
        ["", "Subnet", "Name", "Zone", "CIDR", "Internet"],
        [
            [
                str(number),
                subnet.id,
                subnet.name,
                subnet.zone,
                subnet.cidr,
                f"{'! ' if subnet.id in closed else ''}{subnet.internet}",
            ]
            for number, subnet in enumerate(mine, 1)
        ],
    )
    while True:
        chosen = [subnet.id for subnet in choose("Subnets", mine)]
        doubtful = [one for one in chosen if one in closed]
        if not doubtful:
            return ",".join(chosen)
        for one in doubtful:
            screen.note(network.why_closed(one, closed[one]))
        with line_ended():
            if click.confirm(f"{network.CLOSED_MEANS} Use them anyway?", err=True):
                return ",".join(chosen)


def _choose_vpc(screen: TextScreen, ec2: Any, subnets: list[Subnet]) -> str:
    """Return the id of the VPC with subnets; asked for if there are several."""
    from batchreg.stack import network

    inhabited = {subnet.vpc_id for subnet in subnets}
    vpcs = [vpc for vpc in network.vpcs(ec2) if vpc.id in inhabited]
    if len(vpcs) == 1:
        (vpc,) = vpcs
        notes = filter(None, (vpc.name, vpc.cidr, "the default VPC" if vpc.default else ""))
        screen.note(f"Subnets of {vpc.id} ({', '.join(notes)}):")
        return vpc.id
    if vpcs:
        screen.table(
            ["", "VPC", "Name", "CIDR", "Default"],
            [
                [str(number), vpc.id, vpc.name, vpc.cidr, "default" if vpc.default else ""]
                for number, vpc in enumerate(vpcs, 1)
            ],
        )
    (chosen,) = choose("VPC", vpcs, single=True)
    return str(chosen.id)


def choose(what: str, items: list[Any], *, single: bool = False) -> list[Any]:
    """Ask for some of a list, or for a single one of it; again after a mistake."""
    if not items:
        raise BatchregError(
            f"This region has no {'subnets' if single else what.lower()}.",
            "Create some, or choose another --region.",
        )
    ids = [item.id for item in items]

    def parse(text: str) -> list[Any]:
        places = _places(text, ids)
        if not places or (single and len(places) > 1):
            several = "" if single else ", such as 1,3 or 1-3, or all"
            one = "a number" if single else "numbers"
            raise click.UsageError(
                f"write {one} from 1 to {len(items)}{several}, or {'an id' if single else 'ids'}"
            )
        return [items[place] for place in places]

    hint = "a number or an id" if single else "such as 1,3 or 1-3, all, or ids"
    with line_ended():
        chosen: list[Any] = click.prompt(f"{what} ({hint})", value_proc=parse, err=True)
    return chosen


def _places(text: str, ids: Sequence[str]) -> list[int]:
    """Return which of the ids a text names, by numbers from 1, ranges, "all" or ids; [] if none.

    [] as well if a part of the text names none.
    """
    places: dict[int, None] = {}
    for word in re.split(r"[\s,]+", re.sub(r"\s*-\s*", "-", text.strip(" ,"))):
        numbers = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6}))?", word)
        if word in ids:
            first = last = ids.index(word) + 1
        elif word.lower() == "all":
            first, last = 1, len(ids)
        elif numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
        else:
            return []
        if not 1 <= first <= last <= len(ids):
            return []
        places |= dict.fromkeys(range(first - 1, last))
    return list(places)

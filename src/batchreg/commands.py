"""What `deploy`, `destroy` and `status` do between the options and the modules that act."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchreg import __version__, aws, logins, settings
from batchreg import deploy as deploying
from batchreg import destroy as destroying
from batchreg import stack as stacks
from batchreg.aws import Session
from batchreg.cli import make_settings
from batchreg.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.settings import PARAMETERS
from batchreg.stack import Stack

if TYPE_CHECKING:
    from batchreg.status import Status

LOGIN = ("registry_url", "username", "password")

Connect = Callable[..., Session]


def failures_too(command: Callable[..., None]) -> Callable[..., None]:
    """Make a failure the result where a machine reads it: the last line of stdout."""
    @wraps(command)
    def run(*, stack_name: str, machine: bool, **options: Any) -> None:
        try:
            command(stack_name=stack_name, machine=machine, **options)
        except (Exception, Interrupted) as error:
            line = (str(error) if isinstance(error, BatchregError | Interrupted)
                    else aws.explain(error) if machine else None)
            if line:
                Console(machine=machine).emit("result", stack=stack_name, error=line)
            raise
    return run


@failures_too
def deploy(*, stack_name: str, machine: bool, yes: bool, force: bool, wait: bool, dry_run: bool,
           protect: bool | None, role_arn: str | None, tag: tuple[str, ...], profile: str | None,
           region: str | None, endpoint_url: str | None, secret_arn: tuple[str, ...],
           image_type: str | None, user_data: Any, fargate: bool | None, password_stdin: bool,
           default_vpc: bool, registries: tuple[str, ...] = (), from_docker_config: bool = False,
           check: tuple[str, ...] = (), connect: Connect = Session,
           **values: Any) -> None:
    """Create or update the stack and print its outputs."""
    from batchreg import template

    console = Console(machine=machine)
    given = _given(values, password_stdin)
    wanted = _wanted(registries, from_docker_config)
    tags = dict(_tag(text) for text in tag)
    check_name(stack_name)
    # What is wrong shows before AWS is asked.
    make_settings(secret_arn, image_type, user_data, fargate)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    client = session.client("cloudformation")
    present = stacks.find(client, stack_name)
    body = stacks.template_of(client, present) if present else ""
    made = ours(present, body, force, console)
    shape = make_settings(secret_arn, image_type, user_data, fargate, made)
    urls = {} if shape.secret_arns or not present or present.status in stacks.FORGETTING else {
        slot: present.parameters[f"RegistryUrl{settings.suffix(slot)}"]
        for slot in settings.slots_of(present.parameters)}
    if wanted:
        if secret_arn:
            raise click.UsageError("--registry and --secret-arn exclude each other.")
        # The login of a single registry, from batchreg.yaml or the environment, is none of theirs.
        for option in LOGIN:
            given.pop(PARAMETERS[option], None)
        assigned = logins.assign(wanted, urls)
        shape = replace(shape, secret_arns=(), slots=tuple(sorted(assigned)))
        given |= logins.parameters(assigned, urls, _login_finder(wanted))
    else:
        given = logins.of_one(given, urls)
    built = template.build(shape)
    declared = {name: hasattr(parameter, "Default")
                for name, parameter in built.parameters.items()}
    masked = frozenset(name for name, parameter in built.parameters.items()
                       if getattr(parameter, "NoEcho", False))
    known = set()
    if present and present.status not in stacks.FORGETTING:
        known = set(present.parameters)
    missing = {name for name, has_default in declared.items() if not has_default}
    missing -= known | given.keys()
    if not _interactive():
        _check_complete(missing, default_vpc=default_vpc, yes=yes or dry_run or bool(known))
    _ask_for_login(given, missing)
    if default_vpc or {"SubnetIDs", "SecurityGroupIDs"} & missing:
        _choose_network(session, given, default_vpc)
    unused = [option for option, name in PARAMETERS.items() if name in given.keys() - declared]
    if typed := [f"--{option.replace('_', '-')}" for option in unused if _typed(option)]:
        raise BatchregError(f"With --secret-arn the stack takes no {', '.join(typed)}: "
                            "leave it out.")
    for option in unused:  # of batchreg.yaml or the environment, meant for another shape
        del given[PARAMETERS[option]]
    if check:
        from batchreg import check_commands

        check_commands.before_deploy(check, given, shape, session, present if known else None,
                                     console)
    request = deploying.Request(
        name=stack_name, body=template.to_yaml(built), parameters=given, declared=declared,
        masked=masked, tags=tags, role_arn=role_arn, protect=protect, dry_run=dry_run, wait=wait)
    done = deploying.deploy(client, request, present, body, console, asker(yes))
    outputs = dict(done.outputs) if done else {}
    try:
        if machine:
            console.emit("result", stack=stack_name, status=done.status if done else None,
                         outputs=outputs)
        elif not dry_run:
            click.echo("".join(f"{name}: {value}\n" for name, value in outputs.items()), nl=False)
    except KeyboardInterrupt:
        raise Interrupted("interrupted; the work is done. To look at it: "
                          f"{deploying.status_of(stack_name)}") from None


@failures_too
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
        ours(present, stacks.template_of(client, present), force, console)
        destroying.destroy(
            client, session.client("batch"), present, console, asker(yes),
            terminate_jobs=terminate_jobs, retain=retain, role_arn=role_arn, wait=wait)
    left = None if wait else stacks.find(client, stack_name)
    console.emit("result", stack=stack_name, status=left.status if left else None)


@failures_too
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
    for line in _lines(seen, present):
        click.echo(line)


def _lines(seen: Status, present: Stack) -> Iterator[str]:
    """Put a status into lines that fit 80 columns; a healthy part's reason is no news."""
    def row(kind: str, state: str, name: str = "", reason: str = "") -> Iterator[str]:
        yield f"{kind:<19}  {state}  {name}".rstrip()
        if reason:
            yield f"{'':<19}  {' '.join(reason.split())}"

    yield from row("Stack", seen.status, seen.stack, seen.reason)
    for kind, parts in (("Compute environment", seen.compute_environments),
                        ("Job queue", seen.job_queues)):
        for part in parts:
            healthy = (part.status, part.state) == ("VALID", "ENABLED")
            yield from row(kind, f"{part.status}, {part.state}", part.name,
                           "" if healthy else part.reason)
    urls = {arn: present.parameters.get(
        output.replace("Secret", "Url").removesuffix("Arn"), "")
        for output, arn in present.outputs.items()}
    for arn, changed in seen.secrets.items():
        when = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d)", changed)
        yield from row("Secret", f"changed {when[1]}" if when else changed,
                       urls.get(arn) or arn.rsplit(":", 1)[-1])
    if seen.jobs:
        counts = [f"{count} {state}" for state, count in seen.jobs.items() if count]
        yield from row("Jobs", ", ".join(counts) or "none")
    yield from row("Template", {
        None: "none yet" if seen.status in stacks.NOT_CREATED else "not batchreg's",
        False: "as rendered now",
        True: "not as rendered now: batchreg deploy updates it"}[seen.differs],
        f"batchreg {seen.version}" if seen.version else "")


def check_name(name: str) -> None:
    """Refuse what CloudFormation would refuse as a stack's name."""
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]{0,127}", name):
        raise BatchregError(f"{name!r} cannot be a stack's name: letters, digits and hyphens, "
                            "a letter first.")


def _given(values: dict[str, Any], password_stdin: bool) -> dict[str, str]:
    """Return {parameter: value} for what the user gave, checked before anything is done."""
    from batchreg import registry_login

    values["password"] = password(password_stdin)
    given = {
        PARAMETERS[name]: ",".join(filter(None, value)) if isinstance(value, tuple) else str(value)
        for name, value in values.items() if value not in (None, (), ("",))
    }
    if "RegistryUrl" in given:
        try:
            registry_login.registry_key(given["RegistryUrl"])
        except registry_login.Refused as refusal:
            raise BatchregError(f"--registry-url: {refusal}.".replace("registry_url", "it")
                                .replace("it: ", "")) from None
    for name in ("Username", "Password"):
        if name in given and (rule := misfit(name, given[name])):
            raise BatchregError(f"{rule} Give it as the registry shows it.")
    return given


def _wanted(registries: tuple[str, ...], from_docker_config: bool) -> list[logins.Wanted]:
    """Return the registries of --registry, one an entry; refuses the options for a single one."""
    wanted = logins.merged([logins.Wanted.parse(text) for text in registries])
    single = [f"--{name.replace('_', '-')}" for name in LOGIN if wanted and _typed(name)]
    if single:
        raise click.UsageError(f"--registry and {', '.join(single)} exclude each other.")
    if from_docker_config and not wanted:
        raise click.UsageError("--from-docker-config needs --registry.")
    return [replace(one, source=logins.DOCKER) for one in wanted] if from_docker_config else wanted


def _login_finder(wanted: list[logins.Wanted]) -> Callable[[logins.Wanted, bool], logins.Login]:
    """Return the function that finds logins.

    The variables are taken out of the environment: no credential helper sees them.
    """
    names = {one.source.removeprefix(logins.ENV) for one in wanted
             if one.source.startswith(logins.ENV)}
    passwords = {name: os.environ.pop(name, "") for name in names}
    return lambda one, new: _find_login(one, new, passwords)


def _find_login(wanted: logins.Wanted, new: bool, passwords: Mapping[str, str]) -> logins.Login:
    """Find a registry's login where it shall come from; only a new registry's is asked for."""
    host = logins.host_of(wanted.key)
    # What the stack has stays: it may come from a rotation that Docker's store knows nothing of.
    if wanted.source == logins.DOCKER and (new or _typed("from_docker_config")):
        folder = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
        stored = logins.from_docker(wanted, Path(folder))
        login = logins.Login(wanted.username or stored.username, stored.password)
    elif wanted.source.startswith(logins.ENV):
        name = wanted.source.removeprefix(logins.ENV)
        password = passwords[name] or None
        if new and not password:
            raise BatchregError(f"{host}: the variable {name} is not set: put the password there.")
        login = logins.Login(wanted.username, password)
    else:
        login = logins.Login(wanted.username, None)
    if new and (login.username is None or login.password is None):
        if not _interactive():
            raise click.UsageError(f"Missing the login of {host}: give --registry "
                                   f"{wanted.url},username=...,password=env:NAME.")
        with _line_ended():
            username = login.username or click.prompt(f"User name at {host}", err=True)
            password = login.password or click.prompt(
                f"Password or access token for {host}", hide_input=True, err=True)
        login = logins.Login(username, password)
    for name, value in (("Username", login.username), ("Password", login.password)):
        if value is not None and (rule := misfit(name, value)):
            raise BatchregError(f"{host}: {rule} Give it as the registry shows it.")
    return login


def _typed(option: str) -> bool:
    """Tell whether an option stands in the command line itself."""
    if option == "password":
        option = "password_stdin"
    context = click.get_current_context(silent=True)
    source = context.get_parameter_source(option) if context else None
    return source is click.core.ParameterSource.COMMANDLINE


def _tag(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.UsageError(f"Invalid value for '--tag': {text!r} is not KEY=VALUE.")
    return key, value


def ours(present: Stack | None, body: str, force: bool, console: Console) -> Any:
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


def asker(yes: bool) -> deploying.Ask:
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


# Where what a new stack needs comes from, if there is no terminal to ask on.
SOURCES = {
    "Username": "--username",
    "Password": "--password-stdin or BATCHREG_PASSWORD",
    "SubnetIDs": "--subnet-id or --default-vpc",
    "SecurityGroupIDs": "--security-group-id or --default-vpc",
}


def _check_complete(missing: Set[str], *, default_vpc: bool, yes: bool) -> None:
    """Name all that is missing at once, before anything is done."""
    flags = [flag for name, flag in SOURCES.items()
             if name in missing and not (default_vpc and "--default-vpc" in flag)]
    flags += [] if yes else ["--yes"]
    if flags:
        raise click.UsageError(f"Missing {', '.join(flags)}.")


def _ask_for_login(given: dict[str, str], missing: Set[str]) -> None:
    """Ask for the login that a new stack needs; asks again after a user name that cannot be one."""
    def username(text: str) -> str:
        if rule := misfit("Username", text):
            raise click.UsageError(rule)
        return text

    if "Username" in missing:
        with _line_ended():
            given["Username"] = click.prompt(
                "User name at the registry", value_proc=username, err=True)
    if "Password" in missing:
        given["Password"] = click.prompt("Password or access token", hide_input=True, err=True)
        if rule := misfit("Password", given["Password"]):
            raise BatchregError(f"{rule} Give it as the registry shows it.")


def misfit(name: str, value: str) -> str | None:
    """Return what is wrong with a user name or a password, without showing any of it."""
    from batchreg import template

    pattern, rule = {
        "Username": (template.USERNAME,
                     "The user name is empty or has a colon or a control character."),
        "Password": (template.CREDENTIAL,
                     "The password is empty or has a line break or another control character."),
    }[name]
    try:
        value.encode()
    except UnicodeEncodeError:
        return f"The {'user name' if name == 'Username' else 'password'} is not text in UTF-8."
    return None if re.fullmatch(pattern, value) else rule


def password(from_stdin: bool) -> str | None:
    """Return the password that the user gave, by stdin or the environment, if at all."""
    # Taken out of it: no program that a credential helper starts sees it.
    given = os.environ.pop("BATCHREG_PASSWORD", None) or None
    return _read_password() if from_stdin else given


def ask_password(label: str) -> str:
    """Ask for a password, unseen; where there is no terminal, name the ways to give one."""
    if not _interactive():
        raise click.UsageError(f"Missing {SOURCES['Password']}.")
    text: str = click.prompt(label, hide_input=True, err=True)
    return text


def _read_password() -> str:
    """Read the password from a pipe; a terminal would show what is typed."""
    if sys.stdin.isatty():
        raise click.UsageError("--password-stdin reads a pipe or a file; without it, the password "
                               "is asked for.")
    text = sys.stdin.buffer.read().decode(errors="surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")


def _choose_network(session: Session, given: dict[str, str], default_vpc: bool) -> None:
    """Fill in subnets and security groups: the default VPC's, or chosen from a list."""
    from batchreg import network

    ec2 = session.client("ec2")
    if default_vpc:
        vpc = network.default_vpc(ec2)
        if "SubnetIDs" not in given or not _typed("subnet_id"):
            given["SubnetIDs"] = ",".join(subnet.id for subnet in network.subnets(ec2, vpc))
        if "SecurityGroupIDs" not in given or not _typed("security_group_id"):
            given["SecurityGroupIDs"] = network.security_groups(ec2, vpc)[0].id
        return
    console = Console()
    found = {subnet.id: subnet for subnet in network.subnets(ec2)}
    if "SubnetIDs" not in given:
        for vpc in dict.fromkeys(subnet.vpc_id for subnet in found.values()):
            console.note(f"Subnets of {vpc}:")
            console.table(["", "Subnet", "Name", "Zone", "CIDR", "Internet"], [
                [str(number), subnet.id, subnet.name, subnet.zone, subnet.cidr, subnet.internet]
                for number, subnet in enumerate(found.values(), 1) if subnet.vpc_id == vpc])
        chosen = _chosen("Subnets", list(found.values()), lambda subnets: len(
            {subnet.vpc_id for subnet in subnets}) > 1 and "choose subnets of one VPC")
        given["SubnetIDs"] = ",".join(subnet.id for subnet in chosen)
    subnets = given["SubnetIDs"].split(",")
    for unknown in set(subnets) - found.keys():
        raise BatchregError(f"There is no subnet {unknown} here: check --subnet-id and --region.")
    vpcs = {found[subnet].vpc_id for subnet in subnets}
    if len(vpcs) > 1:
        raise BatchregError("The subnets are of several VPCs: give --subnet-id of one VPC.")
    if "SecurityGroupIDs" not in given:
        groups = network.security_groups(ec2, vpcs.pop())
        console.table(["", "Security group", "Name", "Description"], [
            [str(number), group.id, group.name, group.description]
            for number, group in enumerate(groups, 1)])
        given["SecurityGroupIDs"] = ",".join(
            group.id for group in _chosen("Security groups", groups))


def _chosen(what: str, items: list[Any],
            objection: Callable[[list[Any]], str | bool] = lambda _: False) -> list[Any]:
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

    with _line_ended():
        chosen: list[Any] = click.prompt(
            f"{what} (numbers, such as 1,2)", value_proc=parse, err=True)
    return chosen

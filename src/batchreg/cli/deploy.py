"""What `deploy`, `destroy` and `status` do between the options and the modules that act."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from batchreg import __version__, aws
from batchreg.aws import Connect, Session
from batchreg.cli import inputs
from batchreg.cli import prompts as asking
from batchreg.cli.console import Console
from batchreg.cli.options import structure
from batchreg.errors import BatchregError, Interrupted
from batchreg.registry.names import named
from batchreg.render import settings
from batchreg.render.settings import PARAMETERS
from batchreg.stack import deploy as deploying
from batchreg.stack import destroy as destroying
from batchreg.stack import slots
from batchreg.stack import states as stacks
from batchreg.stack.states import Stack

if TYPE_CHECKING:
    from batchreg.stack.status import Status


def failures_too(command: Callable[..., None]) -> Callable[..., None]:
    """Make a failure the result where a machine reads it: the last line of stdout."""

    @wraps(command)
    def run(*, stack_name: str, machine: bool, **options: Any) -> None:
        try:
            command(stack_name=stack_name, machine=machine, **options)
        except (Exception, Interrupted) as error:
            line = (
                str(error)
                if isinstance(error, BatchregError | Interrupted)
                else aws.explain(error)
                if machine
                else None
            )
            if line:
                Console(machine=machine).emit("result", stack=stack_name, error=line)
            raise

    return run


@failures_too
def deploy(
    *,
    stack_name: str,
    machine: bool,
    yes: bool,
    force: bool,
    wait: bool,
    dry_run: bool,
    protect: bool | None,
    role_arn: str | None,
    tag: tuple[str, ...],
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    secret_arn: tuple[str, ...],
    image_type: str | None,
    user_data: Any,
    fargate: bool | None,
    password_stdin: bool,
    default_vpc: bool,
    registries: tuple[str, ...] = (),
    from_docker_config: bool = False,
    check: tuple[str, ...] = (),
    connect: Connect = Session,
    **values: Any,
) -> None:
    """Create or update the stack and print its outputs."""
    from batchreg.render import template
    from batchreg.render.text import to_yaml

    console = Console(machine=machine)
    wanted = inputs.registries(registries, from_docker_config)
    find_login = inputs.login_finder(wanted)  # first: it may name BATCHREG_PASSWORD itself
    given = inputs.parameters(values, password_stdin)
    tags = dict(inputs.tag(text) for text in tag)
    stacks.check_name(stack_name)
    # What is wrong shows before AWS is asked.
    structure(secret_arn, image_type, user_data, fargate)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    client = session.client("cloudformation")
    present = stacks.find(client, stack_name)
    body = stacks.template_of(client, present) if present else ""
    made = ours(present, body, force, console)
    shape = structure(secret_arn, image_type, user_data, fargate, made)
    urls = (
        {}
        if shape.secret_arns or not present or present.status in stacks.LOSES_PARAMETERS
        else {
            slot: present.parameters[f"RegistryUrl{settings.suffix(slot)}"]
            for slot in settings.slots_of(present.parameters)
        }
    )
    if wanted:
        if secret_arn:
            raise click.UsageError("--registry and --secret-arn exclude each other.")
        # The login of a single registry, from batchreg.yaml or the environment, is none of theirs.
        for option in inputs.LOGIN:
            given.pop(PARAMETERS[option], None)
        assigned = slots.assign(wanted, urls)
        shape = replace(shape, secret_arns=(), slots=tuple(sorted(assigned)))
        given |= slots.parameters(assigned, urls, find_login)
    else:
        given = slots.of_one(given, urls)
    built = template.build(shape)
    declared = {name: hasattr(parameter, "Default") for name, parameter in built.parameters.items()}
    masked = frozenset(
        name for name, parameter in built.parameters.items() if getattr(parameter, "NoEcho", False)
    )
    known = set()
    if present and present.status not in stacks.LOSES_PARAMETERS:
        known = set(present.parameters)
    missing = {name for name, has_default in declared.items() if not has_default}
    missing -= known | given.keys()
    if not asking.interactive():
        asking.check_complete(missing, default_vpc=default_vpc, yes=yes or dry_run or bool(known))
    asking.ask_for_login(given, missing)
    if default_vpc or {"SubnetIDs", "SecurityGroupIDs"} & missing:
        asking.choose_network(session, given, default_vpc)
    unused = [option for option, name in PARAMETERS.items() if name in given.keys() - declared]
    if typed := [f"--{option.replace('_', '-')}" for option in unused if asking.typed(option)]:
        raise BatchregError(
            f"With --secret-arn the stack takes no {', '.join(typed)}: leave it out."
        )
    for option in unused:  # of batchreg.yaml or the environment, meant for another shape
        del given[PARAMETERS[option]]
    if check:
        from batchreg.cli import check as check_commands

        check_commands.before_deploy(
            check, given, shape, session, present if known else None, console
        )
    request = deploying.Request(
        name=stack_name,
        body=to_yaml(built),
        parameters=given,
        declared=declared,
        masked=masked,
        tags=tags,
        role_arn=role_arn,
        protect=protect,
        dry_run=dry_run,
        wait=wait,
    )
    done = deploying.deploy(client, request, present, body, console, asking.asker(yes))
    outputs = dict(done.outputs) if done else {}
    try:
        if machine:
            console.emit(
                "result", stack=stack_name, status=done.status if done else None, outputs=outputs
            )
        elif not dry_run:
            click.echo("".join(f"{name}: {value}\n" for name, value in outputs.items()), nl=False)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the work is done. To look at it: {deploying.status_of(stack_name)}"
        ) from None


@failures_too
def destroy(
    *,
    stack_name: str,
    machine: bool,
    yes: bool,
    force: bool,
    wait: bool,
    terminate_jobs: bool,
    retain: tuple[str, ...],
    role_arn: str | None,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    connect: Connect = Session,
) -> None:
    """Delete the stack; one that does not exist is a success."""
    console = Console(machine=machine)
    stacks.check_name(stack_name)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    client = session.client("cloudformation")
    present = stacks.find(client, stack_name)
    if present is None:
        console.note(f"There is no stack {stack_name}: nothing to destroy.")
    else:
        ours(present, stacks.template_of(client, present), force, console)
        destroying.destroy(
            client,
            session.client("batch"),
            present,
            console,
            asking.asker(yes),
            terminate_jobs=terminate_jobs,
            retain=retain,
            role_arn=role_arn,
            wait=wait,
        )
    left = None if wait else stacks.find(client, stack_name)
    console.emit("result", stack=stack_name, status=left.status if left else None)


@failures_too
def status(
    *,
    stack_name: str,
    machine: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    connect: Connect = Session,
) -> None:
    """Print what the stack looks like now."""
    from batchreg.stack.status import look

    stacks.check_name(stack_name)
    session = connect(profile=profile, region=region, endpoint=endpoint_url)
    present = stacks.find(session.client("cloudformation"), stack_name)
    if present is None:
        raise BatchregError(
            f"There is no stack {stack_name} in this region: batchreg deploy "
            f"--stack-name {stack_name} makes it."
        )
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
    for kind, parts in (
        ("Compute environment", seen.compute_environments),
        ("Job queue", seen.job_queues),
    ):
        for part in parts:
            healthy = (part.status, part.state) == ("VALID", "ENABLED")
            yield from row(
                kind, f"{part.status}, {part.state}", part.name, "" if healthy else part.reason
            )
    urls = {
        arn: present.parameters.get(output.replace("Secret", "Url").removesuffix("Arn"), "")
        for output, arn in present.outputs.items()
    }
    for arn, changed in seen.secrets.items():
        when = re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d)", changed)
        yield from row(
            "Secret",
            f"changed {when[1]}" if when else changed,
            named(urls.get(arn, "")) or arn.rsplit(":", 1)[-1],
        )
    if seen.jobs:
        counts = [f"{count} {state}" for state, count in seen.jobs.items() if count]
        yield from row("Jobs", ", ".join(counts) or "none")
    yield from row(
        "Template",
        {
            None: "none yet" if seen.status in stacks.NOT_CREATED else "not batchreg's",
            False: "as rendered now",
            True: "not as rendered now: batchreg deploy updates it",
        }[seen.differs],
        f"batchreg {seen.version}" if seen.version else "",
    )


def ours(present: Stack | None, body: str, force: bool, console: Console) -> Any:
    """Return the settings of a stack of ours; refuse to touch another unless told to."""
    from batchreg.render.text import read_template

    made = read_template(body) if body else None
    if present and body and not made and not force:
        raise BatchregError(
            f"{present.name} was not made by batchreg: choose another "
            "--stack-name, or give --force."
        )
    if made and made.version != __version__:
        console.note(f"The stack was made by batchreg {made.version}; this is {__version__}.")
    return made.settings if made else None

"""What `submit`, `logs`, `cancel` and `job-definition` do with their options."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import click

from batchreg import registry_login
from batchreg.aws import Session
from batchreg.cli.console import Console
from batchreg.errors import BatchregError, Interrupted
from batchreg.jobs import batch as jobs
from batchreg.jobs import definitions
from batchreg.jobs.definitions import Spec
from batchreg.jobs.log import Line, LogReader
from batchreg.registry.images import Image, parse
from batchreg.render import settings
from batchreg.stack import states as stacks
from batchreg.stack.states import Stack

NO_PERMISSION = ("AccessDenied", "AccessDeniedException")


@dataclass(frozen=True)
class Login:
    """A secret of the stack and the ECS agent's key for its registry, None if it is unknown."""

    secret: str
    registry: str | None


def submit(
    *,
    image: str,
    command: tuple[str, ...],
    name: str | None,
    detach: bool,
    machine: bool,
    stack_name: str,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    auth: str,
    array_size: int | None,
    **options: Any,
) -> int:
    """Submit a job, follow it, and return the exit status: the job's own, or 1."""
    console = Console(machine=machine)
    parsed = parse(image)
    name = _job_name(name, parsed)
    spec = _spec(parsed, **options)  # what is wrong shows before AWS is asked
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    present = _present(session, stack_name)
    queue = _queue(present, spec.fargate)
    batch = session.client("batch")
    jobs.check_queue(batch, queue)
    spec = _with_login(spec, session, present, auth, console)
    definition = definitions.register(batch, definitions.definition(spec))
    client = session.client("logs")
    try:
        job_id = jobs.submit(
            batch,
            name=name,
            queue=queue,
            definition_arn=definition,
            command=command,
            array_size=array_size,
        )
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted; the job may have been submitted all the same: batchreg "
            "status counts the jobs."
        ) from None
    if detach:
        console.emit("result", job=job_id, definition=definition, status="SUBMITTED")
        if not machine:
            console.note(f"Follow it: batchreg logs --follow {job_id}")
            click.echo(job_id)
        return 0
    each = f"; the log of each: batchreg logs {job_id}:0 and so on" if array_size else ""
    console.note(f"Job {job_id}, of {definition.rsplit('/', 1)[-1]}{each}")
    return _follow(batch, client, job_id, console)


def logs(
    *,
    job: str,
    follow: bool,
    machine: bool,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
) -> int:
    """Print a job's log; with `follow`, until the job has ended."""
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    batch, client = session.client("batch"), session.client("logs")
    console = Console(machine=machine)
    if follow:
        return _follow(batch, client, job, console)
    found = jobs.find(batch, job)
    reader = LogReader(client)
    for line in reader.read(found):
        _print(line, console)
    if not reader.lines:
        array = found.get("arrayProperties", {}).get("size")
        why = (
            f": its {array} jobs have, see batchreg logs {job}:0 and so on"
            if array
            else (f": {jobs.state(found).reason}".removesuffix(": "))
        )
        console.note(f"{job} is {found['status']} and has no log{why.rstrip('.')}.")
    console.emit("result", job=job, status=found["status"])
    return 0


def cancel(*, job: str, profile: str | None, region: str | None, endpoint_url: str | None) -> None:
    """End a job, whether it waits or runs; one that has ended is a success."""
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    batch, console = session.client("batch"), Console()
    found = jobs.find(batch, job)
    if found["status"] not in jobs.UNFINISHED:
        console.note(f"{job} has ended already: {found['status']}.")
        return
    batch.terminate_job(jobId=job, reason="Cancelled by batchreg cancel")
    console.note(f"{job} was {found['status']}; it ends now.")


def job_definition(
    *,
    image: str,
    command: tuple[str, ...],
    auth: str,
    stack_name: str,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    **options: Any,
) -> None:
    """Print a job definition; only one with a login of its own needs to ask AWS."""
    parsed = parse(image)
    spec = _spec(parsed, **options)
    if auth == "job" or spec.fargate:
        session = Session(profile=profile, region=region, endpoint=endpoint_url)
        present = _present(session, stack_name)
        spec = _with_login(spec, session, present, auth, Console())
    click.echo(json.dumps(definitions.definition(spec, command), indent=2))


def _present(session: Session, name: str) -> Stack:
    stacks.check_name(name)
    present = stacks.find(session.client("cloudformation"), name)
    if present is None:
        raise BatchregError(
            f"There is no stack {name} in this region: batchreg deploy "
            f"--stack-name {name} makes it."
        )
    return present


def _queue(present: Stack, fargate: bool) -> str:
    """Return the ARN of the stack's queue; BatchregError where it has none."""
    queue = present.outputs.get("FargateJobQueueArn" if fargate else "JobQueueArn")
    if not queue:
        how = "batchreg deploy --fargate adds one" if fargate else "look at batchreg status"
        raise BatchregError(f"{present.name} has no job queue{' on Fargate' * fargate}: {how}.")
    return queue


def _job_name(name: str | None, image: Image) -> str:
    """Return the job's name, by default made of the image's, as Batch takes it."""
    if name is None:
        return re.sub("[^A-Za-z0-9_-]", "-", image.path.rsplit("/", 1)[-1])[:128]
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,127}", name):
        raise BatchregError(
            f"{name!r} cannot be a job's name: letters, digits, hyphens and "
            "underscores, a letter or a digit first, 128 at most."
        )
    return name


def _with_login(spec: Spec, session: Session, present: Stack, auth: str, console: Console) -> Spec:
    """Return the spec with the login that the job carries, if it does.

    Says so where none of the stack's secrets is for the image's registry.
    """
    wanted = registry_login.HUB if spec.image.on_hub else spec.image.registry
    known = _logins(session, present)
    found = next((login for login in known if login.registry == wanted), None)
    unknown = [login for login in known if not login.registry]
    if not found and known and not unknown:
        hosts = (
            "Docker Hub" if login.registry == registry_login.HUB else str(login.registry)
            for login in known
        )
        console.note(
            f"No credentials for {spec.image.registry} in this stack; they cover "
            f"{', '.join(dict.fromkeys(hosts))}."
        )
    if auth != "job" and not spec.fargate:
        return spec
    if not found and unknown:
        if len(known) > 1:
            raise BatchregError(
                f"Which secret is for {spec.image.registry}? Ask for the permission"
                " secretsmanager:GetSecretValue on the stack's secrets."
            )
        (found,) = unknown
    return replace(
        spec,
        execution_role=present.outputs.get("JobExecutionRoleArn"),
        secret=found.secret if found else None,
    )


def _logins(session: Session, present: Stack) -> list[Login]:
    """Return the stack's logins; those that are broken cover nothing."""
    made_here = [
        Login(
            present.outputs[f"RegistrySecret{n}Arn"],
            registry_login.registry_key(present.parameters[f"RegistryUrl{n}"]),
        )
        for n in map(settings.suffix, settings.slots_of(present.parameters))
    ]
    if made_here:
        return made_here
    from botocore.exceptions import ClientError

    from batchreg.render.text import read_template

    made = read_template(stacks.template_of(session.client("cloudformation"), present))
    manager = session.client("secretsmanager")
    found = []
    for arn in made.settings.secret_arns if made else ():
        try:
            text = manager.get_secret_value(SecretId=arn).get("SecretString", "")
            found.append(Login(arn, registry_login.login(text)[0]))
        except registry_login.Refused:
            continue
        except ClientError as error:
            if error.response["Error"]["Code"] in NO_PERMISSION:
                found.append(Login(arn, None))
    return found


def _spec(image: Image, *, env: tuple[str, ...], **options: Any) -> Spec:
    variables = {}
    for text in env:
        key, equals, value = text.partition("=")
        if not key or not equals:  # which may be a secret, and is not shown
            raise click.UsageError("Invalid value for '--env': write KEY=VALUE.")
        variables[key] = value
    return Spec(image=image, environment=variables, **options)


def _follow(batch: Any, client: Any, job_id: str, console: Console) -> int:
    job: dict[str, Any] = {}
    try:
        for item in jobs.follow(batch, client, job_id):
            if isinstance(item, dict):
                job = item
            else:
                _print(item, console)
    except KeyboardInterrupt:
        raise Interrupted(
            f"{job_id} goes on. Follow it: batchreg logs --follow {job_id}. "
            f"End it: batchreg cancel {job_id}"
        ) from None
    status, reason = jobs.verdict(job)
    console.emit("result", job=job_id, status=job["status"], exit_code=status, reason=reason)
    if status:
        code = job.get("container", {}).get("exitCode")
        raise Failed(
            status,
            f"Job {job_id} failed{f' with exit code {code}' if code else ''}: "
            f"{reason.rstrip('.')}. {jobs.advice(reason)}".rstrip(),
        )
    return 0


class Failed(BatchregError):
    """A job that failed, with the exit status that it left."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _print(item: jobs.State | Line, console: Console) -> None:
    if isinstance(item, Line):
        if console.machine:
            console.emit("log", time=item.time, text=item.text)
        else:
            if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack some characters
                sys.stdout.reconfigure(errors="replace")
            click.echo(item.text)
        return
    if console.machine:
        console.emit("state", status=item.status, reason=item.reason, children=dict(item.children))
        return
    waits = item.status in jobs.UNFINISHED
    parts = [
        f"{datetime.now():%H:%M:%S}",
        item.status,
        item.reason,
        ", ".join(f"{count} {status}" for status, count in item.children),
        jobs.advice(item.reason) if waits else "",
    ]
    console.note("  ".join(filter(None, parts)))

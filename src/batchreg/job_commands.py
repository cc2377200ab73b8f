"""What `submit`, `logs`, `cancel` and `job-definition` do with their options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from batchreg import jobs, registry_login, settings
from batchreg import stack as stacks
from batchreg.aws import Session
from batchreg.commands import check_name
from batchreg.console import Console
from batchreg.errors import BatchregError
from batchreg.image import Image, parse
from batchreg.stack import Stack


@dataclass(frozen=True)
class Login:
    """A secret of the stack and the registry that it is for, as the ECS agent's key for it."""

    secret: str
    registry: str


def submit(*, image: str, command: tuple[str, ...], name: str | None, detach: bool, machine: bool,
           stack_name: str, profile: str | None, region: str | None, endpoint_url: str | None,
           auth: str, array_size: int | None, **options: Any) -> int:
    """Submit a job, follow it, and return the exit status: the job's own, or 1."""
    console = Console(machine=machine)
    parsed = parse(image)
    _spec(parsed, auth="instance", **options)  # what is wrong shows before AWS is asked
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    present = _present(session, stack_name)
    fargate = options["fargate"]
    queue = present.outputs.get("FargateJobQueueArn" if fargate else "JobQueueArn")
    if not queue:
        how = "batchreg deploy --fargate adds one" if fargate else "look at batchreg status"
        raise BatchregError(f"{present.name} has no job queue{' on Fargate' * fargate}: {how}.")
    batch = session.client("batch")
    jobs.check_queue(batch, queue)
    spec = _spec(parsed, auth=auth, login=_login(session, present, parsed, console),
                 outputs=present.outputs, **options)
    definition = jobs.register(batch, jobs.definition(spec))
    job_id = jobs.submit(batch, name=name or parsed.path.rsplit("/", 1)[-1], queue=queue,
                         definition_arn=definition, command=command, array_size=array_size)
    if detach:
        console.emit("result", job=job_id, definition=definition, status="SUBMITTED")
        if not machine:
            console.note(f"Follow it: batchreg logs --follow {job_id}")
            click.echo(job_id)
        return 0
    console.note(f"Job {job_id}, of {definition.rsplit('/', 1)[-1]}")
    return _follow(batch, session.client("logs"), job_id, console)


def logs(*, job: str, follow: bool, machine: bool, profile: str | None, region: str | None,
         endpoint_url: str | None) -> int:
    """Print a job's log; with `follow`, until the job has ended."""
    session = Session(profile=profile, region=region, endpoint=endpoint_url)
    batch, client = session.client("batch"), session.client("logs")
    console = Console(machine=machine)
    if follow:
        return _follow(batch, client, job, console)
    found = jobs.find(batch, job)
    for line in jobs.LogReader(client).read(found):
        _print(line, console)
    if not jobs.streams(found):
        console.note(f"{job} is {found['status']} and has no log"
                     f"{': ' + found['statusReason'] if found.get('statusReason') else ''}.")
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


def job_definition(*, image: str, command: tuple[str, ...], auth: str, stack_name: str,
                   profile: str | None, region: str | None, endpoint_url: str | None,
                   **options: Any) -> None:
    """Print a job definition; only one with a login of its own needs to ask AWS."""
    parsed = parse(image)
    login, outputs = None, {}
    if auth == "job" or options["fargate"]:
        session = Session(profile=profile, region=region, endpoint=endpoint_url)
        present = _present(session, stack_name)
        login, outputs = _login(session, present, parsed, Console()), dict(present.outputs)
    spec = _spec(parsed, auth=auth, login=login, outputs=outputs, **options)
    click.echo(json.dumps(jobs.definition(spec, command), indent=2))


def _present(session: Session, name: str) -> Stack:
    check_name(name)
    present = stacks.find(session.client("cloudformation"), name)
    if present is None:
        raise BatchregError(f"There is no stack {name} in this region: batchreg deploy "
                            f"--stack-name {name} makes it.")
    return present


def _login(session: Session, present: Stack, image: Image, console: Console) -> Login | None:
    """Return the stack's login for the image's registry; say so where there is none."""
    wanted = registry_login.HUB if image.on_hub else image.registry
    found = _logins(session, present)
    if found is None:
        return None
    for login in found:
        if login.registry == wanted:
            return login
    covered = ", ".join("Docker Hub" if login.registry == registry_login.HUB else login.registry
                        for login in found)
    console.note(f"No credentials for {image.registry} in this stack; they cover {covered}.")
    return None


def _logins(session: Session, present: Stack) -> list[Login] | None:
    """Return the stack's logins, None where this user may not look into its secrets."""
    if "RegistryUrl" in present.parameters:
        return [Login(present.outputs["RegistrySecretArn"],
                      registry_login.registry_key(present.parameters["RegistryUrl"]))]
    from botocore.exceptions import ClientError

    made = settings.of_template(stacks.template_of(session.client("cloudformation"), present))
    manager = session.client("secretsmanager")
    found = []
    for arn in made[1].secret_arns if made else ():
        try:
            text = manager.get_secret_value(SecretId=arn).get("SecretString", "")
            found.append(Login(arn, registry_login.login(text)[0]))
        except (ClientError, registry_login.Refused):
            return None
    return found


def _spec(image: Image, *, auth: str, fargate: bool, login: Login | None = None,
          outputs: Any = None, env: tuple[str, ...] = (), **options: Any) -> jobs.Spec:
    variables = {}
    for text in env:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.UsageError(f"Invalid value for '--env': {key!r} is not KEY=VALUE.")
        variables[key] = value
    own = auth == "job" or fargate
    if own and outputs is not None and login is None:
        raise BatchregError(f"The job cannot carry a login for {image.registry}: the stack has "
                            "none that you can see. Deploy with one, or use --auth instance.")
    return jobs.Spec(
        image=image, fargate=fargate, environment=variables,
        execution_role=(outputs or {}).get("JobExecutionRoleArn") if own else None,
        secret=login.secret if own and login else None,
        **{key: value for key, value in options.items() if value is not None})


def _follow(batch: Any, client: Any, job_id: str, console: Console) -> int:
    job: dict[str, Any] = {}
    try:
        for item in jobs.follow(batch, client, job_id):
            if isinstance(item, dict):
                job = item
            else:
                _print(item, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{job_id} goes on. Follow it: batchreg logs --follow {job_id}. "
                                f"End it: batchreg cancel {job_id}") from None
    status, reason = jobs.verdict(job)
    console.emit("result", job=job_id, status=job["status"], exit_code=status, reason=reason)
    if status:
        step = jobs.advice(reason)
        raise Failed(status, f"Job {job_id} failed: {' '.join(reason.split()).rstrip('.')}."
                     f"{' ' + step if step else ''}")
    return 0


class Failed(BatchregError):
    """A job that failed, with the exit status that it left."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _print(item: jobs.State | jobs.Line, console: Console) -> None:
    if isinstance(item, jobs.Line):
        if console.machine:
            console.emit("log", time=item.time, text=item.text)
        else:
            click.echo(item.text)
        return
    if console.machine:
        console.emit("state", status=item.status, reason=item.reason, children=dict(item.children))
        return
    parts = [f"{datetime.now():%H:%M:%S}", item.status, " ".join(item.reason.split()),
             ", ".join(f"{count} {status}" for status, count in item.children),
             jobs.advice(item.reason)]
    console.note("  ".join(filter(None, parts)))

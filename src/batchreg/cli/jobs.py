"""`submit`, `logs`, `cancel` and `job-definition`: jobs of AWS Batch by hand."""

from __future__ import annotations

import io
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from batchreg import registry_login, waiting
from batchreg.aws import Session
from batchreg.cache import names
from batchreg.cache import stack as cache_of
from batchreg.cli import target
from batchreg.cli.console import AnyScreen, JsonScreen, TextScreen, command_here, screen
from batchreg.cli.job_watch import JobWatch, doctor
from batchreg.cli.output import say
from batchreg.errors import BatchregError, Interrupted
from batchreg.jobs import batch as jobs
from batchreg.jobs import capacity, definitions
from batchreg.jobs.definitions import Spec
from batchreg.jobs.log import Line, LogReader, streams
from batchreg.registry.images import Image, parse
from batchreg.stack import preflight, registries
from batchreg.stack.registries import StackRegistry, Stored
from batchreg.stack.states import Stack
from batchreg.waiting import Sleep, TimedOut

if TYPE_CHECKING:
    from types_boto3_batch import BatchClient
    from types_boto3_batch.type_defs import JobDetailTypeDef
    from types_boto3_logs import CloudWatchLogsClient

CAPACITY_SECONDS = 5  # for the question whether the job fits; without an answer it is submitted


def submit(
    *,
    image: str,
    command: tuple[str, ...],
    name: str | None,
    detach: bool,
    json_output: bool,
    stack_name: str,
    profile: str | None,
    region: str | None,
    endpoint_url: str | None,
    auth: str,
    array_size: int | None,
    wait_timeout: float | None,
    **options: Any,
) -> int:
    """Submit a job, follow it, and return the exit status: the job's exit code, or 1."""
    console = screen(json_output)
    parsed = parse(image)
    name = _job_name(name, parsed)
    spec = _spec(parsed, **options)  # mistakes are found before AWS is asked
    place = target.find(stack_name, profile=profile, region=region, endpoint_url=endpoint_url)
    session, present = place.session, place.existing()
    queue = queue_of(present, spec.fargate)
    batch = session.client("batch")
    environments = jobs.check_queue(batch, queue)
    if not spec.fargate:
        _check_capacity(session, environments, spec, present)
    spec = _for_stack(spec, session, present, auth, console)
    definition = definitions.register(batch, definitions.definition(spec), present.name)
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
            "interrupted; the job may have been submitted. To see the number of jobs: "
            f"{command_here('status', '--stack-name', stack_name)}"
        ) from None
    if detach:
        console.emit("result", job=job_id, definition=definition, status="SUBMITTED")
        if not json_output:
            console.note(f"To follow it: {command_here('logs', '--follow', job_id)}")
            click.echo(job_id)
        return 0
    each = f"; the log of a child: {command_here('logs', f'{job_id}:0')}" if array_size else ""
    console.note(f"Job {job_id}, of {definition.rsplit('/', 1)[-1]}{each}")
    sleep = waiting.limited(wait_timeout)
    return _follow(batch, client, job_id, console, lambda item: _print(item, console, say), sleep)


def logs(
    *,
    job: str,
    stack_name: str,
    queue: str | None,
    follow: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    json_output: bool,
    **place: Any,
) -> int:
    """Print a job's log; with `follow`, until the job has finished or the reader has left.

    `since` is in milliseconds since 1970; `place` is for `target.session`.
    """
    session = target.session(**place)
    job = target.job_id(session, job, stack_name, queue)
    batch, client = session.client("batch"), session.client("logs")
    console = screen(json_output)

    def out(item: jobs.State | Line) -> None:
        _print(item, console, click.echo, timestamps)

    if follow:
        return _follow(batch, client, job, console, out, since=since or 0, tail=tail)
    found = jobs.find(batch, job)
    reader = LogReader(client, since or 0)
    for line in reader.read(found) if tail is None else reader.tail(found, tail):
        out(line)
    if not reader.lines:
        size, reason = found.get("arrayProperties", {}).get("size"), jobs.state(found).reason
        if since and streams(found):
            why = f" since {_stamp(since)}."
        elif size:
            why = f", but its {size} children may: {command_here('logs', f'{job}:0')}"
        else:
            why = f": {reason.rstrip('.')}." if reason else "."
        console.note(f"{job} is {found['status']} and has no log{why}")
    console.emit("result", job=job, status=found["status"])
    return 0


def cancel(*, job: str, stack_name: str, queue: str | None, **place: Any) -> None:
    """Cancel a job that waits or terminate one that runs; one that has finished is a success."""
    session = target.session(**place)
    job = target.job_id(session, job, stack_name, queue)
    batch, console = session.client("batch"), TextScreen()
    found = jobs.find(batch, job)
    if found["status"] not in jobs.UNFINISHED:
        console.note(f"{job} has already finished: {found['status']}.")
        return
    batch.terminate_job(jobId=job, reason="Cancelled by batchreg cancel")
    console.note(f"{job} was {found['status']}; AWS Batch is ending it.")


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
    """Print a job definition.

    AWS is asked only about a stack that the user named, or that the definition cannot do without:
    for its job role, its cache and its credentials.
    """
    parsed = parse(image)
    spec = _spec(parsed, **options)
    if auth == "job" or spec.fargate or target.is_given():
        place = target.find(stack_name, profile=profile, region=region, endpoint_url=endpoint_url)
        spec = _for_stack(spec, place.session, place.existing(), auth, TextScreen())
    click.echo(json.dumps(definitions.definition(spec, command), indent=2))


def queue_of(present: Stack, fargate: bool = False) -> str:
    """Return the ARN of the stack's queue; BatchregError if it has none."""
    queue = present.outputs.get("FargateJobQueueArn" if fargate else "JobQueueArn")
    if queue:
        return queue
    name = ("--stack-name", present.name)
    if fargate:
        raise BatchregError(
            f"{present.name} has no job queue on Fargate.",
            f"To add one: {command_here('deploy', '--fargate', *name)}",
        )
    raise BatchregError(
        f"{present.name} has no job queue.", f"For its status: {command_here('status', *name)}"
    )


def _check_capacity(
    session: Session, environments: Sequence[Mapping[str, Any]], spec: Spec, present: Stack
) -> None:
    """Refuse a job for which no instance type is large enough; it would wait for ever.

    Where that cannot be known, for lack of a permission or of an answer, it is submitted.
    """

    short: list[capacity.Shortage] = []

    def find() -> Iterator[preflight.Problem]:
        if one := capacity.shortage(session.client("ec2"), environments, spec):
            short.append(one)
            yield preflight.Problem(one.fact)

    found = preflight.run([preflight.Check("The instance types", find)], seconds=CAPACITY_SECONDS)
    problem = next((one for one in found if one.certain), None)
    if not problem:
        return
    less = "--vcpus, --memory or --gpus" if spec.gpus else "--vcpus or --memory"
    if short[0].without_gpu:
        options = ("--image-type", "ECS_AL2023_NVIDIA", "--instance-type", "TYPE")
        another = command_here("deploy", "--stack-name", "NAME", *options)
        step = f"Use a stack with GPU instances, such as g4dn. To create one: {another}"
    elif "InstanceTypes" in present.parameters:
        larger = command_here("deploy", "--stack-name", present.name, "--instance-type", "TYPE")
        step = f"Use less {less}, or larger instance types: {larger}"
    else:  # a companion stack, whose environment is somebody else's
        step = f"Use less {less}, or give the compute environment larger instance types."
    raise BatchregError(problem.fact, step)


def _job_name(name: str | None, image: Image) -> str:
    """Return the job's name, by default the image's in the characters that Batch accepts."""
    if name is None:
        return re.sub("[^A-Za-z0-9_-]", "-", image.path.rsplit("/", 1)[-1])[:128]
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_-]{0,127}", name):
        raise BatchregError(
            f"{name!r} cannot be a job's name.",
            "Use at most 128 letters, digits, hyphens and underscores, a letter or digit first.",
        )
    return name


def _for_stack(spec: Spec, session: Session, present: Stack, auth: str, console: AnyScreen) -> Spec:
    """Return the spec with what the stack has for jobs: a role, a cache, or credentials."""
    # The stack's job role, unless the user gave one or the stack has none.
    spec = replace(spec, job_role=spec.job_role or present.outputs.get("JobRoleArn"))
    if cache := cache_of.of(present):
        image = spec.image.name
        # A name in the cache is one that somebody has looked up before.
        known = image if names.upstream_name(image, cache) else None
        if name := known or names.cached_name(image, cache):
            return _through_cache(spec, name, present, auth, console)
        if cache.registry_of(spec.image):
            console.note(f"{image} cannot be pulled through ECR. {names.reason(image, cache)}")
    return _with_credentials(spec, session, present, auth, console)


def _through_cache(spec: Spec, name: str, present: Stack, auth: str, console: AnyScreen) -> Spec:
    """Return the spec for an image that ECR pulls; on Fargate, the execution role asks ECR for it."""
    console.note(f"Pulled through ECR: {name}")
    if auth == "job":
        console.note("ECR has the credentials for this image: --auth job adds none to the job.")
    role = present.outputs.get("JobExecutionRoleArn") if spec.fargate else None
    return replace(spec, cached_name=name, execution_role=role)


def _with_credentials(
    spec: Spec, session: Session, present: Stack, auth: str, console: AnyScreen
) -> Spec:
    """Return the spec with the credentials that the job carries, if it carries any.

    Notes it if none of the stack's secrets is for the image's registry.
    """
    wanted = registry_login.HUB if spec.image.on_hub else spec.image.registry
    known = _registries(session, present)
    usable = [registry for registry in known if not registry.prefix]  # ECR alone uses the others
    found = next((registry for registry in usable if registry.key == wanted), None)
    unknown = [registry for registry in usable if not registry.key]
    if not any(registry.key == wanted for registry in known) and known and not unknown:
        hosts = dict.fromkeys(registry.host for registry in known)
        console.note(
            f"No credentials for {spec.image.registry} in this stack; they cover "
            f"{', '.join(hosts)}."
        )
    if auth != "job" and not spec.fargate:
        return spec
    if not found and unknown:
        if len(usable) > 1:
            raise BatchregError(
                f"It is unknown which secret is for {spec.image.registry}.",
                "Ask for the permission secretsmanager:GetSecretValue on the stack's secrets.",
            )
        (found,) = unknown
    return replace(
        spec,
        execution_role=present.outputs.get("JobExecutionRoleArn"),
        secret=found.arn if found else None,
    )


def _registries(session: Session, present: Stack) -> list[StackRegistry]:
    """Return the stack's registries; those whose secret is broken cover nothing.

    The key of one whose secret we are not allowed to read is None.
    """
    found = []
    for registry in registries.find(session.client("cloudformation"), present):
        stored = None
        if not registry.key:
            stored = registries.read(session.client("secretsmanager"), registry)
        if isinstance(stored, Stored):
            found.append(replace(registry, key=stored.key))
        elif not stored or stored.denied:
            found.append(registry)
    return found


def _spec(image: Image, *, env: tuple[str, ...], **options: Any) -> Spec:
    variables = {}
    for text in env:
        key, equals, value = text.partition("=")
        if not key or not equals:  # not quoted: it may be a secret
            raise click.UsageError("Invalid value for '--env': write KEY=VALUE.")
        variables[key] = value
    return Spec(image=image, environment=variables, **options)


def _follow(
    batch: BatchClient,
    client: CloudWatchLogsClient,
    job_id: str,
    console: AnyScreen,
    out: Callable[[jobs.State | Line], None],
    sleep: Sleep = time.sleep,
    **lines: Any,
) -> int:
    """Show a job until it has finished, and return 0; JobFailed if it failed.

    `out` shows a state or a line of the log; `lines` says which lines, as jobs.follow takes it.
    """
    job: JobDetailTypeDef | None = None
    ways = (
        f"To follow it: {command_here('logs', '--follow', job_id)}. "
        f"To end it: {command_here('cancel', job_id)}"
    )
    watch = JobWatch(job_id, console, sleep)
    try:
        for item in jobs.follow(batch, client, job_id, sleep=watch.sleep, **lines):
            if isinstance(item, dict):
                job = item
                continue
            out(item)
            if isinstance(item, jobs.State):
                watch.update(item)
    except KeyboardInterrupt:
        raise Interrupted(f"{job_id} continues. {ways}") from None
    except TimedOut as timeout:
        raise BatchregError(f"{job_id} {timeout.after}; it continues.", ways) from None
    finally:
        watch.close()
    assert job is not None  # what jobs.follow yields last
    status, reason = jobs.verdict(job)
    console.emit("result", job=job_id, status=job["status"], exit_code=status, reason=reason)
    if status:
        code = job.get("container", {}).get("exitCode")
        raise JobFailed(
            status,
            f"Job {job_id} failed{f' with exit code {code}' if code else ''}: "
            f"{reason.rstrip('.')}.",
            _next_step(job_id, reason, job.get("container", {}).get("image", "IMAGE"), console),
        )
    return 0


def _next_step(job_id: str, reason: str, image: str, console: AnyScreen) -> str:
    step = jobs.advice(reason, console.command, image)
    if not jobs.is_pull_failure(reason):
        return step
    return f"{step}{' ' if step.endswith('.') else '. '}To find out why: {doctor(console, job_id)}"


class JobFailed(BatchregError):
    """A job that failed, with the exit status that it left."""

    def __init__(self, status: int, fact: str, step: str) -> None:
        super().__init__(fact, step)
        self.status = status


def _stamp(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="milliseconds")


def _print(
    item: jobs.State | Line,
    console: AnyScreen,
    out: Callable[[str], None],
    timestamps: bool = False,
) -> None:
    """Show a state or a line of the log; `out` prints what goes to stdout."""
    if isinstance(item, Line):
        if isinstance(console, JsonScreen):
            out(json.dumps({"type": "log", "time": _stamp(item.time), "text": item.text}))
        else:
            if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal may lack some characters
                sys.stdout.reconfigure(errors="replace")
            out(f"{_stamp(item.time)}  {item.text}" if timestamps else item.text)
        return
    if isinstance(console, JsonScreen):
        state = {"status": item.status, "reason": item.reason, "children": dict(item.children)}
        out(json.dumps({"type": "state", **state}))
        return
    # A job that runs may carry the reason of a pull that failed: its image was on the instance.
    waits = item.status in jobs.WAITING
    parts = [
        f"{datetime.now():%H:%M:%S}",
        item.status,
        item.reason,
        ", ".join(f"{count} {status}" for status, count in item.children),
        jobs.advice(item.reason, console.command) if waits else "",
    ]
    console.note("  ".join(filter(None, parts)))

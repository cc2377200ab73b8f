"""The options that commands share, and what their values may be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from batchreg.cli.grammar import (
    Checked,
    Command,
    Decorator,
    option,
    setting,
    together,
    under,
    variable,
)
from batchreg.cli.output import report
from batchreg.render import constraints

if TYPE_CHECKING:
    from pathlib import Path

CONFIG_FILE = "batchreg.yaml"
PLACES = "batchreg.places"  # in a context's meta: {parameter: file and line}


def completed(what: str) -> dict[str, Any]:
    """Return the attribute by which a shell completes a value; `what`: see completion.complete."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> Any:
        from batchreg.cli import completion

        return completion.complete(what, ctx, incomplete, CONFIG_FILE)

    return {"shell_complete": complete}


def number(least: float, most: float | None = None, *, whole: bool = True) -> Checked:
    """Return what reads a number from `least` to `most`, whole unless told otherwise."""

    def read(text: Any) -> int | float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            wanted = "a whole number" if whole else "a number"
            raise click.BadParameter(f"{text!r} is not {wanted}.") from None
        if most is not None and not least <= value <= most:
            raise click.BadParameter(f"{text} is not between {least} and {most}.")
        if not least <= value < float("inf"):
            raise click.BadParameter(f"{text} is not a number of at least {least}.")
        return value

    upper = {} if most is None else {"maximum": most}
    return Checked(read, type="integer" if whole else "number", minimum=least, **upper)


def mebibytes(value: str) -> int:
    """Return memory in MiB: of a number, or one with a unit, such as 4096, 4G or 512M."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    number, factor = (text[:-1], 1024) if text.endswith("G") else (text.removesuffix("M"), 1)
    if not number.isdecimal() or int(number) == 0:
        raise click.BadParameter(f"{value!r} is not a size in MiB, such as 4096 or 4G.")
    return int(number) * factor


def moment(text: str) -> int:
    """Return a time in milliseconds since 1970: of 10m, 2h or 1d ago, or of a time in ISO 8601."""
    from datetime import datetime, timedelta

    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}.get(text[-1:], "")
    try:
        if unit and text[:-1].isdecimal():
            then = datetime.now() - timedelta(**{unit: int(text[:-1])})
        else:
            then = datetime.fromisoformat(text)
        return max(0, int(then.timestamp() * 1000))
    except (ValueError, OverflowError, OSError):
        raise click.BadParameter(
            f"{text!r} is not a time, such as 10m, 2h, 1d or 2026-07-01T12:30."
        ) from None


def _cache_prefix(text: str) -> str:
    """Return the prefix of a pull-through cache, if ECR accepts it with a registry after it."""
    import re

    least, most = constraints.CACHE_PREFIX_LENGTH
    if not re.fullmatch(constraints.CACHE_PREFIX, text):
        raise click.BadParameter(
            f"{text!r} is not a prefix: use lower-case letters and digits, with single . _ - or / "
            "between them."
        )
    if not least <= len(text) <= most:
        raise click.BadParameter(
            f"{text!r} has {len(text)} characters: use {least} to {most}. ECR allows 30, with what "
            "says which registry an image is from."
        )
    return text


cache_prefix = Checked(
    _cache_prefix,
    type="string",
    pattern=f"^({constraints.CACHE_PREFIX})$",
    minLength=constraints.CACHE_PREFIX_LENGTH[0],
    maxLength=constraints.CACHE_PREFIX_LENGTH[1],
)


def file_path(text: str) -> Path:
    """Return a path; its module is imported for those who give one."""
    from pathlib import Path

    return Path(text)


def registry_address(text: str) -> str:
    """Return the address of a registry that is given by its address or by a name of ours."""
    from batchreg.registry.names import address_of

    return address_of(text)


def read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Make what batchreg.yaml says the command's defaults; only a file asked for must exist."""
    if context.resilient_parsing:  # a shell completes the line: no time for complaints
        return
    if not value and os.path.exists("batchreg.yml"):
        report(f"warning: nothing reads batchreg.yml. Rename it to {CONFIG_FILE}.")
    if (value or os.path.exists(CONFIG_FILE)) and isinstance(context.command, Command):
        from pathlib import Path

        from batchreg.cli import config

        keys = config.keys(context.command.group)
        found = config.read(value or Path(CONFIG_FILE), keys)
        # An option without a key may share its name with another command's that has one.
        own = {option.name for option in context.command.params if getattr(option, "key", "")}
        context.default_map = {
            keys[key].parameter: value
            for key, (value, _) in found.items()
            if keys[key].parameter in own
        }
        context.meta[PLACES] = {
            keys[key].parameter: f"{place}: {key}" for key, (_, place) in found.items()
        }


config_option = variable(
    "--config",
    type=file_path,
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="FILE",
    **completed("files"),
    help=f"Read settings from this file.  [default: {CONFIG_FILE}, if it exists]",
)
json_option = option(
    "--json", "json_output", is_flag=True, help="Print JSON lines to stdout, the result last."
)
yes_option = option(
    "-y", "--yes", is_flag=True, help="Confirm without a prompt. Required without a terminal."
)
force_option = option(
    "--force", is_flag=True, help="Allow changes to a stack that batchreg did not create."
)
wait_option = option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until the operation finishes."
)


def output_option() -> Decorator:
    return option(
        "-o",
        "--output",
        metavar="FILE",
        help="Write to this file instead of stdout.",
        **completed("files"),
    )


def password_stdin_option() -> Decorator:
    return option(
        "--password-stdin",
        is_flag=True,
        help="Read the password from stdin instead of BATCHREG_PASSWORD or a prompt.",
    )


def role_option() -> Decorator:
    return setting(
        "--role-arn",
        metavar="ARN",
        help="Role that CloudFormation assumes, instead of your own permissions.",
    )


def user_data_option() -> Decorator:
    return setting(
        "--user-data",
        metavar="FILE",
        type=file_path,
        **completed("files"),
        help="Your own user data for the instances: a script, a cloud-config or a MIME archive. "
        "An empty value removes it.",
    )


def stack_name_option(text: str, **attributes: Any) -> Decorator:
    return setting("--stack-name", metavar="NAME", help=text, **completed("stacks"), **attributes)


connection_options = under(
    "AWS options",
    setting(
        "--profile",
        metavar="NAME",
        help="Profile of the AWS configuration.  [or AWS_PROFILE]",
        **completed("profiles"),
    ),
    setting(
        "--region",
        metavar="REGION",
        help="AWS region.  [or AWS_REGION, AWS_DEFAULT_REGION]",
        **completed("regions"),
    ),
    variable(
        "--endpoint-url",
        metavar="URL",
        help="Send AWS requests to this address.  [or AWS_ENDPOINT_URL]",
    ),
)
aws_options = together(
    under(
        "AWS options",
        stack_name_option("Name of the stack.", default="batchreg", show_default=True),
    ),
    connection_options,
)


def queue_options(heading: str) -> Decorator:
    """Return the options for what any tool may have created."""
    return under(
        heading,
        option(
            "--queue",
            metavar="NAME",
            **completed("queues"),
            help="A job queue of any origin, by name or ARN, instead of a stack.",
        ),
        option(
            "--compute-environment",
            metavar="NAME",
            **completed("environments"),
            help="A compute environment of any origin, by name or ARN, instead of a stack.",
        ),
    )


def job_place_options(heading: str) -> Decorator:
    """Return the options for where jobs are: the stack's queues, or another one."""
    return together(
        aws_options,
        under(
            heading,
            option(
                "--queue",
                metavar="NAME",
                **completed("queues"),
                help="A job queue of any origin, by name or ARN, instead of the stack's.",
            ),
        ),
    )


def secret_arn_option() -> Decorator:
    return setting(
        "--secret-arn",
        multiple=True,
        metavar="ARN",
        help="Use an existing secret (JSON with username, password and registry_url) instead "
        "of creating one. Repeat it for more registries. Cannot be used with --registry or "
        "--username.",
    )


def on_failure_option(**attributes: Any) -> Decorator:
    return setting(
        "--on-failure",
        type=click.Choice(constraints.ON_FAILURE),
        metavar="HOW",
        help="What an instance does while it has no credentials: park takes no jobs; join takes jobs, "
        "and private images fail to pull.  "
        f"[default: {constraints.ON_FAILURE[0]}]",
        **attributes,
    )


structure_options = together(
    under(
        "Template options",
        secret_arn_option(),
        setting(
            "--image-type",
            type=click.Choice(constraints.IMAGE_TYPES),
            metavar="TYPE",
            help="Machine image of the instances: ECS_AL2023 or ECS_AL2023_NVIDIA.  "
            "[default: ECS_AL2023]",
        ),
        setting(
            "--fargate/--no-fargate",
            default=None,
            help="Add a compute environment and a queue on Fargate, for jobs that carry their own "
            "credentials.",
        ),
        on_failure_option(),
        user_data_option(),
    ),
    config_option,
)


def refresh_option(**attributes: Any) -> Decorator:
    """Return the option for the refresh interval, for a template or for user data alone."""
    least, most = constraints.REFRESH_MINUTES
    return setting(
        "--credential-refresh-minutes",
        type=number(least, most),
        metavar="MINUTES",
        help=f"How often instances read the secrets again, from {least} to {most} minutes.  "
        f"[default: {constraints.DEFAULT_REFRESH_MINUTES}]",
        **attributes,
    )


def pull_option(**attributes: Any) -> Decorator:
    """Return the option for the ECS agent's pull behavior, for a template or user data alone."""
    return setting(
        "--image-pull-behavior",
        type=click.Choice(constraints.PULL_BEHAVIORS),
        metavar="WHEN",
        help="ECS_IMAGE_PULL_BEHAVIOR of the ECS agent: default, always, once or prefer-cached.  "
        "[default: default]",
        **attributes,
    )


def registry_options(username: str) -> Decorator:
    """Return the options for the credentials of one registry."""
    return under(
        "Registry options",
        setting(
            "--registry-url",
            metavar="URL",
            type=registry_address,
            help="Host of the registry, or docker-hub, ghcr, gitlab, quay.  [default: docker-hub]",
        ),
        setting("--username", metavar="NAME", help=username),
        password_stdin_option(),
    )


def cache_option() -> Decorator:
    return setting(
        "--pull-through-cache",
        is_flag=False,
        flag_value="all",
        metavar="[REGISTRIES]",
        help="Let ECR pull the images and keep the credentials off the instances: all registries that "
        "ECR supports, some of them, such as ghcr.io,docker.io, or none.  [default: as it is]",
    )


credential_options = together(
    registry_options("User name at the registry. Without it, a new stack prompts for it."),
    under(
        "Registry options",
        setting(
            "--registry",
            "registries",
            key="registries",
            multiple=True,
            metavar="URL[,username=U][,password=FROM]",
            help="A registry and its credentials; repeat it for every registry the stack should "
            "have. URL as for --registry-url; FROM is prompt, docker-config or env:NAME. Cannot "
            "be used with --registry-url, --username, --password-stdin or --secret-arn.",
        ),
        option(
            "--from-docker-config",
            is_flag=True,
            help="Take the credentials for every --registry from what docker login stored. "
            "Requires --registry.",
        ),
        setting(
            "--kms-key-arn",
            metavar="ARN",
            help="Customer managed key that encrypts the secrets.  [default: the AWS managed key]",
        ),
        refresh_option(),
    ),
    under(
        "Cache options",
        cache_option(),
        setting(
            "--cache-prefix",
            metavar="PREFIX",
            type=cache_prefix,
            help="Beginning of the names of cached images in ECR.  [default: from the stack's name]",
        ),
        setting(
            "--cache-days",
            metavar="DAYS",
            type=number(*constraints.CACHE_DAYS),
            help="After how many days ECR deletes a cached image; the next pull caches it again.  "
            f"[default: {constraints.DEFAULT_CACHE_DAYS}]",
        ),
    ),
)
value_options = together(
    credential_options,
    under(
        "Network options",
        setting(
            "--subnet-id",
            multiple=True,
            metavar="ID",
            help="Subnet of the instances; repeat it for more. All in one VPC, with a route to the "
            "registry.",
        ),
        setting(
            "--security-group-id",
            multiple=True,
            metavar="ID",
            help="Security group of the instances; repeat it for more.",
        ),
        option(
            "--default-vpc",
            is_flag=True,
            help="Use the default VPC's subnets and its default security group, except where "
            "--subnet-id or --security-group-id is given.",
        ),
    ),
    under(
        "Compute options",
        setting(
            "--provisioning-model",
            type=click.Choice(constraints.PROVISIONING_MODELS),
            metavar="MODEL",
            help="EC2 for On-Demand Instances, SPOT for Spot Instances.  [default: EC2]",
        ),
        setting(
            "--instance-type",
            multiple=True,
            metavar="TYPE",
            help="Instance type or family, such as m7i or c7g.4xlarge; repeat it for more.  "
            "[default: optimal]",
        ),
        setting(
            "--max-vcpus",
            type=number(*constraints.MAX_VCPUS),
            metavar="NUMBER",
            help="Upper limit for the vCPUs of all instances together.  "
            f"[default: {constraints.DEFAULT_MAX_VCPUS}]",
        ),
        setting(
            "--root-volume-gib",
            type=number(*constraints.ROOT_VOLUME_GIB),
            metavar="GIB",
            help="Disk of an instance in GiB, for images and what jobs write into their "
            f"containers.  [default: {constraints.DEFAULT_ROOT_VOLUME_GIB}]",
        ),
        setting(
            "--root-volume-throughput",
            type=number(*constraints.ROOT_VOLUME_THROUGHPUT),
            metavar="MIBS",
            help="Throughput of that disk in MiB/s: large images are written to it. Above 125, AWS "
            f"charges for it.  [default: {constraints.DEFAULT_ROOT_VOLUME_THROUGHPUT}]",
        ),
        setting(
            "--root-volume-iops",
            type=number(*constraints.ROOT_VOLUME_IOPS),
            metavar="NUMBER",
            help=f"IOPS of that disk, at least {constraints.IOPS_PER_MIBS} per MiB/s of its "
            "throughput. Above 3000, AWS charges for them.  "
            f"[default: {constraints.DEFAULT_ROOT_VOLUME_IOPS}]",
        ),
        setting(
            "--image-id",
            metavar="AMI",
            help="Machine image of your own, with the ECS agent and python3.  [default: AWS Batch's]",
        ),
        pull_option(),
    ),
    under(
        "Permission options",
        setting(
            "--instance-policy-arn",
            multiple=True,
            metavar="ARN",
            help="IAM policy for the instances, which every job on them can use; repeat it for more.",
        ),
        setting(
            "--job-policy-arn",
            multiple=True,
            metavar="ARN",
            help="IAM policy for a job role, which submit then uses; repeat it for more.  "
            "[default: no job role]",
        ),
        setting(
            "--ssm/--no-ssm",
            default=None,
            help="Let AWS Systems Manager reach the instances: for sessions, and for rotate --now.  "
            "[default: --no-ssm]",
        ),
    ),
    under(
        "Update options",
        setting(
            "--job-timeout-minutes",
            type=number(*constraints.JOB_TIMEOUT_MINUTES),
            metavar="MINUTES",
            help="How long running jobs may continue when an update replaces their instances.  "
            f"[default: {constraints.DEFAULT_JOB_TIMEOUT_MINUTES}]",
        ),
        option(
            "--terminate-jobs",
            is_flag=True,
            help="Terminate running jobs at once when this update replaces their instances.",
        ),
    ),
)

job_options = under(
    "Job options",
    option(
        "--auth",
        type=click.Choice(["instance", "job"]),
        metavar="WHERE",
        default="instance",
        show_default=True,
        help="Where the registry credentials are: instance for the instances, job for the job "
        "definition. On Fargate always job.",
    ),
    option(
        "--fargate",
        is_flag=True,
        help="Run on Fargate. Cannot be used with --gpus; requires a stack with --fargate.",
    ),
    option(
        "--vcpus",
        type=number(0.25, whole=False),
        metavar="NUMBER",
        default=1,
        show_default=True,
        help="Number of vCPUs: a whole one, or on Fargate also 0.25 or 0.5.",
    ),
    option(
        "--memory",
        type=mebibytes,
        default="2048",
        show_default=True,
        metavar="MIB",
        help="Memory of the job in MiB, or with a unit, such as 4G.",
    ),
    option(
        "--gpus",
        type=number(0),
        metavar="NUMBER",
        default=0,
        show_default=True,
        help="GPUs of the job. Cannot be used with --fargate.",
    ),
    option(
        "--env",
        multiple=True,
        metavar="KEY=VALUE",
        help="Environment variable of the container; repeat it for more.",
    ),
    option(
        "--job-role-arn",
        "job_role",
        metavar="ARN",
        help="IAM role that the container assumes.  [default: the stack's JobRole, if it has one]",
    ),
    option(
        "--retries",
        type=number(1, 10),
        metavar="NUMBER",
        default=1,
        show_default=True,
        help="How often AWS Batch attempts the job in all, from 1 to 10.",
    ),
    option(
        "--timeout",
        type=number(60),
        metavar="SECONDS",
        help="End an attempt after this many seconds, at least 60.  [default: never]",
    ),
)


def structure_settings(
    secret_arn: tuple[str, ...],
    image_type: str | None,
    user_data: Path | None,
    fargate: bool | None,
    on_failure: str | None,
) -> dict[str, Any]:
    """Return the fields of Settings that the structure options give; reads the user data."""
    given: dict[str, Any] = {}
    if secret_arn:
        given["secret_arns"] = tuple(filter(None, secret_arn))
    if image_type:
        given["image_type"] = image_type
    if fargate is not None:
        given["fargate"] = fargate
    if on_failure:
        given["on_failure"] = on_failure
    if user_data is not None:
        from batchreg.render import userdata

        empty = str(user_data) in ("", ".")
        given["user_parts"] = () if empty else userdata.read_parts(user_data)
    return given


def structure(*, pull_through_cache: str | None, **options: Any) -> Any:
    """Turn the structure options into Settings; a template alone has one registry or the cached."""
    from batchreg.render.settings import Settings

    settings = structure_settings(**options)
    if pull_through_cache:
        from batchreg.stack.caching import ALL, wanted

        keys = wanted(pull_through_cache) or ()
        cached = tuple(enumerate((constraints.DOCKER_HUB,) if keys == ALL else keys, 1))
        settings |= {"cached": cached, "slots": tuple(slot for slot, _ in cached) or (1,)}
    return Settings(**settings)

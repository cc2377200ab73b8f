"""What the command line takes: how an option is declared, and the options that commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from batchreg.errors import Interrupted

if TYPE_CHECKING:
    from pathlib import Path

Function = Callable[..., Any]
Decorator = Callable[[Function], Function]

CONFIG_FILE = "batchreg.yaml"
PLACES = "batchreg.places"  # in a context's meta: where the file says what it says


class Command(click.Command):
    """A command that makes its options when somebody looks at them: all of them take 3 ms."""

    def __init__(self, *names: Any, makers: list[Function], **attributes: Any) -> None:
        super().__init__(*names, **attributes)
        self._makers = makers
        del self.params

    def __getattr__(self, name: str) -> Any:
        if name != "params":
            raise AttributeError(name)
        self.params = [make() for make in self._makers]
        return self.params


class Commands(click.Group):
    """The commands, with a Ctrl-C that keeps its message: click's own handling drops it."""

    def add(self, *names: str) -> Callable[[Function], click.Command]:
        """Make a command of a function and of what stands above it."""

        def decorate(function: Function) -> click.Command:
            makers = vars(function).pop("makers")
            return self.command(*names, cls=Command, makers=makers)(function)

        return decorate

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(*interrupt.args) from None


def parameter(kind: type[click.Parameter], *names: str, **attributes: Any) -> Decorator:
    """Declare an option or argument of the function below it."""

    def decorate(function: Function) -> Function:
        vars(function).setdefault("makers", []).insert(0, partial(kind, names, **attributes))
        return function

    return decorate


def argument(name: str, **attributes: Any) -> Decorator:
    """Declare an argument."""
    return parameter(click.Argument, name, **attributes)


def flag(*names: str, **attributes: Any) -> Decorator:
    """Declare an option that stands in the command line alone."""
    return parameter(click.Option, *names, **attributes)


def option(*names: str, **attributes: Any) -> Decorator:
    """Declare an option that BATCHREG_NAME and the key `name` of batchreg.yaml set as well."""
    long = next(name for name in names if name.startswith("--")).split("/")[0].removeprefix("--")
    variable = "BATCHREG_" + long.replace("-", "_").upper()
    return flag(*names, envvar=variable, **attributes)


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options."""

    def decorate(function: Function) -> Function:
        for each in reversed(options):
            function = each(function)
        return function

    return decorate


def file_path(text: str) -> Path:
    """Return a path; its module is imported for those who give one."""
    from pathlib import Path

    return Path(text)


def registry_address(text: str) -> str:
    """Return a registry's address, for one of those that go by a name as well."""
    from batchreg.registry.names import address_of

    return address_of(text)


def read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Take what batchreg.yaml says as the command's defaults; only a file asked for must exist."""
    if context.resilient_parsing:  # a shell completes the line: no time for complaints
        return
    if value or os.path.exists(CONFIG_FILE):
        from pathlib import Path

        from batchreg.cli import config

        context.default_map, context.meta[PLACES] = config.read(value or Path(CONFIG_FILE))


config_option = flag(
    "--config",
    type=file_path,
    envvar="BATCHREG_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    metavar="FILE",
    help=f"Settings file.  [default: {CONFIG_FILE}, where there is one]",
)

user_data_option = option(
    "--user-data",
    metavar="FILE",
    type=file_path,
    help="Your own user data for the instances: a script, a cloud-config or a MIME archive.",
)

structure_options = together(
    option(
        "--secret-arn",
        multiple=True,
        metavar="ARN",
        help="Use this secret of yours (JSON: username, password, registry_url) instead of "
        "making one; repeat it for more registries.",
    ),
    option(
        "--image-type",
        type=click.Choice(["ECS_AL2023", "ECS_AL2023_NVIDIA"]),
        help="Machine image of the instances.  [default: ECS_AL2023]",
    ),
    option(
        "--fargate/--no-fargate",
        default=None,
        help="A second compute environment and queue, on Fargate, for jobs that carry their own "
        "login.",
    ),
    user_data_option,
    config_option,
)


connection_options = together(
    option("--profile", help="Profile of the AWS configuration.  [or AWS_PROFILE]"),
    option("--region", help="AWS region.  [or AWS_REGION, AWS_DEFAULT_REGION]"),
    option(
        "--endpoint-url",
        metavar="URL",
        help="RegistryClient to this address instead of AWS.  [or AWS_ENDPOINT_URL]",
    ),
)
aws_options = together(
    option("--stack-name", default="batchreg", show_default=True), connection_options
)
json_option = flag("--json", "json_output", is_flag=True, help="Print JSON lines, the result last.")
yes_option = flag("-y", "--yes", is_flag=True, help="Do not ask.")
force_option = flag("--force", is_flag=True, help="Also touch a stack that batchreg did not make.")
wait_option = flag(
    "--wait/--no-wait",
    default=True,
    show_default=True,
    help="Follow the stack until it has settled.",
)


def login_options(without: str) -> Decorator:
    """Return the options of a registry login; `without` tells what a missing user name means."""
    return together(
        option(
            "--registry-url",
            metavar="URL",
            type=registry_address,
            help="Host of the registry, or docker-hub, ghcr, gitlab, quay.  [default: Docker Hub]",
        ),
        option("--username", help=f"User name at the registry; {without}."),
        flag(
            "--password-stdin",
            is_flag=True,
            help="Read the password from stdin. Or set BATCHREG_PASSWORD, or be asked.",
        ),
    )


value_options = together(
    option(
        "--registry",
        "registries",
        multiple=True,
        metavar="URL[,username=U][,password=FROM]",
        help="For several registries, each with a login of its own: all that the stack shall "
        "have. URL as for --registry-url. FROM is prompt, docker-config or env:NAME.",
    ),
    flag(
        "--from-docker-config",
        is_flag=True,
        help="Take the logins of all --registry from what docker login stored.",
    ),
    login_options("asked for if missing"),
    option("--kms-key-arn", metavar="ARN", help="Customer managed key of the secret."),
    option(
        "--credential-refresh-minutes",
        type=click.IntRange(5, 1440),
        help="How often instances read the secret again.  [default: 30]",
    ),
    option("--subnet-id", multiple=True, metavar="ID", help="Repeat it for more."),
    option("--security-group-id", multiple=True, metavar="ID", help="Repeat it for more."),
    flag("--default-vpc", is_flag=True, help="Take the default VPC's subnets and security group."),
    option("--provisioning-model", type=click.Choice(["EC2", "SPOT"]), help="[default: EC2]"),
    option(
        "--instance-type",
        multiple=True,
        metavar="TYPE",
        help="Type or family; repeat it for more.  [default: optimal]",
    ),
    option("--max-vcpus", type=click.IntRange(1), help="[default: 256]"),
    option("--root-volume-gib", type=click.IntRange(30, 16384), help="[default: 100]"),
    option(
        "--image-pull-behavior", type=click.Choice(["default", "always", "once", "prefer-cached"])
    ),
)


def mebibytes(value: str) -> int:
    """Return memory in MiB: of a number, or one with a unit, such as 4096, 4G or 512M."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    number, factor = (text[:-1], 1024) if text.endswith("G") else (text.removesuffix("M"), 1)
    if not number.isdecimal() or int(number) == 0:
        raise click.BadParameter(f"{value!r} is not a size in MiB, such as 4096 or 4G")
    return int(number) * factor


job_options = together(
    flag(
        "--auth",
        type=click.Choice(["instance", "job"]),
        default="instance",
        show_default=True,
        help="Who carries the registry login: the instances, or the job definition. "
        "On Fargate always the job.",
    ),
    flag("--fargate", is_flag=True, help="Run on Fargate."),
    flag("--vcpus", type=click.FloatRange(0.25), default=1, show_default=True),
    flag(
        "--memory",
        type=mebibytes,
        default="2048",
        show_default=True,
        metavar="MIB",
        help="MiB, or with a unit, such as 4G.",
    ),
    flag("--gpus", type=click.IntRange(0), default=0),
    flag("--env", multiple=True, metavar="KEY=VALUE", help="Repeat it for more."),
    flag("--job-role-arn", "job_role", metavar="ARN", help="Role that the job has."),
    flag(
        "--retries",
        type=click.IntRange(1, 10),
        default=1,
        show_default=True,
        help="Attempts in all.",
    ),
    flag(
        "--timeout", type=click.IntRange(60), metavar="SECONDS", help="End an attempt after that."
    ),
)


def structure_settings(
    secret_arn: tuple[str, ...],
    image_type: str | None,
    user_data: Path | None,
    fargate: bool | None,
) -> dict[str, Any]:
    """Return the fields of Settings that the structure options give; reads the user data."""
    given: dict[str, Any] = {}
    if secret_arn:
        given["secret_arns"] = tuple(filter(None, secret_arn))
    if image_type:
        given["image_type"] = image_type
    if fargate is not None:
        given["fargate"] = fargate
    if user_data is not None:
        from batchreg.render import userdata

        empty = str(user_data) in ("", ".")
        given["user_parts"] = () if empty else userdata.read_parts(user_data)
    return given


def structure(**options: Any) -> Any:
    """Turn the structure options into Settings."""
    from batchreg.render.settings import Settings

    return Settings(**structure_settings(**options))

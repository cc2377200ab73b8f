"""The command line: the only place that reads the environment, asks, or prints to stdout.

Modules that a command needs are imported when it runs, so that `batchreg --help` stays quick.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import click

from batchreg import __version__
from batchreg.errors import BatchregError

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def option(*names: str, **attributes: Any) -> Decorator:
    """Declare an option that BATCHREG_NAME and the key `name` of batchreg.yaml set as well."""
    variable = "BATCHREG_" + names[-1].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **attributes)


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options."""
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for each in reversed(options):
            command = each(command)
        return command
    return decorate


def read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Take what batchreg.yaml says as the command's defaults; only a file asked for must exist."""
    from batchreg import settings

    path = value or Path(settings.CONFIG_FILE)
    if value or path.exists():
        context.default_map = settings.read_config(path)


config_option = click.option(
    "--config", type=click.Path(path_type=Path), envvar="BATCHREG_CONFIG", show_envvar=True,
    is_eager=True, expose_value=False, callback=read_config,
    help="Settings file.  [default: batchreg.yaml, where there is one]")

user_data_option = option(
    "--user-data", metavar="FILE", type=click.Path(path_type=Path),
    help="Your own user data for the instances: a script, a cloud-config or a MIME archive.")

structure_options = together(
    option("--secret-arn", multiple=True, metavar="ARN",
           help="Use this secret of yours (JSON: username, password, registry_url) instead of "
                "making one; repeat it for more registries."),
    option("--image-type", default="ECS_AL2023", show_default=True,
           type=click.Choice(["ECS_AL2023", "ECS_AL2023_NVIDIA"]),
           help="Machine image of the instances."),
    user_data_option,
    config_option,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="batchreg %(version)s")
def cli() -> None:
    """Run AWS Batch jobs whose images live in a private container registry."""


@cli.command()
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@click.option("--format", "style", type=click.Choice(["yaml", "json"]), default="yaml",
              show_default=True)
@structure_options
def render(output: str | None, style: str, **structure: Any) -> None:
    """Print the CloudFormation template."""
    from batchreg import template

    built = template.build(make_settings(**structure))
    text = template.to_yaml(built) if style == "yaml" else template.to_json(built)
    write(text, output)


@cli.command("user-data")
@option("--secret-id", multiple=True, required=True, metavar="ID",
        help="Name or ARN of a secret with a registry login; repeat it for more registries.")
@click.option("--region", envvar=["AWS_REGION", "AWS_DEFAULT_REGION"], required=True,
              show_envvar=True, help="Region of the secrets.")
@option("--credential-refresh-minutes", type=click.IntRange(5, 1440), default=30,
        show_default=True, help="How often the instances read the secrets again.")
@option("--image-pull-behavior", default="default", show_default=True,
        type=click.Choice(["default", "always", "once", "prefer-cached"]),
        help="ECS_IMAGE_PULL_BEHAVIOR of the ECS agent.")
@click.option("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@user_data_option
@config_option
def user_data(secret_id: tuple[str, ...], region: str, credential_refresh_minutes: int,
              image_pull_behavior: str, output: str | None, user_data: Path | None) -> None:
    """Print the user data alone, for a launch template that Terraform or the CDK manages.

    The instances' role must be allowed secretsmanager:GetSecretValue on the secrets.
    """
    from batchreg import userdata

    write(userdata.for_instance(
        secret_id, region, userdata.read_parts(user_data) if user_data else (),
        refresh_minutes=credential_refresh_minutes, image_pull_behavior=image_pull_behavior,
    ), output)


def make_settings(secret_arn: tuple[str, ...], image_type: str, user_data: Path | None) -> Any:
    """Turn the structure options into Settings."""
    from batchreg import userdata
    from batchreg.settings import Settings

    return Settings(
        secret_arns=secret_arn, image_type=image_type,
        user_parts=userdata.read_parts(user_data) if user_data else ())


def write(text: str, output: str | None) -> None:
    """Write to stdout, or to a file in one step: it is complete, or as it was."""
    if output in (None, "-"):
        click.echo(text, nl=False)
        return
    path = os.path.realpath(str(output))
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe
            Path(path).write_text(text, encoding="utf-8")
            return
        scratch = f"{path}.{os.getpid()}"
        try:
            Path(scratch).write_text(text, encoding="utf-8")
            os.replace(scratch, path)
        finally:
            Path(scratch).unlink(missing_ok=True)
    except OSError as error:
        raise BatchregError(f"Cannot write {output}: {error.strerror}.") from None


def main() -> int:
    """Run the command line and return the exit status: 0, 1 failure, 2 usage, 130 after Ctrl-C."""
    try:
        status = cli.main(prog_name="batchreg", standalone_mode=False)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "batchreg"
        report(f"{one_line(error.format_message())} See `{command} --help`.")
        return error.exit_code
    except click.ClickException as error:
        report(one_line(error.format_message()))
        return error.exit_code
    except BatchregError as error:
        report(str(error))
        return 1
    except (click.Abort, KeyboardInterrupt):
        return 130
    except BrokenPipeError:
        # The reader has left, as `head` does. What is still buffered has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        report(f"Cannot write the output: {error.strerror}.")
        return 1


def one_line(message: str) -> str:
    return " ".join(message.split())


def report(message: str, stream: IO[str] | None = None) -> None:
    print(f"batchreg: {message}", file=stream or sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

"""The command line: its commands, and how each way to end becomes an exit status.

Modules that a command needs are imported when it runs, so that `batchreg --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from batchreg import __version__
from batchreg.cli.options import (
    PLACES,
    Commands,
    argument,
    aws_options,
    config_option,
    connection_options,
    file_path,
    flag,
    force_option,
    job_options,
    json_option,
    login_options,
    option,
    registry_address,
    structure,
    structure_options,
    user_data_option,
    value_options,
    wait_option,
    yes_option,
)
from batchreg.cli.output import drop, one_line, report, write
from batchreg.errors import BatchregError, Interrupted

if TYPE_CHECKING:
    from pathlib import Path


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, message="batchreg %(version)s")
def cli() -> None:
    """Run AWS Batch jobs whose images live in a private container registry.

    An option such as --image-type can also be set as BATCHREG_IMAGE_TYPE in the environment and as
    image_type in batchreg.yaml.
    """


@cli.add()
@flag("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@flag("--format", "style", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@structure_options
def render(output: str | None, style: str, **shape: Any) -> None:
    """Print the CloudFormation template."""
    from batchreg.render import template
    from batchreg.render.text import to_json, to_yaml

    built = template.build(structure(**shape))
    write(to_yaml(built) if style == "yaml" else to_json(built), output)


@cli.add("user-data")
@option(
    "--secret-id",
    multiple=True,
    required=True,
    metavar="ID",
    help="Name or ARN of a secret with a registry login; repeat it for more registries.",
)
@flag(
    "--region",
    envvar=["AWS_REGION", "AWS_DEFAULT_REGION"],
    required=True,
    show_envvar=True,
    help="Region of the secrets.",
)
@option(
    "--credential-refresh-minutes",
    type=click.IntRange(5, 1440),
    default=30,
    show_default=True,
    help="How often the instances read the secrets again.",
)
@option(
    "--image-pull-behavior",
    default="default",
    show_default=True,
    type=click.Choice(["default", "always", "once", "prefer-cached"]),
    help="ECS_IMAGE_PULL_BEHAVIOR of the ECS agent.",
)
@flag("-o", "--output", metavar="FILE", help="Write there instead of to stdout.")
@user_data_option
@config_option
def user_data(
    secret_id: tuple[str, ...],
    region: str,
    credential_refresh_minutes: int,
    image_pull_behavior: str,
    output: str | None,
    user_data: Path | None,
) -> None:
    """Print the user data alone, for a launch template that Terraform or the CDK manages.

    The instances' role must be allowed secretsmanager:GetSecretValue on the secrets.
    """
    from batchreg.render import userdata

    write(
        userdata.for_instance(
            secret_id,
            region,
            userdata.read_parts(user_data) if user_data else (),
            refresh_minutes=credential_refresh_minutes,
            image_pull_behavior=image_pull_behavior,
        ),
        output,
    )


@cli.add()
@aws_options
@structure_options
@value_options
@option("--tag", multiple=True, metavar="KEY=VALUE", help="Tag the stack; repeat it for more.")
@option("--role-arn", metavar="ARN", help="Role that CloudFormation uses.")
@flag(
    "--termination-protection/--no-termination-protection",
    "protect",
    default=None,
    help="Keep the stack from being deleted.",
)
@flag("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@flag(
    "--check",
    multiple=True,
    metavar="IMAGE",
    help="First make sure that the login pulls this image; repeat it for more.",
)
@wait_option
@force_option
@yes_option
@json_option
def deploy(**options: Any) -> int:
    """Create or update the stack."""
    from batchreg.cli import deploy as command

    return command.run(**options)


@cli.add()
@aws_options
@config_option
@flag("--terminate-jobs", is_flag=True, help="End jobs that have not finished.")
@flag(
    "--retain",
    multiple=True,
    metavar="RESOURCE",
    help="Leave this resource behind, where a delete got stuck; repeat it for more.",
)
@option("--role-arn", metavar="ARN", help="Role that CloudFormation uses.")
@wait_option
@force_option
@yes_option
@json_option
def destroy(**options: Any) -> int:
    """Delete the stack and all that is in it."""
    from batchreg.cli import destroy as command

    return command.run(**options)


@cli.add()
@aws_options
@config_option
@json_option
def status(**options: Any) -> int:
    """Show the stack, its compute environment, its queue and its jobs."""
    from batchreg.cli import status as command

    return command.run(**options)


@cli.add()
@aws_options
@flag("--job", metavar="ID", help="A job that waits or failed.  [default: all that wait]")
@flag("--image", help="Ask the registry for this image.  [default: the job's]")
@flag(
    "--save",
    metavar="FILE",
    help="Keep what was seen, without any secret, for --from; - writes it to stdout.",
)
@flag(
    "--from",
    "source",
    metavar="FILE",
    type=file_path,
    help="Judge what --save has kept, without asking AWS.",
)
@config_option
@json_option
def doctor(**options: Any) -> int:
    """Say why jobs wait or images do not come, and what to do about it.

    Changes nothing. Exit status 0: nothing is wrong; 1: something is.
    """
    from batchreg.cli import doctor as doctor_commands

    return doctor_commands.run(**options)


@cli.add()
@argument("image", nargs=-1, required=True)
@option("--stack-name", help="Use the login of this stack.")
@login_options("without it, no login goes along")
@flag(
    "--architecture",
    type=click.Choice(["amd64", "arm64"]),
    help="What the image must be built for.  [default: as the stack, else amd64]",
)
@connection_options
@config_option
@json_option
def check(**options: Any) -> int:
    """Ask the registry whether a login pulls these images.

    The login is given as for deploy, or is that of the stack that --stack-name names. On Docker Hub
    each image costs one pull.
    """
    from batchreg.cli import check as check_commands

    return check_commands.run(**options)


@cli.add()
@argument("image")
@argument("command", nargs=-1)
@aws_options
@config_option
@job_options
@flag("--name", help="Name of the job.  [default: the image's]")
@flag("--array-size", type=click.IntRange(2, 10_000), help="Make it an array job.")
@flag("--detach", is_flag=True, help="Submit, print the job's id, and leave.")
@json_option
def submit(**options: Any) -> int:
    """Run a job: register, submit, follow, show its log, and exit as it does.

    What stands behind -- is the command of the container.
    """
    from batchreg.cli import jobs as job_commands

    return job_commands.submit(**options)


@cli.add()
@argument("job")
@aws_options
@config_option
@flag("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(stack_name: str, **options: Any) -> int:
    """Print the log of a job."""
    from batchreg.cli import jobs as job_commands

    return job_commands.logs(**options)


@cli.add()
@argument("job")
@aws_options
@config_option
def cancel(stack_name: str, **options: Any) -> None:
    """End a job, whether it waits or runs."""
    from batchreg.cli import jobs as job_commands

    job_commands.cancel(**options)


@cli.add()
@aws_options
@config_option
@flag(
    "--registry",
    "registry_url",
    metavar="URL",
    type=registry_address,
    help="Which registry, if the stack has several.",
)
@flag(
    "--password-stdin",
    is_flag=True,
    help="Read the password from stdin. Or set BATCHREG_PASSWORD, or be asked.",
)
@flag("--image", help="Check that the new password pulls this image.")
@flag(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Ask the registry whether it takes the password before anything changes.",
)
@flag(
    "--now", is_flag=True, help="Ask running instances to refresh at once, through Systems Manager."
)
@flag("--follow", is_flag=True, help="--now, and wait until all have answered.")
@flag("--undo", is_flag=True, help="Go back to the previous password.")
@yes_option
@json_option
def rotate(**options: Any) -> int:
    """Give the stack a new registry password."""
    from batchreg.cli import rotate as command

    return command.run(**options)


@cli.add("job-definition")
@argument("image")
@argument("command", nargs=-1)
@aws_options
@config_option
@job_options
def job_definition(**options: Any) -> None:
    """Print a job definition as JSON, for Terraform, Step Functions or your own script."""
    from batchreg.cli import jobs as job_commands

    job_commands.job_definition(**options)


def main() -> int:
    """Run the command line and return the exit status: 0, 1 failure, 2 usage, 130 after Ctrl-C."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by `2>&-`: its number must not go to a socket
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    sys.unraisablehook = _swallowed
    status = _run()
    # A request that is still under way must not hold up whoever interrupts once more.
    _on_interrupt(lambda *_: os._exit(status))
    return status


def _run() -> int:
    try:
        try:
            _on_interrupt(signal.default_int_handler)
            status = cli.main(prog_name="batchreg", standalone_mode=False)
            sys.stdout.flush()
        finally:
            _on_interrupt(lambda *_: None)  # it is settled: what is left to say is said whole
        return status if isinstance(status, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        report(f"a command is missing.\n\n{error.message}")
        return error.exit_code
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "batchreg"
        # What stands there by mistake may be a password: click would print it.
        extra = "unexpected extra argument" in error.message
        message = "There is an argument too many." if extra else _said(error)
        report(f"{one_line(message)} See `{command} --help`.")
        return error.exit_code
    except click.ClickException as error:
        report(one_line(error.format_message()))
        return error.exit_code
    except BatchregError as error:
        report(str(error))
        return error.status
    except (click.Abort, KeyboardInterrupt, Interrupted) as error:
        report(str(error) or "interrupted; nothing has changed.")
        return 130
    except BrokenPipeError:
        # The reader has left, as `head` does. What is still buffered has no reader either.
        drop(sys.stdout)
        return 0
    except Exception as error:
        line = _explain(error)
        if line is None:
            raise
        drop(sys.stdout)
        report(line)
        return 1


def _said(error: click.UsageError) -> str:
    """Return click's message; for a value of the settings file, with the file's line."""
    if isinstance(error, click.BadParameter) and error.ctx and error.param and error.param.name:
        name = error.param.name
        place = error.ctx.meta.get(PLACES, {}).get(name)
        if place and error.ctx.get_parameter_source(name) is ParameterSource.DEFAULT_MAP:
            return f"{place}: {name}: {error.message}"
    return error.format_message()


def _on_interrupt(handler: Any) -> None:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as nohup or `&` leave it
        signal.signal(signal.SIGINT, handler)


def _swallowed(problem: Any) -> None:
    """End at once after a Ctrl-C inside a destructor or a callback, where Python only notes it."""
    if problem.exc_type is not KeyboardInterrupt:
        sys.__unraisablehook__(problem)
        return
    report("interrupted; to go on, run the same command again.")
    os._exit(130)


def _explain(error: Exception) -> str | None:
    """Return one line for a failure of AWS's or of the output, None for a bug of ours."""
    if "botocore" in sys.modules:
        from batchreg import aws

        line = aws.explain(error)
        if line:
            return line
    if isinstance(error, OSError):
        return (
            f"{error.filename}: {error.strerror}."
            if error.filename
            else f"Cannot write the output: {error.strerror or error}."
        )
    return None


if __name__ == "__main__":
    sys.exit(main())

"""The command line: the only place that reads the environment, asks, or prints to stdout.

Modules that a command needs are imported when it runs, so that `batchreg --help` stays quick.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from batchreg import __version__
from batchreg.errors import BatchregError, Interrupted

if TYPE_CHECKING:
    from pathlib import Path

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


PLACES = "batchreg.places"  # in a context's meta: where the file says what it says


def option(*names: str, **attributes: Any) -> Decorator:
    """Declare an option that BATCHREG_NAME and the key `name` of batchreg.yaml set as well."""
    long = next(name for name in names if name.startswith("--")).split("/")[0].removeprefix("--")
    variable = "BATCHREG_" + long.replace("-", "_").upper()
    return click.option(*names, envvar=variable, **attributes)


def together(*options: Decorator) -> Decorator:
    """Make one decorator of several options."""
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for each in reversed(options):
            command = each(command)
        return command
    return decorate


def file_path(text: str) -> Path:
    """Return a path; its module is imported for those who give one."""
    from pathlib import Path

    return Path(text)


def read_config(context: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    """Take what batchreg.yaml says as the command's defaults; only a file asked for must exist."""
    from batchreg import settings

    if context.resilient_parsing:  # a shell completes the line: no time for complaints
        return
    if value or os.path.exists(settings.CONFIG_FILE):
        from pathlib import Path

        context.default_map, context.meta[PLACES] = settings.read_config(
            value or Path(settings.CONFIG_FILE))


config_option = click.option(
    "--config", type=file_path, envvar="BATCHREG_CONFIG",
    is_eager=True, expose_value=False, callback=read_config,
    metavar="FILE", help="Settings file.  [default: batchreg.yaml, where there is one]")

user_data_option = option(
    "--user-data", metavar="FILE", type=file_path,
    help="Your own user data for the instances: a script, a cloud-config or a MIME archive.")

structure_options = together(
    option("--secret-arn", multiple=True, metavar="ARN",
           help="Use this secret of yours (JSON: username, password, registry_url) instead of "
                "making one; repeat it for more registries."),
    option("--image-type", type=click.Choice(["ECS_AL2023", "ECS_AL2023_NVIDIA"]),
           help="Machine image of the instances.  [default: ECS_AL2023]"),
    option("--fargate/--no-fargate", default=None,
           help="A second compute environment and queue, on Fargate, for jobs that carry their own "
                "login."),
    user_data_option,
    config_option,
)


class Commands(click.Group):
    """The commands, with a Ctrl-C that keeps its message: click's own handling drops it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            raise Interrupted(*interrupt.args) from None


@click.group(cls=Commands, context_settings={
    "help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="batchreg %(version)s")
def cli() -> None:
    """Run AWS Batch jobs whose images live in a private container registry.

    An option such as --image-type can also be set as BATCHREG_IMAGE_TYPE in the environment and as
    image_type in batchreg.yaml.
    """


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


connection_options = together(
    option("--profile", help="Profile of the AWS configuration.  [or AWS_PROFILE]"),
    option("--region", help="AWS region.  [or AWS_REGION, AWS_DEFAULT_REGION]"),
    option("--endpoint-url", metavar="URL",
           help="Talk to this address instead of AWS.  [or AWS_ENDPOINT_URL]"),
)
aws_options = together(
    option("--stack-name", default="batchreg", show_default=True),
    connection_options,
)
json_option = click.option("--json", "machine", is_flag=True,
                           help="Print JSON lines, the result last.")
yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
force_option = click.option("--force", is_flag=True,
                            help="Also touch a stack that batchreg did not make.")
wait_option = click.option("--wait/--no-wait", default=True, show_default=True,
                           help="Follow the stack until it has settled.")


def login_options(without: str) -> Decorator:
    """Return the options of a registry login; `without` tells what a missing user name means."""
    return together(
        option("--registry-url", metavar="URL",
               help="Host of the registry.  [default: Docker Hub]"),
        option("--username", help=f"User name at the registry; {without}."),
        click.option("--password-stdin", is_flag=True,
                     help="Read the password from stdin. Or set BATCHREG_PASSWORD, or be asked."),
    )


value_options = together(
    option("--registry", "registries", multiple=True, metavar="URL[,username=U][,password=FROM]",
           help="For several registries, each with a login of its own: all that the stack shall "
                "have. FROM is prompt, docker-config or env:NAME."),
    click.option("--from-docker-config", is_flag=True,
                 help="Take the logins of all --registry from what docker login stored."),
    login_options("asked for if missing"),
    option("--kms-key-arn", metavar="ARN", help="Customer managed key of the secret."),
    option("--credential-refresh-minutes", type=click.IntRange(5, 1440),
           help="How often instances read the secret again.  [default: 30]"),
    option("--subnet-id", multiple=True, metavar="ID", help="Repeat it for more."),
    option("--security-group-id", multiple=True, metavar="ID", help="Repeat it for more."),
    click.option("--default-vpc", is_flag=True,
                 help="Take the default VPC's subnets and security group."),
    option("--provisioning-model", type=click.Choice(["EC2", "SPOT"]), help="[default: EC2]"),
    option("--instance-type", multiple=True, metavar="TYPE",
           help="Type or family; repeat it for more.  [default: optimal]"),
    option("--max-vcpus", type=click.IntRange(1), help="[default: 256]"),
    option("--root-volume-gib", type=click.IntRange(30, 16384), help="[default: 100]"),
    option("--image-pull-behavior",
           type=click.Choice(["default", "always", "once", "prefer-cached"])),
)


@cli.command()
@aws_options
@structure_options
@value_options
@option("--tag", multiple=True, metavar="KEY=VALUE", help="Tag the stack; repeat it for more.")
@option("--role-arn", metavar="ARN", help="Role that CloudFormation uses.")
@click.option("--termination-protection/--no-termination-protection", "protect", default=None,
              help="Keep the stack from being deleted.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option("--check", multiple=True, metavar="IMAGE",
              help="First make sure that the login pulls this image; repeat it for more.")
@wait_option
@force_option
@yes_option
@json_option
def deploy(**options: Any) -> None:
    """Create or update the stack."""
    from batchreg import commands

    commands.deploy(**options)


@cli.command()
@aws_options
@config_option
@click.option("--terminate-jobs", is_flag=True, help="End jobs that have not finished.")
@click.option("--retain", multiple=True, metavar="RESOURCE",
              help="Leave this resource behind, where a delete got stuck; repeat it for more.")
@option("--role-arn", metavar="ARN", help="Role that CloudFormation uses.")
@wait_option
@force_option
@yes_option
@json_option
def destroy(**options: Any) -> None:
    """Delete the stack and all that is in it."""
    from batchreg import commands

    commands.destroy(**options)


@cli.command()
@aws_options
@config_option
@json_option
def status(**options: Any) -> None:
    """Show the stack, its compute environment, its queue and its jobs."""
    from batchreg import commands

    commands.status(**options)


@cli.command()
@aws_options
@click.option("--job", metavar="ID", help="A job that waits or failed.  [default: all that wait]")
@click.option("--image", help="Ask the registry for this image.  [default: the job's]")
@click.option("--save", metavar="FILE",
              help="Keep what was seen, without any secret, for --from; - writes it to stdout.")
@click.option("--from", "source", metavar="FILE", type=file_path,
              help="Judge what --save has kept, without asking AWS.")
@config_option
@json_option
def doctor(**options: Any) -> int:
    """Say why jobs wait or images do not come, and what to do about it.

    Changes nothing. Exit status 0: nothing is wrong; 1: something is.
    """
    from batchreg import doctor_commands

    return doctor_commands.run(**options)


@cli.command()
@click.argument("image", nargs=-1, required=True)
@option("--stack-name", help="Use the login of this stack.")
@login_options("without it, no login goes along")
@click.option("--architecture", type=click.Choice(["amd64", "arm64"]),
              help="What the image must be built for.  [default: as the stack, else amd64]")
@connection_options
@config_option
@json_option
def check(**options: Any) -> int:
    """Ask the registry whether a login pulls these images.

    The login is given as for deploy, or is that of the stack that --stack-name names. On Docker Hub
    each image costs one pull.
    """
    from batchreg import check_commands

    return check_commands.check(**options)


def mebibytes(value: str) -> int:
    """Return memory in MiB: of a number, or one with a unit, such as 4096, 4G or 512M."""
    text = value.strip().upper().removesuffix("B").removesuffix("I")
    number, factor = (text[:-1], 1024) if text.endswith("G") else (text.removesuffix("M"), 1)
    if not number.isdecimal() or int(number) == 0:
        raise click.BadParameter(f"{value!r} is not a size in MiB, such as 4096 or 4G")
    return int(number) * factor


job_options = together(
    click.option("--auth", type=click.Choice(["instance", "job"]), default="instance",
                 show_default=True,
                 help="Who carries the registry login: the instances, or the job definition. "
                      "On Fargate always the job."),
    click.option("--fargate", is_flag=True, help="Run on Fargate."),
    click.option("--vcpus", type=click.FloatRange(0.25), default=1, show_default=True),
    click.option("--memory", type=mebibytes, default="2048", show_default=True, metavar="MIB",
                 help="MiB, or with a unit, such as 4G."),
    click.option("--gpus", type=click.IntRange(0), default=0),
    click.option("--env", multiple=True, metavar="KEY=VALUE", help="Repeat it for more."),
    click.option("--job-role-arn", "job_role", metavar="ARN", help="Role that the job has."),
    click.option("--retries", type=click.IntRange(1, 10), default=1, show_default=True,
                 help="Attempts in all."),
    click.option("--timeout", type=click.IntRange(60), metavar="SECONDS",
                 help="End an attempt after that."),
)


@cli.command()
@click.argument("image")
@click.argument("command", nargs=-1)
@aws_options
@config_option
@job_options
@click.option("--name", help="Name of the job.  [default: the image's]")
@click.option("--array-size", type=click.IntRange(2, 10_000), help="Make it an array job.")
@click.option("--detach", is_flag=True, help="Submit, print the job's id, and leave.")
@json_option
def submit(**options: Any) -> int:
    """Run a job: register, submit, follow, show its log, and exit as it does.

    What stands behind -- is the command of the container.
    """
    from batchreg import job_commands

    return job_commands.submit(**options)


@cli.command()
@click.argument("job")
@aws_options
@config_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
@json_option
def logs(stack_name: str, **options: Any) -> int:
    """Print the log of a job."""
    from batchreg import job_commands

    return job_commands.logs(**options)


@cli.command()
@click.argument("job")
@aws_options
@config_option
def cancel(stack_name: str, **options: Any) -> None:
    """End a job, whether it waits or runs."""
    from batchreg import job_commands

    job_commands.cancel(**options)


@cli.command()
@aws_options
@config_option
@click.option("--registry", "registry_url", metavar="URL",
              help="Which registry, if the stack has several.")
@click.option("--password-stdin", is_flag=True,
              help="Read the password from stdin. Or set BATCHREG_PASSWORD, or be asked.")
@click.option("--image", help="Check that the new password pulls this image.")
@click.option("--check/--no-check", default=True, show_default=True,
              help="Ask the registry whether it takes the password before anything changes.")
@click.option("--now", is_flag=True,
              help="Ask running instances to refresh at once, through Systems Manager.")
@click.option("--follow", is_flag=True, help="--now, and wait until all have answered.")
@click.option("--undo", is_flag=True, help="Go back to the previous password.")
@yes_option
@json_option
def rotate(**options: Any) -> None:
    """Give the stack a new registry password."""
    from batchreg import rotate_command

    rotate_command.run(**options)


@cli.command("job-definition")
@click.argument("image")
@click.argument("command", nargs=-1)
@aws_options
@config_option
@job_options
def job_definition(**options: Any) -> None:
    """Print a job definition as JSON, for Terraform, Step Functions or your own script."""
    from batchreg import job_commands

    job_commands.job_definition(**options)


def make_settings(secret_arn: tuple[str, ...], image_type: str | None, user_data: Path | None,
                  fargate: bool | None, present: Any = None) -> Any:
    """Turn the structure options into Settings; what is not given stays as in `present`."""
    from batchreg import userdata
    from batchreg.settings import Settings

    present = present or Settings()
    return Settings(
        secret_arns=tuple(filter(None, secret_arn)) if secret_arn else present.secret_arns,
        image_type=image_type or present.image_type,
        fargate=present.fargate if fargate is None else fargate,
        slots=present.slots,
        user_parts=present.user_parts if user_data is None else
        () if str(user_data) in ("", ".") else userdata.read_parts(user_data))


def write(text: str, output: str | None) -> None:
    """Write to stdout, or to a file in one step: it is complete, or as it was."""
    if output in (None, "-"):
        click.echo(text, nl=False)
        return
    from pathlib import Path

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
        _drop(sys.stdout)
        return 0
    except Exception as error:
        line = _explain(error)
        if line is None:
            raise
        _drop(sys.stdout)
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
        return (f"{error.filename}: {error.strerror}." if error.filename
                else f"Cannot write the output: {error.strerror or error}.")
    return None


def _drop(stream: IO[str]) -> None:
    """Keep Python from failing once more when it flushes the stream at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def one_line(message: str) -> str:
    return " ".join(message.split())


def report(message: str) -> None:
    """Say the one line on stderr; over the ^C, if a terminal has just shown one."""
    start = "\r" if sys.stderr.isatty() else ""
    try:
        sys.stderr.write(f"{start}batchreg: {message}\n")
    except OSError:
        _drop(sys.stderr)


if __name__ == "__main__":
    sys.exit(main())

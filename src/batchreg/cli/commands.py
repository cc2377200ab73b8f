"""All commands and their options, on one page.

Modules that a command needs are imported when it runs, so that `batchreg --help` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from batchreg import __version__
from batchreg.cli.grammar import (
    Commands,
    argument,
    help_option,
    option,
    setting,
    settings_of,
    under,
    variable,
    version_option,
)
from batchreg.cli.options import (
    CONFIG_FILE,
    aws_options,
    cache_option,
    completed,
    config_option,
    connection_options,
    credential_options,
    file_path,
    force_option,
    job_options,
    job_place_options,
    json_option,
    moment,
    number,
    on_failure_option,
    output_option,
    password_stdin_option,
    pull_option,
    queue_options,
    refresh_option,
    registry_address,
    registry_options,
    role_option,
    secret_arn_option,
    stack_name_option,
    structure,
    structure_options,
    user_data_option,
    value_options,
    wait_option,
    wait_timeout_option,
    yes_option,
)
from batchreg.render import constraints

if TYPE_CHECKING:
    from pathlib import Path

# As in jobs.engines, which is not needed for --help.
ENGINES = ("nextflow", "snakemake", "cromwell", "miniwdl", "metaflow", "airflow")
STACK, REGISTRY, JOBS, TEMPLATE = "Stack", "Registry", "Jobs", "Without a deploy"


@click.group(
    cls=Commands,
    add_help_option=False,
    context_settings={"max_content_width": 100},
    params=[version_option(f"batchreg {__version__}").make(), help_option.make()],
)
def cli() -> None:
    """Run AWS Batch jobs whose images are in a private container registry.

    Most options can also be set in the environment or in batchreg.yaml: --image-type as
    BATCHREG_IMAGE_TYPE and as image_type. The reference lists both names. A flag overrides the
    environment, which overrides the file.
    """


@cli.add(STACK, example="batchreg deploy --registry-url ghcr.io --username lab --default-vpc")
@aws_options
@structure_options
@value_options
@under(
    "Stack options",
    setting(
        "--tag",
        multiple=True,
        metavar="KEY=VALUE",
        help="Tag for the stack and its resources; repeat it for more.",
    ),
    role_option(),
    setting(
        "--termination-protection/--no-termination-protection",
        "protect",
        default=None,
        help="Protect the stack from being deleted.  [default: as it is]",
    ),
    force_option,
)
@under(
    "Run options",
    variable(
        "--dry-run",
        is_flag=True,
        help="Show what would change, and change nothing, even with --yes.",
    ),
    option(
        "--check",
        multiple=True,
        metavar="IMAGE",
        help="Deploy only if the credentials pull this image; repeat it for more.",
    ),
    variable(
        "--no-check",
        is_flag=True,
        help="Do not ask the registries whether they accept the credentials.",
    ),
    option(
        "--replace-environment",
        is_flag=True,
        help="Replace a compute environment that is INVALID, missing or without its ECS cluster with "
        "a new one, behind the same queue.",
    ),
    wait_option,
    wait_timeout_option,
    yes_option,
)
@json_option
def deploy(**options: Any) -> int:
    """Create or update the stack.

    For an existing stack it shows the change set and applies it once you confirm. What you do not
    give stays as it is.
    """
    from batchreg.cli import deploy as command

    return command.run(**options)


@cli.add(STACK, example="batchreg init")
@under(
    "Init options",
    option(
        "--attach",
        metavar="NAME",
        **completed("attachable"),
        help="Write the settings for batchreg attach: for a compute environment or job queue that you "
        "already have, by name or ARN.",
    ),
    option(
        "-o",
        "--output",
        metavar="FILE",
        default=CONFIG_FILE,
        show_default=True,
        **completed("files"),
        help="Write to this file; - is stdout.",
    ),
    option("-y", "--yes", is_flag=True, help="Replace a file that exists, without a prompt."),
)
@settings_of(deploy, "endpoint-url", "default-vpc")
def init(**options: Any) -> int:
    """Ask what deploy or attach needs, and write it to batchreg.yaml.

    It changes nothing in AWS, and works without it. Values that are given are not asked for; without
    a terminal all must be. A password is never written, only where it comes from.
    """
    from batchreg.cli import init as command

    return command.run(**options)


@cli.add(STACK, example="batchreg attach genomics --registry-url ghcr.io --username lab")
@argument("name", **completed("attachable"))
@connection_options
@config_option
@credential_options
@under(
    "Registry options",
    secret_arn_option(),
    variable(
        "--no-check",
        is_flag=True,
        help="Do not ask the registries whether they accept the credentials.",
    ),
    option(
        "--check",
        multiple=True,
        metavar="IMAGE",
        help="Attach only if the credentials pull this image; repeat it for more.",
    ),
)
@under(
    "Environment options",
    option(
        "--job-timeout-minutes",
        type=number(*constraints.JOB_TIMEOUT_MINUTES),
        metavar="MINUTES",
        help="How long running jobs may continue when new instances replace theirs.  "
        "[default: as the environment has it, or 30]",
    ),
    option("--terminate-jobs", is_flag=True, help="Terminate running jobs at once."),
    option(
        "--image-type",
        type=click.Choice(constraints.IMAGE_TYPES),
        metavar="TYPE",
        help="Change the machine image in the same update: ECS_AL2023 or ECS_AL2023_NVIDIA.  "
        "[default: as it is]",
    ),
    option(
        "--blue-green",
        is_flag=True,
        help="Add a copy of the environment to the companion stack and put it first in the queues: "
        "for an environment that AWS Batch cannot update in place.",
    ),
)
@under(
    "Stack options",
    option(
        "--stack-name",
        metavar="NAME",
        **completed("stacks"),
        help="Name of the companion stack.  [default: batchreg-NAME]",
    ),
    setting(
        "--tag",
        multiple=True,
        metavar="KEY=VALUE",
        help="Tag for the companion stack and its resources; repeat it for more.",
    ),
    role_option(),
)
@under(
    "Run options",
    variable(
        "--dry-run",
        is_flag=True,
        help="Show what would change, and change nothing, even with --yes.",
    ),
    option(
        "--emit",
        type=click.Choice(["terraform", "cdk", "cloudformation"]),
        metavar="FORM",
        help="Change nothing, and print what to add to your own code: terraform, cdk or "
        "cloudformation.",
    ),
    wait_option,
    wait_timeout_option,
    yes_option,
)
@json_option
def attach(**options: Any) -> int:
    """Add registry credentials to a compute environment that you already have.

    NAME is a compute environment or a job queue, by name or ARN. A companion stack gets the secrets
    and a copy of the launch template with the credentials added; then the environment is updated to
    use that copy. `batchreg detach` puts everything back.
    """
    from batchreg.cli import attach as command

    return command.run(**options)


@cli.add(STACK, example="batchreg detach genomics")
@argument("name", required=False, **completed("attachable"))
@connection_options
@config_option
@under(
    "Environment options",
    option(
        "--job-timeout-minutes",
        type=number(*constraints.JOB_TIMEOUT_MINUTES),
        metavar="MINUTES",
        help="How long running jobs may continue when new instances replace theirs.  "
        "[default: as the environment had it, or 30]",
    ),
    option("--terminate-jobs", is_flag=True, help="Terminate running jobs at once."),
)
@under(
    "Stack options",
    option(
        "--stack-name",
        metavar="NAME",
        help="Name of the companion stack, instead of NAME.",
        **completed("stacks"),
    ),
    role_option(),
)
@under("Run options", wait_option, wait_timeout_option, yes_option)
@json_option
def detach(**options: Any) -> int:
    """Give a compute environment back what it had before `batchreg attach`.

    It restores the launch template exactly, waits until the environment is VALID, and deletes the
    companion stack.
    """
    from batchreg.cli import detach as command

    return command.run(**options)


@cli.add(STACK, name="list", example="batchreg list")
@connection_options
@config_option
@json_option
def list_(**options: Any) -> int:
    """List the stacks of batchreg and the other job queues in a region.

    With their state, their registries and the number of jobs that wait.
    """
    from batchreg.cli import list as command

    return command.run(**options)


@cli.add(STACK, example="batchreg status --stack-name genomics")
@aws_options
@queue_options("Status options")
@under(
    "Status options",
    option(
        "--outputs",
        is_flag=True,
        help="Print the outputs of the stack alone, as Name: value. Cannot be used with --queue or "
        "--compute-environment.",
    ),
)
@config_option
@json_option
def status(**options: Any) -> int:
    """Show the stack, its compute environment, its queue, its jobs and its settings.

    Or, with --queue or --compute-environment, of one that something else created.
    """
    from batchreg.cli import status as command

    return command.run(**options)


@cli.add(STACK, example="batchreg doctor --stack-name genomics")
@aws_options
@queue_options("Doctor options")
@under(
    "Doctor options",
    option(
        "--job",
        metavar="ID",
        **completed("jobs"),
        help="Diagnose this job, which waits or failed, in whatever queue it is; the start of the "
        "id is enough if it is in the stack's or the named queue.  [default: all that wait]",
    ),
    option(
        "--image", metavar="IMAGE", help="Ask the registry for this image.  [default: the job's]"
    ),
    option(
        "--save",
        metavar="FILE",
        **completed("files"),
        help="Write what was collected, without secrets, to a file for --from; - is stdout.",
    ),
    option(
        "--html",
        metavar="FILE",
        **completed("files"),
        help="Also write the result as a page for a browser, with a drawing of the network and of "
        "the credentials' path; - is stdout.",
    ),
    option(
        "--from",
        "source",
        metavar="FILE",
        type=file_path,
        **completed("files"),
        help="Diagnose a file written by --save, without calling AWS. Cannot be used with --queue, "
        "--compute-environment, --job, --image or --save.",
    ),
)
@config_option
@json_option
def doctor(**options: Any) -> int:
    """Diagnose jobs that stay RUNNABLE and images that fail to pull.

    It looks at a stack, or at any job queue, compute environment or job, whoever created it. It is
    read-only, and takes at most ten seconds. Exit status 0 means that nothing is wrong, 1 that something is.
    """
    from batchreg.cli import doctor as doctor_commands

    return doctor_commands.run(**options)


@cli.add(STACK, example="batchreg destroy --stack-name genomics")
@aws_options
@config_option
@under(
    "Stack options",
    option("--terminate-jobs", is_flag=True, help="Terminate jobs that have not finished."),
    option(
        "--retain",
        multiple=True,
        metavar="RESOURCE",
        help="Keep this resource when an earlier delete failed on it; repeat it for more.",
    ),
    role_option(),
    force_option,
)
@under("Run options", wait_option, wait_timeout_option, yes_option)
@json_option
def destroy(**options: Any) -> int:
    """Delete the stack and everything in it."""
    from batchreg.cli import destroy as command

    return command.run(**options)


@cli.add(
    REGISTRY, example="batchreg check --registry-url ghcr.io --username lab ghcr.io/lab/align:3"
)
@argument("image", nargs=-1, required=True)
@under(
    "Registry options",
    stack_name_option(
        "Use the credentials of this stack. Cannot be used with --registry-url, --username or "
        "--password-stdin."
    ),
)
@registry_options("User name at the registry. Without it, the request is anonymous.")
@under(
    "Check options",
    option(
        "--architecture",
        type=click.Choice(["amd64", "arm64"]),
        metavar="NAME",
        help="What the image must be built for: amd64 or arm64.  [default: the stack's instance "
        "types, else amd64]",
    ),
)
@connection_options
@config_option
@json_option
def check(**options: Any) -> int:
    """Check whether credentials pull these images.

    It does what `docker pull` does before it downloads layers. On Docker Hub each image counts as
    one pull. Exit status 0 means that all images can be pulled.
    """
    from batchreg.cli import check as check_commands

    return check_commands.run(**options)


@cli.add(REGISTRY, example="batchreg rotate --stack-name genomics --follow")
@aws_options
@config_option
@under(
    "Registry options",
    option(
        "--registry",
        "registry_url",
        metavar="URL",
        type=registry_address,
        help="Registry whose password changes. Required if the stack has several.",
    ),
    password_stdin_option(),
    option("--image", metavar="IMAGE", help="Check that the new password pulls this image."),
    option(
        "--check/--no-check",
        default=True,
        show_default=True,
        help="Verify the new password with the registry before anything changes.",
    ),
    option("--undo", is_flag=True, help="Return to the previous password; no new one is read."),
)
@under(
    "Run options",
    option(
        "--now", is_flag=True, help="Ask running instances to refresh now, through Systems Manager."
    ),
    option("--follow", is_flag=True, help="Like --now, and wait until all have answered."),
    wait_timeout_option,
    yes_option,
)
@json_option
def rotate(**options: Any) -> int:
    """Give the stack a new registry password.

    It verifies the password with the registry, stores it, and reports when running instances will
    use it.
    """
    from batchreg.cli import rotate as rotate_command

    return rotate_command.run(**options)


@cli.add(JOBS, example="batchreg submit --memory 4G ghcr.io/lab/align:3 -- align --all")
@argument("image")
@argument("command", nargs=-1)
@aws_options
@config_option
@job_options
@under(
    "Run options",
    option("--name", metavar="NAME", help="Name of the job.  [default: the image's]"),
    option(
        "--array-size",
        type=number(2, 10_000),
        metavar="NUMBER",
        help="Submit an array job of this size, from 2 to 10000.",
    ),
    option("--detach", is_flag=True, help="Print the job's id and exit without waiting."),
    wait_timeout_option,
)
@json_option
def submit(**options: Any) -> int:
    """Run a job, stream its log, and exit with its exit code.

    What follows -- is the container's command. Ctrl-C stops watching; the job continues.
    """
    from batchreg.cli import jobs as job_commands

    return job_commands.submit(**options)


@cli.add(JOBS, example="batchreg image --stack-name genomics ghcr.io/lab/align:3")
@argument("image", nargs=-1, required=True)
@aws_options
@config_option
@json_option
def image(**options: Any) -> int:
    """Print the names by which jobs pull images through ECR.

    One a line, for a stack with a pull-through cache. An image that ECR cannot pull keeps its name.
    IMAGE can be -: then the images are read from stdin, one a line.
    """
    from batchreg.cli import image as command

    return command.run(**options)


@cli.add(JOBS, example="batchreg engine nextflow --stack-name genomics --bucket lab-workflows")
@argument("engine", type=click.Choice(ENGINES), metavar="ENGINE")
@aws_options
@config_option
@under(
    "Engine options",
    option(
        "--bucket",
        metavar="NAME",
        help="S3 bucket for the engine's files.  [default: BUCKET, to be replaced]",
    ),
)
@output_option()
def engine(**options: Any) -> None:
    """Print the settings of a workflow engine for the stack.

    ENGINE is nextflow, snakemake, cromwell, miniwdl, metaflow or airflow. The settings name the
    queue, the Region and the job role and, with a pull-through cache, the registry in ECR where the
    engine can rewrite the names of images. Limits are in the comments, or on stderr.
    """
    from batchreg.cli import engine as command

    command.run(**options)


@cli.add(JOBS, example="batchreg jobs --stack-name genomics --status RUNNABLE")
@argument("job", required=False, **completed("jobs"))
@job_place_options("Job options")
@config_option
@under(
    "Job options",
    option(
        "--status",
        "statuses",
        multiple=True,
        type=click.Choice(constraints.JOB_STATUSES, case_sensitive=False),
        metavar="STATUS",
        help="Only jobs in this state, such as RUNNABLE; repeat it for more.",
    ),
    option(
        "--limit",
        type=number(1),
        metavar="NUMBER",
        default=50,
        show_default=True,
        help="Show at most this many jobs.",
    ),
)
@json_option
def jobs(**options: Any) -> int:
    """List the jobs of the stack's queues, the newest first.

    Or the children of JOB, an array job. The start of an id that is shown here is enough for the
    commands that take a job.
    """
    from batchreg.cli import job_list

    return job_list.run(**options)


@cli.add(JOBS, example="batchreg logs --follow --tail 20 JOB")
@argument("job", **completed("jobs"))
@job_place_options("Job options")
@config_option
@under(
    "Log options",
    option("-f", "--follow", is_flag=True, help="Continue until the job has finished."),
    option(
        "--tail",
        type=number(1),
        metavar="NUMBER",
        help="Begin with the last lines, at most this many.  [default: all]",
    ),
    option(
        "--since",
        type=moment,
        metavar="TIME",
        help="Only lines from this time on: 10m, 2h or 1d ago, or a local time such as "
        "2026-07-01T12:30.",
    ),
    option("--timestamps", is_flag=True, help="Begin each line with its time in UTC."),
)
@json_option
def logs(**options: Any) -> int:
    """Print the log of a job.

    JOB is a job's id or the start of it, as `batchreg jobs` lists them; ID:0 is the first child of
    an array job.
    """
    from batchreg.cli import jobs as job_commands

    return job_commands.logs(**options)


@cli.add(JOBS, example="batchreg cancel JOB")
@argument("job", **completed("jobs"))
@job_place_options("Job options")
@config_option
def cancel(**options: Any) -> None:
    """Cancel a job that waits, or terminate it if it runs.

    JOB is a job's id or the start of it, as `batchreg jobs` lists them.
    """
    from batchreg.cli import jobs as job_commands

    job_commands.cancel(**options)


@cli.add(TEMPLATE, example="batchreg render --output template.yaml")
@under(
    "Output options",
    output_option(),
    option(
        "--format",
        "style",
        type=click.Choice(["yaml", "json"]),
        metavar="FORMAT",
        default="yaml",
        show_default=True,
        help="Format of the template: yaml or json.",
    ),
)
@structure_options
@under("Template options", cache_option())
def render(output: str | None, style: str, **shape: Any) -> None:
    """Print the CloudFormation template."""
    from batchreg.cli.output import write
    from batchreg.render import template
    from batchreg.render.text import to_json, to_yaml

    built = template.build(structure(**shape))
    write(to_yaml(built) if style == "yaml" else to_json(built), output)


@cli.add(
    TEMPLATE,
    name="user-data",
    example="batchreg user-data --secret-id registry/ghcr --region eu-west-3",
)
@under(
    "User data options",
    variable(
        "--secret-id",
        multiple=True,
        required=True,
        metavar="ID",
        help="Name or ARN of a secret with registry credentials; repeat it for more registries.",
    ),
    setting(
        "--region",
        envvar=["BATCHREG_REGION", "AWS_REGION", "AWS_DEFAULT_REGION"],
        metavar="REGION",
        **completed("regions"),
        help="Region of the secrets; if none is given, that of a secret's ARN.  "
        "[or AWS_REGION, AWS_DEFAULT_REGION]",
    ),
    refresh_option(default=constraints.DEFAULT_REFRESH_MINUTES),
    pull_option(default=constraints.PULL_BEHAVIORS[0]),
    on_failure_option(default=constraints.ON_FAILURE[0]),
    user_data_option(),
)
@output_option()
@config_option
def user_data(
    secret_id: tuple[str, ...],
    region: str | None,
    credential_refresh_minutes: int,
    image_pull_behavior: str,
    on_failure: str,
    output: str | None,
    user_data: Path | None,
) -> None:
    """Print the user data alone, for a launch template of your own.

    For Terraform or the CDK, say. The instances' role needs secretsmanager:GetSecretValue on the
    secrets.
    """
    from batchreg.cli.output import write
    from batchreg.render import userdata

    regions = [region for arn in secret_id for region in userdata.region_of(arn)]
    if not region and not regions:
        raise click.UsageError("Missing option '--region', as no --secret-id is an ARN.")
    write(
        userdata.for_instance(
            secret_id,
            region or regions[0],
            userdata.read_parts(user_data) if user_data else (),
            refresh_minutes=credential_refresh_minutes,
            image_pull_behavior=image_pull_behavior,
            on_failure=on_failure,
        ),
        output,
    )


@cli.add(
    TEMPLATE,
    name="job-definition",
    example="batchreg job-definition --memory 4G ghcr.io/lab/align:3 -- align --all",
)
@argument("image")
@argument("command", nargs=-1)
@aws_options
@config_option
@job_options
def job_definition(**options: Any) -> None:
    """Print a job definition as JSON, for tools of your own.

    For Terraform, Step Functions or a script, say. What follows -- is the container's command. AWS
    is called only where a stack is named, and for --auth job and --fargate: it knows the job role
    and the name of the image in ECR's pull-through cache.
    """
    from batchreg.cli import jobs as job_commands

    job_commands.job_definition(**options)


@cli.add(TEMPLATE, example="batchreg schema --output batchreg.schema.json")
@argument("what", type=click.Choice(["settings", "output"]), default="settings", metavar="[WHAT]")
@output_option()
def schema(what: str, output: str | None) -> None:
    """Print the JSON Schema of batchreg.yaml, or of the lines of --json.

    WHAT is settings, which is the default, or output. Editors check and complete batchreg.yaml with
    the first: `batchreg init` writes it next to the file. The other describes every line that --json
    prints, by its type.
    """
    from batchreg.cli import schema as command

    command.run(what, cli, output)

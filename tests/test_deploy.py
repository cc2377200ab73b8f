"""`batchreg deploy` as a subprocess, from an empty account on, against the embedded AWS."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from account import LOGIN, PASSWORD, Account
from wire import Wire

AWS_CLI = str(Path(sys.executable).with_name("aws"))


@pytest.fixture
def deploy(batchreg, account):
    """Run `batchreg deploy` for the stack, with --yes."""

    def run(*arguments: str, yes: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        return batchreg(
            "deploy",
            "--stack-name",
            account.name,
            *["--yes"] * yes,
            *arguments,
            environ={**account.aws.environ, **environ},
        )

    return run


# --- Create ---


def test_new_stack_comes_up_and_its_queue_is_on_stdout(deploy, account):
    """The first deploy: what a script needs next is on stdout, and nothing else."""
    result = deploy(**LOGIN, TERM="xterm-256color")
    assert result.returncode == 0, result.stderr
    assert account.stack["StackStatus"] == "CREATE_COMPLETE"
    assert result.stdout == f"{account.outputs['JobQueueArn'].rpartition('/')[2]}\n"
    ending = result.stderr.splitlines()
    ending = ending[ending.index(f"{account.name} is up.") + 1 :]
    assert [line[:14].rstrip() for line in ending] == [
        "Job queue",
        "Submit a job",
        "Engine",
        "Console",
    ]
    assert "arn:" not in "".join(ending[:-1])
    assert account.secret["password"] == PASSWORD
    check_layout(result)


def check_layout(result: subprocess.CompletedProcess[str]) -> None:
    """Events stand in columns, without trailing blanks or escape codes: it may be a log."""
    lines = result.stderr.splitlines()
    assert not [line for line in lines if line != line.rstrip()]
    assert "\x1b" not in result.stdout + result.stderr
    events = [line for line in lines if line[2:3] == ":"]
    assert len({line.split()[1] for line in events}) >= 8
    assert {line[37:].split()[0] for line in events} == {"CREATE_IN_PROGRESS", "CREATE_COMPLETE"}


def test_password_comes_from_a_pipe(batchreg, aws, account):
    """--password-stdin takes the password as it is; the line break at its end is the shell's."""
    result = batchreg(
        "deploy",
        "--stack-name",
        account.name,
        "--username",
        "lab",
        "--yes",
        "--password-stdin",
        environ=aws.environ,
        input=f" {PASSWORD} \n",
    )
    assert result.returncode == 0, result.stderr
    assert account.secret["password"] == f" {PASSWORD} "


def test_default_vpc_means_its_subnets_and_its_default_group(deploy, account, aws):
    """Who has no opinion about networks needs no ids."""
    result = deploy(
        "--default-vpc",
        "--subnet-id",
        "",
        "--security-group-id",
        "",
        **LOGIN,
        BATCHREG_SUBNET_ID="",
        BATCHREG_SECURITY_GROUP_ID="",
    )
    assert result.returncode == 0, result.stderr
    assert account.parameters["SubnetIDs"].split(",") == aws.subnet_ids
    assert account.parameters["SecurityGroupIDs"] == aws.security_group_ids[0]


def test_what_is_missing_is_named_at_once(deploy, account):
    """A script's author learns all of it from one run; nothing is made meanwhile."""
    result = deploy(yes=False, BATCHREG_SUBNET_ID="", BATCHREG_SECURITY_GROUP_ID="")
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    for flag in (
        "--username",
        "--password-stdin",
        "BATCHREG_PASSWORD",
        "--subnet-id",
        "--security-group-id",
        "--default-vpc",
        "--yes",
    ):
        assert flag in line
    assert account.stack is None


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-vcpus", "none"),
        ("--max-vcpus", "0"),
        ("--provisioning-model", "CHEAP"),
        ("--tag", "no-equals-sign"),
        ("--password", "x"),
        ("--password-stdin", "x"),
    ],
)
def test_wrong_option_is_one_line(deploy, arguments):
    """Status 2, and nothing is asked or made."""
    result = deploy(*arguments, **LOGIN)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"BATCHREG_USERNAME": "a:b"}, "The user name is empty or has a colon"),
        ({"BATCHREG_PASSWORD": "a\nb"}, "The password is empty or has a line break"),
        ({"BATCHREG_PASSWORD": " \t "}, "The password has only blanks."),
        ({"BATCHREG_PASSWORD": "a\udcffb"}, "The password is not text in UTF-8"),
    ],
)
def test_credentials_that_cannot_work_are_refused_first(deploy, account, environ, message):
    """CloudFormation would refuse it as well, later and less clearly."""
    result = deploy(**{**LOGIN, **environ})
    assert result.returncode == 1
    assert result.stderr.startswith(f"batchreg: {message}")
    assert account.stack is None


def test_no_wait_returns_while_the_stack_comes_up(batchreg, slow_aws, stack):
    """A pipeline may have better things to do; termination protection is set all the same."""
    result = batchreg(
        "deploy",
        "--stack-name",
        stack,
        "--no-wait",
        "--termination-protection",
        "--yes",
        environ={**slow_aws.environ, **LOGIN},
    )
    present = Account(slow_aws, stack).stack
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.splitlines()[-1] == (
        f"Creating {stack}. For its status: batchreg status --stack-name {stack}"
    )
    assert present["EnableTerminationProtection"]


# --- Update ---


def test_changed_parameter_updates_what_depends_on_it_alone(deploy, made):
    """The values that are not given stay, the credentials among them."""
    result = deploy("--max-vcpus", "7")
    assert result.returncode == 0, result.stderr
    assert made.environment["computeResources"]["maxvCpus"] == 7
    assert made.secret == {
        "username": "lab",
        "password": PASSWORD,
        "registry_url": "https://index.docker.io/v1/",
    }
    changes = result.stderr[: result.stderr.index("UPDATE_IN_PROGRESS")].splitlines()[:-1]
    assert [line.split()[:2] for line in changes] == [
        ["Setting", "Now"],
        ["Maximum", "vCPUs"],
        ["Action", "Resource"],
        ["Modify", "ComputeEnvironment"],
    ]


def test_new_user_data_reaches_the_compute_environment(deploy, made, tmp_path):
    """A launch template's new version has no effect unless the environment uses it."""
    (tmp_path / "own.sh").write_text("#!/bin/sh\necho first ${HOME}\n")
    before = made.environment["computeResources"]["launchTemplate"]["version"]
    assert deploy("--user-data", "own.sh").returncode == 0
    after = made.environment["computeResources"]["launchTemplate"]["version"]
    assert int(after) == int(before) + 1
    assert "echo first ${HOME}" in made.user_data


def test_user_data_is_remembered_until_it_is_taken_away(deploy, made, tmp_path):
    """A later deploy by a colleague who has no such file must not drop it."""
    plain = made.user_data
    (tmp_path / "own.sh").write_text("#!/bin/sh\necho first ${HOME}\n")
    assert deploy("--user-data", "own.sh").returncode == 0
    (tmp_path / "own.sh").unlink()
    assert deploy("--max-vcpus", "7").returncode == 0
    assert "echo first ${HOME}" in made.user_data
    assert deploy("--user-data", "").returncode == 0
    assert made.user_data == plain


def test_unchanged_stack_exits_zero_and_says_so(deploy, made):
    """Deploying the same twice is a success: pipelines do it all day."""
    result = deploy(yes=False)
    assert result.returncode == 0
    assert result.stderr == f"{made.name} is up to date: nothing to change.\n"
    assert result.stdout == f"{made.outputs['JobQueueArn'].rpartition('/')[2]}\n"


def test_same_credentials_again_change_nothing(deploy, made):
    """CloudFormation alone can tell, as nobody else can read the present values."""
    result = deploy(**LOGIN)
    assert result.returncode == 0
    assert result.stderr == f"{made.name} is up to date: nothing to change.\n"
    assert made.stack["StackStatus"] == "CREATE_COMPLETE"


def test_new_password_reaches_the_secret(deploy, made):
    """The rest of the secret stays."""
    result = deploy(BATCHREG_PASSWORD="other")
    assert result.returncode == 0, result.stderr
    assert (made.secret["username"], made.secret["password"]) == ("lab", "other")
    assert "credentials of Docker Hub  as deployed  replaced by those given" in result.stderr


def test_credentials_that_stay_are_not_shown_as_new(deploy, made):
    """A batchreg.yaml names the user in every deploy."""
    result = deploy("--max-vcpus", "8", **LOGIN)
    assert result.returncode == 0, result.stderr
    assert "Maximum vCPUs" in result.stderr
    assert "credentials of" not in result.stderr


def test_secrets_of_ones_own_are_remembered(deploy, account, aws):
    """--secret-arn shapes the template: a deploy without it must not go back to credentials of its own."""
    arn = aws.client("secretsmanager").create_secret(
        Name=f"own-{account.name}", SecretString=json.dumps({"username": "u", "password": "p"})
    )["ARN"]
    result = deploy("--secret-arn", arn)
    assert result.returncode == 0, result.stderr
    assert "Password" not in account.parameters
    assert deploy("--max-vcpus", "7").returncode == 0
    assert account.environment["computeResources"]["maxvCpus"] == 7
    assert arn in account.user_data
    refused = deploy("--username", "lab")
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)


def test_tags_stay_over_updates(deploy, account):
    """A deploy without --tag must not strip what the cost reports need."""

    def tags() -> dict[str, str]:
        return {tag["Key"]: tag["Value"] for tag in account.stack["Tags"]}

    assert deploy("--tag", "team=lab", "--tag", "cost=7", **LOGIN).returncode == 0
    assert deploy("--max-vcpus", "7").returncode == 0
    assert tags() == {"team": "lab", "cost": "7"}
    assert deploy("--tag", "cost=8").returncode == 0
    assert tags() == {"team": "lab", "cost": "8"}
    assert "nothing to change" in deploy("--tag", "cost=8").stderr


def test_termination_protection_goes_on_and_off(deploy, made):
    """It is not part of the template, so it needs no change set; without the flag it stays."""
    assert deploy("--termination-protection", "--dry-run").returncode == 0
    assert not made.stack["EnableTerminationProtection"]
    assert "Termination protection is on." in deploy("--termination-protection").stderr
    assert deploy("--max-vcpus", "7").returncode == 0
    assert made.stack["EnableTerminationProtection"]
    assert deploy("--no-termination-protection").returncode == 0
    assert not made.stack["EnableTerminationProtection"]


def test_stack_of_another_tool_is_left_alone(deploy, account):
    """A name that is taken must not cost a colleague's stack; --force says that it may."""
    body = 'Resources: {Role: {Type: "AWS::IAM::Role", Properties: {AssumeRolePolicyDocument: {}}}}'
    account.cfn.create_stack(
        StackName=account.name, TemplateBody=body, Capabilities=["CAPABILITY_IAM"]
    )
    result = deploy(**LOGIN)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"batchreg: {account.name} was not created by batchreg. Choose another --stack-name, or give "
        "--force.\n"
    )
    assert deploy("--force", **LOGIN).returncode == 0
    assert "JobQueueArn" in account.outputs


# --- Nothing ---


def test_dry_run_of_a_new_stack_leaves_nothing_behind(deploy, account):
    """Not even the empty stack that a change set needs."""
    result = deploy("--dry-run", yes=False, **LOGIN)
    assert (result.returncode, result.stdout) == (0, "")
    assert "ComputeEnvironment" in result.stderr
    assert result.stderr.splitlines()[-1] == "Dry run: nothing was created."
    assert account.stack is None
    assert account.name not in str(
        account.cfn.list_stacks(StackStatusFilter=["REVIEW_IN_PROGRESS", "CREATE_COMPLETE"])
    )


def test_dry_run_of_an_update_leaves_nothing_behind(deploy, made):
    """No change set for a colleague to wonder about."""
    result = deploy("--dry-run", "--max-vcpus", "7", yes=False)
    assert (result.returncode, result.stdout) == (0, "")
    assert "Modify" in result.stderr
    assert made.stack["StackStatus"] == "CREATE_COMPLETE"
    assert made.cfn.list_change_sets(StackName=made.name)["Summaries"] == []


def test_refused_value_leaves_nothing_behind(deploy, account):
    """CloudFormation's own objection, in one line."""
    result = deploy("--kms-key-arn", "nonsense", **LOGIN)
    assert result.returncode == 1
    assert "of a key (not of an alias). No changes were made.\n" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert account.stack is None


# --- Failure ---


def test_failed_create_names_the_cause_and_the_next_deploy_recovers(deploy, account, vanishing):
    """Of all that fails and is cancelled only the cause matters; it is said last, with a way on."""
    subnet, environ = vanishing
    result = deploy("--subnet-id", subnet, **LOGIN, **environ)
    assert (result.returncode, result.stdout) == (1, "")
    assert account.stack["StackStatus"] == "ROLLBACK_COMPLETE"
    last = result.stderr.splitlines()[-1]
    assert last.startswith(
        f"batchreg: {account.name}: ComputeEnvironment (AWS::Batch::ComputeEnvironment) failed: "
    )
    assert f"The subnet ID '{subnet}' does not exist." in last
    assert "--subnet-id" in last
    assert "cancelled" not in last
    assert "RequestToken" not in last
    result = deploy(**LOGIN)
    assert result.returncode == 0, result.stderr
    assert account.stack["StackStatus"] == "CREATE_COMPLETE"


def test_failed_update_leaves_the_stack_as_it_was(deploy, made, vanishing):
    """The rollback is CloudFormation's; the next deploy needs no repair."""
    subnet, environ = vanishing
    result = deploy("--subnet-id", subnet, **environ)
    assert result.returncode == 1
    assert subnet in result.stderr.splitlines()[-1]
    assert made.stack["StackStatus"] == "UPDATE_ROLLBACK_COMPLETE"
    assert made.parameters["SubnetIDs"].split(",") == made.aws.subnet_ids
    assert deploy("--max-vcpus", "7").returncode == 0


# --- Machines ---


def test_json_events_end_with_the_result(deploy, account):
    """Each line of stdout is JSON, and stderr is silent."""
    result = deploy("--json", **LOGIN)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert (result.returncode, result.stderr) == (0, "")
    assert lines[0]["type"] == "changes"
    assert {"ComputeEnvironment", "JobQueue"} <= {line.get("resource") for line in lines}
    assert lines[-1] == {
        "type": "result",
        "stack": account.name,
        "status": "CREATE_COMPLETE",
        "outputs": account.outputs,
    }


def test_json_result_of_a_failure_says_what_failed(deploy):
    """A machine finds it where it looks for the result; people find it on stderr."""
    result = deploy("--json", "--subnet-id", "subnet-0bad", **LOGIN)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 1
    assert lines[-1]["type"] == "result"
    assert f"batchreg: {lines[-1]['error']}\n" == result.stderr
    assert "subnet-0bad" in result.stderr


# --- The template without us ---


def test_aws_cli_deploys_the_rendered_template(aws, account, template, tmp_path):
    """The template owes nothing to our own deploy: people have pipelines of their own."""

    def wait(operation: str, _: int) -> None:
        # The CLI looks every 30 s: keep it from looking too early.
        if operation == "ExecuteChangeSet":
            account.cfn.get_waiter("stack_create_complete").wait(
                StackName=account.name, WaiterConfig={"Delay": 0.05}
            )

    (tmp_path / "template.yaml").write_text(template)
    with Wire(aws.endpoint, after=wait) as wire:
        result = subprocess.run(
            [
                AWS_CLI,
                "cloudformation",
                "deploy",
                "--stack-name",
                account.name,
                "--template-file",
                "template.yaml",
                "--capabilities",
                "CAPABILITY_IAM",
                "--parameter-overrides",
                "Username=lab",
                "Password=secret",
                f"SubnetIDs={','.join(aws.subnet_ids)}",
                f"SecurityGroupIDs={aws.security_group_ids[0]}",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            env={**aws.environ, "AWS_ENDPOINT_URL": wire.endpoint, "HOME": str(tmp_path)},
        )
    assert result.returncode == 0, result.stderr
    assert account.stack["StackStatus"] == "CREATE_COMPLETE"
    assert account.secret["password"] == "secret"


def test_what_an_instance_does_without_credentials_is_a_choice(batchreg, made, tmp_path):
    """It is shown, deployed, and kept by a later deploy; render and user-data offer it too."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        result = batchreg(*arguments, environ=made.aws.environ)
        assert result.returncode == 0, result.stderr
        return result

    deploy = ("deploy", "--stack-name", made.name)
    shown = run(*deploy, "--dry-run", "--on-failure", "join").stderr.splitlines()
    assert ["without", "credentials", "park", "join"] in [line.split() for line in shown]
    run(*deploy, "--yes", "--on-failure", "join")
    assert "\n--on-failure=join\n" in made.user_data
    run(*deploy, "--yes", "--max-vcpus", "5")
    assert "\n--on-failure=join\n" in made.user_data
    (tmp_path / "batchreg.yaml").write_text("on_failure: join\n")
    assert "--on-failure=join" in run("render").stdout
    assert "--on-failure=park" in run("render", "--on-failure", "park").stdout
    assert (
        "--on-failure=join"
        in run("user-data", "--secret-id", "s", "--region", "eu-central-1").stdout
    )

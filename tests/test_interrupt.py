"""Ctrl-C and closed pipes, at every moment: one line, no traceback, and a way on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from account import LOGIN, Account
from interrupted import BATCHREG, NOTHING, Interrupted
from lab.environ import clean
from wire import Wire


@pytest.fixture
def environ(slow_aws):
    """The environment of a deploy that needs no options."""
    return clean(**slow_aws.environ, **LOGIN)


@pytest.mark.parametrize(
    "moment",
    [
        "before DescribeStacks 1",
        "before CreateChangeSet 1",
        "after CreateChangeSet 1",
        "before DescribeChangeSet 1",
        "after DescribeChangeSet 1",
    ],
)
def test_ctrl_c_before_the_change_leaves_nothing_behind(slow_aws, stack, environ, tmp_path, moment):
    """Not even the empty stack of a change set that CloudFormation is just making."""
    run = Interrupted(
        environ, slow_aws.endpoint, tmp_path, moment, "deploy", "--stack-name", stack, "--yes"
    )
    assert (run.before, run.last) == ([], NOTHING)
    assert Account(slow_aws, stack).stack is None


@pytest.mark.parametrize(
    "moment",
    [
        "before ExecuteChangeSet 1",
        "after ExecuteChangeSet 1",
        "DescribeStackEvents with RegistrySecret",
        "DescribeStackEvents with JobQueue",
        "before DescribeStacks 2",
    ],
)
def test_ctrl_c_during_the_change_lets_it_continue_and_deploy_watches_it(
    slow_aws, stack, environ, batchreg, tmp_path, moment
):
    """CloudFormation works without us: the line says how to resume, and resuming works."""
    run = Interrupted(
        environ, slow_aws.endpoint, tmp_path, moment, "deploy", "--stack-name", stack, "--yes"
    )
    assert run.last == (
        f"batchreg: interrupted; the operation on {stack} continues. To resume watching, run the "
        f"same command again; for its status: batchreg status --stack-name {stack}"
    )
    result = batchreg("deploy", "--stack-name", stack, "--yes", environ=environ)
    assert result.returncode == 0, result.stderr
    assert Account(slow_aws, stack).stack["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize("module", ["click", "batchreg.cli.commands", "boto3"])
def test_ctrl_c_while_python_still_imports_is_one_line(environ, tmp_path, module):
    """Whoever notices a typing error is quicker than the imports: no traceback even then."""
    environ = {**environ, "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}  # nobody is there
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "batchreg", "deploy", "--yes"],
        cwd=tmp_path,
        env=environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for line in process.stderr:
        if line.split("|")[-1].strip() == module:
            process.send_signal(signal.SIGINT)
            break
    lines = [
        line
        for line in process.communicate(timeout=30)[1].splitlines()
        if not line.startswith("import time:")
    ]
    assert process.returncode == 130
    assert lines in ([NOTHING], ["batchreg: interrupted; to go on, run the same command again."])


@pytest.mark.parametrize(
    ("moment", "changed"),
    [
        ("before ListStackResources 1", False),
        ("before DeleteStack 1", True),
        ("DescribeStackEvents with ComputeEnvironment", True),
    ],
)
def test_ctrl_c_in_a_destroy_says_what_continues(
    slow_aws, stack, environ, template, batchreg, tmp_path, moment, changed
):
    """The next destroy watches the one that continues."""
    account = Account(slow_aws, stack)
    account.make(template)
    run = Interrupted(
        environ, slow_aws.endpoint, tmp_path, moment, "destroy", "--stack-name", stack, "--yes"
    )
    if not changed:
        assert run.last == NOTHING
        assert account.stack["StackStatus"] == "CREATE_COMPLETE"
        return
    assert run.last.startswith(f"batchreg: interrupted; the operation on {stack} continues.")
    result = batchreg("destroy", "--stack-name", stack, "--yes", environ=environ)
    assert result.returncode == 0, result.stderr
    assert account.stack is None


def test_a_second_ctrl_c_ends_it_at_once(slow_aws, stack, environ, tmp_path):
    """While the first one's clean-up waits for an answer, say."""

    def step(operation: str, _: int) -> None:
        if operation == "CreateChangeSet":
            for _ in range(3):
                process.send_signal(signal.SIGINT)
                time.sleep(0.1)
            process.wait(timeout=5)  # although no answer came

    with Wire(slow_aws.endpoint, before=step) as wire:
        process = subprocess.Popen(
            [BATCHREG, "deploy", "--stack-name", stack, "--yes"],
            cwd=tmp_path,
            text=True,
            stderr=subprocess.PIPE,
            env={**environ, "AWS_ENDPOINT_URL": wire.endpoint},
        )
        _, stderr = process.communicate(timeout=10)
    assert (process.returncode, stderr) == (130, NOTHING + "\n")


def shell(command: str, environ: dict[str, str], folder: Path) -> tuple[str, str, int]:
    result = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command.replace("batchreg", BATCHREG)],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return result.stdout, result.stderr, result.returncode


@pytest.mark.parametrize(
    "command",
    [
        "batchreg deploy --stack-name {} --yes --json | head -1 > /dev/null",
        "batchreg deploy --stack-name {} --yes 2>&1 >/dev/null | head -1 > /dev/null",
        "batchreg deploy --stack-name {} --yes 2>&- >&-",
        "batchreg deploy --stack-name {} --yes >&- 2>&- <&-",
    ],
)
def test_closed_output_is_silent_and_the_work_gets_done(aws, stack, environ, tmp_path, command):
    """A reader that has left is no reason to stop half-way, nor to complain."""
    environ = {**environ, **aws.environ}
    assert shell(command.format(stack), environ, tmp_path) == ("", "", 0)
    assert Account(aws, stack).stack["StackStatus"] == "CREATE_COMPLETE"


def test_head_of_the_outputs_is_silent(aws, made, environ, tmp_path):
    """The usual way to get one output."""
    environ = {**environ, **aws.environ}
    stdout, stderr, status = shell(
        f"batchreg deploy --stack-name {made.name} --yes 2>/dev/null | head -1", environ, tmp_path
    )
    assert (stdout.count("\n"), stderr, status) == (1, "", 0)

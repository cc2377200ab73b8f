"""Shell completion, as each shell asks for it."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from account import BATCHREG, submit
from terminal import Terminal

from batchreg import aws
from batchreg.errors import BatchregError

# How a shell passes the line, and how an answer looks: bash and fish know one word at a time.
QUESTIONS = {
    "bash": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
    "zsh": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
    "fish": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": words[-1]},
}


@pytest.fixture(params=QUESTIONS)
def complete(request, batchreg):
    """Return a function that completes the last of some words and returns what the shell gets."""

    def ask(*words: str, **environ: str) -> str:
        result = batchreg(
            environ={
                "_BATCHREG_COMPLETE": f"{request.param}_complete",
                **QUESTIONS[request.param](["batchreg", *words]),
                **environ,
            }
        )
        assert result.stderr == ""
        return result.stdout

    return ask


def test_commands_are_completed(complete):
    """With what each does, where the shell shows it."""
    assert "render" in complete("re")
    assert "deploy" not in complete("re")


def test_options_and_their_values_are_completed(complete):
    """Nobody types ECS_AL2023_NVIDIA from memory."""
    assert "--image-type" in complete("render", "--im")
    assert "ECS_AL2023_NVIDIA" in complete("render", "--image-type", "ECS")


def test_broken_settings_file_does_not_spoil_the_line(complete, tmp_path):
    """A complaint would land in the middle of what the user types."""
    (tmp_path / "batchreg.yaml").write_text("no: such key\n")
    assert "--stack-name" in complete("deploy", "--st")


@pytest.fixture
def in_bash(batchreg):
    """Return a function that completes the last of some words in bash: the words of the answer."""

    def ask(*words: str, **environ: str) -> list[str]:
        asked = QUESTIONS["bash"](["batchreg", *words])
        result = batchreg(environ={"_BATCHREG_COMPLETE": "bash_complete", **asked, **environ})
        assert (result.returncode, result.stderr) == (0, "")
        return [line.partition(",")[2] for line in result.stdout.splitlines() if line]

    return ask


def test_files_are_the_shells(complete):
    """It knows them, and how to quote them."""
    for option in ("--config", "--user-data", "--output"):
        assert "file" in complete("render", option, "x")


def test_regions_are_known_without_aws(complete):
    """All partitions have some; none of the pseudo regions is one."""
    shown = complete("status", "--region", "")
    assert {"eu-central-1", "us-gov-west-1", "cn-north-1"} <= {*re.findall(r"[a-z0-9-]+", shown)}
    assert "global" not in shown


def test_profiles_are_those_of_both_files(in_bash, tmp_path):
    """As the AWS CLI finds them: an SSO session is not a profile."""
    config, credentials = tmp_path / "config", tmp_path / "credentials"
    config.write_text("[default]\n[profile lab]\n[profile 'my lab']\n[sso-session lab]\n")
    credentials.write_text("[lab]\n [labor]\n[default]\naws_access_key_id = [lack]\n")
    files = {"AWS_CONFIG_FILE": str(config), "AWS_SHARED_CREDENTIALS_FILE": str(credentials)}
    assert in_bash("status", "--profile", "", **files) == ["default", "lab", "my lab", "labor"]
    assert in_bash("status", "--profile", "la", **files) == ["lab", "labor"]
    assert in_bash("status", "--profile", "", AWS_CONFIG_FILE="/none", HOME="/none") == []


@pytest.mark.parametrize("option", ["--region", "--profile", "--config"])
def test_no_library_of_aws_is_loaded_for_files(option, tmp_path):
    """It takes longer to import than everything else."""
    environ = QUESTIONS["bash"](["batchreg", "status", option, ""])
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "batchreg"],
        env={"_BATCHREG_COMPLETE": "bash_complete", **environ},
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert "batchreg.cli.completion" in result.stderr
    assert not re.search(r"\| +(botocore|boto3|yaml)\b", result.stderr)


def test_names_come_from_aws(in_bash, made, tmp_path):
    """Stacks, queues, environments and jobs of the place that the line, or the file, names."""
    (job,) = submit(made, "RUNNABLE")
    queue = made.outputs["JobQueueArn"].rpartition("/")[2]
    environ = {key: text for key, text in made.aws.environ.items() if "REGION" not in key}
    place = ("--region", environ.pop("AWS_REGION", "us-east-1"))
    assert made.name in in_bash("status", *place, "--stack-name", "", **environ)
    assert in_bash("logs", *place, "--queue", queue[:-1], **environ) == [queue]
    name = made.environment["computeEnvironmentName"]
    assert in_bash("attach", *place, name[:-1], **environ) == [name]
    assert in_bash("cancel", *place, "--stack-name", made.name, job[:4], **environ) == [job]
    (tmp_path / "batchreg.yaml").write_text("region: us-east-1\n")
    assert in_bash("doctor", "--queue", queue, "--job", job[:4], **environ) == [job]
    (tmp_path / "batchreg.yaml").write_text("no: such key\n")
    assert in_bash("doctor", "--queue", queue, "--job", job[:4], **environ) == []


@pytest.mark.parametrize("words", [("status", "--stack-name", ""), ("logs", "--queue", "")])
def test_silence_where_aws_does_not_answer(in_bash, words):
    """No region, no credentials, an endpoint that refuses, one that hangs: within a second."""
    keys = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_REGION": "us-east-1"}
    with socket.create_server(("127.0.0.1", 0)) as hangs:
        for environ in (
            {"HOME": "/none"},
            {"HOME": "/none", "AWS_REGION": "us-east-1"},
            {**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            {**keys, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{hangs.getsockname()[1]}"},
        ):
            began = time.monotonic()
            assert in_bash(*words, **environ) == []
            assert time.monotonic() - began < 3  # 1 s, and as much again for a busy machine


@pytest.mark.parametrize("profile", ["lab", "child"])
def test_nobody_is_asked_for_a_code(profile, tmp_path, monkeypatch):
    """A question in the middle of a line that is completed would hang it."""
    (tmp_path / "config").write_text(
        "[profile lab]\nmfa_serial = arn\nrole_arn = arn\nsource_profile = lab\n"
        "[profile child]\nrole_arn = arn\nsource_profile = lab\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    with pytest.raises(BatchregError, match="The profile lab needs a code"):
        aws.quick_client("batch", 1, profile=profile, region="eu-central-1")


@pytest.mark.parametrize("shell", QUESTIONS)
def test_script_is_one_that_the_shell_takes(shell, batchreg, tmp_path):
    """The lines of the README, put into a shell that is here."""
    script = batchreg(environ={"_BATCHREG_COMPLETE": f"{shell}_source"}).stdout
    assert "_BATCHREG_COMPLETE" in script
    if not shutil.which(shell):
        return
    path = tmp_path / "script"
    path.write_text(script)
    checked = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_with_the_line_of_the_readme(tmp_path):
    """From the line in .bashrc to the word on the command line."""
    program = """
        eval "$(_BATCHREG_COMPLETE=bash_source batchreg)"
        COMP_WORDS=(batchreg rend) COMP_CWORD=1
        _batchreg_completion batchreg rend batchreg
        echo "${COMPREPLY[@]}"
    """
    result = subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": f"{Path(BATCHREG).parent}:/usr/bin:/bin"},
    )
    assert (result.stdout, result.stderr) == ("render\n", "")


def test_tab_in_a_real_bash_completes_a_file_and_a_region(tmp_path):
    """Bash reads files itself, with its own quoting."""
    (tmp_path / "my settings.yaml").write_text("")
    (tmp_path / "rc").write_text('PS1="> "\neval "$(_BATCHREG_COMPLETE=bash_source batchreg)"\n')
    environ = {"PATH": f"{Path(BATCHREG).parent}:/usr/bin:/bin", "HOME": str(tmp_path)}
    shell = ("/bin/bash", "--noprofile", "--rcfile", "rc", "-i")
    with closing(Terminal(*shell, environ=environ, folder=tmp_path, columns=200)) as terminal:
        terminal.expect("> ")
        terminal.type("batchreg status --config my\t")
        terminal.expect(r"--config my\ settings.yaml ")
        terminal.type("--region eusc\t")
        terminal.expect("--region eusc-de-east-1 ")

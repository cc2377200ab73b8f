"""`init`, and what a first deploy offers: a batchreg.yaml that says what the flags said."""

from __future__ import annotations

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import schemas
import yaml
from account import BATCHREG, LOGIN
from attach_lab import Lab
from lab.environ import clean
from terminal import Terminal

from batchreg.cli import inputs, settings_file
from batchreg.cli.commands import deploy
from batchreg.stack.plan import Plan, resolve

ENOUGH = (
    *("--username", "lab", "--subnet-id", "subnet-0a1b", "--subnet-id", "subnet-2c3d"),
    *("--security-group-id", "sg-4e5f"),
)
RUN = {"password_stdin": False, "from_docker_config": False, "default_vpc": False}


def read(path: Path) -> dict[str, Any]:
    """Return the settings of a file, which its schema accepts."""
    settings = yaml.safe_load(path.read_text())
    assert list(schemas.of_settings().iter_errors(settings)) == []
    return settings


def without_network(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment of the embedded AWS without what a deploy would not ask then."""
    unwanted = ("BATCHREG_SUBNET_ID", "BATCHREG_SECURITY_GROUP_ID")
    return {name: value for name, value in environ.items() if name not in unwanted}


def plan(*arguments: str) -> Plan:
    """Return what a deploy with these arguments would do to a new stack."""
    with deploy.make_context("deploy", list(arguments)) as context:
        run_only = {"json_output", "yes", "force", "wait", "dry_run", "check", "no_check",
                    "replace_environment", "profile", "region", "endpoint_url"}  # fmt: skip
        options = {name: each for name, each in context.params.items() if name not in run_only}
        return resolve(inputs.gather(**options))


def test_flags_become_a_file_and_one_next_command(batchreg, tmp_path):
    """The schema is next to it, and its name is in the first line, where editors look."""
    result = batchreg("init", *ENOUGH, "--registry-url", "ghcr", "--max-vcpus", "64", "--ssm")
    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    assert result.stderr == "Settings written to batchreg.yaml. Next: batchreg deploy\n"
    path = tmp_path / "batchreg.yaml"
    assert read(path) == {
        "registry_url": "ghcr.io",
        "username": "lab",
        "subnet_id": ["subnet-0a1b", "subnet-2c3d"],
        "security_group_id": ["sg-4e5f"],
        "max_vcpus": 64,
        "ssm": True,
    }
    first = path.read_text().splitlines()[0]
    assert first == f"# yaml-language-server: $schema={settings_file.SCHEMA_FILE}"
    beside = tmp_path / settings_file.SCHEMA_FILE
    assert beside.read_text() == batchreg("schema").stdout
    assert {each.name for each in tmp_path.iterdir()} == {path.name, beside.name}


def test_stdout_gets_the_same_text(batchreg, tmp_path):
    result = batchreg("init", *ENOUGH, "-o", "-")
    assert result.stderr == "Next: batchreg deploy --config batchreg.yaml\n"
    assert batchreg("init", *ENOUGH, "-o", "mine.yaml").stderr == (
        "Settings written to mine.yaml. Next: batchreg deploy --config mine.yaml\n"
    )
    assert (tmp_path / "mine.yaml").read_text() == result.stdout


def test_file_for_attach_has_what_attach_reads(batchreg, tmp_path):
    """The environment is an argument and no setting: it is in the next command."""
    result = batchreg("init", "--attach", "genomics", "--username", "lab", "--yes")
    assert result.stderr == "Settings written to batchreg.yaml. Next: batchreg attach genomics\n"
    assert read(tmp_path / "batchreg.yaml") == {"username": "lab"}
    assert "subnet_id" not in (tmp_path / "batchreg.yaml").read_text()
    unread = batchreg("init", "--attach", "x", "--max-vcpus", "3", "--yes")
    assert unread.returncode == 2
    assert "--attach cannot be used with --max-vcpus." in unread.stderr


def test_without_a_terminal_everything_that_is_missing_is_named(batchreg, tmp_path):
    """At once, but for the password, which the file does not have."""
    result = batchreg("init")
    assert result.returncode == 2
    assert result.stderr == (
        "batchreg: Missing --username, --subnet-id or --default-vpc, --security-group-id or "
        "--default-vpc. See `batchreg init --help`.\n"
    )
    (tmp_path / "batchreg.yaml").write_text("max_vcpus: 3\n")
    result = batchreg("init", *ENOUGH[2:], "--registry", "ghcr.io")
    assert result.returncode == 2
    assert "Missing the user name of ghcr.io in --registry, --yes to replace" in result.stderr
    assert (tmp_path / "batchreg.yaml").read_text() == "max_vcpus: 3\n"


def test_file_is_replaced_only_with_yes_and_stays_private(batchreg, tmp_path):
    path = tmp_path / "batchreg.yaml"
    path.write_text("max_vcpus: 3\n")
    path.chmod(0o600)
    result = batchreg("init", *ENOUGH)
    assert (result.returncode, path.read_text()) == (2, "max_vcpus: 3\n")
    assert "Missing --yes to replace batchreg.yaml." in result.stderr
    assert batchreg("init", *ENOUGH, "--yes").returncode == 0
    assert read(path)["username"] == "lab"
    assert path.stat().st_mode & 0o777 == 0o600


def test_default_vpc_becomes_its_subnets(batchreg, aws, tmp_path):
    """The file says what was chosen: another default VPC would not move the stack."""
    environ = without_network(aws.environ)
    assert batchreg("init", "--username", "x", "--default-vpc", environ=environ).returncode == 0
    found = read(tmp_path / "batchreg.yaml")
    assert found["subnet_id"] == aws.subnet_ids
    assert found["security_group_id"] == aws.security_group_ids


def test_other_file_with_the_name_of_the_schema_stays(batchreg, tmp_path):
    """One of an earlier version is written again."""
    path = tmp_path / settings_file.SCHEMA_FILE
    path.write_text("{}")
    assert batchreg("init", *ENOUGH).returncode == 0
    assert path.read_text() == "{}"
    path.write_text('{"title": "Settings of batchreg (batchreg.yaml)"}')
    assert batchreg("init", *ENOUGH, "--yes").returncode == 0
    assert path.read_text() == batchreg("schema").stdout


def test_no_password_gets_into_the_file(batchreg, tmp_path):
    """Only the name of the variable that has it."""
    entry = "ghcr.io,username=lab,password=env:TOKEN"
    environ = {"BATCHREG_PASSWORD": "canary", "TOKEN": "canary"}
    assert batchreg("init", *ENOUGH[2:], "--registry", entry, environ=environ).returncode == 0
    assert read(tmp_path / "batchreg.yaml")["registries"] == [
        {"url": "ghcr.io", "username": "lab", "password": "env:TOKEN"}
    ]
    (tmp_path / "batchreg.yaml").unlink()
    for wrong in ("ghcr.io,username=lab,password=canary", "https://lab:canary@ghcr.io"):
        result = batchreg("init", *ENOUGH[2:], "--registry", wrong, environ=environ)
        assert result.returncode == 1
        assert "canary" not in result.stderr
    assert list(tmp_path.glob("batchreg.y*")) == []


FLAGS = {
    "nothing": (),
    "one registry": ("--registry-url", "quay", "--username", "a #b", "--max-vcpus", "3"),
    "several registries": (
        *("--registry", "ghcr,username=lab,password=env:TOKEN", "--registry", "docker-hub"),
        *("--kms-key-arn", "arn:aws:kms:eu-west-3:123456789012:key/1", "--stack-name", "genomics"),
    ),
    "what docker login stored": ("--registry", "ghcr,username=x", "--from-docker-config"),
    "secrets of one's own": (
        "--secret-arn",
        "arn:aws:secretsmanager:eu-west-3:123456789012:secret:ghcr-AbCdEf",
    ),
    "a cache": (
        "--pull-through-cache",
        "ghcr.io",
        "--registry-url",
        "ghcr.io",
        "--cache-days",
        "5",
    ),
    "words that YAML reads as something else": (
        "--username",
        "no",
        "--tag",
        "on=012",
        "--tag",
        "a=b",
    ),
    "the whole shape": (
        *("--image-type", "ECS_AL2023_NVIDIA", "--fargate", "--on-failure", "join"),
        *("--user-data", "own.sh", "--image-pull-behavior", "once", "--no-ssm"),
        *("--instance-type", "g5", "--instance-type", "g6", "--provisioning-model", "SPOT"),
        *("--root-volume-gib", "200", "--root-volume-iops", "4000", "--termination-protection"),
        *("--job-policy-arn", "arn:aws:iam::aws:policy/ReadOnlyAccess", "--role-arn", "arn:x"),
    ),
}


@pytest.mark.parametrize("name", FLAGS)
def test_deploy_with_the_file_plans_what_the_flags_plan(name, tmp_path, monkeypatch):
    """From another directory, too: a relative path starts at the file."""
    monkeypatch.chdir(tmp_path)
    Path("own.sh").write_text("#!/bin/sh\necho own\n")
    arguments = [*FLAGS[name], *ENOUGH[2:]]
    with deploy.make_context("deploy", list(arguments)) as context:
        found = settings_file.given(context)
    (tmp_path / "team").mkdir()
    settings_file.save("team/batchreg.yaml", deploy, found)
    settings = read(tmp_path / "team" / "batchreg.yaml")
    monkeypatch.setenv("TOKEN", "x")
    by_flags = plan(*arguments)
    monkeypatch.setenv("TOKEN", "x")  # which reading takes out of the environment
    assert plan("--config", "team/batchreg.yaml") == by_flags
    assert settings.keys() == found.keys()


def test_line_that_is_not_set_can_be(tmp_path):
    """Each key is there once; a number, a choice and a switch are an example that works."""
    text = settings_file.text(deploy.declared, {}, tmp_path)
    lines = re.findall(r"(?m)^# (\w+): (.+)$", text)
    keys = schemas.of_settings().schema["properties"]
    assert sorted(key for key, _ in lines) == sorted(keys)
    for key, value in lines:
        if not value.isupper() or "enum" in keys[key]:
            settings = yaml.safe_load(f"{key}: {value}")
            assert list(schemas.of_settings().iter_errors(settings)) == []
    assert max(map(len, text.splitlines())) <= 100


# --- At a terminal ---


def questions(terminal: Terminal, *answers: tuple[str, str]) -> None:
    for question, text in answers:
        terminal.expect(question)
        terminal.type(f"{text}\n")


def at_terminal(folder: Path, *arguments: str, **environ: str) -> closing[Terminal]:
    """Run batchreg in a terminal, with nothing of the embedded AWS's network in its environment."""
    place = {**clean("COLUMNS", "LINES", "TERM"), **without_network(environ)}
    return closing(Terminal(BATCHREG, *arguments, environ=place, folder=folder))


def test_newcomer_is_asked_what_a_new_stack_needs(aws, tmp_path):
    """The network comes from lists; a slip is asked again."""
    with at_terminal(tmp_path, "init", **aws.environ) as terminal:
        questions(
            terminal,
            ("Where should jobs run?", "1"),
            ("AWS Region [us-east-1]: ", ""),
            ("Name of the stack [batchreg]: ", "9"),
            ("Error: '9' cannot be a stack's name", "genomics"),
            ("Registry [docker-hub]: ", "myhost"),
            ("Error: Docker would look for myhost/x on Docker Hub.", "ghcr"),
            ("User name at the registry: ", "lab"),
            ("Password from: prompt, docker-config or env:NAME [prompt]: ", "canary"),
            ("Error: write prompt, docker-config or env:NAME, with the", "env:TOKEN"),
            ("Subnets (", "1,3"),
            ("Security groups (", "1"),
        )
        assert terminal.wait() == 0, terminal.output
        assert terminal.lines[-2] == "Settings written to batchreg.yaml. Next: batchreg deploy"
    first, _, third = aws.subnet_ids
    assert read(tmp_path / "batchreg.yaml") == {
        "stack_name": "genomics",
        "region": "us-east-1",
        "registries": [{"url": "ghcr.io", "username": "lab", "password": "env:TOKEN"}],
        "subnet_id": [first, third],
        "security_group_id": aws.security_group_ids,
    }


def test_existing_environment_is_chosen_from_a_list(aws, tmp_path):
    lab = Lab(aws, "init-theirs").make()
    with at_terminal(tmp_path, "init", "--registry-url", "quay", **aws.environ) as terminal:
        questions(
            terminal,
            ("Where should jobs run?", "2"),
            ("AWS Region [us-east-1]: ", ""),
            ("Compute environment (", lab.name),
            ("User name at the registry: ", "lab"),
            ("[prompt]: ", ""),
        )
        assert terminal.wait() == 0, terminal.output
        assert terminal.lines[-2].endswith(f"Next: batchreg attach {lab.name}")
    # With its queue: in a row, or in lines where other tests' names leave no room for one.
    before = terminal.output.partition("Compute environment (")[0].split()
    assert before.count(lab.name) == 2
    assert read(tmp_path / "batchreg.yaml") == {
        "region": "us-east-1",
        "registry_url": "quay.io",
        "username": "lab",
    }


def test_without_aws_values_are_typed(tmp_path):
    """No region and no credentials: it says what it could not look up, and why."""
    (tmp_path / "batchreg.yaml").write_text("max_vcpus: 3\n")
    with at_terminal(
        tmp_path, "init", "--username", "lab", AWS_EC2_METADATA_DISABLED="true", HOME=str(tmp_path)
    ) as terminal:
        questions(
            terminal,
            ("Replace batchreg.yaml? [y/N]: ", "y"),
            ("Where should jobs run?", ""),
            ("AWS Region, such as us-east-1: ", "eu-west-3"),
            ("Name of the stack [batchreg]: ", ""),
            ("Registry [docker-hub]: ", ""),
            ("[prompt]: ", ""),
            ("Could not look up the network: No AWS credentials", "1,2"),
            ("Error: write ids that start with subnet-", "subnet-0a1b, subnet-2c3d"),
            ("Security groups (ids, such as sg-0a1b2c3d): ", "sg-4e5f"),
        )
        assert terminal.wait() == 0, terminal.output
    assert read(tmp_path / "batchreg.yaml") == {
        "stack_name": "batchreg",
        "region": "eu-west-3",
        "registry_url": "docker-hub",
        "username": "lab",
        "subnet_id": ["subnet-0a1b", "subnet-2c3d"],
        "security_group_id": ["sg-4e5f"],
    }


def test_ctrl_c_and_no_change_nothing(tmp_path):
    """A file that is there stays as it is."""
    (tmp_path / "batchreg.yaml").write_text("max_vcpus: 3\n")
    for answer, status in (("n\n", 1), ("\x03", 130)):
        with at_terminal(tmp_path, "init") as terminal:
            terminal.expect("Replace batchreg.yaml? [y/N]: ")
            terminal.type(answer)
            assert terminal.wait() == status
        assert [each.name for each in tmp_path.iterdir()] == ["batchreg.yaml"]
        assert (tmp_path / "batchreg.yaml").read_text() == "max_vcpus: 3\n"


@pytest.mark.parametrize("answer", ["y\n", "\x03"])
def test_first_deploy_offers_to_save_its_settings(account, tmp_path, answer):
    """Once the work is done: Ctrl-C is a no, and no failure."""
    environ = {**account.aws.environ, **LOGIN}
    arguments = ("--stack-name", account.name, "--default-vpc", "--max-vcpus", "12")
    with at_terminal(tmp_path, "deploy", *arguments, **environ) as terminal:
        questions(terminal, (f"Create {account.name} in us-east-1", "y"))
        terminal.expect("Save these settings to batchreg.yaml? [y/N]: ", 30)
        terminal.type(answer)
        assert terminal.wait() == 0, terminal.output
        assert terminal.stdout == account.outputs["JobQueueArn"].rpartition("/")[2] + "\n"
    if answer == "\x03":
        assert list(tmp_path.iterdir()) == []
        return
    assert read(tmp_path / "batchreg.yaml") == {
        "stack_name": account.name,
        "region": "us-east-1",
        "username": "lab",
        "subnet_id": account.parameters["SubnetIDs"].split(","),
        "security_group_id": account.aws.security_group_ids,
        "max_vcpus": 12,
    }
    with at_terminal(tmp_path, "deploy", **environ) as terminal:  # it is no first one any more
        assert terminal.wait() == 0, terminal.output
    assert "Save" not in terminal.output
    assert json.loads((tmp_path / settings_file.SCHEMA_FILE).read_text())["properties"]

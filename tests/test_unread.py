"""Variables and files that look like batchreg's: read, refused, or warned about."""

from __future__ import annotations

import pytest
from account import LOGIN

DEPLOY = ("deploy", "--registry-url", "ghcr.io", "--yes", "--stack-name")


def test_dry_run_in_the_environment_changes_nothing(batchreg, account):
    """It beats --yes, as the flag does."""
    environ = {**account.aws.environ, **LOGIN, "BATCHREG_DRY_RUN": "1"}
    done = batchreg(*DEPLOY, account.name, environ=environ)
    assert (done.returncode, done.stdout) == (0, "")
    assert "ComputeEnvironment" in done.stderr
    assert account.stack is None


def test_dry_run_that_is_neither_on_nor_off_is_refused(batchreg, account):
    """Whoever sets it does not expect a change."""
    environ = {**account.aws.environ, **LOGIN, "BATCHREG_DRY_RUN": "please"}
    done = batchreg(*DEPLOY, account.name, environ=environ)
    assert done.returncode == 2
    assert done.stderr == (
        "batchreg: Invalid value in BATCHREG_DRY_RUN: 'please' is neither true nor false. "
        "See `batchreg deploy --help`.\n"
    )
    assert account.stack is None


@pytest.mark.parametrize("name", ["BATCHREG_DRYRUN", "BATCHREG_DRY_RUNS"])
def test_misspelled_dry_run_is_refused(batchreg, account, name):
    """A warning would come with the change."""
    environ = {**account.aws.environ, **LOGIN, name: "1"}
    done = batchreg(*DEPLOY, account.name, environ=environ)
    assert done.returncode == 2
    assert done.stderr == (
        f"batchreg: Nothing reads {name}. Did you mean BATCHREG_DRY_RUN? "
        "See `batchreg deploy --help`.\n"
    )
    assert account.stack is None


@pytest.mark.parametrize("command", ["deploy", "destroy", "rotate"])
def test_confirmation_in_the_environment_is_refused(batchreg, command):
    """An exported one would confirm the deletion of any stack."""
    environ = {"BATCHREG_YES": "1", "AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    done = batchreg(command, environ=environ)
    assert done.returncode == 2
    assert done.stderr == (
        "batchreg: BATCHREG_YES is not supported, because it would confirm every command. "
        f"Use --yes. See `batchreg {command} --help`.\n"
    )


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("BATCHREG_MAX_VCPU", "Did you mean BATCHREG_MAX_VCPUS?"),
        ("BATCHREG_IMAGE_TYPES", "Did you mean BATCHREG_IMAGE_TYPE?"),
        ("BATCHREG_PASSWROD", "Did you mean BATCHREG_PASSWORD?"),
        ("BATCHREG_PASSWORD_STDIN", "Use --password-stdin, or set BATCHREG_PASSWORD."),
        ("BATCHREG_DETACH", "Use --detach on the command line."),
        ("BATCHREG_YES", "Use --yes on the command line."),
        ("BATCHREG_HOME", "The reference lists the variables that batchreg reads."),
    ],
)
def test_variable_that_nothing_reads_is_a_warning(batchreg, name, step):
    """With the right name; the value may be a secret and is not shown. The output is the same."""
    done = batchreg("render", environ={name: "hunter2"})
    assert done.stderr == f"batchreg: warning: nothing reads {name}. {step}\n"
    assert (done.returncode, done.stdout) == (0, batchreg("render").stdout)


def test_variable_that_another_command_reads_is_no_warning(batchreg):
    """People export them all in one place."""
    environ = {"BATCHREG_MAX_VCPUS": "16", "BATCHREG_PASSWORD": "x", "BATCHREG_SECRET_ID": "x"}
    assert batchreg("render", environ=environ).stderr == ""


def test_empty_variable_is_no_warning(batchreg):
    """It counts as unset, here as everywhere."""
    assert batchreg("render", environ={"BATCHREG_MAX_VCPU": ""}).stderr == ""


def test_variable_that_holds_a_registrys_password_is_no_warning(batchreg, account):
    """--registry names it, and what is named is read."""
    done = batchreg(
        *("deploy", "--yes", "--dry-run", "--stack-name", account.name),
        *("--registry", "ghcr.io,username=lab,password=env:BATCHREG_GHCR_TOKEN"),
        environ={**account.aws.environ, "BATCHREG_GHCR_TOKEN": "token"},
    )
    assert (done.returncode, "warning" in done.stderr) == (0, False)


def test_settings_file_with_the_wrong_ending_is_a_warning(batchreg, tmp_path):
    """Settings that nobody reads look like settings that do not work."""
    (tmp_path / "batchreg.yml").write_text("image_type: ECS_AL2023_NVIDIA\n")
    done = batchreg("render")
    assert done.stderr == (
        "batchreg: warning: nothing reads batchreg.yml. Rename it to batchreg.yaml.\n"
    )
    assert "ECS_AL2023_NVIDIA" not in done.stdout
    asked = batchreg("render", "--config", "batchreg.yml")
    assert (asked.stderr, "ECS_AL2023_NVIDIA" in asked.stdout) == ("", True)

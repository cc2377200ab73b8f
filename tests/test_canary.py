"""Credentials that occur nowhere else in the world reach AWS and no other place."""

from __future__ import annotations

import pytest
from canary import PASSWORD, USERNAME, Watched, sung

from batchreg.registry.logins import ENV
from batchreg.stack.plan import Inputs, RegistryInput, resolve


@pytest.fixture
def watched(account, tmp_path):
    return Watched(account, tmp_path)


def test_credentials_reach_the_secret_and_nothing_else_while_the_stack_lives(watched, account):
    """Create, a look at it, an update, its end: one request carries the credentials."""
    assert watched("--yes").returncode == 0
    assert watched.carriers == {"CreateChangeSet"}
    assert account.secret["password"] == PASSWORD
    assert watched("--json", command="status").returncode == 0
    assert watched("--yes", "--json", "--max-vcpus", "7").returncode == 0
    assert watched("--yes", "--json", command="destroy").returncode == 0


def test_credentials_stay_out_of_a_failure(watched):
    """The reason of a failed resource is CloudFormation's text, passed on."""
    for machine in ([], ["--json"]):
        assert watched("--yes", "--subnet-id", "subnet-0bad", *machine).returncode == 1


def test_credentials_stay_out_of_a_dry_run(watched, account):
    """A dry run needs the whole change set, and throws it away."""
    assert watched("--dry-run").returncode == 0
    assert watched.carriers == {"CreateChangeSet"}
    assert account.stack is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["--yes", "--max-vcpus", "none"],
        ["--yes", "--no-such-option"],
        ["--yes", "--password", PASSWORD],
        ["--yes", f"--password={PASSWORD}"],
        ["--yes", "--password-stdin", PASSWORD],
        ["--yes", f"--password-stdin={PASSWORD}"],
        ["--yes", PASSWORD, USERNAME],
        ["--yes", "--registry-url", f"https://{USERNAME}:{PASSWORD}@ghcr.io"],
        ["--yes", "--kms-key-arn", "nonsense"],
    ],
)
def test_credentials_stay_out_of_the_message_about_a_wrong_option(watched, arguments):
    """Even if they were typed as one, as other tools want it."""
    result = watched(*arguments)
    assert result.returncode in (1, 2)
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "environ",
    [
        {"BATCHREG_USERNAME": f"{USERNAME}:{PASSWORD}"},
        {"BATCHREG_PASSWORD": f"{PASSWORD}\n{PASSWORD}"},
        {"BATCHREG_PASSWORD": f"{PASSWORD}\udcff"},
    ],
)
def test_credentials_that_are_refused_are_not_shown(watched, environ):
    """The message says what is wrong with it, not what it is."""
    assert watched("--yes", **environ).returncode == 1
    assert watched.carriers == set()


def test_credentials_stay_out_of_a_traceback(watched):
    """A bug of ours may print whatever it likes, but no variables: here AWS answers nonsense."""

    def nonsense(operation: str, body: bytes) -> bytes:
        return body.replace(b"Status>", b"Mood>") if operation == "DescribeChangeSet" else body

    watched.answer = nonsense
    result = watched("--yes")
    assert result.returncode == 1
    assert "Traceback" in result.stderr


def test_credentials_stay_out_of_objects_that_a_debugger_or_a_log_prints():
    """repr() of what holds it, as a logging library or pytest would print it."""
    inputs = Inputs(stack_name="x", parameters={"Username": USERNAME, "Password": PASSWORD})
    several = RegistryInput("ghcr.io", USERNAME, f"{ENV}TOKEN", PASSWORD)
    listed = Inputs(stack_name="x", registries=(several,))
    for holder in (inputs, resolve(inputs), listed, resolve(listed)):
        assert not sung(repr(holder))

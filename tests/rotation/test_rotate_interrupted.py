"""`batchreg rotate`, interrupted, and two at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from account import PASSWORD, Account
from interrupted import Interrupted
from rotating import Registries, own_secret, rendered, with_own
from wire import Wire


@pytest.fixture
def slow(slow_aws, stack, batchreg):
    """A stack whose updates take their time."""
    account = Account(slow_aws, stack)
    account.make(rendered())
    return Registries(account, batchreg)


def interrupt(slow: Registries, folder: Path, moment: str) -> Interrupted:
    environ = {"PATH": "/usr/bin:/bin", **slow.aws.environ, "BATCHREG_PASSWORD": "new"}
    return Interrupted(
        environ,
        slow.aws.endpoint,
        folder,
        moment,
        "rotate",
        "--stack-name",
        slow.name,
        "--yes",
        "--no-check",
    )


@pytest.mark.parametrize(
    "moment", ["before GetSecretValue 1", "after CreateChangeSet 1", "after DescribeChangeSet 1"]
)
def test_ctrl_c_before_the_change_keeps_the_old_password(slow, tmp_path, moment):
    """Exit status 130, one line, and no change set left behind."""
    run = interrupt(slow, tmp_path, moment)
    assert (run.before, run.last) == ([], "batchreg: interrupted; no changes were made.")
    assert slow.secret["password"] == PASSWORD
    assert slow.cfn.list_change_sets(StackName=slow.name)["Summaries"] == []


@pytest.mark.parametrize(
    "moment",
    [
        "before ExecuteChangeSet 1",
        "after ExecuteChangeSet 1",
        "DescribeStackEvents with RegistrySecret",
    ],
)
def test_ctrl_c_during_the_change_says_so_and_the_same_command_continues(slow, tmp_path, moment):
    """The password is the old one or the new one, and then the new one."""
    run = interrupt(slow, tmp_path, moment)
    assert run.last.startswith(f"batchreg: interrupted; the operation on {slow.name} continues.")
    assert slow.secret["password"] in (PASSWORD, "new")
    slow.rotate("new")
    assert slow.secret["password"] == "new"


@pytest.mark.parametrize("moment", ["before PutSecretValue 1", "after PutSecretValue 1"])
def test_ctrl_c_while_an_own_secret_changes_leaves_it_whole(
    slow_aws, stack, batchreg, tmp_path, moment
):
    """One call, which takes place or does not: the line says that nobody knows which."""
    own = Registries(Account(slow_aws, stack), batchreg)
    arn = own_secret(own)
    with_own(own, arn)
    assert "either its old or its new password" in interrupt(own, tmp_path, moment).last
    assert own.read(arn)["password"] in ("old", "new")
    own.rotate("new")
    assert own.read(arn)["password"] == "new"


def test_later_of_two_rotations_follows_the_first_and_wins(slow):
    """Neither is half done."""

    def step(operation: str, count: int) -> None:
        if (operation, count) == ("DescribeStacks", 1):
            slow.cfn.update_stack(
                StackName=slow.name,
                UsePreviousTemplate=True,
                Capabilities=["CAPABILITY_IAM"],
                ClientRequestToken="batchreg-of-another-run",
                Parameters=[
                    {"ParameterKey": name, "ParameterValue": "first"}
                    if name == "Password"
                    else {"ParameterKey": name, "UsePreviousValue": True}
                    for name in names
                ],
            )

    names = list(slow.parameters)
    with Wire(slow.aws.endpoint, before=step) as wire:
        result = slow.rotate("second", AWS_ENDPOINT_URL=wire.endpoint)
    assert "An earlier run left" in result.stderr
    assert slow.secret["password"] == "second"


def test_rotation_that_another_one_has_overtaken_does_not_take_place(slow):
    """Its change set was created for a stack that has changed since."""

    def step(operation: str, count: int) -> None:
        if (operation, count) == ("ExecuteChangeSet", 1):
            slow.rotate("other")

    with Wire(slow.aws.endpoint, before=step) as wire:
        result = slow._batchreg(
            "rotate",
            "--stack-name",
            slow.name,
            "--yes",
            "--no-check",
            environ={
                **slow.aws.environ,
                "AWS_ENDPOINT_URL": wire.endpoint,
                "BATCHREG_PASSWORD": "new",
            },
        )
    assert slow.stack["StackStatus"] == "UPDATE_COMPLETE"
    assert (result.returncode, slow.secret["password"]) == (1, "other")
    assert "Another change of" in result.stderr


def test_later_of_two_rotations_of_an_own_secret_wins(account, batchreg):
    """Both have read it before either has written it: the credentials are complete all the same."""
    own = Registries(account, batchreg)
    arn = own_secret(own, comment="from Terraform")
    with_own(own, arn)

    def step(operation: str, count: int) -> None:
        if (operation, count) == ("PutSecretValue", 1):
            own.rotate("first")

    with Wire(own.aws.endpoint, before=step) as wire:
        own.rotate("second", AWS_ENDPOINT_URL=wire.endpoint)
    whole = {"username": "lab", "registry_url": "a.example.com", "comment": "from Terraform"}
    assert own.read(arn) == {**whole, "password": "second"}
    assert own.read(arn, "AWSPREVIOUS") == {**whole, "password": "first"}

"""`batchreg rotate` against the embedded AWS."""

from __future__ import annotations

import json

import pytest
from account import LOGIN, PASSWORD
from canary import PASSWORD as CANARY
from rotating import HUB, ONE_OF_TWO, Registries, own_secret, rendered, with_own

# --- A new password ---


def test_new_password_is_current_and_the_old_one_previous(one):
    """The user name stays, and so does the secret."""
    (arn,) = one.arns
    result = one.rotate('n"e\\w ${x}')
    assert one.credentials == {HUB: ("lab", 'n"e\\w ${x}')}
    assert one.arns == [arn]
    assert one.read(arn, "AWSPREVIOUS")["password"] == PASSWORD
    assert result.stderr.splitlines()[-1].startswith(
        "Docker Hub has a new password. Running instances use it by "
    )
    assert result.stdout == ""


def test_rotation_changes_one_parameter_and_one_resource(two):
    """The other registry's secret keeps even its version."""
    before, parameters = two.versions, two.parameters
    two.rotate("new", *ONE_OF_TWO)
    assert two.credentials == {"a.example.com": ("ann", "new"), "b.example.com": ("ben", "other")}
    assert two.versions["b.example.com"] == before["b.example.com"]
    assert two.parameters == parameters  # as far as anybody can read them


def test_deploy_after_a_rotation_keeps_the_new_password(one):
    """Even one that writes the secret again: the parameter decides, not the secret."""
    one.rotate("new")
    one("deploy", "--max-vcpus", "5")
    assert one.secret["password"] == "new"
    one("deploy", "--username", "eve")
    assert (one.secret["username"], one.secret["password"]) == ("eve", "new")


def test_undo_restores_the_password_in_the_same_place(two):
    """So that the next deploy does not bring the undone password."""
    two.rotate("new", *ONE_OF_TWO)
    result = two("rotate", "--undo", "--no-check", *ONE_OF_TWO)
    assert "a.example.com has its previous password again." in result.stderr
    two("deploy", "--registry", "a.example.com,username=eve", "--registry", "b.example.com")
    assert two.credentials == {"a.example.com": ("eve", "old"), "b.example.com": ("ben", "other")}


def test_undo_needs_something_to_go_back_to(one):
    """A secret that has never changed has no previous version."""
    versions = one.versions
    result = one("rotate", "--undo", "--no-check", status=1)
    assert result.stderr.endswith("has no earlier password.\n")
    assert one.versions == versions


def test_the_same_password_is_nothing_to_change(one):
    """A script that runs twice succeeds twice, and no agent restarts for it."""
    versions = one.versions
    result = one.rotate(PASSWORD)
    assert result.stderr == "Docker Hub has this password already: nothing to change.\n"
    assert one.versions == versions


def test_password_may_come_through_a_pipe(made, batchreg):
    """As with deploy."""
    result = batchreg(
        "rotate",
        "--stack-name",
        made.name,
        "--yes",
        "--no-check",
        "--password-stdin",
        "--json",
        environ=made.aws.environ,
        input="piped\n",
    )
    assert result.returncode == 0, result.stderr
    last = json.loads(result.stdout.splitlines()[-1])
    assert last == {
        "type": "result",
        "stack": made.name,
        "registry": "Docker Hub",
        "changed": True,
        "instances": {},
    }
    assert made.secret["password"] == "piped"


# --- Secrets of the user's own ---


def test_own_secret_gets_a_new_version_with_its_other_fields(account, batchreg):
    """The stack is left alone, and so is what others keep in the secret."""
    own = Registries(account, batchreg)
    arn = own_secret(account, comment="from Terraform", rotated="never")
    with_own(own, arn)
    events = own.cfn.describe_stack_events(StackName=own.name)["StackEvents"]
    own.rotate("new")
    login = {
        "username": "lab",
        "registry_url": "a.example.com",
        "comment": "from Terraform",
        "rotated": "never",
    }
    assert own.read(arn) == {**login, "password": "new"}
    assert own.read(arn, "AWSPREVIOUS") == {**login, "password": "old"}
    own("rotate", "--undo", "--no-check")
    assert own.read(arn) == {**login, "password": "old"}
    assert own.cfn.describe_stack_events(StackName=own.name)["StackEvents"] == events


def test_broken_secret_does_not_keep_the_others_from_a_new_password(account, batchreg):
    """As on the instance."""
    own = Registries(account, batchreg)
    good, bad = own_secret(account), own_secret(account, registry_url="b.example.com")
    with_own(own, bad, good)
    own.manager.put_secret_value(SecretId=bad, SecretString="canary, not JSON")
    own.rotate("new", "--registry", "a.example.com")
    assert own.read(good)["password"] == "new"
    result = own.rotate("new", "--registry", "b.example.com", status=1)
    assert "The stack has no credentials for b.example.com" in result.stderr
    assert "canary" not in result.stderr


# --- What is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "several registries. Give --registry, one of a.example.com, b.example.com."),
        (
            ["--registry", "ghcr.io"],
            "no credentials for ghcr.io; it has a.example.com, b.example.com.",
        ),
        (["--registry", "myhost"], "Write a full host, such as myhost.example.com"),
    ],
)
def test_registry_must_be_one_of_the_stacks(two, arguments, message):
    """Nothing has changed."""
    versions = two.versions
    result = two.rotate("new", *arguments, status=1)
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert two.versions == versions


def test_registry_is_found_under_any_spelling(two):
    """As everywhere else."""
    two.rotate("new", "--registry", "HTTPS://B.example.com/")
    assert two.credentials["b.example.com"] == ("ben", "new")


@pytest.mark.parametrize("password", ["a\nb", "{{resolve:ssm:x}}"])
def test_password_that_cannot_work_is_refused_first(one, password):
    """By the rule of deploy."""
    versions = one.versions
    assert "Give it as the registry shows it." in one.rotate(password, status=1).stderr
    assert one.versions == versions


def test_without_a_terminal_nothing_is_asked(one, batchreg):
    """Status 2, and the options that a script needs."""
    result = batchreg("rotate", "--stack-name", one.name, environ=one.aws.environ)
    assert result.returncode == 2
    assert "--password-stdin or BATCHREG_PASSWORD" in result.stderr


def test_failure_is_the_result_where_a_machine_reads_it(two):
    """The last line of stdout."""
    result = two.rotate("new", "--json", status=1)
    assert "Give --registry" in json.loads(result.stdout.splitlines()[-1])["error"]


def test_registry_that_is_away_changes_nothing(account, batchreg):
    """The check comes first."""
    account.make(rendered(), RegistryUrl="127.0.0.1:9", Username="u", Password="old")
    own = Registries(account, batchreg)
    result = own("rotate", BATCHREG_PASSWORD="new", status=1)
    assert result.stderr.endswith("No changes were made. To skip this check, give --no-check.\n")
    assert own.credentials == {"127.0.0.1:9": ("u", "old")}


# --- No credentials where none belong ---


def test_rotated_password_goes_to_cloudformation_and_nowhere_else(watched, made):
    """Neither arguments nor outputs nor files."""
    assert watched("--yes", "--no-check", "--json", command="rotate").returncode == 0
    assert watched.carriers == {"CreateChangeSet"}
    assert made.secret["password"] == CANARY
    assert watched("--yes", "--no-check", "--undo", command="rotate").returncode == 0
    assert watched("--yes", "--registry", "myhost", command="rotate").returncode == 1


def test_rotated_password_of_an_own_secret_goes_to_secrets_manager_and_nowhere_else(
    watched, account
):
    """Nor do the other fields of the secret."""
    own = own_secret(account, password="old", note=f"{CANARY}-note")
    with_own(account, own)
    watched.road = "PutSecretValue"
    assert watched("--yes", "--no-check", "--json", command="rotate").returncode == 0
    assert watched.carriers == {"PutSecretValue"}
    assert watched("--yes", "--no-check", "--undo", command="rotate").returncode == 0


def test_now_in_a_stack_without_instances_is_a_success(one):
    """New ones have the password at once."""
    result = one.rotate("new", "--follow")
    assert "Docker Hub has a new password." in result.stderr
    assert one.secret["password"] == "new"


def test_secret_that_is_gone_leads_to_doctor(one):
    """Only a new resource brings it back, and doctor has the commands."""
    one.manager.delete_secret(SecretId=one.arns[0], ForceDeleteWithoutRecovery=True)
    result = one.rotate("new", status=1)
    assert "does not exist. To find out what to do: batchreg doctor" in result.stderr


def test_rotation_needs_a_stack(account, batchreg):
    """One line with the way on."""
    result = Registries(account, batchreg)("rotate", status=1, **LOGIN)
    assert f"There is no stack {account.name} in us-east-1." in result.stderr

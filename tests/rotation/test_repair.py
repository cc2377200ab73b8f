"""A stack's own secret that somebody has changed by hand: rotate and deploy repair it."""

from __future__ import annotations

import json

import pytest
from account import PASSWORD
from canary import PASSWORD as CANARY
from rotating import HUB, ONE_OF_TWO, Registries, own_secret, with_own

from batchreg.registry.logins import Credentials
from batchreg.stack.registries import StackRegistry, read, username
from batchreg.stack.repair import content
from batchreg.stack.states import Stack

BROKEN = {
    "not JSON": f"{CANARY}, not JSON",
    "no object": "[1]",
    "without fields": "{}",
    "another password": json.dumps({"username": "lab", "password": CANARY}),
    "an empty password": json.dumps({"username": "lab", "password": "", "registry_url": HUB}),
    "a user name with a colon": json.dumps({"username": "l:b", "password": CANARY}),
    "another registry": json.dumps(
        {"username": "lab", "password": PASSWORD, "registry_url": "ghcr.io"}
    ),
}


def change(registries, text: str | bytes, arn: str = "") -> None:
    """Change the secret by hand, as the console or a script does."""
    kind = "SecretString" if isinstance(text, str) else "SecretBinary"
    registries.manager.put_secret_value(SecretId=arn or registries.arns[0], **{kind: text})


@pytest.mark.parametrize("value", BROKEN)
def test_rotate_repairs_a_secret_although_its_parameter_has_this_password(one, value):
    """CloudFormation sees no change there, and its template decides what the secret looks like."""
    change(one, BROKEN[value])
    result = one.rotate(PASSWORD)
    assert "Docker Hub has a working secret again. Running instances use it by " in result.stderr
    assert CANARY not in result.stderr
    assert one.secret == {"username": "lab", "password": PASSWORD, "registry_url": HUB}


@pytest.mark.parametrize("value", ["not JSON", "another password"])
def test_rotate_to_a_new_password_repairs_a_secret(one, value):
    """CloudFormation writes all of it, user name included."""
    change(one, BROKEN[value])
    result = one.rotate("new")
    assert "Docker Hub has a new password." in result.stderr
    assert one.secret == {"username": "lab", "password": "new", "registry_url": HUB}


def test_rotate_repairs_a_binary_secret_and_leaves_the_other_registry_alone(two):
    """By the user name of the value before."""
    before = two.versions["b.example.com"]
    arn = two.outputs["RegistrySecretArn"]
    change(two, b"\0", arn)
    two.rotate("old", *ONE_OF_TWO)
    assert two.credentials == {"a.example.com": ("ann", "old"), "b.example.com": ("ben", "other")}
    assert two.versions["b.example.com"] == before


def test_user_name_that_was_changed_by_hand_is_that_of_the_new_password(one):
    """It is whom the check asks the registry about; the next deploy must not undo it."""
    change(one, json.dumps({"username": "eve", "password": "x", "registry_url": HUB}))
    one.rotate("new")
    assert (one.secret["username"], one.secret["password"]) == ("eve", "new")
    one("deploy", "--registry-url", "ghcr.io")
    assert (one.secret["username"], one.secret["password"]) == ("eve", "new")


def test_password_that_only_the_secret_has_becomes_the_parameters(one):
    """Or the next deploy that writes the secret would bring the old one back."""
    change(one, json.dumps({"username": "lab", "password": "by hand", "registry_url": HUB}))
    one.rotate("by hand")
    one("deploy", "--username", "eve")
    assert (one.secret["username"], one.secret["password"]) == ("eve", "by hand")


def test_undo_repairs_a_secret(one):
    """The value before the change by hand is what there is to go back to."""
    change(one, BROKEN["not JSON"])
    result = one("rotate", "--undo", "--no-check")
    assert "Docker Hub has a working secret again." in result.stderr
    assert one.secret["password"] == PASSWORD


def test_lost_user_name_names_the_deploy_command_that_repairs_it(two, batchreg):
    """Broken twice: neither the value nor the one before it tells the user name."""
    arn = two.outputs["RegistrySecretArn"]
    for text in ("{}", BROKEN["not JSON"]):
        change(two, text, arn)
    command = (
        f"batchreg deploy --stack-name {two.name} --registry-url a.example.com --username USER "
        "--password-stdin"
    )
    lost = "The secret of a.example.com was changed by hand, and its user name is lost."
    for options in ((), ("--no-check",)):
        result = two("rotate", *options, *ONE_OF_TWO, status=1, BATCHREG_PASSWORD="old")
        assert result.stderr == f"batchreg: {lost} Give user name and password: {command}\n"
    words = command.replace("USER", "ann").split()[1:]
    place = two.aws.environ
    result = batchreg(*words, "--no-check", "--yes", environ=place, input="old\n")
    assert result.returncode == 0, result.stderr
    assert two.credentials == {"a.example.com": ("ann", "old"), "b.example.com": ("ben", "other")}


def test_deploy_with_the_same_credentials_repairs_a_secret_after_a_question(one):
    """Without a terminal the question is wrong usage, and a dry run only says what it would do."""
    change(one, BROKEN["not JSON"])
    login = {"BATCHREG_USERNAME": "lab", "BATCHREG_PASSWORD": PASSWORD, "BATCHREG_NO_CHECK": "1"}
    result = one("deploy", "--dry-run", **login)
    assert result.stderr == (
        "Dry run: a deploy would repair the secret of Docker Hub, which was changed by hand.\n"
    )
    place = {**one.aws.environ, **login}
    asked = one._batchreg("deploy", "--stack-name", one.name, environ=place)
    assert asked.returncode == 2
    assert one.manager.get_secret_value(SecretId=one.arns[0])["SecretString"].startswith(CANARY)
    result = one("deploy", **login)
    assert result.stderr == "The secret of Docker Hub has the given credentials again.\n"
    assert one.secret == {"username": "lab", "password": PASSWORD, "registry_url": HUB}
    assert "up to date: nothing to change" in one("deploy", **login).stderr


def test_deploy_that_changes_something_else_repairs_a_secret_too(one):
    """With the credentials given, the stack has them afterwards, whatever CloudFormation saw."""
    change(one, BROKEN["not JSON"])
    login = {"BATCHREG_PASSWORD": PASSWORD, "BATCHREG_NO_CHECK": "1"}
    one("deploy", "--max-vcpus", "5", **login)
    assert one.secret == {"username": "lab", "password": PASSWORD, "registry_url": HUB}


def test_deploy_without_credentials_leaves_a_secret_alone(one):
    """It may be somebody's fix in a hurry."""
    change(one, BROKEN["another password"])
    one("deploy", "--max-vcpus", "5")
    assert one.secret["password"] == CANARY


def test_secret_of_the_users_own_is_never_rewritten(account, batchreg):
    """Nobody but its owner knows what belongs in it."""
    own = Registries(account, batchreg)
    arn = own_secret(account)
    with_own(own, arn)
    change(own, BROKEN["not JSON"], arn)
    result = own.rotate("new", status=1)
    assert "Fix it in the Secrets Manager console." in result.stderr
    assert CANARY not in result.stderr


def test_template_and_repair_write_the_same_fields(one):
    """Else the next deploy of the same credentials would change the secret again."""
    stack = Stack(one.name, "id", "CREATE_COMPLETE", "", one.parameters, {}, {}, None, False)
    registry = StackRegistry(HUB, one.arns[0], 1)
    assert content(stack, registry, Credentials("lab", PASSWORD)) == one.secret
    assert username(one.manager, registry) == "lab"
    change(one, "{}")
    assert str(read(one.manager, registry)).endswith("To repair it: batchreg rotate")

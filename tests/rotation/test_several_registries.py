"""Stacks with several registries, against the embedded AWS."""

from __future__ import annotations

import base64
import json

import pytest
from account import PASSWORD
from canary import PASSWORD as CANARY
from rotating import HUB, ONE_OF_TWO, TWO, Registries, rendered

from batchreg.render import userdata


def test_stack_with_one_registry_becomes_one_with_two(one):
    """The one that is there keeps its secret, and its credentials are not needed again."""
    before = one.versions
    one(
        "deploy",
        "--registry",
        "docker.io",
        "--registry",
        "ghcr.io,username=lab,password=env:TOKEN",
        TOKEN="gh",
    )
    assert one.credentials == {HUB: ("lab", PASSWORD), "ghcr.io": ("lab", "gh")}
    assert one.versions[HUB] == before[HUB]
    for arn in one.arns:
        assert f"--secret-id={arn}\n" in one.user_data


def test_adding_changing_and_removing_leave_the_others_alone(two):
    """Same secrets, same versions, whatever order they are named in."""
    before = two.versions
    two("deploy", *TWO, "--registry", "ghcr.io,username=lab,password=env:G", G="g")
    added = two.versions
    assert {url: added[url] for url in before} == before
    two("deploy", "--registry", "ghcr.io,username=gil,password=env:G", *TWO, G="new")
    changed = two.versions
    assert two.credentials["ghcr.io"] == ("gil", "new")
    assert {url: changed[url] for url in before} == before
    two("deploy", "--registry", "https://ghcr.io", "--registry", "B.example.com")
    assert two.versions == {url: changed[url] for url in ("b.example.com", "ghcr.io")}
    assert two.user_data.count("\n--secret-id=") == 2


def test_registry_may_be_given_by_its_name(account, batchreg):
    """In all places; what the stack keeps is the address."""
    several = Registries(account, batchreg)
    several(
        "deploy",
        "--registry",
        "ghcr,username=lab,password=env:TOKEN",
        "--registry",
        "Docker-Hub,username=hub,password=env:TOKEN",
        TOKEN="t",
    )
    assert several.credentials == {"ghcr.io": ("lab", "t"), HUB: ("hub", "t")}
    several.rotate("new", "--registry", "ghcr")
    several("deploy", "--registry-url", "dockerhub", "--username", "eve")
    assert several.credentials == {"ghcr.io": ("lab", "new"), HUB: ("eve", "t")}


def test_plain_deploy_keeps_all_registries(two):
    """The usual case: a change of something else."""
    before = two.versions
    two("deploy", "--max-vcpus", "5")
    assert two.versions == before
    assert two.environment["computeResources"]["maxvCpus"] == 5


def test_options_for_one_registry_work_after_the_first_has_gone(account, batchreg):
    """What is left keeps its number for life."""
    account.make(
        rendered(slots=(2,)),
        Username="",
        Password="",
        RegistryUrl2="b.example.com",
        Username2="ben",
        Password2="old",
    )
    left = Registries(account, batchreg)
    left("deploy", "--username", "eve")
    assert left.credentials == {"b.example.com": ("eve", "old")}


def test_one_variable_may_serve_two_registries(account, batchreg):
    """A robot account of the same name at a mirror, say."""
    both = Registries(account, batchreg)
    both("deploy", *(text.replace("env:B", "env:A") for text in TWO), A="same")
    assert both.credentials == {"a.example.com": ("ann", "same"), "b.example.com": ("ben", "same")}


def test_the_usual_variable_may_be_named_as_well(account, batchreg):
    """It is taken out of the environment at once, and must not be looked for in vain."""
    both = Registries(account, batchreg)
    both(
        "deploy",
        *(text.replace("env:B", "env:BATCHREG_PASSWORD") for text in TWO),
        A="a",
        BATCHREG_PASSWORD="usual",
    )
    assert both.credentials == {"a.example.com": ("ann", "a"), "b.example.com": ("ben", "usual")}


def test_credentials_of_a_single_registry_go_to_none_of_several(two):
    """BATCHREG_PASSWORD may be set for something else."""
    before = two.versions
    two(
        "deploy",
        *ONE_OF_TWO,
        "--registry",
        "b.example.com",
        "--max-vcpus",
        "5",
        BATCHREG_USERNAME="no",
        BATCHREG_PASSWORD="no",
        BATCHREG_REGISTRY_URL="ghcr.io",
    )
    assert two.versions == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*TWO, "--username", "x"], "--registry and --username exclude each other"),
        (
            [*TWO, "--secret-arn", "arn:aws:secretsmanager:us-east-1:123456789012:secret:a-AbCdEf"],
            "--registry and --secret-arn exclude each other",
        ),
        (["--from-docker-config"], "--from-docker-config needs --registry"),
        (["--registry", "ghcr.io"], "Missing the credentials of ghcr.io"),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(account, batchreg, arguments, message):
    """Status 2, one line, and nothing made."""
    result = Registries(account, batchreg)("deploy", *arguments, status=2, A="a", B="b")
    assert message in result.stderr
    assert account.stack is None


def test_settings_file_is_the_home_of_several_registries(account, batchreg, tmp_path):
    """It says where the passwords are, and holds none."""
    (tmp_path / "batchreg.yaml").write_text("""
registries:
- a.example.com,username=ann,password=env:A
- url: ghcr.io
  username: lab
  password: env:TOKEN
""")
    several = Registries(account, batchreg)
    several("deploy", A="a", TOKEN="gh")
    assert several.credentials == {"a.example.com": ("ann", "a"), "ghcr.io": ("lab", "gh")}
    before = several.versions
    several("deploy", "--max-vcpus", "5")
    assert several.versions == before


def test_credentials_come_from_docker(account, batchreg, tmp_path):
    """From the file and from a credential helper, which sees no password of ours."""
    program = tmp_path / "bin" / "docker-credential-x"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\nenv > "$0.environ"\ncat > /dev/null\n'
        'echo \'{"Username": "hal", "Secret": "helped"}\'\n'
    )
    program.chmod(0o755)
    auth = base64.b64encode(b"ann:stored").decode()
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "auths": {"a.example.com": {"auth": auth}, "ghcr.io": {}},
                "credHelpers": {"ghcr.io": "x"},
            }
        )
    )
    several = Registries(account, batchreg)
    several(
        "deploy",
        "--registry",
        "a.example.com",
        "--registry",
        "ghcr.io",
        "--from-docker-config",
        DOCKER_CONFIG=str(tmp_path),
        BATCHREG_PASSWORD="canary",
        PATH=f"{program.parent}:/usr/bin:/bin",
    )
    assert several.credentials == {"a.example.com": ("ann", "stored"), "ghcr.io": ("hal", "helped")}
    assert "canary" not in program.with_name(f"{program.name}.environ").read_text()


def test_nine_registries_fit_into_a_stack_and_the_tenth_is_refused(account, batchreg):
    """By what is deployed: ARNs are longer than the names that stand for them."""
    hosts = [f"registry{number}.example.com" for number in range(1, 11)]
    entries = [
        text for host in hosts for text in ("--registry", f"{host},username=u,password=env:A")
    ]
    several = Registries(account, batchreg)
    several("deploy", *entries[:18], A="a" * 4096)
    assert len(several.credentials) == 9
    assert len(several.user_data) < userdata.LIMIT
    body = several.cfn.get_template(StackName=several.name)["TemplateBody"]
    assert len(body) < 51_200
    result = several("deploy", *entries, status=1, A="a")
    assert "10 registries are too many for one stack." in result.stderr
    assert len(several.credentials) == 9


def test_credentials_of_several_registries_go_to_cloudformation_and_nowhere_else(watched, account):
    """Nor where it goes wrong."""
    several = (
        "--registry",
        "a.example.com,username=lab,password=env:TOKEN",
        "--registry",
        "b.example.com,username=ben,password=env:TOKEN",
    )
    assert watched("--yes", "--json", *several, TOKEN=CANARY).returncode == 0
    assert watched("--yes", *several, TOKEN=f"{CANARY}\n").returncode == 1

"""`batchreg rotate`, and stacks with several registries, against the embedded AWS."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from account import LOGIN, PASSWORD, Account
from botocore.stub import ANY, Stubber
from test_canary import PASSWORD as CANARY
from test_canary import Watched
from test_interrupt import Interrupted
from wire import Wire

from batchreg.cli import rotate as rotate_command
from batchreg.cli.console import Console
from batchreg.render import template, userdata
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml
from batchreg.stack import rotate
from batchreg.stack.states import Stack

Run = Callable[..., "subprocess.CompletedProcess[str]"]

HUB = "https://index.docker.io/v1/"
TWO = (
    "--registry",
    "a.example.com,username=ann,password=env:A",
    "--registry",
    "b.example.com,username=ben,password=env:B",
)
ONE_OF_TWO = ("--registry", "a.example.com")


class Registries(Account):
    """A stack, and batchreg for it."""

    def __init__(self, account: Account, batchreg: Run) -> None:
        super().__init__(account.aws, account.name)
        self._batchreg = batchreg
        self.manager = self.aws.client("secretsmanager")

    def __call__(
        self, command: str, *arguments: str, status: int = 0, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command with --yes, and hold its exit status and its last words against it."""
        result = self._batchreg(
            command,
            "--stack-name",
            self.name,
            "--yes",
            *arguments,
            environ={**self.aws.environ, **environ},
        )
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        return result

    def rotate(self, password: str, *arguments: str, **options: object):
        return self("rotate", "--no-check", *arguments, BATCHREG_PASSWORD=password, **options)

    @property
    def logins(self) -> dict[str, tuple[str, str]]:
        """The logins that the stack's secrets hold, by registry."""
        found = [self.read(arn) for arn in self.arns]
        return {each["registry_url"]: (each["username"], each["password"]) for each in found}

    @property
    def arns(self) -> list[str]:
        return [value for name, value in self.outputs.items() if name.startswith("RegistrySecret")]

    @property
    def versions(self) -> dict[str, str]:
        """Each registry's secret and the version of it that is current."""
        found = {}
        for arn in self.arns:
            answer = self.manager.get_secret_value(SecretId=arn)
            url = json.loads(answer["SecretString"])["registry_url"]
            found[url] = f"{answer['ARN']} {answer['VersionId']}"
        return found

    def read(self, arn: str, stage: str = "AWSCURRENT") -> dict[str, str]:
        return json.loads(
            self.manager.get_secret_value(SecretId=arn, VersionStage=stage)["SecretString"]
        )


@pytest.fixture
def one(made, batchreg):
    """A stack with one registry, Docker Hub."""
    return Registries(made, batchreg)


@pytest.fixture
def two(account, batchreg):
    """A stack with two registries."""
    account.make(
        rendered(slots=(1, 2)),
        RegistryUrl="a.example.com",
        Username="ann",
        Password="old",
        RegistryUrl2="b.example.com",
        Username2="ben",
        Password2="other",
    )
    return Registries(account, batchreg)


def rendered(**settings: Any) -> str:
    return to_yaml(template.build(Settings(**settings)))


def with_own(account: Account, *arns: str) -> None:
    """Make the stack with secrets of the user's own."""
    account.make(rendered(secret_arns=arns), Username="", Password="")


def own_secret(account: Account, **fields: str) -> str:
    """Make a secret of the user's own and return its ARN."""
    text = json.dumps(
        {"username": "lab", "password": "old", "registry_url": "a.example.com", **fields}
    )
    return account.aws.client("secretsmanager").create_secret(
        Name=f"{account.name}/{fields.get('registry_url', 'a')}", SecretString=text
    )["ARN"]


# --- A new password ---


def test_new_password_is_current_and_the_old_one_previous(one):
    """The rest of the login stays, and so does the secret."""
    (arn,) = one.arns
    result = one.rotate('n"e\\w ${x}')
    assert one.logins == {HUB: ("lab", 'n"e\\w ${x}')}
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
    assert two.logins == {"a.example.com": ("ann", "new"), "b.example.com": ("ben", "other")}
    assert two.versions["b.example.com"] == before["b.example.com"]
    assert two.parameters == parameters  # as far as anybody can read them


def test_deploy_after_a_rotation_keeps_the_new_password(one):
    """Even one that writes the secret anew: the parameter is the truth, not the secret."""
    one.rotate("new")
    one("deploy", "--max-vcpus", "5")
    assert one.secret["password"] == "new"
    one("deploy", "--username", "eve")
    assert (one.secret["username"], one.secret["password"]) == ("eve", "new")


def test_undo_goes_back_by_the_same_road(two):
    """So that the next deploy does not bring the undone password."""
    two.rotate("new", *ONE_OF_TWO)
    result = two("rotate", "--undo", "--no-check", *ONE_OF_TWO)
    assert "a.example.com has its previous password again." in result.stderr
    two("deploy", "--registry", "a.example.com,username=eve", "--registry", "b.example.com")
    assert two.logins == {"a.example.com": ("eve", "old"), "b.example.com": ("ben", "other")}


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
    assert "The stack has no login for b.example.com" in result.stderr
    assert "canary" not in result.stderr


# --- What is refused ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "several registries: give --registry, one of a.example.com, b.example.com."),
        (["--registry", "ghcr.io"], "no login for ghcr.io: it has a.example.com, b.example.com."),
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
    assert two.logins["b.example.com"] == ("ben", "new")


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
    assert "give --registry" in json.loads(result.stdout.splitlines()[-1])["error"]


def test_registry_that_is_away_changes_nothing(account, batchreg):
    """The check comes first."""
    account.make(rendered(), RegistryUrl="127.0.0.1:9", Username="u", Password="old")
    own = Registries(account, batchreg)
    result = own("rotate", BATCHREG_PASSWORD="new", status=1)
    assert result.stderr.endswith("Nothing has changed. --no-check skips this.\n")
    assert own.logins == {"127.0.0.1:9": ("u", "old")}


# --- Interrupted, and two at once ---


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
    assert (run.before, run.last) == ([], "batchreg: interrupted; nothing has changed.")
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
def test_ctrl_c_during_the_change_says_so_and_the_same_command_leads_on(slow, tmp_path, moment):
    """The password is the old one or the new one, and then the new one."""
    run = interrupt(slow, tmp_path, moment)
    assert run.last.startswith(f"batchreg: interrupted; {slow.name} goes on without batchreg.")
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
    assert "since an earlier run: following it." in result.stderr
    assert slow.secret["password"] == "second"


def test_rotation_that_another_one_has_overtaken_does_not_take_place(slow):
    """Its change set was made for a stack that is no more."""

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
    """Both have read it before either has written it: the login is whole all the same."""
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


# --- Several registries ---


def test_stack_with_one_registry_becomes_one_with_two(one):
    """The one that is there keeps its secret and its login, and needs none anew."""
    before = one.versions
    one(
        "deploy",
        "--registry",
        "docker.io",
        "--registry",
        "ghcr.io,username=lab,password=env:TOKEN",
        TOKEN="gh",
    )
    assert one.logins == {HUB: ("lab", PASSWORD), "ghcr.io": ("lab", "gh")}
    assert one.versions[HUB] == before[HUB]
    for arn in one.arns:
        assert f"-s{arn}\n" in one.user_data


def test_adding_changing_and_removing_leave_the_others_alone(two):
    """Same secrets, same versions, whatever order they are named in."""
    before = two.versions
    two("deploy", *TWO, "--registry", "ghcr.io,username=lab,password=env:G", G="g")
    added = two.versions
    assert {url: added[url] for url in before} == before
    two("deploy", "--registry", "ghcr.io,username=gil,password=env:G", *TWO, G="new")
    changed = two.versions
    assert two.logins["ghcr.io"] == ("gil", "new")
    assert {url: changed[url] for url in before} == before
    two("deploy", "--registry", "https://ghcr.io", "--registry", "B.example.com")
    assert two.versions == {url: changed[url] for url in ("b.example.com", "ghcr.io")}
    assert two.user_data.count("\n-s") == 2


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
    assert several.logins == {"ghcr.io": ("lab", "t"), HUB: ("hub", "t")}
    several.rotate("new", "--registry", "ghcr")
    several("deploy", "--registry-url", "dockerhub", "--username", "eve")
    assert several.logins == {"ghcr.io": ("lab", "new"), HUB: ("eve", "t")}


def test_plain_deploy_keeps_all_registries(two):
    """The usual case: somebody changes something else."""
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
    assert left.logins == {"b.example.com": ("eve", "old")}


def test_one_variable_may_serve_two_registries(account, batchreg):
    """A robot account of the same name at a mirror, say."""
    both = Registries(account, batchreg)
    both("deploy", *(text.replace("env:B", "env:A") for text in TWO), A="same")
    assert both.logins == {"a.example.com": ("ann", "same"), "b.example.com": ("ben", "same")}


def test_the_usual_variable_may_be_named_as_well(account, batchreg):
    """It is taken out of the environment at once, and must not be looked for in vain."""
    both = Registries(account, batchreg)
    both(
        "deploy",
        *(text.replace("env:B", "env:BATCHREG_PASSWORD") for text in TWO),
        A="a",
        BATCHREG_PASSWORD="usual",
    )
    assert both.logins == {"a.example.com": ("ann", "a"), "b.example.com": ("ben", "usual")}


def test_login_of_a_single_registry_goes_to_none_of_several(two):
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
        (["--registry", "ghcr.io"], "Missing the login of ghcr.io"),
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
    assert several.logins == {"a.example.com": ("ann", "a"), "ghcr.io": ("lab", "gh")}
    before = several.versions
    several("deploy", "--max-vcpus", "5")
    assert several.versions == before


def test_logins_come_from_docker(account, batchreg, tmp_path):
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
    assert several.logins == {"a.example.com": ("ann", "stored"), "ghcr.io": ("hal", "helped")}
    assert "canary" not in program.with_name(f"{program.name}.environ").read_text()


def test_nine_registries_fit_into_a_stack_and_the_tenth_is_refused(account, batchreg):
    """By what is deployed: ARNs are longer than the names that stand for them."""
    hosts = [f"registry{number}.example.com" for number in range(1, 11)]
    entries = [
        text for host in hosts for text in ("--registry", f"{host},username=u,password=env:A")
    ]
    several = Registries(account, batchreg)
    several("deploy", *entries[:18], A="a" * 4096)
    assert len(several.logins) == 9
    assert len(several.user_data) < userdata.LIMIT
    body = several.cfn.get_template(StackName=several.name)["TemplateBody"]
    assert len(body) < 51_200
    result = several("deploy", *entries, status=1, A="a")
    assert "10 registries are too many for one stack." in result.stderr
    assert len(several.logins) == 9


# --- No login where none belongs ---


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


def test_logins_of_several_registries_go_to_cloudformation_and_nowhere_else(watched, account):
    """Nor where it goes wrong."""
    several = (
        "--registry",
        "a.example.com,username=lab,password=env:TOKEN",
        "--registry",
        "b.example.com,username=ben,password=env:TOKEN",
    )
    assert watched("--yes", "--json", *several, TOKEN=CANARY).returncode == 0
    assert watched("--yes", *several, TOKEN=f"{CANARY}\n").returncode == 1


@pytest.fixture
def watched(account, tmp_path):
    return Watched(account, tmp_path)


# --- Running instances ---


@dataclass
class Stubbed:
    """AWS's clients with scripted answers."""

    stubs: dict[str, Stubber]

    def __init__(self, *services: str) -> None:
        self.stubs = {}
        for service in services:
            client = boto3.client(
                service, region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
            )
            self.stubs[service] = Stubber(client)
            self.stubs[service].activate()

    def client(self, service: str):
        return self.stubs[service].client

    def answer(self, service: str, operation: str, answer: dict, request: dict) -> None:
        self.stubs[service].add_response(operation, answer, request)


ARN = "arn:aws:batch:us-east-1:123456789012:compute-environment/x"
CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/x"
PRESENT = Stack(
    "lab", "id", "UPDATE_COMPLETE", "", {}, {"ComputeEnvironmentArn": ARN}, {}, None, False
)


@pytest.fixture
def fleet():
    """Three instances, of which Systems Manager reaches two."""
    aws = Stubbed("batch", "ecs", "ssm")
    aws.answer(
        "batch",
        "describe_compute_environments",
        {
            "computeEnvironments": [
                {
                    "computeEnvironmentName": "x",
                    "computeEnvironmentArn": ARN,
                    "ecsClusterArn": CLUSTER,
                }
            ]
        },
        {"computeEnvironments": [ARN]},
    )
    arns = [f"{CLUSTER}/{number}" for number in range(3)]
    aws.answer(
        "ecs", "list_container_instances", {"containerInstanceArns": arns}, {"cluster": CLUSTER}
    )
    aws.answer(
        "ecs",
        "describe_container_instances",
        {"containerInstances": [{"ec2InstanceId": f"i-{number}"} for number in range(3)]},
        {"cluster": CLUSTER, "containerInstances": arns},
    )
    return aws


def reach(aws: Stubbed, **statuses: str) -> None:
    aws.answer(
        "ssm",
        "describe_instance_information",
        {
            "InstanceInformationList": [
                {"InstanceId": f"i-{name[1:]}", "PingStatus": status}
                for name, status in statuses.items()
            ]
        },
        {},
    )


def sent(aws: Stubbed, *ids: str) -> None:
    aws.answer(
        "ssm",
        "send_command",
        {"Command": {"CommandId": "c" * 36}},
        {
            "DocumentName": "AWS-RunShellScript",
            "InstanceIds": list(ids),
            "Comment": ANY,
            "Parameters": {"commands": [rotate.REFRESH]},
        },
    )


def listed(aws: Stubbed, **statuses: str) -> None:
    aws.answer(
        "ssm",
        "list_command_invocations",
        {
            "CommandInvocations": [
                {"InstanceId": f"i-{name[1:]}", "Status": status}
                for name, status in statuses.items()
            ]
        },
        {"CommandId": "c" * 36},
    )


def test_now_asks_those_that_can_be_reached_and_names_the_timer_for_the_rest(fleet, capsys):
    """The unit is started, so that two refreshes never run at a time."""
    reach(fleet, i0="Online", i1="ConnectionLost", i2="Online", i9="Online")
    sent(fleet, "i-0", "i-2")
    told = rotate_command._refresh(fleet, PRESENT, Console(), False)
    assert told == {"i-0": "Asked", "i-2": "Asked"}
    assert "reaches 2 of 3 instances; the others wait for their timer" in capsys.readouterr().err


def test_now_without_systems_manager_falls_back_to_the_timer(fleet, capsys):
    """As on instances without the policy for it."""
    reach(fleet)
    assert rotate_command._refresh(fleet, PRESENT, Console(), True) == {}
    assert "reaches 0 of 3 instances" in capsys.readouterr().err


def test_now_without_permission_falls_back_to_the_timer(fleet, capsys):
    """The password is current by then: it is no failure."""
    fleet.stubs["ssm"].add_client_error("describe_instance_information", "AccessDeniedException")
    assert rotate_command._refresh(fleet, PRESENT, Console(), False) == {}
    assert "The instances wait for their timer." in capsys.readouterr().err


def test_follow_waits_until_all_have_reported():
    """Systems Manager lists an instance only a while after it was asked."""
    aws, pauses = Stubbed("ssm"), []
    listed(aws)
    listed(aws, i0="Success")
    listed(aws, i0="Success", i2="InProgress")
    listed(aws, i0="Success", i2="Failed")
    found = rotate.reported(aws.client("ssm"), ["c" * 36], ["i-0", "i-2"], sleep=pauses.append)
    assert (found, pauses) == ({"i-0": "Success", "i-2": "Failed"}, [0.2, 0.4, 0.8])


def test_follow_ends_where_an_instance_never_reports():
    """It was terminated, say."""
    aws, pauses = Stubbed("ssm"), []
    for _ in range(10):
        listed(aws, i0="Success")
    found = rotate.reported(
        aws.client("ssm"), ["c" * 36], ["i-0", "i-2"], sleep=pauses.append, patience_seconds=10
    )
    assert found == {"i-0": "Success", "i-2": "No answer"}
    assert sum(pauses) >= 10


def test_environment_without_instances_has_none_to_ask():
    """Batch makes the cluster with the environment, and it may be gone."""
    aws = Stubbed("batch", "ecs")
    aws.answer(
        "batch",
        "describe_compute_environments",
        {"computeEnvironments": []},
        {"computeEnvironments": [ARN]},
    )
    assert rotate.instances(aws.client("batch"), aws.client("ecs"), ARN) == []


def test_more_instances_than_one_call_takes_are_asked_by_several():
    """Fifty a command."""
    aws = Stubbed("ssm")
    ids = [f"i-{number:017}" for number in range(120)]
    for start in (0, 50, 100):
        sent(aws, *ids[start : start + 50])
    assert len(rotate.refresh(aws.client("ssm"), ids)) == 3


def test_now_in_a_stack_without_instances_is_a_success(one):
    """New ones have the password at once."""
    result = one.rotate("new", "--follow")
    assert "Docker Hub has a new password." in result.stderr
    assert one.secret["password"] == "new"


def test_rotation_needs_a_stack(account, batchreg):
    """One line with the way on."""
    result = Registries(account, batchreg)("rotate", status=1, **LOGIN)
    assert f"There is no stack {account.name} in this region" in result.stderr

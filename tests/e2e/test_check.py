"""`batchreg check` and `deploy --check`, against real registries."""

from __future__ import annotations

import json
import os
import platform
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lab.parts import Registry
from local_aws import LocalAws
from real_parts import PASSWORD, require
from token_server import TokenServer

Run = Callable[..., "subprocess.CompletedProcess[str]"]

MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = {"amd64": "arm64", "arm64": "amd64"}[MACHINE]


@pytest.fixture(scope="module")
def image(registry: Registry) -> str:
    """An image in the registry, with tags 3.1 and 3.2."""
    registry.push("lab/checked", "3.1")
    return registry.push("lab/checked", "3.2").removesuffix(":3.2")


@pytest.fixture
def check(batchreg: Run, registry: Registry):
    """Run `batchreg check` with a login for the registry."""

    def run(
        *arguments: str, password: str = registry.password, **options: object
    ) -> subprocess.CompletedProcess[str]:
        return batchreg(
            "check",
            *arguments,
            "--registry-url",
            registry.host,
            "--username",
            registry.username,
            "--architecture",
            MACHINE,
            environ={"BATCHREG_PASSWORD": password},
            **options,
        )

    return run


def test_right_login_pulls(check, image):
    """One line on stdout, nothing on stderr, exit status 0."""
    result = check(f"{image}:3.2")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"ok  {image}:3.2  {MACHINE}, with these credentials\n"


def test_password_may_come_through_a_pipe(batchreg, registry, image):
    """As with `docker login --password-stdin`."""
    result = batchreg(
        "check",
        f"{image}:3.2",
        "--registry-url",
        f"https://{registry.host}/",
        "--username",
        registry.username,
        "--password-stdin",
        "--architecture",
        MACHINE,
        input=registry.password + "\n",
    )
    assert result.stdout.startswith("ok  ")


def test_password_is_asked_for_on_a_terminal(registry, image, tmp_path):
    """Hidden, and never among the arguments."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [
            Path(sys.executable).with_name("batchreg"),
            "check",
            f"{image}:3.2",
            "--registry-url",
            registry.host,
            "--username",
            registry.username,
            "--architecture",
            MACHINE,
        ],
        stdin=follower,
        stdout=subprocess.PIPE,
        stderr=follower,
        cwd=tmp_path,
        start_new_session=True,
    )
    os.close(follower)
    shown = b""
    while b"token:" not in shown:
        assert select.select([leader], [], [], 20)[0]
        shown += os.read(leader, 1000)
    os.write(leader, registry.password.encode() + b"\n")
    output, _ = process.communicate(timeout=20)
    os.close(leader)
    assert process.returncode == 0
    assert output.startswith(b"ok  ")
    assert registry.password.encode() not in shown


def test_wrong_password_is_told(check, image):
    """Exit status 1, and the reason in one line on stderr."""
    result = check(f"{image}:3.2", password="canary-4711")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"batchreg: {image}:3.2: ")
    assert "rejects these credentials" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert "canary" not in result.stderr


def test_all_images_are_checked_and_one_failure_counts(check, image):
    """Side by side; what is fine stands on stdout, what is not on stderr, in the given order."""
    result = check(f"{image}:3.2", f"{image}:3.3", f"{image}:3.1", f"{image}x:3")
    assert result.returncode == 1
    assert [line.split()[1] for line in result.stdout.splitlines()] == [
        f"{image}:3.2",
        f"{image}:3.1",
    ]
    missing, unknown = result.stderr.splitlines()
    assert "no tag 3.3 in lab/checked; it has 3." in missing
    assert "no repository lab/checkedx" in unknown


def test_wrong_architecture_is_told(batchreg, registry, image):
    """--architecture says what the instances are."""
    result = batchreg(
        "check",
        f"{image}:3.2",
        "--architecture",
        OTHER,
        "--registry-url",
        registry.host,
        "--username",
        registry.username,
        environ={"BATCHREG_PASSWORD": registry.password},
    )
    assert result.returncode == 1
    assert f"built for {MACHINE} and not for {OTHER}" in result.stderr


def test_image_without_a_login_asks_for_one(batchreg, image):
    """Nothing given means that nothing is sent."""
    result = batchreg("check", f"{image}:3.2")
    assert result.returncode == 1
    assert "Provide credentials" in result.stderr


def test_login_is_sent_to_its_registry_alone(batchreg, registry, image):
    """Without --registry-url it is Docker Hub's, as in `deploy`, and this host must not get it."""
    result = batchreg(
        "check",
        f"{image}:3.2",
        "--username",
        registry.username,
        environ={"BATCHREG_PASSWORD": registry.password},
    )
    assert result.returncode == 1
    assert "the given credentials are for Docker Hub: --registry-url changes that." in result.stderr


def test_registry_that_is_down_is_told(check, tmp_path, registry):
    """In a moment, not after a minute."""
    with Registry("ada", "x", directory=tmp_path / "down") as gone:
        pass
    began = time.monotonic()
    result = check(f"{gone.host}/lab/align:3")
    assert result.returncode == 1
    assert "refused the connection" in result.stderr
    assert time.monotonic() - began < 5


def test_json_has_a_line_an_image_and_the_result(check, image):
    """For scripts: causes instead of sentences, all on stdout."""
    result = check(f"{image}:3.2", f"{image}:3.3", "--json")
    assert (result.returncode, result.stderr) == (1, "")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(line["type"], line.get("cause"), line["ok"]) for line in lines] == [
        ("verdict", "ok", True),
        ("verdict", "no-tag", False),
        ("result", None, False),
    ]
    assert lines[0]["details"] == {"architectures": MACHINE}
    assert set(lines[1]["details"]["near"].split(", ")) == {"3.1", "3.2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'IMAGE...'"),
        (("x", "--username", "ada"), "Missing --password-stdin or BATCHREG_PASSWORD"),
        (("x", "--registry-url", "ghcr.io"), "Missing --username"),
        (("x", "--password-stdin"), "Missing --username"),
        (("x", "--stack-name", "lab", "--username", "ada"), "leave out either"),
    ],
)
def test_wrong_usage_is_one_line(batchreg, arguments, message):
    """Off a terminal nothing prompts; what is missing is named."""
    result = batchreg("check", *arguments, stdin=subprocess.DEVNULL)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- a registry with bearer tokens ----------------------------------------------------------------


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TokenServer, Registry]]:
    """A registry that takes the tokens of a token server; ada may pull two of three images."""
    require("registry")
    folder: Path = tmp_path_factory.mktemp("tokens")
    with Registry("ada", "x", directory=folder / "registry") as filling:
        for name in ("lab/align", "lab/open", "other/align"):
            filling.push(name, "3")
    users = {"ada": PASSWORD}
    rights = {"ada": {"lab/align", "lab/open"}, "": {"lab/open"}}
    with (
        TokenServer(folder, users, rights) as server,
        Registry("ada", "x", directory=folder / "registry", auth=server.auth) as registry,
    ):
        yield server, registry


def check_tokens(
    batchreg: Run, registry: Registry, name: str, *arguments: str, password: str | None = PASSWORD
) -> subprocess.CompletedProcess[str]:
    login = ("--registry-url", registry.host, "--username", "ada") if password else ()
    return batchreg(
        "check",
        f"{registry.host}/{name}",
        "--architecture",
        MACHINE,
        *login,
        *arguments,
        environ={"BATCHREG_PASSWORD": password} if password else {},
    )


def test_bearer_login_pulls(batchreg, tokens):
    """The real registry takes the token that we fetched for it."""
    result = check_tokens(batchreg, tokens[1], "lab/align:3")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(f"{MACHINE}, with these credentials\n")


def test_bearer_login_without_the_right_is_told(batchreg, tokens):
    """Its password is right, and a new one would not help."""
    result = check_tokens(batchreg, tokens[1], "other/align:3")
    assert result.returncode == 1
    assert "accepts these credentials, but they may not pull other/align" in result.stderr


def test_revoked_right_is_told(batchreg, tokens):
    """From one minute to the next, as people leave teams."""
    server, registry = tokens
    server.rights["ada"].remove("lab/align")
    try:
        result = check_tokens(batchreg, registry, "lab/align:3")
        assert "they may not pull lab/align" in result.stderr
    finally:
        server.rights["ada"].add("lab/align")


def test_wrong_password_at_a_token_server_is_told(batchreg, tokens):
    """The token server says so, not the registry."""
    result = check_tokens(batchreg, tokens[1], "lab/align:3", password="canary-4711")
    assert result.returncode == 1
    assert "rejects these credentials" in result.stderr
    assert "canary" not in result.stderr


def test_missing_tag_behind_a_token_names_near_ones(batchreg, tokens):
    """The token is for the list of tags, too."""
    result = check_tokens(batchreg, tokens[1], "lab/align:4")
    assert "no tag 4 in lab/align; it has 3." in result.stderr


def test_public_image_is_pulled_without_a_login(batchreg, tokens):
    """Everybody gets a token for it, and a private one is not for everybody."""
    server, registry = tokens
    server.logins.clear()
    assert (
        "without credentials"
        in check_tokens(batchreg, registry, "lab/open:3", password=None).stdout
    )
    assert (
        "Provide credentials"
        in check_tokens(batchreg, registry, "lab/align:3", password=None).stderr
    )
    assert set(server.logins) == {""}


def test_index_has_an_image_for_each_architecture(batchreg, tokens, tmp_path):
    """As docker buildx pushes it; the real registry wants to be asked for one by its type."""
    import hashlib
    import http.client

    folder = tokens[1]._directory
    with Registry("ada", "x", directory=folder) as filling:
        filling.push("lab/open", "3")
        connection = http.client.HTTPConnection(filling.host, timeout=10)
        login = {"Authorization": "Basic YWRhOng="}
        kind = "application/vnd.oci.image.manifest.v1+json"
        connection.request("GET", "/v2/lab/open/manifests/3", headers={**login, "Accept": kind})
        manifest = connection.getresponse().read()
        entry = {
            "mediaType": kind,
            "size": len(manifest),
            "digest": f"sha256:{hashlib.sha256(manifest).hexdigest()}",
        }
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {**entry, "platform": {"os": "linux", "architecture": name}}
                for name in ("amd64", "arm64")
            ],
        }
        connection.request(
            "PUT",
            "/v2/lab/open/manifests/multi",
            json.dumps(index),
            {**login, "Content-Type": index["mediaType"]},
        )
        assert connection.getresponse().status == 201
        connection.close()
    for machine in ("amd64", "arm64"):
        result = check_tokens(batchreg, tokens[1], "lab/open:multi", "--architecture", machine)
        assert "amd64, arm64, with these credentials" in result.stdout


# --- stacks ---------------------------------------------------------------------------------------


def deploy(
    batchreg: Run,
    aws: LocalAws,
    stack: str,
    registry: Registry,
    *arguments: str,
    password: str | None = None,
) -> subprocess.CompletedProcess[str]:
    environ = {**aws.environ, **({"BATCHREG_PASSWORD": password} if password else {})}
    return batchreg("deploy", "--stack-name", stack, "--yes", *arguments, environ=environ)


def stacks(aws: LocalAws) -> set[str]:
    return {
        stack["StackName"] for stack in aws.client("cloudformation").describe_stacks()["Stacks"]
    }


@pytest.mark.skipif(MACHINE != "amd64", reason="the image would be for Graviton")
def test_deploy_check_keeps_a_wrong_login_from_making_anything(batchreg, aws, stack, tmp_path):
    """And the deployed login is checked later, by `check` and by the next `deploy`."""
    with Registry("ci-robot", PASSWORD, directory=tmp_path / "registry") as registry:
        image = registry.push("lab/align", "3")
        login = ("--registry-url", registry.host, "--username", "ci-robot")
        refused = deploy(
            batchreg, aws, stack, registry, *login, "--check", image, password="canary-4711"
        )
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "rejects these credentials" in refused.stderr
        assert "No changes were made." in refused.stderr
        assert stack not in stacks(aws)

        made = deploy(batchreg, aws, stack, registry, *login, "--check", image, password=PASSWORD)
        assert made.returncode == 0, made.stderr
        assert f"ok  {image}  amd64, with these credentials" in made.stderr

        now = batchreg("check", image, "--stack-name", stack, environ=aws.environ)
        assert now.stdout == f"ok  {image}  amd64, with these credentials\n"

        graviton = deploy(
            batchreg, aws, stack, registry, "--check", image, "--instance-type", "c7g"
        )
        assert graviton.returncode == 1
        assert "built for amd64 and not for arm64" in graviton.stderr

        registry.change_password("another")
        stale = batchreg("check", image, "--stack-name", stack, environ=aws.environ)
        assert stale.returncode == 1
        assert "rejects these credentials" in stale.stderr
        fresh = deploy(batchreg, aws, stack, registry, "--check", image, password="another")
        assert fresh.returncode == 0, fresh.stderr


def test_stack_that_is_not_there_is_told(batchreg, aws):
    """A slip in --stack-name must not mean: without credentials."""
    result = batchreg("check", "x", "--stack-name", "nowhere", environ=aws.environ)
    assert result.returncode == 1
    assert "no stack nowhere" in result.stderr


def test_broken_secret_of_ones_own_is_told(batchreg, aws, stack):
    """In the words in which the instances would complain; nothing of it is shown."""
    manager = aws.client("secretsmanager")
    text = json.dumps({"username": "lab", "password": "canary"})
    arn = manager.create_secret(Name=f"{stack}/login", SecretString=text)["ARN"]
    made = batchreg(
        "deploy", "--stack-name", stack, "--yes", "--secret-arn", arn, environ=aws.environ
    )
    assert made.returncode == 0, made.stderr
    manager.put_secret_value(SecretId=arn, SecretString="not JSON: canary")

    def complaint() -> str:
        result = batchreg("check", "x", "--stack-name", stack, environ=aws.environ)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert "canary" not in result.stderr
        return result.stderr

    assert "is not JSON" in complaint()
    manager.delete_secret(SecretId=arn, ForceDeleteWithoutRecovery=True)
    assert "does not exist. To find out what to do: batchreg doctor " in complaint()

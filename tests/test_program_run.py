"""A run of the program where all is well."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import PASSWORD, RESTART, ROLE_AWAY, as_ecs_init_reads
from secrets_server import ROLE_KEYS

from batchreg.registry_login import HUB


def interpreters() -> Iterator[str]:
    """Find this Python and, where there are some that work, those that instances may have."""
    yield sys.executable
    for version in ("3.6", "3.7", "3.8", "3.9"):
        old = shutil.which(f"python{version}")
        managed = Path.home().glob(f".pyenv/versions/{version}.*/bin/python")
        for path in [*([old] if old else []), *map(str, managed)]:
            if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                yield path
                break


@pytest.mark.parametrize("python", [*interpreters()])
def test_one_secret_becomes_one_login(instance, python):
    """The reason why the program exists, on this Python and on the instance's."""
    run = instance.run("ghcr", python=python)
    assert (run.code, instance.logins) == (0, {"ghcr.io": "ada:" + PASSWORD})


def test_two_secrets_become_two_logins(instance):
    """One compute environment may pull from several registries."""
    assert instance.run("ghcr", "hub").code == 0
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD, HUB: "bob:b"}


def test_each_secret_costs_one_request(instance, server):
    """Secrets Manager charges by the request and throttles a fleet."""
    instance.run("ghcr", "hub")
    assert (server.count("ghcr"), server.count("hub"), server.secret_requests) == (1, 1, 2)


def test_the_role_costs_three_requests(instance, server):
    """The keys serve all secrets of a run; the metadata service throttles too."""
    instance.run("ghcr", "hub")
    assert [server.count(place) for place in ("token", "role", "keys")] == [1, 1, 1]


def test_a_secret_named_twice_is_read_once(instance, server):
    """Repeating an option is a slip that must not become a conflict."""
    assert instance.run("ghcr", "ghcr").code == 0
    assert server.count("ghcr") == 1


@pytest.mark.parametrize(
    "env",
    [
        ROLE_AWAY,
        {
            "AWS_ACCESS_KEY_ID": ROLE_KEYS.access_key,
            "AWS_SECRET_ACCESS_KEY": ROLE_KEYS.secret_key,
            "AWS_SESSION_TOKEN": ROLE_KEYS.token,
        },
    ],
    ids=["no token", "token"],
)
def test_keys_in_the_environment_replace_the_role(instance, server, env):
    """Whoever sets the standard variables may have no metadata service at all."""
    assert instance.run("ghcr", env=env).code == 0
    assert server.metadata_requests == 0


def test_the_endpoint_may_come_from_the_environment(instance, server):
    """AWS_ENDPOINT_URL works as in the SDKs."""
    command = [part for part in instance.command("ghcr") if "--endpoint-url" not in part]
    with instance.start(command, {"AWS_ENDPOINT_URL": server.url}) as process:
        process.communicate(timeout=60)
    assert (process.returncode, server.secret_requests) == (0, 1)


@pytest.mark.parametrize(
    ("region", "suffix"), [("eu-central-1", "amazonaws.com"), ("cn-north-1", "amazonaws.com.cn")]
)
def test_the_endpoint_is_the_regions_own(instance, server, region, suffix):
    """China's has another ending. A proxy sees where the program wants to go."""
    command = [
        *instance.command()[:2],
        "--secret-id=ghcr",
        "--deadline=0.1",
        f"--region={region}",
        f"--url-suffix={suffix}",
        f"--ecs-config={instance.config}",
    ]
    with instance.start(command, {**ROLE_AWAY, "https_proxy": server.url}) as process:
        process.communicate(timeout=60)
    assert {(request.method, request.path) for request in server.requests} == {
        ("CONNECT", f"secretsmanager.{region}.{suffix}:443")
    }


def test_metadata_are_never_asked_through_a_proxy(instance, server):
    """A proxy would answer with its own role, if at all."""
    instance.run("ghcr", env={"http_proxy": server.url}, deadline=0.1)
    paths = [request.path for request in server.requests if request.method != "POST"]
    assert all(path.startswith("/latest/") for path in paths)
    assert paths


def test_arguments_may_come_from_a_file(instance):
    """The user data keeps them in one, for the boot and for the timer."""
    command = instance.command("ghcr", "hub", options=("--setting=ECS_IMAGE_PULL_BEHAVIOR=once",))
    arguments = instance.directory / "args"
    arguments.write_text("\n".join(command[2:]) + "\n")
    with instance.start([*command[:2], f"@{arguments}"], {}) as process:
        process.communicate(timeout=60)
    assert as_ecs_init_reads(instance.config.read_bytes())[b"ECS_IMAGE_PULL_BEHAVIOR"] == b"once"


def test_a_good_run_says_one_line(instance):
    """The console tells which registries have a login, and nothing else."""
    run = instance.run("ghcr", "hub")
    assert (run.out, run.lines) == (
        "",
        [f"batchreg: {instance.config} has the credentials for ghcr.io, {HUB}"],
    )


def test_no_python_warns_about_the_program(instance):
    """A deprecation today is a boot failure on some image of tomorrow."""
    assert instance.run("ghcr", env={"PYTHONWARNINGS": "error"}).code == 0


def test_a_first_login_restarts_the_agent_without_waiting(instance):
    """A blocking start or restart in user data deadlocks (amazon-ecs-agent #1707)."""
    instance.run("ghcr")
    assert instance.systemctl_calls == [RESTART]


def test_a_missing_systemctl_fails_nothing(instance):
    """The credentials are in place all the same."""
    shutil.rmtree(instance.directory / "bin")
    assert instance.run("ghcr", env={"PATH": "/nonexistent"}).code == 0

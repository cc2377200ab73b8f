"""The rendered template's user data, booted by the real cloud-init, ends in a real private pull."""

from __future__ import annotations

import base64
import os
import subprocess

import pytest
from lab.agent import auth_for, read_ecs_config
from lab.instance import Instance
from lab.parts import PullError, Registry
from local_aws import LocalAws
from real_parts import PASSWORD, batchreg, deployed, require

# What AWS Batch is known to append to ecs.config, in a part with its own boundary.
BATCH_PART = """\
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="==BOUNDARY=="

--==BOUNDARY==
Content-Type: text/x-shellscript; charset="us-ascii"

#!/bin/bash
echo ECS_CLUSTER=genomics_Batch_1 >> /etc/ecs/ecs.config
echo ECS_DISABLE_IMAGE_CLEANUP=false >> /etc/ecs/ecs.config

--==BOUNDARY==--
"""


@pytest.fixture(scope="module")
def aws():
    """One embedded AWS; each test has a stack of its own."""
    with LocalAws() as aws:
        yield aws


def deployed_user_data(aws: LocalAws, stack: str, registry: Registry, *arguments: str) -> bytes:
    """Deploy a stack and return the user data that its launch template then holds."""
    return deployed(
        aws,
        "--stack-name",
        stack,
        "--username",
        registry.username,
        "--registry-url",
        f"http://{registry.host}/",
        *arguments,
        BATCHREG_PASSWORD=registry.password,
    )[1]


def merged(first: bytes, second: bytes) -> bytes:
    """Join two archives as AWS Batch does: the parts of both, in one archive."""
    import email
    from email.mime.multipart import MIMEMultipart

    archive = MIMEMultipart(boundary="==BOUNDARY==")
    for text in (first, second):
        for part in email.message_from_bytes(text).get_payload():
            archive.attach(part)
    return archive.as_bytes()


@pytest.fixture(scope="module")
def booted(aws, registry, tmp_path_factory):
    """An instance after its first boot, with the user data of a stack that `deploy` made."""
    require("instance")
    data = deployed_user_data(aws, "booted", registry)
    with Instance(
        directory=tmp_path_factory.mktemp("booted"),
        environ=aws.environ,
        files={"etc/ecs/ecs.config": b"ECS_RESERVED_MEMORY=32\n"},
    ) as instance:
        yield instance, instance.boot(data)


def test_boot_ends_without_a_fault(booted):
    """cloud-init itself reports no error, and the login is there in seconds."""
    _, boot = booted
    assert boot.ok, boot.console
    assert "has the credentials for" in boot.console


def test_agent_configuration_is_complete_and_for_root_alone(booted, registry):
    """The agent finds the login; the line that was there before stays first."""
    _, boot = booted
    assert boot.ecs_config_mode == 0o600
    lines = boot.ecs_config.decode().splitlines()
    assert lines[0] == "ECS_RESERVED_MEMORY=32"
    assert "ECS_IMAGE_PULL_BEHAVIOR=default" in lines
    assert auth_for(f"{registry.host}/x", read_ecs_config(boot.ecs_config))["password"] == PASSWORD


def test_engine_pulls_with_nothing_but_what_ecs_config_holds(booted, registry, engine):
    """The claim of the whole project, with a real registry and a real Docker Engine."""
    image = registry.push("lab/align")
    with pytest.raises(PullError):
        engine.pull(image)
    engine.pull(image, auth_for(image, read_ecs_config(booted[1].ecs_config)))
    assert engine.run(image, ["/bin/busybox", "echo", "aligned"]) == (0, "aligned\n")
    engine.remove(image)


def test_boot_starts_the_timer_and_blocks_on_nothing(booted):
    """The units are real ones; nothing waits for ecs.service, which itself waits for the boot."""
    _, boot = booted
    assert boot.systemctl == [
        ["enable", "-q", "batchreg.service", "batchreg.timer"],
        ["--no-block", "start", "batchreg.service", "batchreg.timer"],
        ["--no-block", "try-restart", "ecs.service"],
        ["--no-block", "stop", "batchreg-retry.timer"],
    ]


def test_units_are_valid(booted, tmp_path):
    """systemd's own checker has nothing to say."""
    checker = "/usr/bin/systemd-analyze"
    if not os.path.exists(checker):
        require("machine")
    names = ["batchreg.service", "batchreg.timer", "batchreg-retry.timer"]
    for name in names:
        (tmp_path / name).write_bytes(booted[1].read(f"/etc/systemd/system/{name}"))
    result = subprocess.run(
        [checker, "verify", *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
    )
    assert (result.returncode, result.stderr) == (0, "")


def test_refresh_without_a_change_touches_nothing(booted):
    """The timer's run, with unchanged secrets."""
    instance, _ = booted
    before = instance.run(["stat", "-c", "%i %Y %s", "/etc/ecs/ecs.config"]).stdout
    calls = instance.systemctl()
    result = instance.run(["python3", "/opt/batchreg/registry_login.py", "@/opt/batchreg/args"])
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert instance.run(["stat", "-c", "%i %Y %s", "/etc/ecs/ecs.config"]).stdout == before
    assert instance.systemctl() == calls


def test_no_part_of_the_password_is_anywhere_else(booted, registry):
    """Every file that the boot made or changed, the console, cloud-init's logs and databases."""
    _, boot = booted
    secrets = [
        PASSWORD.encode(),
        PASSWORD.split("$")[0].encode(),
        base64.b64encode(f"{registry.username}:{PASSWORD}".encode()),
    ]
    places = {file.path for file in boot.tree() if any(secret in file.data for secret in secrets)}
    assert places == {"/etc/ecs/ecs.config"}
    assert not any(secret.decode() in boot.console for secret in secrets)


@pytest.mark.parametrize("ours_first", [True, False])
def test_what_batch_appends_survives_in_either_order(aws, registry, launch, ours_first):
    """Nobody has documented where AWS Batch puts its own part."""
    data = deployed_user_data(aws, f"order{int(ours_first)}", registry)
    pair = (data, BATCH_PART.encode())
    boot = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""}).boot(
        merged(*(pair if ours_first else pair[::-1]))
    )
    assert boot.ok, boot.console
    config = read_ecs_config(boot.ecs_config)
    assert config["ECS_CLUSTER"] == "genomics_Batch_1"
    assert config["ECS_DISABLE_IMAGE_CLEANUP"] == "false"
    assert auth_for(f"{registry.host}/x", config)["password"] == PASSWORD


def test_cloud_config_of_the_users_own_takes_effect_as_well(aws, registry, launch, tmp_path):
    """Two cloud-configs overwrite each other's lists unless one of them knows better."""
    own = tmp_path / "own.yaml"
    own.write_text(
        "#cloud-config\nwrite_files:\n- path: /etc/own\n  content: mine\n"
        "runcmd:\n- [touch, /etc/ran]\n"
    )
    data = deployed_user_data(aws, "own", registry, "--user-data", str(own))
    boot = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""}).boot(data)
    assert boot.ok, boot.console
    assert (boot.read("/etc/own"), boot.read("/etc/ran")) == (b"mine", b"")
    assert auth_for(f"{registry.host}/x", read_ecs_config(boot.ecs_config))


def test_shell_of_the_users_own_keeps_its_dollars(aws, registry, launch, tmp_path):
    """Fn::Sub must not touch ${...} of a user's script."""
    own = tmp_path / "own.sh"
    own.write_text('#!/bin/bash\nNAME=fish\necho "${NAME}-${NAME:0:2}-${!NAME}-$NAME" > /etc/own\n')
    data = deployed_user_data(aws, "dollars", registry, "--user-data", str(own))
    boot = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""}).boot(data)
    assert boot.read("/etc/own") == b"fish-fi--fish\n"


def test_instance_without_credentials_is_parked_and_says_why(aws, launch):
    """Else it would take jobs, fail them in seconds, and take the next."""
    text = batchreg("user-data", "--secret-id", "no-such-secret", "--region", "us-east-1").stdout
    boot = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""}).boot(text.encode())
    line = "batchreg: parked: no-such-secret: HTTP 400 ResourceNotFoundException\n"
    assert boot.console.count(line) == 1
    assert read_ecs_config(boot.ecs_config) == {
        "HTTP_PROXY": "127.0.0.1:9",
        "NO_PROXY": "ecs.us-east-1.amazonaws.com,ec2.us-east-1.amazonaws.com,169.254.169.254,"
        "/var/run/docker.sock",
    }
    assert boot.systemctl[2:] == [
        ["--no-block", "try-restart", "ecs.service"],
        ["--no-block", "start", "batchreg-retry.timer"],
    ]


def test_one_broken_secret_does_not_cost_the_other(aws, registry, launch):
    """The instance works for the registries that it has logins for."""
    manager = aws.client("secretsmanager")
    manager.create_secret(
        Name="good",
        SecretString=(f'{{"username": "u", "password": "p", "registry_url": "{registry.host}"}}'),
    )
    manager.create_secret(Name="bad", SecretString="not JSON")
    text = batchreg(
        "user-data", "--secret-id", "bad", "--secret-id", "good", "--region", "us-east-1"
    ).stdout
    boot = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""}).boot(text.encode())
    assert auth_for(f"{registry.host}/x", read_ecs_config(boot.ecs_config))["username"] == "u"
    assert "batchreg: bad: it is not JSON" in boot.console
    assert "parked" not in boot.console


def test_rotated_password_replaces_the_old_one_with_one_restart(aws, tmp_path, launch, engine):
    """The old password is gone, the new one pulls, and the agent restarts once."""
    require("registry")
    with Registry("robot", "before", directory=tmp_path / "rotated") as registry:
        image = registry.push("lab/rotate")
        data = deployed_user_data(aws, "rotated", registry)
        instance = launch(environ=aws.environ, files={"etc/ecs/ecs.config": b""})
        instance.boot(data)
        calls = len(instance.systemctl())
        registry.change_password("after")
        result = batchreg(
            "deploy", "--stack-name", "rotated", "--yes", **aws.environ, BATCHREG_PASSWORD="after"
        )
        assert result.returncode == 0, result.stderr
        instance.run(["python3", "/opt/batchreg/registry_login.py", "@/opt/batchreg/args"])
        auth = auth_for(image, read_ecs_config(instance.read("/etc/ecs/ecs.config")))
        assert auth["password"] == "after"
        engine.pull(image, auth)
        engine.remove(image)
        assert instance.systemctl()[calls:] == [["--no-block", "try-restart", "ecs.service"]]

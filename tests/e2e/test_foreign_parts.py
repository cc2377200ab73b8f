"""Other people's parts of the user data: whatever they do, the agent has its credentials."""

from __future__ import annotations

import json
import time

import pytest
from lab.agent import auth_for
from lab.machine import Machine
from real_parts import require
from secrets_server import REGION, SecretsServer

from batchreg.render import userdata

IMAGE = "ghcr.io/lab/align:1"
SECRET = json.dumps({"username": "ann", "password": "canary-1", "registry_url": "ghcr.io"})

# In the order of their names, which is the order in which cloud-init runs them.
SCRIPTS = {
    "truncates": ": > /etc/ecs/ecs.config",
    "replaces": "echo ECS_CLUSTER=blue > /etc/new; mv /etc/new /etc/ecs/ecs.config",
    "fails": "set -e; false",
    "restarts-docker": "systemctl restart docker",
    "stops-and-starts": "systemctl stop ecs docker; systemctl --no-block start docker ecs",
    "restarts-the-agent": "systemctl --no-block restart ecs",
    "takes-a-while": "sleep 3",
    "writes-without-a-newline": "printf ECS_CLUSTER=blue > /etc/ecs/ecs.config",
}
RUNCMD = (
    "Content-Type: text/cloud-config\n\n#cloud-config\nruncmd:\n- echo A=1 > /etc/ecs/ecs.config\n"
)
BOOTHOOK = """\
Content-Type: text/cloud-boothook

#!/bin/sh
mkdir -p /etc/ecs
echo ECS_RESERVED_MEMORY=32 > /etc/ecs/ecs.config
"""


def part(name: str, command: str) -> str:
    return (
        "Content-Type: text/x-shellscript\n"
        f'Content-Disposition: attachment; filename="{name}"\n\n#!/bin/sh\n{command}\n'
    )


def named(prefix: str) -> list[str]:
    """Return all scripts, under names that begin like this."""
    return [
        part(f"{prefix}{number}-{name}", command)
        for number, (name, command) in enumerate(SCRIPTS.items())
    ]


@pytest.mark.parametrize(
    ("parts", "ours_last"),
    [([BOOTHOOK, *named("1"), RUNCMD], True), ([RUNCMD, *named("zzzzz"), BOOTHOOK], False)],
    ids=["before ours", "after ours"],
)
def test_agent_has_its_credentials_whenever_it_starts(tmp_path, parts, ours_last):
    """The program runs once before the agent, the last to write, and nothing restarts for ever."""
    require("machine")
    with SecretsServer({"ghcr": SECRET}) as server:
        text = userdata.for_instance(["ghcr"], REGION, [] if not ours_last else parts)
        if not ours_last:  # in the archive as well
            (ours,) = text.split("--==batchreg==\n")[1:]
            text = userdata.resolve(
                userdata.archive([ours.split("--==batchreg==--")[0], *parts]), {}
            )
        with Machine(
            directory=tmp_path / "machine",
            environ={
                "AWS_ENDPOINT_URL": server.url,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url,
                "AWS_REGION": REGION,
            },
        ) as machine:
            machine.submit(IMAGE)
            boot = machine.boot(text.encode())
            assert "fails" in " ".join(boot.errors) or "scripts-user" in " ".join(boot.errors)
            machine.wait_until(machine.taken)
            assert (server.count("ghcr"), len(machine.agents)) == (1, 1)
            assert "parked" not in machine.console

            def again(command: str) -> None:
                """Do it, and wait for the next start of the agent."""
                seen, asked = len(machine.agents), server.count("ghcr")
                machine.run(["sh", "-c", command])
                machine.wait_until(lambda: len(machine.agents) > seen)
                time.sleep(0.5)
                assert (len(machine.agents), server.count("ghcr")) == (seen + 1, asked + 1)

            again("systemctl restart ecs")
            again(": > /etc/ecs/ecs.config; systemctl restart docker")
            again("rm /etc/ecs/ecs.config; systemctl stop docker; systemctl start ecs")
            again("echo ECS_CLUSTER=x > /etc/ecs/ecs.config; systemctl --no-block restart ecs")
            again("pkill -f libexec.amazon-ecs-ini[t]; systemctl restart ecs")
            for agent in machine.agents:
                assert auth_for(IMAGE, agent) == {"username": "ann", "password": "canary-1"}
                assert "HTTP_PROXY" not in agent

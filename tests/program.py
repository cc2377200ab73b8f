"""The program on the instance, run as it is: stripped, by a plain interpreter, in a directory."""

import base64
import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from secrets_server import REGION, USER_KEYS, SecretsServer

from batchreg.render import userdata

PASSWORD = 'p"a\\s$s {{w}}: é😀\n=#%'
RESTART = "--no-block try-restart ecs.service"
ROLE_AWAY = {
    "AWS_ACCESS_KEY_ID": USER_KEYS.access_key,
    "AWS_SECRET_ACCESS_KEY": USER_KEYS.secret_key,
}


def secret(user: str = "ada", password: str = PASSWORD, url: str = "ghcr.io") -> str:
    return json.dumps({"username": user, "password": password, "registry_url": url})


def as_ecs_init_reads(content: bytes) -> dict[bytes, bytes]:
    """Return the settings in an ecs.config, as ecs-init's docker.go finds them."""
    lines = [line.strip() for line in content.strip().split(b"\n")]
    return dict(line.split(b"=", 1) for line in lines if b"=" in line)


def agent_logins(content: bytes) -> dict[str, str]:
    """Return {registry key: user:password} as the agent finds it in an ecs.config."""
    found = as_ecs_init_reads(content)
    assert found[b"ECS_ENGINE_AUTH_TYPE"] == b"dockercfg"
    auths = json.loads(found[b"ECS_ENGINE_AUTH_DATA"])
    return {key: base64.b64decode(entry["auth"]).decode() for key, entry in auths.items()}


@dataclass(frozen=True)
class Run:
    """One run of the program, ended."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        return self.err.splitlines()


class Instance:
    """A directory as the machine, with a systemctl that only writes down how it was called."""

    def __init__(self, directory: Path, server: SecretsServer) -> None:
        self.directory, self.server = directory, server
        self.config = directory / "etc" / "ecs" / "ecs.config"
        self.config.parent.mkdir(parents=True)
        self.script = directory / "registry_login.py"
        self.script.write_text(userdata.script())
        systemctl = directory / "bin" / "systemctl"
        systemctl.parent.mkdir()
        systemctl.write_text('#!/bin/sh\necho "$*" >>"$0.calls"\nenv >>"$0.environment"\n')
        systemctl.chmod(0o755)
        self.calls_file = Path(f"{systemctl}.calls")

    def command(
        self,
        *secret_ids: str,
        deadline: float = 30,
        patience: float = 600,
        python: str = sys.executable,
        options: tuple[str, ...] = (),
    ) -> list[str]:
        return [
            python,
            str(self.script),
            f"--region={REGION}",
            f"--endpoint-url={self.server.url}",
            f"--ecs-config={self.config}",
            f"--deadline={deadline}",
            *([f"--patience={patience}"] if "--on-failure" in str(options) else []),
            *(f"--secret-id={name}" for name in secret_ids),
            *options,
        ]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        return {
            "PATH": f"{self.directory}/bin:/usr/bin:/bin",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": self.server.url,
            **more,
        }

    def start(self, command: list[str], env: Mapping[str, str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.directory,
            env=self.environment(env),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(
        self,
        *secret_ids: str,
        env: Mapping[str, str] | None = None,
        shell: str = "",
        **choices: object,
    ) -> Run:
        """Run the program to its end; `shell` are commands that come before it in its process."""
        command = self.command(*secret_ids, **choices)
        if shell:
            command = ["/bin/sh", "-c", f'{shell}; exec "$@"', "sh", *command]
        start = time.monotonic()
        with self.start(command, env or {}) as process:
            out, err = process.communicate(timeout=60)
        return Run(process.returncode, out, err, time.monotonic() - start)

    @property
    def systemctl_calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []

    @property
    def logins(self) -> dict[str, str]:
        return agent_logins(self.config.read_bytes())

    @property
    def scratch_files(self) -> list[Path]:
        return [path for path in self.config.parent.iterdir() if path != self.config]


# Contents of an ecs.config.
AUTHS = {"ghcr.io": {"auth": "YWRhOng="}}
TYPE = b"ECS_ENGINE_AUTH_TYPE=dockercfg\n"
OURS = TYPE + b'ECS_ENGINE_AUTH_DATA={"ghcr.io":{"auth":"YWRhOng="}}\n'
OLD = b'ECS_ENGINE_AUTH_TYPE=dockercfg\nECS_ENGINE_AUTH_DATA={"quay.io":{"auth":"b2xkOm9sZA=="}}\n'

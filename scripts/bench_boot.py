"""Time the boot step: from its start to an ecs.config with which the agent can pull.

Against it stands the essence of the walk-through of 2021
(aws.amazon.com/blogs/compute/how-to-authenticate-private-container-registries-using-aws-batch),
which runs on no machine of today: it wants Amazon Linux 2 with its packages, and instance metadata
without a token. Here the packages are installed already, and a forwarder adds the token. Both scripts
talk to one embedded AWS and one real registry.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
import venv
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from lab.agent import auth_for, read_ecs_config
from lab.forwarder import Forwarder
from lab.parts import Engine, Registry, missing
from local_aws import REGION, LocalAws
from tables import Table, milliseconds, ratio

from batchreg.render import userdata

WALKTHROUGH = """\
#!/bin/bash -e
aws configure set region $(curl -s $IMDS/latest/meta-data/placement/region)
SECRET=$(aws secretsmanager get-secret-value --secret-id registry | jq -r .SecretString)
USERNAME=$(echo $SECRET | jq -r .username)
PASSWORD=$(echo $SECRET | jq -r .password)
REGISTRY=$(echo $SECRET | jq -r .registry_url)
echo $PASSWORD | docker login --username $USERNAME --password-stdin $REGISTRY
AUTH=$(cat ~/.docker/config.json | jq -c .auths)
echo ECS_ENGINE_AUTH_TYPE=dockercfg >> $1
echo "ECS_ENGINE_AUTH_DATA=$AUTH" >> $1
"""
PACKAGES = "aws-cli, jq"  # which its script installs before that, dependencies not counted

# What the standard library costs that the script needs.
IMPORTS = (
    "import argparse, hmac, json, random, re, signal, email.utils, hashlib, http.client, "
    "urllib.error, urllib.parse, urllib.request"
)


@dataclass(frozen=True)
class Run:
    """One boot step; `network` are the seconds in which it waited for an answer."""

    wall: float
    network: float
    places: tuple[str, ...]  # what was called, in order
    left: int  # files in the home directory

    @property
    def own(self) -> float:
        return self.wall - self.network


class Bench:
    """Everything that both scripts need, until the `with` block ends."""

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            aws = stack.enter_context(LocalAws())
            registry = stack.enter_context(
                Registry("lab", "pass-word", directory=self.folder / "registry")
            )
            engine = stack.enter_context(Engine(self.folder / "engine"))
            request = urllib.request.Request(
                f"{aws.endpoint}/latest/api/token",
                method="PUT",
                headers={"X-aws-ec2-metadata-token-ttl-seconds": "21600"},
            )
            with urllib.request.urlopen(request) as answer:
                token = {"X-aws-ec2-metadata-token": answer.read().decode()}
            host = aws.endpoint.removeprefix("http://")
            self.aws = stack.enter_context(Forwarder(host))
            self.old_aws = stack.enter_context(Forwarder(host, token))
            self.registry = stack.enter_context(Forwarder(registry.host))
            aws.client("secretsmanager").create_secret(
                Name="registry",
                SecretString=json.dumps(
                    {
                        "username": registry.username,
                        "password": registry.password,
                        "registry_url": self.registry.host,
                    }
                ),
            )
            self._docker = f"unix://{engine.socket}"
            self._prepare()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _prepare(self) -> None:
        files = {
            "registry_login.py": userdata.script(),
            "walkthrough.sh": WALKTHROUGH,
            "bin/systemctl": "#!/bin/sh\n",
        }
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        # An interpreter with nothing installed, as on the instance.
        venv.create(self.folder / "bare", with_pip=False)
        self._python = str(self.folder / "bare/bin/python")
        # The one program of its own that the walk-through takes from here.
        (self.folder / "bin/aws").symlink_to(Path(sys.executable).with_name("aws"))

    def ours(self) -> Run:
        """Run registry_login as an instance does."""
        return self._run(
            self.aws,
            [
                self._python,
                str(self.folder / "registry_login.py"),
                "--region",
                REGION,
                "--secret-id",
                "registry",
                "--deadline",
                "60",
                "--ecs-config",
            ],
        )

    def theirs(self) -> Run:
        """Run the walk-through's script, on the machine that it was written for."""
        return self._run(self.old_aws, ["bash", str(self.folder / "walkthrough.sh")])

    def floor(self) -> float:
        """Start the same interpreter with the same imports."""
        began = time.perf_counter()
        subprocess.run([self._python, "-c", IMPORTS], check=True, env={})
        return time.perf_counter() - began

    def _run(self, aws: Forwarder, command: list[str]) -> Run:
        home = Path(tempfile.mkdtemp(dir=self.folder))
        config = home / "ecs.config"
        config.write_text("ECS_CLUSTER=bench\n")
        aws.calls.clear()
        self.registry.calls.clear()
        began = time.perf_counter()
        result = subprocess.run(
            [*command, str(config)],
            capture_output=True,
            text=True,
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "HOME": str(home),
                "IMDS": aws.url,
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": aws.url,
                "AWS_ENDPOINT_URL": aws.url,
                "DOCKER_HOST": self._docker,
            },
        )
        wall = time.perf_counter() - began
        login = auth_for(f"{self.registry.host}/lab/align", read_ecs_config(config.read_bytes()))
        if result.returncode or not login:
            raise RuntimeError(f"{command[0]} left no login:\n{result.stdout}{result.stderr}")
        left = sum(path.is_file() for path in home.rglob("*")) - 1
        shutil.rmtree(home)
        places = [
            "metadata" if call.path.startswith("/latest/") else "Secrets Manager"
            for call in aws.calls
        ] + ["registry"] * len(self.registry.calls)
        return Run(
            wall,
            sum(call.seconds for call in [*aws.calls, *self.registry.calls]),
            tuple(places),
            left,
        )


def needs() -> str | None:
    """Say why the walk-through's script cannot run here."""
    for program in ("curl", "jq", "docker"):
        if not shutil.which(program, path="/usr/bin:/bin"):
            return f"no {program}"
    return missing(["registry", "engine"])


def compare(runs: int) -> Table:
    """Return a table of both, run in turn."""
    with Bench() as bench:
        bench.ours(), bench.theirs()  # nobody pays for cold caches
        rounds = [(bench.ours(), bench.theirs(), bench.floor()) for _ in range(runs)]
    ours, theirs, floors = zip(*rounds, strict=True)
    times = ratio([run.wall for run in theirs], [run.wall for run in ours])
    return [
        ("boot step", "wall", "own", "ratio", "files left", "calls"),
        ("registry_login", *_row(ours, "1")),
        ("  its imports alone", milliseconds(floors)),
        ("walk-through of 2021", *_row(theirs, f"{times:.1f}")),
    ]


def _row(runs: Sequence[Run], times: str) -> tuple[str, ...]:
    places = runs[-1].places
    counts = ", ".join(f"{places.count(place)} {place}" for place in dict.fromkeys(places))
    return (
        milliseconds(run.wall for run in runs),
        milliseconds(run.own for run in runs),
        times,
        str(runs[-1].left),
        f"{len(places)}: {counts}",
    )

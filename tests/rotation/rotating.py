"""A stack with registries, and batchreg for it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from account import Account

from batchreg.render import template
from batchreg.render.settings import Settings
from batchreg.render.text import to_yaml

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
    def credentials(self) -> dict[str, tuple[str, str]]:
        """The credentials in the stack's secrets, by registry."""
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

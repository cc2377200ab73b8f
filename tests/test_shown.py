"""What the documents show runs: every command, page by page, in the order of the page. Those on
screens are in test_screens.py.

The AWS is the embedded one. Under the names ghcr.io and Docker Hub's a test registry answers.
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import documented
import pytest
from account import Account
from attach_lab import Lab
from local_aws import LocalAws
from pages import PAGES, typed, words_of

from batchreg.cli.commands import cli

BIN = Path(sys.executable).parent
PASSWORD = "pass:word"
ASKING = {
    name
    for name, command in cli.commands.items()
    if any("--yes" in parameter.opts for parameter in command.params)
}
# What a page shows failing, or finding something.
EXIT_STATUS = {
    "check ghcr.io/lab/align:3 ghcr.io/lab/sort:3.3": {1},
    "deploy --stack-name genomics --subnet-id subnet-9f8e": {1},
    "doctor": {0, 1},
}
# Environments that a page attaches, and what makes them special.
OTHERS: dict[str, dict[str, Any]] = {
    "research": {},
    "genomics": {},
    "legacy": {"resources": {"allocationStrategy": "BEST_FIT"}},
}
COMPANION = "batchreg-research"


@dataclass
class Reader:
    """Somebody who types what a page shows, with the README's batchreg.yaml in the folder."""

    aws: LocalAws
    folder: Path
    environ: dict[str, str]
    template: str

    def stand_in(self, line: str) -> str:
        """Put what is there in place of what a page makes up."""
        for pattern, text in {
            r"subnet-0a1b": self.aws.subnet_ids[0],
            r"subnet-2c3d": self.aws.subnet_ids[1],
            r"sg-4e5f": self.aws.security_group_ids[0],
            r"--auth job$": "--auth job IMAGE",
        }.items():
            line = re.sub(pattern, text, line)
        line = re.sub(r"arn:aws:secretsmanager:\S+", lambda _: self.own_secret(), line)
        return re.sub(
            r"\bJOB\b", lambda _: self.run("batchreg submit --detach IMAGE -- true").strip(), line
        )

    def own_secret(self) -> str:
        return self.aws.client("secretsmanager").create_secret(
            Name=f"own-{os.urandom(4).hex()}",
            SecretString=json.dumps(
                {"username": "lab", "password": PASSWORD, "registry_url": "ghcr.io"}
            ),
        )["ARN"]

    def type(self, line: str) -> None:
        """Run a line as it stands there, answering questions with yes; see that it works."""
        words = words_of(line)
        name = words[0]
        if words in (["attach"], ["detach"], ["engine"], ["image"], ["init"], ["job-definition"]):
            return  # a sentence names the command
        stack = words[words.index("--stack-name") + 1] if "--stack-name" in words else "genomics"
        account = Account(self.aws, stack)
        if account.stack is None and name != "deploy":  # an earlier line of the page destroyed it
            if stack == COMPANION:
                self.run("batchreg attach research")
            else:
                account.make(self.template, RegistryUrl="ghcr.io", Password="old")
        expected = next(
            (status for start, status in EXIT_STATUS.items() if " ".join(words).startswith(start)),
            {0},
        )
        self.run(self.stand_in(line), expected)

    def run(self, line: str, expected: frozenset[int] | set[int] = frozenset({0})) -> str:
        line = re.sub(r"\bIMAGE\b", "ghcr.io/lab/align:3", line)
        line = re.sub(rf"^batchreg ({'|'.join(ASKING)})\b", r"batchreg \1 --yes", line)
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder,
            env=self.environ,
            text=True,
            capture_output=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode in expected, f"{line}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        assert done.stdout or "doctor" not in line  # findings, or what it has looked at
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, template: str) -> Iterator[Reader]:
    """A reader who goes from page to page, in one AWS."""
    tmp_path = tmp_path_factory.mktemp("reader")
    auth = base64.b64encode(f"lab:{PASSWORD}".encode()).decode()
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"ghcr.io": {"auth": auth}}}))
    with ExitStack() as stack:
        _, at_registry = stack.enter_context(documented.registry(tmp_path, PASSWORD))
        aws = stack.enter_context(LocalAws())
        aws.set_jobs("SUCCEEDED", exit_code=0)
        environ = {
            name: value for name, value in aws.environ.items() if not name.startswith("BATCHREG_")
        }
        reader = Reader(
            aws,
            tmp_path,
            {
                **environ,
                "PATH": f"{BIN}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                "BATCHREG_PASSWORD": PASSWORD,
                "HUB": PASSWORD,
                "DOCKER_CONFIG": str(tmp_path),
                **at_registry,
            },
            template,
        )
        (block,) = re.findall(
            r"(?m)^    stack_name: genomics\n(?:^    .*\n)+", PAGES[0].read_text()
        )
        for name, choices in OTHERS.items():
            Lab(aws, name).make(**choices)
        (tmp_path / "mount.sh").write_text("#!/bin/sh\n")
        (tmp_path / "batchreg.yaml").write_text(reader.stand_in(re.sub("(?m)^    ", "", block)))
        yield reader


WITH_COMMANDS = [page for page in PAGES if any(typed(page))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_of_a_page_run(page, reader):
    """As somebody would type them who reads it from its top to its end."""
    for line in typed(page):
        if "[OPTIONS]" not in line and not re.match(r"batchreg (COMMAND|[a-z]*:)", line):
            reader.type(line)
    # What takes it from there.
    text = page.read_text()
    for block in re.findall(r"(?m)^    \[\n(?:^    .*\n)+", text):
        (reader.folder / "parameters.json").write_text(reader.stand_in(block))
    joined = re.sub(r"\\\n\s*", "", text)
    for line in re.findall(r"(?m)^ {4,}(?:\$ )?(aws [a-z-]+ .*)$", joined):
        reader.run(line)

"""What the documents show exists: files, headings, commands, options."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import botocore.session
import click
import hcl2
import pytest
import schemas
import write_reference
import yaml
from pages import NAMES, PAGES, ROOT, shown, words_of

from batchreg.cli import config
from batchreg.cli.commands import cli
from batchreg.jobs.definitions import Spec, definition
from batchreg.registry.images import parse

KEYS = config.keys(cli)
# Options of the programs that a page may show beside batchreg.
FOREIGN = {
    "--all",
    "--aws-batch-task-timeout",
    "--capabilities",
    "--cli-input-json",
    "--compute-resources",
    "--no-block",
    "--query",
    "--scripted",
    "--unit",
    "--with",
}


def without_code(text: str) -> str:
    return re.sub(r"(?ms)^```.*?^```|`[^`\n]*`|^    .*?$", "", text)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"(?m)^#+ (.+)$", page.read_text())
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


LINES = [
    pytest.param(line, id=f"{page.name}: {line[:60]}")
    for page in PAGES
    for line in dict.fromkeys(shown(page))
    # The reference shows forms; what batchreg itself has said is no command.
    if "[OPTIONS]" not in line and not re.match(r"batchreg (COMMAND|[a-z]*:)", line)
]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    """A relative link is a file of ours, and its anchor one of the file's headings."""
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path) if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def test_every_page_is_linked_from_the_readme():
    """A page that nobody finds is not there."""
    readme = PAGES[0].read_text()
    for page in PAGES[1:]:
        assert f"]({page.relative_to(ROOT)})" in readme


@pytest.mark.parametrize("line", LINES)
def test_commands_exist(line, tmp_path, monkeypatch):
    """The command, and each of its options with a value that it takes."""
    monkeypatch.chdir(tmp_path)
    words = words_of(line)
    if words[0].startswith("-"):
        assert words[0] in ("--help", "--version")
        return
    # A sentence may leave out what the command needs; what stands there must be right.
    with contextlib.suppress(click.MissingParameter):
        cli.commands[words[0]].make_context(words[0], words[1:])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_exist(page):
    """Every --option in a text is one of some command's."""
    known = {
        name
        for command in cli.commands.values()
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    text = "\n".join(
        line.partition(" -- ")[0]
        for line in re.sub(r"\\\n\s*", "", page.read_text()).splitlines()
        if not re.search(r"\b(aws|docker|miniwdl|pip|snakemake|systemctl) ", line)
    )
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    assert named - known - FOREIGN <= {"--help", "--version"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_variables_exist(page):
    """Every BATCHREG_ variable in a text is read by some option, is the password, or refused."""
    known = {
        str(variable)
        for command in cli.commands.values()
        for option in command.params
        for variable in ([option.envvar] if isinstance(option.envvar, str) else option.envvar or [])
    }
    named = set(re.findall(r"(?<!_)\bBATCHREG_[A-Z_]+", page.read_text()))
    assert named <= known | {"BATCHREG_PASSWORD", "BATCHREG_YES"}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_files_are_valid(page, tmp_path):
    """A batchreg.yaml that is copied from a page works."""
    for block in re.findall(r"(?m)(?:^ {4}\w+:.*\n(?:^ {4,}.*\n)*)", page.read_text()):
        text = re.sub(r"(?m)^ {4}", "", block)
        if not set(re.findall(r"(?m)^(\w+):", text)) & KEYS.keys():
            continue
        assert list(schemas.of_settings().iter_errors(yaml.safe_load(text))) == []
        (tmp_path / "batchreg.yaml").write_text(text)
        config.read(tmp_path / "batchreg.yaml", KEYS)


def test_reference_is_fresh():
    """It is written from the code: `make docs`."""
    assert write_reference.PAGE.read_text() == write_reference.page()


def test_policies_name_actions_that_exist():
    """A policy that is copied from the page is valid, and a misspelled action is none."""
    models = botocore.session.get_session()
    services = {"servicequotas": "service-quotas"}  # where the prefix is not the client's name
    page = ROOT / "docs" / "permissions.md"
    policies = re.findall(r"(?m)^ {4}\{\n(?: {5,}.*\n)+ {4}\}$", page.read_text())
    statements = [one for text in policies for one in json.loads(text)["Statement"]]
    assert len(policies) == 4
    for statement in statements:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            service, _, name = action.partition(":")
            model = models.get_service_model(services.get(service, service))
            assert name in (*model.operation_names, "PassRole"), action


def test_make_targets_exist():
    """The README's, and the ones that another target's help names."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)\bmake ([a-z-]+)", PAGES[0].read_text()):
        assert f"\n{target}:" in makefile


def test_terraform_takes_over_everything_that_a_job_definition_has():
    """Its configuration names each part; one that it leaves out would be lost without a word."""
    page = (ROOT / "docs/engines.md").read_text()
    (block,) = re.findall(r"(?m)^    data \"aws_cloudformation_stack\"(?s:.*?)\n\n(?=\S)", page)
    hcl2.loads(re.sub("(?m)^    ", "", block))
    body = definition(Spec(image=parse("ghcr.io/lab/align:3"), retries=3, timeout=3600))
    assert set(body) == set(re.findall(r"local\.align\.(\w+)", block))

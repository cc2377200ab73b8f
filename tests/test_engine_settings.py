"""The settings that `batchreg engine` prints: valid in each engine's form, and those of the page."""

from __future__ import annotations

import ast
import configparser
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from pages import ROOT

from batchreg.cache.names import Cache, Cached, cached_name
from batchreg.cli import commands
from batchreg.jobs.engines import ENGINES, HUB, Place, configuration
from batchreg.registry_login import HUB as HUB_KEY

ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com/genomics"
# The example of docs/engines.md.
PLAIN = Place(
    stack="genomics",
    region="eu-central-1",
    queue="arn:aws:batch:eu-central-1:111122223333:job-queue/JobQueue-5769b264d0ea",
    job_role="arn:aws:iam::111122223333:role/genomics-JobRole-1ABC",
    bucket="lab-workflows",
)
GHCR, DOCKER_HUB = {"ghcr.io": f"{ECR}/ghcr"}, {HUB: f"{ECR}/hub"}
PLACES = {
    "plain": PLAIN,
    "no role": replace(PLAIN, job_role=""),
    "no bucket": replace(PLAIN, bucket="BUCKET"),
    "cached": replace(PLAIN, cached=GHCR),
    "cached and not": replace(PLAIN, cached=GHCR, others=("harbor.example.com",)),
    "hub": replace(PLAIN, cached=DOCKER_HUB),
    "both": replace(PLAIN, cached=GHCR | DOCKER_HUB),
}


def braces(text: str) -> Any:
    """Return what a text without comments and strings says, its braces closed in their order."""
    bare = re.sub(r"""(?m)^(//|#).*$|"[^"\n]*"|'[^'\n]*'""", "", text)
    assert not re.search("""["']""", bare)
    open_ones = []
    for sign in re.findall(r"[][(){}]", bare):
        if sign in "([{":
            open_ones.append(sign)
        else:
            assert open_ones.pop() + sign in ("()", "[]", "{}")
    assert open_ones == []
    return text


def ini(text: str) -> dict[str, str]:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    return {f"{name}.{key}": value for name in parser for key, value in parser[name].items()}


PARSERS: dict[str, Callable[[str], Any]] = {
    "nextflow": braces,
    "snakemake": yaml.safe_load,
    "cromwell": braces,
    "miniwdl": ini,
    "metaflow": json.loads,
    "airflow": lambda text: ast.literal_eval(ast.parse(text).body[0].value),
}


def settings(engine: str, place: str) -> tuple[str, str]:
    """Return the settings of an engine, and what is said about them, as one line."""
    text, notes = configuration(ENGINES[engine], PLACES[place])
    comment = ENGINES[engine].comment
    said = [
        line.removeprefix(comment)
        for line in text.splitlines()
        if comment and line.startswith(comment)
    ]
    return text, " ".join(" ".join([*said, *notes]).split())


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("engine", ENGINES)
def test_settings_are_valid_and_name_the_queue(engine, place):
    """An engine reads them as they are."""
    text, said = settings(engine, place)
    found = PARSERS[engine](text)
    assert PLAIN.queue in str(found)
    assert "stack genomics in eu-central-1" in said
    assert max(map(len, text.splitlines())) <= 120


def test_every_engine_of_the_command_has_settings():
    """The command's list is a copy, so that --help needs no engine."""
    assert tuple(ENGINES) == commands.ENGINES == tuple(PARSERS)


@pytest.mark.parametrize("engine", ENGINES)
def test_page_shows_what_the_command_prints(engine):
    """The command is the source; the page has it word for word."""
    page = (ROOT / "docs" / "engines.md").read_text()
    text, _ = configuration(ENGINES[engine], PLAIN)
    assert re.sub("(?m)^(?=.)", "    ", text) in page


def test_page_shows_the_names_in_the_cache():
    """Of the one engine that replaces the registry in names."""
    page = (ROOT / "docs" / "engines.md").read_text()
    text, _ = settings("nextflow", "cached")
    assert re.sub("(?m)^(?=.)", "    ", text[text.index("docker {") :]) in page


@pytest.mark.parametrize(
    ("place", "registry", "override"),
    [
        ("plain", "", False),
        ("cached", "ghcr", True),
        ("cached and not", "", False),
        ("hub", "hub", False),
        ("both", "hub", False),
    ],
)
def test_nextflow_replaces_only_registries_that_can_be_meant(place, registry, override):
    """An override sends the images of every registry to one prefix."""
    text, said = settings("nextflow", place)
    assert re.findall(r"registry = '(.*)'", text) == ([f"{ECR}/{registry}"] if registry else [])
    assert ("registryOverride = true" in text) is ("Nextflow 25.10" in said) is override
    assert ("library/ubuntu" in said) is (registry == "hub")


def as_nextflow(image: str, registry: str, override: bool) -> str:
    """Return what Nextflow makes of an image's name.

    Source: normalizeDockerImageName of nextflow/container/ContainerHandler.groovy.
    """
    first, slash, rest = image.partition("/")
    absolute = bool(slash) and ("." in first or ":" in first)
    if not registry or (absolute and not override):
        return image
    return f"{registry}/{rest if absolute else image}"


def test_nextflow_and_ecr_agree_on_names():
    """The image of a process is pulled through ECR with the name that `batchreg image` prints."""
    hub, ghcr = Cached(HUB_KEY, "genomics/hub"), Cached("ghcr.io", "genomics/ghcr")
    for place, cached, images in (
        ("cached", ghcr, ["ghcr.io/lab/align:3", "ghcr.io/a/b/c@sha256:" + "0" * 64]),
        ("hub", hub, ["lab/align:3", "library/ubuntu:24.04", "lab/align"]),
    ):
        text, _ = settings("nextflow", place)
        (registry,) = re.findall("registry = '(.*)'", text)
        for image in images:
            name = as_nextflow(image, registry, "registryOverride = true" in text)
            assert name == cached_name(image, Cache(ECR.split("/")[0], (cached,)))
    assert as_nextflow("ghcr.io/lab/x", PLACES["hub"].cached[HUB], False) == "ghcr.io/lab/x"


def test_metaflow_puts_docker_hubs_prefix_before_names():
    """The other registries of a name stay as they are."""
    assert (
        json.loads(settings("metaflow", "hub")[0])["METAFLOW_BATCH_CONTAINER_REGISTRY"]
        == f"{ECR}/hub"
    )
    assert "CONTAINER_REGISTRY" not in settings("metaflow", "cached")[0]


@pytest.mark.parametrize("engine", ["nextflow", "snakemake", "cromwell", "miniwdl", "metaflow"])
def test_names_that_an_engine_cannot_rewrite_are_told(engine):
    """Else its jobs would fail at the pull."""
    _, said = settings(engine, "both")
    assert f"ECR pulls images of ghcr.io as {ECR}/ghcr/...; for their names: batchreg image" in said
    assert "batchreg image" not in settings(engine, "plain")[1]


@pytest.mark.parametrize("engine", ["snakemake", "metaflow"])
def test_missing_role_is_told_where_it_is_required(engine):
    """The engine would say so later, in its own words."""
    text, said = settings(engine, "no role")
    assert "requires a job role" in said
    assert "arn:aws:iam" not in text


def test_missing_bucket_is_told():
    """What must be replaced stands out."""
    text, said = settings("nextflow", "no bucket")
    assert "s3://BUCKET/" in text
    assert "Replace BUCKET with an S3 bucket" in said
    assert "BUCKET" not in "".join(settings("miniwdl", "no bucket"))

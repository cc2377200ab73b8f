"""What ECR's pull-through cache calls images, by its documentation."""

from __future__ import annotations

import re

import botocore.session
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchreg.cache import stack as cache_of
from batchreg.cache.names import Cache, Cached, cached_name, reason, upstream_name
from batchreg.errors import BatchregError
from batchreg.registry.images import parse
from batchreg.registry_login import HUB
from batchreg.render.upstreams import Upstream, unsupported, upstream_of
from batchreg.stack.states import Stack

ECR = "111122223333.dkr.ecr.eu-central-1.amazonaws.com"
DIGEST = "sha256:" + "0123456789abcdef" * 4
CACHE = Cache(
    ECR,
    (
        Cached(HUB, "genomics/hub"),
        Cached("ghcr.io", "genomics/ghcr"),
        Cached("registry.gitlab.com", "genomics/gitlab"),
        Cached("lab.azurecr.io", "genomics/azure"),
        Cached("second.azurecr.io", "genomics/azure5"),
        Cached("quay.io", "genomics/quay"),
        Cached("cgr.dev", "genomics/cgr"),
    ),
)
# docs.aws.amazon.com/AmazonECR/latest/userguide/pull-through-cache-working-pulling.html: "For Docker
# Hub official images, the /library prefix must be included. For all other Docker Hub repositories,
# you should omit the /library prefix."
CACHED = {
    # Docker Hub's official images, in every spelling
    "ubuntu": "hub/library/ubuntu",
    "ubuntu:24.04": "hub/library/ubuntu:24.04",
    f"ubuntu@{DIGEST}": f"hub/library/ubuntu@{DIGEST}",
    f"ubuntu:24.04@{DIGEST}": f"hub/library/ubuntu:24.04@{DIGEST}",
    "library/ubuntu": "hub/library/ubuntu",
    "library/ubuntu:24.04": "hub/library/ubuntu:24.04",
    "docker.io/ubuntu": "hub/library/ubuntu",
    "docker.io/ubuntu:24.04": "hub/library/ubuntu:24.04",
    "docker.io/library/ubuntu:24.04": "hub/library/ubuntu:24.04",
    "index.docker.io/ubuntu": "hub/library/ubuntu",
    "index.docker.io/library/ubuntu:24.04": "hub/library/ubuntu:24.04",
    "registry-1.docker.io/ubuntu:24.04": "hub/library/ubuntu:24.04",
    "registry-1.docker.io/library/ubuntu": "hub/library/ubuntu",
    f"docker.io/ubuntu:24.04@{DIGEST}": f"hub/library/ubuntu:24.04@{DIGEST}",
    "python:3.12-slim": "hub/library/python:3.12-slim",
    "docker": "hub/library/docker",
    # Docker Hub's other images
    "lab/align": "hub/lab/align",
    "lab/align:3": "hub/lab/align:3",
    f"lab/align@{DIGEST}": f"hub/lab/align@{DIGEST}",
    "docker.io/lab/align:3": "hub/lab/align:3",
    "index.docker.io/lab/align:3": "hub/lab/align:3",
    "registry-1.docker.io/lab/align:3": "hub/lab/align:3",
    "percona/percona-server": "hub/percona/percona-server",
    "docker/docker": "hub/docker/docker",
    "lab/library": "hub/lab/library",
    "lab/docker.io": "hub/lab/docker.io",
    # GitHub: no path is official there
    "ghcr.io/align": "ghcr/align",
    "ghcr.io/lab/align": "ghcr/lab/align",
    "ghcr.io/lab/align:3": "ghcr/lab/align:3",
    f"ghcr.io/lab/align@{DIGEST}": f"ghcr/lab/align@{DIGEST}",
    f"ghcr.io/lab/align:3@{DIGEST}": f"ghcr/lab/align:3@{DIGEST}",
    "ghcr.io/lab/tools/align/gpu:3": "ghcr/lab/tools/align/gpu:3",
    "ghcr.io/library/align": "ghcr/library/align",
    "ghcr.io/ghcr.io/align": "ghcr/ghcr.io/align",
    "ghcr.io/lab/align:Release_3.1-RC": "ghcr/lab/align:Release_3.1-RC",
    "ghcr.io/lab/a.b_c__d-e--f": "ghcr/lab/a.b_c__d-e--f",
    # GitLab.com, whose projects nest
    "registry.gitlab.com/lab/align:3": "gitlab/lab/align:3",
    "registry.gitlab.com/group/subgroup/project/image:3": "gitlab/group/subgroup/project/image:3",
    # Azure, a host for each registry
    "lab.azurecr.io/align:3": "azure/align:3",
    "lab.azurecr.io/team/align": "azure/team/align",
    "second.azurecr.io/align:3": "azure5/align:3",
    # Quay and Chainguard
    "quay.io/biocontainers/samtools:1.20--h50ea8bc_0": "quay/biocontainers/samtools:1.20--h50ea8bc_0",
    "cgr.dev/lab.example.com/python:latest": "cgr/lab.example.com/python:latest",
}
KEPT = {
    f"{ECR}/genomics/ghcr/lab/align:3": "It is in ECR already.",
    f"{ECR}/mine:3": "It is in ECR already.",
    "999999999999.dkr.ecr.eu-central-1.amazonaws.com/mine": "999999999999.dkr.ecr",
    "111122223333.dkr.ecr.us-east-1.amazonaws.com/mine": "not for 111122223333.dkr.ecr.us-east-1",
    "public.ecr.aws/docker/library/ubuntu": "not for public.ecr.aws.",
    "harbor.example.com/lab/align:3": "not for harbor.example.com.",
    "third.azurecr.io/align": "not for third.azurecr.io.",
    "registry.gitlab.example.com/lab/align": "not for registry.gitlab.example.com.",
    "ghcr.io:443/lab/align": "not for ghcr.io:443.",
    "GHCR.IO/lab/align": "not for GHCR.IO.",
    "localhost/align": "not for localhost.",
    "ghcr.io/lab/" + "a" * 190: "With ECR's address it has 256 characters; AWS Batch accepts 255.",
}


@pytest.mark.parametrize(("image", "repository"), CACHED.items())
def test_cached_name_follows_the_documented_rules(image, repository):
    """Else ECR would ask the registry for an image that is not there."""
    assert cached_name(image, CACHE) == f"{ECR}/genomics/{repository}"


@pytest.mark.parametrize(("image", "why"), KEPT.items())
def test_other_images_keep_their_names_with_a_reason(image, why):
    """A name that ECR cannot pull would fail on the instance, minutes later."""
    assert cached_name(image, CACHE) is None
    assert why in reason(image, CACHE)


def test_reason_lists_what_the_cache_is_for():
    """By the names that people use."""
    cache = Cache(ECR, CACHE.registries[:2])
    assert reason("quay.io/x", cache) == "The cache is for Docker Hub, ghcr.io, not for quay.io."


@pytest.mark.parametrize("image", ["ghcr.io/Lab/align", "Ubuntu", "https://ghcr.io/x", "x:", ""])
def test_what_is_not_the_name_of_an_image_is_refused(image):
    """As everywhere else."""
    with pytest.raises(BatchregError, match="is not the name of an image"):
        cached_name(image, CACHE)


def test_longest_name_is_the_longest_that_batch_accepts():
    """The limit of 255 characters includes ECR's address and the tag."""
    room = 255 - len(f"{ECR}/genomics/ghcr/:3")
    assert len(cached_name(f"ghcr.io/{'a' * room}:3", CACHE) or "") == 255
    assert cached_name(f"ghcr.io/{'a' * (room + 1)}:3", CACHE) is None


part = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-|---)[a-z0-9]{1,6}){0,2}", fullmatch=True)
tags = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True).map(":{}".format)
REPOSITORY = (
    botocore.session.get_session()
    .get_service_model("ecr")
    .shape_for("CreateRepositoryRequest")
    .members["repositoryName"]
    .metadata
)


@given(
    registry=st.sampled_from(CACHE.registries),
    path=st.lists(part, min_size=1, max_size=4).map("/".join),
    tag=st.just("") | tags,
    digest=st.sampled_from(["", f"@{DIGEST}"]),
)
def test_cached_name_leads_back_to_the_one_image(registry, path, tag, digest):
    """ECR finds the registry, and in it the image; and it accepts the repository's name."""
    image = f"{registry.host}/{path}{tag}{digest}"
    name = cached_name(image, CACHE)
    assume(name)
    official = "library/" if registry.key == HUB and "/" not in path else ""
    assert upstream_name(name, CACHE) == f"{registry.host}/{official}{path}{tag}{digest}"
    assert cached_name(upstream_name(name, CACHE), CACHE) == name
    repository = parse(name).path
    assert re.fullmatch(REPOSITORY["pattern"], repository)
    assert REPOSITORY["min"] <= len(repository) <= REPOSITORY["max"]


@pytest.mark.parametrize(
    "image", ["ghcr.io/lab/align", f"{ECR}/mine", f"{ECR}/genomics/ghcr2/x", f"{ECR}/genomics/ghcr"]
)
def test_only_a_cached_name_leads_back(image):
    """A repository of the user's own is nobody's upstream."""
    assert upstream_name(image, CACHE) is None


def a_stack(region: str = "eu-central-1", **outputs: str) -> Stack:
    return Stack(
        name="genomics",
        id=f"arn:aws:cloudformation:{region}:111122223333:stack/genomics/1",
        status="CREATE_COMPLETE",
        reason="",
        parameters={
            "RegistryUrl": "https://index.docker.io/v1/",
            "RegistryUrl2": "harbor.example.com",
            "RegistryUrl3": "https://lab.azurecr.io",
        },
        outputs={f"RegistrySecret{n}Arn": f"arn:{n}" for n in ("", "2", "3")} | outputs,
        tags={},
        role_arn=None,
        protected=False,
    )


def test_cache_of_a_stack_is_read_from_its_outputs():
    """Registries that the instances pull from have no prefix."""
    stack = a_stack(CacheRepositoryPrefix="g/hub", CacheRepositoryPrefix3="g/azure")
    registries = (Cached(HUB, "g/hub"), Cached("lab.azurecr.io", "g/azure"))
    assert cache_of.of(stack) == Cache(ECR, registries)


def test_stack_without_rules_has_no_cache():
    """As most have not."""
    assert cache_of.of(a_stack()) is None


def test_domain_of_ecr_is_that_of_the_region():
    """AWS::URLSuffix, in the European Sovereign Cloud for one."""
    cache = cache_of.of(a_stack("eusc-de-east-1", CacheRepositoryPrefix="g/hub"))
    assert cache.host == "111122223333.dkr.ecr.eusc-de-east-1.amazonaws.eu"


@pytest.mark.parametrize(
    ("region", "supported"),
    [
        ("eu-central-1", True),
        ("us-gov-west-1", True),
        ("eusc-de-east-1", True),
        ("cn-north-1", False),
        ("cn-northwest-1", False),
        ("us-iso-east-1", False),
        ("us-isob-east-1", False),
        ("eu-isoe-west-1", False),
    ],
)
def test_regions_without_a_cache_are_known(region, supported):
    """There a deploy would fail after minutes."""
    upstream = upstream_of("ghcr.io")
    assert isinstance(upstream, Upstream)
    why = unsupported(upstream, region)
    assert (why is None) is supported
    assert supported or f"Amazon ECR cannot pull from ghcr.io in {region}" in why

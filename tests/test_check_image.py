"""What a registry has, and how much of it may be pulled: one cause, one line."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from checks import HUB_LIMIT, check, says
from registry_server import CONFIG, Reply, Request, image_of

from batchreg.registry.images import architectures

# --- the image ------------------------------------------------------------------------------------


def test_missing_tag_names_near_ones(serve):
    """Most are slips."""
    verdict = check(serve(), "lab/align:3.2")
    assert says(verdict, "no-tag", "no tag 3.2 in lab/align", "3.1")
    assert verdict.details["near"].split(", ")[0] == "3.1"


def test_missing_latest_is_explained(serve):
    """Who leaves the tag out does not know that latest is meant."""
    assert says(check(serve(), "lab/align"), "no-tag", "without a tag", "no tag latest", "3, 3.1")


def test_tags_come_in_pages(serve):
    """Registries give a hundred at a time, whatever is asked for."""

    def page(request: Request) -> Reply:
        last = int(request.query.get("last", 0))
        link = {"Link": f'</v2/lab/align/tags/list?last={last + 1}&n=2>; rel="next"'}
        return Reply(200, {"tags": [f"v{last}.0"]}, headers=link if last < 3 else {})

    server = serve(steps={"GET .*/tags/list": page})
    assert says(check(server, "lab/align:v3.1"), "no-tag", "v3.0")
    assert len([path for path in server.paths() if "tags" in path]) == 4


@pytest.mark.parametrize(
    "reply",
    [
        Reply(401, {}),
        Reply(403, {}),
        Reply(200, {"tags": None}),
        Reply(200, {"tags": [1, "a b"]}),
        Reply(200, []),
        Reply(429, {}),
        Reply(500, b""),
    ],
)
def test_missing_tag_is_told_where_the_registry_lists_none(serve, reply):
    """That it is missing is known all the same."""
    server = serve(steps={"GET .*/tags/list": lambda _: reply})
    verdict = check(server, "lab/align:9")
    assert says(verdict, "no-tag", "Push it first")
    assert "near" not in verdict.details


def test_missing_repository_is_told(serve):
    """No list of tags: nothing was ever pushed, or it is called otherwise."""
    assert says(check(serve(login="none"), "lab/aling:3"), "no-repository", "lab/aling")


def test_missing_digest_is_told(serve):
    """Untagged images are what registries clean away."""
    verdict = check(serve(), f"lab/align:3@sha256:{'0' * 64}")
    assert says(verdict, "no-tag", "sha256:000000000000...")


def test_wrong_architecture_is_told(serve):
    """The job would die with `exec format error`, or not be pulled."""
    server = serve()
    assert says(check(server, architectures=("arm64",)), "ok")
    assert says(
        check(server, "lab/align:3.1", architectures=("arm64",)),
        "wrong-architecture",
        "built for amd64 and not for arm64",
        "--platform linux/arm64",
    )
    assert says(
        check(server, "lab/align:3.1", architectures=("amd64", "arm64")),
        "wrong-architecture",
        "not for arm64",
    )


def one(configuration: object, kind: str = CONFIG) -> dict[str, object]:
    """Return the images of a registry with one that is not in an index."""
    return {"lab/align": {"3": image_of(configuration, kind)}}


@pytest.mark.parametrize(
    ("configuration", "architecture"),
    [
        ({"architecture": "amd64", "os": "linux"}, "amd64"),
        ({"architecture": "amd64", "os": "windows"}, "windows/amd64"),
        ({"architecture": "arm", "os": "linux", "variant": "v7"}, "arm/v7"),
        ({"os": "linux"}, ""),
        ({"architecture": ["\x1b[31m"], "os": "linux"}, ""),
    ],
)
def test_single_manifest_tells_its_architecture_in_its_configuration(
    serve, configuration, architecture
):
    """One small blob is read for that, and no layer."""
    server = serve(images=one(configuration))
    verdict = check(server, architectures=("amd64",))
    assert says(verdict, "ok" if architecture in ("amd64", "") else "wrong-architecture")
    assert verdict.details["architectures"] == architecture
    assert not any("b" * 64 in path for path in server.paths())


def test_chart_is_not_an_image(serve):
    """Registries keep other things too."""
    server = serve(images=one({}, "application/vnd.cncf.helm.config.v1+json"))
    assert says(check(server), "not-an-image")


def test_lost_configuration_is_told(serve):
    """The pull would fail at the same place."""
    server = serve(images=one({}), steps={"GET .*/blobs/.*": lambda _: Reply(404, {})})
    assert says(check(server), "incomplete", "Push the image again")


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        [],
        b"",
        b"\xff",
        b"[" * 100_000,
        {"manifests": [1, {"platform": 2}]},
        {"config": 7},
        {"config": {"digest": 1}},
        {"schemaVersion": 1},
        b" " * (5 << 20),
    ],
)
def test_manifest_that_is_none_is_told(serve, manifest):
    """Whatever comes, there is a line for it."""
    server = serve(images={"lab/align": {"3": manifest}})
    assert check(server).cause in ("ok", "not-a-registry", "not-an-image")


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ("", ("amd64",)),
        ("optimal", ("amd64",)),
        ("c7g,m6gd.large", ("arm64",)),
        ("g5,g4dn,m7i,trn1", ("amd64",)),
        ("g5g,im4gn,a1,hpc7g", ("arm64",)),
        ("c7g,c7i", ("amd64", "arm64")),
        ("m7i,g4dn.xlarge,u-6tb1", ("amd64",)),
        ("c7gn", ("arm64",)),
        ("a1.large, x2gd", ("arm64",)),
        ("m7i,m7g", ("amd64", "arm64")),
        ("default_arm64", ("arm64",)),
        ("im4gn.large", ("arm64",)),
        ("g6e,trn1,a10", ("amd64",)),
    ],
)
def test_instance_types_tell_the_architecture(types, expected):
    """Graviton's have a g behind a number; one with a GPU has it in front."""
    assert architectures(types.split(",")) == expected


# --- limits ---------------------------------------------------------------------------------------


def test_what_is_left_is_shown(serve):
    """Docker Hub counts the pulls of six hours."""
    verdict = check(serve(extra=HUB_LIMIT))
    assert says(verdict, "ok", "87 of 200 pulls left")
    assert verdict.details["remaining"] == "87 of 200"


def test_limit_is_told_with_when_it_ends(serve):
    """429 with the headers that Docker Hub sends."""
    headers = {**HUB_LIMIT, "ratelimit-remaining": "0;w=21600", "Retry-After": "540"}
    server = serve(steps={".*/manifests/.*": lambda _: Reply(429, b"", headers=headers)})
    verdict = check(server)
    assert says(verdict, "rate-limited", "(0 of 200 left)", "in 9 min")
    assert verdict.details == {"remaining": "0 of 200", "retry_after": "540"}
    assert "rovide credentials" not in verdict.text
    assert says(check(server, "lab/open:3", None), "rate-limited", "rovide credentials")


def test_nothing_left_is_the_limit_before_a_pull_runs_into_it(serve):
    """HEAD is not counted, and tells: the GET would be refused."""
    server = serve(extra={**HUB_LIMIT, "ratelimit-remaining": "0;w=21600"})
    assert says(check(server), "rate-limited", "0 of 200")
    assert not any(path.startswith("GET /v2/lab") for path in server.paths())


@pytest.mark.parametrize(
    "step", ["GET /v2/", "GET /token", ".*/manifests/.*", "GET /v2/.*/manifests/.*"]
)
def test_limit_is_told_wherever_it_is_met(serve, step):
    """Token servers have limits too; Retry-After may be a date."""
    after = {"Retry-After": formatdate(time.time() + 60, usegmt=True)}
    server = serve(steps={step: lambda _: Reply(429, b"", headers=after)})
    verdict = check(server)
    assert says(verdict, "rate-limited")
    assert 58 <= int(verdict.details["retry_after"]) <= 60


@pytest.mark.parametrize("value", ["", "soon", "-1", "9" * 30, "Thu, 99 Foo 2020"])
def test_limit_without_a_usable_end_is_told(serve, value):
    """Try again later, then."""
    server = serve(
        steps={".*/manifests/.*": lambda _: Reply(429, b"", headers={"Retry-After": value})}
    )
    assert says(check(server), "rate-limited", "Try again later")


def test_other_registries_limits_are_not_pulls(serve):
    """GitLab counts requests a minute under the same names."""
    verdict = check(serve(extra={"RateLimit-Limit": "60", "RateLimit-Remaining": "0"}))
    assert says(verdict, "ok")
    assert "remaining" not in verdict.details

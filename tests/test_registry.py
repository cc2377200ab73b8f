"""What a registry says, and what becomes of it: one cause, one line, within the time."""

from __future__ import annotations

import base64
import json
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.utils import formatdate

import pytest
from registry_server import (
    CONFIG,
    Hang,
    Proxy,
    RegistryServer,
    Reply,
    Request,
    Reset,
    index,
    raising,
)
from secrets_server import certificate

from batchreg.registry import check as registry
from batchreg.registry.answers import challenges
from batchreg.registry.check import Credentials, Verdict
from batchreg.registry.images import architectures, parse

PASSWORD = "canary/4711+x=="
ADA = Credentials("ada", PASSWORD)
IMAGES = {
    "lab/align": {
        "3": index("linux/amd64", "linux/arm64/v8", "unknown/unknown"),
        "3.1": index("linux/amd64"),
    }
}
HUB_LIMIT = {"ratelimit-limit": "200;w=21600", "ratelimit-remaining": "87;w=21600"}

Serve = Callable[..., RegistryServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a registry where ada may pull lab/align, and everybody lab/open."""
    with ExitStack() as servers:

        def start(**options: object) -> RegistryServer:
            settings = {
                "users": {"ada": PASSWORD},
                "rights": {"ada": {"lab/align"}, "": {"lab/open"}},
                "images": {**IMAGES, "lab/open": IMAGES["lab/align"]},
                **options,
            }
            return servers.enter_context(RegistryServer(**settings))

        yield start


def check(
    server: RegistryServer,
    name: str = "lab/align:3",
    login: Credentials | None = ADA,
    **options: object,
) -> Verdict:
    return registry.check(parse(f"{server.host}/{name}"), login, **options)


def says(verdict: Verdict, cause: str, *words: str) -> bool:
    """Tell whether the verdict has this cause, and a text of one line with these words."""
    assert verdict.cause == cause, verdict
    assert verdict.ok == (cause == "ok")
    assert len(verdict.text.splitlines()) == 1
    for word in words:
        assert word in verdict.text, verdict.text
    return True


# --- logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_bearer_token_is_fetched_as_docker_does(serve, field):
    """The scope names the repository, the login goes to the token server and nowhere else."""
    server = serve(token_field=field)
    verdict = check(server)
    assert says(verdict, "ok", "amd64, arm64", "with this login")
    assert verdict.details == {"architectures": "amd64, arm64"}
    assert server.paths() == [
        "GET /v2/",
        "GET /token",
        "HEAD /v2/lab/align/manifests/3",
        "GET /v2/lab/align/manifests/3",
    ]
    token = server.requests[1]
    assert token.query == {
        "service": 'lab, the "registry"',
        "scope": "repository:lab/align:pull",
        "account": "ada",
    }
    assert [request.basic for request in server.requests] == [None, ("ada", PASSWORD), None, None]
    assert all(request.bearer for request in server.requests[2:])
    assert server.connections == 1


def test_basic_login_is_tried_as_docker_login_does(serve):
    """First GET /v2/, which tells a wrong login from a missing right."""
    server = serve(login="basic")
    assert says(check(server), "ok", "with this login")
    assert server.paths()[:2] == ["GET /v2/", "GET /v2/"]
    assert server.requests[0].basic is None


def test_registry_without_logins_is_not_sent_one(serve):
    """Docker sends a login only where it is asked for."""
    server = serve(login="none")
    assert says(check(server), "ok", "no login asked for")
    assert not any("authorization" in request.headers for request in server.requests)


def test_public_image_needs_no_login(serve):
    """Everybody gets a token for what is public."""
    assert says(check(serve(), "lab/open:3", None), "ok", "without a login")


def test_registry_that_asks_late_gets_the_login_then(serve):
    """Some answer 200 to GET /v2/, and ask where the image is."""
    server = serve(steps={"GET /v2/": lambda _: Reply(200, {})})
    assert says(check(server), "ok", "with this login")


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_wrong_login_is_told(serve, login):
    """The most frequent cause of all."""
    server = serve(login=login)
    assert says(
        check(server, login=Credentials("ada", "wrong")), "wrong-login", "refuses this login"
    )


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_missing_right_is_not_a_wrong_login(serve, login):
    """A new password would not help."""
    server = serve(login=login, images={"other/align": IMAGES["lab/align"]})
    assert says(check(server, "other/align:3"), "no-right", "other/align", "takes this login")


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_private_image_without_a_login_asks_for_one(serve, login):
    """Nobody claims that a login was wrong when there was none."""
    assert says(check(serve(login=login), login=None), "login-needed", "give a login")


def test_403_of_a_token_server_is_told_apart_by_asking_once_more(serve):
    """GHCR and GitLab say 403 for a wrong login and for a missing right alike."""

    def refuse(request: Request) -> Reply | None:
        wrong = request.basic != ("ada", PASSWORD)
        return (
            Reply(403, {"errors": [{"code": "DENIED"}]})
            if wrong or ("other/align" in request.query.get("scope", ""))
            else None
        )

    server = serve(steps={"GET /token": refuse})
    assert says(check(server), "ok")
    assert says(check(server, "other/align:3"), "no-right")
    assert says(check(server, login=Credentials("ada", "wrong")), "wrong-login")
    assert says(check(server, login=None), "login-needed")


def test_token_for_a_wrong_login_is_found_out(serve):
    """Harbor gives one to everybody, and then refuses it."""
    nobody = Reply(200, {"token": base64.b64encode(b'[null, ""]').decode()})

    def harbor(request: Request) -> Reply | None:
        return None if request.basic == ("ada", PASSWORD) else nobody

    server = serve(steps={"GET /token": harbor})
    assert says(check(server, login=Credentials("ada", "wrong")), "wrong-login")
    assert says(check(server, "other/align:3"), "no-right")


def test_token_that_the_registry_refuses_is_the_registrys_fault(serve):
    """Its clock or its certificate, not the user's login."""
    bad = Reply(
        401,
        {},
        headers={"WWW-Authenticate": 'Bearer realm="http://127.0.0.1/",error="invalid_token"'},
    )
    server = serve(steps={"HEAD .*": lambda _: bad})
    assert says(check(server), "registry-error", "own token server")


@pytest.mark.parametrize(
    "token", [{"token": ""}, {"token": 7}, {"token": "a\r\nb: c"}, {}, [], "x"]
)
def test_token_that_is_none_is_told(serve, token):
    """Whatever a broken token server sends, there is a line for it."""
    server = serve(steps={"GET /token": lambda _: Reply(200, token)})
    assert check(server).cause in ("registry-error", "not-a-registry")


def test_unknown_way_of_logging_in_is_told(serve):
    """Docker knows two."""
    reply = Reply(401, {}, headers={"WWW-Authenticate": "Negotiate"})
    assert says(check(serve(steps={"GET /v2/": lambda _: reply})), "not-a-registry", "login")


@pytest.mark.parametrize("login", ["bearer", "basic", "none"])
def test_login_alone_is_checked_as_docker_login_does(serve, login):
    """Who changes a password has no image at hand."""
    server = serve(login=login)
    assert says(registry.check_login(server.host, ADA), "ok", "login")
    assert not any("scope" in request.query for request in server.requests)
    if login != "none":
        assert says(registry.check_login(server.host, Credentials("ada", "wrong")), "wrong-login")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://a/b?c=d,e",service="x"'],
            {"bearer": {"realm": "https://a/b?c=d,e", "service": "x"}},
        ),
        (
            ['Basic realm="x, Bearer y", Bearer realm="z"'],
            {"basic": {"realm": "x, Bearer y"}, "bearer": {"realm": "z"}},
        ),
        (["Negotiate, BASIC realm=plain"], {"negotiate": {}, "basic": {"realm": "plain"}}),
        (['Bearer realm="a\\"b"', "Basic"], {"bearer": {"realm": 'a"b'}, "basic": {}}),
        (['bearer Realm = "a" , scope = "b c"'], {"bearer": {"realm": "a", "scope": "b c"}}),
        ([], {}),
        ([""], {}),
        (['="'], {}),
    ],
)
def test_challenges_are_read_as_the_grammar_says(headers, expected):
    """Commas and quotes inside quotes, several challenges, any case."""
    assert challenges(headers) == expected


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
    assert says(verdict, "no-tag", "push it first")
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


def single(configuration: object, kind: str = CONFIG) -> dict[str, object]:
    """Return options of a registry with one manifest that is not an index."""
    digest = "sha256:" + "a" * 64
    manifest = {
        "schemaVersion": 2,
        "config": {"mediaType": kind, "digest": digest},
        "layers": [{"digest": "sha256:" + "b" * 64}],
    }
    return {"images": {"lab/align": {"3": manifest}}, "blobs": {digest: configuration}}


@pytest.mark.parametrize(
    ("configuration", "architecture"),
    [
        ({"architecture": "amd64", "os": "linux"}, "amd64"),
        ({"architecture": "amd64", "os": "windows"}, "windows/amd64"),
        ({"architecture": "arm", "os": "linux", "variant": "v7"}, "arm/v7"),
        ({"os": "linux"}, ""),
        ([], ""),
        ({"architecture": ["\x1b[31m"], "os": "linux"}, ""),
    ],
)
def test_single_manifest_tells_its_architecture_in_its_configuration(
    serve, configuration, architecture
):
    """One small blob is read for that, and no layer."""
    server = serve(**single(configuration))
    verdict = check(server, architectures=("amd64",))
    assert says(verdict, "ok" if architecture in ("amd64", "") else "wrong-architecture")
    assert verdict.details["architectures"] == architecture
    assert not any("b" * 64 in path for path in server.paths())


def test_chart_is_not_an_image(serve):
    """Registries keep other things too."""
    server = serve(**single({}, "application/vnd.cncf.helm.config.v1+json"))
    assert says(check(server), "not-an-image")


def test_lost_configuration_is_told(serve):
    """The pull would fail at the same place."""
    server = serve(**single({}), steps={"GET .*/blobs/.*": lambda _: Reply(404, {})})
    assert says(check(server), "incomplete", "push the image again")


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
    server = serve(steps={"HEAD .*": lambda _: Reply(429, b"", headers=headers)})
    verdict = check(server)
    assert says(verdict, "rate-limited", "(0 of 200 left)", "in 9 min")
    assert verdict.details == {"remaining": "0 of 200", "retry_after": "540"}
    assert "give a login" not in verdict.text
    assert says(check(server, "lab/open:3", None), "rate-limited", "give a login")


def test_nothing_left_is_the_limit_before_a_pull_runs_into_it(serve):
    """HEAD is not counted, and tells: the GET would be refused."""
    server = serve(extra={**HUB_LIMIT, "ratelimit-remaining": "0;w=21600"})
    assert says(check(server), "rate-limited", "0 of 200")
    assert not any(path.startswith("GET /v2/lab") for path in server.paths())


@pytest.mark.parametrize("step", ["GET /v2/", "GET /token", "HEAD .*", "GET /v2/.*/manifests/.*"])
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
    server = serve(steps={"HEAD .*": lambda _: Reply(429, b"", headers={"Retry-After": value})})
    assert says(check(server), "rate-limited", "try again later")


def test_other_registries_limits_are_not_pulls(serve):
    """GitLab counts requests a minute under the same names."""
    verdict = check(serve(extra={"RateLimit-Limit": "60", "RateLimit-Remaining": "0"}))
    assert says(verdict, "ok")
    assert "remaining" not in verdict.details


# --- what is in the way ---------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["GET /v2/", "GET /token", "HEAD .*", "GET /v2/.*/manifests/.*"])
@pytest.mark.parametrize(
    "way",
    [
        raising(Hang),
        lambda _: Reply(200, b" " * 1000, pause=0.05),
        lambda _: Reply(200, b"", head_pause=0.2),
    ],
    ids=["silent", "byte by byte", "head"],
)
def test_hanging_server_costs_no_more_than_the_time_given(serve, step, way):
    """Even where it sends a byte now and then, which no time-out of a socket notices."""
    server = serve(steps={step: way})
    began = time.monotonic()
    verdict = check(server, seconds=0.4)
    assert time.monotonic() - began < 0.8
    if not (step == "HEAD .*" and verdict.cause == "ok"):  # a HEAD has no bytes to wait for
        assert says(verdict, "unreachable", server.host, "did not answer within 0.4 s")
    for thread in threading.enumerate():
        if thread.name.startswith("check "):
            thread.join(0.5)
            assert not thread.is_alive()


def test_wait_ends_although_a_name_is_still_looked_up():
    """The standard library cannot stop that; the thread is left behind."""
    answered = threading.Event()
    began = time.monotonic()
    verdict = registry._start(parse("ghcr.io/lab/align"), 0.2, lambda _: answered.wait(5))()
    assert time.monotonic() - began < 0.6
    assert says(verdict, "unreachable", "ghcr.io did not answer within 0.2 s")
    answered.set()


def test_several_checks_go_side_by_side(serve):
    """Ten images of a silent registry cost the time of one."""
    server = serve(steps={".*": raising(Hang)})
    began = time.monotonic()
    waits = [
        registry.start(parse(f"{server.host}/lab/align:{tag}"), ADA, seconds=0.4)
        for tag in range(10)
    ]
    assert {wait().cause for wait in waits} == {"unreachable"}
    assert time.monotonic() - began < 1


def test_unreachable_registry_is_told(serve):
    """Nobody listens; nobody has the name; the line breaks."""
    with RegistryServer() as gone:
        pass
    assert says(check(gone), "unreachable", "refuses the connection")
    verdict = registry.check(parse("registry.invalid/lab/align:3"), ADA)
    assert says(verdict, "unreachable", "no host registry.invalid")
    assert says(check(serve(steps={".*": raising(Reset)})), "unreachable")
    assert says(registry.check(parse("127.0.0.1:99999/lab/align:3"), ADA), "not-a-registry")


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, b"<html>", "text/html"),
        Reply(404, b"<html>", "text/html; charset=utf-8"),
        Reply(404, b"404 page not found", "text/plain"),
        Reply(403, b"<html>", "text/html"),
    ],
)
def test_website_is_not_a_registry(serve, reply):
    """The host is wrong, or a portal is in the way."""
    server = serve(steps={"GET /v2/": lambda _: reply})
    assert says(check(server), "not-a-registry", server.host)
    assert [request.basic for request in server.requests] == [None]


def test_website_behind_a_registry_is_told(serve):
    """A gateway may know /v2/ and nothing else."""
    page = Reply(200, b"<html>", "text/html")
    assert says(check(serve(steps={".*/manifests/.*": lambda _: page})), "not-a-registry")


@pytest.mark.parametrize("step", ["GET /v2/", "GET /token", "GET /v2/.*/manifests/.*"])
def test_trouble_of_the_registry_is_told(serve, step):
    """Not the user's fault, and worth another try."""
    server = serve(steps={step: lambda _: Reply(503, b"<html>", "text/html")})
    assert says(check(server), "registry-error", "HTTP 503")


def test_refused_network_is_told(serve):
    """An allow-list of addresses answers before any login."""
    server = serve(steps={"GET /v2/": lambda _: Reply(403, {})})
    assert says(check(server), "blocked", "this network")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("hub.docker.com/r/lab/align:3", "write lab/align:3."),
        ("registry.hub.docker.com/lab/align", "write lab/align."),
        ("docker.com/lab/align", "write lab/align."),
        ("www.docker.io/library/python:3", "write library/python:3."),
    ],
)
def test_docker_hub_spelt_wrongly_is_told(name, right):
    """The agent finds no login for these, even where they can be pulled without one."""
    assert says(registry.check(parse(name), ADA), "hub-misspelt", right)


def test_host_in_capitals_is_told():
    """The agent compares letter by letter."""
    assert says(
        registry.check(parse("GHCR.io/lab/align:3"), ADA), "host-case", "write ghcr.io/lab/align:3."
    )


# --- where a login may go -------------------------------------------------------------------------


def test_login_does_not_follow_a_redirect_to_another_host(serve):
    """Blobs mostly lie with somebody else, who gets neither the password nor the token."""
    with RegistryServer(address="127.0.0.2") as other:
        other.steps[".*"] = lambda _: Reply(200, {"architecture": "amd64", "os": "linux"})
        away = Reply(307, b"", headers={"Location": f"{other.url}/blob?signature=x"})
        for login in ("bearer", "basic"):
            server = serve(**single({}), login=login, steps={"GET .*/blobs/.*": lambda _: away})
            assert says(check(server), "ok", "amd64")
            assert "authorization" in server.requests[-1].headers
        away = Reply(302, b"", headers={"Location": f"{other.url}/v2/"})
        check(serve(steps={"GET /token": lambda _: away}))
        check(serve(login="basic", steps={"HEAD .*": lambda _: away}))
    assert len(other.requests) >= 4
    assert not any("authorization" in request.headers for request in other.requests)


def test_login_does_not_come_back_after_a_redirect(serve):
    """Whoever it was sent to could send it on, with a path of his choice."""
    server = serve(login="basic")
    with RegistryServer(address="127.0.0.2") as other:
        other.steps[".*"] = lambda _: Reply(302, b"", headers={"Location": f"{server.url}/stolen"})
        away = Reply(302, b"", headers={"Location": f"{other.url}/"})
        server.steps["HEAD /v2/.*"] = lambda _: away
        check(server)
    (stolen,) = (request for request in server.requests if request.path == "/stolen")
    assert "authorization" not in stolen.headers


@pytest.mark.parametrize("place", ["http://[::", "https://a b/", "http://example.com/", "//"])
def test_redirect_to_nowhere_is_told(serve, place):
    """Nor is one followed from TLS, or from this machine, to where there is none."""
    server = serve(steps={"GET /v2/": lambda _: Reply(301, b"", headers={"Location": place})})
    assert check(server).cause in ("no-tls", "not-a-registry")


def test_redirects_in_a_circle_end(serve):
    """They would never."""
    server = serve(steps={"GET /v2/": lambda _: Reply(301, b"", headers={"Location": "/v2/"})})
    assert says(check(server), "not-a-registry", "circle")


@pytest.mark.parametrize(
    "place",
    [
        "http://registry.example.com/token",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://[::",
        "https://a b/",
        "//",
        "http://127.0.0.1.evil.example/",
    ],
)
def test_login_goes_to_no_token_server_that_others_can_read(serve, place):
    """TLS, or this machine; nothing is sent where neither holds."""
    server = serve(realm=place)
    assert check(server).cause in ("no-tls", "not-a-registry")
    assert server.paths() == ["GET /v2/"]


# --- TLS, names, proxies: a registry elsewhere ----------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Iterator[Callable[..., RegistryServer]]:
    """Start a registry with TLS that is reached, under any name, through a proxy alone."""
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    with ExitStack() as servers:

        def start(*names: str, trusted: bool = True, **options: object) -> RegistryServer:
            path = certificate(tmp_path / "cert.pem", ",".join(f"DNS:{name}" for name in names))
            settings = {
                "users": {"ada": PASSWORD},
                "rights": {"ada": {"lab/align"}},
                "images": IMAGES,
                **options,
            }
            server = servers.enter_context(RegistryServer(certificate=path, **settings))
            server.proxy = servers.enter_context(Proxy(server.host))
            monkeypatch.setenv("HTTPS_PROXY", server.proxy.url)
            if trusted:
                monkeypatch.setenv("SSL_CERT_FILE", str(path))
            return server

        yield start


def test_registry_elsewhere_is_spoken_to_with_tls_through_the_proxy(elsewhere):
    """As Docker does, and as people behind a proxy need it."""
    server = elsewhere("registry.example.com", realm="https://registry.example.com/token")
    verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
    assert says(verdict, "ok", "amd64, arm64")
    assert set(server.proxy.asked) == {("registry.example.com:443", "")}


def test_docker_hub_is_asked_where_it_lives(elsewhere):
    """Its images have other names than its registry and its token server."""
    server = elsewhere(
        "registry-1.docker.io",
        "auth.docker.io",
        login="bearer",
        realm="https://auth.docker.io/token",
        extra=HUB_LIMIT,
        rights={"": {"library/python"}},
        images={"library/python": {"latest": index("linux/amd64")}},
    )
    verdict = registry.check(parse("python"), None)
    assert says(verdict, "ok", "amd64", "87 of 200 pulls left")
    assert {host for host, _ in server.proxy.asked} == {
        "registry-1.docker.io:443",
        "auth.docker.io:443",
    }
    assert says(
        registry.check(parse("docker.io/lab/align:3"), None),
        "login-needed",
        "Docker Hub does not let everybody pull lab/align",
    )


def test_token_server_without_tls_gets_no_login(elsewhere):
    """Not even on this machine, where somebody else may listen: the registry is elsewhere."""
    for realm in ("http://registry.example.com/token", "http://127.0.0.1:1/token"):
        elsewhere("registry.example.com", realm=realm)
        verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
        assert says(verdict, "no-tls", "without TLS")


def test_untrusted_certificate_is_told(elsewhere):
    """Self-signed ones work on no instance."""
    server = elsewhere("registry.example.com", trusted=False)
    verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
    assert says(verdict, "tls", "self-signed certificate", "SSL_CERT_FILE")
    assert not server.requests
    assert says(check(server), "tls", "self-signed certificate")


def test_certificate_for_another_name_is_told(elsewhere):
    """Renamed hosts have the old one."""
    server = elsewhere("old.example.com")
    verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
    assert says(verdict, "tls", "not valid for 'registry.example.com'")
    assert not server.requests


def test_registry_elsewhere_without_tls_is_told(serve, monkeypatch):
    """No instance would pull from there; nothing is sent in clear."""
    server = serve(steps={".*": raising(Reset)})
    with Proxy(server.host) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA, seconds=1)
    assert verdict.cause in ("tls", "unreachable")
    assert not server.requests


def test_proxy_that_refuses_is_told(monkeypatch):
    """Else the registry would be blamed; the proxy's password is for the proxy alone."""
    with Proxy("", status=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
        verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
        assert says(verdict, "unreachable", "proxy does not let us through")
        assert proxy.asked == [("registry.example.com:443", "Basic bWU6cEBzcw==")]
        monkeypatch.setenv("NO_PROXY", "example.com")
        assert says(
            registry.check(parse("registry.example.com/lab/align:3"), ADA),
            "unreachable",
            "no host registry.example.com",
        )
        assert len(proxy.asked) == 1


# --- what is never shown --------------------------------------------------------------------------


def test_login_has_no_repr():
    """Tracebacks of other tools print locals."""
    assert repr(ADA) == "Credentials()"


@pytest.mark.parametrize("status", [200, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_login_that_a_registry_sends_back_is_not_passed_on(serve, status, login):
    """Its words are its own: any of them might be the password."""
    secrets = ("canary", "Y2FuYXJ5", "ada", "YWRhO")

    def echo(request: Request) -> Reply | None:
        if "authorization" not in request.headers:
            return None
        said = f"ada {PASSWORD} {request.headers['authorization']}"
        headers = {
            "WWW-Authenticate": f'Bearer realm="http://127.0.0.1/{PASSWORD}",error="{said}"',
            "Retry-After": said,
            "ratelimit-limit": said,
            "ratelimit-remaining": said,
            "Link": f"<{said}>",
        }
        return Reply(
            status,
            {
                "errors": [{"code": said, "message": said}],
                "token": said,
                "config": {"mediaType": said, "digest": said},
            },
            headers=headers,
        )

    verdict = check(serve(login=login, steps={".*": echo}))
    assert not verdict.ok
    assert not [secret for secret in secrets if secret in repr(verdict).lower()]


def test_bug_shows_no_login(serve):
    """A traceback is what people paste into an issue."""
    with pytest.raises(TypeError) as caught:
        check(serve(), architectures=7)
    shown = "".join(traceback.format_exception(caught.value))
    assert "registry/pull.py" in shown
    assert "canary" not in shown
    assert "ada" not in json.dumps(shown)

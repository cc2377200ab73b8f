"""What is in the way between here and a registry: one cause, one line, within the time."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from checks import ADA, HUB_LIMIT, IMAGES, PASSWORD, check, says
from registry_server import Hang, Proxy, RegistryServer, Reply, Reset, index, raising
from secrets_server import certificate

from batchreg.registry import check as registry
from batchreg.registry.images import parse
from batchreg.registry.problems import unknown_host
from batchreg.registry.proxies import bypasses

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
    assert says(check(gone), "unreachable", "refused the connection")
    verdict = registry.check(parse("registry.invalid/lab/align:3"), ADA)
    assert says(verdict, "unreachable", "cannot find a host named registry.invalid")
    assert "Did you mean" not in verdict.step
    assert says(check(serve(steps={".*": raising(Reset)})), "unreachable")
    assert says(registry.check(parse("127.0.0.1:99999/lab/align:3"), ADA), "not-a-registry")


def test_host_that_is_nearly_a_known_one_is_named():
    """Nobody reads gchr.io twice; a known host that this machine cannot find is spelled right."""
    assert "Did you mean gcr.io or ghcr.io?" in unknown_host("gchr.io").step
    assert "Did you mean quay.io?" in unknown_host("quai.io").step
    for host in ("ghcr.io", "registry.example.com", "gitlab.example.org"):
        assert unknown_host(host).step.startswith("Check the spelling")


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
    assert {request.basic for request in server.requests} == {None}


def test_website_behind_a_registry_is_told(serve):
    """A gateway may know /v2/ and nothing else."""
    page = Reply(200, b"<html>", "text/html")
    assert says(check(serve(steps={".*/manifests/.*": lambda _: page})), "not-a-registry")


@pytest.mark.parametrize("step", ["GET /v2/", "GET /token", "GET /v2/.*/manifests/.*"])
def test_trouble_of_the_registry_is_told(serve, step):
    """Not the user's fault, and worth another try."""
    server = serve(steps={step: lambda _: Reply(503, b"<html>", "text/html")})
    assert says(check(server), "registry-error", "HTTP 503")


@pytest.mark.parametrize(
    ("value", "when"), [("60", "in 60 s"), ("600", "in 10 min"), ("", "later")]
)
def test_trouble_is_told_with_when_it_ends(serve, value, when):
    """Maintenance has an end, which some registries give."""
    server = serve(steps={".*": lambda _: Reply(503, b"", headers={"Retry-After": value})})
    verdict = check(server)
    assert says(verdict, "registry-error", "HTTP 503", f"Try again {when}, or contact")
    assert verdict.details == ({"retry_after": value} if value else {})


def test_host_of_the_content_that_refuses_is_named(serve):
    """An endpoint's policy may let no bucket through but our own."""
    with RegistryServer(address="127.0.0.2") as other:
        other.steps[".*"] = lambda _: Reply(403, b"<Error/>", "application/xml")
        away = Reply(307, b"", headers={"Location": f"{other.url}/bucket?signature=x"})
        server = serve(steps={"GET .*/blobs/.*": lambda _: away})
        assert says(check(server), "blocked", f"{other.host}, where {server.host} keeps")


def test_registry_that_moved_is_named(serve):
    """Docker sends credentials where GET /v2/ has led, and nowhere else."""
    with RegistryServer(address="127.0.0.2", users={"ada": PASSWORD}) as other:
        away = Reply(301, b"", headers={"Location": f"{other.url}/v2/"})
        server = serve(steps={"GET /v2/": lambda _: away})
        assert says(check(server), "registry-error", f"redirects /v2/ to {other.host}")


def test_refused_network_is_told(serve):
    """An allow-list of addresses answers before any login."""
    server = serve(steps={"GET /v2/": lambda _: Reply(403, {})})
    assert says(check(server), "blocked", "this network")


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("hub.docker.com/r/lab/align:3", "Write lab/align:3."),
        ("registry.hub.docker.com/lab/align", "Write lab/align."),
        ("docker.com/lab/align", "Write lab/align."),
        ("www.docker.io/library/python:3", "Write library/python:3."),
    ],
)
def test_docker_hub_spelt_wrongly_is_told(name, right):
    """The agent finds no login for these, even where they can be pulled without one."""
    assert says(registry.check(parse(name), ADA), "hub-misspelt", right)


def test_host_in_capitals_is_told():
    """The agent compares letter by letter."""
    assert says(
        registry.check(parse("GHCR.io/lab/align:3"), ADA), "host-case", "Write ghcr.io/lab/align:3."
    )


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
        "lab/align on Docker Hub is private or does not exist",
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


def test_proxy_that_is_down_is_told(monkeypatch):
    """The registry is not to blame; the proxy's password is not shown."""
    with Proxy("") as gone:
        pass
    monkeypatch.setenv("HTTPS_PROXY", gone.url.replace("//", "//me:canary@"))
    verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
    proxy = gone.url.removeprefix("http://")
    assert says(verdict, "unreachable", f"The proxy {proxy} cannot be reached.", "NO_PROXY")
    assert "canary" not in repr(verdict)


def test_kind_of_proxy_that_is_not_supported_is_told(monkeypatch):
    """Docker knows more kinds; nothing is sent to one of those in clear."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:canary@127.0.0.1:1")
    verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
    assert says(verdict, "unreachable", "of the kind socks5://", "http:// proxy")
    assert "canary" not in repr(verdict)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "expected"),
    [
        ("example.com", "example.com", 443, True),
        ("example.com", "a.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        (".example.com", "example.com", 443, False),
        (".example.com", "a.example.com", 443, True),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("example.com:5000", "example.com", 443, False),
        ("example.com:5000", "example.com", 5000, True),
        ("a.io , EXAMPLE.com,", "example.com", 443, True),
        ("*", "example.com", 443, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "10.example.com", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("10.1.2.3:5000", "10.1.2.3", 443, False),
        ("2.3", "10.1.2.3", 443, False),
        ("fd00::/8,[fd00::1]:5000", "fd00::1", 443, True),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("fd00::1", "fd00::1", 443, True),
        ("nonsense/8", "example.com", 443, False),
        ("", "example.com", 443, False),
    ],
)
def test_no_proxy_is_read_as_docker_reads_it(no_proxy, host, port, expected):
    """Domains, addresses and networks, each with a port or for all of them."""
    assert bypasses(no_proxy, host, port) == expected


def test_proxy_that_refuses_is_told(monkeypatch):
    """Else the registry would be blamed; the proxy's password is for the proxy alone."""
    with Proxy("", status=407) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:p%40ss@"))
        verdict = registry.check(parse("registry.example.com/lab/align:3"), ADA)
        assert says(verdict, "unreachable", "proxy does not allow connections to")
        assert proxy.asked == [("registry.example.com:443", "Basic bWU6cEBzcw==")]
        monkeypatch.setenv("NO_PROXY", "example.com")
        assert says(
            registry.check(parse("registry.example.com/lab/align:3"), ADA),
            "unreachable",
            "cannot find a host named registry.example.com",
        )
        assert len(proxy.asked) == 1

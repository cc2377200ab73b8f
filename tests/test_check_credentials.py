"""Which credentials go where, and what a registry's refusal means."""

from __future__ import annotations

import base64
import json
import re
import traceback

import pytest
from checks import ADA, IMAGES, PASSWORD, check, says
from registry_server import RegistryServer, Reply, Request

from batchreg.registry import check as registry
from batchreg.registry.answers import challenges
from batchreg.registry.logins import Credentials

# --- logging in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_bearer_token_is_fetched_as_docker_does(serve, field):
    """The scope names the repository, the login goes to the token server and nowhere else."""
    server = serve(token_field=field)
    verdict = check(server)
    assert says(verdict, "ok", "amd64, arm64", "with these credentials")
    assert verdict.details == {"architectures": "amd64, arm64"}
    assert [re.sub("[0-9a-f]{64}", "...", path) for path in server.paths()] == [
        "GET /v2/",
        "GET /token",
        "HEAD /v2/lab/align/manifests/3",
        "GET /v2/lab/align/manifests/sha256:...",  # the index
        "GET /v2/lab/align/manifests/sha256:...",  # the image for this architecture
        "GET /v2/lab/align/blobs/sha256:...",  # its configuration
    ]
    token = server.requests[1]
    assert token.query == {
        "service": 'lab, the "registry"',
        "scope": "repository:lab/align:pull",
        "account": "ada",
    }
    basics = [request.basic for request in server.requests]
    assert basics == [None, ("ada", PASSWORD), None, None, None, None]
    assert all(request.bearer for request in server.requests[2:])
    assert server.connections == 1


def test_basic_credentials_are_sent_as_docker_does(serve):
    """With each request but the first; a refusal is asked about at /v2/, as by `docker login`."""
    server = serve(login="basic")
    assert says(check(server), "ok", "with these credentials")
    basics = [request.basic for request in server.requests]
    assert basics == [None, *[("ada", PASSWORD)] * (len(basics) - 1)]
    assert server.paths()[:2] == ["GET /v2/", "HEAD /v2/lab/align/manifests/3"]
    check(server, "other/align:3")
    assert server.paths()[-1] == "GET /v2/"


def test_registry_without_logins_is_not_sent_one(serve):
    """Docker sends a login only where it is asked for."""
    server = serve(login="none")
    assert says(check(server), "ok", "no credentials required")
    assert not any("authorization" in request.headers for request in server.requests)


def test_public_image_needs_no_login(serve):
    """Everybody gets a token for what is public."""
    assert says(check(serve(), "lab/open:3", None), "ok", "without credentials")


def test_registry_that_asks_late_gets_no_credentials(serve):
    """Docker sends some only where GET /v2/ asks for them, so no instance could pull."""
    server = serve(steps={"GET /v2/": lambda _: Reply(200, {})})
    assert says(check(server), "registry-error", "does not ask for them at /v2/")
    assert not any("authorization" in request.headers for request in server.requests)


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_wrong_login_is_told(serve, login):
    """The most frequent cause of all."""
    server = serve(login=login)
    assert says(
        check(server, credentials=Credentials("ada", "wrong")),
        "wrong-login",
        "rejects these credentials",
    )


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_missing_right_is_not_a_wrong_login(serve, login):
    """A new password would not help."""
    server = serve(login=login, images={"other/align": IMAGES["lab/align"]})
    assert says(
        check(server, "other/align:3"), "no-right", "other/align", "accepts these credentials"
    )


@pytest.mark.parametrize("login", ["bearer", "basic"])
def test_private_image_without_a_login_asks_for_one(serve, login):
    """Nobody claims that a login was wrong when there was none."""
    assert says(check(serve(login=login), credentials=None), "login-needed", "Provide credentials")


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
    assert says(check(server, credentials=Credentials("ada", "wrong")), "wrong-login")
    assert says(check(server, credentials=None), "login-needed")


def test_token_for_a_wrong_login_is_found_out(serve):
    """Harbor gives one to everybody, and then refuses it."""
    nobody = Reply(200, {"token": base64.b64encode(b'[null, ""]').decode()})

    def harbor(request: Request) -> Reply | None:
        return None if request.basic == ("ada", PASSWORD) else nobody

    server = serve(steps={"GET /token": harbor})
    assert says(check(server, credentials=Credentials("ada", "wrong")), "wrong-login")
    assert says(check(server, "other/align:3"), "no-right")


def test_token_that_the_registry_refuses_is_the_registrys_fault(serve):
    """Its clock or its certificate, not the user's login."""
    bad = Reply(
        401,
        {},
        headers={"WWW-Authenticate": 'Bearer realm="http://127.0.0.1/",error="invalid_token"'},
    )
    server = serve(steps={".*/manifests/.*": lambda _: bad})
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
    assert says(check(serve(steps={"GET /v2/": lambda _: reply})), "not-a-registry", "credentials")


@pytest.mark.parametrize("login", ["bearer", "basic", "none"])
def test_login_alone_is_checked_as_docker_login_does(serve, login):
    """Who changes a password has no image at hand."""
    server = serve(login=login)
    assert says(registry.check_login(server.host, ADA), "ok", "credentials")
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
        (['Basic realm="x, Bearer y", Bearer realm="z"'], {"basic": {"realm": "x, Bearer y"}}),
        (["Negotiate, BASIC realm=plain"], {"negotiate": {}}),
        (["Negotiate", "BASIC realm=plain"], {"negotiate": {}, "basic": {"realm": "plain"}}),
        (['Bearer realm="a\\"b"', "Basic"], {"bearer": {"realm": 'a"b'}, "basic": {}}),
        (['bearer Realm="a" , scope="b c"'], {"bearer": {"realm": "a", "scope": "b c"}}),
        (['bearer realm = "a"'], {"bearer": {}}),
        (["bearer realm=https://a,service=x"], {"bearer": {"realm": "https"}}),
        ([], {}),
        ([""], {}),
        (['="'], {}),
    ],
)
def test_challenges_are_read_as_docker_reads_them(headers, expected):
    """Commas and quotes inside quotes, any case; one challenge a header, no blanks around =."""
    assert challenges(headers) == expected


# --- where a login may go -------------------------------------------------------------------------


def test_credentials_do_not_follow_a_redirect_to_another_host(serve):
    """Blobs mostly lie with somebody else, who gets neither the password nor the token."""
    with RegistryServer(address="127.0.0.2", login="none", images=IMAGES) as other:

        def away(request: Request) -> Reply:
            return Reply(307, b"", headers={"Location": f"{other.url}{request.path}?signature=x"})

        for login in ("bearer", "basic"):
            server = serve(login=login, steps={"GET .*/blobs/.*": away})
            assert says(check(server), "ok", "amd64")
            assert "authorization" in server.requests[-1].headers
        check(serve(steps={"GET /token": away}))
        check(serve(login="basic", steps={"HEAD .*": away}))
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

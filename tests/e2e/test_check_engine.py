"""`batchreg check` and the Docker Engine, asked for the same image: they must agree.

If check says yes the engine can pull, and if check says no it cannot; an intended difference has
its reason beside it. The engine is Debian's, the registry is as wrong as each line says.
"""

from __future__ import annotations

import json
import platform

import pytest
from behaviors import (
    ATTESTATION,
    BIG,
    BLOBS,
    BY_DIGEST,
    CONFIG_BLOB,
    DOCKER,
    DOCKER_CONFIG,
    DOCKER_LAYER,
    DOCKER_LIST,
    GET,
    HEAD,
    HELM,
    HTML,
    LINUX,
    MACHINE,
    MANIFESTS,
    NOT_ADA,
    OTHER,
    PING,
    TOKEN,
    WINDOWS,
    Behavior,
    body,
    both,
    challenge,
    changed,
    configured,
    harbor,
    headers,
    nested,
    other_login,
    pulled,
    redirected,
    say,
    status,
    token,
    twice,
    zipped,
)
from registry_server import INDEX, LAYER, MANIFEST, RegistryServer, Reply

from batchreg.registry import check as registry
from batchreg.registry.images import parse

BEHAVIORS = [
    # --- logging in ---
    Behavior("bearer"),
    Behavior("basic", login="basic"),
    Behavior("no authentication", login="none"),
    Behavior("no authentication, no credentials", login="none", credentials=None),
    Behavior("a public image without credentials", credentials=None, repository="lab/open"),
    Behavior("a private image without credentials", "login-needed", credentials=None),
    Behavior("basic without credentials", "login-needed", credentials=None, login="basic"),
    Behavior("bearer, wrong password", "wrong-login", credentials=NOT_ADA),
    Behavior("basic, wrong password", "wrong-login", credentials=NOT_ADA, login="basic"),
    Behavior("bearer, no permission", "no-right", repository="other/align"),
    Behavior("basic, no permission", "no-right", repository="other/align", login="basic"),
    Behavior("a token for a wrong password", "wrong-login", credentials=NOT_ADA, setup=harbor),
    # --- GET /v2/ ---
    Behavior("/v2/ is open, the manifest is not", "registry-error", steps={PING: say(200, {})}),
    Behavior("/v2/ is open, basic", "registry-error", login="basic", steps={PING: say(200, {})}),
    Behavior(
        "/v2/ is open, without credentials",
        "registry-error",
        credentials=None,
        steps={PING: say(200, {})},
    ),
    Behavior("/v2/ is not found, the image is", login="none", steps={PING: say(404)}),
    Behavior("/v2/ is forbidden, the image is not", login="none", steps={PING: say(403, {})}),
    Behavior("all is forbidden", "blocked", steps={".*": say(403, {})}),
    Behavior("/v2/ fails, the image is there", login="none", steps={PING: say(500)}),
    Behavior("/v2/ is a page", login="none", steps={PING: say(200, HTML, "text/html")}),
    Behavior("/v2/ is a page, 401", setup=headers(PING, Content_Type="text/html")),
    Behavior("all are pages", "not-a-registry", steps={".*": say(200, HTML, "text/html")}),
    Behavior("/v2/ is too busy", login="none", steps={PING: say(429)}),
    Behavior("all is too busy", "rate-limited", steps={".*": say(429)}),
    Behavior(
        "all is down for a minute", "registry-error", steps={".*": say(503, Retry_After="60")}
    ),
    Behavior(
        "/v2/ moved on the same host",
        "not-a-registry",
        setup=redirected(PING, "/v2/there/", away=False),
    ),
    Behavior("/v2/ moved to another host", "registry-error", setup=redirected(PING)),
    Behavior("all moved to another host", setup=redirected(".* /v2/.*")),
    Behavior("all moved, basic", setup=both(redirected(".* /v2/.*"), other_login("basic"))),
    Behavior("all moved, open", setup=both(redirected(".* /v2/.*"), other_login("none"))),
    Behavior("301", setup=both(redirected(".* /v2/.*", status=301), other_login("none"))),
    Behavior("/v2/ goes in a circle", "not-a-registry", steps={PING: say(301, Location="/v2/")}),
    # --- the challenge ---
    Behavior("no challenge", "not-a-registry", steps={PING: say(401, {})}),
    Behavior("no challenge, open image", login="none", steps={PING: say(401, {})}),
    Behavior("an unknown challenge", "not-a-registry", setup=challenge("Negotiate")),
    Behavior("an unknown challenge, open", login="none", setup=challenge("Negotiate")),
    Behavior("basic in lower case", login="basic", setup=challenge('basic realm="x"')),
    Behavior("bearer in capitals", setup=challenge('BEARER realm="{}",service="x"')),
    Behavior(
        "a realm without quotes", "not-a-registry", setup=challenge("Bearer realm={},service=x")
    ),
    Behavior("bearer without a service", setup=challenge('Bearer realm="{}"')),
    Behavior("bearer without a realm", "not-a-registry", setup=challenge('Bearer service="x"')),
    Behavior(
        "blanks in a challenge",
        "not-a-registry",
        setup=challenge('Bearer  realm = "{}" , service = "x"'),
    ),
    Behavior("bearer and basic in one line", setup=challenge('Bearer realm="{}", Basic realm="x"')),
    Behavior(
        "basic and bearer in one line",
        "wrong-login",
        setup=challenge('Basic realm="x", Bearer realm="{}"'),
    ),
    Behavior(
        "bearer and basic", "wrong-login", setup=challenge('Bearer realm="{}"', 'Basic realm="x"')
    ),
    Behavior(
        "basic and bearer", "wrong-login", setup=challenge('Basic realm="x"', 'Bearer realm="{}"')
    ),
    Behavior(
        "bearer and basic, anonymous",
        "login-needed",
        credentials=None,
        repository="lab/open",
        setup=challenge('Bearer realm="{}"', 'Basic realm="x"'),
    ),
    Behavior("unknown and bearer", setup=challenge("Negotiate", 'Bearer realm="{}"')),
    Behavior("a realm with a query", setup=challenge('Bearer realm="{}?tenant=1",service="x"')),
    Behavior(
        "a realm without a host",
        "not-a-registry",
        setup=challenge('Bearer realm="/token",service="x"'),
    ),
    # --- the token server ---
    Behavior("a token with status 201", setup=status(201, TOKEN)),
    Behavior("a token with status 202", setup=status(202, TOKEN)),
    Behavior("a token with status 300", setup=status(300, TOKEN)),
    Behavior("expires_in", setup=token(expires_in=300, issued_at="2026-01-01T00:00:00Z")),
    Behavior("expires_in as a string", "registry-error", setup=token(expires_in="300")),
    Behavior("expires_in with a fraction", "registry-error", setup=token(expires_in=300.5)),
    Behavior(
        "expires_in 300.0",
        "registry-error",
        setup=body(TOKEN, lambda b: json.dumps(b)[:-1].encode() + b',"expires_in":300.0}'),
    ),
    Behavior("expires_in null", setup=token(expires_in=None, issued_at=None)),
    Behavior("expires_in 0", setup=token(expires_in=0)),
    Behavior("expires_in negative", setup=token(expires_in=-5)),
    Behavior("expires_in huge", "registry-error", setup=token(expires_in=1 << 64)),
    Behavior("issued_at in words", "registry-error", setup=token(issued_at="today")),
    Behavior("issued_at a number", "registry-error", setup=token(issued_at=1700000000)),
    Behavior("issued_at empty", "registry-error", setup=token(issued_at="")),
    Behavior("refresh_token a number", "registry-error", setup=token(refresh_token=1)),
    Behavior("access_token alone", setup=body(TOKEN, lambda b: {"access_token": b["token"]})),
    Behavior(
        "access_token and an empty token",
        setup=body(TOKEN, lambda b: {"access_token": b["token"], "token": ""}),
    ),
    Behavior(
        "access_token wrong, token right", "wrong-login", setup=token(access_token="bm9ib2R5")
    ),
    Behavior("Token in capitals", setup=body(TOKEN, lambda b: {"TOKEN": b["token"]})),
    Behavior("an empty token", "registry-error", steps={TOKEN: say(200, {"token": ""})}),
    Behavior("a token that is a number", "registry-error", steps={TOKEN: say(200, {"token": 7})}),
    Behavior(
        "a token with a line break", "registry-error", steps={TOKEN: say(200, {"token": "a\nb"})}
    ),
    Behavior("a token with a blank", "registry-error", steps={TOKEN: say(200, {"token": "a b"})}),
    Behavior("a token in an array", "registry-error", steps={TOKEN: say(200, [])}),
    Behavior("a token as text/plain", setup=headers(TOKEN, Content_Type="text/plain")),
    Behavior("a token as text/html", setup=headers(TOKEN, Content_Type="text/html")),
    Behavior(
        "something after the token", setup=body(TOKEN, lambda b: json.dumps(b).encode() + b"\nx")
    ),
    Behavior("a token in gzip", setup=changed(zipped, TOKEN)),
    Behavior("the token server forbids", "wrong-login", steps={TOKEN: say(403, {})}),
    Behavior("the token server is not there", "not-a-registry", steps={TOKEN: say(404)}),
    Behavior("the token server fails", "registry-error", steps={TOKEN: say(500)}),
    Behavior(
        "the token server is a page", "not-a-registry", steps={TOKEN: say(200, HTML, "text/html")}
    ),
    Behavior("the token server moved on its host", setup=redirected(TOKEN, "/token/", away=False)),
    Behavior("the token server moved to another host", "no-right", setup=redirected(TOKEN)),
    Behavior(
        "the token server moved, public image",
        credentials=None,
        repository="lab/open",
        setup=redirected(TOKEN),
    ),
    # --- the manifest ---
    Behavior("HEAD is not allowed", steps={HEAD: say(405)}),
    Behavior("HEAD is not found", steps={HEAD: say(404)}),
    Behavior("HEAD is forbidden", steps={HEAD: say(403)}),
    Behavior("HEAD is unauthorized", steps={HEAD: say(401)}),
    Behavior("HEAD fails", steps={HEAD: say(500)}),
    Behavior("HEAD is too busy", steps={HEAD: say(429)}),
    Behavior("HEAD does not name the digest", setup=headers(HEAD, Docker_Content_Digest="")),
    Behavior("no answer names the digest", setup=headers(MANIFESTS, Docker_Content_Digest="")),
    Behavior(
        "another digest is named",
        "incomplete",
        setup=headers(MANIFESTS, Docker_Content_Digest="sha256:" + "0" * 64),
    ),
    Behavior(
        "an invalid digest is named",
        "not-a-registry",
        setup=headers(MANIFESTS, Docker_Content_Digest="x"),
    ),
    Behavior("the manifest in gzip", setup=changed(zipped, GET)),
    Behavior(
        "the type gzip without gzip", "not-a-registry", setup=headers(GET, Content_Encoding="gzip")
    ),
    Behavior("an encoding that Docker does not know", setup=headers(GET, Content_Encoding="br")),
    Behavior("a manifest of 5 MiB", manifest=BIG),
    Behavior(
        "JSON as the manifest's type",
        "not-a-registry",
        setup=headers(MANIFESTS, Content_Type="application/json"),
    ),
    Behavior("no type", "not-a-registry", setup=headers(MANIFESTS, Content_Type="")),
    Behavior(
        "text as the manifest's type",
        "not-a-registry",
        setup=headers(MANIFESTS, Content_Type="text/plain"),
    ),
    Behavior(
        "a type with a charset", setup=headers(MANIFESTS, Content_Type=MANIFEST + "; charset=utf-8")
    ),
    Behavior("a type in capitals", setup=headers(MANIFESTS, Content_Type=MANIFEST.upper())),
    Behavior("an invalid type", "not-a-registry", setup=headers(MANIFESTS, Content_Type="x y/")),
    Behavior(
        "the type of an index", "not-a-registry", setup=headers(MANIFESTS, Content_Type=INDEX)
    ),
    Behavior(
        "Docker's type for OCI's manifest",
        "not-a-registry",
        setup=headers(MANIFESTS, Content_Type=DOCKER),
    ),
    Behavior("no mediaType in the manifest", manifest={"mediaType": None}),
    Behavior("another mediaType in the manifest", "not-a-registry", manifest={"mediaType": DOCKER}),
    Behavior("Docker's manifest", kinds=(DOCKER, DOCKER_CONFIG, DOCKER_LAYER)),
    Behavior("the manifest with status 201", setup=status(201, GET)),
    Behavior("the manifest with status 300", setup=status(300, GET)),
    Behavior("the manifest moved to another host", "no-right", setup=redirected(MANIFESTS)),
    Behavior("the manifest moved, open", setup=both(redirected(MANIFESTS), other_login("none"))),
    Behavior(
        "the manifest in a circle",
        "not-a-registry",
        steps={MANIFESTS: say(307, Location="/v2/x/manifests/3")},
    ),
    Behavior("no such tag", "no-tag", reference=":4"),
    Behavior("no such repository", "no-repository", repository="lab/none", login="none"),
    Behavior("GET is too busy", "rate-limited", steps={GET: say(429)}),
    Behavior("GET fails for a minute", "registry-error", steps={GET: say(503, Retry_After="60")}),
    Behavior(
        "the manifest is a page", "not-a-registry", steps={MANIFESTS: say(200, HTML, "text/html")}
    ),
    Behavior(
        "half a manifest",
        "incomplete",
        steps={GET: say(200, b'{"schemaVersion": 2, "confi', MANIFEST)},
    ),
    Behavior("an empty manifest", "incomplete", steps={GET: say(200, b"", MANIFEST)}),
    Behavior("an array", "incomplete", steps={GET: say(200, [], MANIFEST)}),
    Behavior(
        "version 1",
        "not-an-image",
        steps={
            MANIFESTS: say(
                200,
                {"schemaVersion": 1, "name": "lab/align", "tag": "3"},
                "application/vnd.docker.distribution.manifest.v1+json",
            )
        },
    ),
    Behavior("version 3", manifest={"schemaVersion": 3}),
    Behavior("a Helm chart", "not-an-image", kinds=(MANIFEST, HELM, LAYER)),
    Behavior(
        "an artifact with an empty config",
        "not-an-image",
        kinds=(MANIFEST, "application/vnd.oci.empty.v1+json", LAYER),
    ),
    Behavior("a config of bytes", kinds=(MANIFEST, "application/octet-stream", LAYER)),
    Behavior("a config without a type", kinds=(MANIFEST, "", LAYER)),
    Behavior(
        "a Docker plugin",
        "not-an-image",
        kinds=(DOCKER, "application/vnd.docker.plugin.v1+json", DOCKER_LAYER),
    ),
    Behavior("no layers", "incomplete", manifest={"layers": []}),
    Behavior(
        "HEAD does not tell the length", "not-a-registry", setup=headers(HEAD, Content_Length="")
    ),
    Behavior("HEAD does not tell the type", "not-a-registry", setup=headers(HEAD, Content_Type="")),
    Behavior("GET does not tell the type", "not-a-registry", setup=headers(GET, Content_Type="")),
    Behavior(
        "another manifest than the digest's",
        "incomplete",
        setup=body(BY_DIGEST, lambda usual: usual + b"\n"),
        differs="The engine trusts a tag's manifest; the ECS agent pulls it by its digest.",
    ),
    Behavior(
        "nothing left of the limit",
        "rate-limited",
        setup=headers(HEAD, ratelimit_limit="100;w=21600", ratelimit_remaining="0;w=21600"),
        differs="HEAD says that the next GET will be refused, which this registry does not do.",
    ),
    Behavior("by digest", reference="@{digest}"),
    Behavior("an index by digest", reference="@{digest}", platforms=[LINUX]),
    Behavior("by tag and digest", reference=":3@{digest}"),
    Behavior("by digest and a tag that is not there", reference=":4@{digest}"),
    Behavior(
        "by digest, another manifest",
        "incomplete",
        reference="@{digest}",
        setup=body(BY_DIGEST, lambda usual: usual + b"\n"),
    ),
    Behavior("by a digest that is not there", "no-tag", reference="@sha256:" + "0" * 64),
    Behavior("manifests by digest are not there", "incomplete", steps={BY_DIGEST: say(404, {})}),
    Behavior("an index of indexes", "incomplete", platforms=[LINUX], setup=nested),
    Behavior(
        "an index for 386", "wrong-architecture", platforms=[{"os": "linux", "architecture": "386"}]
    ),
    Behavior("an image for a newer variant", config={"variant": "v3"}),
    Behavior("an image for 386", config={"architecture": "386"}),
    Behavior(
        "an index for arm/v7",
        "wrong-architecture",
        platforms=[{"os": "linux", "architecture": "arm", "variant": "v7"}],
    ),
    Behavior(
        "an index with an operating system's version", platforms=[{**LINUX, "os.version": "10.0"}]
    ),
    Behavior(
        "an index with a null list",
        "wrong-architecture",
        platforms=[],
        setup=changed(
            lambda r: Reply(
                200, {"schemaVersion": 2, "mediaType": INDEX, "manifests": None}, INDEX
            ),
            MANIFESTS,
        ),
    ),
    Behavior(
        "two entries, the first without an image", "incomplete", platforms=[LINUX], setup=twice
    ),
    Behavior("the configuration is no JSON", "incomplete", setup=configured(b"{")),
    Behavior("the configuration is an array", "incomplete", setup=configured(b"[]")),
    Behavior("the configuration as a page", setup=headers(CONFIG_BLOB, Content_Type="text/html")),
    Behavior("the configuration with status 206", setup=status(206, CONFIG_BLOB)),
    # --- the configuration ---
    Behavior("the configuration is not there", "incomplete", steps={CONFIG_BLOB: say(404, {})}),
    Behavior("the configuration is forbidden", "no-right", steps={CONFIG_BLOB: say(403, {})}),
    Behavior("the configuration fails", "registry-error", steps={CONFIG_BLOB: say(500)}),
    Behavior(
        "the configuration is another", "incomplete", steps={CONFIG_BLOB: say(200, {"os": "linux"})}
    ),
    Behavior("the configuration in gzip", setup=changed(zipped, CONFIG_BLOB)),
    Behavior("blobs on another host", setup=both(redirected(BLOBS), other_login("none"))),
    Behavior(
        "blobs on a host that forbids",
        "blocked",
        setup=both(redirected(BLOBS), lambda _, other: other.steps.update({".*": say(403)})),
    ),
    Behavior("blobs on a host that asks", "no-right", setup=redirected(BLOBS)),
    Behavior("the configuration has no architecture", config={"architecture": ""}),
    Behavior("the configuration has no system", config={"os": ""}),
    Behavior("an image for Windows", "wrong-architecture", config={"os": "windows"}),
    Behavior(
        "an image for another machine",
        "wrong-architecture",
        config={"architecture": OTHER},
        differs="The engine pulls it, but a container of it cannot start.",
    ),
    Behavior("the architecture as uname says it", config={"architecture": platform.machine()}),
    Behavior(
        "a configuration without layers",
        "incomplete",
        config={"rootfs": {"type": "layers", "diff_ids": []}},
    ),
    Behavior("a configuration without rootfs", "incomplete", config={"rootfs": None}),
    # --- the index ---
    Behavior("an index", platforms=[LINUX, {"os": "linux", "architecture": OTHER}]),
    Behavior(
        "Docker's list",
        platforms=[LINUX],
        index_kind=DOCKER_LIST,
        kinds=(DOCKER, DOCKER_CONFIG, DOCKER_LAYER),
    ),
    Behavior("an index with attestations", platforms=[LINUX, ATTESTATION]),
    Behavior("an index with attestations alone", "wrong-architecture", platforms=[ATTESTATION]),
    Behavior(
        "an index for another machine",
        "wrong-architecture",
        platforms=[{"os": "linux", "architecture": OTHER}],
    ),
    Behavior("an index for Windows", "wrong-architecture", platforms=[WINDOWS]),
    Behavior("an empty index", "wrong-architecture", platforms=[]),
    Behavior("an index without platforms", "wrong-architecture", platforms=[None]),
    Behavior("an index with empty platforms", "wrong-architecture", platforms=[{}]),
    Behavior("an index without systems", platforms=[{"architecture": MACHINE}]),
    Behavior(
        "an index as uname says it", platforms=[{**LINUX, "architecture": platform.machine()}]
    ),
    *(
        Behavior(
            f"an index with {variant} alone",
            "ok" if variant == "v1" else "wrong-architecture",
            platforms=[{**LINUX, "variant": variant}],
        )
        for variant in ("v1", "v2", "v3", "v8")
    ),
    Behavior("an index with v2 first", platforms=[{**LINUX, "variant": "v2"}, LINUX]),
    Behavior("an index in gzip", platforms=[LINUX], setup=changed(zipped, GET)),
    Behavior(
        "an index as JSON",
        "not-a-registry",
        platforms=[LINUX],
        setup=headers(MANIFESTS, Content_Type="application/json"),
    ),
    Behavior(
        "an index as a manifest",
        "not-a-registry",
        platforms=[LINUX],
        setup=headers(MANIFESTS, Content_Type=MANIFEST),
    ),
    Behavior("an index without mediaType", platforms=[LINUX], setup=changed(lambda r: r, GET)),
    Behavior(
        "an index whose image is not there",
        "incomplete",
        platforms=[LINUX],
        steps={BY_DIGEST: say(404, {})},
    ),
    Behavior(
        "an index whose image fails",
        "registry-error",
        platforms=[LINUX],
        steps={BY_DIGEST: say(500, {})},
    ),
    Behavior(
        "an index whose image is for another machine",
        platforms=[LINUX],
        config={"architecture": OTHER},
    ),
    Behavior(
        "an index whose image is a chart",
        "not-an-image",
        platforms=[LINUX],
        kinds=(MANIFEST, HELM, LAYER),
    ),
    Behavior(
        "an index whose configuration is not there",
        "incomplete",
        platforms=[LINUX],
        steps={CONFIG_BLOB: say(404, {})},
    ),
]


@pytest.mark.parametrize("behavior", BEHAVIORS, ids=lambda behavior: behavior.name)
def test_check_agrees_with_the_engine(behavior, engine):
    """What check says is what an instance will see, and why is in its cause."""
    with RegistryServer() as server, RegistryServer(address="127.0.0.2") as other:
        digest = behavior.fill(server, other)
        reference = behavior.reference.replace("{digest}", digest)
        image = f"{server.host}/{behavior.repository}{reference}"
        given = behavior.credentials
        verdict = registry.check(parse(image), given, architectures=(MACHINE,))
        said = pulled(engine, image, given)
    assert verdict.cause == behavior.cause, verdict.text
    assert (verdict.ok != (said == "")) == bool(behavior.differs), (verdict.text, said)


def test_capitals_in_a_host_are_refused_although_the_engine_takes_them(engine):
    """The ECS agent compares letter by letter, and finds no credentials."""
    with RegistryServer() as server:
        Behavior("a host in capitals", login="none").fill(server, server)
        image = f"LOCALHOST:{server.host.rpartition(':')[2]}/lab/align:3"
        assert registry.check(parse(image), None).cause == "host-case"
        assert pulled(engine, image) == ""

"""Every spelling of a registry becomes the key that the agent looks up."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchreg.registry_login import HUB, Refused, registry_key

HUB_SPELLINGS = [
    "https://index.docker.io/v1/",
    "index.docker.io/v1/",
    "https://index.docker.io/v1",
    "docker.io",
    "https://docker.io",
    "index.docker.io",
    "registry-1.docker.io",
    "https://registry-1.docker.io/v2/",
    "hub.docker.com",
    "registry.hub.docker.com",
    "https://hub.docker.com/u/ada",
    "auth.docker.io",
    "Docker.IO",
    " docker.io\n",
]
SPELLINGS = {
    **dict.fromkeys(HUB_SPELLINGS, HUB),
    "registry.gitlab.com": "registry.gitlab.com",
    "https://registry.gitlab.com": "registry.gitlab.com",
    "registry.gitlab.com/": "registry.gitlab.com",
    "https://registry.gitlab.com/v2/": "registry.gitlab.com",
    "registry.gitlab.com/group/project": "registry.gitlab.com",
    "ghcr.io": "ghcr.io",
    "https://ghcr.io/": "ghcr.io",
    "http://ghcr.io": "ghcr.io",
    "HTTPS://ghcr.io": "ghcr.io",
    "GHCR.IO": "ghcr.io",
    " ghcr.io": "ghcr.io",
    "ghcr.io \n": "ghcr.io",
    "registry.example.com:5050": "registry.example.com:5050",
    "https://registry.example.com:5050": "registry.example.com:5050",
    "https://registry.example.com:5050/": "registry.example.com:5050",
    "registry.example.com:443": "registry.example.com:443",
    "http://registry.example.com:443": "registry.example.com:443",
    "localhost:5000": "localhost:5000",
    "http://localhost:5000/": "localhost:5000",
    "localhost": "localhost",
    "127.0.0.1:5000": "127.0.0.1:5000",
    "myhost:5000": "myhost:5000",
    "my--registry.xn--e1afmkfd.example": "my--registry.xn--e1afmkfd.example",
    "notdocker.io": "notdocker.io",
    "docker.io.example.com": "docker.io.example.com",
}


@pytest.mark.parametrize(("url", "key"), [*SPELLINGS.items()])
def test_every_spelling_becomes_the_key_that_the_agent_matches(url, key):
    """What people copy from browsers and manuals, most of which the agent never matches."""
    assert registry_key(url) == key


@pytest.mark.parametrize(
    ("url", "instead"),
    [
        (
            "https://registry.example.com:443",
            "write registry.example.com or registry.example.com:443,",
        ),
        (
            "http://registry.example.com:80/",
            "write registry.example.com or registry.example.com:80,",
        ),
        ("myhost", "add a domain or port to myhost"),
        ("https://myhost/v2/", "add a domain or port to myhost"),
        ("", "write it like ghcr.io"),
        ("https://", "write it like ghcr.io"),
        ("https:ghcr.io", "write it like ghcr.io"),
        ("ftp://ghcr.io", "write it like ghcr.io"),
        ("https://ada:x@ghcr.io", "write it like ghcr.io"),
        ("ghcr.io lab", "write it like ghcr.io"),
        ("ghcr..io", "write it like ghcr.io"),
        (".ghcr.io", "write it like ghcr.io"),
        ("ghcr.io.", "write it like ghcr.io"),
        ("ghcr.-io", "write it like ghcr.io"),
        ("ghcr-.io", "write it like ghcr.io"),
        ("ghcr_io.example", "write it like ghcr.io"),
        ("ghcr.io:", "write it like ghcr.io"),
        ("ghcr.io:port", "write it like ghcr.io"),
        ("bücher.example", "write it like ghcr.io"),
        ("[::1]:5000", "write it like ghcr.io"),
    ],
)
def test_what_no_image_would_match_is_refused_with_the_way_out(url, instead):
    """A key that never matches is a job that hangs, with nothing in any log."""
    with pytest.raises(Refused, match=re.escape(instead)):
        registry_key(url)


GOOD_HOSTS = st.sampled_from(
    [
        "ghcr.io",
        "GHCR.io",
        "docker.io",
        "index.docker.io",
        "hub.docker.com",
        "localhost",
        "myhost",
        "a",
        "x.y",
        "10.0.0.1",
        "a-b.example",
        "a--b.example",
    ]
)
BAD_HOSTS = st.sampled_from(["-", ".", "..", ".-", "-.", "_", "KELVIN\u212a", "é", "@", "%", " "])
URLS = st.one_of(
    st.text(),
    *[
        st.builds(
            "".join,
            st.tuples(
                st.sampled_from(["", " ", "http://", "https://", "HTTPS://", "ftp://", "//"]),
                GOOD_HOSTS | st.lists(GOOD_HOSTS | BAD_HOSTS, max_size=4).map("".join),
                st.sampled_from(["", ":", ":443", ":80", ":5000", ":123456", ":x"]),
                st.sampled_from(["", "/", "/v1/", "/v2", "/a/b", "?q", "#f", "/\n", " "]),
            ),
        )
    ]
    * 9,
)
# How an image's name writes its registry: github.com/distribution/reference, regexp.go.
DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*(:[0-9]+)?")


def key_or_none(url: str) -> str | None:
    try:
        return registry_key(url)
    except Refused:
        return None


@given(URLS)
@settings(max_examples=1000, deadline=None)
def test_a_key_is_its_own_key(url):
    """What `check` shows can be put back into the secret."""
    key = key_or_none(url)
    if key:
        assert registry_key(key) == key


@given(URLS)
@settings(max_examples=1000, deadline=None)
def test_no_key_is_one_that_the_agent_cannot_match(url):
    """Any key but Docker Hub's is a registry as an image's name can write it."""
    key = key_or_none(url)
    if key and key != HUB:
        assert DOMAIN.fullmatch(key)
        assert "." in key or ":" in key or key == "localhost"
        assert key not in HUB_SPELLINGS

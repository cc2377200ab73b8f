"""`batchreg check` and the Docker Engine behind a proxy: both go through it, or neither does."""

from __future__ import annotations

import shlex
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from behaviors import MACHINE, Behavior, pulled
from lab.parts import Engine
from real_parts import require
from registry_server import Proxy, RegistryServer
from secrets_server import certificate

from batchreg.registry import check as registry
from batchreg.registry.images import parse

HERE = "{here}"  # stands for an address of this machine, where nothing listens
NO_PROXY = (
    "plain.example.com, .dotted.example.com,*.starred.example.com,ported.example.com:5000,,"
    "10.0.0.0/8,{here}/30,bad.example.com/8,http://scheme.example.com"
)
HOSTS = [
    ("plain.example.com", False),
    ("plain.example.com:5000", False),
    ("sub.plain.example.com", False),
    ("notplain.example.com", True),
    ("dotted.example.com", True),
    ("sub.dotted.example.com", False),
    ("starred.example.com", True),
    ("sub.starred.example.com", False),
    ("ported.example.com", True),
    ("ported.example.com:5000", False),
    ("sub.ported.example.com:5000", False),
    ("bad.example.com", True),
    ("scheme.example.com", True),
    (f"{HERE}:5000", False),
]


class ProxiedEngine(Engine):
    """A Docker Engine with variables of its own."""

    def __init__(self, directory: Path, **environ: str) -> None:
        super().__init__(directory)
        exports = "".join(
            f"export {name}={shlex.quote(value)}\n" for name, value in environ.items()
        )
        self.SURROUNDINGS = exports + Engine.SURROUNDINGS


Start = Callable[..., Engine]


@pytest.fixture(scope="module")
def here() -> str:
    """An address of this machine that is not its loopback, which no proxy is ever used for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # sends nothing
        except OSError as error:
            pytest.skip(f"no network: {error}")
        return str(probe.getsockname()[0])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, here: str) -> Iterator[RegistryServer]:
    """A registry with TLS for all names here, with one public image."""
    require("engine")
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    path = certificate(
        tmp_path_factory.mktemp("tls") / "cert.pem",
        f"DNS:*.example.com,DNS:*.plain.example.com,DNS:*.dotted.example.com,"
        f"DNS:*.starred.example.com,DNS:*.ported.example.com,IP:{here}",
    )
    with RegistryServer(certificate=path) as server:
        Behavior("behind a proxy", login="none").fill(server, server)
        yield server


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, server: RegistryServer
) -> Iterator[Callable[..., tuple[Engine, dict[str, str]]]]:
    """Start an engine with a proxy, once for each set of variables."""
    with ExitStack() as engines:
        known: dict[tuple[str, str], tuple[Engine, dict[str, str]]] = {}

        def run(proxy: str, no_proxy: str) -> tuple[Engine, dict[str, str]]:
            if (proxy, no_proxy) not in known:
                environ = {
                    "HTTPS_PROXY": proxy,
                    "NO_PROXY": no_proxy,
                    "SSL_CERT_FILE": str(server.certificate),
                }
                engine = ProxiedEngine(tmp_path_factory.mktemp("proxied"), **environ)
                known[proxy, no_proxy] = engines.enter_context(engine), environ
            return known[proxy, no_proxy]

        yield run


@pytest.fixture(scope="module")
def proxy(server: RegistryServer) -> Iterator[Proxy]:
    with Proxy(server.host) as proxy:
        yield proxy


@pytest.fixture
def both(start, monkeypatch):
    """Ask check and the engine for an image, and return what either says."""

    def ask(host: str, proxy: str, no_proxy: str) -> tuple[registry.Verdict, str]:
        engine, environ = start(proxy, no_proxy)
        for name in ("https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        image = f"{host}/lab/align:3"
        return registry.check(parse(image), None, architectures=(MACHINE,)), pulled(engine, image)

    return ask


@pytest.mark.parametrize(("host", "proxied"), HOSTS)
def test_no_proxy_means_the_same_to_both(both, proxy, here, host, proxied):
    """Only the proxy leads to these hosts, so that a pull tells who went through it."""
    proxy.asked.clear()
    verdict, said = both(host.format(here=here), proxy.url, NO_PROXY.format(here=here))
    assert (verdict.ok, said == "") == (proxied, proxied), (verdict.text, said)
    assert bool(proxy.asked) == proxied


@pytest.mark.parametrize(
    ("no_proxy", "host", "proxied"),
    [
        (HERE, f"{HERE}:5000", False),
        (f"{HERE}:5000", f"{HERE}:5000", False),
        (f"{HERE}:5000", f"{HERE}:5001", True),
        ("*", "any.example.com", False),
        ("", "any.example.com", True),
    ],
)
def test_addresses_and_ports_mean_the_same_to_both(both, proxy, here, no_proxy, host, proxied):
    """A port counts where it is given."""
    verdict, said = both(host.format(here=here), proxy.url, no_proxy.format(here=here))
    assert (verdict.ok, said == "") == (proxied, proxied), (verdict.text, said)


def test_proxy_that_is_down_is_named(both, here):
    """Not the registry, which nobody has reached."""
    with Proxy("") as gone:
        pass
    verdict, said = both("any.example.com", gone.url, "")
    assert "proxyconnect" in said
    assert verdict.cause == "unreachable"
    assert f"The proxy {gone.url.removeprefix('http://')} cannot be reached." in verdict.text


def test_proxy_that_refuses_is_named(both):
    """With a status of its own, which is not the registry's."""
    with Proxy("", status=407) as proxy:
        verdict, said = both("any.example.com", proxy.url, "")
    assert "Proxy Authentication Required" in said
    assert "The proxy does not allow connections to any.example.com" in verdict.text


def test_certificate_of_this_machine_is_verified_although_the_engine_does_not(engine, server):
    """A registry that works here by accident would not work for an instance."""
    image = f"{server.host}/lab/align:3"
    assert registry.check(parse(image), None, architectures=(MACHINE,)).cause == "tls"
    assert pulled(engine, image) == ""

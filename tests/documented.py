"""The registry of the documents' examples: one server answers as ghcr.io and as Docker Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from registry_server import Proxy, RegistryServer, index
from secrets_server import certificate

NAMES = ("ghcr.io", "registry-1.docker.io", "auth.docker.io")
IMAGES: dict[str, dict[str, object]] = {
    "lab/align": {"3": index("linux/amd64", "linux/arm64")},
    "lab/sort": {"3.1": index("linux/amd64"), "3.2": index("linux/amd64")},
}


@contextmanager
def registry(folder: Path, password: str) -> Iterator[tuple[RegistryServer, dict[str, str]]]:
    """Start it for the user lab; yield it, and the variables with which a program finds it."""
    cert = certificate(folder / "cert.pem", ",".join(f"DNS:{name}" for name in NAMES))
    with (
        RegistryServer(
            certificate=cert,
            users={"lab": password},
            rights={"lab": set(IMAGES)},
            images={**IMAGES},
            realm="https://ghcr.io/token",
        ) as server,
        Proxy(server.host) as proxy,
    ):
        yield server, {"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": str(cert)}

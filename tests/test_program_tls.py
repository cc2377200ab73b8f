"""The program and the certificates of an endpoint."""

import re
import shutil
from pathlib import Path

import pytest
from program import ROLE_AWAY, Instance, secret
from secrets_server import SecretsServer, certificate


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    directory = tmp_path_factory.mktemp("tls")
    return {
        "right": certificate(directory / "right", "IP:127.0.0.1"),
        "wrong": certificate(directory / "wrong", "DNS:elsewhere.example"),
    }


def test_a_certificate_that_fits_is_trusted(tmp_path, certificates):
    """SSL_CERT_FILE adds a private authority, as for other programs."""
    with SecretsServer({"ghcr": secret()}, certificate=certificates["right"]) as server:
        env = {**ROLE_AWAY, "SSL_CERT_FILE": str(certificates["right"])}
        assert Instance(tmp_path, server).run("ghcr", env=env).code == 0


@pytest.mark.parametrize(
    ("shown", "trusted"),
    [("wrong", "wrong"), ("right", "wrong")],
    ids=["another name", "another issuer"],
)
def test_a_certificate_that_does_not_fit_fails(tmp_path, certificates, shown, trusted):
    """Whoever sits between must not learn the session token or plant a login."""
    with SecretsServer({"ghcr": secret()}, certificate=certificates[shown]) as server:
        instance = Instance(tmp_path, server)
        env = {**ROLE_AWAY, "SSL_CERT_FILE": str(certificates[trusted])}
        run = instance.run("ghcr", env=env, deadline=0.5)
    assert (run.code, instance.config.exists(), server.requests) == (1, False, [])
    assert re.match(r"batchreg: ghcr: .*CERTIFICATE_VERIFY_FAILED", run.lines[-1])

"""A token server for the real registry: signs who may pull what, as the specification says.

Source: distribution.github.io/distribution/spec/auth/jwt
"""

from __future__ import annotations

import base64
import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from serving import Handler

SERVICE, ISSUER = "lab registry", "lab tokens"


@dataclass
class TokenServer:
    """Serves in a thread, for a `with` statement. `rights`: {user: repositories to pull from}.

    What its tokens say can be wrong: `issuer`, `audience` (empty for the one that is asked for),
    `late` (by how many seconds its clock is), `actions`. `more` is added to its answers.
    """

    directory: Path
    users: dict[str, str]
    rights: dict[str, set[str]]
    logins: list[str] = field(default_factory=list)  # each request's Authorization header
    issuer: str = ISSUER
    audience: str = ""
    late: int = 0
    actions: Sequence[str] = ("pull",)
    more: Mapping[str, object] = field(default_factory=dict)

    def __enter__(self) -> TokenServer:
        self._key, self._certificate = self.directory / "key.pem", self.directory / "cert.pem"
        subprocess.run(
            [
                "openssl",
                "req",
                "-x509",
                "-nodes",
                "-newkey",
                "rsa:2048",
                "-subj",
                "/CN=tokens",
                "-days",
                "2",
                "-keyout",
                self._key,
                "-out",
                self._certificate,
            ],
            check=True,
            capture_output=True,
        )
        owner = self

        class Tokens(Handler):
            def do_GET(self) -> None:
                status, body = owner.answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Tokens)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def auth(self) -> dict[str, object]:
        """The registry's configuration."""
        return {
            "token": {
                "realm": f"http://127.0.0.1:{self._server.server_address[1]}/token",
                "service": SERVICE,
                "issuer": ISSUER,
                "rootcertbundle": str(self._certificate),
            }
        }

    def answer(self, path: str, authorization: str) -> tuple[int, dict[str, object]]:
        """Refuse a wrong login; give anybody else a token for what he may have of what he asks."""
        self.logins.append(authorization)
        name = ""
        if authorization:
            login = base64.b64decode(authorization.removeprefix("Basic ")).decode()
            name, _, password = login.partition(":")
            if self.users.get(name) != password:
                return 401, {"errors": [{"code": "UNAUTHORIZED"}]}
        query = parse_qs(urlsplit(path).query)
        access = []
        for scope in query.get("scope", []):
            kind, repository, _ = scope.split(":")
            if repository in self.rights.get(name, ()):
                access.append({"type": kind, "name": repository, "actions": self.actions})
        audience = self.audience or query["service"][0]
        return 200, {"token": self._signed(name, audience, access), **self.more}

    def _signed(self, name: str, service: str, access: list[dict[str, object]]) -> str:
        lines = self._certificate.read_text().splitlines()
        now = int(time.time()) - self.late
        parts = [
            {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]},
            {
                "iss": self.issuer,
                "sub": name,
                "aud": service,
                "iat": now,
                "nbf": now - 10,
                "exp": now + 60,
                "jti": str(now),
                "access": access,
            },
        ]
        text = ".".join(_encoded(json.dumps(part).encode()) for part in parts)
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=text.encode(),
            check=True,
            capture_output=True,
        ).stdout
        return f"{text}.{_encoded(signature)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

"""The two services that hand out credentials on an instance: metadata, and a task's role.

Both are on one port of 127.0.0.1: AWS_EC2_METADATA_SERVICE_ENDPOINT leads to the one, and
AWS_CONTAINER_CREDENTIALS_FULL_URI to the other.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

ROLES = "/latest/meta-data/iam/security-credentials/"

Credentials = dict[str, str]  # AccessKeyId, SecretAccessKey, Token, Expiration


class Metadata:
    """Serves one instance, for a `with` statement."""

    def __init__(self, instance_id: str, region: str, role: str) -> None:
        """Serve the credentials of `role`, an ARN, which `assume` of a subclass or caller gets."""
        self.role = role
        self._texts = {
            "/latest/meta-data/instance-id": instance_id,
            "/latest/meta-data/placement/region": region,
            "/latest/meta-data/placement/availability-zone": f"{region}a",
            "/latest/dynamic/instance-identity/document": json.dumps(
                {"instanceId": instance_id, "region": region}
            ),
        }
        self._token = secrets.token_urlsafe()
        self._tasks: dict[str, str] = {}  # the role of each path
        self.assume: Callable[[str], Credentials] = _nobody
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def task(self, role: str) -> str:
        """Return the URL with the credentials of a task's role."""
        path = f"/v2/credentials/{secrets.token_urlsafe()}"
        self._tasks[path] = role
        return self.url + path

    def answer(self, path: str, token: str | None) -> tuple[int, str]:
        """Return status and body of a GET."""
        if role := self._tasks.get(path):
            return 200, json.dumps({"RoleArn": role, **self.assume(role)})
        if token != self._token:
            return 401, ""  # IMDSv2 alone, as on Amazon Linux 2023
        name = self.role.rpartition("/")[2]
        if path in (ROLES, ROLES.rstrip("/")):
            return (200, name) if name else (404, "")
        if name and path == ROLES + name:
            found = self.assume(self.role)
            return 200, json.dumps({"Code": "Success", "Type": "AWS-HMAC", **found})
        text = self._texts.get(path)
        return (404, "") if text is None else (200, text)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        metadata = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.say(*metadata.answer(self.path, self.headers["X-aws-ec2-metadata-token"]))

            def do_PUT(self) -> None:
                found = self.path == "/latest/api/token"
                self.say(*((200, metadata._token) if found else (404, "")))

            def say(self, status: int, text: str) -> None:
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("X-aws-ec2-metadata-token-ttl-seconds", "21600")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def _nobody(role: str) -> Credentials:
    raise LookupError(role)

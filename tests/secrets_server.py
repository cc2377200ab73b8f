"""Instance metadata (IMDSv2) and Secrets Manager on one port of 127.0.0.1, for tests.

As strict as AWS where it matters: metadata wants its token, and every GetSecretValue is signed
again by botocore, under the server's own clock. A test scripts the faults, and reads what arrived.
"""

from __future__ import annotations

import base64
import calendar
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from itertools import chain, repeat
from pathlib import Path

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from serving import Handler, Listener, Reset

REGION = "eu-central-1"
ROLE = "batchreg-InstanceRole-1ABC"
ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
# How far AWS lets a signature's date be off: five minutes.
TOLERANCE_SECONDS = 300


@dataclass(frozen=True)
class Keys:
    access_key: str
    secret_key: str
    token: str | None = None


ROLE_KEYS = Keys("ASIAROLE00000000", "role/secret+key=", "role-token//+==" * 20)
USER_KEYS = Keys("AKIAUSER00000000", "user/secret+key=")


@dataclass(frozen=True)
class Received:
    """One request, as it arrived; `place` is token, role, keys, or the secret's id."""

    place: str
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    content_type: str = "application/x-amz-json-1.1"
    missing: int = 0  # bytes that Content-Length promises and that never come
    pause: float = 0  # seconds before each byte


# What one request meets: an answer, or None to be served as usual, perhaps later.
Step = Callable[["SecretsServer"], "Answer | None"]


def fail(status: int, code: str, message: str = "no") -> Callable[[object], Answer]:
    """Answer as Secrets Manager does; `code` may have a prefix, as some services' codes do."""
    return lambda _: Answer(status, json.dumps({"__type": code, "message": message}).encode())


def text(status: int, body: str, content_type: str = "text/html", missing: int = 0) -> Step:
    return lambda _: Answer(status, body.encode(), content_type, missing)


def slow(seconds: float) -> Step:
    return lambda _: time.sleep(seconds)


def usual(_: SecretsServer) -> None:
    """Serve this request as if nothing had been scripted."""


def hang(server: SecretsServer) -> None:
    """Say nothing for as long as the server lives."""
    server.ended.wait(60)
    raise Reset


def drip(_: SecretsServer) -> Answer:
    """Answer for a minute, never silent for long."""
    return Answer(200, b" " * 300, pause=0.2)


def reset(_: SecretsServer) -> None:
    raise Reset


NO_ROLE = text(404, "<?xml version='1.0'?><html><body>404 - Not Found</body></html>")
DENIED = fail(400, "AccessDeniedException", "User is not authorized to perform GetSecretValue")
THROTTLED = fail(400, "ThrottlingException", "Rate exceeded")


def authorization(
    url: str, headers: Mapping[str, str], body: bytes, region: str, keys: Keys, method: str = "POST"
) -> str:
    """Return the Authorization header that botocore gives this request at its own X-Amz-Date.

    The steps of SigV4Auth.add_auth, which takes no other time than now.
    """
    request = AWSRequest(method, url, headers=dict(headers), data=body)
    request.context["timestamp"] = request.headers["X-Amz-Date"]
    signer = SigV4Auth(
        Credentials(keys.access_key, keys.secret_key, keys.token), "secretsmanager", region
    )
    words = signer.string_to_sign(request, signer.canonical_request(request))
    names = signer.signed_headers(signer.headers_to_sign(request))
    return (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, SignedHeaders={names}, "
        f"Signature={signer.signature(words, request)}"
    )


def certificate(path: Path, name: str) -> Path:
    """Make a self-signed certificate with its key, both in `path`; `name` is like IP:127.0.0.1."""
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-nodes",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-subj",
            "/CN=test",
            "-days",
            "2",
            "-addext",
            f"subjectAltName={name}",
            "-addext",
            "keyUsage=critical,digitalSignature,keyCertSign",
            "-keyout",
            str(path) + ".key",
            "-out",
            str(path),
        ],
        check=True,
        capture_output=True,
    )
    with path.open("ab") as file:
        file.write(Path(str(path) + ".key").read_bytes())
    return path


@dataclass
class SecretsServer:
    """A server in a thread, for a `with` statement; `secrets` may change while it runs."""

    secrets: dict[str, str | bytes]
    port: int = 0
    certificate: Path | None = None
    # Seconds by which this server's clock is ahead of the machine's.
    clock_ahead: float = 0
    requests: list[Received] = field(default_factory=list)
    # Bugs of this server, as opposed to clients that hang up.
    errors: list[BaseException] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    steps: dict[str, Iterator[Step]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> SecretsServer:
        self._server = Listener(self, ("127.0.0.1", self.port), _Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    def play(self, place: str, *steps: Step, then: Step = usual) -> None:
        """Let the next requests for `place` meet `steps`, one each, and all later ones `then`.

        A place is token, role or keys (the three metadata requests), the id of a secret, or
        secret for them all.
        """
        self.steps[place] = chain(steps, repeat(then))

    def count(self, *places: str) -> int:
        """Return how many requests came for these places."""
        return sum(request.place in places for request in self.requests)

    @property
    def metadata_requests(self) -> int:
        return self.count("token", "role", "keys")

    @property
    def secret_requests(self) -> int:
        return len(self.requests) - self.metadata_requests

    def now(self) -> float:
        return time.time() + self.clock_ahead

    def answer(self, request: Received) -> Answer:
        """Serve one request: first what is scripted, then what AWS would say."""
        place = request.place
        if request.method == "POST" and place not in self.steps:
            place = "secret"
        with self.lock:
            self.requests.append(request)
            step = next(self.steps.get(place, repeat(usual)))
        return step(self) or self._aws(request)

    def _aws(self, request: Received) -> Answer:
        if request.place == "token":
            if not re.fullmatch(
                "[0-9]+", request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
            ):
                return Answer(400, b"", "text/plain")
            return Answer(200, b"metadata-token==", "text/plain")
        if request.place in ("role", "keys"):
            if request.headers.get("x-aws-ec2-metadata-token") != "metadata-token==":
                return Answer(401, b"", "text/plain")
            if request.place == "role":
                return Answer(200, ROLE.encode(), "text/plain")
            return Answer(
                200,
                json.dumps(
                    {
                        "Code": "Success",
                        "Type": "AWS-HMAC",
                        "AccessKeyId": ROLE_KEYS.access_key,
                        "SecretAccessKey": ROLE_KEYS.secret_key,
                        "Token": ROLE_KEYS.token,
                        "Expiration": "2099-01-01T00:00:00Z",
                    }
                ).encode(),
                "text/plain",
            )
        if request.method == "POST":
            problem = self._judge(request)
            return problem(self) if problem else self._secret(request)
        return Answer(404, b"", "text/plain")

    def _judge(self, request: Received) -> Callable[[object], Answer] | None:
        """Return how AWS refuses this request's signature, or None where it holds."""
        headers = request.headers
        found = re.fullmatch(
            r"AWS4-HMAC-SHA256 Credential=(\w+)/\d{8}/[^,]+, SignedHeaders=([^,]+), "
            r"Signature=[0-9a-f]{64}",
            headers.get("authorization", ""),
        )
        if not found:
            return fail(400, "MissingAuthenticationTokenException")
        keys = {keys.access_key: keys for keys in (ROLE_KEYS, USER_KEYS)}.get(found[1])
        if not keys or keys.token != headers.get("x-amz-security-token"):
            return fail(400, "com.amazon.coral.service#UnrecognizedClientException")
        signed = {name: headers[name] for name in found[2].split(";") if name in headers}
        must = {"host", *(name for name in headers if name.startswith("x-amz-"))}
        if not must <= signed.keys() or headers["authorization"] != authorization(
            f"http://{headers['host']}{request.path}", signed, request.body, REGION, keys
        ):
            return fail(
                400,
                "InvalidSignatureException",
                "The request signature we calculated does not match. "
                f"The canonical string should have been {signed}",
            )
        date = time.strptime(headers["x-amz-date"] + " UTC", "%Y%m%dT%H%M%SZ %Z")
        if abs(calendar.timegm(date) - self.now()) > TOLERANCE_SECONDS:
            return fail(400, "InvalidSignatureException", "Signature expired")
        return None

    def _secret(self, request: Received) -> Answer:
        if request.headers.get("content-type") != "application/x-amz-json-1.1":
            return Answer(404, b"<UnknownOperationException/>", "text/xml")
        if request.headers.get("x-amz-target") != "secretsmanager.GetSecretValue":
            return Answer(400, b'{"__type": "UnknownOperationException"}')
        name = request.place
        if name not in self.secrets:
            return Answer(
                400,
                json.dumps(
                    {
                        "__type": "ResourceNotFoundException",
                        "Message": "Secrets Manager can't find the specified secret.",
                    }
                ).encode(),
            )
        value = self.secrets[name]
        content = (
            {"SecretString": value}
            if isinstance(value, str)
            else {"SecretBinary": base64.b64encode(value).decode()}
        )
        return Answer(
            200,
            json.dumps(
                {
                    "ARN": f"arn:aws:secretsmanager:{REGION}:123456789012:secret:{name}-AbCdEf",
                    "CreatedDate": 1.7e9,
                    "Name": name,
                    **content,
                    "VersionId": "00000000-0000-0000-0000-000000000000",
                    "VersionStages": ["AWSCURRENT"],
                }
            ).encode(),
        )


class _Handler(Handler):
    server: Listener

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        place = {
            "PUT /latest/api/token": "token",
            f"GET {ROLE_PATH}": "role",
            f"GET {ROLE_PATH}{ROLE}": "keys",
        }.get(f"{self.command} {self.path}", "unknown")
        if self.command == "POST":
            place = json.loads(body)["SecretId"]
        try:
            answer = self.server.owner.answer(
                Received(place, self.command, self.path, headers, body)
            )
        except Reset:
            return self.reset()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body) + answer.missing))
        self.end_headers()
        pieces = [bytes([byte]) for byte in answer.body] if answer.pause else [answer.body]
        for piece in pieces:
            time.sleep(answer.pause)
            self.wfile.write(piece)

    do_GET = do_PUT = do_POST = do_CONNECT = serve

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(self.server.owner.now() if timestamp is None else timestamp, usegmt=True)

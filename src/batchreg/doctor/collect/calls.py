"""Calls to AWS: one deadline for all of them, and a failure costs no more than its own fact."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from batchreg import aws
from batchreg.doctor.facts import Gap
from batchreg.errors import BatchregError

T = TypeVar("T")
Clients = Callable[[str], Any]

SECONDS = 9.0  # for everything: the command then ends within ten

ABSENT = re.compile("NotFound|NoSuch")
# Without valid credentials the error is shown, not a list of everything that was not looked at.
NO_CREDENTIALS = re.compile(
    "ExpiredToken|InvalidClientTokenId|UnrecognizedClient|SignatureDoesNotMatch|InvalidSignature|"
    "RequestExpired|MissingAuthenticationToken"
)


class Unseen(Exception):
    """A call failed, and the gap is noted."""


class Absent(Exception):
    """AWS says that there is no such thing."""


def start(function: Callable[..., T], *arguments: Any, **more: Any) -> Future[T]:
    """Begin something in a thread of its own and return its result to come.

    Not in a pool's thread: those are waited for when the program ends, and a look-up of a name that
    hangs cannot be stopped.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function(*arguments, **more))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


class Caller:
    """Calls AWS until `seconds` are over, and notes what could not be looked at."""

    def __init__(self, clients: Clients, *, seconds: float = SECONDS) -> None:
        self.seconds, self._until = seconds, time.monotonic() + seconds
        self.gaps: dict[tuple[str, str], Gap] = {}
        self._clients, self._made, self._lock = clients, dict[str, Any](), threading.Lock()

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return max(0.0, self._until - time.monotonic())

    def ask(self, what: str, service: str, method: str, *, items: str = "", **request: Any) -> Any:
        """Return the answer, or with `items` the list of that name, all pages of it.

        Raises Absent and Unseen, and an error of botocore's where there are no credentials.
        """
        client = self.client(service)

        def call() -> Any:
            if not items:
                return getattr(client, method)(**request)
            pages = client.get_paginator(method).paginate(**request)
            return [item for page in pages for item in page.get(items, [])]

        return self.run(what, permission(client, method), call)

    def run(self, what: str, permitted_by: str, call: Callable[[], T]) -> T:
        """Return what `call` returns before the deadline; raises as `ask` does."""
        from botocore.exceptions import (
            ClientError,
            CredentialRetrievalError,
            NoCredentialsError,
            PartialCredentialsError,
            SSOError,
            TokenRetrievalError,
        )

        answer: Future[T] | None = start(call) if self.left else None
        try:
            if answer is None:
                raise TimeoutError
            return answer.result(timeout=self.left)
        except TimeoutError:
            reason = f"no answer within {self.seconds:g} s"
        except (
            NoCredentialsError,
            PartialCredentialsError,
            CredentialRetrievalError,
            SSOError,
            TokenRetrievalError,
        ):
            raise
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if NO_CREDENTIALS.match(code):
                raise
            if ABSENT.search(code):
                raise Absent(code) from None
            reason = aws.explain(error) or code
        except BatchregError as error:
            reason = str(error)
        except Exception as error:  # a response of an unexpected form
            reason = aws.explain(error) or type(error).__name__
        # The first failure of a permission says what the others would.
        self.gaps.setdefault(
            (what, permitted_by), Gap(what=what, permission=permitted_by, reason=reason)
        )
        raise Unseen(what)

    def miss(self, what: str, whom: str) -> None:
        """Note that something did not arrive in time."""
        gap = Gap(what=what, permission=whom, reason=f"no answer within {self.seconds:g} s")
        self.gaps.setdefault((what, whom), gap)

    def client(self, service: str) -> Any:
        """Return a client; sessions of boto3's make them one at a time."""
        with self._lock:
            if service not in self._made:
                self._made[service] = self._clients(service)
            return self._made[service]


def permission(client: Any, method: str) -> str:
    """Return the IAM action that a method needs, such as ec2:DescribeRouteTables."""
    return f"{client.meta.service_model.signing_name}:{client.meta.method_to_api_mapping[method]}"


def name_of(arn: str) -> str:
    """Return the name in an ARN of Batch, IAM or ECS, or the name that it already is."""
    return arn.rsplit("/", 1)[-1]

"""A proxy between a program and the embedded AWS: keeps what is sent, and lets a test step in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from lab.forwarder import Call, Forwarder, Reply

Step = Callable[[str, int], None]  # is told the operation, and how often it has come by now


def _nothing(operation: str, count: int) -> None:
    pass


class Wire(Forwarder):
    """Serves on `endpoint` what `target` answers.

    `before` is called when a request is there, `after` when its answer is; `answer` may change the
    answer's body.
    """

    def __init__(
        self,
        target: str,
        before: Step = _nothing,
        after: Step = _nothing,
        answer: Callable[[str, bytes], bytes] = lambda operation, body: body,
    ) -> None:
        super().__init__(target)
        self.endpoint = self.url
        self.sent: list[Call] = []
        self._steps, self._answer, self._counts = (before, after), answer, Counter[str]()

    def before(self, call: Call) -> None:
        self._counts[call.operation] += 1
        self.sent.append(call)
        self._steps[0](call.operation, self._counts[call.operation])

    def after(self, call: Call, reply: Reply) -> Reply:
        body = self._answer(call.operation, reply.body)
        self._steps[1](call.operation, self._counts[call.operation])
        return replace(reply, body=body)

"""No part of a secret shows anywhere but in ecs.config."""

import base64
import contextlib
import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from program import Instance, Run
from secrets_server import ROLE_KEYS, fail, reset, text

CANARY_USER, CANARY = f"user{uuid.uuid4().hex}", f"Pass{uuid.uuid4().hex}"
NEEDLES = [
    needle.lower()
    for plain in (CANARY, CANARY_USER, f"{CANARY_USER}:{CANARY}")
    for needle in (plain, base64.b64encode(plain.encode()).decode())
] + [ROLE_KEYS.secret_key.lower(), ROLE_KEYS.token.lower()]


def canary(**changes: object) -> str:
    fields = {"username": CANARY_USER, "password": CANARY, "registry_url": "ghcr.io", **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not None})


CANARY_SECRETS = {
    "good": canary(),
    "cut off": canary()[:-2],
    "not JSON": f"{CANARY_USER}:{CANARY}",
    "a list": json.dumps([CANARY_USER, CANARY]),
    "no username": canary(username=None, user=CANARY_USER),
    "no password": canary(password=None, pass_word=CANARY),
    "colon in username": canary(username=f"{CANARY_USER}:x"),
    "NUL": canary(password=f"{CANARY}\0"),
    "half a surrogate": canary(password=f"{CANARY}\ud800"),
    "password is a list": canary(password=[CANARY]),
    "nested too deep": "[" * 100_000 + CANARY,
    "login in the URL": canary(registry_url=f"https://{CANARY_USER}:{CANARY}@ghcr.io"),
    "password in the URL's path": canary(registry_url=f"https://myhost/{CANARY}"),
}
CANARY_STEPS = {
    "HTML": text(200, f"<html>{CANARY_USER} {CANARY}</html>"),
    "cut off answer": text(200, json.dumps({"SecretString": canary()}), missing=5),
    "denied, in many words": fail(400, "AccessDeniedException", canary()),
    "an odd answer": text(200, json.dumps([canary()])),
    "an odd error": text(400, json.dumps({"message": canary()})),
    "reset": reset,
}


def everywhere(instance: Instance, run: Run, seen: set[str]) -> Iterator[tuple[str, str]]:
    """Yield (where, what) for each place where a secret could show."""
    yield "stdout", run.out
    yield "stderr", run.err
    yield "processes", "\n".join(seen)
    for path in instance.directory.rglob("*"):
        yield "file names", path.name
        if path.is_file() and path != instance.config:
            yield path.name, path.read_text()


def watched(instance: Instance, *secret_ids: str, **choices: object) -> list[str]:
    """Run the program under the eyes of a thread that samples all processes; return the leaks."""
    seen, over = set(), threading.Event()

    def watch() -> None:
        while not over.wait(0.005):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # it ended
                    seen.add(path.read_text(errors="replace"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run = instance.run(*secret_ids, **choices)
    finally:
        over.set()
        watcher.join()
    assert any(str(instance.script) in line for line in seen)  # it was really looking
    assert "Traceback" not in run.err
    return [
        where
        for where, what in everywhere(instance, run, seen)
        if any(needle in what.lower() for needle in NEEDLES)
    ]


@pytest.mark.parametrize("value", [*CANARY_SECRETS.values()], ids=CANARY_SECRETS)
def test_no_part_of_a_secret_shows(instance, server, value):
    """The console, the journal and the process list have more readers than the secret."""
    server.secrets["canary"] = value
    assert watched(instance, "hub", "canary") == []


@pytest.mark.parametrize("step", [*CANARY_STEPS.values()], ids=CANARY_STEPS)
def test_no_part_of_an_answer_shows(instance, server, step):
    """An answer may quote the secret, and an error message the signed request."""
    server.play("canary", then=step)
    assert watched(instance, "hub", "canary", deadline=0.5) == []


def test_no_part_of_a_refused_signature_shows(instance, server):
    """AWS quotes the headers that it expected, session token included."""
    server.secrets["canary"] = canary()
    server.clock_ahead = 600
    assert watched(instance, "canary", deadline=0.1) == []


def test_no_part_of_a_secret_shows_on_a_full_disk(instance, server):
    """Nor does it stay in a scratch file."""
    server.secrets["canary"] = canary()
    instance.config.write_bytes(b"A=1\n" * 5_000)
    assert watched(instance, "canary", shell="ulimit -f 8") == []


def test_no_part_of_a_secret_shows_on_an_unexpected_error(instance, server):
    """A traceback would show the line, and some show its values."""
    server.secrets["canary"] = canary()
    instance.config.mkdir()
    assert watched(instance, "canary") == []

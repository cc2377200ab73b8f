"""What the program waits for, because it may pass."""

import signal
import socket
import time

import pytest
from program import ROLE_AWAY, Instance, secret
from secrets_server import (
    DENIED,
    NO_ROLE,
    REGION,
    THROTTLED,
    USER_KEYS,
    SecretsServer,
    drip,
    fail,
    hang,
    reset,
    slow,
    text,
)

from batchreg.registry_login import SecretsManager


def test_a_role_that_is_not_there_yet_is_awaited(instance, server):
    """Right after boot the metadata service answers 404 for the role."""
    server.play("role", NO_ROLE, NO_ROLE)
    assert instance.run("ghcr").code == 0
    assert (server.count("role"), server.count("ghcr")) == (3, 1)


@pytest.mark.parametrize("place", ["token", "role", "keys"])
@pytest.mark.parametrize(
    "step",
    [
        text(500, "<html>"),
        text(503, ""),
        text(200, "<html>busy</html>\n <b>"),
        text(200, '{"Code": "Failed"}'),
        reset,
    ],
    ids=["500", "503", "HTML", "failed", "reset"],
)
def test_a_metadata_service_that_stumbles_is_asked_again(read, server, place, step):
    """It serves every container on the machine, and boots with it."""
    server.play(place, step)
    assert read("ghcr") == ({"ghcr": secret()}, {})


def test_slow_metadata_are_awaited(instance, server):
    """A second and a half is slow, not dead."""
    server.play("keys", slow(1.5))
    assert instance.run("ghcr").code == 0
    assert server.count("keys") == 1


def test_silent_metadata_are_asked_again(instance, server):
    """One lost packet must not use up the whole boot."""
    server.play("token", hang)
    run = instance.run("ghcr")
    assert run.code == 0
    assert run.seconds > 2  # its time-out


def test_the_wait_names_its_reason_once(read, server, capsys):
    """The console shows what an instance waits for, not the same line a hundred times."""
    server.play("role", NO_ROLE, NO_ROLE)
    read("ghcr")
    assert capsys.readouterr().err.splitlines() == [
        "batchreg: waiting for ghcr: no role on this instance (metadata answers HTTP 404)"
    ]


def test_access_that_is_granted_late_is_awaited(instance, server):
    """A new role takes seconds to spread through AWS."""
    server.play("ghcr", DENIED, DENIED)
    assert instance.run("ghcr").code == 0
    assert server.count("ghcr") == 3


def test_access_denied_asks_for_fresh_keys(read, server):
    """The keys at hand may be what is wrong."""
    server.play("ghcr", DENIED)
    read("ghcr")
    assert server.count("keys") == 2


def test_throttling_is_waited_out(read, server):
    """A whole fleet boots in one moment."""
    server.play("ghcr", *[THROTTLED, fail(429, "TooManyRequestsException")] * 3)
    assert read("ghcr") == ({"ghcr": secret()}, {})


@pytest.mark.parametrize(
    "step",
    [
        fail(500, "InternalServiceError"),
        fail(400, "com.amazon.coral.service#ExpiredTokenException"),
        text(503, "<html>Service Unavailable</html>"),
        text(200, "<html>Please log in</html>"),
        text(200, "[]"),
        text(200, "null"),
        text(200, ""),
        text(200, '{"SecretString": "', missing=20),
        text(400, '{"message": "no type"}'),
        text(400, '{"__type": 5}'),
        reset,
    ],
    ids=[
        "500",
        "expired",
        "503 HTML",
        "HTML",
        "list",
        "null",
        "empty",
        "cut off",
        "no type",
        "odd type",
        "reset",
    ],
)
def test_a_bad_answer_is_not_the_last_word(read, server, step):
    """Whatever stands between the instance and AWS may pass."""
    server.play("ghcr", step)
    assert read("ghcr") == ({"ghcr": secret()}, {})


def test_an_endpoint_that_comes_up_late_is_awaited(tmp_path):
    """The VPC endpoint may be younger than the instance."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        late = SecretsServer({"ghcr": secret()}, port=placeholder.getsockname()[1])
    instance = Instance(tmp_path, late)
    with instance.start(instance.command("ghcr"), ROLE_AWAY) as process:
        assert "Connection refused" in process.stderr.readline()
        with late:
            process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_silent_endpoint_fails_at_the_deadline(instance, server):
    """A packet filter that drops everything must not hold the boot for ever."""
    server.play("ghcr", then=hang)
    run = instance.run("ghcr", deadline=1)
    assert (run.code, run.lines[-1]) == (1, "batchreg: ghcr: timed out")
    assert run.seconds < 10


def test_an_answer_byte_by_byte_ends_with_the_program(instance, server):
    """No time-out sees it, so that an alarm ends the attempt; it does not cost the other login."""
    server.play("hub", then=drip)
    run = instance.run("hub", "ghcr", deadline=1)
    assert (run.code, list(instance.logins)) == (1, ["ghcr.io"])
    assert run.lines[-1] == "batchreg: hub: no answer in time"
    assert run.seconds < 20


def test_a_program_that_was_stopped_while_it_waited_uses_what_it_has(instance, server):
    """An alarm that went off meanwhile is for requests alone."""
    server.play("hub", then=THROTTLED)
    with instance.start(instance.command("hub", "ghcr", deadline=6), {}) as process:
        assert "waiting for hub" in process.stderr.readline()
        time.sleep(0.3)  # into the pause, or the next one
        process.send_signal(signal.SIGSTOP)
        time.sleep(13)
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=60)
    assert (process.returncode, list(instance.logins)) == (1, ["ghcr.io"])


def test_a_request_that_hangs_is_sent_again(server):
    """One lost connection must not use up the whole boot."""
    server.play("ghcr", hang)
    reader = SecretsManager(REGION, server.url)
    reader.keys = {
        "AccessKeyId": USER_KEYS.access_key,
        "Token": None,
        "SecretAccessKey": USER_KEYS.secret_key,
    }
    with pytest.raises(TimeoutError):
        reader.read("ghcr", 1)
    assert reader.read("ghcr", 1) == secret()


@pytest.mark.parametrize("ahead", [600, -600])
def test_a_clock_that_is_off_costs_one_request(instance, server, ahead):
    """Boot comes before the time is set, and AWS refuses signatures of another time."""
    server.clock_ahead = ahead
    assert instance.run("ghcr").code == 0
    assert server.count("ghcr") == 2

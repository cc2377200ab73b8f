"""Later runs of the program: what changes, and what stays."""

import subprocess

import pytest
from program import PASSWORD, RESTART, secret
from secrets_server import DENIED, THROTTLED, fail, reset, text

from batchreg import registry_login
from batchreg.registry_login import HUB


@pytest.mark.parametrize("more", [b"", b"ECS_CLUSTER=blue\n"], ids=["alone", "foreign line after"])
def test_unchanged_secrets_touch_nothing(instance, more):
    """Every half hour, on every instance: no write, no restart of the agent."""
    instance.run("ghcr", "hub")
    with instance.config.open("ab") as file:
        file.write(more)
    instance.calls_file.unlink()
    before, content = instance.config.stat(), instance.config.read_bytes()
    run = instance.run("ghcr", "hub")
    after = instance.config.stat()
    assert (run.code, run.err, instance.systemctl_calls) == (0, "", [])
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert instance.config.read_bytes() == content


@pytest.mark.parametrize("ids", [("ghcr", "hub"), ("hub", "ghcr")])
def test_the_order_of_the_secrets_is_no_change(instance, ids):
    """A restart of the agent for nothing is a disturbance."""
    instance.run("ghcr", "hub")
    instance.calls_file.unlink()
    instance.run(*ids)
    assert instance.systemctl_calls == []


def test_a_changed_password_restarts_the_agent_once(instance, server):
    """The agent reads ecs.config only as it starts (amazon-ecs-agent #423)."""
    instance.run("ghcr")
    instance.calls_file.unlink()
    server.secrets["ghcr"] = secret(password="new")
    instance.run("ghcr")
    assert (instance.systemctl_calls, instance.logins) == ([RESTART], {"ghcr.io": "ada:new"})


def test_a_secret_no_longer_asked_for_goes(instance):
    """A login that was withdrawn must not live on."""
    instance.run("ghcr", "hub")
    instance.run("hub")
    assert instance.logins == {HUB: "bob:b"}


@pytest.mark.parametrize(
    ("value", "problem"),
    [("oops", "it is not JSON text like"), (None, "HTTP 400 ResourceNotFoundException")],
    ids=["not JSON", "missing"],
)
def test_a_broken_secret_does_not_cost_the_other(instance, server, value, problem):
    """Half of the images can be pulled: better than none, and the rest is named."""
    del server.secrets["ghcr"]
    if value:
        server.secrets["ghcr"] = value
    run = instance.run("ghcr", "hub")
    assert (run.code, instance.logins) == (1, {HUB: "bob:b"})
    named = [line for line in run.lines if "ghcr" in line]
    assert len(named) == 1
    assert named[0].startswith(f"batchreg: ghcr: {problem}")


@pytest.mark.parametrize(
    "step",
    [fail(400, "ResourceNotFoundException"), DENIED, reset, text(200, '{"SecretString": "{}"}')],
    ids=["deleted", "denied", "unreachable", "empty"],
)
def test_a_secret_that_breaks_keeps_its_old_login(instance, server, step):
    """A refresh that fails must not take away what works."""
    instance.run("ghcr", "hub")
    server.play("ghcr", then=step)
    server.secrets["hub"] = secret("bob", "new", "docker.io")
    assert instance.run("ghcr", "hub", deadline=0.5).code == 1
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD, HUB: "bob:new"}


def test_secrets_that_all_break_leave_the_file_alone(instance, server):
    """The old logins may still work; none at all do not."""
    instance.run("ghcr", "hub")
    before, content = instance.config.stat(), instance.config.read_bytes()
    server.secrets.clear()
    assert instance.run("ghcr", "hub").code == 1
    assert (instance.config.stat().st_ino, instance.config.read_bytes()) == (before.st_ino, content)


def test_two_logins_for_one_registry_are_refused(instance, server):
    """The agent takes one key a host; a second would win at random."""
    server.secrets["ghcr2"] = secret("eve", "x", "https://GHCR.io/")
    run = instance.run("ghcr", "ghcr2")
    assert (run.code, instance.logins) == (1, {"ghcr.io": "ada:" + PASSWORD})
    assert run.lines[-1] == "batchreg: ghcr2: another secret has other credentials for ghcr.io"


def test_logins_are_no_longer_than_a_variable_can_be():
    """The agent gets them in one, and does not start where the kernel refuses it."""

    def started(length: int) -> bool:
        try:
            subprocess.run(["true"], env={"ECS_ENGINE_AUTH_DATA": "x" * length}, check=True)
        except OSError:
            return False
        return True

    assert started(registry_login.MAX_AUTH_CHARS)
    assert not started(registry_login.MAX_AUTH_CHARS + 100)


def test_login_that_no_longer_fits_does_not_cost_the_others(instance, server):
    """It is named; nine with the longest parameters that CloudFormation takes do fit."""
    nine = [str(number) for number in range(9)]
    for number in nine:
        server.secrets[number] = secret("\x7f" * 4096, "x" * 4096, f"r{number}.example.com:50000")
    assert instance.run(*nine).code == 0
    server.secrets["a"] = secret("u", "x" * 49_000, "a.example.com")
    server.secrets["b"] = secret("v", "new", "b.example.com")
    run = instance.run(*nine, "a", "b")
    assert (run.code, run.lines[1:]) == (
        1,
        ["batchreg: a: with it, the credentials are too long; credentials that work stay"],
    )
    assert instance.logins["b.example.com"] == "v:new"
    assert len(instance.logins) == 10


def test_login_that_grows_does_not_push_the_agent_over_the_limit(instance, server):
    """With what the file has of a secret that no longer fits: then all stays as it is."""
    server.secrets["quay"] = secret("u", "x" * 60_000, "quay.io")
    assert instance.run("ghcr", "quay").code == 0
    before, calls = instance.config.read_bytes(), instance.systemctl_calls
    server.secrets["ghcr"] = secret("u", "y" * 50_000)
    run = instance.run("ghcr", "quay")
    assert (run.code, len(run.lines)) == (1, 1)
    assert run.lines[0].endswith(
        "ecs.config: it is unchanged: the credentials are too long; credentials that work stay"
    )
    assert (instance.config.read_bytes(), instance.systemctl_calls) == (before, calls)


def test_one_long_login_in_two_secrets_counts_once(instance, server):
    """They are one entry."""
    server.secrets["again"] = server.secrets["ghcr"] = secret("u", "x" * 60_000)
    assert instance.run("ghcr", "again").code == 0


def test_which_of_two_logins_wins_is_no_matter_of_luck(instance, server):
    """One throttled request would hand the registry to the other secret, and restart the agent."""
    server.secrets["ghcr2"] = secret("eve", "x")
    server.play("ghcr", THROTTLED)
    instance.run("ghcr", "ghcr2")
    assert instance.logins == {"ghcr.io": "ada:" + PASSWORD}

"""What the program does with an agent that has no credentials, and in which order."""

import json
import subprocess
import sys
import time

import pytest
from program import OURS, RESTART, Instance, agent_logins, secret
from secrets_server import DENIED, SecretsServer

PARKING = b"HTTP_PROXY=127.0.0.1:9\nNO_PROXY=ecs.eu-central-1.amazonaws.com,169.254.169.254\n"
NOT_FOUND = "gone: HTTP 400 ResourceNotFoundException"
START, STOP = (f"--no-block {verb} batchreg-retry.timer" for verb in ("start", "stop"))


@pytest.fixture
def parked(instance: Instance) -> Instance:
    """An instance whose program knows how to park, and that finds no secret."""
    (instance.directory / "parking").write_bytes(PARKING)
    return instance


def state(instance: Instance) -> dict[str, object]:
    return json.loads((instance.directory / "state").read_text())


def run(instance: Instance, *secret_ids: str, on_failure: str = "park", **choices: object):
    options = (f"--on-failure={on_failure}", f"--state={instance.directory}/state")
    return instance.run(*secret_ids, options=options, **choices)


def test_agent_without_credentials_is_parked_once(parked):
    """Two lines, one restart of an agent that may be running, one line on the console."""
    parked.config.write_bytes(b"ECS_CLUSTER=blue")
    first = run(parked, "gone")
    assert (first.code, first.lines) == (1, [f"batchreg: parked: {NOT_FOUND}"])
    assert parked.config.read_bytes() == b"ECS_CLUSTER=blue\n" + PARKING
    assert parked.systemctl_calls == [RESTART, START]
    again = run(parked, "gone")
    assert (again.code, again.lines, parked.systemctl_calls) == (1, [], [RESTART, START])


def test_another_reason_is_said(parked, server):
    """The newest line on the console is the one to act on."""
    run(parked, "gone")
    server.play("gone", then=DENIED)
    assert run(parked, "gone", deadline=0.1).lines == [
        "batchreg: parked: gone: HTTP 400 AccessDeniedException"
    ]


def test_agent_is_released_with_its_credentials_in_one_step(parked, server):
    """And only once; the two lines go, all others stay."""
    parked.config.write_bytes(b"ECS_CLUSTER=blue\n")
    run(parked, "gone")
    server.secrets["gone"] = secret()
    released = run(parked, "gone")
    assert (released.code, released.lines) == (
        0,
        [f"batchreg: {parked.config} has the credentials for ghcr.io", "batchreg: released"],
    )
    assert b"_PROXY" not in parked.config.read_bytes()
    assert parked.config.read_bytes().startswith(b"ECS_CLUSTER=blue\n")
    assert parked.systemctl_calls == [RESTART, START, RESTART, STOP]
    assert run(parked, "gone").lines == []
    assert parked.systemctl_calls == [RESTART, START, RESTART, STOP]


def test_agent_with_somebodys_credentials_is_released(parked):
    """It is not ours to keep it parked for ever."""
    run(parked, "gone")
    with parked.config.open("ab") as file:
        file.write(OURS)
    assert run(parked, "gone").lines == [
        "batchreg: released",
        f"batchreg: {NOT_FOUND}; credentials that work stay",
    ]
    assert parked.config.read_bytes() == OURS


def test_one_secret_of_two_is_enough(parked):
    """The instance works for the registries that it has credentials for."""
    assert run(parked, "gone", "ghcr").code == 1
    assert b"_PROXY" not in parked.config.read_bytes()
    assert START not in parked.systemctl_calls


def test_running_agent_that_had_credentials_is_not_restarted_without(parked, server):
    """It has them in memory: the lines are for its next start alone."""
    run(parked, "ghcr")
    parked.config.unlink()
    server.secrets.clear()
    calls = parked.systemctl_calls
    assert run(parked, "ghcr").lines[-1].startswith("batchreg: parked: ghcr: ")
    assert parked.config.read_bytes() == PARKING
    assert parked.systemctl_calls == [*calls, START]
    server.secrets["ghcr"] = secret()
    run(parked, "ghcr")
    assert (parked.logins.keys(), parked.systemctl_calls) == (
        {"ghcr.io"},
        [*calls, START, RESTART, STOP],
    )


@pytest.mark.parametrize("line", [b"HTTPS_PROXY=http://p:1", b"http_proxy=p", b"NO_PROXY = x"])
def test_somebodys_proxy_is_left_alone(parked, line):
    """The instance cannot be parked: it holds the agent and tries until it gives up."""
    parked.config.write_bytes(line + b"\n")
    held = run(parked, "gone", deadline=0.1, patience=0)
    assert held.lines == [
        f"batchreg: cannot park the agent, ecs.config has proxy settings: {NOT_FOUND}",
        "batchreg: no registry credentials: powering off",
    ]
    assert parked.config.read_bytes() == line + b"\n"
    assert parked.systemctl_calls == [START, "--no-block poweroff"]


def test_comment_about_a_proxy_is_no_proxy(parked):
    """Examples come with one."""
    parked.config.write_bytes(b"#HTTP_PROXY=http://proxy\n")
    assert run(parked, "gone").lines == [f"batchreg: parked: {NOT_FOUND}"]


@pytest.mark.parametrize(
    ("late", "ends"), [(-5, False), (100, False), (301, True)], ids=["early", "waits", "ends"]
)
def test_instance_that_has_not_registered_gets_five_minutes_more(parked, late, ends):
    """An environment that no instance ever joins is lost for good."""
    run(parked, "gone")
    path = parked.directory / "state"
    path.write_text(json.dumps({**state(parked), "until": time.monotonic() - late}))
    said = run(parked, "gone").lines
    assert (said == ["batchreg: no registry credentials: powering off"]) is ends
    assert ("--no-block poweroff" in parked.systemctl_calls) is ends


def test_joining_instance_says_why_and_goes_on(parked, server):
    """Nothing is written, nothing powers off, and credentials still come."""
    joined = run(parked, "gone", on_failure="join", patience=0)
    assert (joined.code, joined.lines) == (
        1,
        [f"batchreg: continuing without credentials: {NOT_FOUND}"],
    )
    assert (parked.config.exists(), parked.systemctl_calls) == (False, [START])
    assert run(parked, "gone", on_failure="join", patience=0).lines == []
    server.secrets["gone"] = secret()
    assert run(parked, "gone", on_failure="join").code == 0
    assert parked.systemctl_calls == [START, RESTART, STOP]


def test_full_disk_is_a_reason_to_hold_the_agent(parked):
    """There is no room for the two lines either."""
    old = b"A=1\n" * 5_000
    parked.config.write_bytes(old)
    held = run(parked, "ghcr", shell="ulimit -f 8", patience=0)
    assert held.lines[0].startswith("batchreg: cannot park the agent, File too large: ")
    assert "powering off" in held.lines[-1]
    assert (parked.config.read_bytes(), parked.scratch_files) == (old, [])


# Killed at any moment, line by line

KILLER = """
import json, os, signal, sys
sys.path[0] = sys.argv[1]
from batchreg import registry_login

NAMES = {"release", "restart", "note", "park", "do_without", "edit", "put", "replace", "enqueue"}

def run(limit):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        if frame.f_code.co_name not in NAMES or "registry_login" not in frame.f_code.co_filename:
            return None
        lines += event == "line"
        if lines == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    os._exit(registry_login.main(sys.argv[3:]))

run(int(sys.argv[2]))
"""


@pytest.mark.parametrize("released", [False, True], ids=["parking", "releasing"])
def test_run_that_is_killed_is_made_good_by_the_next(tmp_path, released):
    """Never both parked and with credentials, nor an agent that has not read its file again."""
    limit, killed = 0, True
    while killed:
        limit += 3  # every third line, in some seconds
        with SecretsServer({}) as server:
            instance = Instance(tmp_path / str(limit), server)
            (instance.directory / "parking").write_bytes(PARKING)
            instance.config.write_bytes(b"ECS_CLUSTER=blue\n")
            if released:
                run(instance, "ghcr")
                instance.calls_file.unlink()
                server.secrets["ghcr"] = secret()
            options = ("--on-failure=park", f"--state={instance.directory}/state")
            command = instance.command("ghcr", options=options)[2:]
            done = subprocess.run(
                [sys.executable, "-c", KILLER, str(instance.directory), str(limit), *command],
                env=instance.environment({}),
                capture_output=True,
            )
            killed = done.returncode < 0
            now = instance.config.read_bytes()
            assert now in (b"ECS_CLUSTER=blue\n", b"ECS_CLUSTER=blue\n" + PARKING) or (
                released and agent_logins(now) and b"_PROXY" not in now
            )
            run(instance, "ghcr")
            then = instance.config.read_bytes()
            if released:
                assert b"_PROXY" not in then
                assert agent_logins(then).keys() == {"ghcr.io"}
                assert STOP in instance.systemctl_calls
            else:
                assert then == b"ECS_CLUSTER=blue\n" + PARKING
                assert START in instance.systemctl_calls
            assert RESTART in instance.systemctl_calls
            assert not state(instance).get("restart")
    assert limit > 40

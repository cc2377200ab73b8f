"""The program is killed at any moment."""

import json
import subprocess
import sys

import pytest
from program import AUTHS, OLD, OURS

KILLER = """
import json, os, signal, sys
from pathlib import Path
from batchreg.registry_login import put

path, old, auths = Path(sys.argv[1]), sys.argv[2].encode(), json.loads(sys.argv[3])

def put_until(limit):
    lines = 0
    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines == limit:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    put(path, auths, (), True)
    sys.settrace(None)

limit = status = 1
while status:
    path.write_bytes(old)
    path.chmod(0o644)
    child = os.fork()
    if not child:
        put_until(limit)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    now = path.read_bytes()
    left = [file for file in path.parent.iterdir() if file != path]
    modes = [file.stat().st_mode & 0o777 for file in left]
    put(path, auths, (), True)
    then = path.read_bytes()
    for file in left:
        file.unlink()
    print(json.dumps([status, now.decode(), modes, then.decode()]))
    limit += 1
"""


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, bytes, list[int], bytes]]:
    """Kill `put` at its first traced line, its second and so on, until it lives to its end.

    Each is (status, ecs.config afterwards, modes of other files, ecs.config after a whole run).
    """
    directory = tmp_path_factory.mktemp("killed")
    old = b"A=1\n" + OLD
    run = subprocess.run(
        [sys.executable, "-c", KILLER, directory / "ecs.config", old, json.dumps(AUTHS)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    found = map(json.loads, run.stdout.splitlines())
    return [(status, now.encode(), modes, then.encode()) for status, now, modes, then in found]


def test_the_killer_kills_before_and_after_the_change(kills):
    """Else the three tests below would prove nothing."""
    killed = [now for status, now, _, _ in kills if status]
    assert (killed[0], killed[-1]) == (b"A=1\n" + OLD, b"A=1\n" + OURS)
    assert any(modes for _, _, modes, _ in kills)


def test_a_kill_leaves_the_old_file_or_the_new_one(kills):
    """Power may go at any moment, and the next boot must find its cluster."""
    assert {now for _, now, _, _ in kills} == {b"A=1\n" + OLD, b"A=1\n" + OURS}


def test_a_kill_leaves_nothing_that_others_can_read(kills):
    """A scratch file that survives holds the password too."""
    assert {file for _, _, modes, _ in kills for file in modes} == {0o600}


def test_the_run_after_a_kill_succeeds(kills):
    """Nobody comes to clean up an instance."""
    assert {then for _, _, _, then in kills} == {b"A=1\n" + OURS}

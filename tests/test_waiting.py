"""What batchreg says while it waits, how long it waits, and what it leaves behind."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from types import SimpleNamespace

import pytest
from account import BATCHREG, LOGIN, Account
from lab.environ import clean
from terminal import Terminal

from batchreg import aws, waiting
from batchreg.attach.following import until_settled
from batchreg.cli.commands import cli
from batchreg.cli.console import TextScreen
from batchreg.cli.job_watch import JobWatch
from batchreg.errors import BatchregError
from batchreg.jobs.batch import State
from batchreg.waiting import TimedOut, Wait, limited

JOB = "11112222-3333-4444-5555-666677778888"
# Every command that calls AWS.
COMMANDS = (
    "attach x --yes --no-check",
    f"cancel {JOB}",
    "check --stack-name lab ghcr.io/lab/align",
    "deploy --yes --no-check",
    "destroy --yes",
    "detach x --yes",
    "doctor",
    "doctor --queue x",
    "engine nextflow",
    "image ghcr.io/lab/align",
    "job-definition --stack-name lab ghcr.io/lab/align",
    "list",
    f"logs {JOB}",
    f"logs --follow {JOB}",
    "rotate --yes",
    "status",
    "status --queue x",
    "submit ghcr.io/lab/align",
)


# --- A dead endpoint ---


@pytest.mark.parametrize("seconds", [0.0, aws.CONNECT_SECONDS, aws.READ_SECONDS])
def test_endpoint_that_never_answers_takes_at_most_15_seconds(seconds):
    """A closed port, a black hole, a server that hangs: each attempt takes so long."""
    watched = aws._Calls("")
    now, attempts = 0.0, 0
    while True:
        now, attempts = now + seconds, attempts + 1
        wait = Wait("", began=time.monotonic() - now)
        try:
            watched.give_up(
                endpoint=SimpleNamespace(host="a"),
                response=None,
                attempts=attempts,
                caught_exception=TimeoutError(),
                request_dict={"context": {"batchreg": wait}},
            )
        except TimeoutError:
            break
        now += 2 ** (attempts - 1)  # the longest pause of botocore's
    assert now <= aws.DEAD_SECONDS
    assert attempts >= (1 if seconds == aws.READ_SECONDS else 2)


def test_endpoint_that_has_answered_before_gets_all_attempts():
    """A network that is away for a moment is not a dead endpoint."""
    watched = aws._Calls("")
    event = {
        "endpoint": SimpleNamespace(host="a"),
        "attempts": 5,
        "request_dict": {"context": {"batchreg": Wait("", began=time.monotonic() - 60)}},
    }
    watched.give_up(response=("fine", {}), caught_exception=None, **event)
    watched.give_up(response=None, caught_exception=TimeoutError(), **event)
    event["endpoint"] = SimpleNamespace(host="b")
    with pytest.raises(TimeoutError):
        watched.give_up(response=None, caught_exception=TimeoutError(), **event)


@pytest.mark.parametrize("line", COMMANDS)
def test_closed_port_is_one_line_with_the_address_the_region_and_the_profile(line, monkeypatch):
    """Whichever call comes first; what is wrong is one of the three."""
    for name, value in {
        **LOGIN,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    arguments = [*line.split(" -- ")[0].split(), "--region", "eu-west-3"]
    with pytest.raises(Exception) as failure:  # noqa: PT011  its line is what counts
        cli.main(
            [*arguments, "--endpoint-url", "http://127.0.0.1:1"], "batchreg", standalone_mode=False
        )
    text = aws.explain(failure.value) or str(failure.value)
    assert "http://127.0.0.1:1" in text
    assert "(region eu-west-3, profile default)" in text
    assert text.count("Check the network, the proxy, --region and --endpoint-url.") == 1
    assert not aws.is_transient(failure.value)


# --- A line after two seconds ---


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def open_terminal(tmp_path) -> Iterator[object]:
    with ExitStack() as terminals:

        def run(*arguments: str, columns: int = 80, **environ: str) -> Terminal:
            given = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", **environ}
            return terminals.enter_context(
                closing(
                    Terminal(
                        BATCHREG,
                        *arguments,
                        environ=clean("COLUMNS", "LINES", **{"TERM": "xterm", **given}),
                        folder=tmp_path,
                        columns=columns,
                    )
                )
            )

        yield run


def test_line_about_a_call_counts_and_goes_with_ctrl_c(open_terminal, silent):
    """At 80 columns it is cut, at 200 it is whole, and a dumb terminal gets it once."""
    long = f"{silent}/{'x' * 40}"
    host = silent.removeprefix("http://")
    run = ("status", "--region", "eu-west-3", "--endpoint-url", long)
    narrow, wide = (open_terminal(*run, columns=columns) for columns in (30, 200))
    dumb = open_terminal(*run, TERM="dumb")
    wide.expect(f"Waiting for http://{host} to answer DescribeStacks  2 s")
    narrow.expect("Waiting for http://...  2 s")
    dumb.expect(f"Waiting for http://{host} to answer DescribeStacks  2 s\r\n")
    wide.expect("  3 s")
    for terminal in (narrow, wide, dumb):
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert terminal.lines[-2] == "batchreg: interrupted; no changes were made."
        assert max(map(len, terminal.lines)) <= 200
    for terminal in (narrow, wide):
        assert [line for line in terminal.screen if "Waiting" in line] == []
    assert dumb.output.count("Waiting") == 1
    assert "\x1b" not in dumb.output


def test_a_registry_is_waited_for_by_name(open_terminal, silent):
    """check asks no AWS, but a registry may take as long."""
    host = silent.removeprefix("http://")
    terminal = open_terminal("check", f"{host}/lab/align:3", columns=100)
    terminal.expect("Waiting for 127.0.0.1 to answer  2 s")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert [line for line in terminal.screen if "Waiting" in line] == []


class Shown:
    """A display that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def show(self, wait: Wait) -> None:
        self.texts.append(wait.text)

    def hide(self) -> None:
        self.texts.append("")


def test_what_a_call_is_part_of_is_shown_before_the_call():
    """The purpose says more than the name of an operation; what has just begun is not shown."""
    shown = Shown()
    waiting.show_on(shown)
    early = time.monotonic() - waiting.SAY_AFTER_SECONDS
    try:
        for text, is_call in (("call", True), ("new call", True), ("work", False), ("new", False)):
            wait = waiting.begin(text, is_call=is_call)
            wait.began = wait.began if "new" in text else early
        time.sleep(2 * waiting.TICK_SECONDS)
        assert {*shown.texts} - {""} == {"work"}
        with waiting.paused():
            shown.texts.clear()
            time.sleep(2 * waiting.TICK_SECONDS)
            assert shown.texts == []
    finally:
        waiting.show_on(None)
    assert shown.texts[-1] == ""


def test_finished_wait_is_not_shown():
    """Nor one that a Ctrl-C has ended."""
    shown = Shown()
    waiting.show_on(shown)
    try:
        with waiting.pending("work"):
            pass
        waiting.begin("interrupted").began -= 60
        waiting.forget()
        time.sleep(2 * waiting.TICK_SECONDS)
        assert {*shown.texts} == {""}
    finally:
        waiting.show_on(None)


# --- A limit ---


def test_limit_counts_from_the_first_wait():
    """Questions before it cost nothing, and the last pause is cut short."""
    sleep = limited(0.1)
    time.sleep(0.15)
    sleep(0.05)
    began = time.monotonic()
    with pytest.raises(
        TimedOut, match=r"AWS has not finished after 0\.1 s\. To continue, run the same"
    ):
        sleep(60)
    assert time.monotonic() - began < 10
    assert limited(None) is time.sleep


@pytest.mark.parametrize(
    ("seconds", "text"), [(45, "45 s"), (120, "2 min"), (185, "3 min 05 s"), (3600, "60 min")]
)
def test_durations_are_short(seconds, text):
    """As in the live view."""
    assert waiting.duration(seconds) == text


@pytest.mark.parametrize("text", ["90", "0s", "soon", "1d", "-1s", "."])
def test_duration_needs_a_unit(batchreg, text):
    """Half an hour must not become half a minute."""
    result = batchreg("destroy", f"--wait-timeout={text}")
    assert result.returncode == 2
    assert f"{text!r} is not a duration, such as 90s, 30m or 2h." in result.stderr


def test_deploy_and_destroy_that_take_too_long_continue_without_us(batchreg, slow_aws, stack):
    """Exit 1 with what goes on and where to look; the same command resumes."""
    environ = {**slow_aws.environ, **LOGIN}
    account = Account(slow_aws, stack)
    name = ("--stack-name", stack, "--yes")
    for verb, left in (("deploy", "CREATE_IN_PROGRESS"), ("destroy", "DELETE_IN_PROGRESS")):
        result = batchreg(verb, *name, "--wait-timeout", "0.2s", environ=environ)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.splitlines()[-1] == (
            f"batchreg: The operation on {stack} has not finished after 0.2 s; it continues. To "
            "resume watching, run the same command again; for its status: batchreg status "
            f"--stack-name {stack}"
        )
        assert account.stack["StackStatus"] == left
        assert batchreg(verb, *name, environ=environ).returncode == 0
    assert account.stack is None


def test_update_of_an_environment_that_takes_too_long_continues():
    """`attach` and `detach` wait for it."""

    def describe(**_: object) -> dict[str, object]:
        return {
            "computeEnvironments": [{"status": "UPDATING", "computeEnvironmentName": "genomics"}]
        }

    with pytest.raises(BatchregError) as failure:
        until_settled(
            SimpleNamespace(describe_compute_environments=describe),
            "arn:x/genomics",
            TextScreen(),
            sleep=limited(0.05),
        )
    assert str(failure.value) == (
        "The update of genomics has not finished after 0.05 s; it continues. To resume watching, run "
        "the same command again; for its status: batchreg status --compute-environment genomics"
    )


# --- A job that waits ---


def test_job_that_waits_long_gets_one_hint(capsys):
    """With the command that finds out why."""
    watch = JobWatch(JOB, TextScreen(), lambda seconds: None, hint_seconds=0)
    watch.sleep(0)
    watch.update(State("SUBMITTED", ""))
    watch.sleep(0)
    assert capsys.readouterr().err == ""
    watch.update(State("RUNNABLE", ""))
    for _ in range(3):
        watch.sleep(0)
    watch.update(State("RUNNABLE", "CannotPullContainerError: denied"))
    assert capsys.readouterr().err == (
        "An instance takes one to three minutes to start. To find out why it waits: "
        f"batchreg doctor --job {JOB}\n"
    )
    watch.close()


def test_job_whose_image_cannot_be_pulled_gets_the_hint_at_once(capsys):
    """One that runs carries the reason of an attempt before."""
    reason = "CannotPullContainerError: denied"
    for status, hint in (("RUNNING", ""), ("STARTING", f"batchreg doctor --job {JOB}\n")):
        watch = JobWatch(JOB, TextScreen(), lambda seconds: None)
        watch.update(State(status, reason))
        watch.close()
        assert capsys.readouterr().err.endswith(hint)


def test_job_that_waits_counts_on_a_terminal_and_can_be_left(open_terminal, made):
    """Ctrl-C and --wait-timeout leave the job alone, and say how to follow and to end it."""
    made.aws.set_jobs("RUNNABLE")
    environ = {name: value for name, value in made.aws.environ.items() if "BATCHREG" not in name}
    run = ("submit", "--stack-name", made.name, "ghcr.io/lab/align")
    followed, limited = (
        open_terminal(*run, *more, **environ) for more in ((), ("--wait-timeout", "3s"))
    )
    followed.expect(" is RUNNABLE  2 s")
    followed.expect(" is RUNNABLE  3 s")
    followed.type("\x03")
    assert followed.wait() == 130
    assert limited.wait() == 1
    for terminal, what in ((followed, "continues."), (limited, "has not finished after 3 s; it")):
        text = "".join(terminal.screen)
        assert re.search(rf"batchreg: [0-9a-f-]{{36}} {what}", text), terminal.screen
        assert [line for line in terminal.screen if "is RUNNABLE  " in line] == []

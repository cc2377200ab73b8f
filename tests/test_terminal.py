"""What a person at a terminal sees and types: prompts, lists, the live view, Ctrl-C."""

from __future__ import annotations

import io
import re
from contextlib import ExitStack, closing
from datetime import UTC, datetime

import pytest
from account import BATCHREG, LOGIN, PASSWORD
from lab.environ import clean
from rich.console import Console
from terminal import ESCAPE, Terminal

from batchreg.cli.console import LiveView
from batchreg.stack.events import Event

NOTHING = "batchreg: interrupted; no changes were made."
COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9\d|10\d)[0-9;]*m")

# What is asked, in order, and an answer to each.
QUESTIONS = [
    ("User name at the registry: ", "lab"),
    ("Password or access token: ", PASSWORD),
    ("Subnets (such as 1,3 or 1-3, all, or ids): ", "1, 3"),
    ("Security groups (such as 1,3 or 1-3, all, or ids): ", "1"),
    ("[y/N]: ", "y"),
]


@pytest.fixture
def open_terminal(account, tmp_path):
    """Run a command of batchreg's for the stack in a terminal, with nothing in the environment."""
    terminals = ExitStack()

    def run(
        command: str, *arguments: str, columns: int = 80, aws=account.aws, **environ: str
    ) -> Terminal:
        kept = clean("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")
        given = {
            name: value for name, value in aws.environ.items() if not name.startswith("BATCHREG_")
        }
        return terminals.enter_context(
            closing(
                Terminal(
                    BATCHREG,
                    command,
                    "--stack-name",
                    account.name,
                    *arguments,
                    environ={**kept, **given, "BATCHREG_NO_CHECK": "1", **environ},
                    folder=tmp_path,
                    columns=columns,
                )
            )
        )

    with terminals:
        yield run


def answer(terminal: Terminal, questions: list[tuple[str, str]]) -> None:
    for question, text in questions:
        terminal.expect(question)
        terminal.type(f"{text}\n")


@pytest.mark.parametrize("columns", [80, 200])
def test_newcomer_answers_five_questions(open_terminal, account, columns):
    """No flag at all: what a stack needs is asked for, shown in lists, and confirmed."""
    terminal = open_terminal("deploy", columns=columns)
    answer(terminal, [*QUESTIONS, ("Save these settings to batchreg.yaml? [y/N]: ", "n")])
    assert terminal.wait() == 0, terminal.output
    ending = terminal.lines[terminal.lines.index(f"{account.name} is up.") + 1 : -2]
    queue = account.outputs["JobQueueArn"]
    assert ending == [
        f"Job queue     {queue.rpartition('/')[2]}",
        f"Submit a job  batchreg submit --stack-name {account.name} docker.io/OWNER/IMAGE",
        f"Engine        batchreg engine nextflow --stack-name {account.name}",
        "Console       https://us-east-1.console.aws.amazon.com/batch/home?region=us-east-1"
        f"#queues/detail/{queue}",
    ]
    assert terminal.stdout == f"{queue.rpartition('/')[2]}\n"
    assert account.secret == {
        "username": "lab",
        "password": PASSWORD,
        "registry_url": "https://index.docker.io/v1/",
    }
    first, _, third = account.aws.subnet_ids
    assert account.parameters["SubnetIDs"] == f"{first},{third}"
    assert PASSWORD not in terminal.output
    assert [line for line in terminal.lines[:-3] if len(line) > columns] == []
    row = next(line.split() for line in terminal.lines if first in line)
    assert row == ["1", first, "us-east-1a", "172.31.0.0/20", "yes"]


def test_slip_is_asked_again(open_terminal, account):
    """A mistyped number or an impossible user name costs one line, not the whole dialogue."""
    terminal = open_terminal("deploy")
    answer(
        terminal,
        [
            (QUESTIONS[0][0], "a:b"),
            ("Error: The user name is empty or has a colon", "lab"),
            QUESTIONS[1],
            (QUESTIONS[2][0], "0"),
            ("Error: write numbers from 1 to 3", "7"),
            ("Error: write numbers from 1 to 3", "1 2"),
            QUESTIONS[3],
            (QUESTIONS[4][0], "n"),
        ],
    )
    assert terminal.wait() == 1
    assert account.stack is None


def test_no_leaves_nothing_behind(open_terminal, account):
    """The question comes after the change set is made, so a no has something to tidy up."""
    terminal = open_terminal("deploy", "--default-vpc", **LOGIN)
    terminal.expect("AWS::Batch::JobQueue")
    answer(terminal, [(f"Create {account.name} in us-east-1, account 123456789012? [y/N]: ", "n")])
    assert terminal.wait() == 1
    assert terminal.lines[-2] == "batchreg: Nothing was created."
    assert account.stack is None


def test_no_to_destroy_leaves_the_stack(open_terminal, made):
    """The list of what would go comes first."""
    terminal = open_terminal("destroy")
    terminal.expect("RegistrySecret")
    answer(terminal, [(f"Destroy {made.name} in us-east-1, account 123456789012? [y/N]: ", "n")])
    assert terminal.wait() == 1
    assert made.stack["StackStatus"] == "CREATE_COMPLETE"


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_ctrl_c_at_a_question_leaves_nothing_behind(open_terminal, account, number):
    """Neither a stack nor a terminal that no longer shows what is typed."""
    terminal = open_terminal("deploy")
    answer(terminal, QUESTIONS[:number])
    terminal.expect(QUESTIONS[number][0])
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert terminal.lines[-2:] == [NOTHING, ""]
    assert terminal.lines[-3].removesuffix("^C").strip() in ("", QUESTIONS[number][0].strip()) or (
        terminal.lines[-3].endswith("^C")
    )
    assert terminal.echoes
    assert account.stack is None


def test_end_of_input_at_a_question_is_an_interrupt_as_well(open_terminal, account):
    """Ctrl-D means the same to many."""
    terminal = open_terminal("deploy")
    terminal.expect(QUESTIONS[0][0])
    terminal.type("\x04")
    assert terminal.wait() == 130
    assert terminal.lines[-2] == NOTHING


def test_live_view_shows_each_resource_once(open_terminal, account):
    """One line a resource that changes in place, the time it took, and nothing wider than 80."""
    terminal = open_terminal("deploy", "--default-vpc", "--yes", **LOGIN)
    assert terminal.wait() == 0, terminal.output
    last = terminal.lines[
        max(
            number
            for number, line in enumerate(terminal.lines)
            if line.startswith(f"{account.name}: ")
        ) :
    ]
    assert re.fullmatch(rf"{account.name}: CREATE_COMPLETE  \d+ s", last[0].rstrip())
    rows = [line.split() for line in last[1:] if line.startswith("+")]
    assert len(rows) == len({row[1] for row in rows}) >= 7
    assert {(row[0], row[2], row[4]) for row in rows} == {("+", "CREATE_COMPLETE", "s")}
    assert COLOUR.search(terminal.output)
    assert [line for line in terminal.lines[:-2] if len(line) > 80] == []


def test_live_view_leaves_out_the_end_of_what_was_replaced():
    """A secret that was deleted and recreated is there, and not DELETE_COMPLETE."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    view = LiveView(console, "batchreg")
    for name, status in (
        ("RegistrySecret", "UPDATE_COMPLETE"),
        ("batchreg", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"),
        ("RegistrySecret", "DELETE_IN_PROGRESS"),
        ("RegistrySecret", "DELETE_COMPLETE"),
        ("CacheRule", "DELETE_IN_PROGRESS"),
        ("CacheRule", "DELETE_COMPLETE"),
    ):
        moment = datetime.now(UTC)
        view.show(Event("", moment, name, "", status, "", "", of_stack=name == "batchreg"))
    view.close()
    last = console.file.getvalue().rpartition("batchreg: ")[2]
    assert re.search("RegistrySecret .*UPDATE_COMPLETE", last)
    assert re.search("CacheRule .*DELETE_COMPLETE", last)


def test_live_view_of_a_failure_ends_with_the_cause_in_one_line(open_terminal, account, vanishing):
    """The row of the resource shows as much of the reason as fits, the last line all of it."""
    terminal = open_terminal(
        "deploy", "--default-vpc", "--subnet-id", vanishing[0], "--yes", **LOGIN, **vanishing[1]
    )
    assert terminal.wait() == 1
    assert terminal.lines[-2].startswith(f"batchreg: {account.name}: ComputeEnvironment (")
    assert any(
        re.match("x +ComputeEnvironment +CREATE_FAILED +0 s +Operation fail", line)
        for line in terminal.lines
    )
    assert [line for line in terminal.lines[:-2] if len(line) > 80] == []


def test_ctrl_c_in_the_live_view_gives_the_cursor_back(open_terminal, account, slow_aws):
    """The view hides the cursor; a shell without one is hard to use."""
    terminal = open_terminal("deploy", "--default-vpc", "--yes", aws=slow_aws, **LOGIN)
    terminal.expect("InstanceRole")
    terminal.expect("CREATE_IN_PROGRESS")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert terminal.lines[-2].startswith(f"batchreg: interrupted; the operation on {account.name}")
    assert terminal.output.rindex("\x1b[?25h") > terminal.output.rindex("\x1b[?25l")


def test_ctrl_c_in_the_live_view_leaves_no_line_twice(open_terminal, account, slow_aws):
    """The terminal shows ^C at the end of the last line, where it must not wrap."""
    terminal = open_terminal("deploy", "--default-vpc", "--yes", aws=slow_aws, **LOGIN)
    terminal.expect("InstanceRole")
    terminal.expect("CREATE_IN_PROGRESS")
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert "^C" in terminal.output
    titles = [line for line in terminal.screen if re.match(rf"(Creating )?{account.name}\b", line)]
    assert len(titles) == 1, terminal.screen


def test_no_color_means_no_colours(open_terminal):
    """https://no-color.org: the live view stays, its colours go."""
    terminal = open_terminal("deploy", "--default-vpc", "--yes", NO_COLOR="1", **LOGIN)
    assert terminal.wait() == 0, terminal.output
    assert not COLOUR.search(terminal.output)
    assert "\x1b[?25l" in terminal.output


def test_dumb_terminal_gets_plain_lines(open_terminal, account):
    """Emacs' shell, a serial console: no cursor to move, and no colours."""
    terminal = open_terminal("deploy", "--default-vpc", "--yes", TERM="dumb", **LOGIN)
    assert terminal.wait() == 0, terminal.output
    assert not ESCAPE.search(terminal.output)
    assert "\x1b" not in terminal.output
    assert any(
        re.fullmatch(r"\d\d:\d\d:\d\d  JobQueue +CREATE_COMPLETE", line) for line in terminal.lines
    )


def test_password_stdin_is_refused_at_a_terminal(open_terminal, account):
    """It would show the password as it is typed."""
    terminal = open_terminal("deploy", "--password-stdin", "--yes")
    assert terminal.wait() == 2
    assert "--password-stdin reads a pipe" in terminal.lines[-2]

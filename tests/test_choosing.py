"""Lists that a person chooses from: VPCs, subnets and security groups."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from contextlib import ExitStack, closing

import pytest
from account import BATCHREG, LOGIN
from hypothesis import given
from hypothesis import strategies as st
from lab.environ import clean
from rich.console import Console
from terminal import Terminal

from batchreg.cli.console import TextScreen
from batchreg.cli.prompts import _places
from batchreg.cli.tables import columns

VPC, SUBNETS = "VPC (a number or an id): ", "Subnets (such as 1,3 or 1-3, all, or ids): "
GROUPS = "Security groups (such as 1,3 or 1-3, all, or ids): "
NAME = "genomics-production-private-subnet-of-the-analysis-team-in-zone-a"


@pytest.fixture(scope="module")
def closed(aws):
    """Another VPC, with a subnet that has no route out: (VPC, subnet)."""
    ec2 = aws.client("ec2")

    def named(kind: str, name: str) -> list[dict[str, object]]:
        return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]

    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/16", TagSpecifications=named("vpc", "labs"))["Vpc"]
    subnet = ec2.create_subnet(
        VpcId=vpc["VpcId"], CidrBlock="10.9.0.0/24", TagSpecifications=named("subnet", NAME)
    )["Subnet"]
    yield vpc["VpcId"], subnet["SubnetId"]
    ec2.delete_subnet(SubnetId=subnet["SubnetId"])
    ec2.delete_vpc(VpcId=vpc["VpcId"])


@pytest.fixture
def choose(aws, stack, tmp_path):
    """Begin a deploy that has all but a network, in a terminal; Ctrl-C ends it."""
    given = {name: text for name, text in aws.environ.items() if not name.startswith("BATCHREG_")}
    environ = {**clean("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM"), **given, **LOGIN}
    command = (BATCHREG, "deploy", "--stack-name", stack)
    with ExitStack() as terminals:

        def begin(columns: int) -> Terminal:
            terminal = Terminal(*command, environ=environ, folder=tmp_path, columns=columns)
            return terminals.enter_context(closing(terminal))

        yield begin


@pytest.mark.parametrize("columns", [80, 200])
def test_subnet_without_a_way_out_is_marked_and_confirmed(aws, closed, choose, columns):
    """No id and no name is ever broken, and a no leads back to the list."""
    vpc, subnet = closed
    terminal = choose(columns)
    terminal.expect(VPC)
    shown = [line.split() for line in terminal.lines]
    assert ["1", aws.vpc_id, "172.31.0.0/16", "default"] in shown
    assert ["2", vpc, "labs", "10.9.0.0/16"] in shown
    terminal.type("1,2\n")
    terminal.expect("Error: write a number from 1 to 2, or an id")
    terminal.type("2\n")
    terminal.expect(SUBNETS)
    words = [word for line in terminal.lines for word in line.split()]
    assert {subnet, NAME, "10.9.0.0/24", "!"} <= {*words}
    terminal.type("all\n")
    terminal.expect(f"Subnet {subnet} has no route out of its VPC.")
    terminal.expect("Use them anyway? [y/N]: ")
    terminal.type("n\n")
    terminal.expect(SUBNETS)
    terminal.type(f"{subnet}\n")
    terminal.expect("Use them anyway? [y/N]: ")
    terminal.type("y\n")
    terminal.expect(GROUPS)
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert terminal.lines[-2] == "batchreg: interrupted; no changes were made."
    rows = [line for line in terminal.lines if NAME in line]
    assert [line.startswith("1 ") for line in rows] == [columns == 200]


def test_vpc_with_a_way_out_asks_for_no_confirmation(aws, closed, choose):
    """Only one of its subnets is chosen here, by its id; a wrong number is asked again."""
    terminal = choose(80)
    terminal.expect(VPC)
    terminal.type(f"{aws.vpc_id}\n")
    for wrong in ("0", "3-9", "everything", "9-3"):
        terminal.expect(SUBNETS)
        terminal.type(f"{wrong}\n")
        terminal.expect("Error: write numbers from 1 to 3, such as 1,3 or 1-3, or all, or ids")
    terminal.expect(SUBNETS)
    terminal.type(f"{aws.subnet_ids[1]}\n")
    terminal.expect(GROUPS)
    terminal.type("\x03")
    assert terminal.wait() == 130
    assert terminal.echoes


WORDS = st.text(st.sampled_from("ab-"), min_size=1, max_size=14)
ROWS = st.lists(st.lists(st.lists(WORDS, max_size=4).map(" ".join), min_size=4, max_size=4))


@given(rows=ROWS, width=st.integers(20, 100))
def test_table_breaks_no_word_and_uses_the_width(rows, width):
    """Words wrap as long as the longest fit side by side; then each cell has a line."""
    screen, out = TextScreen(), io.StringIO()
    screen._console = Console(stderr=True, width=width)
    with contextlib.redirect_stderr(out):
        screen.table(["", "Subnet", "Name", "CIDR"], rows)
    lines = out.getvalue().splitlines()
    words = Counter(out.getvalue().split())
    wanted = Counter(word for row in rows for cell in row for word in cell.split())
    assert wanted <= words
    natural = sum(
        max(map(len, column)) for column in zip(*rows, ["", "Subnet", "Name", "CIDR"], strict=True)
    )
    if natural + 6 <= width:
        assert len(lines) == len(rows) + 1
    if lines and lines[0].split() == ["Subnet", "Name", "CIDR"]:
        assert max(map(len, lines)) <= width


@given(rows=ROWS, width=st.integers(20, 100))
def test_table_on_stdout_breaks_no_word_either(rows, width):
    """The one of `list`, whose rows a pipe gets as lines."""
    rows = [["STACK", "STATE", "REGISTRIES", "WAITING"], *rows]
    lines = list(columns(rows, width))
    wanted = Counter(word for row in rows for cell in row for word in cell.split())
    assert Counter(word for line in lines for word in line.split()) == wanted
    assert len(list(columns(rows, None))) == len(rows)


def test_table_on_stdout_that_does_not_fit_has_no_columns():
    """A terminal would wrap their blanks, and no state would be beside what it is of."""
    rows = [("Stack genomics", "UPDATE_COMPLETE"), ("Secret " + "x" * 70, "exists")]
    assert list(columns(rows, 77)) == [
        "Stack genomics  UPDATE_COMPLETE",
        f"Secret {'x' * 70}  exists",
    ]
    assert next(columns(rows, 200)) == f"{'Stack genomics':<77}  UPDATE_COMPLETE"


IDS = [f"subnet-{letter}" for letter in "abcde"]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("1", [0]),
        ("1-3", [0, 1, 2]),
        ("1 - 3", [0, 1, 2]),
        ("1,3", [0, 2]),
        ("3 1, 3", [2, 0]),
        ("2-3,5", [1, 2, 4]),
        ("ALL", [0, 1, 2, 3, 4]),
        ("subnet-b subnet-d", [1, 3]),
        ("subnet-b, 1", [1, 0]),
        ("subnet-x", []),
        ("", []),
        ("0", []),
        ("1-9", []),
        ("3-1", []),
        ("1-", []),
        ("-1", []),
        ("1, two", []),
        ("²", []),
    ],
)
def test_answer_is_numbers_ranges_all_or_ids(text, places):
    """As people type them; anything else is asked again, whole."""
    assert _places(text, IDS) == places

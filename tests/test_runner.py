"""The order of every command's stages, and what a failure in one of them prints."""

from __future__ import annotations

import json

import pytest

from batchreg.cli import runner
from batchreg.cli.console import JsonScreen, TextScreen
from batchreg.errors import BatchregError, Interrupted


class Recorded:
    """A command that notes its stages, and fails in one of them."""

    def __init__(self, fails: str = "", error: BaseException | None = None) -> None:
        self.fails, self.error = fails, error
        self.stages: list[str] = []

    def _enter(self, stage: str, *given: object) -> str:
        self.stages.append(f"{stage}{given}")
        if self.error and stage == self.fails:
            raise self.error
        return stage

    def gather(self) -> str:
        return self._enter("gather")

    def resolve(self, inputs: str) -> str:
        return self._enter("resolve", inputs)

    def ask(self, plan: str) -> str:
        return self._enter("ask", plan)

    def act(self, plan: str) -> int:
        self._enter("act", plan)
        return 7


def test_each_stage_gets_what_the_one_before_it_returned():
    """No command has an order of its own."""
    command = Recorded()
    assert runner.run(command, TextScreen()) == 7
    assert command.stages == ["gather()", "resolve('gather',)", "ask('resolve',)", "act('ask',)"]


@pytest.mark.parametrize("stage", ["gather", "resolve", "ask", "act"])
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (BatchregError("It is gone.", "Deploy again."), "It is gone. Deploy again."),
        (Interrupted("interrupted; it continues."), "interrupted; it continues."),
    ],
)
def test_failure_is_the_json_result_wherever_it_happens(capsys, stage, error, line):
    """A program reads the last line of stdout; the exit status is main's part."""
    with pytest.raises(type(error)):
        runner.run(Recorded(stage, error), JsonScreen(), stack="lab")
    output = capsys.readouterr().out
    assert json.loads(output) == {"type": "result", "stack": "lab", "error": line}


def test_failure_of_a_command_for_people_prints_nothing_here(capsys):
    """Main prints it, once."""
    with pytest.raises(BatchregError):
        runner.run(Recorded("act", BatchregError("It is gone.")), TextScreen(), stack="lab")
    assert capsys.readouterr() == ("", "")


def test_bug_is_not_a_result(capsys):
    """It has a traceback, for whoever reports it."""
    with pytest.raises(ZeroDivisionError):
        runner.run(Recorded("act", ZeroDivisionError()), JsonScreen(), stack="lab")
    assert capsys.readouterr().out == ""


def test_check_without_a_user_name_is_anonymous_whatever_the_environment_holds(batchreg):
    """BATCHREG_PASSWORD may be exported for deploy."""
    result = batchreg("check", "127.0.0.1:9/lab/x", environ={"BATCHREG_PASSWORD": "canary"})
    assert (result.returncode, result.stdout) == (1, "")
    assert "Missing --username" not in result.stderr
    assert "127.0.0.1:9" in result.stderr

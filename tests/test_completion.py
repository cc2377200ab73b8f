"""Shell completion, as each shell asks for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from account import BATCHREG

# How a shell passes the line, and how an answer looks: bash and fish know one word at a time.
QUESTIONS = {
    "bash": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
    "zsh": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)},
    "fish": lambda words: {"COMP_WORDS": " ".join(words), "COMP_CWORD": words[-1]},
}


@pytest.fixture(params=QUESTIONS)
def complete(request, batchreg):
    """Return a function that completes the last of some words and returns what the shell gets."""

    def ask(*words: str) -> str:
        result = batchreg(
            environ={
                "_BATCHREG_COMPLETE": f"{request.param}_complete",
                **QUESTIONS[request.param](["batchreg", *words]),
            }
        )
        assert result.stderr == ""
        return result.stdout

    return ask


def test_commands_are_completed(complete):
    """With what each does, where the shell shows it."""
    assert "render" in complete("re")
    assert "deploy" not in complete("re")


def test_options_and_their_values_are_completed(complete):
    """Nobody types ECS_AL2023_NVIDIA from memory."""
    assert "--image-type" in complete("render", "--im")
    assert "ECS_AL2023_NVIDIA" in complete("render", "--image-type", "ECS")


def test_broken_settings_file_does_not_spoil_the_line(complete, tmp_path):
    """A complaint would land in the middle of what the user types."""
    (tmp_path / "batchreg.yaml").write_text("no: such key\n")
    assert "--stack-name" in complete("deploy", "--st")


@pytest.mark.parametrize("shell", QUESTIONS)
def test_script_is_one_that_the_shell_takes(shell, batchreg, tmp_path):
    """The lines of the README, put into a shell that is here."""
    script = batchreg(environ={"_BATCHREG_COMPLETE": f"{shell}_source"}).stdout
    assert "_BATCHREG_COMPLETE" in script
    if not shutil.which(shell):
        return
    path = tmp_path / "script"
    path.write_text(script)
    checked = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_bash_completes_with_the_line_of_the_readme(tmp_path):
    """From the line in .bashrc to the word on the command line."""
    program = """
        eval "$(_BATCHREG_COMPLETE=bash_source batchreg)"
        COMP_WORDS=(batchreg rend) COMP_CWORD=1
        _batchreg_completion batchreg rend batchreg
        echo "${COMPREPLY[@]}"
    """
    result = subprocess.run(
        ["bash", "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PATH": f"{Path(BATCHREG).parent}:/usr/bin:/bin"},
    )
    assert (result.stdout, result.stderr) == ("render\n", "")

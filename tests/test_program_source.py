"""The program's text, as it is sent in the user data."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from batchreg import registry_login
from batchreg.render import userdata

SOURCE = Path(registry_login.__file__)


@pytest.mark.parametrize("stripped", [False, True], ids=["source", "stripped"])
def test_the_script_is_valid_for_the_instances_python(tmp_path, stripped):
    """Amazon Linux 2023 has Python 3.9, and Amazon Linux 2 may have an older one."""
    path = tmp_path / "registry_login.py"
    path.write_text(userdata.script() if stripped else SOURCE.read_text())
    run = subprocess.run(
        [Path(sys.executable).with_name("vermin"), "-t=3.6-", "--violations", path],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout


def test_stripping_changes_no_code():
    """The stripped text is made with regular expressions, which know no Python."""
    tree = ast.parse(SOURCE.read_text())
    for node in ast.walk(tree):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            del node.body[0]
    assert ast.dump(ast.parse(userdata.script())) == ast.dump(tree)


def test_the_script_imports_nothing_but_the_standard_library():
    """Nothing is installed on the instance."""
    imports = [
        node
        for node in ast.walk(ast.parse(userdata.script()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    names = {
        name.split(".")[0]
        for node in imports
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
        )
    }
    assert names <= sys.stdlib_module_names

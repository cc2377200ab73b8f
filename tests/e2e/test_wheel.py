"""What a release holds: it installs where there is nothing, and works without the source tree."""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from lab.environ import clean
from local_aws import LocalAws

import batchreg as package

ROOT = Path(__file__).parent.parent.parent
NOT_SOURCE = (
    ".git",
    ".venv",
    ".bench",
    ".*_cache",
    ".hypothesis",
    "__pycache__",
    "*.egg-info",
    "build",
    "dist",
)


def run(*command: str | Path, folder: Path, **environ: str) -> str:
    """Run a command with no settings from outside and return what it prints."""
    result = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        capture_output=True,
        text=True,
        env=clean("PYTHON", **environ),
        timeout=600,
    )
    if re.search("No matching distribution|ConnectionError|Name or service", result.stderr) and (
        os.environ.get("CI") != "true"
    ):
        pytest.skip("no package index here")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("release")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    run(
        sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source", folder=folder
    )
    return folder / "dist"


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The batchreg of the wheel, in a virtual environment that was empty before."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=True)
    (wheel,) = dist.glob("*.whl")
    run(folder / "venv/bin/pip", "install", "--quiet", wheel, folder=folder)
    return folder / "venv/bin/batchreg"


def test_release_holds_what_it_needs_and_nothing_else(dist):
    """The script for the instances is data as well as code, and types are for others to check."""
    (wheel,) = dist.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        f"batchreg/{path.relative_to(ROOT / 'src/batchreg')}"
        for path in (ROOT / "src/batchreg").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert {"batchreg/registry_login.py", "batchreg/py.typed"} <= ours
    assert {name for name in names if ".dist-info/" not in name} == ours
    (info,) = {name.partition("/")[0] for name in names if ".dist-info/" in name}
    assert f"{info}/licenses/LICENSE" in names
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "tests/conftest.py",
        "docs/reference.md",
        "templates/batchreg.yaml",
        "LICENSE",
        "CHANGELOG.md",
        "Makefile",
        "scripts/local_aws/__main__.py",
    } <= held


def test_metadata_is_what_people_find_it_by(dist):
    """What PyPI shows; `make dist` has twine and pyroma look at it as well."""
    (wheel,) = dist.glob("*.whl")
    (name,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(zipfile.ZipFile(wheel).read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata["Keywords"]
    assert metadata["Author"]
    urls = [url.partition(", ")[2] for url in metadata.get_all("Project-URL", [])]
    assert urls
    assert all(url.startswith("https://") for url in urls)
    assert set(metadata.get_all("Provides-Extra", [])) == {"dev"}


def test_version_stands_in_one_place(dist, installed, tmp_path):
    """The package's own; metadata, file names and the command follow it."""
    assert {path.name for path in dist.iterdir()} == {
        f"batchreg-{package.__version__}-py3-none-any.whl",
        f"batchreg-{package.__version__}.tar.gz",
    }
    assert run(installed, "--version", folder=tmp_path) == f"batchreg {package.__version__}\n"
    places = [
        path
        for path in ROOT.glob("*.*")
        if path.suffix in (".cfg", ".toml", ".md", ".in")
        and f'{package.__version__}"' in path.read_text()
    ]
    assert places == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("render",),
        ("render", "--format", "json", "--image-type", "ECS_AL2023_NVIDIA", "--fargate"),
        ("user-data", "--secret-id", "registry/ghcr", "--region", "eu-central-1"),
    ],
)
def test_wheel_renders_byte_for_byte_what_the_source_renders(installed, tmp_path, arguments):
    """Two installations must not fight over one stack."""
    source = Path(sys.executable).with_name("batchreg")
    theirs = run(installed, *arguments, folder=tmp_path)
    assert theirs == run(source, *arguments, folder=tmp_path) != ""


def test_wheel_deploys(installed, tmp_path):
    """Every module that a deploy imports is there, and every dependency."""
    with LocalAws() as aws:
        out = run(
            installed,
            "deploy",
            "--stack-name",
            "wheel",
            "--username",
            "lab",
            "--yes",
            folder=tmp_path,
            BATCHREG_PASSWORD="x",
            **aws.environ,
        )
        assert out.startswith("wheel-JobQueue-")
        assert "CREATE_COMPLETE" in run(
            installed, "status", "--stack-name", "wheel", folder=tmp_path, **aws.environ
        )


def test_wheel_has_types(installed, tmp_path):
    """mypy takes them from the installed package."""
    (tmp_path / "user.py").write_text(
        "from batchreg.render.settings import Settings\nSettings(slots=1)\n"
    )
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--python-executable",
            installed.with_name("python"),
            "--config-file=",
            "user.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert '"int"; expected "tuple[int, ...]"' in result.stdout, result.stdout

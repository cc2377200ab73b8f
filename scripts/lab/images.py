"""Container images without a public registry: one layer, made of this machine's own files."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.environ import ENVIRON

# Of botocore's descriptions of hundreds of services those that jobs use here.
SERVICES = {"batch", "logs", "s3", "sts"}
# What no program in a container misses.
LEFT_OUT = {
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "tkinter",
    "turtledemo",
    "pydoc_data",
    "site-packages",
    "dist-packages",
}
PACKAGES = "packages"  # the folder of an image's Python packages


@dataclass(frozen=True)
class Image:
    """A layer, uncompressed, and the configuration that goes with it."""

    layer: bytes
    config: bytes


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


@functools.cache
def small() -> Image:
    """Return an image that holds nothing but busybox."""
    with _Layer() as layer:
        layer.busybox("sh", "echo", "cat", "ls", "env", "id", "sleep", "true", "false", "wget")
    return _image(layer, {"PATH": "/bin"})


@functools.cache
def with_bash() -> Image:
    """Return an image with bash, and with all that busybox can stand for."""
    with _Layer() as layer:
        layer.busybox(*_applets())
        layer.program(Path("/bin/bash"))
    return _image(layer, {"PATH": "/bin:/usr/bin"})


@functools.cache
def with_python(*packages: str, **variables: str) -> Image:
    """Return an image with bash and this machine's Python, with packages of this environment."""
    with _Layer() as layer:
        layer.busybox(*_applets())
        for program in ("/bin/bash", "/usr/bin/printenv"):  # the latter is no part of busybox here
            layer.program(Path(program))
        layer.python(packages)
    return _image(layer, {"PATH": "/bin:/usr/bin", "PYTHONPATH": f"/{PACKAGES}", **variables})


class _Layer:
    """A layer while it is being made."""

    def __enter__(self) -> _Layer:
        self._buffer, self._names = io.BytesIO(), set[str]()
        self._tar = tarfile.open(fileobj=self._buffer, mode="w")
        for name, mode in (("tmp", 0o1777), ("root", 0o700), ("bin", 0o755)):
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            self._tar.addfile(folder)
        self._text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()
        self.data = self._buffer.getvalue()

    def busybox(self, *applets: str) -> None:
        self._file(busybox_path(), "bin/busybox")
        for name in applets:
            self._link(f"bin/{name}", "busybox")

    def program(self, path: Path) -> None:
        """Add a program with the libraries that it names."""
        self._file(path.resolve(), str(path).lstrip("/"))
        self._libraries([path])

    def python(self, packages: Iterable[str]) -> None:
        """Add the interpreter of this environment, its library and packages."""
        program = Path(sys.executable).resolve()
        library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix}))
        self.program(program)
        self._link("bin/python3", str(program))
        self._link("bin/python", str(program))
        self._tree(library, str(library).lstrip("/"))
        self._libraries(library.glob("lib-dynload/*.so"))
        for package in packages:
            spec = importlib.util.find_spec(package)
            if spec is None or not spec.origin:
                raise LookupError(f"no package {package}")
            origin = Path(spec.origin)
            if spec.submodule_search_locations:
                self._tree(origin.parent, f"{PACKAGES}/{package}")
            else:
                self._file(origin, f"{PACKAGES}/{origin.name}")

    def _tree(self, folder: Path, name: str) -> None:
        for place, folders, files in os.walk(folder):
            relative = Path(place).relative_to(folder)
            folders[:] = [
                one
                for one in folders
                if one not in LEFT_OUT
                and not one.startswith("config-")  # for those who build Python
                and _wanted(relative / one)
            ]
            for file in files:
                self._file(Path(place, file), str(Path(name) / relative / file))

    def _libraries(self, programs: Iterable[Path]) -> None:
        for library in _libraries(programs):
            self._file(library.resolve(), str(library).lstrip("/"))

    def _file(self, path: Path, name: str) -> None:
        if name in self._names:
            return
        self._names.add(name)
        # The time is kept: compiled Python code is good for a source of its time alone.
        info = self._tar.gettarinfo(path.resolve(), name)
        info.type, info.linkname = tarfile.REGTYPE, ""
        info.uid = info.gid = 0
        with path.open("rb") as file:
            info.size = os.fstat(file.fileno()).st_size
            self._tar.addfile(info, file)

    def _link(self, name: str, target: str) -> None:
        if name not in self._names:
            self._names.add(name)
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            self._tar.addfile(link)

    def _text(self, name: str, text: str) -> None:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(text), 0o644
        self._tar.addfile(info, io.BytesIO(text.encode()))


def _wanted(folder: Path) -> bool:
    """Tell whether a folder of a package is wanted, given from the package on."""
    return folder.parts[:1] != ("data",) or len(folder.parts) < 2 or folder.parts[1] in SERVICES


def _libraries(programs: Iterable[Path]) -> Iterator[Path]:
    done = subprocess.run(["ldd", *map(str, programs)], env=ENVIRON, text=True, capture_output=True)
    for path in dict.fromkeys(re.findall(r"(/\S+) \(0x", done.stdout)):
        yield Path(path)


def _applets() -> list[str]:
    done = subprocess.run(
        [busybox_path(), "--list"], env=ENVIRON, text=True, capture_output=True, check=True
    )
    return [name for name in done.stdout.split() if name != "busybox"]


def busybox_path() -> Path:
    return Path(shutil.which("busybox", path=ENVIRON["PATH"]) or "/bin/busybox")


def _image(layer: _Layer, variables: Mapping[str, str]) -> Image:
    machine = platform.machine()
    return Image(
        layer.data,
        json.dumps(
            {
                "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine),
                "os": "linux",
                "config": {
                    "Env": [f"{name}={value}" for name, value in variables.items()],
                    "Cmd": ["sh"],
                },
                "rootfs": {"type": "layers", "diff_ids": [digest(layer.data)]},
            }
        ).encode(),
    )

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the gates work: interpreters, virtual environments and copies of the checkout, all outside the tree.

Everything lives in ``${XDG_CACHE_HOME:-~/.cache}/incus-fleet-backup/``: ``venvs/`` (keyed by what is in them, shared by
all checkouts), ``home/`` (the tools' home directory, so that nobody's ``~/.ansible`` is read or written) and
``checkouts/<key>/`` (one for each checkout, so that two never meet).
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.gates.model import NotRun

COLLECTION = Path("ansible_collections/incus_fleet/backup")
GATES = Path(__file__).resolve().parent
# Each environment, and the Python that it is made with.
ENVIRONMENTS = {
    "dev": "3.11",
    "importer": "3.11",
    "core-2.18": "3.11",
    "core-2.19": "3.11",
    "core-2.21": "3.13",
}
# The C libraries that Debian 13 is good for, in the names that wheels have.
PLATFORMS = ("manylinux_2_41", "manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")


class Workshop:
    """The places and tools of one checkout's gates."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout.resolve()
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.cache = Path(base).resolve() / "incus-fleet-backup"
        key = hashlib.sha256(str(self.checkout).encode()).hexdigest()[:12]
        self.own = self.cache / "checkouts" / key
        self.logs = self.own / "logs"
        self.home = self.cache / "home"
        self.logs.mkdir(parents=True, exist_ok=True)
        self._made: dict[str, Path] = {}

    # -- environments -------------------------------------------------------------------------------------------

    def environment(self, name: str) -> Path:
        """The bin directory of a virtual environment; makes it when its pinned requirements are new.

        Raises NotRun where this machine lacks the interpreter.
        """
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> Path:
        python = find_python(ENVIRONMENTS[name])
        pins = GATES / f"requirements-{name}.txt"
        digest = hashlib.sha256(pins.read_bytes() + str(python).encode()).hexdigest()[:12]
        place = self.cache / "venvs" / f"{name}-py{ENVIRONMENTS[name]}-{digest}"
        finished = place / ".finished"
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(place.parent / f"{place.name}.lock"):
            if not finished.exists():
                print(f"making the environment {name} (Python {ENVIRONMENTS[name]}) …", file=sys.stderr)
                # What was half made (an interrupted run) is made again.
                shutil.rmtree(place, ignore_errors=True)
                run_or_raise([str(python), "-m", "venv", str(place)])
                install = [str(place / "bin/pip"), "install", "--disable-pip-version-check", "--quiet"]
                run_or_raise([*install, "--requirement", str(pins)])
                finished.touch()
        return place / "bin"

    def wheels(self, requirements: Path, python: str) -> Path:
        """A directory with wheels of these requirements for another Python, for hosts that reach no package index."""
        constraints = GATES / "requirements-dev.txt"
        digest = hashlib.sha256(requirements.read_bytes() + constraints.read_bytes()).hexdigest()[:12]
        place = self.cache / "wheels" / f"py{python}-{digest}"
        finished = place / ".finished"
        place.parent.mkdir(parents=True, exist_ok=True)
        with lock(place.parent / f"{place.name}.lock"):
            if not finished.exists():
                shutil.rmtree(place, ignore_errors=True)
                pip = str(self.environment("dev") / "pip")
                command = [pip, "download", "--disable-pip-version-check", "--quiet", "--only-binary=:all:"]
                command += ["--python-version", python, "--implementation", "cp", "--dest", str(place)]
                command += [f"--platform={prefix}_{platform.machine()}" for prefix in PLATFORMS]
                run_or_raise([*command, "--requirement", str(requirements), "--constraint", str(constraints)])
                finished.touch()
        return place

    # -- surroundings -------------------------------------------------------------------------------------------

    def surroundings(self, *environments: str) -> dict[str, str]:
        """Environment variables for a tool: ours first on PATH, a home of our own, the collection found here only."""
        self._furnish_home()
        found = [str(self.environment(name)) for name in environments]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHON"))}
        return {
            **kept,
            "HOME": str(self.home),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_CONFIG_HOME": str(self.home / ".config"),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "PATH": os.pathsep.join([*found, os.environ["PATH"]]),
        }

    def _furnish_home(self) -> None:
        """Put pip's settings and our pip bootstrap into the tools' home: ansible-test drops PIP_* variables."""
        settings = self.home / ".config/pip/pip.conf"
        settings.parent.mkdir(parents=True, exist_ok=True)
        write_private(settings, pip_settings(self.environment("dev") / "pip"))
        bootstraps = self.home / ".ansible/test/cache"
        bootstraps.mkdir(parents=True, exist_ok=True)
        for version in ("23_1_2", "24_2", "25_2"):
            shutil.copyfile(GATES / "get_pip.py", bootstraps / f"get_pip_{version}.py")

    # -- copies of the checkout ---------------------------------------------------------------------------------

    def files(self) -> list[Path]:
        """What belongs to the project: tracked files and new ones that are not ignored, as relative paths."""
        command = ["git", "-c", f"safe.directory={self.checkout}", "-C", str(self.checkout)]
        command += ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        names = sorted({Path(name) for name in listed.split("\0") if name})
        return [name for name in names if (self.checkout / name).is_file()]

    def linked(self) -> Path:
        """A collections path whose incus_fleet.backup is the checkout itself (pytest and mypy accept a link)."""
        root = self.own / "linked"
        link = root / COLLECTION
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.resolve() != self.checkout:
            link.unlink()
        if not link.is_symlink():
            link.symlink_to(self.checkout)
        return root

    def exported(self, purpose: str) -> Path:
        """A collections path with a true copy of the project's files (ansible-test refuses links); one a purpose."""
        root = self.own / f"export-{purpose}"
        target = root / COLLECTION
        names = set(self.files())
        for stale in [path for path in walk(target) if path not in names]:
            (target / stale).unlink()
        for name in names:
            copy_if_changed(self.checkout / name, target / name)
        return root


# What a tool left in a copy of ours and wants to find again.
_KEPT = (Path("tests/output"), Path(".ansible"))


def walk(root: Path) -> Iterator[Path]:
    """Every file under a copy, relative to it, but for what tools keep there."""
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        if not any(name.is_relative_to(kept) for kept in _KEPT) and (path.is_symlink() or not path.is_dir()):
            yield name


def copy_if_changed(source: Path, target: Path) -> None:
    """Copy contents and mode; leave an equal file alone, time stamps included, for the tools' caches."""
    if target.is_file() and not target.is_symlink():
        same_mode = target.stat().st_mode == source.stat().st_mode
        if same_mode and target.read_bytes() == source.read_bytes():
            return
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target, follow_symlinks=False)


def find_python(version: str) -> Path:
    """An interpreter of that version, from PATH or from pyenv; raises NotRun where there is none."""
    candidates = [Path(folder) / f"python{version}" for folder in os.environ["PATH"].split(os.pathsep) if folder]
    if shutil.which("pyenv"):
        root = subprocess.run(["pyenv", "root"], check=True, capture_output=True, text=True).stdout.strip()
        candidates += sorted(Path(root).glob(f"versions/{version}.*/bin/python{version}"), reverse=True)
    # pyenv's wrappers stand on PATH for versions that are not switched on; asking is the only way to know.
    question = "import sys, ensurepip, venv; print(sys.executable)"
    for candidate in candidates:
        if candidate.exists():
            answer = subprocess.run([candidate, "-c", question], check=False, capture_output=True, text=True)
            if answer.returncode == 0:
                return Path(answer.stdout.strip()).resolve()
    raise NotRun(f"no Python {version} that can make virtual environments, neither on PATH nor in pyenv")


def pip_settings(pip: Path) -> str:
    """This machine's effective pip settings (files and PIP_* variables) as one configuration file."""
    listed = subprocess.run([pip, "config", "list"], check=True, capture_output=True, text=True).stdout
    sections: dict[str, dict[str, str]] = {}
    for line in listed.splitlines():
        name, value = line.split("=", 1)
        section, key = name.rsplit(".", 1)
        text = "\n    ".join(str(ast.literal_eval(value)).split("\n"))
        if section == ":env:":
            # A variable beats every file, whatever section it is in.
            sections = {other: {k: v for k, v in keys.items() if k != key} for other, keys in sections.items()}
            section = "global"
        sections.setdefault(section, {})[key] = text
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        for section, keys in sections.items()
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that nobody else may read: an index's address can hold a password."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as handle:
        handle.write(text)


def run_or_raise(command: Sequence[str]) -> None:
    """Run a command of the set-up; its output is shown when it fails, which ends the whole run."""
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock; the kernel drops it with the process."""
    with path.open("w", encoding="ascii") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield

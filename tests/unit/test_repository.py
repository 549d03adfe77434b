# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is true of the repository as a whole: nothing of one machine in it, and lists that agree."""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HEADER = """\
# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""
PRIVATE = "# Private to this collection: other collections must not import it.\n"
MOST_LINES = 400
# Directories that any text may name, also when the checkout happens to stand in one of them.
COMMON_PLACES = [Path(name) for name in ("/", "/home", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr/src", "/var/tmp")]


def project_files() -> list[Path]:
    """The repository's files; under ansible-test, where there is no git, all but what it writes itself."""
    if (ROOT / ".git").exists():
        command = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "-co", "--exclude-standard"]
        listed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
        paths = [ROOT / name for name in listed.split("\0") if name]
    else:
        left_out = (ROOT / "tests/output", ROOT / ".ansible")
        paths = [path for path in ROOT.rglob("*") if not any(path.is_relative_to(folder) for folder in left_out)]
    return sorted(path for path in paths if path.is_file() and "__pycache__" not in path.parts)


def package_hosts() -> Iterator[str]:
    """The host names that this machine gets packages from: apt's and pip's."""
    pip = [Path("/etc/pip.conf"), Path.home() / ".config/pip/pip.conf", Path.home() / ".pip/pip.conf"]
    apt = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    texts = [path.read_text("utf-8") for path in (*pip, *apt) if path.is_file()]
    texts += [value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))]
    for text in texts:
        yield from re.findall(r"https?://(?:[^/@\s]*@)?([^/:\s\"']+)", text)


def module_documentation() -> dict[str, dict[str, Any]]:
    """Each module's DOCUMENTATION."""
    found = {}
    for path in sorted((ROOT / "plugins/modules").glob("*.py")):
        found[path.stem] = yaml.safe_load(constant(path, "DOCUMENTATION"))
    assert found
    return found


def constant(path: Path, name: str) -> str:
    """The text that a file assigns to a name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name:
            value = ast.literal_eval(node.value)
            assert isinstance(value, str)
            return value
    raise AssertionError(f"{path} assigns no {name}")


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text("utf-8"))


def test_no_file_names_a_place_of_this_machine() -> None:
    hosts = [rf"(?<![\w.-]){re.escape(host)}(?![\w-])" for host in package_hosts()]
    places = [re.escape(f"{place}/") for place in (ROOT, ROOT.parent) if place not in COMMON_PLACES]
    beside = [r"\.\./shared\b", r"\.\./\.library\b"]
    forbidden = re.compile("|".join([*hosts, *(rf"(?<![\w.-]){place}" for place in places), *beside]))
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in project_files()
        for match in forbidden.finditer(path.read_text("utf-8", "replace"))
    ]
    assert found == []


def test_plugins_stay_short_enough_to_read() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "plugins").rglob("*.py")
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_LINES
    }
    assert long == {}


def test_every_python_file_starts_with_the_licence() -> None:
    texts = {path: path.read_text("utf-8") for path in project_files() if path.suffix == ".py"}
    heads = {path: re.sub(r"\A#!.*\n", "", text) for path, text in texts.items()}
    assert [str(path) for path, head in heads.items() if head and not head.startswith(HEADER)] == []


def test_module_utils_say_that_they_are_private() -> None:
    texts = {path: path.read_text("utf-8") for path in (ROOT / "plugins/module_utils").rglob("*.py")}
    assert [str(path) for path, text in texts.items() if text and not text.startswith(HEADER + PRIVATE)] == []


@pytest.mark.parametrize(("group", "fragment"), [("server", "_connection"), ("store", "_store")])
def test_an_action_group_is_the_modules_that_take_its_options(group: str, fragment: str) -> None:
    name = f"incus_fleet.backup.{fragment}"
    documented = [
        module for module, doc in module_documentation().items() if name in doc["extends_documentation_fragment"]
    ]
    assert load("meta/runtime.yml")["action_groups"][group] == documented


def test_execution_environments_get_the_documented_minimum_versions() -> None:
    text = constant(ROOT / "plugins/doc_fragments/_attributes.py", "DOCUMENTATION")
    documented = {line.replace(" ", "") for line in yaml.safe_load(text)["requirements"]}
    lines = (ROOT / "meta/ee-requirements.txt").read_text("utf-8").splitlines()
    assert {line for line in lines if line and not line.startswith("#")} == documented - {"python>=3.10"}
    assert f"'{load('tests/config.yml')['modules']['python_requires']}'" == "'>=3.10'"


def test_the_oldest_supported_ansible_core_is_the_oldest_tested() -> None:
    pins = [path.read_text("utf-8") for path in (ROOT / "tests/gates").glob("requirements-core-*.txt")]
    tested = [re.findall(r"^ansible-core==(\d+)\.(\d+)\.", text, re.MULTILINE)[0] for text in pins]
    oldest = min((int(major), int(minor)) for major, minor in tested)
    assert load("meta/runtime.yml")["requires_ansible"] == ">={}.{}.0".format(*oldest)


def test_awx_finds_our_playbooks_and_no_other() -> None:
    # AWX offers every YAML file with such a line, but for those under these names.
    play = re.compile(r"^\s*-?\s*(?:hosts|(?:ansible\.builtin\.)?import_playbook):", re.MULTILINE)
    hidden = {"roles", "tasks", "group_vars", "host_vars", "playbooks"}
    found = [
        str(path.relative_to(ROOT))
        for path in project_files()
        if path.suffix in (".yml", ".yaml")
        and not any(part in hidden or part.startswith(".") for part in path.relative_to(ROOT).parts[:-1])
        and play.search(path.read_text("utf-8"))
    ]
    assert found == []

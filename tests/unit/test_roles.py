# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Roles and playbooks: what is declared, documented and used is the same, and what they compute is right."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

try:
    from ansible.template import trust_as_template
except ImportError:  # ansible-core 2.18 takes every string for a template

    def trust_as_template(value: str) -> str:
        return value


ROOT = Path(__file__).parents[2]
OURS = "incus_fleet.backup."
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir())
WORKING_ROLES = ["partial_backup", "partial_restore"]
EXAMPLES = ROOT / "docs/examples/inventory"
# Options that a role gives a module in one of its tasks, or never.
GIVEN_BY_TASKS = {"set", "run_id", "state", "max_age", "before", "conflict"}


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text("utf-8"))


def defaults(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "defaults/main.yml")


def spec(role: str) -> dict[str, Any]:
    return load(ROOT / "roles" / role / "meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def readme(role: str) -> str:
    return (ROOT / "roles" / role / "README.md").read_text("utf-8")


def options_of(module: str) -> set[str]:
    """Every option that a module's documentation has, its own and those of its fragments."""
    text = (ROOT / "plugins/modules" / f"{module}.py").read_text("utf-8")
    documentation = yaml.safe_load(text.split('DOCUMENTATION = r"""')[1].split('"""')[0])
    found = set(documentation.get("options", {}))
    for fragment in documentation["extends_documentation_fragment"]:
        name = fragment.removeprefix(OURS).split(".")[0]
        found |= set(fragment_options(name))
    return found


def fragment_options(name: str) -> dict[str, Any]:
    text = (ROOT / "plugins/doc_fragments" / f"{name}.py").read_text("utf-8")
    return yaml.safe_load(text.split('DOCUMENTATION = r"""')[1].split('"""')[0])["options"]


def tasks_in(items: list[dict[str, Any]], around: tuple[dict[str, Any], ...] = ()) -> Iterator[tuple[Any, Any]]:
    """Each task with the blocks around it, outermost first."""
    for item in items:
        inner = [part for key in ("block", "rescue", "always") for part in item.get(key, [])]
        if inner:
            yield from tasks_in(inner, (*around, item))
        else:
            yield item, around


def walk(role: str, name: str = "main.yml", around: tuple[dict[str, Any], ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Each task that the role can come to, with its file and with all that is around it."""
    for task, blocks in tasks_in(load(ROOT / "roles" / role / "tasks" / name), around):
        yield name, task, blocks
        if "ansible.builtin.include_tasks" in task:
            yield from walk(role, task["ansible.builtin.include_tasks"], (*blocks, task))


def evaluate(role: str, expression: str, **variables: Any) -> Any:
    """What an expression is worth inside a role, after its defaults, with these variables from the command line."""
    role_vars = load(ROOT / "roles" / role / "vars/main.yml")
    known = {**defaults(role), **role_vars, "inventory_hostname": "incus1", **variables}
    trusted = {
        name: trust_as_template(value) if isinstance(value, str) and name not in variables else value
        for name, value in known.items()
    }
    return Templar(loader=DataLoader(), variables=trusted).template(trust_as_template("{{ " + expression + " }}"))


@pytest.mark.parametrize("role", ROLES)
class TestEveryRole:
    def test_declares_the_variables_that_have_a_default(self, role: str) -> None:
        assert list(spec(role)) == list(defaults(role))

    def test_declares_the_same_defaults(self, role: str) -> None:
        assert {name: option["default"] for name, option in spec(role).items()} == defaults(role)

    def test_declares_types_and_meanings(self, role: str) -> None:
        for name, option in spec(role).items():
            assert option["type"] in ("str", "int", "bool", "list", "raw"), name
            assert ("elements" in option) == (option["type"] == "list"), name
            assert option["description"], name

    def test_prefixes_its_inputs(self, role: str) -> None:
        assert all(name.startswith(f"{role}_") for name in defaults(role))

    def test_prefixes_what_is_its_own(self, role: str) -> None:
        allowed = (f"__{role}_", f"{role}_result")
        names = list(load(ROOT / "roles" / role / "vars/main.yml"))
        for _file, task, _around in walk(role):
            names += [task["register"]] if "register" in task else []
            names += [name for name in task.get("ansible.builtin.set_fact", {}) if name != "cacheable"]
        assert [name for name in names if not name.startswith(allowed)] == []

    def test_uses_every_input(self, role: str) -> None:
        folder = ROOT / "roles" / role
        text = "".join(path.read_text("utf-8") for part in ("tasks", "vars") for path in (folder / part).glob("*.yml"))
        assert [name for name in defaults(role) if not re.search(rf"\b{name}\b", text)] == []

    def test_readme_lists_its_variables_and_no_others(self, role: str) -> None:
        listed = re.findall(rf"^\| `({role}_\w+)` \|", readme(role), flags=re.MULTILINE)
        assert listed == list(defaults(role))

    def test_readme_tells_where_defaults_come_from(self, role: str) -> None:
        rows = dict(re.findall(rf"^\| `({role}_\w+)` \| (.*)$", readme(role), flags=re.MULTILINE))
        for name, default in defaults(role).items():
            for source in re.findall(r"incus_backup_\w+|INCUS_\w+", str(default)):
                assert source in rows[name], name

    def test_readme_makes_its_promises(self, role: str) -> None:
        for word in ("idempotent", "atomic", "check mode", "roll"):
            assert word in readme(role).lower(), word

    def test_main_is_a_table_of_contents(self, role: str) -> None:
        for task, _around in tasks_in(load(ROOT / "roles" / role / "tasks/main.yml")):
            assert set(task) <= {"name", "ansible.builtin.include_tasks", "when"}

    def test_every_file_of_tasks_is_reached(self, role: str) -> None:
        assert {file for file, _task, _around in walk(role)} == {
            path.name for path in (ROOT / "roles" / role / "tasks").iterdir()
        }

    def test_has_a_playbook_of_its_name(self, role: str) -> None:
        (play,) = load(ROOT / "playbooks" / f"{role}.yml")
        (task,) = play["tasks"]
        assert task["ansible.builtin.import_role"] == {"name": OURS + role}
        assert task["become"] == "{{ incus_backup_become | default(true) | bool }}"
        assert play["gather_facts"] is False


def test_every_playbook_has_its_role() -> None:
    assert sorted(path.stem for path in (ROOT / "playbooks").glob("*.yml")) == ROLES


@pytest.mark.parametrize("role", ROLES)
def test_only_our_modules_run_under_the_virtual_environment(role: str) -> None:
    for file, task, around in walk(role):
        variables = [name for part in around for name in part.get("vars", {})] + list(task.get("vars", {}))
        ours = [key for key in task if key.startswith(OURS)]
        plain = {key for key in task if key.startswith("ansible.builtin.")}
        on_controller = {f"ansible.builtin.{name}" for name in ("include_tasks", "assert", "debug", "fail", "set_fact")}
        if ours:
            assert "ansible_python_interpreter" in variables, f"{file}: {task['name']}"
        elif plain - on_controller:
            assert "ansible_python_interpreter" not in variables, f"{file}: {task['name']}"


@pytest.mark.parametrize("role", WORKING_ROLES)
class TestRolesThatCallModules:
    def module_defaults(self, role: str) -> dict[str, dict[str, str]]:
        (block,) = (task for task in load(ROOT / "roles" / role / "tasks/main.yml") if "module_defaults" in task)
        return block["module_defaults"]

    def test_connection_and_store_are_given_once_and_whole(self, role: str) -> None:
        given = self.module_defaults(role)
        assert set(given["group/incus_fleet.backup.server"]) == set(fragment_options("_connection"))
        assert set(given["group/incus_fleet.backup.store"]) == set(fragment_options("_store"))

    def test_every_option_of_a_module_can_be_set(self, role: str) -> None:
        given = self.module_defaults(role)
        groups = set(given["group/incus_fleet.backup.server"]) | set(given["group/incus_fleet.backup.store"])
        for name, values in given.items():
            if name.startswith(OURS):
                assert set(values) == options_of(name.removeprefix(OURS)) - groups - GIVEN_BY_TASKS, name

    def test_what_acts_is_asked_for_first_in_check_mode(self, role: str) -> None:
        names = [(file, task) for file, task, _around in walk(role) if any(key.startswith(OURS) for key in task)]
        assert names[0][0] == "plan.yml"
        assert names[0][1]["check_mode"] is True

    def test_long_work_is_asynchronous_and_never_so_in_check_mode(self, role: str) -> None:
        long = [task for file, task, _around in walk(role) if file == "act.yml" and "async" in task]
        assert len(long) == 1
        assert long[0]["poll"] == f"{{{{ {role}_poll | int }}}}"
        (entry,) = (
            task for _file, task, _around in walk(role) if task.get("ansible.builtin.include_tasks") == "act.yml"
        )
        assert entry["when"] == f"__{role}_acts"
        assert evaluate(role, f"__{role}_acts", ansible_check_mode=True) is False

    @pytest.mark.parametrize(
        ("given", "wanted"),
        [
            ([], []),
            ("", []),
            ("web", ["web"]),
            ("web, shop/db", ["web", "shop/db"]),
            ('["web", "db"]', ["web", "db"]),
            (' [ "web"]', ["web"]),
            ("[]", []),
            ("[ab]*", ["[ab]*"]),
            (["web", "db"], ["web", "db"]),
        ],
    )
    @pytest.mark.parametrize("option", ["instances", "include", "exclude"])
    def test_lists_may_come_as_text(self, role: str, option: str, given: Any, wanted: list[str]) -> None:
        assert evaluate(role, f"__{role}_{option}", **{f"{role}_{option}": given}) == wanted

    def test_names_every_missing_input_at_once(self, role: str) -> None:
        problems = evaluate(role, f"__{role}_problems", **{f"{role}_site": "", f"{role}_poll": "0"})
        assert [name for name in ("store", "site", "poll") if f"{role}_{name}" in " ".join(problems)] == [
            "store",
            "site",
            "poll",
        ]

    def test_is_content_with_a_store(self, role: str) -> None:
        assert evaluate(role, f"__{role}_problems", incus_backup_store="/srv/backup") == []

    def test_wants_an_absolute_store(self, role: str) -> None:
        (problem,) = evaluate(role, f"__{role}_problems", incus_backup_store="backup")
        assert "absolute" in problem

    def test_site_is_the_hosts_name_unless_said_otherwise(self, role: str) -> None:
        assert evaluate(role, f"{role}_site") == "incus1"
        assert evaluate(role, f"{role}_site", incus_backup_site="cluster1") == "cluster1"

    @pytest.mark.parametrize("item", ["client_cert", "client_key", "server_cert"])
    def test_certificates_as_text_reach_https_only(self, role: str, item: str) -> None:
        text = {f"{role}_{item}_content": "PEM"}  # from the environment, which is the same for every host
        assert evaluate(role, f"__{role}_{item}_content", **text) == ""
        assert evaluate(role, f"__{role}_{item}_content", **text, incus_backup_url="https://a:8443") == "PEM"

    @pytest.mark.parametrize("item", ["client_cert", "client_key", "server_cert"])
    def test_a_path_wins_over_a_text(self, role: str, item: str) -> None:
        given = {f"{role}_{item}_content": "PEM", f"{role}_{item}": "/etc/pem", "incus_backup_url": "https://a:8443"}
        assert evaluate(role, f"__{role}_{item}_content", **given) == ""


PLAN = {
    "plan": [
        {"action": "export", "project": "default", "name": "web", "reason": "selected"},
        {"action": "refuse", "project": "shop", "name": "db", "reason": "forbidden"},
    ],
    "reason": None,
    "result": None,
    "set": None,
    "set_path": None,
    "succeeded": 0,
    "stored_bytes": 0,
    "plain_bytes": 0,
    "seconds": 0.0,
    "failures": [{"project": "shop", "name": "db", "message": "forbidden"}],
}


class TestBackupReports:
    def outcome(self, check: bool, state: str, succeeded: int) -> dict[str, Any]:
        variables = {
            "ansible_check_mode": check,
            "partial_backup_run_id": "run",
            "__partial_backup_plan": PLAN,
            "__partial_backup_exported": {**PLAN, "set": "a-set", "succeeded": succeeded, "stored_bytes": 2048},
            "__partial_backup_published": {"state": state, "set_path": "incus1/a-set"},
        }
        result = evaluate("partial_backup", "__partial_backup_outcome", **variables)
        return {**variables, "partial_backup_result": result}

    def test_plan_is_told_line_by_line(self) -> None:
        variables = self.outcome(True, "", 0)
        assert evaluate("partial_backup", "__partial_backup_plan_lines", **variables) == [
            "default/web: export, selected",
            "shop/db: refuse, forbidden",
        ]

    def test_what_failed_is_named_and_where_the_rest_is(self) -> None:
        variables = self.outcome(False, "with_failures", 1)
        assert variables["partial_backup_result"]["succeeded"] == 1
        complaint = evaluate("partial_backup", "__partial_backup_complaint", **variables)
        assert "1 instance(s) were not backed up: shop/db: forbidden." in complaint.replace("\n", " ")
        assert "in the set a-set" in complaint

    def test_an_aborted_set_is_not_reported_as_one(self) -> None:
        variables = self.outcome(False, "absent", 0)
        assert variables["partial_backup_result"]["set"] is None
        assert evaluate("partial_backup", "__partial_backup_sentence", **variables) == "nothing could be backed up"
        assert "No set was published" in evaluate("partial_backup", "__partial_backup_complaint", **variables)

    def test_check_mode_speaks_of_what_would_be(self) -> None:
        variables = self.outcome(True, "", 0)
        assert "1 instance(s) would be backed up" in evaluate(
            "partial_backup", "__partial_backup_sentence", **variables
        )
        assert "cannot be backed up" in evaluate("partial_backup", "__partial_backup_complaint", **variables)


class TestHostSetup:
    def test_floors_are_those_of_the_modules(self) -> None:
        text = (ROOT / "plugins/doc_fragments/_attributes.py").read_text("utf-8")
        floors = load(ROOT / "roles/host_setup/vars/main.yml")
        told = {**floors["__host_setup_libraries"], "python": floors["__host_setup_python_floor"]}
        assert told == dict(re.findall(r"- (\w+) >= ([0-9.]+)", text))

    @pytest.mark.parametrize(
        ("given", "names", "may"),
        [
            (True, [], True),
            ("yes", [], True),
            (False, [], False),
            ("no", [], False),
            (["zstd-tools"], ["zstd-tools"], True),
            ("zstd-tools,python3.13", ["zstd-tools", "python3.13"], True),
            ('["zstd-tools"]', ["zstd-tools"], True),
        ],
    )
    def test_packages_are_a_yes_a_no_or_names(self, given: Any, names: list[str], may: bool) -> None:
        assert evaluate("host_setup", "__host_setup_package_names", host_setup_packages=given) == names
        assert evaluate("host_setup", "__host_setup_may_install", host_setup_packages=given) is may

    @pytest.mark.parametrize(
        ("system", "given", "wanted"),
        [
            ("debian", True, ["zstd", "python3-venv"]),
            ("default", "yes", ["zstd", "python3"]),
            ("debian", ["all-of-it"], ["all-of-it"]),
        ],
    )
    def test_what_is_missing_is_installed_under_its_name_there(
        self, system: str, given: Any, wanted: list[str]
    ) -> None:
        probed = {"stdout": f'{{"tools": [], "system": "{system}"}}'}
        variables = {"host_setup_packages": given, "__host_setup_probed": probed}
        assert evaluate("host_setup", "__host_setup_packages_wanted", **variables) == wanted

    def test_reads_the_probe(self) -> None:
        probed = {"stdout": '{"tools": ["venv"], "libraries": ["pylxd"], "system": "debian"}'}
        assert evaluate("host_setup", "__host_setup_missing", __host_setup_probed=probed) == ["zstd"]
        assert evaluate("host_setup", "__host_setup_outdated", __host_setup_probed=probed) == ["jmespath"]
        assert evaluate("host_setup", "__host_setup_requirements") == ["pylxd>=2.4.1", "jmespath>=1.0.0"]


def test_example_inventories_use_only_variables_that_exist() -> None:
    known = {"incus_backup_become", "incus_backup_hosts"}
    for role in ROLES:
        for value in defaults(role).values():
            known |= set(re.findall(r"incus_backup_\w+", str(value)))
        known |= set(defaults(role))
    pattern = re.compile(rf"^\s*((?:incus_backup|{'|'.join(ROLES)})_\w+):", flags=re.MULTILINE)
    files = [path for path in EXAMPLES.rglob("*") if path.is_file()]
    used = {name for path in files for name in pattern.findall(path.read_text("utf-8"))}
    assert {"incus_backup_store", "incus_backup_url", "partial_backup_max_age"} <= used
    assert used <= known

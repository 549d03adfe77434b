# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the modules document is what they take and give."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from ansible_collections.incus_fleet.backup.plugins.doc_fragments import _connection, _store
from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible import argspec
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.export import ExportResult
from ansible_collections.incus_fleet.backup.plugins.module_utils._services.import_ import ImportResult

PLUGINS = "ansible_collections.incus_fleet.backup.plugins"
NAMES = sorted(path.stem for path in (Path(argspec.__file__).parents[2] / "modules").glob("incus_*.py"))
assert NAMES
OURS = "incus_fleet.backup."
RUNTIME = yaml.safe_load((Path(argspec.__file__).parents[3] / "meta/runtime.yml").read_text("utf-8"))


class Told(Exception):
    """Carries what a module gave to AnsibleModule."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.arguments = arguments


def module(name: str) -> ModuleType:
    return import_module(f"{PLUGINS}.modules.{name}")


def documentation(name: str) -> dict[str, Any]:
    """The module's documentation with its fragments, as ansible-doc puts them together."""
    told: dict[str, Any] = yaml.safe_load(module(name).DOCUMENTATION)
    for reference in told["extends_documentation_fragment"]:
        fragment, _dot, section = reference.removeprefix(OURS).partition(".")
        cls = import_module(f"{PLUGINS}.doc_fragments.{fragment}").ModuleDocFragment
        extra = yaml.safe_load(getattr(cls, (section or "DOCUMENTATION").upper()))
        for key in ("options", "attributes"):
            for entry, content in (extra.get(key) or {}).items():
                told.setdefault(key, {})[entry] = {**content, **told.get(key, {}).get(entry, {})}
    return told


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a module's ``main()`` hands to AnsibleModule."""

    def refuse(**arguments: Any) -> None:
        raise Told(arguments)

    monkeypatch.setattr(argspec, "AnsibleModule", refuse)

    def of(name: str) -> dict[str, Any]:
        with pytest.raises(Told) as caught:
            module(name).main()
        return caught.value.arguments

    return of


@pytest.mark.parametrize("name", NAMES)
def test_the_documented_options_are_those_that_are_taken(name: str, given: Any) -> None:
    spec = given(name)["argument_spec"]
    options = documentation(name)["options"]
    facets = ("type", "elements", "default", "choices", "required")
    documented = {option: {key: told[key] for key in facets if key in told} for option, told in options.items()}
    taken = {option: {key: told[key] for key in facets if key in told} for option, told in spec.items()}
    assert documented == taken
    assert all("type" in told for told in taken.values())


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_in_sentences(name: str) -> None:
    for option, told in documentation(name)["options"].items():
        texts = told["description"] if isinstance(told["description"], list) else [told["description"]]
        assert all(text.endswith(".") for text in texts), option


@pytest.mark.parametrize("name", NAMES)
def test_every_module_has_check_mode_and_says_so(name: str, given: Any) -> None:
    assert given(name)["supports_check_mode"] is True
    attributes = documentation(name)["attributes"]
    assert attributes["check_mode"]["support"] == "full"
    assert set(attributes) == {"action_group", "check_mode", "diff_mode", "idempotent"}


@pytest.mark.parametrize(("group", "fragment"), [("server", _connection), ("store", _store)])
def test_every_module_of_a_group_takes_all_its_options(group: str, fragment: ModuleType, given: Any) -> None:
    shared = set(yaml.safe_load(fragment.ModuleDocFragment.DOCUMENTATION)["options"])
    assert shared
    for name in RUNTIME["action_groups"][group]:
        assert shared <= set(given(name)["argument_spec"])


@pytest.mark.parametrize("name", NAMES)
def test_the_groups_that_a_module_names_are_those_it_is_in(name: str) -> None:
    member_of = {f"{OURS}{group}" for group, names in RUNTIME["action_groups"].items() if name in names}
    assert set(documentation(name)["attributes"]["action_group"]["membership"]) == member_of


@pytest.mark.parametrize("name", NAMES)
def test_only_the_secret_itself_is_kept_out_of_logs(name: str, given: Any) -> None:
    # More than that would blank ordinary words in messages.
    spec = given(name)["argument_spec"]
    expected = {"client_key_content"} if "client_key" in spec else set()
    assert {option for option, told in spec.items() if told.get("no_log")} == expected


@pytest.mark.parametrize("name", NAMES)
def test_a_path_and_its_content_exclude_each_other(name: str, given: Any) -> None:
    arguments = given(name)
    pairs = {
        (option, f"{option}_content")
        for option in arguments["argument_spec"]
        if f"{option}_content" in arguments["argument_spec"]
    }
    assert set(arguments.get("mutually_exclusive", ())) == pairs
    assert not pairs or len(pairs) == 3


@pytest.mark.parametrize("name", NAMES)
def test_examples_use_options_that_exist(name: str, given: Any) -> None:
    spec = given(name)["argument_spec"]
    tasks = yaml.safe_load(module(name).EXAMPLES)
    own = [task[f"{OURS}{name}"] for task in tasks if f"{OURS}{name}" in task]
    assert own
    assert all(set(options) <= set(spec) for options in own)


@pytest.mark.parametrize("name", NAMES)
def test_every_returned_value_is_described_with_its_type(name: str) -> None:
    for value, told in yaml.safe_load(module(name).RETURN).items():
        assert {"description", "returned", "type"} <= set(told), value


@pytest.mark.parametrize("name", [name for name in NAMES if name != "incus_backup_set"])
def test_a_module_that_returns_lists_says_that_they_may_be_cut(name: str) -> None:
    assert "truncated" in yaml.safe_load(module(name).RETURN)


@pytest.mark.parametrize(
    ("name", "result"),
    [("incus_export", ExportResult()), ("incus_import", ImportResult(set="s", set_path="site1/s", steps=[]))],
)
def test_what_a_module_returns_is_what_it_describes(name: str, result: Any) -> None:
    # problems come with an error, truncated with a result that is too long.
    described = set(yaml.safe_load(module(name).RETURN)) - {"problems", "truncated"}
    assert set(result.told()) - {"changed"} == described

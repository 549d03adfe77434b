# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import yaml

from ansible_collections.incus_fleet.backup.plugins.doc_fragments import _store

NAMES = sorted(path.stem for path in Path(_store.__file__).parent.glob("_*.py"))
assert NAMES


def sections(name: str) -> dict[str, str]:
    cls = import_module(f"ansible_collections.incus_fleet.backup.plugins.doc_fragments.{name}").ModuleDocFragment
    return {section: text for section, text in vars(cls).items() if section.isupper()}


@pytest.mark.parametrize("name", NAMES)
def test_a_fragment_is_options_and_attributes_that_can_be_read(name: str) -> None:
    assert sections(name)
    for text in sections(name).values():
        assert set(yaml.safe_load(text)) <= {"options", "attributes", "requirements"}


@pytest.mark.parametrize("name", NAMES)
def test_no_option_is_left_without_type_and_description(name: str) -> None:
    for text in sections(name).values():
        for option, told in (yaml.safe_load(text)["options"] or {}).items():
            assert {"type", "description"} <= set(told), option


@pytest.mark.parametrize("name", NAMES)
def test_a_value_in_a_description_is_written_in_ansibles_markup(name: str) -> None:
    for text in sections(name).values():
        assert "`" not in text
        assert '"""' not in text

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    OwnerMismatch,
    SetInvalid,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.directory import DirectoryStore
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.owner import (
    OWNER,
    claim_site,
    mismatch,
    read_owner,
    site_directory,
)
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    SERVER,
    killed_before_step,
)

STRANGER = replace(SERVER, name="host2", certificate_fingerprint="cd" * 32)


@pytest.fixture
def claimed(store: DirectoryStore) -> DirectoryStore:
    store.make_directory("site1", exclusive=True)
    claim_site(store, "site1", "site1", SERVER, adopt=False)
    return store


def test_a_new_site_is_claimed_and_stays_the_same_servers(claimed: DirectoryStore) -> None:
    before = claimed.read(f"site1/{OWNER}", 10000)
    claim_site(claimed, "site1", "site1", SERVER, adopt=False)
    assert claimed.read(f"site1/{OWNER}", 10000) == before
    owner = read_owner(claimed, "site1")
    assert owner is not None
    assert owner.fingerprints == (SERVER.certificate_fingerprint,)


def test_another_server_under_the_same_name_is_an_error_that_changes_nothing(claimed: DirectoryStore) -> None:
    before = claimed.read(f"site1/{OWNER}", 10000)
    with pytest.raises(OwnerMismatch) as caught:
        claim_site(claimed, "site1", "site1", STRANGER, adopt=False)
    assert claimed.read(f"site1/{OWNER}", 10000) == before
    error = caught.value
    assert (error.operation, error.entity, error.server) == ("claim the site", "site1", claimed.location)
    assert "'host1'" in error.message
    assert "'host2'" in error.message
    assert "adopt" in (error.hint or "")


def test_the_name_alone_proves_nothing(claimed: DirectoryStore) -> None:
    with pytest.raises(OwnerMismatch):
        claim_site(claimed, "site1", "site1", replace(STRANGER, name=SERVER.name), adopt=False)


def test_adopt_takes_a_rebuilt_server_in_and_still_knows_the_old_one(claimed: DirectoryStore) -> None:
    claim_site(claimed, "site1", "site1", STRANGER, adopt=True)
    owner = read_owner(claimed, "site1")
    assert owner is not None
    assert mismatch(owner, SERVER) is None
    assert mismatch(owner, STRANGER) is None
    assert mismatch(owner, replace(SERVER, certificate_fingerprint="ef" * 32)) is not None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"[" * 100000, b'{"format": "1"}'])
def test_an_owner_record_that_cannot_be_read_is_an_error_not_a_new_site(
    claimed: DirectoryStore, content: bytes
) -> None:
    claimed.replace(f"site1/{OWNER}", content)
    with pytest.raises(SetInvalid):
        claim_site(claimed, "site1", "site1", STRANGER, adopt=True)
    assert claimed.read(f"site1/{OWNER}", 200000) == content


def test_a_newer_format_is_told_as_such_even_if_nothing_else_is_known_of_it(claimed: DirectoryStore) -> None:
    claimed.replace(f"site1/{OWNER}", json.dumps({"format": 2, "who": "?"}).encode())
    with pytest.raises(SetInvalid, match="newer") as caught:
        read_owner(claimed, "site1")
    assert "Update" in (caught.value.hint or "")


def test_a_claim_that_was_killed_at_any_step_can_be_repeated(store: DirectoryStore) -> None:
    store.make_directory("site1", exclusive=True)
    step = 1
    while killed_before_step(step, store.root, lambda: claim_site(store, "site1", "site1", SERVER, adopt=False)):
        assert read_owner(store, "site1") is None or step > 2
        store.delete(f"site1/{OWNER}")
        step += 1
    assert step > 2


def test_a_members_directory_is_below_its_clusters() -> None:
    assert site_directory("east", None) == "east"
    assert site_directory("east", "node1") == "east/node1"
    assert site_directory("east", "../node/1") == "east/%2E.%2Fnode%2F1"


@pytest.mark.parametrize("site", ["", ".", "..", "../x", "a/b", ".hidden", "-x", "lost+found", "a b", "x" * 128])
def test_a_site_that_is_no_directorys_name_is_refused(site: str) -> None:
    with pytest.raises(UsageError):
        site_directory(site, None)

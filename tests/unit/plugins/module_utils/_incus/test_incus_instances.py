# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    ExtensionMissing,
    NotFound,
    ServerError,
    StreamBroken,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus import backups, instances
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import (
    Exchange,
    FakeIncus,
    HungUp,
    background,
    refusal,
    sync,
)

Connect = Callable[..., IncusClient]
BACKUPS = "/1.0/instances/web/backups"
DONE = {"id": "op1", "status_code": 200, "status": "Success"}


def web(**more: Any) -> dict[str, Any]:
    nic = {"type": "nic", "network": "incusbr0"}
    devices = {
        "eth0": nic,
        "eth1": {**nic, "hwaddr": "00:16:3E:00:00:01"},
        "root": {"type": "disk", "path": "/", "pool": "fast"},
        "data": {"type": "disk", "path": "/", "source": "/srv", "pool": "other"},
    }
    return {
        "name": "web",
        "project": "shop",
        "type": "container",
        "status": "Running",
        "status_code": 103,
        "config": {"volatile.uuid": "u-1", "volatile.eth0.hwaddr": "00:16:3E:00:00:AA"},
        "expanded_devices": devices,
        "profiles": ["default"],
        "snapshots": [
            {"name": "late", "created_at": "2026-02-01T00:00:00Z", "expires_at": "2030-01-01T00:00:00Z"},
            {"name": "web/early", "created_at": "2026-01-01T00:00:00Z", "expires_at": "0001-01-01T00:00:00Z"},
        ],
        **more,
    }


def test_all_instances_of_all_projects_take_one_request(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances", sync([web(), web(name="a", snapshots=None), web(project="default")]))
    client = connect(fake)
    found = instances.list_instances(client)
    assert [(one.project, one.name) for one in found] == [("default", "web"), ("shop", "a"), ("shop", "web")]
    assert client.requests_made == 2
    assert fake.requests[-1].query == {"recursion": "2", "all-projects": "true"}


def test_the_instances_of_one_project_are_asked_for_without_the_others(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances", sync([]))
    assert instances.list_instances(connect(fake), project="shop") == []
    assert fake.requests[-1].query == {"recursion": "2", "project": "shop"}


def test_an_instance_knows_what_decisions_are_made_on() -> None:
    one = instances.Instance.parse(web())
    assert one.uuid == "u-1"
    assert one.macs == {"eth0": "00:16:3e:00:00:aa", "eth1": "00:16:3e:00:00:01"}
    assert one.root_pool == "fast"
    assert one.networks == {"incusbr0"}
    assert (one.is_running, one.is_unknown) == (True, False)


def test_snapshots_are_in_order_of_time_and_never_is_none() -> None:
    one = instances.Instance.parse(web())
    assert [(snap.name, snap.expires_at) for snap in one.snapshots] == [
        ("early", None),
        ("late", "2030-01-01T00:00:00Z"),
    ]


def test_an_instance_that_the_server_cannot_look_at_is_unknown_not_empty() -> None:
    one = instances.Instance.parse({"name": "w", "project": "p", "status": "Error", "status_code": 112, "config": None})
    assert (one.is_unknown, one.is_running) == (True, False)


def test_pools_of_a_member_are_asked_for_by_target(fake: FakeIncus, connect: Connect) -> None:
    pool = {"name": "fast", "driver": "btrfs", "status": "Created", "config": {"source": "/img"}}
    fake.on("GET", "/1.0/storage-pools", sync([pool, {**pool, "name": "hidden", "config": None}]))
    found = instances.list_pools(connect(fake), target="m1")
    assert [(one.name, one.driver, one.source, one.status) for one in found] == [
        ("fast", "btrfs", "/img", "Created"),
        ("hidden", "btrfs", None, "Created"),
    ]
    assert fake.requests[-1].query == {"recursion": "1", "target": "m1"}


def test_errors_say_what_was_done_to_which_instance(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances/web", refusal(404, "Instance not found"))
    client = connect(fake)
    with pytest.raises(NotFound) as caught:
        instances.get_instance(client, "shop", "web")
    error = caught.value
    assert (error.operation, error.entity, error.server) == ("read instance", "shop/web", client.server)


def test_a_backup_is_made_under_its_name_with_its_expiry(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", BACKUPS, taking)
    fake.on("GET", "/1.0/operations/op1/wait", sync(DONE))
    options = backups.BackupOptions(instance_only=True, optimized=True, compression="none")
    backups.create_backup(connect(fake), "shop", "web", name="ours", expires_at="2030-01-01T00:00:00Z", options=options)
    request = fake.seen("POST", BACKUPS)[0]
    assert request.query == {"project": "shop"}
    assert request.json == {
        "name": "ours",
        "expires_at": "2030-01-01T00:00:00Z",
        "instance_only": True,
        "optimized_storage": True,
        "compression_algorithm": "none",
    }


def test_backups_on_the_server_are_listed_by_their_own_name(fake: FakeIncus, connect: Connect) -> None:
    item = {"name": "web/ours", "created_at": "2026-01-01T00:00:00Z", "expires_at": "0001-01-01T00:00:00Z"}
    fake.on("GET", BACKUPS, sync([item]))
    (found,) = backups.list_backups(connect(fake), "shop", "web")
    assert (found.name, found.expires_at) == ("ours", None)


def test_a_backup_that_is_gone_already_counts_as_deleted(fake: FakeIncus, connect: Connect) -> None:
    fake.on("DELETE", f"{BACKUPS}/ours", background("op1"), refusal(404, "not found"))
    fake.on("GET", "/1.0/operations/op1/wait", sync(DONE))
    client = connect(fake)
    assert backups.delete_backup(client, "shop", "web", "ours")
    assert not backups.delete_backup(client, "shop", "web", "ours")


def test_a_direct_stream_is_asked_for_with_the_exact_header(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
        exchange.chunk(b"tar")
        exchange.chunk(b"")

    fake.extensions = ["direct_backup"]
    fake.on("POST", BACKUPS, act)
    with backups.stream_direct(connect(fake), "shop", "web", options=backups.BackupOptions()) as stream:
        assert b"".join(stream) == b"tar"
    request = fake.requests[-1]
    assert request.headers["accept"] == "application/octet-stream"
    assert request.json == {"instance_only": False, "optimized_storage": False}


def test_a_direct_stream_that_breaks_names_its_instance(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Transfer_Encoding="chunked")
        raise HungUp

    fake.extensions = ["direct_backup"]
    fake.on("POST", BACKUPS, act)
    with (
        backups.stream_direct(connect(fake), "shop", "web", options=backups.BackupOptions()) as stream,
        pytest.raises(StreamBroken),
    ):
        stream.read_chunk()
    with (
        pytest.raises(StreamBroken) as caught,
        backups.stream_direct(connect(fake), "shop", "web", options=backups.BackupOptions()) as stream,
    ):
        stream.read_chunk()
    assert (caught.value.operation, caught.value.entity) == ("export instance", "shop/web")


def test_a_direct_stream_from_an_old_server_is_refused_before_it_is_asked_for(
    fake: FakeIncus, connect: Connect
) -> None:
    client = connect(fake)
    with pytest.raises(ExtensionMissing):
        backups.stream_direct(client, "shop", "web", options=backups.BackupOptions())
    assert client.requests_made == 1


def taking(exchange: Exchange) -> None:
    exchange.read_body()
    exchange.json(202, {"type": "async", "metadata": {"id": "op1"}})


def test_an_import_carries_its_overrides_in_headers(fake: FakeIncus, connect: Connect) -> None:
    fake.extensions = ["backup_override_config"]
    fake.on("POST", "/1.0/instances", taking)
    operation = backups.import_instance(
        connect(fake),
        "shop",
        "new",
        body=[b"tar"],
        length=3,
        pool="fast",
        config={"volatile.uuid": "", "user.n": "ü=1"},
        devices={"root": {"type": "disk", "pool": "fast"}},
    )
    headers = fake.requests[-1].headers
    assert operation.id == "op1"
    assert headers["x-incus-name"] == "new"
    assert headers["x-incus-pool"] == "fast"
    assert headers["x-incus-config"] == "volatile.uuid= user.n=ü=1"
    assert headers["x-incus-devices"] == "root,type=disk root,pool=fast"


@pytest.mark.parametrize(
    "overrides",
    [
        {"config": {"user.note": "two words"}},
        {"config": {"user note": "x"}},
        {"config": {"a=b": "x"}},
        {"config": {"": "x"}},
        {"config": {"user.note": "line\nbreak"}},
        {"devices": {"root disk": {"pool": "x"}}},
        {"devices": {"root,disk": {"pool": "x"}}},
        {"devices": {"root": {"pool": "my pool"}}},
    ],
)
def test_an_override_that_a_header_cannot_carry_is_refused_before_anything_is_sent(
    fake: FakeIncus, connect: Connect, overrides: dict[str, Any]
) -> None:
    fake.extensions = ["backup_override_config"]
    client = connect(fake)
    with pytest.raises(UsageError):
        backups.import_instance(client, "shop", "new", body=[b"tar"], length=3, **overrides)
    assert client.requests_made == 1


def test_overrides_need_a_server_that_heeds_them(fake: FakeIncus, connect: Connect) -> None:
    client = connect(fake)
    with pytest.raises(ExtensionMissing):
        backups.import_instance(client, "shop", "new", body=[b"tar"], length=3, config={"user.a": "b"})
    assert client.requests_made == 1


def test_a_refused_backup_carries_the_words_of_the_server(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", BACKUPS, refusal(400, 'Compression algorithm "x" isn\'t currently supported'))
    with pytest.raises(ServerError) as caught:
        backups.create_backup(
            connect(fake), "shop", "web", name="ours", expires_at="", options=backups.BackupOptions(compression="x")
        )
    assert "isn't currently supported" in (caught.value.server_said or "")
    assert (caught.value.operation, caught.value.entity) == ("create backup", "shop/web")

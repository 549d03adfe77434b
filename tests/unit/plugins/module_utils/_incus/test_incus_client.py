# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    Conflict,
    ExtensionMissing,
    NotFound,
    OperationFailed,
    OperationTimeout,
    PermissionDenied,
    ServerError,
    ServerUnreachable,
    UsageError,
)
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

WAIT = "/1.0/operations/op1/wait"


def state(code: int, **more: object) -> dict[str, object]:
    words = {103: "Running", 200: "Success", 400: "Failure", 401: "Cancelled"}
    return {"id": "op1", "status_code": code, "status": words[code], **more}


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("web", "web"),
        ("a/b", "a%2Fb"),
        ("a?b#c", "a%3Fb%23c"),
        ("50% off", "50%25%20off"),
        ("%2e%2e", "%252e%252e"),
        ("a+b&c=d", "a%2Bb%26c%3Dd"),
        ("größe", "gr%C3%B6%C3%9Fe"),
        ("~x.y_z-1", "~x.y_z-1"),
    ],
)
def test_a_name_is_one_segment_of_the_path_whatever_it_contains(
    any_fake: FakeIncus, connect: Connect, name: str, quoted: str
) -> None:
    any_fake.on("GET", f"/1.0/instances/{quoted}/backups/b", sync({"name": name}))
    assert connect(any_fake).get("instances/{}/backups/{}", name, "b") == {"name": name}


@pytest.mark.parametrize("name", ["", ".", "..", "\udcff"])
def test_a_name_that_would_change_the_path_is_refused_before_anything_is_sent(
    fake: FakeIncus, connect: Connect, name: str
) -> None:
    client = connect(fake)
    with pytest.raises(UsageError):
        client.get("instances/{}", name)
    assert client.requests_made == 1


def test_project_target_and_parameters_reach_the_server_as_they_are(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances", sync([]))
    connect(fake).get("instances", project="a&b=c d", target="m1", recursion=2, filter=None, public=True)
    assert fake.requests[-1].query == {"project": "a&b=c d", "target": "m1", "recursion": "2", "public": "true"}


@pytest.mark.parametrize("verb", ["put", "patch", "post", "delete"])
def test_changes_carry_their_body_project_and_headers(fake: FakeIncus, connect: Connect, verb: str) -> None:
    fake.on(verb.upper(), "/1.0/profiles/p", sync({"done": True}))
    answer = getattr(connect(fake), verb)(
        "profiles/{}", "p", body={"a": "ü"}, project="x", etag="tag", headers={"X-Incus-name": "ü"}
    )
    request = fake.requests[-1]
    assert answer == {"done": True}
    assert (request.json, request.query) == ({"a": "ü"}, {"project": "x"})
    assert (request.headers["if-match"], request.headers["x-incus-name"]) == ("tag", "ü")


def test_an_etag_comes_with_what_it_belongs_to(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/profiles/p", sync({"name": "p"}))
    assert connect(fake).get_with_etag("profiles/{}", "p") == ({"name": "p"}, '"tag"')


@pytest.mark.parametrize("value", ["a\nX-Other: 1", "a\rb", "a\x00b", " a", "a "])
def test_a_header_cannot_be_broken_out_of(fake: FakeIncus, connect: Connect, value: str) -> None:
    client = connect(fake)
    with pytest.raises(UsageError):
        client.post("instances", headers={"X-Incus-name": value})
    assert client.requests_made == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, ServerError),
        (401, PermissionDenied),
        (403, PermissionDenied),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (500, ServerError),
    ],
)
def test_an_error_carries_its_kind_the_words_of_the_server_and_its_name(
    any_fake: FakeIncus, connect: Connect, status: int, kind: type[Exception]
) -> None:
    any_fake.on("GET", "/1.0/instances/w", refusal(status, "No such thing"))
    client = connect(any_fake)
    with pytest.raises(kind) as caught:
        client.get("instances/{}", "w")
    error = caught.value
    assert error.__class__ is kind
    assert error.server_said == "No such thing"
    assert error.server == client.server
    assert getattr(error, "status", status) == status


def test_an_error_behind_a_status_200_is_an_error(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", WAIT, lambda exchange: exchange.json(200, {"type": "error", "error": "gone", "error_code": 404}))
    with pytest.raises(NotFound):
        connect(fake).get("operations/{}/wait", "op1")


@pytest.mark.parametrize("body", [b"<html>proxy</html>", b"", b"[]", b'{"type": "odd"}'])
def test_an_answer_that_is_none_of_the_api_is_an_error(fake: FakeIncus, connect: Connect, body: bytes) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Content_Length=str(len(body)))
        exchange.send(body)

    fake.on("GET", "/1.0/instances", act)
    with pytest.raises(ServerError, match="not one of the Incus API"):
        connect(fake).get("instances")


def test_a_redirect_is_not_followed(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances", lambda exchange: exchange.head(301, Location="/elsewhere", Content_Length="0"))
    with pytest.raises(ServerError):
        connect(fake).get("instances")


def hang_up(exchange: Exchange) -> None:
    raise HungUp


def test_a_daemon_that_goes_away_is_unreachable(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("GET", "/1.0/instances", hang_up)
    with pytest.raises(ServerUnreachable, match="lost"):
        connect(any_fake).get("instances")


def test_half_a_json_answer_is_a_lost_connection(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Content_Type="application/json", Content_Length="100")
        exchange.send(b'{"type": "sync"')
        raise HungUp

    fake.on("GET", "/1.0/instances", act)
    with pytest.raises(ServerUnreachable):
        connect(fake).get("instances")


def test_a_missing_extension_says_what_for(fake: FakeIncus, connect: Connect) -> None:
    with pytest.raises(ExtensionMissing, match=r"a direct export needs the API extension direct_backup.*7\.0\.2"):
        connect(fake).require("direct_backup", "a direct export")


def test_an_operation_is_waited_for_and_its_state_returned(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", "/1.0/instances", background("op1"))
    any_fake.on("GET", WAIT, sync(state(103)), sync(state(200, resources={"instances": ["/1.0/instances/w"]})))
    client = connect(any_fake)
    assert client.post("instances", body={})["resources"] == {"instances": ["/1.0/instances/w"]}
    assert client.requests_made == 4


def test_progress_is_handed_on(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, sync(state(103, metadata={"create_backup_progress": "1MB"})), sync(state(200)))
    seen: list[object] = []
    connect(fake).post("instances", body={}, on_progress=lambda now: seen.append(now["metadata"]))
    assert seen == [{"create_backup_progress": "1MB"}]


@pytest.mark.parametrize("code", [400, 401])
def test_a_failed_operation_carries_the_words_of_the_server(fake: FakeIncus, connect: Connect, code: int) -> None:
    fake.on("DELETE", "/1.0/instances/w", background("op1", description="Deleting instance"))
    fake.on("GET", WAIT, sync(state(code, err="disk on fire")))
    with pytest.raises(OperationFailed, match="Deleting instance") as caught:
        connect(fake).delete("instances/{}", "w")
    assert caught.value.server_said == "disk on fire"


def test_an_operation_that_never_ends_is_cancelled_at_its_deadline(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, sync(state(103)))
    fake.on("DELETE", "/1.0/operations/op1", sync({}))
    with pytest.raises(OperationTimeout) as caught:
        connect(fake).post("instances", body={}, timeout=0.5)
    assert len(fake.seen("DELETE", "/1.0/operations/op1")) == 1
    assert caught.value.hint == "It was cancelled"


def test_an_operation_that_cannot_be_cancelled_is_said_to_go_on(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, sync(state(103)))
    fake.on("DELETE", "/1.0/operations/op1", refusal(400, "This operation can't be cancelled"))
    with pytest.raises(OperationTimeout, match="not finished") as caught:
        connect(fake).post("instances", body={}, timeout=0.3)
    assert caught.value.server_said == "This operation can't be cancelled"
    assert "still be running" in (caught.value.hint or "")


def test_an_operation_that_vanished_is_a_failure(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, refusal(404, "Operation not found"))
    fake.on("GET", "/1.0/operations/op1", refusal(404, "Operation not found"))
    with pytest.raises(OperationFailed, match="vanished"):
        connect(fake).post("instances", body={})


@pytest.mark.parametrize("status", [403, 404, 409, 500])
def test_a_failure_that_incus_60_answers_to_the_wait_is_the_failure_of_the_operation(
    fake: FakeIncus, connect: Connect, status: int
) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, refusal(status, "disk on fire"))
    fake.on("GET", "/1.0/operations/op1", sync(state(400, err="disk on fire")))
    with pytest.raises(OperationFailed) as caught:
        connect(fake).post("instances", body={})
    assert caught.value.server_said == "disk on fire"


def test_the_end_of_a_slice_that_incus_60_answers_as_an_error_is_not_the_end(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, refusal(500, "context deadline exceeded"), sync(state(200)))
    fake.on("GET", "/1.0/operations/op1", sync(state(103)))
    assert connect(fake).post("instances", body={})["status"] == "Success"


def test_a_daemon_that_dies_while_we_wait_is_unreachable(fake: FakeIncus, connect: Connect) -> None:
    def headers_then_nothing(exchange: Exchange) -> None:
        exchange.head(200, Content_Type="application/json", Transfer_Encoding="chunked")
        raise HungUp

    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, headers_then_nothing)
    with pytest.raises(ServerUnreachable):
        connect(fake).post("instances", body={})


def test_what_the_progress_callback_raises_comes_through_after_the_operation_was_cancelled(
    fake: FakeIncus, connect: Connect
) -> None:
    def stop(_now: object) -> None:
        raise KeyboardInterrupt

    fake.on("POST", "/1.0/instances", background("op1"))
    fake.on("GET", WAIT, sync(state(103)))
    fake.on("DELETE", "/1.0/operations/op1", sync(None))
    with pytest.raises(KeyboardInterrupt):
        connect(fake).post("instances", body={}, on_progress=stop)
    assert ("DELETE", "/1.0/operations/op1") in [(seen.method, seen.path) for seen in fake.requests]


def test_a_synchronous_answer_is_no_operation(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/1.0/instances", sync({}))
    with pytest.raises(ServerError, match="no background operation"):
        connect(fake).start("POST", "instances")


def test_threads_share_facts_and_count_but_no_connection(fake: FakeIncus, connect: Connect) -> None:
    fake.on("GET", "/1.0/instances", sync([]))
    client = connect(fake)

    def work(own: object) -> None:
        for _unused in range(10):
            own.get("instances")  # type: ignore[attr-defined]

    threads = [threading.Thread(target=work, args=(client.clone_for_thread(),)) for _unused in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.requests_made == 41 == len(fake.requests)


def test_a_restarted_daemon_is_connected_to_again(fake: FakeIncus, connect: Connect) -> None:
    def answer_and_close(exchange: Exchange) -> None:
        sync([1])(exchange)
        raise HungUp

    fake.on("GET", "/1.0/instances", answer_and_close)
    client = connect(fake)
    assert [client.get("instances"), client.get("instances")] == [[1], [1]]


def test_internal_calls_leave_the_versioned_path(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", "/internal/recover/validate", sync({"UnknownVolumes": []}))
    fake.on("GET", "/internal/ready", sync(None))
    client = connect(fake)
    assert client.internal_post("recover/validate", body={"pools": []}) == {"UnknownVolumes": []}
    assert client.internal_get("ready") is None

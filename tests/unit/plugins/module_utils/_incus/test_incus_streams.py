# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import random
import resource
import threading
from collections.abc import Callable, Iterator

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    NotFound,
    PermissionDenied,
    ServerError,
    ServerUnreachable,
    StreamBroken,
    StreamStalled,
    UsageError,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.client import IncusClient
from ansible_collections.incus_fleet.backup.plugins.module_utils._incus.streams import ChunkedDecoder, MalformedChunks
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import (
    Act,
    Exchange,
    FakeIncus,
    HungUp,
    background,
    refusal,
    refusal_while_sending,
    sync,
)

Connect = Callable[..., IncusClient]
BACKUPS = "/1.0/instances/w/backups"
MIB = 1 << 20


def chunked(payload: bytes, sizes: list[int]) -> bytes:
    body = b""
    for size in sizes:
        body += b"%x\r\n%b\r\n" % (size, payload[:size])
        payload = payload[size:]
    return body + b"0\r\n\r\n"


def decode(decoder: ChunkedDecoder, data: bytes, cuts: list[int]) -> bytes:
    payload, start = b"", 0
    for cut in [*sorted(cuts), len(data)]:
        if cut > start:
            payload += decoder.feed(data[start:cut])
            start = cut
    return payload


def test_chunks_are_joined_wherever_the_blocks_are_cut() -> None:
    chance = random.Random(7)
    for _unused in range(300):
        sizes = [chance.choice([1, 2, 15, 16, 17, 255, 4096]) for _unused in range(chance.randint(0, 12))]
        payload = chance.randbytes(sum(sizes)).replace(b"a", b"\r\n")[: sum(sizes)]
        payload = payload.ljust(sum(sizes), b"\r")
        data = chunked(payload, sizes)
        cuts = [chance.randrange(len(data)) for _unused in range(chance.randint(0, 20))]
        decoder = ChunkedDecoder()
        assert decode(decoder, data, cuts) == payload
        assert decoder.finished


def test_chunks_arrive_byte_by_byte() -> None:
    data = chunked(b"hello, world", [5, 7])
    decoder = ChunkedDecoder()
    assert decode(decoder, data, list(range(len(data)))) == b"hello, world"
    assert decoder.finished


def test_extensions_and_trailers_are_skipped() -> None:
    decoder = ChunkedDecoder()
    assert decoder.feed(b"3;a=b\r\nabc\r\n0;x\r\nX-Sum: 1\r\n\r\n") == b"abc"
    assert decoder.finished


@pytest.mark.parametrize("cut", range(1, 15))
def test_a_body_without_its_last_byte_is_not_finished(cut: int) -> None:
    data = chunked(b"abc", [3])
    decoder = ChunkedDecoder()
    decode(decoder, data[: max(1, len(data) - cut)], [])
    assert not decoder.finished


@pytest.mark.parametrize(
    "data",
    [
        b"+3\r\nabc\r\n0\r\n\r\n",
        b"-3\r\nabc\r\n0\r\n\r\n",
        b"0x3\r\nabc\r\n0\r\n\r\n",
        b"1_0\r\nabcdefghijklmnop\r\n0\r\n\r\n",
        b" 3\r\nabc\r\n0\r\n\r\n",
        b"3 \r\nabc\r\n0\r\n\r\n",
        b"3\nabc\r\n0\r\n\r\n",
        b"\r\nabc\r\n0\r\n\r\n",
        b"g\r\nabc",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"4\r\nabc\r\n0\r\n\r\n",
        b"ffffffffffffffff\r\nabc",
        b"3;" + b"x" * 5000,
        b"3\r\nabc\r\n0\r\n\r\nmore",
        b"0\r\n" + b"X-Long: " + b"x" * 20000,
    ],
)
def test_framing_that_makes_no_sense_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedChunks):
        ChunkedDecoder().feed(data)


def counted(length: int, sent: bytes) -> Act:
    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Content_Type="application/octet-stream", Content_Length=str(length))
        exchange.send(sent)
        if len(sent) < length:
            raise HungUp

    return act


def in_chunks(pieces: list[bytes], *, end: bool = True) -> Act:
    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
        for piece in pieces:
            exchange.chunk(piece)
        if not end:
            raise HungUp
        exchange.chunk(b"")

    return act


def read(client: IncusClient, **options: float) -> bytes:
    with client.stream_out("POST", "instances/{}/backups", "w", body={"a": 1}, project="p", **options) as stream:
        return b"".join(stream)


def test_a_body_of_known_length_comes_through_whole(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", BACKUPS, counted(300_000, b"x" * 300_000))
    with connect(any_fake).stream_out("POST", "instances/{}/backups", "w", body={}) as stream:
        assert stream.length == 300_000
        assert sum(map(len, stream)) == 300_000
        assert stream.read_chunk() == b""
        assert stream.received == 300_000


def test_a_chunked_body_comes_through_whole(any_fake: FakeIncus, connect: Connect) -> None:
    pieces = [bytes([number % 256]) * (number + 1) for number in range(1500)]
    any_fake.on("POST", BACKUPS, in_chunks(pieces))
    assert read(connect(any_fake)) == b"".join(pieces)
    assert (any_fake.requests[-1].json, any_fake.requests[-1].query) == ({"a": 1}, {"project": "p"})


def test_an_empty_body_is_an_empty_stream(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", BACKUPS, counted(0, b""), in_chunks([]))
    client = connect(fake)
    assert [read(client), read(client)] == [b"", b""]


def test_a_body_shorter_than_announced_is_broken(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", BACKUPS, counted(1000, b"x" * 999))
    with pytest.raises(StreamBroken, match="999 bytes") as caught:
        read(connect(any_fake))
    assert caught.value.server == any_fake.url.replace("unix://", "unix:")


def test_a_chunked_body_without_its_terminator_is_broken(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", BACKUPS, in_chunks([b"x" * 5000], end=False))
    with pytest.raises(StreamBroken) as caught:
        read(connect(any_fake))
    assert "5000" in caught.value.message


def test_a_cut_archive_in_faultless_framing_is_left_to_the_archive_check(fake: FakeIncus, connect: Connect) -> None:
    fake.on("POST", BACKUPS, in_chunks([b"half a tar"]))
    assert read(connect(fake)) == b"half a tar"


def test_malformed_chunks_break_the_stream(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Transfer_Encoding="chunked")
        exchange.send(b"5\r\nhello\r\nnonsense\r\n")
        exchange.wait_for_hangup()

    fake.on("POST", BACKUPS, act)
    with pytest.raises(StreamBroken) as caught:
        read(connect(fake))
    assert "head of a chunk" in (caught.value.server_said or "")


def test_a_body_whose_end_cannot_be_proven_is_refused(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Content_Type="application/octet-stream", Connection="close")
        exchange.send(b"data")
        raise HungUp

    fake.on("POST", BACKUPS, act)
    with pytest.raises(StreamBroken) as caught:
        read(connect(fake))
    assert "cannot be proven" in (caught.value.server_said or "")


def test_silence_in_mid_stream_is_a_stall(any_fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Transfer_Encoding="chunked")
        exchange.chunk(b"x" * 100)
        exchange.wait_for_hangup()

    any_fake.on("POST", BACKUPS, act)
    with pytest.raises(StreamStalled, match=r"0\.3 seconds after 100 bytes"):
        read(connect(any_fake), timeout=0.3)


def test_silence_before_the_first_byte_is_a_stall(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", BACKUPS, lambda exchange: exchange.wait_for_hangup() and None)
    with pytest.raises(StreamStalled, match="before the first byte"):
        read(connect(any_fake), timeout=0.3)


def test_a_slow_stream_is_no_stall(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.head(200, Transfer_Encoding="chunked")
        for _unused in range(6):
            threading.Event().wait(0.15)
            exchange.chunk(b"x")
        exchange.chunk(b"")

    fake.on("POST", BACKUPS, act)
    assert read(connect(fake), timeout=0.5) == b"xxxxxx"


@pytest.mark.parametrize(
    ("status", "kind"), [(400, ServerError), (403, PermissionDenied), (404, NotFound), (500, ServerError)]
)
def test_a_refused_stream_carries_the_words_of_the_server(
    fake: FakeIncus, connect: Connect, status: int, kind: type[Exception]
) -> None:
    fake.on("POST", BACKUPS, refusal(status, "Not today"))
    with pytest.raises(kind) as caught:
        read(connect(fake))
    assert caught.value.server_said == "Not today"


@pytest.mark.parametrize("act", [background("op1"), sync({"not": "a stream"})])
def test_an_answer_in_place_of_a_stream_is_an_error(fake: FakeIncus, connect: Connect, act: Act) -> None:
    fake.on("POST", BACKUPS, act)
    with pytest.raises(ServerError):
        read(connect(fake))


def test_leaving_early_closes_the_connection(any_fake: FakeIncus, connect: Connect) -> None:
    noticed = threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Transfer_Encoding="chunked")
        exchange.chunk(b"x" * 1000)
        if exchange.wait_for_hangup():
            noticed.set()

    any_fake.on("POST", BACKUPS, act)
    client = connect(any_fake)
    with client.stream_out("POST", "instances/{}/backups", "w", body={}) as stream:
        assert stream.read_chunk() == b"x" * 1000
    assert noticed.wait(5)


def test_streams_in_threads_do_not_disturb_each_other(fake: FakeIncus, connect: Connect) -> None:
    names = [f"w{number}" for number in range(6)]
    for name in names:
        fake.on("POST", f"/1.0/instances/{name}/backups", in_chunks([name.encode() * 1000] * 200))
    client = connect(fake)
    results: dict[str, bytes] = {}

    def work(own: IncusClient, name: str) -> None:
        with own.stream_out("POST", "instances/{}/backups", name, body={}) as stream:
            results[name] = b"".join(stream)

    threads = [threading.Thread(target=work, args=(client.clone_for_thread(), name)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {name: name.encode() * 200_000 for name in names}


def receiving(exchange: Exchange) -> None:
    exchange.read_body()
    if not exchange.request.body_complete:
        raise HungUp
    exchange.json(202, {"type": "async", "metadata": {"id": "op1"}})


def blocks(count: int, size: int = 65536) -> Iterator[bytes]:
    for _unused in range(count):
        yield b"x" * size


@pytest.mark.parametrize("length", [10 * 65536, None])
def test_an_upload_arrives_whole_with_its_headers(any_fake: FakeIncus, connect: Connect, length: int | None) -> None:
    any_fake.on("POST", "/1.0/instances", receiving)
    operation = connect(any_fake).upload(
        "instances", body=blocks(10), length=length, headers={"X-Incus-name": "w"}, project="p", target="m"
    )
    request = any_fake.requests[-1]
    assert operation.id == "op1"
    assert request.body == b"x" * 10 * 65536
    assert request.query == {"project": "p", "target": "m"}
    assert (request.headers["x-incus-name"], request.headers["content-type"]) == ("w", "application/octet-stream")
    assert ("content-length" in request.headers) == (length is not None)
    assert ("transfer-encoding" in request.headers) == (length is None)


class Burnt(OSError):
    """What a failing source raises: an OSError, which the HTTP libraries would take for the network's."""


@pytest.mark.parametrize("length", [10 * 65536, None])
@pytest.mark.parametrize("failure", [Burnt("disk"), BrokenPipeError(), KeyboardInterrupt(), StreamBroken("cut")])
def test_a_failing_source_aborts_the_upload_and_comes_through(
    any_fake: FakeIncus, connect: Connect, failure: BaseException, length: int | None
) -> None:
    ended = threading.Event()

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        ended.set()
        raise HungUp

    def source() -> Iterator[bytes]:
        yield from blocks(3)
        raise failure

    any_fake.on("POST", "/1.0/instances", act)
    with pytest.raises(type(failure)) as caught:
        connect(any_fake).upload("instances", body=source(), length=length)
    assert caught.value is failure
    assert ended.wait(5)
    assert not any_fake.requests[-1].body_complete


@pytest.mark.parametrize("count", [9, 11])
def test_a_body_of_another_length_than_announced_is_never_completed(
    fake: FakeIncus, connect: Connect, count: int
) -> None:
    def act(exchange: Exchange) -> None:
        exchange.read_body()
        ended.set()
        raise HungUp

    ended = threading.Event()
    fake.on("POST", "/1.0/instances", act)
    with pytest.raises(StreamBroken, match="source of the upload"):
        connect(fake).upload("instances", body=blocks(count), length=10 * 65536)
    assert ended.wait(5)
    # All announced bytes may have gone before the surplus shows; then the answer is not listened to.
    assert fake.requests[-1].body_length <= 10 * 65536


def test_nothing_to_upload_is_refused(fake: FakeIncus, connect: Connect) -> None:
    with pytest.raises(UsageError):
        connect(fake).upload("instances", body=[], length=0)


@pytest.mark.parametrize(("status", "kind"), [(400, ServerError), (403, PermissionDenied)])
@pytest.mark.parametrize("after", [0, 5 * MIB])
@pytest.mark.parametrize("length", [64 * MIB, None])
def test_a_refusal_in_mid_upload_carries_the_words_of_the_server(
    any_fake: FakeIncus, connect: Connect, status: int, kind: type[Exception], after: int, length: int | None
) -> None:
    any_fake.on("POST", "/1.0/instances", refusal_while_sending(status, "No space in project", after=after))
    client = connect(any_fake)
    with pytest.raises(kind) as caught:
        client.upload("instances", body=blocks(1024), length=length)
    assert caught.value.server_said == "No space in project"
    any_fake.on("GET", "/1.0/instances", sync([]))
    assert client.get("instances") == []  # on a connection that the broken upload did not soil


def test_a_success_before_the_whole_body_is_not_believed(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        background("op1")(HalfRead(exchange.request, exchange.connection, b""))
        raise HungUp

    class HalfRead(Exchange):
        def read_body(self, keep: bool = True) -> int:
            return 0

    fake.on("POST", "/1.0/instances", act)
    with pytest.raises(StreamBroken):
        connect(fake).upload("instances", body=blocks(1024), length=64 * MIB)


def test_a_daemon_that_dies_in_mid_upload_breaks_it(any_fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        exchange.receive(65536)
        raise HungUp

    any_fake.on("POST", "/1.0/instances", act)
    with pytest.raises((StreamBroken, ServerUnreachable)):
        connect(any_fake).upload("instances", body=blocks(1024), length=64 * MIB)


def test_a_server_that_takes_nothing_any_more_is_a_stall(any_fake: FakeIncus, connect: Connect) -> None:
    any_fake.on("POST", "/1.0/instances", lambda exchange: threading.Event().wait(2) and None)
    with pytest.raises(StreamStalled, match="were sent"):
        connect(any_fake).upload("instances", body=blocks(1024), length=64 * MIB, timeout=0.3)


def test_a_server_that_reads_slowly_is_no_stall(fake: FakeIncus, connect: Connect) -> None:
    def act(exchange: Exchange) -> None:
        left = 4 * MIB
        while left:
            left -= len(exchange.receive(min(left, 256 * 1024)))
            threading.Event().wait(0.05)
        exchange.request.body_complete = True
        exchange.json(202, {"type": "async", "metadata": {"id": "op1"}})

    fake.on("POST", "/1.0/instances", act)
    big = b"x" * (4 * MIB)  # one block that takes longer than the time-out as a whole
    assert connect(fake).upload("instances", body=[big], length=len(big), timeout=0.5).id == "op1"


def peak_growth_of(work: Callable[[], None]) -> int:
    """By how many bytes the peak memory of a child process grows while it does the work."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            work()
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            os.write(writer, str(grown * 1024).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.waitpid(pid, 0)
    return int(text)


SIZE = 300 * MIB


@pytest.mark.parametrize("framing", ["counted", "chunked"])
def test_a_big_download_takes_no_memory(fake: FakeIncus, connect: Connect, framing: str) -> None:
    def act(exchange: Exchange) -> None:
        block = b"x" * MIB
        if framing == "counted":
            exchange.head(200, Content_Length=str(SIZE))
        else:
            exchange.head(200, Transfer_Encoding="chunked")
        for _unused in range(SIZE // MIB):
            exchange.send(block) if framing == "counted" else exchange.chunk(block)
        if framing == "chunked":
            exchange.chunk(b"")

    fake.on("POST", BACKUPS, act)
    client = connect(fake).clone_for_thread()

    def work() -> None:
        with client.stream_out("POST", "instances/{}/backups", "w", body={}) as stream:
            assert sum(map(len, stream)) == SIZE

    assert peak_growth_of(work) < 8 * MIB


@pytest.mark.parametrize("length", [SIZE, None])
def test_a_big_upload_takes_no_memory(fake: FakeIncus, connect: Connect, length: int | None) -> None:
    def act(exchange: Exchange) -> None:
        assert exchange.read_body(keep=False) == SIZE
        exchange.json(202, {"type": "async", "metadata": {"id": "op1"}})

    fake.on("POST", "/1.0/instances", act)
    client = connect(fake).clone_for_thread()
    assert peak_growth_of(lambda: client.upload("instances", body=blocks(SIZE // MIB, MIB), length=length)) < 8 * MIB

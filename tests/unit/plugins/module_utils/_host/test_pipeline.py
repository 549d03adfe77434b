# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The pipeline with the real tools: what passes, what breaks at either end, and that nothing is left behind."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import signal
import subprocess
import tarfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import TarChecker
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    ArchiveInvalid,
    CommandFailed,
    StoreError,
    StoreFull,
    StreamBroken,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.pipeline import (
    StreamFacts,
    store_stream,
    verify_stored,
)

ZSTD, GZIP, NONE = (Compression.parse(word) for word in ("zstd", "gzip", "none"))
ALL = pytest.mark.parametrize("compression", [ZSTD, GZIP, NONE], ids=str)
TOOLS = pytest.mark.parametrize("compression", [ZSTD, GZIP], ids=str)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """No test may leave a child, a thread or an open file descriptor."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("pipeline")] == []
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture(scope="module")
def archive() -> bytes:
    """A backup of some MiB that does not compress to nothing."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, data in [("index.yaml", b"name: web\n")] + [
            (f"container/rootfs/{number}", os.urandom(20_000) + bytes(20_000)) for number in range(150)
        ]:
            info = tarfile.TarInfo(f"backup/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


def pieces(data: bytes, size: int = 100_000) -> Iterator[memoryview]:
    """The data as a source gives it, always in the same buffer."""
    buffer = memoryview(bytearray(size))
    for at in range(0, len(data), size):
        part = data[at : at + size]
        buffer[: len(part)] = part
        yield buffer[: len(part)]


def stored(data: bytes, path: Path, compression: Compression) -> StreamFacts:
    """Store data in a file."""
    with path.open("wb", buffering=0) as sink:
        return store_stream(pieces(data), sink, compression=compression)


def child_pid() -> int:
    """The process id of our only child."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == os.getpid():
                return int(entry)
    raise AssertionError("no child is running")


@ALL
def test_what_is_stored_comes_back_and_the_facts_are_true(
    archive: bytes, tmp_path: Path, compression: Compression
) -> None:
    path = tmp_path / "a"
    told: list[tuple[int, int]] = []
    with path.open("wb", buffering=0) as sink:
        facts = store_stream(
            pieces(archive),
            sink,
            compression=compression,
            threads=2,
            nice=3,
            checker=TarChecker(),
            on_progress=lambda plain, out: told.append((plain, out)),
        )
    argv = compression.decompress_argv() or ["cat"]
    assert subprocess.run(argv, input=path.read_bytes(), check=True, capture_output=True).stdout == archive
    assert (facts.plain_bytes, facts.plain_sha256) == (len(archive), hashlib.sha256(archive).hexdigest())
    assert facts.stored_bytes == path.stat().st_size
    assert facts.stored_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert facts.index is not None
    assert facts.index.members == 151
    assert told[-1] == (facts.plain_bytes, facts.stored_bytes)
    with path.open("rb") as source:
        seen = verify_stored(source, compression=compression, checker=TarChecker(), nice=3)
    assert (seen.plain_sha256, seen.stored_sha256, seen.index) == (
        facts.plain_sha256,
        facts.stored_sha256,
        facts.index,
    )
    assert (seen.plain_bytes, seen.stored_bytes) == (facts.plain_bytes, facts.stored_bytes)


@ALL
def test_empty_stream_is_stored_as_such(tmp_path: Path, compression: Compression) -> None:
    facts = stored(b"", tmp_path / "a", compression)
    with (tmp_path / "a").open("rb") as source:
        assert verify_stored(source, compression=compression).plain_bytes == facts.plain_bytes == 0


@ALL
def test_no_byte_is_lost_by_a_sink_that_takes_little(archive: bytes, compression: Compression) -> None:
    class Slow(io.BytesIO):
        def write(self, data: memoryview) -> int:  # type: ignore[override]
            return super().write(bytes(data[:1000]))

    sink = Slow()
    facts = store_stream(pieces(archive), sink, compression=compression)
    assert hashlib.sha256(sink.getvalue()).hexdigest() == facts.stored_sha256
    assert len(sink.getvalue()) == facts.stored_bytes


@ALL
def test_throttle_sees_every_plain_byte(archive: bytes, compression: Compression) -> None:
    sizes: list[int] = []
    store_stream(pieces(archive), io.BytesIO(), compression=compression, throttle=sizes.append)
    assert sum(sizes) == len(archive)


@ALL
def test_error_of_the_source_passes_through(archive: bytes, compression: Compression) -> None:
    lost = StreamBroken("the connection was lost")

    def source() -> Iterator[memoryview]:
        yield from pieces(archive)
        raise lost

    with pytest.raises(StreamBroken) as caught:
        store_stream(source(), io.BytesIO(), compression=compression)
    assert caught.value is lost


@ALL
def test_cut_archive_is_refused_while_it_is_stored(archive: bytes, compression: Compression) -> None:
    with pytest.raises(ArchiveInvalid, match="expected"):
        store_stream(pieces(archive[:51200]), io.BytesIO(), compression=compression, checker=TarChecker())


@ALL
def test_damaged_archive_is_refused_while_it_is_stored(archive: bytes, compression: Compression) -> None:
    damaged = bytearray(archive)
    damaged[1024] ^= 1
    with pytest.raises(ArchiveInvalid, match="checksum"):
        store_stream(pieces(bytes(damaged)), io.BytesIO(), compression=compression, checker=TarChecker())


@ALL
def test_full_store_is_named(archive: bytes, compression: Compression) -> None:
    with open("/dev/full", "wb", buffering=0) as sink, pytest.raises(StoreFull) as caught:
        store_stream(pieces(archive * 5), sink, compression=compression)
    assert caught.value.hint


@ALL
@pytest.mark.parametrize(("code", "kind"), [(errno.EIO, StoreError), (errno.EDQUOT, StoreFull)])
def test_failing_store_is_named(archive: bytes, compression: Compression, code: int, kind: type[StoreError]) -> None:
    class Failing(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(code, os.strerror(code))

    with pytest.raises(StoreError) as caught:
        store_stream(pieces(archive * 5), Failing(), compression=compression)
    assert caught.type is kind
    assert os.strerror(code) in caught.value.message


@TOOLS
def test_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compression: Compression) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CommandFailed) as caught:
        store_stream(pieces(b"x"), io.BytesIO(), compression=compression)
    assert "host_setup" in (caught.value.hint or "")
    with pytest.raises(CommandFailed):
        verify_stored(io.BytesIO(b"x"), compression=compression)


@TOOLS
def test_killed_compressor_is_named(archive: bytes, compression: Compression) -> None:
    def source() -> Iterator[memoryview]:
        yield from pieces(archive)
        os.kill(child_pid(), signal.SIGKILL)
        for _unused in range(5):
            yield from pieces(archive)

    with pytest.raises(CommandFailed, match="killed by signal 9"):
        store_stream(source(), io.BytesIO(), compression=compression)


@TOOLS
def test_killed_decompressor_is_not_blamed_on_the_file(
    archive: bytes, tmp_path: Path, compression: Compression
) -> None:
    path = tmp_path / "a"
    stored(archive, path, compression)

    class Killing(io.FileIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            if self.tell():
                os.kill(child_pid(), signal.SIGKILL)
            return super().read(50_000)  # type: ignore[return-value]

    with Killing(path) as source, pytest.raises(CommandFailed, match="killed by signal 9"):
        verify_stored(source, compression=compression)


@TOOLS
@pytest.mark.parametrize("kept", [0, 3, 1000, -1])
def test_cut_stored_file_is_refused(archive: bytes, tmp_path: Path, compression: Compression, kept: int) -> None:
    path = tmp_path / "a"
    stored(archive, path, compression)
    with pytest.raises(ArchiveInvalid, match=r"cannot be decompressed|was expected"):
        verify_stored(io.BytesIO(path.read_bytes()[:kept]), compression=compression, checker=TarChecker())


@TOOLS
def test_flipped_byte_of_a_stored_file_is_refused(archive: bytes, tmp_path: Path, compression: Compression) -> None:
    path = tmp_path / "a"
    stored(archive, path, compression)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0x10
    with pytest.raises(ArchiveInvalid) as caught:
        verify_stored(io.BytesIO(bytes(damaged)), compression=compression, checker=TarChecker())
    assert caught.value.server_said or "At byte" in caught.value.message


@TOOLS
def test_garbage_after_a_stored_file_is_refused(archive: bytes, tmp_path: Path, compression: Compression) -> None:
    path = tmp_path / "a"
    stored(archive, path, compression)
    with pytest.raises(ArchiveInvalid, match="cannot be decompressed"):
        verify_stored(io.BytesIO(path.read_bytes() + b"garbage"), compression=compression, checker=TarChecker())


@ALL
def test_unreadable_stored_file_is_named(compression: Compression) -> None:
    class Unreadable(io.BytesIO):
        def read(self, _size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(StoreError, match="cannot be read"):
        verify_stored(Unreadable(), compression=compression)


@ALL
def test_archive_cut_before_it_was_compressed_is_refused(
    archive: bytes, tmp_path: Path, compression: Compression
) -> None:
    path = tmp_path / "a"
    stored(archive[: 512 * 3], path, compression)
    with path.open("rb") as source, pytest.raises(ArchiveInvalid, match="At byte"):
        verify_stored(source, compression=compression, checker=TarChecker())


def test_multi_member_gzip_of_other_tools_is_read_to_its_end(archive: bytes) -> None:
    both = gzip.compress(archive[:5000]) + gzip.compress(archive[5000:])
    assert verify_stored(io.BytesIO(both), compression=GZIP, checker=TarChecker()).plain_bytes == len(archive)


def peak_of(pid: int) -> int:
    """A process's greatest resident size in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) >> 10
    raise AssertionError("no VmHWM")


def traced(sink: BinaryIO, total: int) -> tuple[StreamFacts, list[int]]:
    """Store that many zeros; the facts, and the child's peak in MiB as seen towards the end."""
    peaks: list[int] = []
    zeros = memoryview(bytes(1 << 20))

    def source() -> Iterator[memoryview]:
        for number in range(total >> 20):
            if number == (total >> 20) - 1:
                peaks.append(peak_of(child_pid()))
            yield zeros

    return store_stream(source(), sink, compression=ZSTD, threads=2), peaks


def test_memory_stays_flat_for_a_gibibyte(tmp_path: Path) -> None:
    path = tmp_path / "a"
    tracemalloc.start()
    try:
        with path.open("wb", buffering=0) as sink:
            facts, peaks = traced(sink, 1 << 30)
        with path.open("rb", buffering=0) as source:
            seen = verify_stored(source, compression=ZSTD)
        ours = tracemalloc.get_traced_memory()[1] >> 20
    finally:
        tracemalloc.stop()
    assert facts.plain_bytes == seen.plain_bytes == 1 << 30
    assert seen.plain_sha256 == facts.plain_sha256
    assert ours < 8
    assert max(peaks) < 60

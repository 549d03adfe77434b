# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Moves a stream once and does everything on the way: hash, check the archive, compress, hash again, store.

Memory does not grow with the stream: a chunk is done with before the next one is asked for, so a source may use one
buffer again and again.  The compressor's other end is served by a thread, so no pipe can fill up unread; whoever fails
kills the child, which wakes the others up, and the first cause is what is raised.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import ArchiveIndex, TarChecker
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import Compression
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    ArchiveInvalid,
    BackupError,
    CommandFailed,
    StoreError,
    StoreFull,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._host.commands import Filter

# Chunks that stay in a core's second-level cache from the hash to the pipe beat chunks of 1 MiB by some 8 % (measured).
_CHUNK = 128 << 10
_PIPE = 1 << 20
_PROGRESS_SECONDS = 0.5

Chunk: TypeAlias = "bytes | memoryview"
Progress = Callable[[int, int], None]
"""Told, at most twice a second and at the end, how many plain and how many stored bytes have passed."""


@dataclass(frozen=True)
class StreamFacts:
    """What went by: sizes in bytes and sha256 (hex) of the plain stream and of the stored file, and the time taken."""

    plain_bytes: int
    plain_sha256: str
    stored_bytes: int
    stored_sha256: str
    seconds: float
    index: ArchiveIndex | None


class _Meter:
    """Counts and hashes what passes one point of the pipeline."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    def pass_by(self, data: Chunk) -> None:
        self._hash.update(data)
        self.size += len(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class _Ticker:
    """Tells the caller of the progress, but not for every chunk."""

    def __init__(self, plain: _Meter, stored: _Meter, tell: Progress | None) -> None:
        self._plain, self._stored, self._tell = plain, stored, tell
        self._next = time.monotonic() + _PROGRESS_SECONDS

    def tick(self, *, last: bool = False) -> None:
        if self._tell and (last or time.monotonic() >= self._next):
            self._tell(self._plain.size, self._stored.size)
            self._next = time.monotonic() + _PROGRESS_SECONDS


class _Helper:
    """A thread that serves one end of a child's pipes while the caller serves the other.

    What it fails with is kept for ``error``, and the child is killed, so that the caller, who may be blocked on its
    own pipe, wakes up.
    """

    def __init__(self, work: Callable[[], None], child: Filter) -> None:
        self._work, self._child = work, child
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=f"pipeline-{child.tool}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
            self._child.kill()

    def join(self) -> None:
        """Wait for its end, which the child's end brings about."""
        self._thread.join()


def store_stream(
    chunks: Iterable[Chunk],
    sink: BinaryIO,
    *,
    compression: Compression,
    threads: int = 1,
    nice: int = 0,
    throttle: Callable[[int], None] | None = None,
    checker: TarChecker | None = None,
    on_progress: Progress | None = None,
) -> StreamFacts:
    """Read ``chunks`` to their end and write them, compressed, to ``sink``; the caller syncs and closes it.

    ``throttle`` is called with the size of each plain chunk and sleeps.  ``sink`` is written to from another thread.
    Raises ArchiveInvalid when ``checker`` objects, StoreFull and StoreError when the sink does, CommandFailed when the
    compressor is missing or dies; what the source raises passes through.  On failure the sink holds a useless piece.
    """
    began = time.monotonic()
    plain, stored = _Meter(), _Meter()
    ticker = _Ticker(plain, stored, on_progress)

    def passing() -> Iterator[Chunk]:
        for chunk in chunks:
            if throttle:
                throttle(len(chunk))
            if checker:
                checker.feed(chunk)
            plain.pass_by(chunk)
            yield chunk
            ticker.tick()

    argv = compression.compress_argv(threads)
    if argv:
        _through_compressor(passing(), argv, nice, lambda data: _store(data, sink, stored))
    else:
        stored = plain
        for chunk in passing():
            _write_sink(sink, chunk)
    index = checker.finish() if checker else None
    _Ticker(plain, stored, on_progress).tick(last=True)
    return _facts(plain, stored, began, index)


def verify_stored(
    source: BinaryIO,
    *,
    compression: Compression,
    nice: int = 0,
    checker: TarChecker | None = None,
    on_progress: Progress | None = None,
) -> StreamFacts:
    """Read a stored file to its end, decompress it and check the archive in it; returns what it really holds.

    Comparing the hashes with the recorded ones is the caller's.  Raises ArchiveInvalid when the decompressor or
    ``checker`` objects, StoreError when the file cannot be read, CommandFailed when the decompressor is missing or
    killed.
    """
    began = time.monotonic()
    plain, stored = _Meter(), _Meter()
    ticker = _Ticker(plain, stored, on_progress)

    def take(chunk: Chunk) -> None:
        plain.pass_by(chunk)
        if checker:
            checker.feed(chunk)
        ticker.tick()

    argv = compression.decompress_argv()
    if argv:
        _through_decompressor(_read_source(source, stored), argv, nice, take)
    else:
        plain = stored
        for chunk in _read_source(source, stored):
            if checker:
                checker.feed(chunk)
            ticker.tick()
    index = checker.finish() if checker else None
    _Ticker(plain, stored, on_progress).tick(last=True)
    return _facts(plain, stored, began, index)


def _facts(plain: _Meter, stored: _Meter, began: float, index: ArchiveIndex | None) -> StreamFacts:
    seconds = time.monotonic() - began
    return StreamFacts(plain.size, plain.hexdigest(), stored.size, stored.hexdigest(), seconds, index)


def _through_compressor(chunks: Iterator[Chunk], argv: list[str], nice: int, store: Callable[[Chunk], None]) -> None:
    """Feed a child from here and store what it says from a helper."""
    with Filter(argv, nice=nice) as child:
        _widen(child)

        def read() -> None:
            for chunk in _read_pipe(child.stdout.fileno()):
                store(chunk)

        helper = _Helper(read, child)
        try:
            alive = _write_pipe(child, chunks)
            if alive:
                child.stdin.close()
            helper.join()
        except BaseException:
            child.kill()
            helper.join()
            raise
        if helper.error:
            raise helper.error
        child.wait()
        if not alive:
            raise CommandFailed(f"The command {child.tool} stopped reading", server_said=child.complaints() or None)


def _through_decompressor(chunks: Iterator[Chunk], argv: list[str], nice: int, take: Callable[[Chunk], None]) -> None:
    """Feed a child from a helper and take what it says here."""
    with Filter(argv, nice=nice) as child:
        _widen(child)

        def write() -> None:
            _write_pipe(child, chunks)
            child.stdin.close()

        helper = _Helper(write, child)
        try:
            for chunk in _read_pipe(child.stdout.fileno()):
                take(chunk)
            helper.join()
        except BaseException:
            child.kill()
            helper.join()
            raise
        if helper.error:
            raise helper.error
        try:
            child.wait()
        except CommandFailed as error:
            if child.returncode is None or child.returncode < 0:
                raise  # killed or stuck: that says nothing about the file
            raise ArchiveInvalid(
                f"The stored file cannot be decompressed by {child.tool}", server_said=error.server_said
            ) from error


def _write_pipe(child: Filter, chunks: Iterator[Chunk]) -> bool:
    """Write every chunk whole to the child; False when the child stopped reading."""
    pipe = child.stdin.fileno()
    for chunk in chunks:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(pipe, rest) :]
            except BrokenPipeError:
                return False
    return True


def _read_pipe(pipe: int) -> Iterator[memoryview]:
    """What a pipe gives until its end, each time in the same buffer."""
    buffer = memoryview(bytearray(_CHUNK))
    while size := os.readv(pipe, [buffer]):
        yield buffer[:size]


def _read_source(source: BinaryIO, meter: _Meter) -> Iterator[bytes]:
    while True:
        try:
            chunk = source.read(_CHUNK)
        except OSError as error:
            raise StoreError(f"The stored file cannot be read: {error.strerror or error}") from error
        if not chunk:
            return
        meter.pass_by(chunk)
        yield chunk


def _store(data: Chunk, sink: BinaryIO, meter: _Meter) -> None:
    _write_sink(sink, data)
    meter.pass_by(data)


def _write_sink(sink: BinaryIO, data: Chunk) -> None:
    """Write it all: an unbuffered file may take less than it is given."""
    rest = memoryview(data)
    try:
        while rest:
            rest = rest[sink.write(rest) :]
    except OSError as error:
        raise _store_error(error) from error


def _store_error(error: OSError) -> BackupError:
    reason = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"The store is full: {reason}", hint="Free space in the store, or enlarge it, and run again")
    return StoreError(f"The store cannot be written: {reason}")


def _widen(child: Filter) -> None:
    """Give the pipes room for more than one chunk, so that the ends wait for each other less."""
    for pipe in (child.stdin, child.stdout):
        try:
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)
        except OSError:
            return  # an ordinary user's allowance of pipe pages is used up: slower, not wrong

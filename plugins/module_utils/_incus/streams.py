# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""Bodies that never fit into memory, both ways: read to their proven end, written without a copy of the whole.

A direct export arrives in very many small HTTP chunks (an archive of small files gives 150,000 of them per 870 MiB).
Read one by one through urllib3 each costs some microseconds there and as much again in everything that handles a piece
afterwards, so ``ChunkedDecoder`` takes the bytes in big blocks as the socket has them and finds the chunks within.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import BackupError, StreamBroken

BLOCK = 96 * 1024
"""Bytes asked of the socket at once.  Above 128 KiB the C library maps and unmaps memory for each: twice the time."""

# urllib3 and ssl bound one send by the time-out as a whole, so a slow reader must be fed in pieces.
_PIECE = 256 * 1024
_LINE_LIMIT = 1024
_TRAILER_LIMIT = 16 * 1024

# The end of one chunk and the head of the next in one match; int() alone would take "+5", "0x5" and "1_0" too.
_BOUNDARY = re.compile(rb"\r\n([0-9A-Fa-f]{1,15})(?:;[^\r\n]*)?\r\n")
_CUT_BOUNDARY = re.compile(rb"(?:\r(?:\n(?:[0-9A-Fa-f]{1,15}(?:\r|;[^\r\n]*\r?)?)?)?)?")


class MalformedChunks(Exception):
    """The other side's chunked framing makes no sense."""


class ChunkedDecoder:
    """Takes blocks of a chunked body as they arrive and gives back their payload.

    ``finished`` is True from the moment the terminating chunk was seen in whole; a body whose end of file comes
    earlier was cut.
    """

    def __init__(self) -> None:
        self.finished = False
        # The first chunk's head has no chunk before it: this makes it look like all the others.
        self._rest = b"\r\n"
        self._left = 0
        self._in_trailer = False

    def feed(self, block: bytes) -> bytes:
        """The payload within ``block``, possibly empty.  Raises MalformedChunks."""
        if self.finished:
            raise MalformedChunks("there are bytes after the end")
        size = len(block)
        if self._left >= size:
            self._left -= size
            return block
        if self._in_trailer:
            self._finish(self._rest + block)
            return b""
        position = self._left
        parts: list[bytes | memoryview] = []
        if position:
            parts.append(memoryview(block)[:position])
        elif self._rest:
            block = self._rest + block
            size = len(block)
        self._rest = b""
        self._left = 0
        self._split(block, position, size, parts)
        return b"".join(parts)

    def _split(self, block: bytes, position: int, size: int, parts: list[bytes | memoryview]) -> None:
        """Walk the chunks of ``block`` from ``position``, which is right behind a chunk's data."""
        view = memoryview(block)
        match = _BOUNDARY.match
        while True:
            boundary = match(block, position)
            if boundary is None:
                self._keep(block[position:])
                return
            start = boundary.end()
            length = int(boundary[1], 16)
            if not length:
                self._in_trailer = True
                self._finish(block[start:])
                return
            position = start + length
            if position >= size:
                parts.append(view[start:])
                self._left = position - size
                return
            parts.append(view[start:position])

    def _keep(self, rest: bytes) -> None:
        """Keep a boundary that the block's end cut, unless it cannot become one."""
        if len(rest) > _LINE_LIMIT or not _CUT_BOUNDARY.fullmatch(rest):
            raise MalformedChunks(f"expected the head of a chunk, found {rest[:40]!r}")
        self._rest = rest

    def _finish(self, rest: bytes) -> None:
        """Skip the trailer fields up to the empty line that ends the body."""
        while True:
            line, separator, after = rest.partition(b"\r\n")
            if not separator:
                if len(rest) > _TRAILER_LIMIT:
                    raise MalformedChunks("the trailer does not end")
                self._rest = rest
                return
            if not line:
                if after:
                    raise MalformedChunks("there are bytes after the end")
                self.finished = True
                return
            rest = after


class Source(Protocol):
    """A buffered binary reader over a socket: ``read1`` gives what is there, b"" at the end of file."""

    def read1(self, size: int, /) -> bytes:
        """At most ``size`` bytes; waits for the first one only."""


class ByteStream:
    """A response's body.  ``length`` is its size in bytes where the server said it, ``received`` what was handed out.

    Reading ends with b"" only where the end is proven: all bytes of the announced length, or the terminating chunk.
    Everything else raises: StreamStalled for a silent connection, StreamBroken for an early end or broken framing.
    """

    def __init__(
        self,
        source: Source | None,
        *,
        length: int | None,
        chunked: bool,
        describe: Callable[[BaseException, int], BackupError],
    ) -> None:
        self.length = length
        self.received = 0
        self._source = source
        self._decoder = ChunkedDecoder() if chunked else None
        self._describe = describe

    def read_chunk(self) -> bytes:
        """The next piece of the body as it comes, up to 96 KiB (its size means nothing); b"" at the proven end."""
        piece = self._read_chunked(self._decoder) if self._decoder else self._read_counted()
        self.received += len(piece)
        return piece

    def __iter__(self) -> Iterator[bytes]:
        """The pieces up to the proven end."""
        while piece := self.read_chunk():
            yield piece

    def _read_chunked(self, decoder: ChunkedDecoder) -> bytes:
        while not decoder.finished:
            block = self._receive(BLOCK)
            if not block:
                raise self._broken("it ended without the terminating chunk")
            try:
                piece = decoder.feed(block)
            except MalformedChunks as error:
                raise self._broken(str(error)) from error
            if piece:
                return piece
        return b""

    def _read_counted(self) -> bytes:
        if self.length is None:
            raise self._broken("it has neither a length nor chunks, so its end cannot be proven")
        left = self.length - self.received
        if not left:
            return b""
        block = self._receive(min(left, BLOCK))
        if not block:
            raise self._broken(f"it ended {left} bytes early")
        return block

    def _receive(self, size: int) -> bytes:
        if self._source is None:
            return b""
        try:
            return self._source.read1(size)
        except (OSError, ValueError) as error:  # a source that was closed under us raises ValueError
            raise self._describe(error, self.received) from error

    def _broken(self, why: str) -> BackupError:
        return self._describe(StreamBroken(why), self.received)


class SourceFailed(Exception):
    """Carries an upload's failing source through the HTTP libraries, which would take an OSError for the network's."""


class UploadBody:
    """An iterable body for requests that knows what it sent and why it stopped.

    ``sent`` counts bytes handed to the connection, ``complete`` is True when the source came to its end,
    ``failure`` is what the source raised.
    """

    def __init__(self, source: Iterable[bytes]) -> None:
        self.sent = 0
        self.complete = False
        self.failure: BaseException | None = None
        self._source = source

    def __iter__(self) -> Iterator[memoryview]:
        try:
            for block in self._source:
                view = memoryview(block)
                for start in range(0, len(view), _PIECE):
                    piece = view[start : start + _PIECE]
                    self._check(len(piece))
                    yield piece
                    self.sent += len(piece)
            self._check_end()
        except GeneratorExit:
            raise
        except BaseException as error:
            # Neither swallowed as a broken pipe nor wrapped: the request is aborted and upload() raises it again.
            self.failure = error
            raise SourceFailed from error
        self.complete = True

    def _check(self, size: int) -> None:
        """Hook: ``size`` more bytes are about to be sent."""

    def _check_end(self) -> None:
        """Hook: the source came to its end."""


class SizedUploadBody(UploadBody):
    """A body whose size is announced; ``len`` is the name under which requests looks for it."""

    def __init__(self, source: Iterable[bytes], length: int) -> None:
        super().__init__(source)
        self.len = length

    def _check(self, size: int) -> None:
        if self.sent + size > self.len:
            raise StreamBroken(f"the source of the upload has more than the announced {self.len} bytes")

    def _check_end(self) -> None:
        if self.sent != self.len:
            raise StreamBroken(f"the source of the upload ended after {self.sent} of {self.len} bytes")

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The directory store: a tree on a local or mounted file system."""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import (
    BackupError,
    SetInvalid,
    StoreDenied,
    StoreError,
    StoreFull,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import now
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import (
    INCOMPLETE_SUFFIX,
    PART_SUFFIX,
    Store,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MARKER = "store.json"
LOCK = ".lock"
LOCK_SECONDS = 60.0
_FORMAT = 1
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP)


class DirectoryStore(Store):
    """Sets in directories (0700) of files (0600) below ``root``.

    The root carries a marker, so that a mount point whose file system is not mounted is never taken for a store.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.location = str(root)

    @classmethod
    def attach(cls, location: str, *, create: bool, dry_run: bool = False) -> DirectoryStore:
        """The store at ``location``; with ``create`` an empty or absent directory becomes one.

        With ``dry_run`` it is checked that it could become one, and then looks like an empty store.
        """
        root = Path(location)
        if not root.is_absolute():
            raise StoreError(f"the store {location!r} is not an absolute path")
        store = cls(root)
        with store._told("open the store", ""):
            if not store._is_there():
                if not create:
                    raise _no_store(root)
                store._check_empty()
                if dry_run:
                    return store
                store._found()
        store._check_marker()
        return store

    def exists(self, path: str) -> bool:
        with self._told("look up", path):
            try:
                os.lstat(self._at(path))
            except (FileNotFoundError, NotADirectoryError):
                return False
            return True  # any other error is told: a store in trouble must not look empty

    def names(self, path: str) -> list[str]:
        with self._told("list", path):
            try:
                return sorted(os.listdir(self._inside(path)))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def files(self, path: str) -> list[str]:
        with self._told("list", path):
            top = self._inside(path)
            found = []
            for directory, names, files in os.walk(top, onerror=_reraise):
                links = [name for name in names if os.path.islink(os.path.join(directory, name))]
                found += [os.path.relpath(os.path.join(directory, name), top) for name in files + links]
            return sorted(found)

    def size(self, path: str) -> int | None:
        with self._told("look up", path):
            try:
                found = os.lstat(self._at(path))
            except (FileNotFoundError, NotADirectoryError):
                return None
            return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, path: str, limit: int) -> bytes:
        with self.open(path) as source, self._told("read", path):
            content = source.read() if os.fstat(source.fileno()).st_size <= limit else None
        if content is None or len(content) > limit:
            raise StoreError(f"{self._at(path)} is larger than {limit} bytes", operation="read")
        return content

    def open(self, path: str) -> BinaryIO:
        with self._told("read", path):
            # No link is followed and no pipe waited for: a store is also read when somebody else could write to it.
            handle = os.open(self._at(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                os.close(handle)
                raise StoreError(f"{self._at(path)} is not a file", operation="read")
            return os.fdopen(handle, "rb", buffering=0)

    @contextmanager
    def create(self, path: str) -> Iterator[BinaryIO]:
        final = self._at(path)
        part = final.with_name(final.name + PART_SUFFIX)
        self.make_directory(os.path.dirname(path), exclusive=False)
        with self._told("write", path):
            sink = _Sink(os.open(part, _NEW_FILE, 0o600), final)
        try:
            # Only who holds the piece renames it, so looking for the name now leaves no gap for a second writer.
            self._refuse_taken(path, "write")
            yield sink
            with self._told("write", path):
                sink.flush()
                os.fsync(sink.fileno())
                sink.close()
                os.rename(part, final)  # on disk when the record beside it is, which syncs the same directory
        except BaseException:
            sink.raw.close()  # not the sink itself: what it still holds is not wanted any more
            with suppress(OSError):  # the first cause is what must be told
                part.unlink(missing_ok=True)
            raise

    def replace(self, path: str, content: bytes) -> None:
        final = self._at(path)
        # The number of a process would not do: another host, or another thread, may have the same.
        part = final.with_name(f"{final.name}.{secrets.token_hex(4)}{PART_SUFFIX}")
        with self._told("write", path):
            handle = os.open(part, _NEW_FILE, 0o600)
            try:
                with os.fdopen(handle, "wb") as sink:
                    sink.write(content)
                    sink.flush()
                    os.fsync(sink.fileno())
                os.rename(part, final)
            except BaseException:
                with suppress(OSError):
                    part.unlink(missing_ok=True)
                raise
            _sync_directory(final.parent)

    def delete(self, path: str) -> None:
        with self._told("delete", path):
            self._at(path).unlink(missing_ok=True)

    def delete_tree(self, path: str) -> None:
        with self._told("delete", path):
            if os.path.lexists(self._at(path)):
                shutil.rmtree(self._at(path))

    def make_directory(self, path: str, *, exclusive: bool) -> bool:
        with self._told("make the directory", path):
            target = self._inside(path)
            missing = [target, *target.parents]
            missing = [place for place in missing[: missing.index(self.root)] if not place.is_dir()]
            if missing and not self._is_there():  # unmounted meanwhile: never fill the disk below the mount point
                raise _no_store(self.root)
            for place in reversed(missing):
                try:
                    os.mkdir(place, 0o700)
                except FileExistsError:
                    if place == target and exclusive:
                        return False
                    if not place.is_dir():
                        raise
                else:
                    _sync_directory(place.parent)
            return target in missing or not exclusive

    def publish_directory(self, path: str) -> None:
        with self._told("publish", path):
            final = self._at(path)
            self._refuse_taken(path, "publish")
            os.rename(final.with_name(final.name + INCOMPLETE_SUFFIX), final)
            _sync_directory(final.parent)

    @contextmanager
    def lock(self, path: str) -> Iterator[None]:
        with self._told("lock", path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC  # to write, because NFS wants it so
            handle = os.open(self._inside(path) / LOCK, flags, 0o600)
        try:
            with self._told("lock", path):
                _wait_for_lock(handle, self._at(path))
            yield
        finally:
            os.close(handle)

    def touch(self, path: str) -> None:
        with self._told("touch", path):
            os.utime(self._at(path), follow_symlinks=False)

    def age(self, path: str) -> float | None:
        with self._told("look up", path):
            try:
                written = os.lstat(self._at(path)).st_mtime
            except FileNotFoundError:
                return None
            # The file server's clock may differ from ours: ask it for the present by touching a file there.
            return max(0.0, self._present(self._at(path).parent / LOCK) - written)

    def free_bytes(self) -> int | None:
        with self._told("look up the free space", ""):
            found = os.statvfs(self.root)
            return found.f_bavail * found.f_frsize

    def _at(self, path: str) -> Path:
        """The place of a path, which neither leaves the store nor passes through a symbolic link in it."""
        parts = path.split("/") if path else []
        if any(part in ("", ".", "..") or not part.isprintable() for part in parts):
            raise StoreError(
                f"{path!r} is not a path within the store", hint="A manifest or an option was tampered with"
            )
        place = self.root
        for part in parts:
            if place != self.root:
                _refuse_link(place)
            place /= part
        return place

    def _inside(self, path: str) -> Path:
        """As ``_at``, for a directory whose content is meant."""
        place = self._at(path)
        if path:
            _refuse_link(place)
        return place

    def _refuse_taken(self, path: str, operation: str) -> None:
        if self.exists(path):
            raise StoreError(f"{self.root / path} exists already", operation=operation)

    def _is_there(self) -> bool:
        return (self.root / MARKER).is_file()

    def _found(self) -> None:
        """Make an empty or absent directory a store; another run may be doing the same at this moment."""
        self.root.mkdir(mode=0o700, exist_ok=True)
        if not self._is_there():
            self.replace(MARKER, _json({"format": _FORMAT, "kind": "directory", "created_at": format_moment(now())}))

    def _check_empty(self) -> None:
        names = os.listdir(self.root) if self.root.is_dir() else []
        strange = [name for name in names if name != "lost+found" and not name.startswith(MARKER)]
        if strange and not self._is_there():
            raise StoreError(
                f"{self.root} is not empty and holds no {MARKER}",
                operation="create a store",
                hint="Give a new store a directory of its own",
            )

    def _check_marker(self) -> None:
        """Raise SetInvalid for a store that this release does not understand."""
        try:
            marker = json.loads(self.read(MARKER, 64 * 1024))
            known = marker["kind"] == "directory" and int(marker["format"]) <= _FORMAT
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise SetInvalid(f"{self.root / MARKER} is not readable", operation="open the store") from error
        if not known:
            raise SetInvalid(
                f"{self.root} is a store of another kind, or of a format newer than this release knows",
                operation="open the store",
                hint="Update the collection",
            )

    @staticmethod
    def _present(clock: Path) -> float:
        """The file system's own idea of the present; ours where it may only be read."""
        try:
            clock.touch(mode=0o600)
            return clock.lstat().st_mtime
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            return time.time()

    @contextmanager
    def _told(self, operation: str, path: str) -> Iterator[None]:
        """Turn the operating system's errors into ours, with the place and what was tried."""
        try:
            yield
        except OSError as error:
            raise told(error, operation, str(self.root / path) if path else self.location) from error


class _Sink(io.BufferedWriter):
    """A file of the store being written; only its own errors become the store's, not those of who writes to it.

    Buffered, because a raw file may take less than it is given and say so in a number that is easily overlooked.
    """

    def __init__(self, handle: int, place: Path) -> None:
        super().__init__(io.FileIO(handle, "wb"))
        self._place = place

    def write(self, buffer: ReadableBuffer, /) -> int:
        try:
            return super().write(buffer)
        except OSError as error:
            raise told(error, "write", str(self._place)) from error


def told(error: OSError, operation: str, place: str) -> BackupError:
    """The typed error for an operating system's error in a store."""
    said = error.strerror or str(error)
    if error.errno in _FULL:
        return StoreFull(
            f"no space left at {place}",
            operation=operation,
            server_said=said,
            hint="Free space in the store and run again: what is finished in the open set is kept",
        )
    if error.errno in _REFUSED:
        return StoreDenied(
            f"{place} may not be used ({said})",
            operation=operation,
            server_said=said,
            hint="Check owner, mode and mount",
        )
    return StoreError(f"{place}: {said}", operation=operation, server_said=said)


def _no_store(root: Path) -> StoreError:
    return StoreError(
        f"{root} holds no store ({MARKER} is not there)",
        operation="open the store",
        hint="Is its file system mounted? If this is to be a new store, run once with store_create=true",
    )


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:  # some network file systems have no such thing for a directory
            raise
    finally:
        os.close(handle)


def _wait_for_lock(handle: int, place: Path) -> None:
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() >= deadline:
                raise StoreError(
                    f"{place} has been locked for {LOCK_SECONDS:.0f} s",
                    operation="lock",
                    hint="Another run hangs while it writes there: look for a stopped process or a stuck file server",
                ) from error
            time.sleep(0.02)
        else:
            return


def _refuse_link(place: Path) -> None:
    if os.path.islink(place):
        raise StoreError(f"{place} is a symbolic link", hint="Nothing in a store is reached through a link: remove it")


def _reraise(error: OSError) -> None:
    raise error

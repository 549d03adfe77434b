# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of ours in processes of their own, and what a fake server must answer them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.incus_fleet.backup.plugins.module_utils._ansible import run as anchor
from ansible_collections.incus_fleet.backup.tests.unit.fakes.incus_server import Act, Exchange, FakeIncus, sync

MODULES = "ansible_collections.incus_fleet.backup.plugins.modules"
# As this process imports the collection, also where a finder of ansible-test does it.
ROOT = Path(anchor.__file__).parents[6]
assert (ROOT / "ansible_collections/incus_fleet/backup").is_dir()


class Runner:
    """Runs modules as a host does; ``store`` and ``site`` are given to each."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.store = home / "store"
        self.url: str | None = None
        self.defaults: dict[str, Any] = {}
        self.first_on_path: list[str] = []

    def start(self, module: str, *, check: bool = False, env: dict[str, str] | None = None, **options: Any) -> Any:
        """The module's process, with its options given."""
        arguments: dict[str, Any] = {"store": str(self.store), "site": "site1", **self.defaults, **options}
        if self.url is not None:
            arguments.setdefault("url", self.url)
        arguments |= {"_ansible_check_mode": check, "_ansible_remote_tmp": str(self.home), "_ansible_tmpdir": None}
        command = [sys.executable, "-m", f"{MODULES}.{module}"]
        path = os.pathsep.join([*self.first_on_path, str(ROOT), *filter(None, sys.path)])
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.home,
            env={**os.environ, "PYTHONPATH": path, "HOME": str(self.home), **(env or {})},
        )
        child.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
        child.stdin.close()
        return child

    def __call__(self, module: str, **options: Any) -> dict[str, Any]:
        """The module's answer; its code and its answer must agree on whether it failed."""
        with self.start(module, **options) as child:
            child.stdin = None  # is closed
            told, errors = child.communicate(timeout=60)
        assert told, errors
        answer: dict[str, Any] = json.loads(told)
        assert child.returncode == (1 if answer.get("failed") else 0), errors
        assert "Traceback" not in errors
        return answer

    def contents(self) -> dict[str, bytes | None]:
        """All files (and directories, as None) of the store, to see what a module changed; locks say nothing."""
        paths = [path for path in sorted(self.store.rglob("*")) if path.name != ".lock"]
        return {str(path.relative_to(self.store)): None if path.is_dir() else path.read_bytes() for path in paths}


def warned(answer: dict[str, Any], words: str) -> list[str]:
    """The warnings that say so; how a warning is wrapped differs between releases of ansible-core."""
    return [text for text in map(json.dumps, answer.get("warnings", [])) if words in text]


def an_archive(name: str, *, driver: str = "btrfs", snapshots: tuple[str, ...] = (), size: int = 3000) -> bytes:
    """What Incus makes of a container: an index, and a part for it and for each snapshot."""
    listed = "".join(f"\n  - {snapshot}" for snapshot in snapshots) or " []"
    index = (
        f"name: {name}\nbackend: {driver}\npool: default\nsnapshots:{listed}\noptimized: false\n"
        "optimized_header: false\ntype: container\n"
    )
    files = {"backup/index.yaml": index.encode()}
    for place in (*(f"backup/snapshots/{snapshot}" for snapshot in snapshots), "backup/container"):
        files |= {f"{place}/backup.yaml": b"container: {}\n", f"{place}/rootfs/etc/hostname": b"x" * size}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def without_end(content: bytes) -> bytes:
    """The archive up to the end of its last member, without the marker: a cut that many tools take for an end."""
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        last = archive.getmembers()[-1]
    return content[: last.offset_data + (last.size + 511) // 512 * 512]


def streamed(content: bytes, *, whole: bool = True) -> Act:
    """A direct export; one that is not whole ends as a dead daemon's does."""

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
        for start in range(0, len(content), 1024):
            exchange.chunk(content[start : start + 1024])
        if whole:
            exchange.chunk(b"")
        else:
            exchange.connection.close()

    return act


def endless(name: str) -> Act:
    """A direct export of an instance so large that it trickles until the client goes away."""
    content = an_archive(name)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        data = archive.getmembers()[-1]
    large = tarfile.TarInfo(data.name)
    large.size = 1 << 40
    beginning = content[: data.offset] + large.tobuf(tarfile.GNU_FORMAT)

    def act(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.head(200, Content_Type="application/octet-stream", Transfer_Encoding="chunked")
        exchange.chunk(beginning)
        while True:
            exchange.chunk(b"x" * 512)
            time.sleep(0.01)

    return act


def wait_for(happened: Callable[[], object]) -> None:
    """Wait until something is there, at most a minute."""
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        time.sleep(0.02)


class Server:
    """The usual answers of a server, beside what a test adds."""

    def __init__(self, fake: FakeIncus) -> None:
        self.fake = fake
        self.instances([])
        config = {"source": str(Path(fake.url.removeprefix("unix://")).parent / "disks/default.img")}
        pool = {"name": "default", "driver": "btrfs", "status": "Created", "config": config}
        fake.on("GET", "/1.0/storage-pools", sync([pool]))
        fake.on("GET", "/1.0/projects", sync([{"name": "default", "config": {}}]))
        fake.on("GET", "/1.0/profiles", sync([{"name": "default"}]))
        fake.on("GET", "/1.0/networks", sync([{"name": "incusbr0", "managed": True}]))

    @property
    def url(self) -> str:
        """For the module's option."""
        return self.fake.url

    def instances(self, described: list[dict[str, Any]]) -> None:
        """What is on the server."""
        self.fake.on("GET", "/1.0/instances", sync(described))
        for one in described:
            self.fake.on("GET", f"/1.0/instances/{one['name']}", sync(one))

    def exports(self, name: str, *acts: Act) -> None:
        """What the server does when it is asked for the instance's archive."""
        self.fake.on("POST", f"/1.0/instances/{name}/backups", *(acts or (streamed(an_archive(name)),)))

    @property
    def changes(self) -> list[tuple[str, str]]:
        """The requests that change something."""
        return [(request.method, request.path) for request in self.fake.requests if request.method != "GET"]

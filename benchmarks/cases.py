# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is compared: each benchmark is a set of rivals that do the same work on the same server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from benchmarks.host import PLACE, SITE, STORE, BenchHost, Cost

MIB = 1 << 20
_OUT = f"{PLACE}/out"
_ROOTFS = "/var/lib/incus/storage-pools/default/containers/{}/rootfs"
_RAW = (
    "curl -sf --unix-socket /var/lib/incus/unix.socket -X POST -H 'Accept: application/octet-stream'"
    " -H 'Content-Type: application/json' -d '{{\"compression_algorithm\": \"none\"}}'"
    " http://incus/1.0/instances/{}/backups"
)


@dataclass
class Benchmark:
    """Rivals by name, and the one that the others are compared with.

    ``limit`` is what the ratio of ours must not exceed, ``ours`` the rival that it is about. ``field`` is what of a
    Cost is compared; a rival that does not have it is compared by its seconds. ``between`` is run before each.
    """

    title: str
    rivals: dict[str, Callable[[], Cost]]
    base: str
    limits: dict[str, tuple[str, float]] = field(default_factory=dict)
    between: Callable[[], object] = lambda: None
    unit: str = "seconds"


def export_one(host: BenchHost) -> Benchmark:
    """One instance of many small files."""
    made = _instance(host, "many-files", f"python3 {PLACE}/fill_rootfs.py {{}}/srv 870")
    raw = _RAW.format("many-files")
    cores = int(host.shell("nproc"))
    pipe_all, pipe_one = f"the pipe: curl | zstd -3 -T{cores}", "the pipe: curl | zstd -3 -T1"
    ours_all, ours_one = f"incus_export, {cores} threads", "incus_export, 1 thread"
    return Benchmark(
        title=f"Export of one instance: 870 MiB of small files ({made}), btrfs",
        rivals={
            "curl to nothing": partial(host.measured, f"{raw} > /dev/null"),
            pipe_all: partial(host.measured, f"{raw} | zstd -q -3 -T{cores} > {_OUT}/pipe.tar.zst"),
            ours_all: partial(_export, host, ["many-files"], compress_threads=cores),
            pipe_one: partial(host.measured, f"{raw} | zstd -q -3 -T1 > {_OUT}/pipe.tar.zst"),
            ours_one: partial(_export, host, ["many-files"], compress_threads=1),
            "incus export --compression zstd": partial(
                host.measured, f"incus export -q many-files {_OUT}/cli.tar.zst --compression zstd"
            ),
            "incus export (gzip)": partial(host.measured, f"incus export -q many-files {_OUT}/cli.tar.gz"),
        },
        base=pipe_all,
        limits={ours_all: (pipe_all, 1.15), ours_one: (pipe_one, 1.15)},
        between=partial(_tidy, host),
    )


def export_many(host: BenchHost) -> Benchmark:
    """Fifty small instances, in one task against as many processes of the command at a time."""
    host.shell("for i in $(seq -w 50); do incus info small-$i >/dev/null 2>&1 || incus init -q tiny small-$i; done")
    rivals: dict[str, Callable[[], Cost]] = {}
    limits = {}
    for width in (2, 4):
        theirs, ours = f"xargs -P {width} incus export --compression zstd", f"incus_export, parallel={width}"
        command = f"incus export -q {{}} {_OUT}/{{}}.tar.zst --compression zstd"
        rivals[theirs] = partial(host.measured, f"seq -f 'small-%02g' 50 | xargs -P {width} -I'{{}}' {command}")
        rivals[ours] = partial(_export, host, ["small-*"], parallel=width)
        limits[ours] = (theirs, 1.0)
    return Benchmark(
        title="Export of 50 small instances on one server",
        rivals=rivals,
        base=next(iter(rivals)),
        limits=limits,
        between=partial(_tidy, host),
    )


def restore_one(host: BenchHost) -> Benchmark:
    """The same artifact back, by the command and by the module, which reads it to its end before it uploads it."""
    made = _instance(host, "many-files", f"python3 {PLACE}/fill_rootfs.py {{}}/srv 870")
    _tidy(host)
    result, _cost = host.task("incus_export", _options(["many-files"]))
    artifact = f"{STORE}/{result['set_path']}/{result['artifacts'][0]['path']}"
    return Benchmark(
        title=f"Import of one instance: 870 MiB of small files ({made}), btrfs",
        rivals={
            "incus import": partial(host.measured, f"incus import -q {artifact}"),
            "zstd -t, incus import": partial(host.measured, f"zstd -q -t {artifact} && incus import -q {artifact}"),
            "incus_import": partial(_import, host, "many-files"),
        },
        base="incus import",
        between=partial(host.shell, "incus delete -f many-files"),
    )


def memory(host: BenchHost) -> Benchmark:
    """What a whole task holds at a time, Python and compressor included, for 2 GiB that cannot be compressed."""
    _instance(host, "heavy", "head -c 2G /dev/urandom > {}/srv/random")
    _tidy(host)
    cores = int(host.shell("nproc"))

    def restore() -> Cost:
        host.shell("incus delete -f heavy")
        return _import(host, "heavy", memory=True)

    out = {
        f"incus_export, {threads} thread{'s' * (threads > 1)}": partial(
            _export, host, ["heavy"], memory=True, compress_threads=threads
        )
        for threads in (1, cores)
    }
    return Benchmark(
        title="Peak memory of a whole task, tools included, for an artifact of 2 GiB (limit: 150 MiB)",
        rivals={**out, "incus_import": restore},
        base=next(iter(out)),
        unit="MiB",
    )


BENCHMARKS: dict[str, Callable[[BenchHost], Benchmark]] = {
    "one": export_one,
    "many": export_many,
    "restore": restore_one,
    "memory": memory,
}


def _instance(host: BenchHost, name: str, fill: str) -> str:
    """Have a stopped instance with content; says how many files."""
    rootfs = _ROOTFS.format(name)
    host.shell(
        f"incus info {name} >/dev/null 2>&1 || {{ incus init -q tiny {name} && {fill.format(rootfs)} && sync; }}"
    )
    return f"{host.shell(f'find {rootfs} -type f | wc -l').strip()} files"


def _tidy(host: BenchHost) -> None:
    """Nothing of an earlier rival may be there: an existing file is an error to the command."""
    host.shell(f"rm -rf {STORE} {_OUT} && mkdir {_OUT}")


def _options(instances: list[str], **more: object) -> dict[str, object]:
    # The command is not nice either; on a machine with other work to do that alone would decide.
    return {"store": STORE, "store_create": True, "site": SITE, "include": instances, "nice": 0, **more}


def _export(host: BenchHost, instances: list[str], *, memory: bool = False, **more: object) -> Cost:
    return host.task("incus_export", _options(instances, **more), memory=memory)[1]


def _import(host: BenchHost, instance: str, *, memory: bool = False) -> Cost:
    options: dict[str, object] = {"store": STORE, "site": SITE, "instances": [instance]}
    return host.task("incus_import", options, memory=memory)[1]

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar checker against real archives of GNU tar and Python's tarfile: whole, cut, damaged and hostile."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.archive import ArchiveIndex, Part, TarChecker
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import ArchiveInvalid

INDEX = b"name: web\nbackend: dir\npool: default\ntype: container\n"
LONG = "a-rather-long-directory-name-" * 3
FORMATS = ["ustar", "posix", "gnu"]


def check(data: bytes, *, step: int = 1 << 20, require_index: bool = True) -> ArchiveIndex:
    """Feed a whole archive in pieces and ask for the verdict."""
    checker = TarChecker(require_index=require_index)
    view = memoryview(data)
    for at in range(0, len(data), step):
        checker.feed(view[at : at + step])
    return checker.finish()


def refused(data: bytes, *, step: int = 1 << 20, require_index: bool = True) -> str:
    """The message with which an archive is refused."""
    with pytest.raises(ArchiveInvalid) as caught:
        check(data, step=step, require_index=require_index)
    return caught.value.message


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an exported container looks like, with links, a fifo, empty files, long and odd names."""
    top = tmp_path_factory.mktemp("tree")
    rootfs = top / "backup/container/rootfs"
    rootfs.mkdir(parents=True)
    (top / "backup/index.yaml").write_bytes(INDEX)
    for size in (0, 1, 511, 512, 513, 100_000):
        (rootfs / f"file{size}").write_bytes(os.urandom(size))
    os.link(rootfs / "file513", rootfs / "hardlink")
    os.symlink("file1", rootfs / "symlink")
    os.mkfifo(rootfs / "fifo")
    (rootfs / "späte\nZeile").write_bytes(b"x")
    snapshot = top / "backup/snapshots/snap0/rootfs" / LONG
    snapshot.mkdir(parents=True)
    (snapshot / "in-prefix").write_bytes(b"y" * 600)
    return top


def gnu_tar(tree: Path, form: str, *extra: str) -> bytes:
    """Pack the tree by GNU tar, the index first, ending right after the end marker."""
    command = ["tar", f"--format={form}", "--blocking-factor=1", "-C", str(tree), "-cf", "-", *extra]
    members = ["backup/index.yaml", "backup/snapshots/snap0", "backup/container"]
    return subprocess.run([*command, *members], check=True, capture_output=True).stdout


def tarfile_with(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    """An archive of the given members, the index before them, ending right after the end marker."""
    index = tarfile.TarInfo("backup/index.yaml")
    index.size = len(INDEX)
    packed = b""
    for info, data in ((index, INDEX), *members):
        packed += info.tobuf(form) + data + bytes(-len(data) % 512)
    return packed + bytes(1024)


def counted(members: list[tarfile.TarInfo], part: str, *, below: bool) -> Part:
    chosen = [member for member in members if member.name.startswith(f"{part}/rootfs") == below]
    return Part(len(chosen), sum(member.size for member in chosen if member.isreg()))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("step", [1, 511, 513, 4096, 1 << 20])
def test_whole_archive_is_accepted_whatever_the_chunks(tree: Path, form: str, step: int) -> None:
    data = gnu_tar(tree, form)
    seen = check(data, step=step)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        members = reader.getmembers()
    inside = {
        part: [member for member in members if member.name.startswith(part)]
        for part in ("backup/snapshots/snap0", "backup/container")
    }
    assert seen.members == len(members)
    assert seen.plain_bytes == len(data)
    assert seen.index_yaml == INDEX
    assert seen.parts == {
        "backup/index.yaml": Part(1, len(INDEX)),
        **{part: counted(inside[part], part, below=False) for part in inside},
        **{f"{part}/rootfs": counted(inside[part], part, below=True) for part in inside},
    }


@pytest.mark.parametrize("form", FORMATS)
def test_bytes_and_memoryview_give_the_same(tree: Path, form: str) -> None:
    data = gnu_tar(tree, form)
    checker = TarChecker()
    checker.feed(data)
    assert checker.finish() == check(data)


@pytest.mark.parametrize("form", ["posix", "gnu"])
def test_names_beyond_every_field_still_find_their_part(tmp_path: Path, form: str) -> None:
    deep = tmp_path / "backup/snapshots/s1" / LONG / LONG / LONG / LONG
    deep.mkdir(parents=True)
    (deep / ("f" * 150)).write_bytes(b"data")
    (tmp_path / "backup/container").mkdir()
    (tmp_path / "backup/index.yaml").write_bytes(INDEX)
    command = ["tar", f"--format={form}", "-C", str(tmp_path), "-cf", "-", "backup/index.yaml"]
    data = subprocess.run([*command, "backup/snapshots/s1", "backup/container"], check=True, capture_output=True).stdout
    assert check(data).parts["backup/snapshots/s1"] == Part(6, 4)


@pytest.mark.parametrize("form", FORMATS)
def test_every_cut_is_refused(tree: Path, form: str) -> None:
    data = gnu_tar(tree, form)
    for at in [*range(0, len(data), 512), *range(100, len(data), 4096), len(data) - 1]:
        refused(data[:at])


@pytest.mark.parametrize("form", FORMATS)
def test_cut_at_every_member_boundary_says_that_the_end_marker_is_missing(tree: Path, form: str) -> None:
    data = gnu_tar(tree, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        boundaries = [member.offset for member in reader.getmembers()[1:]]
    for at in [*boundaries, len(data) - 1024]:
        message = refused(data[:at])
        assert f"At byte {at}: " in message
        assert "the end marker (two zero blocks) at this member boundary" in message


def test_cut_in_data_names_the_member_and_what_is_missing() -> None:
    info = tarfile.TarInfo("backup/container/big")
    info.size = 5000
    data = tarfile_with((info, bytes(5000)))
    assert "4096 more bytes of 'backup/container/big'" in refused(data[: 1024 + 512 + 1024])


def test_half_an_end_marker_is_refused(tree: Path) -> None:
    data = gnu_tar(tree, "posix")
    assert "the second zero block" in refused(data[:-512])


def test_zero_block_before_a_member_is_refused(tree: Path) -> None:
    data = gnu_tar(tree, "ustar")
    assert "At byte 1536: a header, the second zero block" in refused(data[:1024] + bytes(512) + data[1024:])


def test_empty_stream_is_refused() -> None:
    assert "At byte 0" in refused(b"")


@pytest.mark.parametrize("form", FORMATS)
def test_every_flipped_byte_of_every_header_is_refused(tree: Path, form: str) -> None:
    data = gnu_tar(tree, form)
    with tarfile.open(fileobj=io.BytesIO(data)) as reader:
        headers = sorted(
            {offset for member in reader.getmembers() for offset in (member.offset, member.offset_data - 512)}
        )
    for start in headers[:6]:
        for at in range(start, start + 512):
            damaged = bytearray(data)
            damaged[at] ^= 0x01
            assert refused(bytes(damaged), require_index=False)


@pytest.mark.parametrize("distance", [0, 1, 511, 10_000])
def test_trailing_garbage_is_refused_where_it_starts(tree: Path, distance: int) -> None:
    data = gnu_tar(tree, "posix")
    message = refused(data + bytes(distance) + b"PK\3\4", step=700)
    assert f"At byte {len(data) + distance}: more data, nothing but zeros" in message


def test_zero_padding_after_the_marker_is_accepted(tree: Path) -> None:
    data = gnu_tar(tree, "posix") + bytes(10240)
    assert check(data).plain_bytes == len(data)


def test_two_archives_in_a_row_are_refused(tree: Path) -> None:
    assert "nothing but zeros" in refused(gnu_tar(tree, "posix") * 2)


def test_index_must_be_the_first_member() -> None:
    info = tarfile.TarInfo("backup/container")
    info.type = tarfile.DIRTYPE
    data = tarfile_with((info, b""))[1024:]
    assert "backup/index.yaml was expected" in refused(data)
    assert check(data, require_index=False).index_yaml is None


def test_second_index_is_refused(tree: Path) -> None:
    info = tarfile.TarInfo("backup/index.yaml")
    assert "2 members backup/index.yaml" in refused(tarfile_with((info, b"")))


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) + 1])
def test_index_is_held_up_to_one_mebibyte(size: int) -> None:
    info = tarfile.TarInfo("backup/index.yaml")
    info.size = size
    data = info.tobuf() + b"#" * size + bytes(-size % 512) + bytes(1024)
    if size > 1 << 20:
        assert "at most 1048576" in refused(data, step=5000)
    else:
        assert check(data, step=5000).index_yaml == b"#" * size


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_beyond_8_gib_are_counted_through(form: int) -> None:
    info = tarfile.TarInfo("backup/container.bin")
    info.size = (9 << 30) + 1
    checker = TarChecker()
    checker.feed(tarfile_with()[:1024] + info.tobuf(form))
    zeros = memoryview(bytes(32 << 20))
    for _unused in range((9 << 30) // len(zeros)):
        checker.feed(zeros)
    checker.feed(bytes(512) + bytes(1024))
    assert checker.finish().parts["backup/container.bin"] == Part(1, info.size)


def test_extended_header_without_its_member_is_refused() -> None:
    info = tarfile.TarInfo("backup/container/" + "n" * 200)
    info.pax_headers = {"SCHILY.xattr.user.x": "1"}
    data = tarfile_with((info, b""))
    assert "announces" in refused(data[: -1024 - 512] + bytes(1024))
    assert "announces" in refused(data[: -1024 - 512])


@pytest.mark.parametrize(
    "records", [b"x", b"99 path=a\n", b"9 path=ab", b"0 path=a\n", b"7 patha\n", b"-9 path=a\n", b"12 size=-100\n"]
)
def test_malformed_pax_records_are_refused(records: bytes) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XHDTYPE
    info.size = len(records)
    assert "pax header with" in refused(tarfile_with((info, records), (tarfile.TarInfo("backup/container"), b"")))


@pytest.mark.parametrize(("record", "accepted"), [(b"13 comment=x\n", True), (b"11 size=55\n", False)])
def test_global_pax_header_may_not_move_borders(record: bytes, accepted: bool) -> None:
    info = tarfile.TarInfo("pax")
    info.type = tarfile.XGLTYPE
    info.size = len(record)
    data = tarfile_with((info, record), (tarfile.TarInfo("backup/container"), b""))
    if accepted:
        assert check(data).members == 2
    else:
        assert "global pax header" in refused(data)


def test_member_types_that_incus_never_writes_are_refused() -> None:
    info = tarfile.TarInfo("backup/container/sparse")
    info.type = tarfile.GNUTYPE_SPARSE
    assert "member type 'S'" in refused(tarfile_with((info, b"")))


@pytest.mark.parametrize("field", [b"-0000000777\0", b"00000_00777\0", b"00000000008\0", b"\xff" * 12])
def test_sizes_that_are_no_numbers_are_refused(field: bytes) -> None:
    header = bytearray(tarfile.TarInfo("backup/container/odd").tobuf(tarfile.USTAR_FORMAT)[:512])
    header[124:136] = field
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    assert "octal digits were expected" in refused(tarfile_with()[:1024] + bytes(header) + bytes(1024))


def test_size_of_a_member_without_data_is_not_passed_over() -> None:
    link = tarfile.TarInfo("backup/container/link")
    link.type = tarfile.SYMTYPE
    link.size = 600
    after = tarfile.TarInfo("backup/container/after")
    after.size = 1
    assert check(tarfile_with((link, b""), (after, b"x"))).parts["backup/container"] == Part(2, 1)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_part_with_a_name_longer_than_the_field_is_named_in_full(form: int) -> None:
    part = "backup/snapshots/" + "s" * 150
    data = tarfile_with((tarfile.TarInfo(f"{part}/rootfs"), b""), form=form)
    assert check(data).parts[f"{part}/rootfs"] == Part(1, 0)


def test_name_that_continues_a_prefix_is_not_taken_for_another_part() -> None:
    plain = tarfile.TarInfo("backup/container/a")
    split = tarfile.TarInfo(f"backup/snapshots/s1/{LONG}/backup/container/b")
    data = tarfile_with((plain, b""), (split, b""), form=tarfile.USTAR_FORMAT)
    assert check(data).parts["backup/snapshots/s1"] == Part(1, 0)


def test_parts_are_bounded() -> None:
    names = b"".join(tarfile.TarInfo(f"{number}/x").tobuf(tarfile.USTAR_FORMAT) for number in range(70_000))
    assert "top-level parts" in refused(names, require_index=False)

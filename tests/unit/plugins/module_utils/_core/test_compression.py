# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Words, suffixes, magic numbers and command lines of the compressions, against the real tools."""

from __future__ import annotations

import subprocess

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.compression import (
    MAGIC_BYTES,
    Compression,
    Method,
    detect,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import UsageError


@pytest.mark.parametrize(("word", "suffix"), [("zstd", ".tar.zst"), ("gzip", ".tar.gz"), ("none", ".tar")])
def test_words_and_suffixes(word: str, suffix: str) -> None:
    compression = Compression.parse(word)
    assert str(compression) == word
    assert compression.suffix() == suffix


def test_level_is_part_of_the_word() -> None:
    compression = Compression.parse("zstd-9")
    assert compression == Compression(Method.ZSTD, 9)
    assert str(compression) == "zstd-9"


@pytest.mark.parametrize("word", ["lz4", "zstd-20", "zstd-", "zstd-0x3", "gzip-10", "none-1", "", "ZSTD"])
def test_what_is_no_compression_is_refused(word: str) -> None:
    with pytest.raises(UsageError):
        Compression.parse(word)


@pytest.mark.parametrize("word", ["zstd", "zstd-19", "gzip", "gzip-1"])
def test_real_tools_take_the_command_lines_and_are_detected(word: str) -> None:
    compression = Compression.parse(word)
    stored = subprocess.run(compression.compress_argv(2), input=b"x" * 9999, check=True, capture_output=True).stdout
    assert detect(stored[:MAGIC_BYTES]).method is compression.method
    back = subprocess.run(compression.decompress_argv(), input=stored, check=True, capture_output=True)
    assert back.stdout == b"x" * 9999


def test_threads_and_level_reach_zstd() -> None:
    argv = Compression.parse("zstd-7").compress_argv(3)
    assert "-T3" in argv
    assert "-7" in argv


def test_anything_else_is_taken_as_plain() -> None:
    assert detect(b"backup/index.yaml") == detect(b"") == Compression(Method.NONE)

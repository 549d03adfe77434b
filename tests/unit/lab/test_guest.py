# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest image is a whole one, and the same bytes make the same image."""

from __future__ import annotations

import json
import tarfile

import pytest

from fleetlab import guest
from fleetlab.commands import Commands


@pytest.fixture
def base(tmp_path):
    """A host image's busybox: a stand-in that lists three applets as the real one does."""
    busybox = tmp_path / "base/bin/busybox"
    busybox.parent.mkdir(parents=True)
    busybox.write_text("#!/bin/sh\nprintf 'bin/sh\\nsbin/init\\nusr/bin/env\\nbin/busybox\\n'\n")
    busybox.chmod(0o755)
    return tmp_path / "base"


def test_the_image_has_its_metadata_an_init_and_a_link_for_every_applet(base, tmp_path):
    with tarfile.open(guest.ensure_image(base, tmp_path, Commands())) as tar:
        names = tar.getnames()
        metadata = json.loads(tar.extractfile("metadata.yaml").read())
        init = tar.getmember("rootfs/sbin/init")
        shell = tar.getmember("rootfs/bin/sh")
        assert tar.getmember("rootfs/tmp").mode == 0o1777
    assert metadata["architecture"]
    assert metadata["creation_date"]
    assert init.isfile()
    assert init.mode == 0o755
    assert shell.linkname == "/bin/busybox"
    assert len(names) == len(set(names))
    assert all(name == "metadata.yaml" or name.split("/")[0] == "rootfs" for name in names)


def test_the_image_is_made_once_and_again_when_its_busybox_changed(base, tmp_path):
    first = guest.ensure_image(base, tmp_path, Commands())
    made = first.stat().st_mtime_ns
    assert guest.ensure_image(base, tmp_path, Commands()) == first
    assert first.stat().st_mtime_ns == made
    with (base / "bin/busybox").open("a") as busybox:
        busybox.write("# changed\n")
    assert guest.ensure_image(base, tmp_path, Commands()) != first

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the lab says when it cannot go on."""

from __future__ import annotations


class LabError(Exception):
    """Something failed; the message is one or two sentences for the person at the terminal."""

    exit_code = 1


class Unusable(LabError):
    """The machine or the request does not allow it (no root, no btrfs, an unknown host …): nothing was changed."""

    exit_code = 2


class Stopped(LabError):
    """SIGINT, SIGTERM or SIGHUP arrived: no further tool is started until the cleaning up begins."""

# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Our stand-in for the pip bootstrap that ansible-test would download.

ansible-test looks for it in its cache first, so a machine that reaches nothing but a package index can still make the
virtual environments.  It is called as `get_pip.py [pip options] pip==VERSION [--no-setuptools] [--no-wheel]`.
"""

from __future__ import annotations

import subprocess
import sys

wanted = [word for word in sys.argv[1:] if not word.startswith("-")]
pip = [sys.executable, "-m", "pip"]
# A process of its own: ensurepip switches pip's configuration files off for the rest of the process it runs in.
subprocess.check_call([sys.executable, "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
subprocess.check_call([*pip, "install", "--disable-pip-version-check", "--quiet", *wanted])

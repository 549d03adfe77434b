# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tells what a host has, as one JSON object on standard output: python3 -c "$(cat probe.py)" VENV NAME=VERSION ...

tools: which of zstd and venv are there; libraries: which of the named distributions the virtual environment VENV has,
at least in that version; venv_state: absent, usable, broken (made for another Python, or not running) or foreign (a
directory with something else in it).
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys

INSIDE = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps({"python": list(sys.version_info[:2]), "found": found}))
"""


def numbers(version):
    """The leading numbers of a version, for comparing: 2.4.1rc1 is (2, 4)."""
    parts = []
    for part in version.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def look_inside(venv, names):
    """The state of the virtual environment, and the versions that it has."""
    if not os.path.lexists(venv) or (os.path.isdir(venv) and not os.listdir(venv)):
        return "absent", {}
    if not os.path.exists(os.path.join(venv, "pyvenv.cfg")):
        return "foreign", {}
    try:
        python = os.path.join(venv, "bin", "python")
        answer = subprocess.run([python, "-c", INSIDE, *names], stdout=subprocess.PIPE, check=True, timeout=60)
        told = json.loads(answer.stdout.decode())
    except (OSError, subprocess.SubprocessError, ValueError):
        return "broken", {}
    usable = told["python"] == list(sys.version_info[:2])
    return ("usable" if usable else "broken"), (told["found"] if usable else {})


def system():
    """The family of the system, as os-release(5) tells it."""
    try:
        with open("/etc/os-release", encoding="utf-8") as file:
            lines = dict(line.rstrip().split("=", 1) for line in file if "=" in line)
    except OSError:
        return "default"
    likes = (lines.get("ID", "") + " " + lines.get("ID_LIKE", "")).replace('"', "").split()
    return "debian" if "debian" in likes else "default"


def main():
    """Look, and print."""
    venv, wanted = sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:])
    state, found = look_inside(venv, list(wanted))
    tools = {"zstd": shutil.which("zstd"), "venv": importlib.util.find_spec("ensurepip")}
    told = {
        "python": ".".join(str(number) for number in sys.version_info[:3]),
        "machine": os.uname().machine,
        "user": os.geteuid(),
        "system": system(),
        "tools": [name for name, there in tools.items() if there],
        "venv_state": state,
        "versions": found,
        "libraries": [name for name, floor in wanted.items() if numbers(found.get(name, "")) >= numbers(floor)],
    }
    print(json.dumps(told))


main()

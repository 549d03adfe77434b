# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The `lab` command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from fleetlab import enter
from fleetlab.checkout import VERSIONS, Checkout, check_name, checkout_key, parse_hosts
from fleetlab.errors import LabError, Unusable

_ROOT = Path(__file__).resolve().parents[3]
_USAGE = """\
usage: lab COMMAND [ARGUMENT ...]

Real Incus servers as hosts on this machine (see tests/lab/README.md).

  up [--install] [--bare] [NAME[=VERSION] ...]
                        start hosts; without names: inc70=7.0 and inc60=6.0
                        --install: install missing Debian packages on this machine
                        --bare: leave Incus as the package left it
  down [NAME ...]       remove hosts; without names all of them, the network and the mount
  down --lost           remove the labs of checkouts that no longer exist
  status                what is there
  exec NAME COMMAND ... run a command as root inside a host
  ssh NAME [ARGUMENT ...]         ssh from the controller (use -l for another user)
  controller COMMAND ...          run a command in the controller's network
  inventory             print an Ansible inventory
  build [--install]     only make the images
  kill NAME             take a host's power away
  boot NAME             start it again
  cut NAME              pull a host's network cable
  mend NAME             put it back
"""


_ANY = 1000
# Command → how many names it takes at least and at most, and its options.
_COMMANDS: dict[str, tuple[int, int, set[str]]] = {
    "up": (0, _ANY, {"--install", "--bare"}),
    "down": (0, _ANY, {"--lost"}),
    "build": (0, 0, {"--install"}),
    "status": (0, 0, set()),
    "inventory": (0, 0, set()),
    "kill": (1, 1, set()),
    "boot": (1, 1, set()),
    "cut": (1, 1, set()),
    "mend": (1, 1, set()),
}


def main(arguments: list[str]) -> int:
    """Run one command; return its exit code."""
    try:
        return _dispatch(arguments)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_USAGE, end="")
        return 0 if arguments else 2
    command, words = arguments[0], arguments[1:]
    # These three only turn into another program, so they import next to nothing.
    if command == "exec":
        return _exec(words)
    if command == "ssh":
        return _ssh(words)
    if command == "controller":
        return _controller(words)
    return _manage(command, words)


def _exec(words: list[str]) -> int:
    if len(words) < 2:
        raise Unusable("usage: lab exec NAME COMMAND ...")
    name, argv = words[0], words[1:]
    check_name(name)
    checkout = Checkout(checkout_key(_ROOT))
    pid = enter.host_pid(checkout.state, checkout.cgroup(name), name)
    if pid is None:
        raise Unusable(f"host {name} is not running")
    return _become(enter.host_argv(pid, argv), enter.host_environment())


def _ssh(words: list[str]) -> int:
    if not words:
        raise Unusable("usage: lab ssh NAME [ARGUMENT ...]")
    checkout = Checkout(checkout_key(_ROOT))
    return _controller(["ssh", "-F", str(checkout.ssh_config), *words])


def _controller(words: list[str]) -> int:
    if not words:
        raise Unusable("usage: lab controller COMMAND ...")
    argv = enter.controller_argv(Checkout(checkout_key(_ROOT)).controller, words)
    return _become(argv, dict(os.environ))


def _become(argv: list[str], environment: dict[str, str]) -> int:
    if os.geteuid() != 0:
        raise Unusable("the lab needs root: entering a host's namespaces is not for others (try sudo)")
    os.execve(_which("nsenter"), argv, environment)


def _which(tool: str) -> str:
    for directory in enter.HOST_PATH.split(":"):
        if os.access(f"{directory}/{tool}", os.X_OK):
            return f"{directory}/{tool}"
    raise Unusable(f"{tool} is not installed")


def _manage(command: str, words: list[str]) -> int:
    names, options = _parse(command, words)
    from fleetlab.lab import Lab
    from fleetlab.report import print_status
    from fleetlab.requirements import require_root
    from fleetlab.supervisor import supervised

    require_root()
    lab = Lab(_ROOT)
    if command == "status":
        print_status(lab)
        return 0
    if command == "inventory":
        print(lab.inventory(), end="")
        return 0
    work: dict[str, Callable[[], None]] = {
        "up": lambda: lab.up(parse_hosts(names), "--bare" in options, "--install" in options),
        "build": lambda: lab.build(list(VERSIONS), "--install" in options),
        "down": lambda: lab.down_lost() if "--lost" in options else lab.down(names),
        "boot": lambda: lab.boot(names[0]),
        "kill": lambda: lab.kill(names[0]),
        "cut": lambda: lab.set_link(names[0], up=False),
        "mend": lambda: lab.set_link(names[0], up=True),
    }
    return supervised(lab.commands, work[command])


def _parse(command: str, words: list[str]) -> tuple[list[str], set[str]]:
    """Split a command's words into names and options; Unusable when they do not fit the command."""
    if command not in _COMMANDS:
        raise Unusable(f"no command {command!r}; `lab --help` lists them")
    fewest, most, allowed = _COMMANDS[command]
    options = {word for word in words if word.startswith("-")}
    names = [word for word in words if not word.startswith("-")]
    if options - allowed:
        raise Unusable(f"`lab {command}` has no option {' '.join(sorted(options - allowed))}")
    if not fewest <= len(names) <= most:
        raise Unusable(f"`lab {command}` takes {'one host name' if most else 'no names'}")
    return names, options

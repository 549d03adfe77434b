# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that select instances."""

    DOCUMENTATION = r"""
options:
  instances:
    description:
      - Names of instances, as V(name) or V(project/name). Every one must exist.
      - Without it all are meant, and the other options below narrow the choice down.
    type: list
    elements: str
    default: []
  include:
    description: Globs, matched against the name, or against V(project/name) where the glob has a slash.
    type: list
    elements: str
    default: []
  exclude:
    description: Globs of what is left out, matched likewise.
    type: list
    elements: str
    default: []
  query:
    description:
      - A JMESPath expression, evaluated on one object at a time. An object is selected where it yields something
        truthy.
      - For an export the object is the instance as the API of Incus shows it, for an import it is the artifact as the
        manifest
        shows it.
      - For example C(status=='Running' && config."user.tier"=='gold').
    type: str
  allow_empty:
    description: Whether selecting nothing is fine. An explicit name that is not there is an error nevertheless.
    type: bool
    default: false
"""

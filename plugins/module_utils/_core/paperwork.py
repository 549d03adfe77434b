# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""The papers in a set for whoever has only the set: what it is, and how to get it back with plain tools."""

from __future__ import annotations

import shlex
from urllib.parse import quote

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    Artifact,
    Manifest,
    SnapshotRecord,
)

_SCRIPT_HEAD = """\
#!/bin/sh
# Restores the instances of this set with plain tools: sh, sha256sum and the incus command.
# Run it in the set's directory on the server that is to have them:
#
#   sh restore.sh              all of them
#   sh restore.sh PROJECT/NAME [PROJECT/NAME ...]    those only
#
# An instance that is there already is not touched. Restored instances stay stopped.
set -eu
CDPATH='' cd -- "$(dirname -- "$0")"
wanted=" $* "
seen=" "
failed=0
restored=no

restore() {  # PROJECT NAME FILE SHA256
  restored=no
  seen="$seen$1/$2 "
  case "$wanted" in
    "  " | *" $1/$2 "*) ;;
    *) return 0 ;;
  esac
  if incus info --project "$1" "$2" >/dev/null 2>&1; then
    echo "$1/$2: is there already, left alone"
    failed=1
    return 0
  fi
  if ! printf '%s  %s\\n' "$4" "$3" | sha256sum -c - >/dev/null; then
    echo "$1/$2: $3 is damaged (its checksum differs), not restored"
    failed=1
    return 0
  fi
  if ! incus import --project "$1" "$3"; then
    echo "$1/$2: incus import failed"
    failed=1
    return 0
  fi
  restored=yes
  # What was running would start by itself with the daemon: the one who restores decides when.
  if ! incus config set --project "$1" "$2" volatile.last_state.power=STOPPED; then
    echo "$1/$2: is restored, but may start by itself with the daemon"
    failed=1
    return 0
  fi
  echo "$1/$2: restored"
}

expires() {  # URL TIME: Incus forgets a snapshot's expiry on import; only for what was restored just now
  [ "$restored" = yes ] || return 0
  if ! incus query --wait -X PUT -d "{\\"expires_at\\": \\"$2\\"}" "$1" >/dev/null; then
    echo "$1: the snapshot's expiry ($2) could not be set"
    failed=1
  fi
}
"""

_SCRIPT_TAIL = """\
for name in "$@"; do
  case "$seen" in
    *" $name "*) ;;
    *)
      echo "$name: is not in this set"
      failed=1
      ;;
  esac
done
exit "$failed"
"""


def readme(manifest: Manifest) -> str:
    """The text of ``README.txt``: what the set is and holds, and the ways back."""
    head = manifest.set
    lines = [
        f"Backup set {head.name} of the Incus server {head.server.name} (site {head.site})",
        "",
        f"Taken from {head.started_at} to {manifest.finished_at} by run {head.run_id}, Incus {head.server.version}.",
        f"Result: {manifest.result}; {len(manifest.artifacts)} artifact(s), {manifest.stored_bytes} bytes.",
        "",
        "manifest.json describes every file: size, SHA-256, how consistent it is, and what it needs on a server.",
        "",
        "To restore without any other tool, on a server with Incus: sh restore.sh",
        "(or one instance by hand: incus import --project PROJECT FILE)",
        "To restore with Ansible: ansible-playbook incus_fleet.backup.partial_restore",
        "",
        "Holds:",
    ]
    lines += [f"  {_line(artifact)}" for artifact in manifest.artifacts]
    if manifest.failures:
        lines += ["", "Does NOT hold (it failed):"]
        lines += [f"  {item.kind} {item.project}/{item.name}: {item.message}" for item in manifest.failures]
    return "\n".join(lines) + "\n"


def restore_script(manifest: Manifest) -> str:
    """The text of ``restore.sh``: checks and imports the set's instances with the ``incus`` command alone."""
    body = []
    for artifact in manifest.artifacts:
        if artifact.kind != "instance":
            continue
        who = [shlex.quote(artifact.project), shlex.quote(artifact.name)]
        body.append(" ".join(["restore", *who, shlex.quote(artifact.path), artifact.stored_sha256]))
        body += [
            " ".join(["expires", shlex.quote(_snapshot_url(artifact, snapshot)), shlex.quote(snapshot.expires_at)])
            for snapshot in artifact.snapshots
            if snapshot.expires_at
        ]
    return _SCRIPT_HEAD + "\n" + "\n".join(body) + "\n" + _SCRIPT_TAIL


def _snapshot_url(artifact: Artifact, snapshot: SnapshotRecord) -> str:
    instance, name, project = (quote(text, safe="") for text in (artifact.name, snapshot.name, artifact.project))
    return f"/1.0/instances/{instance}/snapshots/{name}?project={project}"


def _line(artifact: Artifact) -> str:
    return (
        f"{artifact.kind} {artifact.project}/{artifact.name}: {artifact.path} "
        f"({artifact.stored_bytes} bytes, {artifact.method}/{artifact.guarantee})"
    )

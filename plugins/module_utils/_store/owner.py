# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""A site's directory and the record of whom it belongs to."""

from __future__ import annotations

import json
from dataclasses import replace

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.codec import decode, encode
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.durations import format_moment
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.errors import OwnerMismatch, SetInvalid
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import FORMAT, Owner, ServerIdentity
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.names import checked_site, file_name, now
from ansible_collections.incus_fleet.backup.plugins.module_utils._store.base import Store

OWNER = "site.json"
_LIMIT = 1024 * 1024


def site_directory(site: str, member: str | None) -> str:
    """Where a server's sets lie in a store: ``<site>``, or ``<site>/<member>`` for a member of a cluster."""
    return f"{checked_site(site)}/{file_name(member)}" if member else checked_site(site)


def read_owner(store: Store, directory: str) -> Owner | None:
    """The owner record, None where the site is new; raises SetInvalid where it cannot be read."""
    path = f"{directory}/{OWNER}"
    if not store.exists(path):
        return None
    try:
        content = json.loads(store.read(path, _LIMIT))
    except (ValueError, RecursionError) as error:
        raise SetInvalid(f"{path} is not readable", server_said=str(error)) from error
    found = content.get("format") if isinstance(content, dict) else None
    if isinstance(found, int) and found > FORMAT:
        raise SetInvalid(f"{path} has format {found}, newer than this release knows", hint="Update the collection")
    return decode(Owner, content, path)


def mismatch(owner: Owner, server: ServerIdentity) -> str | None:
    """Why the site does not belong to the server, None where it does."""
    if server.certificate_fingerprint in owner.fingerprints:
        return None
    known = ", ".join(fingerprint[:12] for fingerprint in owner.fingerprints)
    return (
        f"it belongs to the server {owner.server_name!r} (certificate {known}), "
        f"and this one is {server.name!r} (certificate {server.certificate_fingerprint[:12]})"
    )


def claim_site(store: Store, directory: str, site: str, server: ServerIdentity, *, adopt: bool) -> None:
    """Write the owner record of a new site, or check that of an old one; the caller holds the lease.

    ``adopt`` adds the server's certificate to an old record: for a server that was rebuilt with a new one.
    Raises OwnerMismatch.
    """
    owner = read_owner(store, directory)
    if owner is None:
        owner = Owner(
            format=FORMAT,
            site=site,
            server_name=server.name,
            clustered=server.clustered,
            fingerprints=(server.certificate_fingerprint,),
            created_at=format_moment(now()),
        )
    else:
        reason = mismatch(owner, server)
        if reason is None:
            return
        if not adopt:
            raise foreign(site, reason, store.location)
        owner = replace(owner, fingerprints=(*owner.fingerprints, server.certificate_fingerprint))
    store.replace(f"{directory}/{OWNER}", (json.dumps(encode(owner), indent=2) + "\n").encode())


def foreign(site: str, reason: str, location: str) -> OwnerMismatch:
    """The error for a site that is another server's."""
    return OwnerMismatch(
        f"the site {site!r} is taken: {reason}",
        operation="claim the site",
        server=location,
        entity=site,
        hint="Give every server a site name of its own; for a server that was rebuilt, run once with adopt=true",
    )

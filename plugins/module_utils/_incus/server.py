# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: other collections must not import it.

"""What a server says about itself: one answer, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerFacts:
    """The parts of ``GET /1.0`` that decisions are made on.

    ``certificate_fingerprint`` is the sha256 (hex) of the server's certificate, of the cluster's in a cluster.
    ``name`` is the member's name in a cluster, the host's otherwise; ``auth`` is ``trusted`` or ``untrusted``.
    ``storage_drivers`` are the drivers the server has tools for, ``pool_drivers`` those its pools use.
    """

    version: str
    name: str
    clustered: bool
    extensions: frozenset[str]
    auth: str
    certificate_fingerprint: str
    storage_drivers: frozenset[str]
    pool_drivers: frozenset[str]
    architectures: tuple[str, ...]
    instance_drivers: frozenset[str]
    kernel_version: str
    os_name: str
    config: Mapping[str, str]
    raw: Mapping[str, Any]

    @classmethod
    def parse(cls, answer: Mapping[str, Any]) -> ServerFacts:
        """Read the metadata of ``GET /1.0``; what an untrusted client is not shown stays empty."""
        environment: Mapping[str, Any] = answer.get("environment") or {}
        supported = environment.get("storage_supported_drivers") or []
        return cls(
            version=str(environment.get("server_version", "")),
            name=str(environment.get("server_name", "")),
            clustered=bool(environment.get("server_clustered", False)),
            extensions=frozenset(answer.get("api_extensions") or ()),
            auth=str(answer.get("auth", "")),
            certificate_fingerprint=str(environment.get("certificate_fingerprint", "")),
            storage_drivers=frozenset(str(driver["Name"]) for driver in supported if driver.get("Name")),
            pool_drivers=_split(environment.get("storage")),
            architectures=tuple(environment.get("architectures") or ()),
            instance_drivers=_split(environment.get("driver")),
            kernel_version=str(environment.get("kernel_version", "")),
            os_name=" ".join(str(environment[key]) for key in ("os_name", "os_version") if environment.get(key)),
            config={str(key): str(value) for key, value in (answer.get("config") or {}).items()},
            raw=answer,
        )


def _split(text: Any) -> frozenset[str]:
    """``btrfs | dir`` as a set."""
    return frozenset(word.strip() for word in str(text or "").split("|") if word.strip())

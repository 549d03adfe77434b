# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations


class ModuleDocFragment:
    """The options that say which Incus server a module works on."""

    DOCUMENTATION = r"""
options:
  url:
    description:
      - The server's address, for example V(https://incus1.example.net:8443), or the path of its unix socket.
      - Without it the module talks to the daemon of the host on which it runs. It looks for the socket where the
        C(incus)
        command does, E(INCUS_SOCKET) and E(INCUS_DIR) first.
    type: str
  client_cert:
    description: The client certificate for an V(https) O(url), as the path of a PEM file on the host where the module
      runs.
    type: path
  client_cert_content:
    description: The same as text. Excludes O(client_cert).
    type: str
  client_key:
    description: The key of the client certificate, as a path.
    type: path
  client_key_content:
    description: The same as text. Excludes O(client_key).
    type: str
  server_cert:
    description:
      - The certificate that the server must present (it is pinned, whatever its name or issuer), as a path.
      - Without it, name and chain are checked against the certificate authorities of the host.
    type: path
  server_cert_content:
    description: The same as text. Excludes O(server_cert).
    type: str
  project:
    description: Keep to this project. Without it, all projects that the connection may see are meant.
    type: str
  target:
    description: In a cluster, the member that a request is meant for.
    type: str
  connect_timeout:
    description: Seconds to wait for a connection.
    type: int
    default: 30
  stall_timeout:
    description: Seconds without a byte after which a stream counts as dead.
    type: int
    default: 300
  operation_timeout:
    description: Seconds that one operation of the server may take. It is cancelled then.
    type: int
    default: 86400
"""

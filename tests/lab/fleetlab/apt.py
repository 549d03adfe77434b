# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Finds the Debian mirror, its keyring and the proxy in the machine's own apt configuration."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleetlab.errors import Unusable

_RELEASES = ("trixie", "stable", "bookworm", "oldstable", "bullseye", "forky", "testing", "sid", "unstable")
_ONE_LINE = re.compile(r"^\s*deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>.*)$")
_ARMOUR = re.compile(r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(.*?)-----END PGP PUBLIC KEY BLOCK-----", re.DOTALL)
_ARCHIVE_KEYRINGS = ("usr/share/keyrings/debian-archive-keyring.gpg", "usr/share/keyrings/debian-archive-keyring.pgp")


@dataclass(frozen=True)
class Source:
    """One place that apt downloads from; ``signed_by`` is apt's text: paths, fingerprints or a whole key block."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_one_line(text: str) -> list[Source]:
    """Read the `deb [options] URI suite component…` format; what is not `deb` is passed over."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0])
        if not match:
            continue
        options = dict(word.split("=", 1) for word in (match["options"] or "").split() if "=" in word)
        found.append(
            Source(
                match["uri"],
                (match["suite"],),
                tuple(match["components"].split()),
                options.get("signed-by", ""),
            )
        )
    return found


def _paragraphs(text: str) -> list[dict[str, str]]:
    paragraphs: list[dict[str, str]] = []
    current: dict[str, str] = {}
    field = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if current:
                paragraphs.append(current)
            current, field = {}, ""
        elif line[0] in " \t" and field:
            # A lone dot stands for an empty line; an embedded key block has them.
            current[field] += "\n" + ("" if line.strip() == "." else line.strip())
        elif ":" in line:
            field, _unused, value = line.partition(":")
            field = field.strip().lower()
            current[field] = value.strip()
    return paragraphs


def parse_deb822(text: str) -> list[Source]:
    """Read the `Types:` / `URIs:` / `Suites:` format; a paragraph with several URIs gives several sources."""
    found = []
    for fields in _paragraphs(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false", "0"):
            continue
        suites = tuple(fields.get("suites", "").split())
        components = tuple(fields.get("components", "").split())
        for uri in fields.get("uris", "").split():
            found.append(Source(uri, suites, components, fields.get("signed-by", "").strip()))
    return found


def machine_sources(root: Path = Path("/")) -> list[Source]:
    """All of the machine's apt sources, in apt's order; ``root`` is where its etc directory is."""
    apt = root / "etc/apt"
    found = []
    main = apt / "sources.list"
    if main.is_file():
        found += parse_one_line(main.read_text(errors="replace"))
    for path in sorted((apt / "sources.list.d").glob("*")):
        if path.suffix == ".list":
            found += parse_one_line(path.read_text(errors="replace"))
        elif path.suffix == ".sources":
            found += parse_deb822(path.read_text(errors="replace"))
    return [resolved for source in found for resolved in _resolve_list(source, root)]


def _resolve_list(source: Source, root: Path) -> list[Source]:
    """Cloud images name a file with the mirrors in it (mirror+file:); debootstrap knows only plain addresses."""
    scheme, _unused, rest = source.uri.partition(":")
    if scheme not in ("mirror+file", "mirror"):
        return [source]
    path = root / rest.lstrip("/")
    if scheme == "mirror" or not path.is_file():
        return []
    uris = [line.split()[0] for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return [Source(uri, source.suites, source.components, source.signed_by) for uri in uris if not uri.startswith("#")]


def choose_mirror(sources: Sequence[Source], codename: str) -> Source:
    """The source that serves Debian itself: component main of a plain release, this machine's release before others.

    Unusable when there is none (not a Debian machine, or only sources that debootstrap cannot read).
    """
    releases = (codename, *_RELEASES) if codename in _RELEASES else _RELEASES

    def rank(source: Source) -> tuple[int, int]:
        release = min((releases.index(suite) for suite in source.suites if suite in releases), default=len(releases))
        # Other projects call their suites after Debian's releases too; their path rarely says "debian".
        return (0 if "debian" in urlsplit(source.uri).path.split("/") else 1, release)

    usable = [
        source
        for source in sources
        if urlsplit(source.uri).scheme in ("http", "https")
        and "main" in source.components
        and any(suite in releases for suite in source.suites)
    ]
    if not usable:
        raise Unusable(
            "no Debian mirror (http or https, component main) found in this machine's /etc/apt/sources.list"
            " or /etc/apt/sources.list.d: the lab downloads its hosts from where the machine's own packages come from"
        )
    best = min(usable, key=rank)
    return Source(best.uri.rstrip("/"), best.suites, best.components, best.signed_by)


def _dearmour(data: bytes) -> bytes:
    text = data.decode("ascii", errors="ignore").replace("\r\n", "\n")
    blocks = _ARMOUR.findall(text)
    if not blocks:
        return data
    binary = b""
    for block in blocks:
        # Headers end at the first empty line; the line that starts with "=" is a checksum.
        body = block.partition("\n\n")[2] if ":" in block.partition("\n\n")[0] else block
        binary += base64.b64decode("".join(line for line in body.split("\n") if not line.startswith("=")))
    return binary


def keyring(source: Source, root: Path = Path("/")) -> bytes:
    """The keys, in binary form, that may sign the mirror: those of Signed-By and Debian's archive keyring.

    Debian's own are always added: a keyring of this machine's release alone cannot vouch for the hosts' release.
    """
    keys = b""
    if "BEGIN PGP" in source.signed_by:
        keys += _dearmour(source.signed_by.encode())
    else:
        words = re.split(r"[,\s]+", source.signed_by)
        paths = [root / word.lstrip("/") for word in words if word.startswith("/")]
        paths += [root / path for path in _ARCHIVE_KEYRINGS]
        for path in dict.fromkeys(path.resolve() for path in paths):
            if path.is_file():
                keys += _dearmour(path.read_bytes())
    if not keys:
        raise Unusable("no keyring to check the Debian mirror with: install the package debian-archive-keyring")
    return keys


def parse_config(dump: str) -> dict[str, str]:
    """Read what `apt-config dump` prints: `Name::Of::It "value";` lines."""
    pairs = re.findall(r'^(\S+)\s+"(.*)";\s*$', dump, re.MULTILINE)
    return {name.lower(): value for name, value in pairs if value}


def proxy(uri: str, config: Mapping[str, str], detect: Callable[[], str], environ: Mapping[str, str]) -> str:
    """The proxy that apt would use for an address, "" for none.

    ``detect`` runs apt's own helper (only called when the configuration names an auto-detection program).
    """
    parts = urlsplit(uri)
    scheme = f"acquire::{parts.scheme}::"
    named = config.get(f"{scheme}proxy::{parts.hostname}") or config.get(f"{scheme}proxy")
    if not named and (config.get(f"{scheme}proxy-auto-detect") or config.get(f"{scheme}proxyautodetect")):
        match = re.search(r"Using proxy '([^']*)'", detect())
        named = match[1] if match else ""
    if not named:
        named = environ.get(f"{parts.scheme}_proxy", "")
    return "" if named.upper() == "DIRECT" else named

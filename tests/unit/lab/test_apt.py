# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The mirror, its keyring and the proxy are read from the machine's own apt configuration."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from fleetlab import apt
from fleetlab.errors import Unusable

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib   # ours
deb-src http://mirror.example/debian bookworm main
deb [ arch=amd64 signed-by=/usr/share/keyrings/a.gpg ] https://signed.example/debian/ bookworm main
deb cdrom:[Debian 12]/ bookworm main
"""

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian/ https://second.example/debian
Suites: bookworm bookworm-updates
# a comment inside a paragraph
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: bookworm
Components: main
"""


def armoured(data: bytes) -> str:
    text = base64.encodebytes(data).decode()
    return f"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n{text}=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n"


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_one_line_sources_are_read_with_their_options():
    plain, signed, cdrom = apt.parse_one_line(ONE_LINE)
    assert plain == apt.Source("http://mirror.example/debian", ("bookworm",), ("main", "contrib"))
    assert (signed.uri, signed.signed_by) == ("https://signed.example/debian/", "/usr/share/keyrings/a.gpg")
    assert cdrom.uri.startswith("cdrom:")


def test_deb822_gives_a_source_for_every_uri_and_none_for_what_is_disabled_or_source_only():
    found = apt.parse_deb822(DEB822)
    assert [source.uri for source in found] == ["http://mirror.example/debian/", "https://second.example/debian"]
    assert found[0].suites == ("bookworm", "bookworm-updates")
    assert found[0].signed_by == "/usr/share/keyrings/debian-archive-keyring.gpg"


def test_deb822_keeps_an_embedded_key_with_its_empty_lines():
    text = "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\nSigned-By:\n"
    text += "".join(f" {line or '.'}\n" for line in armoured(b"key").splitlines())
    (source,) = apt.parse_deb822(text)
    assert apt.keyring(source, Path("/nowhere")) == b"key"


def test_all_files_of_the_machine_are_read_in_order_and_only_with_their_own_suffix(tmp_path):
    root = machine(
        tmp_path,
        {
            "etc/apt/sources.list": "deb http://first.example/debian bookworm main\n",
            "etc/apt/sources.list.d/b.list": "deb http://third.example/debian bookworm main\n",
            "etc/apt/sources.list.d/a.sources": DEB822,
            "etc/apt/sources.list.d/c.list.disabled": "deb http://never.example/debian bookworm main\n",
        },
    )
    hosts = [source.uri.split("/")[2] for source in apt.machine_sources(root)]
    assert hosts == ["first.example", "mirror.example", "second.example", "third.example"]


def test_a_mirror_list_file_is_followed(tmp_path):
    root = machine(
        tmp_path,
        {
            "etc/apt/sources.list.d/debian.sources": (
                "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm\nComponents: main\n"
            ),
            "etc/apt/mirrors/debian.list": "# ours\nhttps://listed.example/debian priority:1\n",
        },
    )
    assert apt.choose_mirror(apt.machine_sources(root), "bookworm").uri == "https://listed.example/debian"


def test_the_mirror_is_debians_and_not_another_projects_with_the_same_suite():
    sources = [
        apt.Source("https://apt.vendor.example", ("bookworm",), ("main",)),
        apt.Source("http://security.example/debian-security", ("bookworm-security",), ("main",)),
        apt.Source("http://mirror.example/debian/", ("bookworm", "bookworm-updates"), ("main",)),
    ]
    assert apt.choose_mirror(sources, "bookworm").uri == "http://mirror.example/debian"


def test_this_machines_release_goes_before_others():
    sources = [
        apt.Source("http://old.example/debian", ("bullseye",), ("main",)),
        apt.Source("http://own.example/debian", ("bookworm",), ("main",)),
    ]
    assert apt.choose_mirror(sources, "bookworm").uri == "http://own.example/debian"


@pytest.mark.parametrize(
    "source",
    [
        apt.Source("http://archive.example/ubuntu", ("noble",), ("main",)),
        apt.Source("file:/srv/debian", ("bookworm",), ("main",)),
        apt.Source("http://mirror.example/debian", ("bookworm",), ("non-free",)),
    ],
)
def test_no_usable_mirror_is_said_in_a_sentence(source):
    with pytest.raises(Unusable, match="no Debian mirror"):
        apt.choose_mirror([source], "bookworm")


def test_the_keyring_joins_what_signed_by_names_with_debians_own(tmp_path):
    machine(
        tmp_path,
        {
            "usr/share/keyrings/debian-archive-keyring.gpg": "DEBIAN",
            "etc/apt/keyrings/ours.asc": armoured(b"OURS"),
        },
    )
    source = apt.Source(
        "http://m.example/debian", ("trixie",), ("main",), "/etc/apt/keyrings/ours.asc,0123456789ABCDEF"
    )
    assert apt.keyring(source, tmp_path) == b"OURSDEBIAN"


def test_an_armoured_key_with_headers_is_read(tmp_path):
    text = armoured(b"KEY").replace("BLOCK-----\n\n", "BLOCK-----\nComment: made by hand\n\n", 1)
    machine(tmp_path, {"usr/share/keyrings/debian-archive-keyring.gpg": text})
    assert apt.keyring(apt.Source("http://m.example/debian", (), ()), tmp_path) == b"KEY"


def test_no_keyring_at_all_is_said_in_a_sentence(tmp_path):
    with pytest.raises(Unusable, match="debian-archive-keyring"):
        apt.keyring(apt.Source("http://m.example/debian", (), ()), tmp_path)


URI = "http://mirror.example/debian"


def never() -> str:
    raise AssertionError("the helper was run though the configuration names a proxy")


@pytest.mark.parametrize(
    ("config", "environ", "expected"),
    [
        ("", {}, ""),
        ('Acquire::http::Proxy "http://proxy.example:3142";\n', {}, "http://proxy.example:3142"),
        ('Acquire::http::Proxy "http://p:1";\nAcquire::http::Proxy::mirror.example "DIRECT";\n', {}, ""),
        ('Acquire::https::Proxy "http://other:1";\n', {}, ""),
        ("", {"http_proxy": "http://env:1"}, "http://env:1"),
        ('Acquire::http::Proxy "http://p:1";\n', {"http_proxy": "http://env:1"}, "http://p:1"),
    ],
)
def test_the_proxy_is_the_one_that_apt_would_use(config, environ, expected):
    assert apt.proxy(URI, apt.parse_config(config), never, environ) == expected


def test_an_auto_detecting_proxy_is_asked_through_apts_own_helper():
    config = apt.parse_config('Acquire::http::Proxy-Auto-Detect "/usr/bin/find-proxy";\n')
    assert apt.proxy(URI, config, lambda: f"Using proxy 'http://found:1' for URL '{URI}'\n", {}) == "http://found:1"

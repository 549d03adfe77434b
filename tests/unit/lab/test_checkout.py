# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Names are keyed by the checkout, and fit where the kernel and the network want them."""

from __future__ import annotations

import pytest

from fleetlab import recipe
from fleetlab.checkout import (
    DEFAULT_HOSTS,
    LAST_NUMBER,
    VERSIONS,
    Checkout,
    check_name,
    checkout_key,
    default_cache,
    parse_hosts,
    port,
)
from fleetlab.errors import Unusable

INTERFACE_NAME_LENGTH = 15


def test_two_checkouts_share_no_name(tmp_path):
    one, two = (Checkout(checkout_key(tmp_path / name)) for name in ("one", "two"))
    for name in ("state", "hosts", "ssh_key", "known_hosts", "ssh_config", "switch", "controller"):
        assert getattr(one, name) != getattr(two, name)
    assert one.namespace("inc70") != two.namespace("inc70")
    assert one.cgroup("inc70") != two.cgroup("inc70")


def test_a_checkout_reached_by_a_link_is_the_same_checkout(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert checkout_key(tmp_path / "link") == checkout_key(tmp_path / "real")


def test_no_host_can_take_the_name_of_the_switch_or_the_controller():
    checkout = Checkout("0123abcd")
    taken = {checkout.switch, checkout.controller}
    assert not taken & {checkout.namespace(name) for name in ("switch", "controller")}


def test_interface_names_fit_the_kernel():
    assert len(port(LAST_NUMBER)) <= INTERFACE_NAME_LENGTH


def test_without_names_the_two_default_hosts_are_wanted():
    assert parse_hosts([]) == {"inc70": "7.0", "inc60": "6.0"}


def test_a_name_alone_leaves_the_version_open():
    assert parse_hosts(["a", "b=6.0"]) == {"a": None, "b": "6.0"}


@pytest.mark.parametrize("word", ["a=5.0", "a=", "A", "-a", "a_b", "", "a/b", "a" * 32, "a.b"])
def test_what_cannot_be_a_host_is_refused(word):
    with pytest.raises(Unusable):
        parse_hosts([word])


def test_the_longest_name_is_allowed():
    check_name("a" * 31)


def test_every_version_has_an_image_and_every_default_host_a_version():
    assert set(VERSIONS) == set(recipe.INCUS_SUITES) == set(DEFAULT_HOSTS.values())


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("INCUS_FLEET_LAB_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("INCUS_FLEET_LAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "incus-fleet-backup" / "lab"


def test_a_changed_recipe_names_another_image(monkeypatch):
    before = recipe.digest("amd64")
    assert recipe.digest("arm64") != before
    monkeypatch.setattr(recipe, "PACKAGES", (*recipe.PACKAGES, "one-more"))
    assert recipe.digest("amd64") != before

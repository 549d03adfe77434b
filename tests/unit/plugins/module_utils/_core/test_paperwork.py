# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from ansible_collections.incus_fleet.backup.plugins.module_utils._core.manifest import (
    Artifact,
    Manifest,
    SnapshotRecord,
)
from ansible_collections.incus_fleet.backup.plugins.module_utils._core.paperwork import readme, restore_script
from ansible_collections.incus_fleet.backup.tests.unit.plugins.module_utils._store.builders import (
    a_failure,
    a_manifest,
    an_artifact,
)

NAME = "20261123T141500Z-partial-7f3a"
# What a shell would make something of, were it not quoted.
NASTY = ["it's", 'say "hi"', "a b", "$(touch pwned)", "`touch pwned`", "a;touch pwned", "a&b?c#d%e", "a\\nb", "-x", "*"]

# Writes down how it was called (words end with NUL, calls with RS); what is in INSTANCES exists.
INCUS = """\
#!/bin/sh
{ printf '%s\\000' "$@"; printf '\\036'; } >>"$CALLS"
case "$1" in
  info) case " $INSTANCES " in *" $4 "*) exit 0 ;; *) exit 1 ;; esac ;;
  import) exit "${IMPORT_STATUS:-0}" ;;
esac
"""


@pytest.fixture(params=["sh", "dash"])
def shell(request: pytest.FixtureRequest) -> str:
    """A POSIX shell; Debian's own is dash."""
    name: str = request.param
    if subprocess.run(["which", name], capture_output=True, check=False).returncode:
        pytest.skip(f"NOT RUN: {name} is not installed")
    return name


class Laid:
    """A set laid out in a directory, with an ``incus`` that writes down how it is called."""

    def __init__(self, place: Path, shell: str, manifest: Manifest, content: bytes = b"bytes") -> None:
        self.place = place / "the set"
        self.calls_file = place / "calls"
        self._shell = shell
        self._bin = place / "bin"
        self._bin.mkdir()
        (self._bin / "incus").write_text(INCUS)
        (self._bin / "incus").chmod(0o755)
        for artifact in manifest.artifacts:
            file = self.place / artifact.path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        (self.place / "restore.sh").write_text(restore_script(manifest))

    def run(self, *names: str, there: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        around = {
            "PATH": f"{self._bin}:{os.environ['PATH']}",
            "CALLS": str(self.calls_file),
            "INSTANCES": " ".join(there),
            **environment,
        }
        return subprocess.run(
            [self._shell, str(self.place / "restore.sh"), *names],
            cwd="/",
            env=around,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self, command: str) -> list[list[str]]:
        told = self.calls_file.read_text() if self.calls_file.exists() else ""
        calls = [call.split("\0")[:-1] for call in told.split("\x1e") if call]
        return [call[1:] for call in calls if call[0] == command]


def with_expiry(name: str, *snapshots: str) -> Artifact:
    records = tuple(SnapshotRecord(snapshot, None, "2027-01-01T00:00:00Z") for snapshot in snapshots)
    return an_artifact(name, snapshots=(*records, SnapshotRecord("for-ever", None, None)))


class TestRestoreScript:
    def test_it_parses_whatever_the_names_are(self, tmp_path: Path, shell: str) -> None:
        artifacts = [
            replace(an_artifact(name, project=name), path=f"instances/{number}.tar.zst")
            for number, name in enumerate(NASTY)
        ]
        (tmp_path / "restore.sh").write_text(restore_script(a_manifest(NAME, *artifacts)))
        subprocess.run([shell, "-n", str(tmp_path / "restore.sh")], check=True)

    def test_every_instance_is_checked_imported_and_kept_at_rest(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, an_artifact("db"), an_artifact("web")))
        done = laid.run()
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == ["default/db: restored", "default/web: restored"]
        assert laid.calls("import") == [
            ["--project", "default", "instances/default/db.tar.zst"],
            ["--project", "default", "instances/default/web.tar.zst"],
        ]
        assert ["set", "--project", "default", "web", "volatile.last_state.power=STOPPED"] in laid.calls("config")

    @pytest.mark.parametrize("name", NASTY)
    def test_a_projects_name_reaches_incus_as_it_is(self, tmp_path: Path, shell: str, name: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, replace(an_artifact("web", project=name), path="web.tar.zst")))
        done = laid.run()
        assert done.returncode == 0, done.stderr
        assert laid.calls("import") == [["--project", name, "web.tar.zst"]]
        assert not list(tmp_path.rglob("pwned"))
        assert not Path("/pwned").exists()

    def test_only_those_named_and_web_is_not_web_prod(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, *map(an_artifact, ("db", "web", "web-prod"))))
        assert laid.run("default/web", "default/db").returncode == 0
        assert laid.run("default/web-prod").returncode == 0
        wanted = [f"instances/default/{name}.tar.zst" for name in ("db", "web", "web-prod")]
        assert [call[-1] for call in laid.calls("import")] == wanted

    @pytest.mark.parametrize("name", ["default/we", "web", "*", "default/*", "default/gone"])
    def test_a_name_that_the_set_has_not_is_said_and_fails(self, tmp_path: Path, shell: str, name: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, an_artifact("web")))
        done = laid.run(name)
        assert done.returncode == 1
        assert f"{name}: is not in this set" in done.stdout
        assert laid.calls("import") == []

    def test_an_instance_that_is_there_is_not_touched_nor_are_its_snapshots(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, with_expiry("db", "snap0"), with_expiry("web", "snap0")))
        done = laid.run(there=("web",))
        assert done.returncode == 1
        assert done.stdout.splitlines() == ["default/db: restored", "default/web: is there already, left alone"]
        for command in ("import", "config", "query"):
            assert not any("web" in word for call in laid.calls(command) for word in call)

    def test_a_damaged_file_is_not_imported_and_the_others_are(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, an_artifact("db"), an_artifact("web")))
        (laid.place / "instances/default/db.tar.zst").write_bytes(b"Bytes")
        done = laid.run()
        assert done.returncode == 1
        assert "default/db: instances/default/db.tar.zst is damaged" in done.stdout
        assert [call[-1] for call in laid.calls("import")] == ["instances/default/web.tar.zst"]

    def test_a_failed_import_is_said_and_the_others_are_tried(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, with_expiry("db", "snap0"), an_artifact("web")))
        done = laid.run(IMPORT_STATUS="1")
        assert done.returncode == 1
        assert len(laid.calls("import")) == 2
        assert laid.calls("query") == []

    def test_expiries_are_set_again_and_names_are_safe_in_the_url(self, tmp_path: Path, shell: str) -> None:
        artifact = replace(with_expiry("web", "a?b#c%d"), project="p&q=r")
        laid = Laid(tmp_path, shell, a_manifest(NAME, artifact))
        assert laid.run().returncode == 0
        assert laid.calls("query") == [
            [
                "--wait", "-X", "PUT", "-d", '{"expires_at": "2027-01-01T00:00:00Z"}',
                "/1.0/instances/web/snapshots/a%3Fb%23c%25d?project=p%26q%3Dr",
            ]
        ]  # fmt: skip

    def test_what_is_no_instance_is_left_to_others(self, tmp_path: Path, shell: str) -> None:
        laid = Laid(tmp_path, shell, a_manifest(NAME, an_artifact("data", kind="volume")))
        assert laid.run().returncode == 0
        assert not laid.calls_file.exists()


class TestReadme:
    def test_it_tells_what_the_set_is_and_holds_and_the_ways_back(self) -> None:
        text = readme(a_manifest(NAME, an_artifact("web")))
        facts = [NAME, "host1", "site1", "run-1", "7.0", "complete", "instances/default/web.tar.zst", "snapshot/crash"]
        ways = ["sh restore.sh", "incus import --project", "incus_fleet.backup.partial_restore"]
        for fact in facts + ways:
            assert fact in text
        assert "NOT" not in text

    def test_what_is_missing_is_said(self) -> None:
        text = readme(
            replace(a_manifest(NAME, an_artifact("web")), failures=(a_failure("db"),), result="with_failures")
        )
        assert "Does NOT hold" in text
        assert "default/db: the stream ended early" in text

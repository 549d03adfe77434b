# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Gates on what users get: the tarball's files, the collection installed from it, and Galaxy's own opinion."""

from __future__ import annotations

import fnmatch
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.gates.model import Outcome
from tests.gates.tools import run
from tests.gates.workshop import COLLECTION, Workshop

MOST_BYTES = 1024 * 1024
# What may be in the tarball; fnmatch's star crosses slashes.
ALLOWED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "COPYING",
    "FILES.json",
    "LICENSES/*.txt",
    "MANIFEST.json",
    "README.md",
    "REUSE.toml",
    "changelogs/changelog.yaml",
    "changelogs/config.yaml",
    "docs/*.md",
    "docs/*.rst",
    "docs/*.yml",
    "docs/*.json",
    "docs/examples/inventory/*",
    "meta/ee-bindep.txt",
    "meta/ee-requirements.txt",
    "meta/execution-environment.yml",
    "meta/runtime.yml",
    "playbooks/*.yml",
    "plugins/doc_fragments/*.py",
    "plugins/module_utils/*.py",
    "plugins/modules/*.py",
    "roles/*",
)
# What must be.
NEEDED = (
    "CHANGELOG.md",
    "COPYING",
    "LICENSES/GPL-3.0-or-later.txt",
    "README.md",
    "meta/ee-bindep.txt",
    "meta/ee-requirements.txt",
    "meta/execution-environment.yml",
    "meta/runtime.yml",
    "playbooks/partial_backup.yml",
    "playbooks/partial_restore.yml",
    "plugins/modules/incus_backup_info.py",
    "plugins/modules/incus_backup_set.py",
    "plugins/modules/incus_export.py",
    "plugins/modules/incus_import.py",
    "roles/host_setup/tasks/main.yml",
    "roles/partial_backup/tasks/main.yml",
    "roles/partial_restore/tasks/main.yml",
)
# What runs, and so what has to be enough.
RUN_TIME = ("meta", "plugins", "roles", "playbooks")
# What the tests, the lab and people leave in a checkout.
LEFTOVERS = (
    ".ansible/tmp/x",
    ".mypy_cache/x.json",
    ".venv/bin/python",
    "benchmarks/results.json",
    "incus_fleet-backup-0.0.1.tar.gz",
    "plugins/module_utils/_core/__pycache__/errors.cpython-311.pyc",
    "roles/host_setup/.ansible/x",
    "run.log",
    "tests/integration/integration_config.yml",
    "tests/lab/hosts.yml",
    "tests/output/.tmp/x",
)


def package(shop: Workshop, log: Path) -> Outcome:
    """The tarball holds what it should, is small, and works with nothing but its run-time directories."""
    env = shop.surroundings("core-2.19")
    source = shop.exported("package") / COLLECTION
    for name in LEFTOVERS:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("left over\n", "utf-8")
    tarball = _build(source, shop.own / "package", log, env)
    if tarball is None:
        return Outcome.of(log.read_text("utf-8").splitlines()[-40:])
    with tarfile.open(tarball) as archive:
        names = sorted(member.name for member in archive.getmembers() if not member.isdir())
    problems = _misfits(names, tarball.stat().st_size)
    from_checkout = _build(shop.checkout, shop.own / "package-checkout", log, env)
    if from_checkout is not None:
        with tarfile.open(from_checkout) as archive:
            there = sorted(member.name for member in archive.getmembers() if not member.isdir())
        problems += [f"{name}: built from the checkout as it stands only" for name in there if name not in names]
    outcome = Outcome.of(problems)
    outcome.add(Outcome.of(_trial(shop, tarball, log, env)))
    return outcome


def _misfits(names: list[str], size: int) -> list[str]:
    """What is wrong with a tarball's list of files and its size."""
    problems = [
        f"{name}: does not belong into the package"
        for name in names
        if not any(fnmatch.fnmatch(name, glob) for glob in ALLOWED)
    ]
    problems += [f"{name}: is missing from the package" for name in NEEDED if name not in names]
    if size >= MOST_BYTES:
        problems.append(f"the package has {size} bytes, {MOST_BYTES} is too many")
    return problems


def _build(source: Path, into: Path, log: Path, env: Mapping[str, str]) -> Path | None:
    """Build the tarball in a new directory; None when it fails."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    command = ["ansible-galaxy", "collection", "build", str(source), "--output-path", str(into)]
    if run(command, log=log, env=env, cwd=into):
        return None
    return next(into.glob("*.tar.gz"))


def _trial(shop: Workshop, tarball: Path, log: Path, env: Mapping[str, str]) -> list[str]:
    """Install the tarball, delete all but the run-time directories, and try every module, role and playbook."""
    root = shop.own / "installed"
    shutil.rmtree(root, ignore_errors=True)
    env = {**env, "ANSIBLE_COLLECTIONS_PATH": str(root)}
    command = ["ansible-galaxy", "collection", "install", "--offline", str(tarball), "--collections-path", str(root)]
    if run(command, log=log, env=env, cwd=shop.own):
        return ["the package cannot be installed", *log.read_text("utf-8").splitlines()[-20:]]
    installed = root / COLLECTION
    for entry in installed.iterdir():
        if entry.is_dir() and entry.name not in RUN_TIME:
            shutil.rmtree(entry)
        elif entry.is_file():
            entry.unlink()
    failed = [words for words in _trials(installed) if run(words, log=log, env=env, cwd=root)]
    problems = [f"fails in the installed package: {' '.join(words)}" for words in failed]
    return [*problems, *log.read_text("utf-8").splitlines()[-40:]] if failed else []


def _trials(installed: Path) -> Iterator[list[str]]:
    """What must work for each module, role and playbook."""
    prefix = ".".join(COLLECTION.parts[1:])
    for module in sorted(installed.glob("plugins/modules/*.py")):
        yield ["ansible-doc", "--type", "module", f"{prefix}.{module.stem}"]
    for spec in sorted(installed.glob("roles/*/meta/argument_specs.yml")):
        yield ["ansible-doc", "--type", "role", f"{prefix}.{spec.parent.parent.name}"]
    for book in sorted(installed.glob("playbooks/*.yml")):
        yield ["ansible-playbook", "--syntax-check", "--inventory", "localhost,", f"{prefix}.{book.stem}"]


def galaxy_importer(shop: Workshop, log: Path) -> Outcome:
    """galaxy-importer takes the tarball without a complaint."""
    env = {**shop.surroundings("importer"), "ANSIBLE_LOCAL_TEMP": str(shop.own / "importer-tmp")}
    source = shop.exported("importer") / COLLECTION
    tarball = _build(source, shop.own / "importer", log, env)
    if tarball is None:
        return Outcome.of(log.read_text("utf-8").splitlines()[-40:])
    command = ["python", "-m", "galaxy_importer.main", str(tarball)]
    code = run(command, log=log, env=env, cwd=shop.own / "importer")
    lines = log.read_text("utf-8").splitlines()
    problems = [line for line in lines if re.match(r"\[?(ERROR|WARNING|CRITICAL)", line)]
    if code and not problems:
        problems = lines[-40:]
    return Outcome.of(problems)

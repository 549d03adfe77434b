# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The runner behind make: `python3 -m tests.gates --help`."""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from pathlib import Path

from tests.gates import ansible_test, integration, package, pytests, sources, tools
from tests.gates.model import Gate, NotRun, Outcome, Report
from tests.gates.workshop import ENVIRONMENTS, Workshop

LANES = ("checks", "lab")
GATES = [
    Gate("ruff-check", "lint", tools.ruff_check),
    Gate("ruff-format", "lint", tools.ruff_format),
    Gate("mypy", "lint", tools.mypy),
    Gate("yamllint", "lint", tools.yamllint),
    Gate("shellcheck", "lint", tools.shellcheck),
    Gate("suppressions", "lint", sources.suppressions),
    Gate("licences", "lint", sources.licences),
    Gate("ansible-lint", "lint", tools.ansible_lint),
    Gate("antsibull-docs", "lint", tools.antsibull_docs),
    Gate("antsibull-changelog", "lint", tools.antsibull_changelog),
    Gate("unit", "unit", pytests.unit),
    Gate("package", "package", package.package),
    Gate("galaxy-importer", "package", package.galaxy_importer),
    *(Gate(f"sanity-{core.removeprefix('core-')}", "sanity", ansible_test.sanity(core)) for core in ansible_test.CORES),
    *(Gate(f"units-{core.removeprefix('core-')}", "units", ansible_test.units(core)) for core in ansible_test.CORES),
    Gate("lab", "lab", pytests.lab, lane="lab"),
    Gate("integration", "lab", integration.integration, lane="lab"),
]


def main() -> int:
    """Run the gates asked for; 0 when nothing failed, 1 when something did, 2 when nothing could be tried."""
    groups = list(dict.fromkeys(gate.group for gate in GATES))
    parser = argparse.ArgumentParser(prog="python3 -m tests.gates", description="Runs gates and counts what passed.")
    parser.add_argument("names", nargs="*", metavar="GATE", help=f"gates or groups ({', '.join(groups)}); all without")
    parser.add_argument("--list", action="store_true", help="list the gates")
    parser.add_argument("--environment", choices=sorted(ENVIRONMENTS), help="make an environment, print its bin/")
    parser.add_argument("--wheels", metavar="VERSION", help="fetch what our modules need for that Python, print where")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{gate.group:10} {gate.name}" for gate in GATES))
        return 0
    shop = Workshop(Path(__file__).parent.parent.parent)
    if options.environment:
        print(shop.environment(options.environment))
        return 0
    if options.wheels:
        print(shop.wheels(shop.checkout / "tests/integration/requirements.txt", options.wheels))
        return 0
    unknown = set(options.names) - {gate.name for gate in GATES} - set(groups)
    if unknown:
        parser.error(f"no such gate: {', '.join(sorted(unknown))} (see --list)")
    chosen = [gate for gate in GATES if not options.names or {gate.name, gate.group} & set(options.names)]
    try:
        # Whatever needs no environment of its own needs this one.
        shop.environment("dev")
    except NotRun as missing:
        print(f"NOT RUN: everything: {missing}")
        return 2
    return conclude(run_all(shop, chosen))


def run_all(shop: Workshop, gates: list[Gate]) -> list[Report]:
    """Run the gates, one at a time in each lane: the lab mostly waits, so the checks use the other core."""
    reports: list[Report] = []
    talking = threading.Lock()
    interrupted = threading.Event()

    def work(lane: str) -> None:
        for gate in gates:
            if gate.lane == lane and not interrupted.is_set():
                report = try_gate(shop, gate)
                with talking:
                    reports.append(report)
                    tell(report)

    workers = [threading.Thread(target=work, args=(lane,)) for lane in LANES]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    except KeyboardInterrupt:
        # The tools got the signal as well; the lab's tests tidy up before they end.
        interrupted.set()
        for worker in workers:
            worker.join()
        raise
    return sorted(reports, key=lambda report: gates.index(report.gate))


def try_gate(shop: Workshop, gate: Gate) -> Report:
    """Run one gate.  A gate that breaks has failed; what it cannot find here is told apart."""
    log = shop.logs / f"{gate.name}.log"
    log.write_bytes(b"")
    start = time.monotonic()
    try:
        outcome = gate.check(shop, log)
    except NotRun as missing:
        outcome = Outcome(not_run=[str(missing)])
    except Exception:
        outcome = Outcome.of(traceback.format_exc().splitlines())
    return Report(gate, outcome, time.monotonic() - start, log)


def tell(report: Report) -> None:
    """Say how a gate went, with what it shows when it failed."""
    print(f"{report.verdict:8} {report.gate.name}  ({report.seconds:.0f} s)", flush=True)
    if report.outcome.failed:
        print("\n".join(f"    {line}" for line in report.outcome.shown))
        print(f"    whole log: {report.log}", flush=True)


def conclude(reports: list[Report]) -> int:
    """Print the table, what was not run, and the closing line alone; return the exit code."""
    total = Outcome()
    print(f"\n{'gate':22} {'verdict':8} {'passed':>7} {'failed':>7} {'seconds':>8}")
    for report in reports:
        outcome = report.outcome
        total.add(outcome)
        row = f"{report.gate.name:22} {report.verdict:8} {outcome.passed:7} {outcome.failed:7} {report.seconds:8.1f}"
        print(row)
    print()
    for report in reports:
        for reason in report.outcome.not_run:
            print(f"NOT RUN: {report.gate.name}: {reason}")
    print(f"{total.passed} passed, {total.failed} failed", flush=True)
    if total.failed:
        return 1
    return 0 if total.passed else 2


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

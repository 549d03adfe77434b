# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`python3.11 -B -m benchmarks [NAME ...]` prints how we compare with plain tools; see docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks.cases import BENCHMARKS
from benchmarks.host import bench_host
from benchmarks.report import kept, machine, measure, table
from tests.gates.workshop import Workshop


def main() -> int:
    """Run what was asked for, print the tables, keep the numbers outside the tree."""
    parser = argparse.ArgumentParser(prog="python3.11 -B -m benchmarks", description="Compares us with plain tools.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}; all without")
    parser.add_argument("--rounds", type=int, default=5, help="how often every rival runs (default: 5)")
    parser.add_argument(
        "--without", action="append", default=[], metavar="WORD", help="leave out rivals that are only looked at"
    )
    parser.add_argument("--keep", action="store_true", help="leave the host running, for the next time")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHMARKS)
    if unknown or options.rounds < 1:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}" if unknown else "--rounds is at least 1")
    shop = Workshop(Path(__file__).parent.parent)
    results: dict[str, Any] = {}
    with bench_host(shop, keep=options.keep) as host:
        about = {"machine": machine(), "versions": host.versions()}
        print(describe(about))
        for name in options.names or BENCHMARKS:
            benchmark = BENCHMARKS[name](host)
            for word in options.without:
                needed = {
                    benchmark.base,
                    *(against for against, _limit in benchmark.limits.values()),
                    *benchmark.limits,
                }
                benchmark.rivals = {
                    rival: run for rival, run in benchmark.rivals.items() if word not in rival or rival in needed
                }
            samples = measure(benchmark, options.rounds)
            print("\n" + "\n".join(table(benchmark, samples)), flush=True)
            results[name] = kept(benchmark, samples)
    place = shop.cache / "benchmarks"
    place.mkdir(parents=True, exist_ok=True)
    path = place / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}.json"
    path.write_text(json.dumps({**about, "benchmarks": results}, indent=1) + "\n", "utf-8")
    print(f"\nkept in {path}")
    return 0


def describe(about: dict[str, dict[str, Any]]) -> str:
    """The machine and the versions in two lines."""
    found, versions = about["machine"], about["versions"]
    return (
        f"{found['cores']} × {found['processor']}, {found['memory_mib']} MiB, Linux {found['kernel']}, "
        f"load {' '.join(str(number) for number in found['load'])}\n"
        + ", ".join(f"{name} {version}" for name, version in versions.items())
    )


if __name__ == "__main__":
    sys.exit(main())

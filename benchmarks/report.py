# Copyright (c) 2026, the incus_fleet.backup authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the rivals of a benchmark in turns and says what came out."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import MIB, Benchmark
from benchmarks.host import Cost

Samples = dict[str, list[Cost]]


def measure(benchmark: Benchmark, rounds: int) -> Samples:
    """Let every rival run once a round, so that what else the machine does meanwhile hits all of them alike."""
    samples: Samples = {name: [] for name in benchmark.rivals}
    for number in range(1, rounds + 1):
        for name, run in benchmark.rivals.items():
            benchmark.between()
            cost = run()
            samples[name].append(cost)
            print(f"  round {number}: {name}: {_compared(cost, benchmark):.2f} {benchmark.unit}", file=sys.stderr)
    return samples


def table(benchmark: Benchmark, samples: Samples) -> list[str]:
    """The medians, each in relation to the base's, as lines of text."""
    rounds = len(next(iter(samples.values())))
    head = f"{'':44} {benchmark.unit:>8} {'least–most':>14} {'ratio':>6} {'CPU s':>6} {'task s':>7}"
    lines = [f"{benchmark.title} (median of {rounds})", head]
    base = _median(samples[benchmark.base], benchmark)
    for name, costs in samples.items():
        values = [_compared(cost, benchmark) for cost in costs]
        tasks = [cost.task_seconds for cost in costs if cost.task_seconds is not None]
        spread = f"{min(values):.1f}–{max(values):.1f}"
        line = f"{name:44} {median(values):8.2f} {spread:>14} {median(values) / base:6.2f}"
        line += f" {median(cost.cpu_seconds for cost in costs):6.1f}"
        if tasks:
            line += f" {median(tasks):7.1f}"
        lines.append(line)
    for name, found in verdicts(benchmark, samples).items():
        lines.append(f"  {name}: {found['ratio']:.2f} × {found['against']} (wanted: at most {found['limit']:.2f})")
    return lines


def verdicts(benchmark: Benchmark, samples: Samples) -> dict[str, dict[str, Any]]:
    """For each rival with a limit, how it did against the one that it is measured by.

    The ratio is the median of the rounds' own ratios: the two ran right after each other, so a machine that is busy
    in one round and idle in the next does not show.
    """
    found = {}
    for name, (against, limit) in benchmark.limits.items():
        pairs = zip(samples[name], samples[against], strict=True)
        ratio = median(_compared(one, benchmark) / _compared(other, benchmark) for one, other in pairs)
        found[name] = {"against": against, "ratio": round(ratio, 3), "limit": limit}
    return found


def kept(benchmark: Benchmark, samples: Samples) -> dict[str, Any]:
    """All that was measured, as plain JSON types."""
    return {
        "title": benchmark.title,
        "unit": benchmark.unit,
        "base": benchmark.base,
        "verdicts": verdicts(benchmark, samples),
        "rivals": {
            name: {"median": _median(costs, benchmark), "samples": [asdict(cost) for cost in costs]}
            for name, costs in samples.items()
        },
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on, and how busy it was."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_mib": memory,
        "kernel": platform.release(),
        "load": [round(number, 1) for number in os.getloadavg()],
    }


def _compared(cost: Cost, benchmark: Benchmark) -> float:
    if benchmark.unit == "MiB":
        return cost.peak_bytes / MIB
    return cost.seconds if cost.own_seconds is None else cost.own_seconds


def _median(costs: list[Cost], benchmark: Benchmark) -> float:
    return median(_compared(cost, benchmark) for cost in costs)

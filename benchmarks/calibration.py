"""The yardstick: what numpy's in-place add costs on this machine in this run.

Absolute times on shared machines move by a third; ratios to a kernel timed in the same run move less. The kernel and
whatever is `worked` are timed by this process's own time on a core, which others on the machine lengthen least. A
result is a name, a value with its unit, and, where it is a time, its ratio to the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Result:
    name: str
    value: float
    unit: str
    note: str = ""


def kernel_s(width: int = 1000, repeats: int = 2000) -> float:
    """Seconds for one in-place add of `width` float64 (best of five runs)."""
    a, b = np.ones(width), np.ones(width)

    def run() -> None:
        for _ in range(repeats):
            np.add(a, b, out=a)

    return min(worked(run) for _ in range(5)) / repeats


def worked(call: Callable[[], object]) -> float:
    """Seconds of one core."""
    before = time.process_time()
    call()
    return time.process_time() - before


def timed(call: Callable[[], object]) -> float:
    """Seconds on the wall."""
    before = time.perf_counter()
    call()
    return time.perf_counter() - before


def percentiles_ms(call: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Median and 99th percentile of single calls, in ms."""
    times = np.array([timed(call) for _ in range(repeats)]) * 1e3
    return float(np.percentile(times, 50)), float(np.percentile(times, 99))

"""`autoscaler replay` from the shell to the finished report, on a month of one-minute ticks.

Everything is in it: starting Python, reading policy and trace, the replay, all that the policy is compared with,
the clairvoyant optimum, the time line, report.json and report.html. Seconds are those of one core (CPU time of
the process and what it started), since others on the machine lengthen the clock on the wall.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from autoscaler.simulator.traffic.synth import synth_day
from autoscaler.traces.writing import write_trace
from benchmarks.calibration import Result, kernel_s

DAYS = 30
ROUNDS = 2
POLICY = """\
fleet: web
signal: {{kind: throughput, source: trace, max_age: 150s, trace: {{}}}}
vm: {{capacity: 120/s, start_time: 40s, stop_time: 40s}}
bounds: {{minimum: 1, maximum: 60}}
{rule}
prices: {{in_service: 0.096/h, stopped: 0.0044/h}}
"""
RULES = {
    "reactive policy": "reactive: {headroom: 20%}\nforecast: off",
    "forecasting policy": "reactive: {headroom: 20%}\nforecast: {}",
    "policy with an objective": "objective: {served: 99.9%}",
}


def run() -> list[Result]:
    unit_s = kernel_s()
    results = [Result("calibration: in-place add, 1,000 float64", unit_s * 1e6, "us")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_trace(folder / "month.csv", synth_day(1, days=float(DAYS), interval_s=60.0))
        for label, rule in RULES.items():
            (folder / "web.yaml").write_text(POLICY.format(rule=rule))
            cpu_s, wall_s = min(_spent(folder) for _ in range(ROUNDS))
            size_mb = (folder / "out" / "report.html").stat().st_size / 1e6
            note = f"{wall_s:.1f} s on the wall; {cpu_s / unit_s / 1e6:.1f} M adds; page of {size_mb:.1f} MB"
            results.append(Result(f"{label}, a month of one-minute ticks", cpu_s, "s", note))
    return results


def _spent(folder: Path) -> tuple[float, float]:
    """Seconds of CPU and on the wall."""
    command = [sys.executable, "-c", "from autoscaler.cli.main import main; main()", "replay"]
    before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(
        [*command, "web.yaml", "month.csv", "--kind", "count", "--out", "out", "--force"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu_s, time.perf_counter() - wall

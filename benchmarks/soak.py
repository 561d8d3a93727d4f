"""Seven simulated days of twenty fleets with random troubles: what the process holds after one day and after seven.

Takes minutes, so it is run when it is named: python -m benchmarks soak
"""

from __future__ import annotations

from benchmarks.calibration import Result
from tests.soak.sizes import HOURS, growth
from tests.soak.soaking import Soak
from tests.soak.soaking import run as run_soak
from tests.soak.troubles import DAY_S

DAYS = 7.0


def run() -> list[Result]:
    """The run of `tests/soak`, longer; raises where anything has grown or gone wrong."""
    soak = Soak(days=DAYS)
    found = run_soak(soak)
    print(f"  {found.ticks} ticks, {found.ticks / found.seconds:.0f} a second; met {dict(found.met)}")
    wrong = [*found.failures, *found.wrong, *found.doubles, *growth(found.samples, soak.flat_from_s)]
    if wrong:
        raise AssertionError("\n".join(wrong))
    results = [
        Result("simulated", DAYS, "days", f"{soak.fleets} fleets, a tick every {soak.tick_s:.0f} s"),
        Result("ticks", found.ticks, "", f"{found.ticks / found.seconds:.0f} a second"),
        Result(
            "troubles met",
            sum(found.met.values()),
            "",
            f"of {len(found.met)} kinds, faults of the cloud aside",
        ),
        Result(
            "VMs asked for",
            sum(found.outcomes.values()),
            "",
            ", ".join(f"{n} {k}" for k, n in found.outcomes.items()),
        ),
    ]
    first = [s for s in found.samples if s.at_s <= DAY_S][-HOURS:]
    last = found.samples[-HOURS:]
    for name, unit, factor in (
        ("resident", "MB", 2**-20),
        ("blocks", "", 1.0),
        ("tasks", "", 1.0),
        ("descriptors", "", 1.0),
        ("journal", "MB", 2**-20),
    ):
        was, now = (min(getattr(s, name) for s in part) * factor for part in (first, last))
        results.append(Result(f"{name}, end of day 7", now, unit, f"{was:,.3f} at the end of day 1"))
    was, now = (min(sum(s.containers.values()) for s in part) for part in (first, last))
    results.append(Result("items in containers, end of day 7", now, "", f"{was:,} at the end of day 1"))
    return results

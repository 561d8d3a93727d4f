"""Five kinds of generated demand, for users without recordings: `autoscaler benchmark --generated`.

Names of generated traces say that they are generated. Rules of this file: a pure function of the seed, with recipes of
`traffic`.
"""

from __future__ import annotations

from autoscaler.simulator.traffic.parts import (
    Crowd,
    Crowds,
    Daily,
    Level,
    OnOff,
    Ramp,
    Recipe,
    Trend,
    Weekly,
    generate,
)
from autoscaler.traces.trace import Trace

DAY_S, HOUR_S = 86_400.0, 3600.0
LENGTH_S = 11 * DAY_S
"""Length of a trace in seconds: a third to learn from, and a week that is scored."""


def generated(seed: int) -> tuple[Trace, ...]:
    """Generate the five traces: a smooth day, crowds, a batch, bursts on a lattice, and a mix.

    Args:
        seed: Seed of all randomness, at least 0.

    Raises:
        TraceError: The seed is below 0.
    """
    parts = {
        "smooth-day": (
            20.0,
            (Level(400.0), Daily(1600.0), Weekly(0.6)),
        ),
        "crowds": (
            20.0,
            (
                Level(300.0),
                Daily(500.0),
                Crowds(1.5, 2500.0),
                Crowd(at_s=8 * DAY_S + 15 * HOUR_S, rise_s=300.0, height=5000.0, decay_s=3600.0),
            ),
        ),
        "batch": (
            5.0,
            (
                OnOff(period_s=6 * HOUR_S, on_s=40 * 60.0, height=1500.0),
                OnOff(period_s=DAY_S, on_s=2 * HOUR_S, height=2500.0, first_s=2 * HOUR_S),
            ),
        ),
        "lattice": (
            10.0,
            (
                Level(200.0),
                OnOff(period_s=HOUR_S, on_s=300.0, height=1500.0),
                OnOff(period_s=1800.0, on_s=180.0, height=800.0, first_s=900.0),
            ),
        ),
        "mix": (
            50.0,
            (
                Level(300.0),
                Daily(900.0),
                Weekly(0.5),
                Trend(0.02),
                Crowds(0.7, 1800.0),
                OnOff(period_s=4 * HOUR_S, on_s=15 * 60.0, height=900.0),
                Ramp(begin_s=6 * DAY_S, end_s=6 * DAY_S + 3 * HOUR_S, height=400.0),
            ),
        ),
    }
    return tuple(
        generate(
            Recipe(
                seed=seed + number,
                length_s=LENGTH_S,
                dispersion=dispersion,
                parts=made_of,
                name=f"generated-{name}",
            )
        )
        for number, (name, (dispersion, made_of)) in enumerate(parts.items())
    )

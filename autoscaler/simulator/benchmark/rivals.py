"""The peers of the benchmark, each with the one knob that is swept over.

Rules of this file: who takes part, and with which settings; the rules themselves are in `simulator.peers`. A knob's
values are the same on every trace and reach from far too few VMs to far too many, so that every peer can be judged
at its best setting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float
from autoscaler.simulator.benchmark.course import START_S
from autoscaler.simulator.peers.alarms import StepScaling, TargetTracking
from autoscaler.simulator.peers.holding import DelayedOff, Google, StaticPeak
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.peers.peer import Peer, vms_for
from autoscaler.simulator.peers.periodic import SameTimeBefore

UTILISATIONS = (0.05, 0.1, 0.16, 0.24, 0.33, 0.42, 0.5, 0.58, 0.66, 0.74, 0.8, 0.86, 0.92, 0.97, 1.03, 1.1)
"""Share of a VM's capacity to aim at; above 1 where the 1 % of work that may be left is left all the time."""

PEAK_SHARES = (0.02, 0.05, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.05, 1.3, 1.8)
"""VMs of a fleet sized by hand, as a share of what the 99.9 % quantile of demand needs."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One setting per lane.

    Attributes:
        knob: float64 (L,).
        peak_per_s: Work per second that the fleet's size is named after.
    """

    knob: Float
    peak_per_s: float


@dataclass(frozen=True, slots=True)
class Rival:
    """One peer.

    Attributes:
        key: For programs.
        name: For people.
        what: Whose rule it is, in a sentence.
        knob: What is swept over, in words.
        values: Its values.
        make: From the parameters of its lanes and their settings.
        hindsight: Knows what no policy can know: shown, and never the best peer.
    """

    key: str
    name: str
    what: str
    knob: str
    values: tuple[float, ...]
    make: Callable[[LaneParams, Settings], Peer]
    hindsight: bool = False


def _static(params: LaneParams, settings: Settings) -> Peer:
    return StaticPeak(params, vms_for(settings.knob * settings.peak_per_s, params.vm_capacity))


RIVALS: tuple[Rival, ...] = (
    Rival(
        "static", "fixed number", "A fleet sized by hand, the best number in hindsight.",
        "VMs over what the peak needs", PEAK_SHARES, _static,
    ),
    Rival(
        "target_tracking", "AWS target tracking",
        "Out when 3 of 3 one-minute points are above the target, in when 15 of 15 are more than 10% below it.",
        "target utilisation", UTILISATIONS, lambda p, s: TargetTracking(p, utilisation=s.knob),
    ),
    Rival(
        "step_scaling", "AWS step scaling",
        "Steps of +10%, +30%, -10% and -30% after two one-minute points, with the pauses of the user guide.",
        "target utilisation", UTILISATIONS, lambda p, s: StepScaling(p, utilisation=s.knob),
    ),
    Rival(
        "kubernetes", "Kubernetes HPA",
        "In proportion to utilisation, 10% tolerance, at most doubled in 15 s, in to the highest wish of 5 minutes.",
        "target utilisation", UTILISATIONS, lambda p, s: Kubernetes(p, utilisation=s.knob),
    ),
    Rival(
        "google", "Google autoscaler", "What the peak of the last 10 minutes needs.",
        "target utilisation", UTILISATIONS, lambda p, s: Google(p, utilisation=s.knob),
    ),
    Rival(
        "delayed_off", "delayed off",
        "Out at once; in when a VM's idling has cost what a start costs (ski rental).",
        "target utilisation", UTILISATIONS,
        lambda p, s: DelayedOff(p, utilisation=s.knob, break_even_s=max(START_S, p.tick_s)),
    ),
    Rival(
        "yesterday", "same time yesterday", "What the same time of yesterday needed.",
        "target utilisation", UTILISATIONS, lambda p, s: SameTimeBefore(p, utilisation=s.knob, ahead_s=START_S),
    ),
)  # fmt: skip
"""All of them."""

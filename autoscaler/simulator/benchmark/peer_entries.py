"""The peers in the benchmark, each with the one parameter that is swept.

Rules of this file: it lists the peers and their settings. The rules themselves are in `simulator.peers`. The values of a
knob are the same on every trace and range from far too few VMs to far too many, so that every peer can be judged at its best
setting.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from autoscaler.core.params import LaneParams
from autoscaler.core.types import Float
from autoscaler.simulator.benchmark.conditions import START_S, finer
from autoscaler.simulator.benchmark.oracle import ShortOracle
from autoscaler.simulator.peers.alarms import StepScaling, TargetTracking
from autoscaler.simulator.peers.classic import Adapt, Hist, React
from autoscaler.simulator.peers.holding import DelayedOff, Google, StaticPeak
from autoscaler.simulator.peers.knative import Knative
from autoscaler.simulator.peers.kubernetes import Kubernetes
from autoscaler.simulator.peers.lazy import LazyCapacity
from autoscaler.simulator.peers.peer import Peer, vms_for
from autoscaler.simulator.peers.periodic import PeriodicQuantile, PredictiveScaling
from autoscaler.simulator.peers.regression import ConPaaS, Reg

UTILISATIONS = finer(
    (0.05, 0.1, 0.16, 0.24, 0.33, 0.42, 0.5, 0.58, 0.66, 0.74, 0.8, 0.86, 0.92, 0.97, 1.03, 1.1)
)
"""Target shares of a VM's capacity. Values above 1 leave the 1 % of work that may stay unserved unserved all the time."""

PEAK_SHARES = finer(
    (0.05, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.55, 0.65, 0.75, 0.85, 0.95, 1.05, 1.3, 1.8, 5.0)
)
"""Numbers of VMs of a fleet sized by hand, as a share of what the 99.9 % quantile of demand needs."""


SHORTAGE_PRICES = finer(
    (1.1, 1.5, 2.0, 3.0, 4.5, 7.0, 11.0, 17.0, 27.0, 45.0, 75.0, 130.0, 250.0, 600.0, 2000.0, 10000.0)
)
"""Prices of the unserved work of one VM, relative to the price of that VM."""

QUANTILES = finer(
    (0.3, 0.5, 0.6, 0.7, 0.78, 0.85, 0.9, 0.93, 0.95, 0.97, 0.98, 0.99, 0.995, 0.998, 0.999, 1.0)
)
"""Quantiles of the demand that was seen at the same time of day."""

SURE_UTILISATIONS = finer(
    (0.7, 0.8, 0.86, 0.9, 0.93, 0.96, 0.98, 1.0, 1.01, 1.02, 1.04, 1.07, 1.1, 1.15, 1.25, 1.5)
)
"""Like `UTILISATIONS`, for a rule that knows demand in advance."""

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one rule, one per lane.

    Attributes:
        knob: float64 (L,), value of the swept parameter.
        peak_per_s: Work per second at the 99.9 % quantile of demand, after which fleet sizes are named.
        demand: float64 (T,), demand in every tick of the run, for rules with hindsight. Empty for peers.
        first_tick: Number of the run's first tick.
    """

    knob: Float
    peak_per_s: float
    demand: Float
    first_tick: int


@dataclass(frozen=True, slots=True)
class Rival:
    """One peer of the benchmark.

    Attributes:
        key: Key for programs.
        name: Name for people.
        what: The rule in one sentence.
        knob: The swept parameter, as text for people.
        values: Values of the parameter.
        make: Builds the peer from the parameters of its lanes and their settings.
        hindsight: Whether the rule knows what no policy can know. Such a rule is shown, but is never the best peer.
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


def _start_s(params: LaneParams) -> float:
    """Return the cost of a start here, in seconds of a VM: at least one tick, because VMs enter service at ticks."""
    return math.ceil(START_S / params.tick_s - _ROUNDING) * params.tick_s


def _lazy(params: LaneParams, settings: Settings) -> Peer:
    return LazyCapacity(params, shortage_price=settings.knob, start_ticks=_start_s(params) / params.tick_s)


def _oracle(params: LaneParams, settings: Settings) -> Peer:
    start_s = _start_s(params)
    return ShortOracle(
        params,
        settings.demand,
        settings.first_tick,
        utilisation=settings.knob,
        lead_ticks=round(start_s / params.tick_s),
        break_even_s=start_s,
    )


RIVALS: tuple[Rival, ...] = (
    Rival(
        "static", "fixed number", "A fixed number of VMs, the best one in hindsight.",
        "VMs over what the peak needs", PEAK_SHARES, _static,
    ),
    Rival(
        "target_tracking", "AWS target tracking",
        "Scales out when 3 of 3 one-minute points are above the target, in when 15 of 15 are over 10% below it.",
        "target utilisation", UTILISATIONS, lambda p, s: TargetTracking(p, utilisation=s.knob, least=1),
    ),
    Rival(
        "step_scaling", "AWS step scaling",
        "Steps of +10%, +30%, -10% and -30% after two one-minute points, with the pauses given in the user guide.",
        "target utilisation", UTILISATIONS, lambda p, s: StepScaling(p, utilisation=s.knob, least=1),
    ),
    Rival(
        "predictive_scaling", "AWS predictive scaling",
        "Target tracking above an hourly forecast (a proxy: the mean of the same hour of up to 14 days).",
        "target utilisation", UTILISATIONS, lambda p, s: PredictiveScaling(p, utilisation=s.knob, least=1),
    ),
    Rival(
        "kubernetes", "Kubernetes HPA",
        "Scales in proportion to work, with 10% tolerance: out in 15 s to at most double or 4 more, whichever is more, in to the highest wish of 5 minutes.",
        "target utilisation", UTILISATIONS, lambda p, s: Kubernetes(p, utilisation=s.knob, external=True),
    ),
    Rival(
        "knative", "Knative KPA",
        "Follows the mean of a minute, or in a panic of 6 s; these are equal if ticks are a minute or longer.",
        "target utilisation", UTILISATIONS, lambda p, s: Knative(p, utilisation=s.knob),
    ),
    Rival(
        "google", "Google autoscaler", "As many VMs as the peak of the last 10 minutes needs.",
        "target utilisation", UTILISATIONS, lambda p, s: Google(p, utilisation=s.knob),
    ),
    Rival(
        "delayed_off", "delayed off",
        "Scales out at once; stops a VM when its idle time has cost as much as a start (ski rental).",
        "target utilisation", UTILISATIONS,
        lambda p, s: DelayedOff(p, utilisation=s.knob, break_even_s=_start_s(p)),
    ),
    Rival(
        "lazy_capacity", "lazy capacity (LCP)",
        "Keeps each VM between two optima in hindsight, and moves only when it must.",
        "price of shortage", SHORTAGE_PRICES, _lazy,
    ),
    Rival(
        "react", "React", "Thresholds with margins of 10% and 20%.",
        "utilisation counted on", UTILISATIONS, lambda p, s: React(p, utilisation=s.knob),
    ),
    Rival(
        "adapt", "Adapt", "An integrating controller that scales in four times as slowly as out.",
        "utilisation counted on", UTILISATIONS, lambda p, s: Adapt(p, utilisation=s.knob),
    ),
    Rival(
        "hist", "Hist", "A quantile of need for each hour of the day, corrected by recent errors.",
        "utilisation counted on", UTILISATIONS, lambda p, s: Hist(p, utilisation=s.knob),
    ),
    Rival(
        "reg", "Reg", "Scales out by need, in by a parabola through the last 60 needs.",
        "utilisation counted on", UTILISATIONS, lambda p, s: Reg(p, utilisation=s.knob),
    ),
    Rival(
        "conpaas", "ConPaaS", "An autoregression on the last 20 loads, 20 steps ahead.",
        "utilisation counted on", UTILISATIONS, lambda p, s: ConPaaS(p, utilisation=s.knob),
    ),
    Rival(
        "periodic_quantile", "periodic quantile",
        "A quantile of demand at this time of the day, after RobustScaler.",
        "quantile", QUANTILES, lambda p, s: PeriodicQuantile(p, level=s.knob, ahead_s=START_S),
    ),
    Rival(
        "short_oracle", "oracle of the lead time",
        "Knows demand until a start ordered now serves, and stops a VM when its idle time has cost as much as a start.",
        "utilisation counted on", SURE_UTILISATIONS, _oracle, hindsight=True,
    ),
)  # fmt: skip
"""All peers, and the oracle, in the order in which they are shown."""

PEERS: tuple[str, ...] = tuple(rival.key for rival in RIVALS if not rival.hindsight)
"""Keys of the peers that know no more than a policy does."""

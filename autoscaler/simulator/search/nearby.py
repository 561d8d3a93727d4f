"""Default candidates: values near the policy's own for the fields that influence cost most.

Rules of this file: only fields of sections that the policy has are varied. Each value is one that the policy's models allow.
A policy's own values are always among them.
"""

from __future__ import annotations

from collections.abc import Iterable

from autoscaler.config.policy import Policy
from autoscaler.config.quantities import DURATION, PERCENT
from autoscaler.errors import ConfigError
from autoscaler.simulator.search.variants import Axis

_HEADROOMS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
_TIMES = (1 / 3, 1.0, 3.0)
_LEAST_HEADROOM = 0.1
_LEAST_TIME_S = 60.0
_LONGEST_S = 86_400.0
_ENOUGH = 3
_COVERS = (0.5, 0.9, 0.95, 0.99)


def at_edge(tried: Iterable[object], taken: object) -> str:
    """Return `lowest` or `highest` if the chosen value is at that edge of three or more values tried; otherwise empty.

    At an edge, a better value may lie beyond. Zero is a natural limit, not an edge.
    """
    numbers = {_number(each) for each in tried}
    own = _number(taken)
    if None in numbers or len(numbers) < _ENOUGH or not own:
        return ""
    known = [each for each in numbers if each is not None]
    return "lowest" if own == min(known) else "highest" if own == max(known) else ""


def _number(written: object) -> float | None:
    for unit in (PERCENT, DURATION):
        try:
            return float(unit.read(written))
        except ValueError:
            continue
    try:
        return float(str(written))
    except ValueError:
        return None


def nearby(policy: Policy) -> tuple[Axis, ...]:
    """Return axes with values around those of a policy.

    Raises:
        ConfigError: The policy has no field that is varied here.
    """
    axes = []
    if policy.reactive:
        own = policy.reactive.headroom
        around = sorted({own, *(round(max(own, _LEAST_HEADROOM) * factor, 3) for factor in _HEADROOMS)})
        axes.append(Axis("reactive.headroom", tuple(PERCENT.write(min(each, 10.0)) for each in around)))
    if policy.forecast:
        covers = sorted({policy.forecast.cover, *_COVERS})
        axes.append(Axis("forecast.cover", tuple(PERCENT.write(each) for each in covers)))
    if not axes and policy.objective:
        example = "served=99%,99.5%,99.9%" if policy.objective.served else "shortage_price=2/h,5/h,10/h,20/h"
        raise ConfigError(
            f"policy {policy.fleet} has an objective, and no headroom or cover to improve; to see what other objectives would cost, vary it: --vary objective.{example}"
        )
    if not axes:
        raise ConfigError(
            f"policy {policy.fleet} neither follows demand nor forecasts it, so say what to vary, for example "
            "--vary steps.0.change=+1,+2"
        )
    # VMs must not be stopped on measurements taken before the VMs that were started serve.
    least_s = 0.0 if policy.objective else policy.vm.start_time_s
    for path, own_s, least in (
        ("guards.stabilisation", policy.guards.stabilisation_s, 0.0),
        ("guards.cooldown_in", policy.guards.cooldown_in_s, least_s),
    ):
        times = (min(round(max(own_s, _LEAST_TIME_S) * factor), _LONGEST_S) for factor in _TIMES)
        around = sorted({own_s, *(max(each, least) for each in times)})
        axes.append(Axis(path, tuple(DURATION.write(float(each)) for each in around)))
    return tuple(axes)

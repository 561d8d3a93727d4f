"""Compiles objectives and prices for core, in VM-ticks: the price of one VM in service for one tick.

Rules of this file: only ratios of prices leave it, so that the currency does not matter, nor does doubling all prices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np

from autoscaler.config.objective import FIRST_GUESS
from autoscaler.config.policy import Policy
from autoscaler.config.section import DAY_S, HOUR_S, whole_ticks
from autoscaler.core.types import Bool, Float, Int

BILLING_FLOOR_S = 60.0
"""Every start is billed for at least this long, seconds."""
SHORTEST_REFILL_S, LONGEST_REFILL_S = HOUR_S, DAY_S
"""Bounds of how far the warm pool looks ahead, seconds."""
_HOLD_S = 300.0
_FREE = 1e-12


class EconomicParams(TypedDict):
    """The fields of `LaneParams` for the economic stage."""

    economic: Bool
    shortage_price: Float
    unserved_target: Float
    start_cost: Float
    lead_ticks: Int
    hold_ticks: Int
    billed_ticks: Int
    start_success: Float
    stopped_cost: Float
    provision_cost: Float
    cold_ticks: Float
    hibernate: Bool
    sooner_ticks: Float
    unbilled_ticks: Float
    saving_cost: Float
    memory_cost: Float


def economic_params(policies: Sequence[Policy], tick_s: float) -> EconomicParams:
    """Return the economic parameters of lanes, one lane per policy; policies without an objective get harmless values."""

    def floats(read: Callable[[Policy], float]) -> Float:
        return np.array([read(policy) for policy in policies], np.float64)

    def ints(read: Callable[[Policy], int]) -> Int:
        return np.array([read(policy) for policy in policies], np.int64)

    return EconomicParams(
        economic=np.array([policy.objective is not None for policy in policies], np.bool_),
        shortage_price=floats(shortage_price),
        unserved_target=floats(unserved_target),
        start_cost=floats(lambda policy: start_price_s(policy, tick_s) / tick_s),
        lead_ticks=ints(lambda policy: whole_ticks(policy.vm.start_time_s, tick_s)),
        hold_ticks=ints(lambda policy: whole_ticks(hold_s(policy), tick_s)),
        billed_ticks=ints(
            lambda policy: whole_ticks(max(policy.guards.minimum_on_time_s, BILLING_FLOOR_S), tick_s)
        ),
        start_success=np.ones(len(policies)),
        stopped_cost=floats(stopped_share),
        provision_cost=floats(lambda policy: provision_price_s(policy) / tick_s),
        cold_ticks=floats(lambda policy: cold_s(policy) / tick_s),
        hibernate=np.array([policy.warm_pool.hibernate is not None for policy in policies], np.bool_),
        sooner_ticks=floats(hibernation_saving_s) / tick_s,
        unbilled_ticks=unbilled_s(policies, floats(hibernation_saving_s)) / tick_s,
        saving_cost=floats(saving_s) / tick_s,
        memory_cost=floats(lambda policy: memory_share(policy) * whole_ticks(refill_s(policy), tick_s)),
    )


def objective_in_words(policy: Policy) -> str:
    """Return the fleet's objective as a sentence, with its costs in seconds of one VM in service; empty without an objective."""
    objective = policy.objective
    if objective is None:
        return ""
    price, served = shortage_price(policy), objective.served
    aim = (
        f"an hour of unserved work of one VM costs as much as {price:,.4g} VM-hours"
        if served is None
        else f"of 1,000 VM-hours of work {1000.0 * unserved_target(policy):.3g} may find no VM"
    )
    start_s, made_s, stopped = start_price_s(policy, 1.0), provision_price_s(policy), stopped_share(policy)
    parts = [aim, f"a start costs {start_s:,.4g} VM-seconds"]
    if stopped > 0:
        parts.append(f"a stopped VM costs a VM-second every {1.0 / stopped:,.3g} s")
    if made_s > 0:
        parts.append(f"one made from nothing {made_s:,.4g} VM-seconds")
    if policy.warm_pool.hibernate is not None:
        held = f" and holding it {60.0 * memory_share(policy):,.3g} a minute" if memory_share(policy) else ""
        parts.append(f"saving a memory {saving_s(policy):,.4g} VM-seconds{held}")
    return f"{policy.fleet}: {', '.join(parts)}"


def shortage_price(policy: Policy) -> float:
    """Return the price of shortage in prices of a VM in service.

    With a served share it is only a first guess, which feedback corrects. Without an objective it is 1.
    """
    objective = policy.objective
    if objective is None:
        return 1.0
    if objective.shortage_price_per_h is not None:
        return objective.shortage_price_per_h / max(policy.prices.in_service_per_h, _FREE)
    return FIRST_GUESS / (1.0 - (objective.served or 0.0))


def unserved_target(policy: Policy) -> float:
    """Return the share of work that may stay unserved; 0 if the objective is a price."""
    objective = policy.objective
    return 0.0 if objective is None or objective.served is None else 1.0 - objective.served


def start_price_s(policy: Policy, tick_s: float) -> float:
    """Return the cost of a start in seconds of a VM in service: the time billed before the first tick that it serves, plus `prices.start`.

    A VM that becomes ready within a tick is billed for the rest of that tick too, but was not started for its demand.
    """
    prices, start_s = policy.prices, policy.vm.start_time_s
    billed_s = start_s if prices.start_billed_s is None else min(prices.start_billed_s, start_s)
    return whole_ticks(start_s, tick_s) * tick_s - (start_s - billed_s) + _seconds_for(policy, prices.start)


def provision_price_s(policy: Policy) -> float:
    """Return the cost of making a VM from nothing, without its start, in seconds of a VM in service."""
    return _seconds_for(policy, policy.prices.provision)


def stopped_share(policy: Policy) -> float:
    """Return the price of a stopped VM as a share of the price of a VM in service."""
    prices = policy.prices
    return prices.stopped_per_h / prices.in_service_per_h if prices.in_service_per_h > 0 else 0.0


def hibernation_saving_s(policy: Policy) -> float:
    """Return how much sooner a hibernated VM serves than a stopped one, by the policy, in seconds; NaN if the policy does not say."""
    section = policy.warm_pool.hibernate
    if section is None or section.start_time_s is None:
        return math.nan
    return policy.vm.start_time_s - section.start_time_s


def unbilled_s(policies: Sequence[Policy], sooner: Float) -> Float:
    """Return how much of the time that hibernated VMs save would be billed if they started from stopped: float64 (L,), seconds.

    Args:
        policies: L policies.
        sooner: float64 (L,), seconds by which hibernated VMs serve sooner; NaN if not known.
    """
    billed = np.array(
        [
            1.0 if (billed_s := policy.prices.start_billed_s) is None
            else min(billed_s / policy.vm.start_time_s, 1.0)
            for policy in policies
        ]
    )  # fmt: skip
    found: Float = billed * np.fmax(sooner, 0.0)
    return found


def saving_s(policy: Policy) -> float:
    """Return the cost of saving one memory, in seconds of a VM in service."""
    section = policy.warm_pool.hibernate
    return 0.0 if section is None else section.save_time_s


def memory_share(policy: Policy) -> float:
    """Return the price of a saved memory as a share of the price of a VM in service."""
    prices = policy.prices
    return prices.memory_per_h / prices.in_service_per_h if prices.in_service_per_h > 0 else 0.0


def hold_s(policy: Policy) -> float:
    """Return how long a started VM is expected to be of use, seconds."""
    return max(_HOLD_S, 2.0 * (policy.vm.start_time_s + policy.vm.stop_time_s))


def cold_s(policy: Policy) -> float:
    """Return how much later a VM made from nothing serves than a stopped one, seconds; 0 without an objective."""
    if policy.objective is None:
        return 0.0
    return max(policy.objective.provision_time_s - policy.vm.start_time_s, 0.0)


def refill_s(policy: Policy) -> float:
    """Return how far the warm pool looks ahead, seconds: until a stopped VM has cost as much as making a new one, within bounds.

    A saved memory is held until its VM is started, however long that takes, so fleets that hibernate look as far as the upper bound.
    """
    if policy.warm_pool.hibernate is not None:
        return LONGEST_REFILL_S
    stopped, made = stopped_share(policy), provision_price_s(policy)
    break_even_s = made / stopped if stopped > 0 else LONGEST_REFILL_S
    return min(max(break_even_s, SHORTEST_REFILL_S), LONGEST_REFILL_S)


def _seconds_for(policy: Policy, money: float) -> float:
    price = policy.prices.in_service_per_h
    return money / price * HOUR_S if price > 0 else 0.0

"""Compiles groups of fleets to the arrays of their shared limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from autoscaler.config.policy import Policy
from autoscaler.core.types import Float, Int


class SharedParams(TypedDict):
    """The fields of `LaneParams` for limits that fleets share."""

    group: Int
    group_vms: Float
    group_money: Float
    group_starts: Float
    group_period_s: Float
    vm_price: Float


def shared_params(policies: Sequence[Policy]) -> SharedParams:
    """Compile the groups of these policies.

    Fleets in shadow form groups of their own, so that VMs they would have use up no limit of the fleets that act.
    """
    groups = [policy.group for policy in policies]
    numbers: dict[object, int] = {}
    group = [
        -1 if limits is None else numbers.setdefault((limits, policy.act), len(numbers))
        for policy, limits in zip(policies, groups, strict=True)
    ]
    starts = [None if limits is None else limits.most_starts for limits in groups]
    return SharedParams(
        group=np.array(group, np.int64),
        group_vms=_limits([None if limits is None else limits.most_vms for limits in groups]),
        group_money=_limits([None if limits is None else limits.most_money_per_h for limits in groups]),
        group_starts=_limits([None if limit is None else limit.vms for limit in starts]),
        group_period_s=np.array([60.0 if limit is None else limit.per_s for limit in starts]),
        vm_price=np.array([policy.prices.in_service_per_h for policy in policies], np.float64),
    )


def _limits(most: Sequence[float | None]) -> Float:
    return np.array([np.inf if limit is None else limit for limit in most], np.float64)

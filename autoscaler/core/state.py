"""The state that `decide` keeps between ticks: arrays over lanes, allocated once, updated in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from autoscaler.core.allocation import SharedState
from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.pricing import Budget
from autoscaler.core.params import LaneParams
from autoscaler.core.state_base import Remembered
from autoscaler.core.trust_state import TrustState
from autoscaler.core.types import MOST_VMS, Float, Int
from autoscaler.core.warm.starting import Starting
from autoscaler.core.warm.waits import WarmPool
from autoscaler.core.windows import RollingMax

if TYPE_CHECKING:
    from autoscaler.core.decide import Chain

_LONG_AGO_S = -1e18


@dataclass(slots=True)
class LaneState(Remembered):
    """What `decide` remembers of L lanes.

    Attributes:
        wishes: Rolling maximum of wishes (stabilisation).
        peaks: Rolling maximum of desired (warm pool).
        trusted: What the data guard remembers of good data.
        trial: The competing models, for lanes with an objective.
        budget: The price of shortage, for lanes with an objective.
        warm_pool: How often the number of wanted VMs rises, for lanes with an objective.
        starting: How busy VMs were while others started, for lanes with an objective whose VMs may hibernate.
        shared: State of the limits that groups of lanes share.
        last_out_s: float64 (L,), time of the last scale-out order.
        last_in_s: float64 (L,), time of the last scale-in.
        last_starting_s: float64 (L,), time of the last tick in which an ordered VM was not yet in service.
        tokens_out, tokens_in: float64 (L,), VMs that the rate limits still allow.
        refilled_s: When the tokens were last refilled.
        chain: The policies as `decide` last compiled them; not part of a dump.
        spent_out, spent_in: int64 (n,), lanes whose bucket is not full; a lane may occur more than once. None if not known;
            not part of a dump.
        spent_by: The rule that maintains `spent_out` and `spent_in`; not part of a dump.
    """

    version: ClassVar[int] = 6
    wishes: RollingMax
    peaks: RollingMax
    trusted: TrustState
    trial: Trial
    budget: Budget
    warm_pool: WarmPool
    starting: Starting
    shared: SharedState
    last_out_s: Float
    last_in_s: Float
    last_starting_s: Float
    tokens_out: Float
    tokens_in: Float
    refilled_s: float
    chain: Chain | None = field(init=False, default=None, compare=False, repr=False)
    spent_out: Int | None = field(init=False, default=None, compare=False, repr=False)
    spent_in: Int | None = field(init=False, default=None, compare=False, repr=False)
    spent_by: object = field(init=False, default=None, compare=False, repr=False)

    @classmethod
    def empty(cls, params: LaneParams) -> LaneState:
        """A state without history: full token buckets, no cooldown running."""
        lanes = len(params.series)
        tokens_out, tokens_in = full_buckets(params)
        return cls(
            wishes=RollingMax.empty(params.stabilisation_ticks),
            peaks=RollingMax.empty(params.warm_memory_ticks),
            trusted=TrustState.empty(lanes),
            trial=Trial.empty(params),
            budget=Budget.empty(params),
            warm_pool=WarmPool.empty(params),
            starting=Starting.empty(params),
            shared=SharedState.empty(params),
            last_out_s=np.full(lanes, _LONG_AGO_S),
            last_in_s=np.full(lanes, _LONG_AGO_S),
            last_starting_s=np.full(lanes, _LONG_AGO_S),
            tokens_out=tokens_out,
            tokens_in=tokens_in,
            refilled_s=_LONG_AGO_S,
        )

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {
            "wishes": RollingMax,
            "peaks": RollingMax,
            "trusted": TrustState,
            "trial": Trial,
            "budget": Budget,
            "warm_pool": WarmPool,
            "starting": Starting,
            "shared": SharedState,
        }

    def carried_over(self, after: LaneParams, lanes: Int) -> LaneState:
        """Return the state for other lanes, each new or continuing a lane of this state, which is not changed.

        Args:
            after: The parameters of the N other lanes.
            lanes: int64 (N,), the lane of this state that each lane continues; -1 for a new lane without history.
        """
        new = LaneState.empty(after)
        known = lanes >= 0
        was = lanes[known]
        new.wishes = self.wishes.carried_over(after.stabilisation_ticks, lanes)
        new.peaks = self.peaks.carried_over(after.warm_memory_ticks, lanes)
        new.trusted = self.trusted.carried_over(lanes)
        new.trial = self.trial.carried_over(after, lanes)
        new.budget = self.budget.carried_over(after, lanes)
        new.warm_pool = self.warm_pool.carried_over(after, lanes)
        new.starting = self.starting.carried_over(after, lanes)
        new.shared = self.shared.carried_over(after, lanes)
        for name in ("last_out_s", "last_in_s", "last_starting_s", "tokens_out", "tokens_in"):
            getattr(new, name)[known] = getattr(self, name)[was]
        new.refilled_s = self.refilled_s
        # A bucket that has become smaller holds at most its new size.
        full_out, full_in = full_buckets(after)
        new.tokens_out = np.minimum(new.tokens_out, full_out)
        new.tokens_in = np.minimum(new.tokens_in, full_in)
        return new

    def take_in(self, lanes: Int, other: LaneState) -> None:
        """Replace what some lanes have learned by what another state has learned, for the same parameters and tick.

        That covers the desired numbers, model costs, prices and the warm pool. What guards remember of orders stays, because
        those orders were real.

        Args:
            lanes: int64 (N,), lanes, the same in both states.
            other: The other state; must not be used afterwards.

        Raises:
            ValueError: The other state has other parameters or is at another tick; this state is then unusable, too.
        """
        self.peaks.take_in(lanes, other.peaks, lanes)
        self.trial.take_in(lanes, other.trial)
        self.budget.take_in(lanes, other.budget)
        self.warm_pool.take_in(lanes, other.warm_pool)
        self.starting.take_in(lanes, other.starting)


def full_buckets(params: LaneParams) -> tuple[Float, Float]:
    """Token counts of full buckets, out and in: float64 (L,) each. No limit counts as more tokens than there can be VMs."""
    return np.minimum(params.rate_out_vms, float(MOST_VMS)), np.minimum(params.rate_in_vms, float(MOST_VMS))

"""Who may drive while little has been seen: only the careful model, until others have shown enough.

On a fleet's first day, most of what can happen has not been seen yet, so what a model would cost in it (`competition`) is a guess.
Insuring against all of it at a high price of shortage costs more than a careful person would pay, who sizes the fleet by demand.
The model `CAREFUL` stands for that person. It drives from the beginning. For some days another model may drive only

- while it has not cost more so far, on the actual demand, than the careful model would have, and
- while all models that drove have together not cost more,

apart from a premium. This is the budget of conservative bandits (Wu, Shariff, Lattimore and Szepesvari, 2016): at any time, an
explorer must have nearly all that the known way would have earned. Models that save early earn what they may spend later. Among
the models that may drive, the one drives that is cheapest including what was never seen.

Rules of this file: element-wise. A relived past (`past_replay`) counts as seen.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.objective.competition_state import Trial
from autoscaler.core.objective.models import CAREFUL
from autoscaler.core.types import Bool, Float, Int

KNOWN_DAYS = 3.0
"""After this many days every usual pattern has been seen more than twice, and nothing has to be proven any more."""
PREMIUM = 0.05
"""Until then the fleet may cost this much more than under the careful model, as a share of that model's cost."""
AGAIN = 0.5
"""Once the premium is spent, the careful model drives until only this share of it is spent."""


def unproven(state: Trial, actual: Float, least: float, young: Bool) -> Bool:
    """Return which models may not drive: bool (M, n). The careful model always may.

    Args:
        state: Holds what the driving models have spent so far.
        actual: float64 (M, n), each model's cost on the actual demand, in VM-ticks.
        least: VM-ticks, in present weight, that are always allowed, so that a few early ticks decide nothing.
        young: bool (n,), whether models must still prove themselves.
    """
    careful = actual[CAREFUL]
    premium = PREMIUM * careful + least * state.weight
    spent = state.spent + actual[state.driver, np.arange(len(careful))] - careful
    too_much = spent > premium * np.where(state.driver == CAREFUL, AGAIN, 1.0)
    most = np.where(young, np.where(too_much, -np.inf, careful + premium), np.inf)
    found: Bool = actual > most
    found[CAREFUL] = False
    return found


def change_driver(state: Trial, driver: Int, shortage: Float) -> None:
    """Make other models drive from now on, and add what the previous drivers spent while they drove to `spent`.

    Args:
        state: Updated in place.
        driver: int64 (n,), the new drivers.
        shortage: float64 (n,), price of a VM-tick of unserved work, in VM-ticks.
    """
    columns = np.arange(len(driver))
    before, after = (
        state.paid[model, columns] + shortage * state.unserved[model, columns]
        for model in (state.driver, driver)
    )
    state.spent = state.spent + before - after
    state.driver = driver

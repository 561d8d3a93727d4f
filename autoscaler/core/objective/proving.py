"""Who may drive while little was seen: nobody but the careful model, until others have shown enough.

What has not been seen yet is most of what there is on a fleet's first day, so what a model would cost in it (`experts`) is a guess,
and insuring all of it at a high price of shortage costs more than a careful person would pay who sizes a fleet by demand. That
person is the model `CAREFUL`. It drives from the beginning, and for some days another may only

- while that one has not cost more so far, by what demand really was, than the careful one would have, and
- while all that drove together have not,

but for a premium. This is the budget of conservative bandits (Wu, Shariff, Lattimore and Szepesvari, 2016): whoever explores must at any
time have all but a small share of what the known way would have. Models that save early earn what they may spend later. Among
those that may drive the one drives that is cheapest with all that was never seen.

Nor may a model drive that holds what is worth its price once in so many ticks as were not seen yet three times: an odds that small
cannot be told from what was seen, however good such a model looked meanwhile. That is the rule of three (Hanley and Lippman-Hand, 1983:
what never came in n ticks comes, at 95 %, in fewer than 3 / n of them).

Rules of this file: element-wise. A past that was lived again (`living`) counts as seen.
"""

from __future__ import annotations

import numpy as np

from autoscaler.core.objective.models import CAREFUL, MODELS, PRICE_FACTORS, Kind, rows_of
from autoscaler.core.objective.trial import Trial
from autoscaler.core.types import Bool, Float, Int

KNOWN_DAYS = 3.0
"""After so many days what is usual has been seen twice and again, and nothing has to be proven any more."""
PREMIUM = 0.05
"""So much more than the careful model would have cost may be paid until then, as a share of that."""
AGAIN = 0.5
"""Once that is spent the careful model drives, until no more than this share of it is."""

THREE = 3.0
"""So many times as many ticks must have been seen as one of them is to be told from the others."""
_BY_ODDS = (Kind.WORTH, Kind.USUAL, Kind.HOUR)
ODDS = slice(min(rows_of(kind).start for kind in _BY_ODDS), max(rows_of(kind).stop for kind in _BY_ODDS))
"""The places of the models that read odds."""
UNTOLD = np.array([PRICE_FACTORS[model.knob] if model.kind in _BY_ODDS else 0.0 for model in MODELS[ODDS]])
"""For each of them, in how many ticks one must be told from the others at a price of 1, (m,); 0 where no odds are read."""

_MOST_UNTOLD = UNTOLD.max()


def untold(seen: Float, shortage: Float, given: Bool) -> Bool | None:
    """Which of the models that read odds read smaller ones than can be told from what was seen: bool (m, n); None where none does.

    Args:
        seen: float64 (n,), ticks.
        shortage: float64 (n,), the price of shortage, in VM-ticks per VM-tick.
        given: bool (n,), whose price is given; where it is found, it was found by what all models leave.
    """
    needed = THREE * shortage * given
    if not np.count_nonzero(needed * _MOST_UNTOLD > seen):
        return None
    found: Bool = UNTOLD[:, np.newaxis] * needed > seen
    return found


def unproven(state: Trial, shown: Float, least: float, young: Bool) -> Bool:
    """Which models may not drive: bool (M, n); the careful one always may.

    Args:
        state: What those that drove have spent.
        shown: float64 (M, n), what models have cost by what demand was.
        least: VM-ticks as of now that are always allowed, so that a few early ticks decide nothing.
        young: bool (n,), where models must have proven themselves.
    """
    careful = shown[CAREFUL]
    premium = PREMIUM * careful + least * state.weight
    spent = state.spent + shown[state.driver, np.arange(len(careful))] - careful
    too_much = spent > premium * np.where(state.driver == CAREFUL, AGAIN, 1.0)
    most = np.where(young, np.where(too_much, -np.inf, careful + premium), np.inf)
    found: Bool = shown > most
    found[CAREFUL] = False
    return found


def change_driver(state: Trial, driver: Int, shortage: Float) -> None:
    """Have other models drive from now on, keeping count of what those that drove have cost while they did.

    Args:
        state: Updated in place.
        driver: int64 (n,), which.
        shortage: float64 (n,), the price of shortage.
    """
    columns = np.arange(len(driver))
    before, after = (
        state.paid[who, columns] + shortage * state.unserved[who, columns] for who in (state.driver, driver)
    )
    state.spent = state.spent + before - after
    state.driver = driver

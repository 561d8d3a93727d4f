"""The linear program for minimum billing times: used by `clairvoyant` if levels are not separable.

Variables, each (T,): VMs x, starts s, whole VMs missing a, the part of a VM missing b, VMs beyond those that exist y.

    x_t - x_(t-1) <= s_t        the starts of the last M ticks <= x_t        x_t + a_t + b_t >= ceil(d_t), b_t <= 1
    x_t - y_t <= VMs that exist

b, the part of a VM by which demand exceeds a whole number, is the cheaper piece of the loss, so it is used first.
Each row has its ones next to each other in time (an interval matrix), so corners are whole numbers; this is checked.

Rules of this file: like `clairvoyant`, it is given the whole future, and nothing that decides may import it.
SciPy, which has the solver (HiGHS; Huangfu and Hall 2018), is imported only when it is needed.
"""

from __future__ import annotations

import math

import numpy as np

from autoscaler.core.types import Float, Int
from autoscaler.errors import ConfigError

_ROUNDING = 1e-9
_WHOLE = 1e-6


def least_cost_program(
    wanted: Float,
    *,
    running: float,
    disk: float = 0.0,
    exist: int = 0,
    start: float,
    lost: float,
    least_ticks: int,
    lead_ticks: int,
    initial: int,
    minimum: int,
    ceiling: int,
) -> tuple[Int, bool]:
    """Return the schedule of least cost, and whether the program's solution was in whole VMs.

    Args:
        wanted: float64 (T,), demand in VMs.
        running: Money per VM and tick.
        disk: Additional money per VM and tick for VMs beyond those that exist.
        exist: Number of VMs that exist.
        start: Money per start.
        lost: Money per VM missing for a tick; infinite if everything must be served that can be.
        least_ticks: Fewest ticks that a started VM stays.
        lead_ticks: The first tick at which a started VM can serve.
        initial: VMs before the first tick.
        minimum: Fewest VMs allowed.
        ceiling: Most VMs allowed.

    Raises:
        ConfigError: SciPy is not installed.
        ValueError: The program has no solution.
    """
    try:
        from scipy.optimize import linprog
        from scipy.sparse import bmat, diags_array, eye_array
    except ImportError as error:
        raise ConfigError(
            "the optimum under a minimum billing needs SciPy, which is not installed: install the extra with"
            ' pip install "vm-autoscaler[sim]"'
        ) from error
    ticks, least = len(wanted), min(max(least_ticks, 1), len(wanted))
    early = np.arange(ticks) < lead_ticks
    need = np.maximum(np.ceil(wanted - _ROUNDING), 0.0)
    part = np.where(need > 0, wanted - (need - 1.0), 0.0)
    most_missing = np.full(ticks, np.inf)
    if math.isinf(lost):
        # What can be served must be served; only the rest may be missing, and costs nothing.
        lost, most_missing = 0.0, np.maximum(need - np.where(early, min(initial, ceiling), ceiling), 0.0)
    one, none = eye_array(ticks), None
    step = one - diags_array([np.ones(ticks - 1)], offsets=[-1], shape=(ticks, ticks))
    recent = diags_array(
        [np.ones(ticks - back) for back in range(least)],
        offsets=[-back for back in range(least)],
        shape=(ticks, ticks),
    )
    rows = bmat(
        [
            [step, -one, none, none, none],
            [-one, recent, none, none, none],
            [-one, none, -one, -one, none],
            [one, none, none, none, -one],
        ],
        format="csr",
    )
    first_step = np.zeros(ticks)
    first_step[0] = initial
    lowest = np.where(early, min(minimum, initial), minimum)
    bounds = [
        (lowest, np.full(ticks, float(ceiling))),
        (np.zeros(ticks), np.where(early, 0.0, np.inf)),
        (np.zeros(ticks), np.maximum(most_missing - 1.0, 0.0)),
        (np.zeros(ticks), np.minimum(most_missing, 1.0)),
        (np.zeros(ticks), np.full(ticks, np.inf)),
    ]
    prices = (
        np.full(ticks, running),
        np.full(ticks, start),
        np.full(ticks, lost),
        lost * part,
        np.full(ticks, disk),
    )
    found = linprog(
        c=np.concatenate(prices),
        A_ub=rows,
        b_ub=np.concatenate((first_step, np.zeros(ticks), -need, np.full(ticks, float(exist)))),
        bounds=np.concatenate([np.column_stack(pair) for pair in bounds]),
        method="highs",
    )
    if found.x is None:
        raise ValueError(f"the linear program was not solved: {found.message}")
    vms = np.rint(found.x[:ticks]).astype(np.int64)
    return vms, bool((np.abs(found.x[:ticks] - vms) < _WHOLE).all())

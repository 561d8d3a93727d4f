"""The variants of a sweep for the page: parameters, figures, and which variant is in force.

The results of a sweep have this form in `report.json`, under the key `sweep`:

    parameters   names, as dotted paths
    figures      [{key, label, unit}], what the heat map can show
    cost         key of the figure on the horizontal axis of cost against shortage
    shortage     key of the figure on its vertical axis
    rows         [{parameters: {name: value}, values: {key: number or null}, current: bool}]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import InvariantError
from autoscaler.simulator.judging.score import FIGURES
from autoscaler.simulator.report.wording import Unit


def variants_json(
    parameters: Mapping[str, Sequence[Any]],
    values: Mapping[str, NDArray[np.float64]],
    *,
    cost: str = "cost",
    shortage: str = "shortage_s",
    current: int | None = None,
) -> dict[str, Any]:
    """Return a sweep in the form of `report.json`.

    Args:
        parameters: By parameter, its value in each of V variants.
        values: By figure, float64 (V,), NaN where unknown. `cost` and `shortage` must be among them.
        cost: Key of the cost figure.
        shortage: Key of the shortage figure.
        current: Index of the variant that is the policy in force.

    Raises:
        InvariantError: The columns differ in length, or a figure is missing.
    """
    lengths = {len(column) for column in parameters.values()} | {len(column) for column in values.values()}
    if len(lengths) != 1 or not {cost, shortage} <= values.keys():
        raise InvariantError(
            f"a sweep needs columns of one length and the figures {cost} and {shortage}, not lengths "
            f"{sorted(lengths)} and figures {sorted(values)}"
        )
    known = {figure.key: figure for figure in FIGURES}
    return {
        "parameters": list(parameters),
        "figures": [
            {
                "key": key,
                "label": known[key].label if key in known else key,
                "unit": str(known[key].unit if key in known else Unit.NUMBER),
            }
            for key in values
        ],
        "cost": cost,
        "shortage": shortage,
        "rows": [
            {
                "parameters": {name: column[index] for name, column in parameters.items()},
                "values": {key: _known(float(column[index])) for key, column in values.items()},
                "current": index == current,
            }
            for index in range(lengths.pop())
        ],
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None

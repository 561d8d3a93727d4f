"""The grid on which predictive laws are kept, for those who make laws and those who read them."""

from __future__ import annotations

import numpy as np

from autoscaler.core.types import LAW_BINS, LAW_CORE, LAW_HIGH, LAW_LOW, Float

_FIRST = float(np.arcsinh(LAW_LOW / LAW_CORE))
_STEP = (float(np.arcsinh(LAW_HIGH / LAW_CORE)) - _FIRST) / LAW_BINS

LAW_EDGES: Float = LAW_CORE * np.sinh(_FIRST + _STEP * np.arange(LAW_BINS + 1))
"""float64 (LAW_BINS + 1,), edges in the logarithm of (outcome + scale) / (level + scale), ascending."""
LAW_EDGES.flags.writeable = False


def law_place(log_ratio: Float) -> Float:
    """Where on the grid a logarithm of (outcome + scale) / (level + scale) lies, in bins, any shape: edge b is at b."""
    place = log_ratio / LAW_CORE
    np.arcsinh(place, out=place)
    place -= _FIRST
    place /= _STEP
    return place

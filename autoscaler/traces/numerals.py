"""Parses numbers from text, with a decimal point or, on request, a decimal comma.

Parsing is strict, because `1.234` is a thousand times more to one writer than to another. Thousands separators are refused
in either form, and only the chosen sign separates decimals.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoscaler.errors import TraceError
from autoscaler.traces.trace import Float, RowError

DECIMALS = (".", ",")
"""Signs that may separate decimals."""
NOTHING = frozenset({"", "nan", "null", "none", "undefined", "n/a", "-"})
"""Texts with which exports mark a cell without a value, in lower case."""
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
"""A number whose comma separates thousands or, less often, three decimals."""


def check_decimal(sign: str) -> str:
    """Return the sign if it may separate decimals.

    Raises:
        TraceError: It may not.
    """
    if sign not in DECIMALS:
        raise TraceError(f"decimals are separated by a point or a comma (`--decimal ,`), not by {sign!r}")
    return sign


def read_fast(texts: NDArray[np.bytes_], decimal: str) -> Float | None:
    """Parse the numbers of a block at once. None if `read_slow` is needed."""
    if decimal == ",":
        letters = np.ascontiguousarray(texts).view(np.uint8).reshape(len(texts), texts.dtype.itemsize)
        if (letters == ord(".")).any():
            return None
        letters = np.where(letters == ord(","), np.uint8(ord(".")), letters)
        texts = np.ascontiguousarray(letters).view(texts.dtype).ravel()
    try:
        return texts.astype(np.float64)
    except ValueError:
        return None


def read_slow(texts: Sequence[str], name: str, decimal: str) -> Float:
    """Parse the numbers of a block, text by text.

    Args:
        texts: One text per row.
        name: Name of the column.
        decimal: Sign that separates decimals.

    Raises:
        RowError: The first text that is not a number.
    """
    try:
        return np.array([_number(text, decimal) for text in texts], np.float64)
    except ValueError:
        row = next(row for row, text in enumerate(texts) if not _is_number(text, decimal))
        raise RowError(
            row, f"{name} `{texts[row][:40]}` is not a number; {_advice(texts[row], decimal)}"
        ) from None


def read_cells(texts: Sequence[str], name: str, decimal: str) -> Float:
    """Parse like `read_slow`, with NaN for cells that are empty or one of `NOTHING`."""
    return read_slow(["nan" if text.strip().lower() in NOTHING else text for text in texts], name, decimal)


def _number(text: str, decimal: str) -> float:
    if decimal == ".":
        return float(text)
    if "." in text:
        raise ValueError(text)
    return float(text.replace(",", "."))


def _is_number(text: str, decimal: str) -> bool:
    try:
        _number(text, decimal)
    except ValueError:
        return False
    return True


def _advice(text: str, decimal: str) -> str:
    """Return advice for a text that is not a number."""
    signs = [sign for sign in text if sign in ".,"]
    if signs and _is_number(text.replace(",", "").replace(".", ""), "."):
        if decimal == ",":
            return "decimals follow a comma here (`--decimal`); write it without thousands separators"
        if signs == [","]:
            if _THOUSANDS.fullmatch(text.strip()):
                return "write it without thousands separators; only if the comma separates decimals, import with `--decimal ,`"
            return "write decimals with a point (or import with `--decimal ,`), and no thousands separators"
        return "write it without thousands separators"
    if text.strip()[:1].isdigit():
        return "write the bare number, without a unit (in Grafana: Data options, without “Formatted data”)"
    return "leave the row out if nothing was recorded"

"""What all sections of a policy share.

Rules of this folder: declarations only. A YAML key is the attribute's name without its unit suffix (`_s`, `_per_s`, `_per_h`);
`quantities` defines how quantities are written. A section that may be `off` is None in the model. Checks that involve two fields are in
`checks`, so that they can point at a line and carry advice.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict

from autoscaler.config.quantities import refuse, shown

HOUR_S = 3600.0
DAY_S = 86400.0


def yaml_key(attribute: str) -> str:
    """Return the YAML key of an attribute: its name without the unit suffix."""
    for suffix in ("_per_s", "_per_h", "_s"):
        if attribute.endswith(suffix):
            return attribute.removesuffix(suffix)
    return attribute


def whole_ticks(seconds: float, tick_s: float) -> int:
    """Return the number of ticks that cover this time, at least 1; rounding errors of the division do not add a tick."""
    return max(1, math.ceil(seconds / tick_s - 1e-9))


def _off(raw: object) -> object:
    if raw is None:
        raise refuse("the section is empty", "write `{}` to take all of its defaults, or `off`")
    return None if raw == "off" or raw is False else raw


def _filled(raw: object) -> object:
    if isinstance(raw, str) and not raw.strip():
        raise refuse("the text is empty", "fill it in, or remove the key")
    return raw


def _http(raw: object) -> object:
    if isinstance(raw, str) and not re.match(r"https?://[^/\s]", raw):
        raise refuse(f"{shown(raw)} is not a web address", "write for example http://{address}:9100/metrics")
    if isinstance(raw, str) and "@" in re.split(r"[/?#]", raw.partition("://")[2], maxsplit=1)[0]:
        raise refuse(
            "an address with a password in it would be logged",
            "let the service admit this machine without one",
        )
    return raw


Off = BeforeValidator(_off)
Filled: TypeAlias = Annotated[str, BeforeValidator(_filled)]
Url: TypeAlias = Annotated[str, BeforeValidator(_http)]


class Section(BaseModel):
    """Base of all sections: strict types, no unknown keys, immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, alias_generator=yaml_key)

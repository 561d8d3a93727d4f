"""Operators' pending requests on one fleet's warm pool, and how they survive a restart.

An operator who was told that a VM will be exercised or deleted does not check again; so the request is on disk before the
answer.

Rules of this file: values only. After a restart, requests hold for VMs that listings show; the others are dropped when their
turn comes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from autoscaler.ports import Learned

NAME, VERSION = "asked", 2
"""The name under which requests are stored, and the version of their format."""
_LISTS = ("exercise", "evict", "refresh")


@dataclass(slots=True)
class PoolRequests:
    """What operators have asked for.

    Attributes:
        exercise: Ids of VMs to try.
        evict: Ids of VMs to delete.
        refresh: Ids of VMs to replace because they are out of date.
    """

    exercise: set[str] = field(default_factory=set)
    evict: set[str] = field(default_factory=set)
    refresh: set[str] = field(default_factory=set)

    def kept(self, fleet: str) -> Learned:
        """Return the requests as they are stored."""
        body = {each: sorted(getattr(self, each)) for each in _LISTS}
        return Learned(fleet, NAME, VERSION, json.dumps(body).encode())


def pool_requests_of(row: Learned) -> PoolRequests:
    """Parse stored requests.

    Raises:
        ValueError: The row has another version, or is not a list of requests.
    """
    if row.version != VERSION:
        raise ValueError(f"it is of version {row.version}")
    body: Any = json.loads(row.body)
    if not isinstance(body, dict) or body.keys() != set(_LISTS):
        raise ValueError("this is not a list of requests")
    if not all(isinstance(each, list) and all(isinstance(i, str) for i in each) for each in body.values()):
        raise ValueError("it names no VMs")
    return PoolRequests(**{each: set(body[each]) for each in _LISTS})

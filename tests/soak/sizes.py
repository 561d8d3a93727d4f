"""Measures what a process holds: memory blocks, tasks, descriptors, and the size of every container within an object.

The walk follows the attributes and items of our own objects. A container is named by the path to it, without keys and
positions, and containers with the same name are added up: a dict that grows in one of twenty fleets shows up as one.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CONTAINERS = (dict, list, set, frozenset, tuple, deque)
LEAVES = (str, bytes, int, float, complex, type(None), type)


@dataclass(frozen=True)
class Sizes:
    """Sizes at one moment.

    Attributes:
        at_s: Seconds since the beginning of the run.
        blocks: Memory blocks of the interpreter's allocator, after a full collection.
        resident: Resident memory of the process, in bytes.
        tasks: Tasks of the event loop.
        descriptors: Open file descriptors.
        containers: Number of items, by name of the container.
        journal: Bytes in use in the journal.
    """

    at_s: float
    blocks: int
    resident: int
    tasks: int
    descriptors: int
    containers: dict[str, int]
    journal: int


def measured(at_s: float, root: object, journal: int, apart: tuple[type, ...]) -> Sizes:
    """Measure the process now, and what is reachable from `root`."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sizes(
        at_s=at_s,
        blocks=sys.getallocatedblocks(),
        resident=pages * os.sysconf("SC_PAGE_SIZE"),
        tasks=len(asyncio.all_tasks()),
        descriptors=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        containers=containers(root, apart),
        journal=journal,
    )


def containers(root: object, apart: tuple[type, ...] = ()) -> dict[str, int]:
    """Count the items of all containers reachable from an object of ours, by name; objects of the types `apart` are skipped."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    counted: set[tuple[str, int]] = set()
    waiting: list[tuple[str, object]] = [(type(root).__name__, root)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, LEAVES) or (name, id(value)) in counted:
            continue
        counted.add((name, id(value)))
        if isinstance(value, CONTAINERS):
            # A bounded deque counts as full.
            most = value.maxlen if isinstance(value, deque) else None
            found[name] += len(value) if most is None else most
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, CONTAINERS):
            items = value.values() if isinstance(value, dict) else value
            waiting += [(f"{name}[]", item) for item in items]
        elif type(value).__module__.startswith(("autoscaler.", "tests.")) and not isinstance(value, apart):
            waiting += [(f"{type(value).__name__}.{key}", item) for key, item in _attributes(value)]
    return dict(found)


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    yield from getattr(value, "__dict__", {}).items()
    for owner in type(value).__mro__:
        for name in getattr(owner, "__slots__", ()):
            if hasattr(value, name):
                yield name, getattr(value, name)


def growth(samples: Sequence[Sizes], from_s: float) -> Iterator[str]:
    """Yield what grew beyond its tolerance since `from_s`."""
    before = [sample for sample in samples if sample.at_s <= from_s]
    after = [sample for sample in samples if sample.at_s > from_s]
    if not before or not after:
        yield f"there are no samples on both sides of {from_s:.0f} s"
        return
    # Several hours are taken together, because load rises and falls with the day.
    first, last = before[-HOURS:], after[-HOURS:]
    for name, share, more in LIMITS:
        # A leak raises the minimum over some hours as well; what comes and goes does not.
        was, now = (min(getattr(sample, name) for sample in part) for part in (first, last))
        if now > was * (1.0 + share) + more:
            yield f"{name} grew from {was:,} to {now:,}"
    names = sorted({name for sample in last for name in sample.containers} - SHARED)
    for name in names:
        was, now = (max(sample.containers.get(name, 0) for sample in part) for part in (first, last))
        if now > was * 1.2 + MORE_ITEMS:
            yield f"{name} grew from {was:,} to {now:,} items"


HOURS = 6
MORE_ITEMS = 100
"""Items by which a container may grow, in addition to a fifth: VMs are seen for the first time for days."""
SHARED = {"Rows.vms"}
"""Containers that are not checked: whether they are kept depends on the last listing, and their rows are counted elsewhere."""
LIMITS = (
    ("blocks", 0.02, 2000),
    ("resident", 0.05, 4 * 2**20),
    ("tasks", 0.0, 2),
    ("descriptors", 0.0, 1),  # SQLite keeps one of opening its file again, and reuses it
    ("journal", 0.25, 100_000),
)
"""How much each size may grow between two stretches: as a share, and in addition."""

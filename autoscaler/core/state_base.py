"""What all state classes share: copy, dump, and bit-exact restore.

Rules of this file: fields are arrays, numbers, or states themselves; fields derived from others (`init=False`) are left out of a dump
and computed again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import ClassVar, Self, TypeAlias

import numpy as np

from autoscaler.core.types import Array, Int

Dumped: TypeAlias = "dict[str, Array | float | int | Dumped]"


class Remembered:
    """Base of the dataclasses that hold the state of core between ticks."""

    __slots__ = ()
    version: ClassVar[int]
    """Version of the field layout; `restore` refuses other versions, except those that `reads` allows."""
    reads: ClassVar[int] = 1
    """How many earlier versions `restore` can read, provided that `added` supplies the fields they lack."""

    def copy(self) -> Self:
        """Return an independent copy."""
        return type(self).restore(self.dump())

    def dump(self) -> Dumped:
        """Return all fields and the version, for `restore`; shares no memory with the state."""
        return {"version": self.version} | {
            f.name: value.dump() if isinstance(value := getattr(self, f.name), Remembered) else _copied(value)
            for f in fields(self)  # type: ignore[arg-type]
            if f.init
        }

    @classmethod
    def restore(cls, dumped: Dumped) -> Self:
        """Return the state that was dumped; shares no memory with the dump.

        Raises:
            ValueError: The dump has a version that cannot be converted to this one.
        """
        first = dumped["version"]
        assert isinstance(first, int)
        for version in range(first, cls.version) if cls.version - first <= cls.reads else ():
            more = cls.added(dumped)
            dumped = dumped if more is None else dumped | more | {"version": version + 1}
        if dumped["version"] != cls.version:
            msg = f"{cls.__name__} of version {dumped['version']} cannot be read, only {cls.version}"
            raise ValueError(msg)
        parts = cls.parts()
        return cls(
            **{
                f.name: parts[f.name].restore(value)
                if isinstance(value := dumped[f.name], dict)
                else _copied(value)
                for f in fields(cls)  # type: ignore[arg-type]
                if f.init
            }
        )

    @classmethod
    def added(cls, before: Dumped) -> Dumped | None:
        """The fields that the next version has and this dump lacks; None if such a dump cannot be read."""
        del before
        return None

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {}


def length_of(value: Array | float | Dumped) -> int:
    """Length of an array in a dump."""
    assert isinstance(value, np.ndarray)
    return len(value)


def columns_before(mine: Int, theirs: Int, lanes: Int) -> Int:
    """The earlier column of each column of a later state that covers only some lanes: int64 (n,), -1 if it is new.

    Args:
        mine: int64 (m,), the lane of each column of the earlier state.
        theirs: int64 (n,), the lane of each column of the later state.
        lanes: int64 (N,), the earlier lane of each later lane; -1 for a new lane.
    """
    column = {int(lane): at for at, lane in enumerate(mine)}
    return np.array([column.get(int(lanes[lane]), -1) for lane in theirs], np.int64)


def take_columns(
    mine: Remembered, at: Int, other: Remembered, theirs: Int, arrays: Iterable[str], when: Iterable[str] = ()
) -> None:
    """Copy some columns from another state of the same layout.

    Args:
        mine: The state to update, in place.
        at: int64 (k,), its columns.
        other: The state to copy from; not changed.
        theirs: int64 (k,), the corresponding columns of `other`.
        arrays: Names of the arrays to copy; their last axis is that of columns.
        when: Names of fields that must be equal in both states, because they say what time the arrays describe.

    Raises:
        ValueError: A field named in `when` differs.
    """
    if not len(at):
        return
    for name in when:
        if getattr(mine, name) != getattr(other, name):
            raise ValueError(
                f"{type(mine).__name__} at {getattr(mine, name)} is not at {getattr(other, name)}"
            )
    for name in arrays:
        array = getattr(mine, name).copy()
        array[..., at] = getattr(other, name)[..., theirs]
        setattr(mine, name, array)


def _copied(value: Array | float) -> Array | float:
    return value.copy() if isinstance(value, np.ndarray) else value

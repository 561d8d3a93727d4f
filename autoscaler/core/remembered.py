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
    """Base of the dataclasses that hold what core remembers between ticks."""

    __slots__ = ()
    version: ClassVar[int]
    """Layout of the fields; a dump of another one is refused."""
    reads: ClassVar[int] = 1
    """But for so many versions before, as far as `added` says what they did not remember."""

    def copy(self) -> Self:
        """A state that shares nothing with this one."""
        return type(self).restore(self.dump())

    def dump(self) -> Dumped:
        """All fields and a version, for `restore`; shares nothing with the state."""
        return {"version": self.version} | {
            f.name: value.dump() if isinstance(value := getattr(self, f.name), Remembered) else _copied(value)
            for f in fields(self)  # type: ignore[arg-type]
            if f.init
        }

    @classmethod
    def restore(cls, dumped: Dumped) -> Self:
        """The state that was dumped; shares nothing with the dump.

        Raises:
            ValueError: If it was dumped by another version that cannot be brought up to this one.
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
        """What the version before the next did not remember, for a dump of it; None where such a dump cannot be read."""
        del before
        return None

    @classmethod
    def parts(cls) -> dict[str, type[Remembered]]:
        """The fields that are states themselves."""
        return {}


def length_of(value: Array | float | Dumped) -> int:
    """Of an array of a dump."""
    assert isinstance(value, np.ndarray)
    return len(value)


def columns_before(mine: Int, theirs: Int, lanes: Int) -> Int:
    """Where each column of a state that has only some lanes was in an earlier one: int64 (n,), -1 for a new one.

    Args:
        mine: int64 (m,), the lane of each column of the earlier state.
        theirs: int64 (n,), the same of the later state.
        lanes: int64 (N,), the lane that each of the later lanes was; -1 for one that is new.
    """
    column = {int(lane): at for at, lane in enumerate(mine)}
    return np.array([column.get(int(lanes[lane]), -1) for lane in theirs], np.int64)


def take_columns(
    mine: Remembered, at: Int, other: Remembered, theirs: Int, arrays: Iterable[str], when: Iterable[str] = ()
) -> None:
    """Have in some columns what another state of the same layout has in some of its own.

    Args:
        mine: Updated in place.
        at: int64 (k,), the columns.
        other: Is not changed.
        theirs: int64 (k,), the columns there.
        arrays: Names of the arrays, whose last axis is that of columns.
        when: Names of what must be the same of both, since it says to what time the arrays are.

    Raises:
        ValueError: It is not.
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

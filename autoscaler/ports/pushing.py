"""Pushed samples: the request, what a fleet accepts, and the result for each sample."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from autoscaler.core.types import Signal

LONGEST_NAME = 200
"""Characters of a fleet's or a VM's name, and of an id."""
MOST_SAMPLES = 5000
"""Of one request: reading more would hold up the ticks, at 15 to 35 us a sample (measured)."""


class Result(StrEnum):
    """What became of a pushed sample."""

    TAKEN = "taken"
    """It is the latest of its VM or fleet."""
    REPLACED = "replaced"
    """Another value of the same time was known; this one holds."""
    DUPLICATE = "duplicate"
    """It was known already."""
    OUTDATED = "outdated"
    """A later one was known already; that one holds."""
    ENDED = "ended"
    """It says that its series has ended: nothing is known of its VM any more."""
    UNASKED = "unasked"
    """A series that no policy asks for."""
    UNKNOWN_FLEET = "unknown_fleet"
    """No fleet of that name is in use."""
    NOT_ON_PUSH = "not_on_push"
    """The fleet's policy reads another source."""
    NOT_ALLOWED = "not_allowed"
    """The token is for other fleets."""
    VM_MISSING = "vm_missing"
    """The fleet is measured per VM, and the sample names none."""
    VM_NOT_ASKED = "vm_not_asked"
    """The fleet takes one value for all, and the sample names a VM."""
    NOT_A_NUMBER = "not_a_number"
    """The value is NaN or infinite."""
    OUT_OF_RANGE = "out_of_range"
    """The value is negative, or a utilisation above 1."""
    TOO_OLD = "too_old"
    """It is older than the fleet's signal may be."""
    IN_THE_FUTURE = "in_the_future"
    """Its stamp is ahead of our clock."""
    SEVERAL_SERIES = "several_series"
    """Another series gives the same VM or fleet a value."""
    FULL = "full"
    """As many VMs are known as may be."""

    @property
    def refused(self) -> bool:
        """Whether the sender has to change something."""
        return self not in _FINE


_FINE = frozenset(
    {Result.TAKEN, Result.REPLACED, Result.DUPLICATE, Result.OUTDATED, Result.ENDED, Result.UNASKED}
)


@dataclass(frozen=True, slots=True)
class PushedSample:
    """One sample as it was sent.

    Attributes:
        fleet: Name.
        vm: What the policy knows VMs by; empty for the fleet as a whole.
        value: In the unit of the fleet's signal.
        at_s: End of the window that the value describes, epoch seconds.
        id: Of the sender's choice; empty for none. A sample with an id that was seen lately is a duplicate.
        series: What tells its series from others of the same VM; empty where that is not known.
        ended: The series has ended, and the value says nothing.
    """

    fleet: str
    vm: str
    value: float
    at_s: float
    id: str = ""
    series: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """One sample that was not taken.

    Attributes:
        at: Its position in the request, from 0.
        result: Why.
        text: For a person, with what to do.
    """

    at: int
    result: Result
    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the samples of one request.

    Attributes:
        results: How many of each.
        refusals: The first ones.
        fleets: Those about which something new is known.
    """

    results: Mapping[Result, int]
    refusals: tuple[Refusal, ...]
    fleets: frozenset[str]

    @property
    def refused(self) -> int:
        """How many were not taken."""
        return sum(count for result, count in self.results.items() if result.refused)


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """Which series of a Prometheus are a fleet's signal.

    Attributes:
        metric: Name.
        labels: Names and values that it must have.
        fleet_label: Names the label that holds the fleet; None where `labels` alone tell.
        vm_label: Names the label that holds the VM.
    """

    metric: str
    labels: tuple[tuple[str, str], ...] = ()
    fleet_label: str | None = "fleet"
    vm_label: str = "vm"


@dataclass(frozen=True, slots=True)
class Intake:
    """What a fleet takes.

    Attributes:
        fleet: Name.
        signal: What its values are.
        max_age_s: Older samples are refused.
        by_address: VMs are named by their private address and not by their id.
        series: Which series are its own where a Prometheus pushes; None where none does.
    """

    fleet: str
    signal: Signal
    max_age_s: float
    by_address: bool = False
    series: SeriesRule | None = None


class SampleIntake(Protocol):
    """Takes pushed samples for the sources of fleets."""

    @property
    def intakes(self) -> tuple[Intake, ...]:
        """What the fleets take that take samples."""
        ...

    def take(
        self, samples: Iterable[PushedSample], fleets: Container[str], may: Container[str] | None = None
    ) -> Taken:
        """Take samples, each by itself.

        Args:
            samples: In the order of the request.
            fleets: All that are in use, on push or not.
            may: Those that the sender may push for; None for all.
        """
        ...

    def sum_of(self, fleet: str) -> tuple[float, int]:
        """The sum of a fleet's latest values, and of how many VMs; a hint, since some may be gone or old."""
        ...


class SampleFormat(Protocol):
    """A way to write samples into a body."""

    content_type: str
    content_encoding: str

    def read(self, body: bytes, most_bytes: int, intakes: Sequence[Intake]) -> tuple[list[PushedSample], int]:
        """The samples that are asked for, and how many others there were.

        Raises:
            OversizedError: It unpacks to more than `most_bytes`.
            SourceError: It is not of this format.
        """
        ...

"""Pushed samples: the request, what a fleet accepts, and the result for each sample."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from autoscaler.core.types import Signal

LONGEST_NAME = 200
"""Longest name of a fleet or VM, and longest id, in characters."""
MOST_SAMPLES = 5000
"""Most samples per request: at 15 to 35 us each (measured), reading more would delay ticks."""


class Result(StrEnum):
    """What happened to a pushed sample."""

    TAKEN = "taken"
    """It is now the latest sample of its VM or fleet."""
    REPLACED = "replaced"
    """It replaced another value of the same time."""
    DUPLICATE = "duplicate"
    """The same sample was already known."""
    OUTDATED = "outdated"
    """A later sample is already known and stays in force."""
    ENDED = "ended"
    """It says that its series has ended: its VM no longer has a value."""
    UNASKED = "unasked"
    """No policy asks for its series."""
    UNKNOWN_FLEET = "unknown_fleet"
    """No fleet of that name exists."""
    NOT_ON_PUSH = "not_on_push"
    """The fleet's policy reads another source."""
    NOT_ALLOWED = "not_allowed"
    """The sender's token is for other fleets."""
    VM_MISSING = "vm_missing"
    """The fleet is measured per VM, but the sample names none."""
    VM_NOT_ASKED = "vm_not_asked"
    """The fleet takes one value for all VMs, but the sample names a VM."""
    NOT_A_NUMBER = "not_a_number"
    """The value is NaN or infinite."""
    OUT_OF_RANGE = "out_of_range"
    """The value is negative, or a utilisation above 1."""
    TOO_OLD = "too_old"
    """It is older than the maximum age of the fleet's signal."""
    IN_THE_FUTURE = "in_the_future"
    """Its time is ahead of our clock."""
    SEVERAL_SERIES = "several_series"
    """Another series already provides the value of the same VM or fleet."""
    FULL = "full"
    """The maximum number of VMs is already known."""

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
        fleet: Name of the fleet.
        vm: The name by which the policy knows the VM; empty for the fleet as a whole.
        value: The value, in the unit of the fleet's signal.
        at_s: End of the window that the value describes, epoch seconds.
        id: Id chosen by the sender; empty for none. A sample with a recently seen id is a duplicate.
        series: Distinguishes its series from others of the same VM; empty if not known.
        ended: Whether the series has ended; the value then means nothing.
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
    """A sample that was not taken.

    Attributes:
        at: Its position in the request, from 0.
        result: Why it was not taken.
        text: The reason and what to do, for people.
    """

    at: int
    result: Result
    text: str


@dataclass(frozen=True, slots=True)
class Taken:
    """What happened to the samples of one request.

    Attributes:
        results: Number of samples with each result.
        refusals: The first refusals.
        fleets: Fleets about which something new is known.
    """

    results: Mapping[Result, int]
    refusals: tuple[Refusal, ...]
    fleets: frozenset[str]

    @property
    def refused(self) -> int:
        """Number of samples that were not taken."""
        return sum(count for result, count in self.results.items() if result.refused)


@dataclass(frozen=True, slots=True)
class SeriesRule:
    """Which series of a Prometheus server are a fleet's signal.

    Attributes:
        metric: Name of the metric.
        labels: Names and values of labels that a series must have.
        fleet_label: Name of the label that holds the fleet; None if `labels` alone identify it.
        vm_label: Name of the label that holds the VM.
    """

    metric: str
    labels: tuple[tuple[str, str], ...] = ()
    fleet_label: str | None = "fleet"
    vm_label: str = "vm"


@dataclass(frozen=True, slots=True)
class Intake:
    """What samples a fleet accepts.

    Attributes:
        fleet: Name of the fleet.
        signal: What its values measure.
        max_age_s: Age beyond which samples are refused.
        by_address: Whether VMs are named by their private address instead of their id.
        series: Which series are the fleet's, if a Prometheus server pushes; None otherwise.
    """

    fleet: str
    signal: Signal
    max_age_s: float
    by_address: bool = False
    series: SeriesRule | None = None


class SampleIntake(Protocol):
    """Takes pushed samples for the metric sources of fleets."""

    @property
    def intakes(self) -> tuple[Intake, ...]:
        """What samples each fleet on push accepts."""
        ...

    def take(
        self, samples: Iterable[PushedSample], fleets: Container[str], may: Container[str] | None = None
    ) -> Taken:
        """Take samples, each on its own merits.

        Args:
            samples: Samples, in the order of the request.
            fleets: Names of all fleets, on push or not.
            may: Fleets that the sender may push for; None for all.
        """
        ...

    def sum_of(self, fleet: str) -> tuple[float, int]:
        """The sum of a fleet's latest values, and the number of VMs behind it; approximate, as some may be gone or old."""
        ...


class SampleFormat(Protocol):
    """An encoding of samples in a request body."""

    content_type: str
    content_encoding: str

    def read(self, body: bytes, most_bytes: int, intakes: Sequence[Intake]) -> tuple[list[PushedSample], int]:
        """Decode a body; return the samples that some fleet asks for, and the number of others.

        Raises:
            OversizedError: The body unpacks to more than `most_bytes`.
            SourceError: The body is not in this format.
        """
        ...

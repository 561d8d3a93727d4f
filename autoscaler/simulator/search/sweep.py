"""Sweeps: many variants of a policy and a plant over one trace, as lanes, on one or more cores.

The variants are cut into parts of equal width, each part runs as lanes (`segments`), and the parts' sums are laid
side by side in the order of the variants. A lane's numbers depend on no other lane, so the result has the
same bits however many processes compute it and however wide the parts are.

Rules of this file: nothing is scored here; `score` reads the sums. What was lost is named, never left out in
silence: `columns` are those of the finished variants only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autoscaler.core.types import Int
from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.ledger import Sums
from autoscaler.simulator.lanes.engine import LaneRun
from autoscaler.simulator.lanes.fingerprints import Fingerprints
from autoscaler.simulator.lanes.measuring import Ticks
from autoscaler.simulator.lanes.outlooks import OutlookCache
from autoscaler.simulator.lanes.refusals import refuse
from autoscaler.simulator.lanes.segments import run_segmented
from autoscaler.simulator.search.executors import Executor, Finished, Here, Lost
from autoscaler.simulator.search.variants import Variant
from autoscaler.traces.trace import Trace

PART_VARIANTS = 1000
"""Variants that run side by side: wide enough that numpy's call overhead is small, narrow enough for 500 MB."""


@dataclass(frozen=True, slots=True)
class Course:
    """What all variants run over.

    Attributes:
        trace: Demand.
        ticks: From when to when.
        seed: Of everything random; the same for all, so that they face the same luck.
        warm_up_ticks: Ticks at the beginning that are run and not counted; fewer than there are.
    """

    trace: Trace
    ticks: Ticks
    seed: int = 0
    warm_up_ticks: int = 0

    def run_of(self, variants: Sequence[Variant]) -> LaneRun:
        """The variants side by side, one lane each."""
        return LaneRun(
            policies=tuple(each.policy for each in variants),
            plants=tuple(each.plant for each in variants),
            traces=(self.trace,) * len(variants),
            ticks=self.ticks,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Variants without a result.

    Attributes:
        first, end: Their numbers, half open.
        why: For a person.
    """

    first: int
    end: int
    why: str

    def __str__(self) -> str:
        """One sentence."""
        return f"variants {self.first} to {self.end - 1} have no result: {self.why}"


@dataclass(slots=True)
class SweepResult:
    """What came of a sweep.

    Attributes:
        variants: Those that finished, in the order given.
        numbers: int64 (L,), their numbers in that order.
        sums: Of L lanes; None where nothing finished.
        digests: Of their decisions, one per lane.
        unfinished: What did not.
        interrupted: Ctrl-C ended it.
    """

    variants: tuple[Variant, ...]
    numbers: Int
    sums: Sums | None
    digests: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]
    interrupted: bool = False

    def require_all(self) -> None:
        """Raise if something is missing.

        Raises:
            ConfigError: With a sentence per stretch of variants.
        """
        if self.unfinished:
            raise ConfigError("; ".join(map(str, self.unfinished)) + ". Run these again.")


def run_sweep(
    variants: Iterable[Variant],
    course: Course,
    *,
    executor: Executor | None = None,
    part_variants: int = PART_VARIANTS,
    elasticity: bool = False,
    cache: OutlookCache | None = None,
    on_part: Callable[[int, int], None] | None = None,
) -> SweepResult:
    """Run variants over a course.

    Args:
        variants: Any number.
        course: The trace and the ticks.
        executor: Who computes; None for this process.
        part_variants: Variants per part.
        elasticity: Whether the sums hold supply against need tick by tick, which is a tenth of the work; the figures
            that rest on it are unknown without.
        cache: Forecasts of earlier runs over the same trace, to be used and added to where this process computes.
        on_part: Called with the number of variants done and of all, whenever a part is.

    Returns:
        The finished variants, also after Ctrl-C and where processes died.

    Raises:
        ConfigError: There is no variant, or one that lanes cannot express; nothing has run then.
    """
    every = tuple(variants)
    if not every:
        raise ConfigError("a sweep needs at least one variant")
    refuse([each.policy for each in every], [each.plant for each in every], course.ticks.tick_s)
    firsts = range(0, len(every), part_variants)
    parts = [every[first : first + part_variants] for first in firsts]
    found: dict[int, tuple[Sums, Fingerprints]] = {}
    lost: dict[int, str] = {}
    interrupted = False
    kept = OutlookCache() if cache is None or executor is not None else cache
    results = (executor or Here()).run(_run_part, _Shared(course, kept, elasticity), parts)
    try:
        for finished in results:
            _take(finished, found, lost)
            if on_part is not None:
                on_part(sum(len(parts[number]) for number in found), len(every))
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if isinstance(results, Generator):
            results.close()
    unfinished = [
        Unfinished(firsts[number], firsts[number] + len(part), lost.get(number, "the sweep was interrupted"))
        for number, part in enumerate(parts)
        if number not in found
    ]
    return _laid_out(parts, firsts, found, tuple(unfinished), interrupted=interrupted)


def _take(finished: Finished, found: dict[int, tuple[Sums, Fingerprints]], lost: dict[int, str]) -> None:
    if isinstance(finished.result, Lost):
        lost[finished.number] = finished.result.why
    else:
        found[finished.number] = finished.result


def _laid_out(
    parts: Sequence[tuple[Variant, ...]],
    firsts: Sequence[int],
    found: dict[int, tuple[Sums, Fingerprints]],
    unfinished: tuple[Unfinished, ...],
    *,
    interrupted: bool,
) -> SweepResult:
    done = sorted(found)
    numbers = [np.arange(len(parts[part])) + firsts[part] for part in done]
    return SweepResult(
        variants=tuple(variant for part in done for variant in parts[part]),
        numbers=np.concatenate(numbers) if numbers else np.zeros(0, np.int64),
        sums=Sums.side_by_side([found[part][0] for part in done]) if done else None,
        digests=tuple(digest for part in done for digest in found[part][1].digests()),
        unfinished=unfinished,
        interrupted=interrupted,
    )


@dataclass(frozen=True, slots=True)
class _Shared:
    """What all parts of a sweep share within one process.

    Attributes:
        course: What they run over.
        cache: Outlooks of the parts that the process has had.
        elasticity: As of `run_sweep`.
    """

    course: Course
    cache: OutlookCache
    elasticity: bool


def _run_part(shared: _Shared, part: tuple[Variant, ...]) -> tuple[Sums, Fingerprints]:
    """One part, in whatever process."""
    course = shared.course
    result = run_segmented(
        course.run_of(part), cache=shared.cache, elasticity=shared.elasticity, skipped=course.warm_up_ticks
    )
    return result.sums, result.fingerprints

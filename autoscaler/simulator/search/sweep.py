"""Sweeps: many variants of a policy and a plant over one trace, as lanes, on one or more cores.

The variants are divided into parts of equal width. Each part runs as lanes (`segments`), and the parts' sums are joined in
the order of the variants. A lane's numbers depend on no other lane, so the result is the same to the bit however many
processes compute it and however wide the parts are.

Rules of this file: nothing is scored here; `score` reads the sums. Lost variants are named, never left out silently. Arrays
hold the finished variants only.
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
from autoscaler.simulator.search.executors import Executor, Finished, LostPart, SameProcess
from autoscaler.simulator.search.variants import Variant
from autoscaler.traces.trace import Trace

PART_VARIANTS = 1000
"""Variants that run side by side: wide enough that numpy's call overhead is small, narrow enough for 500 MB."""


@dataclass(frozen=True, slots=True)
class SweepCourse:
    """The demand and the ticks that all variants run.

    Attributes:
        trace: The demand.
        ticks: The ticks of the run.
        seed: Seed of all random draws; the same for all variants, so that they face the same luck.
        warm_up_ticks: Ticks at the beginning that are run but not counted; fewer than the run has.
    """

    trace: Trace
    ticks: Ticks
    seed: int = 0
    warm_up_ticks: int = 0

    def run_of(self, variants: Sequence[Variant]) -> LaneRun:
        """Return a run of the variants side by side, one lane each."""
        return LaneRun(
            policies=tuple(each.policy for each in variants),
            plants=tuple(each.plant for each in variants),
            traces=(self.trace,) * len(variants),
            ticks=self.ticks,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Consecutive variants without a result.

    Attributes:
        first, end: Number of the first variant, and of the one after the last.
        why: The reason, in words.
    """

    first: int
    end: int
    why: str

    def __str__(self) -> str:
        """Return one sentence."""
        return f"variants {self.first} to {self.end - 1} have no result: {self.why}"


@dataclass(slots=True)
class SweepResult:
    """Results of a sweep.

    Attributes:
        variants: The L variants that finished, in the order given.
        numbers: int64 (L,), their numbers in that order.
        sums: Sums of L lanes; None if nothing finished.
        digests: Digests of their decisions, one per lane.
        unfinished: The variants that did not finish.
        interrupted: Whether Ctrl-C ended the sweep.
    """

    variants: tuple[Variant, ...]
    numbers: Int
    sums: Sums | None
    digests: tuple[str, ...]
    unfinished: tuple[Unfinished, ...]
    interrupted: bool = False

    def require_all(self) -> None:
        """Raise an error if a variant did not finish.

        Raises:
            ConfigError: Some variants have no result; it gives a sentence for each stretch of them.
        """
        if self.unfinished:
            raise ConfigError("; ".join(map(str, self.unfinished)) + ". Run these again.")


def run_sweep(
    variants: Iterable[Variant],
    course: SweepCourse,
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
        executor: Runs the parts; None for this process.
        part_variants: Variants per part.
        elasticity: Whether the sums compare supply with need tick by tick, which is a tenth of the work. Without it
            the figures based on it are unknown.
        cache: Forecasts of earlier runs over the same trace, which this process reads and extends. Not used by other
            processes.
        on_part: Called after each part with the numbers of variants done and of all variants.

    Returns:
        The finished variants, also after Ctrl-C and if processes died.

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
    results = (executor or SameProcess()).run(_run_part, _Shared(course, kept, elasticity), parts)
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
    """File the outcome of a part under found or lost."""
    if isinstance(finished.result, LostPart):
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
    """Join the results of all finished parts in the order of the variants."""
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
        course: The demand and the ticks.
        cache: Outlooks of the parts that this process has run.
        elasticity: As in `run_sweep`.
    """

    course: SweepCourse
    cache: OutlookCache
    elasticity: bool


def _run_part(shared: _Shared, part: tuple[Variant, ...]) -> tuple[Sums, Fingerprints]:
    """Run one part, in any process."""
    course = shared.course
    result = run_segmented(
        course.run_of(part), cache=shared.cache, elasticity=shared.elasticity, skipped=course.warm_up_ticks
    )
    return result.sums, result.fingerprints

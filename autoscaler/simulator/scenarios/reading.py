"""Reads scenario files: reports all errors at once, each with file, line, column and what to do.

Rules of this file: nothing is run here. Policy, recipe, faults and trace are parsed by their own readers, so that their
errors read the same as elsewhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autoscaler.cloud.faults import Fault
from autoscaler.cloud.setup import CloudSetup, parse_fault
from autoscaler.config.documents import Document, Mark, Problem, read_document
from autoscaler.config.loading import PolicySet, policy_with
from autoscaler.config.messages import validation_problems
from autoscaler.config.policy import Policy
from autoscaler.config.quantities import DURATION
from autoscaler.errors import ConfigError
from autoscaler.simulator.scenarios.figures import FIGURES
from autoscaler.simulator.scenarios.model import ExpectationSection, ScenarioFile
from autoscaler.simulator.traffic.parts import generate
from autoscaler.simulator.traffic.recipe import recipe_of
from autoscaler.traces.reading import read_trace
from autoscaler.traces.trace import Trace, TraceKind, describe_time


@dataclass(frozen=True, slots=True)
class Expectation:
    """A bound on a figure.

    Attributes:
        figure: Name of the figure.
        at_most, at_least: Bounds in the figure's unit. None if there is no such bound.
        from_s, to_s: Part of the run, in seconds from its beginning.
        why: What users may rely on because of it.
    """

    figure: str
    at_most: float | None
    at_least: float | None
    from_s: float
    to_s: float
    why: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario that is ready to be played.

    Attributes:
        name: Name of the file without its ending.
        path: The file.
        given: The contents of the file.
        policy: Policy of the fleet at the beginning.
        edits: When the policy is edited, in seconds from the beginning, and the policy from then on.
        trace: The traffic.
        begin_s: Begin of the run, epoch seconds.
        faults: Faults of the simulated cloud.
        expectations: Bounds on the figures of the run.
    """

    name: str
    path: Path
    given: ScenarioFile
    policy: Policy
    edits: tuple[tuple[float, Policy], ...]
    trace: Trace
    begin_s: float
    faults: tuple[Fault, ...]
    expectations: tuple[Expectation, ...]


def read_scenario(path: Path) -> Scenario:
    """Read a scenario file.

    Raises:
        ConfigError: The scenario is invalid. The message lists every problem with its line.
        TraceError: The traffic cannot be read or generated.
    """
    document = read_document(path)
    _require(document.problems)
    if {"signal", "vm"} <= document.data.keys():
        raise ConfigError(f"{path}: this is a policy; give a scenario, which names its policy under `policy`")
    try:
        given = ScenarioFile.model_validate(document.data)
    except ValidationError as error:
        raise ConfigError(_lines(validation_problems(error, document, ScenarioFile))) from None
    problems: list[Problem] = []
    policy = _policy(document.part("change"), path, given, problems)
    edits = tuple(_edit(document, path, given, at, problems) for at in range(len(given.edits)))
    faults = _faults(document, given, problems)
    expectations = tuple(
        _expectation(document, given, at, section, problems) for at, section in enumerate(given.expect)
    )
    _times(document, given, problems)
    _require(problems)
    trace = _traffic(document, path, given, policy[0])
    return Scenario(
        name=path.stem,
        path=path,
        given=given,
        policy=policy[0],
        edits=tuple((at_s, changed[0]) for at_s, changed in edits),
        trace=trace,
        begin_s=_begin(document, given, trace),
        faults=faults,
        expectations=expectations,
    )


def _require(problems: list[Problem]) -> None:
    if problems:
        raise ConfigError(_lines(problems))


def _lines(problems: list[Problem]) -> str:
    return "\n".join(map(str, problems))


def _policy(
    changes: Document, path: Path, given: ScenarioFile, problems: list[Problem]
) -> tuple[Policy, ...]:
    loaded: PolicySet = policy_with(changes, path.parent / given.policy, given.tick_s)
    problems += loaded.errors
    return loaded.policies


def _edit(
    document: Document, path: Path, given: ScenarioFile, at: int, problems: list[Problem]
) -> tuple[float, tuple[Policy, ...]]:
    """Return when an edit happens and the policy after it: its changes are applied over those that the scenario begins with."""
    edit = Document(document.file, given.edits[at].change)
    above = ("edits", at, "change")
    for mine, to in ((document.keys, edit.keys), (document.values, edit.values)):
        to.update({where[3:]: mark for where, mark in mine.items() if where[:3] == above and where[3:]})
    changes = edit.merged_over(document.part("change"))
    return given.edits[at].at_s, _policy(changes, path, given, problems)


_WITH_UNITS = {"from": "start_s", "to": "end_s", "delay": "delay_s"}


def _faults(document: Document, given: ScenarioFile, problems: list[Problem]) -> tuple[Fault, ...]:
    found = []
    for at, row in enumerate(given.faults):
        mark = document.mark(("faults", at))
        try:
            found.append(parse_fault(_in_seconds(row), f"{mark.file}:{mark.line}"))
        except ConfigError as error:
            problems.append(Problem(mark, _as_written(str(error).split(": ", 1)[-1])))
        except ValueError as error:
            problems.append(Problem(mark, str(error)))
        else:
            problems += _never_struck(mark, found[-1], given.length_s)
    return tuple(found)


def _never_struck(mark: Mark, fault: Fault, length_s: float) -> Iterator[Problem]:
    """Yield a problem if a fault cannot happen, because a scenario would then pass without it."""
    if fault.start_s >= length_s:
        yield Problem(
            mark,
            "this fault begins after the run has ended",
            "times count from its beginning and end with its length",
        )
    cloud = CloudSetup()
    zones = [f"{cloud.region}{letter}" for letter in cloud.zones]
    if fault.zone and fault.zone not in zones:
        yield Problem(mark, f"the cloud has no zone `{fault.zone}`", f"its zones are {', '.join(zones)}")


def _as_written(text: str) -> str:
    """Replace the field names in the description of an invalid fault by those of scenario files."""
    for here, there in _WITH_UNITS.items():
        text = re.sub(rf"\b{there}\b", here, text)
    return text


def _in_seconds(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        _WITH_UNITS.get(key, key): DURATION.read(value) if key in _WITH_UNITS and value != 0 else value
        for key, value in row.items()
    }


def _expectation(
    document: Document, given: ScenarioFile, at: int, section: ExpectationSection, problems: list[Problem]
) -> Expectation:
    figure = FIGURES[section.figure]
    bounds: dict[str, float | None] = {}
    for name in ("at_most", "at_least"):
        raw = getattr(section, name)
        try:
            bounds[name] = None if raw is None else figure.read(raw)
        except ValueError as error:
            where = document.mark(("expect", at, name))
            problems.append(Problem(where, f"`{name}`: {raw!r} is no {figure.noun}", str(error)))
            bounds[name] = None
    to_s = given.length_s if section.to_s is None else section.to_s
    here = document.mark(("expect", at))
    if section.at_most is None and section.at_least is None:
        problems.append(Problem(here, "the expectation has no bound", "add `at_most` or `at_least`"))
    if not section.from_s < to_s <= given.length_s:
        problems.append(
            Problem(here, "`from` and `to` do not name a part of the run", "let 0 <= from < to <= length")
        )
    if figure.whole_run and (section.from_s > 0 or to_s < given.length_s):
        problems.append(
            Problem(here, f"`{section.figure}` is known of the whole run only", "remove `from`, `to`")
        )
    return Expectation(
        section.figure,
        bounds["at_most"],
        bounds["at_least"],
        max(section.from_s, 0.0 if figure.whole_run else given.warm_up_s),
        to_s,
        section.why,
    )


def _times(document: Document, given: ScenarioFile, problems: list[Problem]) -> None:
    for name in ("losses", "misreadings", "kills", "rollouts", "edits"):
        for at, section in enumerate(getattr(given, name)):
            lasts = name in ("losses", "misreadings")
            last_s = section.to_s if lasts else section.at_s
            if last_s > given.length_s or (lasts and section.to_s <= section.from_s):
                problems.append(
                    Problem(
                        document.mark((name, at)),
                        "this does not lie within the run",
                        "times count from its beginning and end with its length",
                    )
                )
    deaths = sorted((kill.at_s, kill.at_s + kill.back_after_s) for kill in given.kills)
    for (_, back_s), (again_s, _) in pairwise(deaths):
        if again_s < back_s:
            problems.append(
                Problem(
                    document.mark(("kills",)), "a daemon that is dead cannot be killed", "space the kills"
                )
            )
    if (given.traffic is None) == (given.recording is None):
        problems.append(
            Problem(
                document.mark(("traffic",)),
                "there must be either `traffic` or `recording`",
                "give one of them",
            )
        )
    elif "recording" in (given.traffic or {}):
        problems.append(
            Problem(
                document.mark(("traffic", "recording")),
                "`traffic` is a recipe",
                "write `recording` instead of `traffic`, not inside it",
            )
        )
    if given.fleet.running + given.fleet.stopped == 0:
        problems.append(
            Problem(document.mark(("fleet",)), "the fleet has no VMs", "give `running`, `stopped`")
        )
    if given.warm_up_s >= given.length_s:
        problems.append(
            Problem(document.mark(("warm_up",)), "the warm-up leaves nothing to look at", "shorten it")
        )


def _traffic(document: Document, path: Path, given: ScenarioFile, policy: Policy) -> Trace:
    if given.recording is None:
        return generate(recipe_of(document.part("traffic")))
    recording = given.recording
    trace = read_trace(
        path.parent / recording.file, kind=TraceKind(recording.kind) if recording.kind else None
    )
    if recording.scale_to_vms is not None:
        trace = trace.scaled_to_peak(recording.scale_to_vms * policy.vm.capacity_per_s)
    return trace


def _begin(document: Document, given: ScenarioFile, trace: Trace) -> float:
    # A count becomes known when its interval is over, so one interval has to pass before the first reading.
    first_s = trace.start_s + (trace.interval_s if trace.kind is TraceKind.COUNT else 0.0)
    begin_s = first_s if given.begin is None else given.begin.timestamp()
    begin_s = math.ceil(begin_s / given.tick_s) * given.tick_s
    if not first_s <= begin_s < begin_s + given.length_s <= trace.end_s:
        mark = document.mark(("begin",) if given.begin else ("length",))
        raise ConfigError(
            f"{mark.file}:{mark.line}: the run must lie within its traffic, which can be seen from "
            f"{describe_time(first_s)} to {describe_time(trace.end_s)}; move `begin`, or shorten `length`"
        )
    return begin_s

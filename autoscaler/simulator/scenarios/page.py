"""The page of scenario results: each scenario with its story, its figures, and whether its expectations hold."""

from __future__ import annotations

from collections.abc import Sequence

from autoscaler.simulator.report.wording import span
from autoscaler.simulator.scenarios.figures import FIGURES, RunTicks
from autoscaler.simulator.scenarios.judging import Verdict, bounds_in_words
from autoscaler.simulator.scenarios.playing import ScenarioResult

_SHOWN = ("unserved", "shortage_time", "longest_episode", "starts", "stops", "cost_of_peak")
_HEAD = """# Results

Every scenario of this folder, played by the real daemon on virtual time against the embedded cloud. Written by

    autoscaler scenario results simulations

and held current by a test. Shortage is what the cloud really had in service against what was really wanted, not
what the daemon believed. *Cost* is the cloud's bill as a share of that of as many VMs as the peak needs, always
on.
"""


def page(results: Sequence[tuple[ScenarioResult, tuple[Verdict, ...]]]) -> str:
    """Return the results of the scenarios as Markdown."""
    lines = [_HEAD, *_table(results)]
    for played, verdicts in results:
        lines += ["", *_story(played, verdicts)]
    return "\n".join(lines) + "\n"


def _table(results: Sequence[tuple[ScenarioResult, tuple[Verdict, ...]]]) -> list[str]:
    heads = [FIGURES[name].label for name in _SHOWN]
    lines = [
        f"| scenario | length | {' | '.join(heads)} | expectations |",
        f"|---|---:|{'---:|' * len(heads)}---|",
    ]
    for played, verdicts in results:
        seen = _whole(played)
        figures = [FIGURES[name].shown(FIGURES[name].measure(seen)) for name in _SHOWN]
        broken = sum(not verdict.holds for verdict in verdicts)
        state = f"{broken} of {len(verdicts)} broken" if broken else f"all {len(verdicts)} hold"
        name = played.scenario.name
        length = span(played.scenario.given.length_s)
        lines.append(f"| [{name}]({name}.yaml) | {length} | {' | '.join(figures)} | {state} |")
    return lines


def _whole(played: ScenarioResult) -> RunTicks:
    given = played.scenario.given
    return played.seen(given.warm_up_s, given.length_s)


def _story(played: ScenarioResult, verdicts: tuple[Verdict, ...]) -> list[str]:
    scenario = played.scenario
    lines = [f"## {scenario.name}", "", " ".join(scenario.given.story.split()), ""]
    for verdict in verdicts:
        one = verdict.expectation
        figure = FIGURES[one.figure]
        whole = one.from_s <= scenario.given.warm_up_s and one.to_s >= scenario.given.length_s
        when = "" if whole or figure.whole_run else f" from {span(one.from_s)} to {span(one.to_s)}"
        state = "" if verdict.holds else "**Broken.** "
        lines.append(
            f"- {state}{figure.label}{when}: {figure.shown(verdict.value)}, {bounds_in_words(one)}. {one.why[0].upper()}{one.why[1:]}."
        )
    return lines

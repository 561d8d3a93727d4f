"""The shipped scenarios: every expectation holds, and the page of results is current."""

from pathlib import Path

import pytest

from autoscaler.simulator.scenarios.judging import judge
from autoscaler.simulator.scenarios.page import page
from autoscaler.simulator.scenarios.playing import play
from autoscaler.simulator.scenarios.reading import read_scenario

FOLDER = Path(__file__).parents[2] / "simulations"
FILES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.timeout(600)
def test_all_expectations_hold_and_the_page_of_results_is_current():
    assert len(FILES) >= 12
    results = []
    for file in FILES:
        played = play(read_scenario(file))
        results.append((played, judge(played)))
    broken = [f"{p.scenario.name}: {v}" for p, verdicts in results for v in verdicts if not v.holds]
    assert not broken, "\n".join(broken)
    current = page(results)
    assert (FOLDER / "RESULTS.md").read_text(encoding="utf-8") == current, (
        "simulations/RESULTS.md is not what the scenarios give: run `autoscaler scenario results simulations`"
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_shipped_scenario_needs_no_recording(file):
    assert read_scenario(file).given.recording is None

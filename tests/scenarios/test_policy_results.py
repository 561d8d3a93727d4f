"""The page of results beside the policies matches what they do today on their traffic."""

from pathlib import Path

import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.scenarios.shipped import page, section, shipped_in

ROOT = Path(__file__).parents[2]
SHIPPED = shipped_in(ROOT / "policies", ROOT / "simulations" / "recipes")
WRITTEN = (ROOT / "policies" / "RESULTS.md").read_text(encoding="utf-8")
AGAIN = "run `autoscaler policy results policies`"


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda shipped: shipped.name)
def test_a_section_is_current(shipped):
    assert section(shipped) in WRITTEN, f"policies/RESULTS.md is not what {shipped.name} gives: {AGAIN}"


def test_the_page_has_every_policy_once_and_nothing_else():
    heads = [line for line in WRITTEN.splitlines() if line.startswith("## ")]
    assert heads == [f"## {shipped.name}" for shipped in SHIPPED], AGAIN
    assert WRITTEN.startswith(page(())), AGAIN


def test_a_policy_without_traffic_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no policy"):
        shipped_in(tmp_path, tmp_path)
    (tmp_path / "web.yaml").write_text("fleet: web\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"web\.yaml: there is no recipe .*nowhere.web\.yaml"):
        shipped_in(tmp_path, tmp_path / "nowhere")

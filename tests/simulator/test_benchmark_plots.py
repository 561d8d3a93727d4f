"""The benchmark's plots: their contents, and equal bytes for equal input."""

import xml.etree.ElementTree as ET
from dataclasses import replace

from autoscaler.simulator.benchmark.plots import COVERAGE_SVG, FRONTS_SVG, REGRET_SVG, plots
from tests.simulator.test_benchmark import bout_of

PEERS = ("google", "react")
REGRETS = {"ours": (0.1, 0.2, 0.3), "google": (0.2, 0.1, 0.4), "react": (0.5, 0.6, 0.7)}


def drawn(*bouts):
    return plots(bouts, "ours", "this program", PEERS)


def words(svg):
    """All text of a plot, and that it is well-formed."""
    return " | ".join(each.text or "" for each in ET.fromstring(svg).iter() if each.tag.endswith("}text"))


def colours(svg):
    return {part.split(";")[0].strip() for part in svg.split("fill: ")[1:]}


def test_each_plot_names_its_traces_and_what_its_axes_are():
    told = drawn(bout_of("shop", REGRETS), bout_of("mill", REGRETS))
    assert list(told) == [FRONTS_SVG, REGRET_SVG, COVERAGE_SVG]
    for file in told:
        assert "shop, 8" in words(told[file])
        assert "mill, 8" in words(told[file])
    assert "share of work left unserved" in words(told[FRONTS_SVG])
    assert "left of 1 is better" in words(told[REGRET_SVG])
    assert "99% quantile" in words(told[COVERAGE_SVG])
    assert drawn(bout_of("shop", REGRETS), bout_of("mill", REGRETS)) == told


def test_a_trace_that_is_too_short_to_count_is_drawn_only_where_no_other_is():
    short, long = bout_of("short", REGRETS, long=False), bout_of("long", REGRETS)
    assert all("short, 8" not in words(svg) for svg in drawn(short, long).values())
    assert all("short, 8" in words(svg) for svg in drawn(short).values())


def test_a_share_that_is_off_has_another_colour():
    (fleet,) = bout_of("shop", REGRETS).fleets
    exact = replace(fleet, coverage={"ours": (0.5, 0.9, 0.95, 0.99)})
    wide = replace(fleet, coverage={"ours": (0.5, 0.9, 0.95, 0.98)})
    of_exact, of_wide = (
        colours(drawn(replace(bout_of("shop", REGRETS), fleets=(each,)))[COVERAGE_SVG])
        for each in (exact, wide)
    )
    assert "#d55e00" in of_wide - of_exact


def test_where_nothing_is_known_nothing_is_drawn():
    (fleet,) = bout_of("shop", REGRETS).fleets
    blind = replace(bout_of("shop", REGRETS), fleets=(replace(fleet, coverage={}),))
    assert list(drawn(blind)) == [FRONTS_SVG, REGRET_SVG]
    assert drawn() == {}
    assert plots([bout_of("shop", REGRETS)], "theirs", "theirs", PEERS) == {}

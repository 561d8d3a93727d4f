"""The page as text: complete, escaped, closed to the network, small, and the same every time."""

import base64
import gzip
import hashlib
import math

import numpy as np
import pytest

from autoscaler.errors import ConfigError
from autoscaler.simulator.report.page import MOST_ROWS, page, worst_episodes, write_page
from autoscaler.simulator.report.variants import variants_json
from tests.simulator.reports import EVIL, Parsed, columns, crowd, document, unpacked

MONTH_OF_MINUTES = 43_200
MOST_BYTES = 6_000_000


def made(rows, others=None, **details):
    return page(document(rows, **details), columns(rows), others or {}, "report.json")


def test_the_conclusion_stands_before_everything_else():
    parsed = Parsed(made(crowd()))
    words = parsed.words
    order = [
        words.index(text)
        for text in ("costs 50% less than always on at peak", "Score card", "Demand against capacity", "worst first", "How this was made")
    ]  # fmt: skip
    assert order == sorted(order)
    assert "short of capacity for 30 min in 1 episode" in words
    for digest in ("a" * 64, "b" * 64, "c" * 64):
        assert digest in words


def test_every_figure_of_the_card_is_there_with_its_meaning():
    words = Parsed(made(crowd())).words
    card = document(crowd())["card"]
    for figure in card["figures"]:
        known = not all(math.isnan(entry["values"][figure["key"]]) for entry in card["entries"])
        assert (figure["what"] in words) == known, figure["key"]
        assert not known or figure["label"] in words


def test_text_of_people_is_shown_and_never_obeyed():
    rows = crowd(60, crowds=((10, 20),))
    rows = [row.__class__(**{**fields(row), "reason": EVIL}) for row in rows]
    doc = document(rows, name=EVIL, notes=[EVIL], cautions=[EVIL], fleet=EVIL, trace=EVIL)
    doc["differences"] = {
        "names": [EVIL, EVIL], "sentences": [EVIL],
        "rows": [{"at": EVIL, "demand": 1, "desired": [EVIL, 2], "reasons": [EVIL, EVIL]}],
    }  # fmt: skip
    doc["sweep"] = variants_json(
        {EVIL: [EVIL, "x"], "b": [1, 2]}, {"cost": np.ones(2), "shortage_s": np.ones(2)}
    )
    parsed = Parsed(page(doc, columns(rows), {EVIL: columns(rows)}, "report.json"))
    assert not {"img", "b"} & set(parsed.elements)
    assert parsed.handlers == []
    assert parsed.elements.count("script") == 5
    assert parsed.words.count("<img src=x onerror=") >= 10
    assert unpacked(parsed.data["ticks"])["reason"][0] == EVIL


def fields(row):
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_the_policy_of_the_page_allows_its_own_scripts_and_no_connection():
    parsed = Parsed(made(crowd()))
    assert parsed.addresses == []
    rules = dict(part.strip().split(" ", 1) for part in parsed.policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert "connect-src" not in rules
    plotly = gzip.decompress(base64.b64decode(parsed.data["plotly"])).decode()
    assert plotly.lstrip().startswith("/**\n* plotly.js")
    digests = {
        "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"
        for script in (*parsed.scripts, plotly)
    }
    assert set(rules["script-src"].split()) == digests


def test_equal_runs_give_equal_pages():
    assert made(crowd()) == made(crowd())
    assert made(crowd()) != made(crowd(seed=1))


def test_the_ticks_of_the_page_are_those_of_the_run():
    rows = crowd(500, seed=3)
    ticks = unpacked(Parsed(made(rows)).data["ticks"])
    assert list(ticks["stamp"]) == [row.timestamp_s for row in rows]
    assert ticks["demand"] == pytest.approx([row.demand for row in rows], rel=1e-6)
    assert ticks["reason"] == [row.reason for row in rows]
    assert not ticks["gap"].any()


def test_unknown_demand_is_not_zero_and_a_missing_tick_is_a_gap():
    rows = crowd(50, crowds=())
    rows[10] = rows[10].__class__(**{**fields(rows[10]), "demand": None, "shortage": None})
    del rows[20:25]
    ticks = unpacked(Parsed(made(rows)).data["ticks"])
    assert np.isnan(ticks["demand"][10])
    assert np.isnan(ticks["shortage"][10])
    assert np.flatnonzero(ticks["gap"]).tolist() == [20]


def test_a_month_of_minutes_fits_whole_within_the_bound(tmp_path):
    rows = crowd(MONTH_OF_MINUTES, crowds=((100, 130), (20_000, 20_100)))
    write_page(tmp_path / "report.html", document(rows), columns(rows))
    text = (tmp_path / "report.html").read_text()
    assert len(text.encode()) < MOST_BYTES
    assert len(unpacked(Parsed(text).data["ticks"])["stamp"]) == MONTH_OF_MINUTES


def test_a_longer_run_keeps_its_extremes_and_its_episodes_whole():
    rows = crowd(4 * MONTH_OF_MINUTES, crowds=((100, 130), (90_000, 90_200)))
    rows[70_001] = rows[70_001].__class__(**{**fields(rows[70_001]), "demand": 3.0})
    text = made(rows)
    assert len(text.encode()) < MOST_BYTES
    ticks = unpacked(Parsed(text).data["ticks"])
    stamps, first = ticks["stamp"], rows[0].timestamp_s
    assert len(stamps) <= MOST_ROWS
    kept = set(((stamps - first) / 60).astype(int).tolist())
    assert {*range(85, 145), *range(89_985, 90_215), 70_001, 0, len(rows) - 1} <= kept
    assert ticks["demand"].min() == 3.0
    assert ticks["demand"].max() == pytest.approx(max(row.demand for row in rows), rel=1e-6)


def test_episodes_are_listed_worst_first_and_not_from_the_time_that_is_not_scored():
    rows = crowd(400, crowds=((5, 15), (100, 104), (200, 230)))
    found = worst_episodes(columns(rows), {"not_scored_s": 1200.0})
    begins = [round((episode.start_s - rows[0].timestamp_s) / 60) for episode in found]
    assert begins[0] == 200
    assert 100 in begins
    assert 5 not in begins


def test_a_sweep_comes_before_the_card_and_a_recommendation_before_its_own_conclusion():
    doc = document(crowd(60))
    doc["sweep"] = variants_json(
        {"a": [1, 2]}, {"cost": np.array([2.0, 1.0]), "shortage_s": np.zeros(2)}, current=0
    )
    words = Parsed(page(doc, None, {}, "report.json")).words
    assert (
        words.index("One variant costs 50% less")
        < words.index("Cost against shortage")
        < words.index("Score card")
    )
    doc["recommendation"] = {"headline": "Not distinguishable.", "sentences": ["Keep what is in force."]}
    words = Parsed(page(doc, None, {}, "report.json")).words
    assert "Not distinguishable. Keep what is in force." in words
    assert "One variant costs" not in words


def test_a_recommendation_shows_the_worlds_it_was_tried_in():
    doc = document(crowd(60))
    world = {
        "world": "bursts",
        "what": "A crowd <a day>.",
        "cost": [2.0, 1.5, 7.0],
        "unserved_share": [0.01, 0.02, 0.0],
        "regret": [0.5, 0.0, 5.5],
        "unserved_price": 0.25,
    }
    told = {"headline": "Change it.", "sentences": [], "worlds": [world], "finalists": [1, 2, 3]}
    doc["recommendation"] = {**told, "changes": {"a": {}}}
    words = Parsed(page(doc, None, {}, "report.json")).words
    assert "unserved work at 0.25 a unit, exceeds that of the best of 3 variants tried there" in words
    assert "bursts A crowd <a day>. 2.00 1.50 1.00% 2.00% 0.50 0.00" in words
    assert "7.00" not in words
    doc["recommendation"]["changes"] = {}
    words = Parsed(page(doc, None, {}, "report.json")).words
    assert "bursts A crowd <a day>. 2.00 1.00% 0.50" in words
    doc["recommendation"]["worlds"] = []
    assert "other worlds" not in Parsed(page(doc, None, {}, "report.json")).words


def test_a_run_without_forecasts_has_none_in_its_legend():
    rows = crowd(50)
    assert "forecast, 95% quantile" in Parsed(made(rows)).words
    blind = [row.__class__(**{**fields(row), "forecast": None, "forecast_hi": None}) for row in rows]
    assert "forecast, 95% quantile" not in Parsed(made(blind)).words


def test_a_run_without_shortage_says_so():
    rows = [row for row in crowd(50, crowds=()) if row.shortage == 0]
    assert "There were none" in Parsed(made(rows)).words


def test_an_interrupted_run_says_how_much_it_covers():
    words = Parsed(made(crowd(), partial=True, asked_s=86_400.0)).words
    assert "The run was interrupted: it covers 4 h of 24 h" in words


def test_what_is_no_report_is_refused_in_words(tmp_path):
    with pytest.raises(
        ConfigError, match=r"report\.json: is not a report of this version .*; run the replay again"
    ):
        page({"card": {"figures": [{}]}}, None, {}, "report.json")
    (tmp_path / "taken").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_page(tmp_path / "taken" / "report.html", document(crowd()), None)


def test_a_sweep_of_columns_of_different_lengths_is_a_bug():
    with pytest.raises(Exception, match="columns of one length"):
        variants_json({"a": [1]}, {"cost": np.ones(2), "shortage_s": np.ones(2)})

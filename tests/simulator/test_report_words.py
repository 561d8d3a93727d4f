"""Conclusions, cards and numbers in words: true to the figures, and never a number for the unknown."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.errors import ConfigError
from autoscaler.simulator.judging.forecast_score import FORECAST_FIGURES
from autoscaler.simulator.replay.timeline import jsonable, totals
from autoscaler.simulator.report.card import Card, Entry, card_from, card_json, values_of
from autoscaler.simulator.report.conclusion import conclude, conclude_sweep
from autoscaler.simulator.report.figures import FIGURES
from autoscaler.simulator.report.variants import variants_json
from autoscaler.simulator.report.wording import Unit, each_unit, money, rounded_share, share, shown, span
from tests.simulator.reports import crowd


def entry(key, name, *, judged=False, **values):
    usual = {figure.key: 1.0 for figure in FIGURES}
    return Entry(key, name, "", {**usual, **values}, judged)


def words(*entries, **details):
    return conclude(Card(FIGURES, entries), details)


PEAK = entry("static_peak", "always on at peak", cost=200.0, unserved_share=0.0, shortage_s=0.0, episodes=0.0)


def policy(**values):
    return entry("policy", "this policy", judged=True, **{"cost": 100.0, "unserved_share": 0.001, **values})


def test_the_headline_says_money_and_shortage():
    assert words(policy(), PEAK).headline == (
        "This policy costs 50% less than always on at peak and leaves 0.100% of the work unserved"
    )
    assert words(policy(cost=210.0, unserved_share=0.0), PEAK).headline == (
        "This policy costs 5% more than always on at peak and leaves no work unserved either"
    )
    assert words(policy(cost=200.2), PEAK).headline.startswith("This policy costs as much as")


@pytest.mark.parametrize(
    ("promised", "unserved", "said"),
    [
        (0.999, 0.0006, "Its objective to serve 99.9% of the work was kept: it served 99.94%."),
        (0.999, 0.001, "Its objective to serve 99.9% of the work was kept: it served 99.9%."),
        (0.99, 0.0125, "Its objective to serve 99% of the work was missed: it served 98.75%."),
        (0.99, math.nan, ""),
        (None, 0.0, ""),
    ],
)
def test_whether_a_promise_was_kept_is_said(promised, unserved, said):
    told = words(policy(unserved_share=unserved), PEAK, promised_served=promised).sentences
    assert [sentence for sentence in told if "objective" in sentence] == ([said] if said else [])


def test_how_good_the_forecasts_were_is_said_where_there_were_some():
    said = words(policy(forecast_wape=0.0316, forecast_coverage_95=0.948), PEAK).sentences
    assert (
        "Its forecasts at the lead time were off by 3.16% of demand, and demand did not exceed the 95% forecast in 94.8% of "
        "the ticks."
    ) in said
    assert not any("forecast" in sentence for sentence in words(policy(), PEAK).sentences)


def test_the_money_itself_is_said_over_the_time_that_is_scored():
    said = words(policy(), PEAK, span_s=8 * 86_400.0, not_scored_s=86_400.0)
    assert said.sentences[0] == "That is 100.00 instead of 200.00 in 7 days."
    unknown = words(policy(cost=math.nan), PEAK, span_s=8 * 86_400.0)
    assert not any("instead of" in sentence for sentence in unknown.sentences)


def test_a_comparison_is_about_the_candidate():
    said = words(
        entry(
            "a",
            "web",
            judged=True,
            cost=100.0,
            unserved_share=0.01,
            shortage_s=600.0,
            episodes=2.0,
            captured=0.67,
        ),
        entry(
            "b",
            "lean",
            judged=True,
            cost=80.0,
            unserved_share=0.02,
            shortage_s=1800.0,
            episodes=1.0,
            captured=0.8,
        ),
        entry("c", "dear", judged=True, cost=300.0, captured=-0.6),
        PEAK,
        entry("clairvoyant", "clairvoyant optimum", cost=50.0),
    )
    assert said.sentences[-1] == (
        "A schedule that knew the future and left no more unserved than web would have cost 50.00. Of the savings possible at "
        "its own level of service, web achieves 67%, lean 80% and dear none."
    )
    assert (
        said.headline
        == "Policy lean costs 20% less than web and leaves 2.00% of the work unserved, against 1.00%"
    )
    assert said.sentences[0].startswith("Policy web was short of capacity for 10 min in 2 episodes")
    assert said.sentences[1].startswith("Policy lean was short of capacity for 30 min in 1 episode,")


def test_shares_that_look_alike_are_not_put_against_each_other():
    one = entry("a", "web", judged=True, cost=100.0, unserved_share=0.87041)
    alike = entry("b", "lean", judged=True, cost=80.0, unserved_share=0.87043)
    assert words(one, alike, PEAK).headline == (
        "Policy lean costs 20% less than web and leaves about the same share of the work unserved (87.0%)"
    )
    same = entry("b", "lean", judged=True, cost=80.0, unserved_share=0.87041)
    assert words(one, same, PEAK).headline.endswith("and leaves the same share of the work unserved (87.0%)")


def test_every_comparison_of_several_policies_is_a_whole_sentence():
    said = words(*(entry(name, name, judged=True, cost=10.0 + at) for at, name in enumerate("abc")), PEAK)
    assert (
        "Policy c costs 20% more than a and leaves the same share of the work unserved (100.0%)."
        in said.sentences
    )
    assert all(sentence.endswith(".") for sentence in said.sentences)


def test_a_rule_that_is_cheaper_and_serves_as_much_is_named():
    dear = entry("step_scaling", "AWS step scaling", cost=90.0, unserved_share=0.0005)
    cheap = entry("hpa", "Kubernetes autoscaler", cost=46.0, unserved_share=0.001)
    worse = entry("yesterday", "same time yesterday", cost=30.0, unserved_share=0.0011)
    best = entry("clairvoyant", "clairvoyant optimum", cost=20.0, unserved_share=0.0)
    said = words(policy(), PEAK, dear, cheap, worse, best).sentences
    assert (
        "Here Kubernetes autoscaler costs 54% less than this policy and leaves no more work unserved (0.100%)."
        in said
    )
    alike = entry("hpa", "Kubernetes autoscaler", cost=99.9, unserved_share=0.0)
    assert not any(text.startswith("Here ") for text in words(policy(), PEAK, worse, alike, best).sentences)
    none = entry("hpa", "Kubernetes autoscaler", cost=46.0, unserved_share=0.0)
    assert "less than this policy and leaves no work unserved." in " ".join(
        words(policy(), PEAK, none).sentences
    )


@pytest.mark.parametrize(
    ("cost", "expected"),
    [
        (100.0, "would have cost 50.00; this policy achieves 67% of the possible savings."),
        (50.0, "achieves 100% of the possible savings."),
        (250.0, "achieves none of the possible savings."),
        (math.nan, ""),
    ],
)
def test_the_clairvoyant_tells_what_could_be_saved(cost, expected):
    said = words(policy(cost=cost), PEAK, entry("clairvoyant", "clairvoyant", cost=50.0))
    assert expected in " ".join(said.sentences)
    if not expected:
        assert "savings" not in " ".join(said.sentences)


def test_hindsight_that_is_no_cheaper_is_not_cheaper_by_less_than_nothing():
    for cost, said in (
        (201.0, ", 1.00 less."),
        (200.0, ", which is no less."),
        (199.0, ", which is no less."),
    ):
        told = words(policy(cost=cost), PEAK, entry("clairvoyant", "clairvoyant", cost=200.0)).sentences[-1]
        assert told == f"A schedule that knew the future would have cost 200.00{said}"


def test_what_is_unknown_is_not_said_to_be_good():
    said = words(policy(cost=math.nan, unserved_share=math.nan, shortage_s=math.nan), PEAK)
    assert "not known" in said.headline
    assert "never short" not in " ".join(said.sentences)
    known_cost = words(policy(unserved_share=math.nan), PEAK)
    assert "how much work it left unserved is not known" in known_cost.headline


def test_a_baseline_that_costs_nothing_is_no_unknown_cost():
    free = entry("static_peak", "always on at peak", cost=0.0, unserved_share=math.nan)
    quiet = policy(cost=0.12, unserved_share=math.nan, unserved_work=0.0)
    said = words(quiet, free).headline
    assert said == "This policy costs 0.12 (always on at peak: nothing) and there was no work to serve"


def test_a_rule_that_serves_next_to_nothing_is_not_compared_by_money():
    idle = entry("target_tracking", "AWS target tracking", cost=10.0, unserved_share=0.996)
    said = words(policy(), PEAK, idle).sentences
    assert (
        "AWS target tracking leaves 99.6% of the work unserved here, so its cost cannot be compared." in said
    )
    assert not any(sentence.startswith("Compared with") for sentence in said)


def test_without_prices_nothing_is_compared():
    free = entry("static_peak", "always on at peak", cost=0.0)
    said = words(policy(cost=0.0), free, entry("clairvoyant", "clairvoyant", cost=0.0))
    assert said.headline == "This policy has no prices and leaves 0.100% of the work unserved, against 100.0%"
    assert not any("would have cost" in sentence for sentence in said.sentences)


def test_where_nothing_was_wanted_nothing_is_said_to_be_unknown():
    quiet = {"unserved_share": math.nan, "unserved_work": 0.0, "shortage_s": 0.0, "episodes": 0.0}
    rule = entry("target_tracking", "AWS target tracking", cost=100.0, **quiet)
    said = words(policy(**quiet), PEAK, rule)
    assert said.headline.endswith("than always on at peak, and there was no work to serve")
    assert "Compared with AWS target tracking it costs the same and neither is ever short." in said.sentences


def test_no_shortage_is_said_as_such():
    assert (
        "This policy was never short of capacity."
        in words(policy(episodes=0.0, shortage_s=0.0), PEAK).sentences
    )


def test_a_card_travels_through_json():
    values = values_of(totals(crowd(60), 60.0))
    values["cost"] = math.nan
    card = Card(FIGURES, (Entry("policy", "this policy", "words", values, judged=True),))
    back = card_from({"card": json.loads(json.dumps(jsonable(card_json(card))))}, "report.json")
    assert back.figures == FIGURES
    assert math.isnan(back.subject.values["cost"])
    assert {k: v for k, v in back.subject.values.items() if k != "cost"} == pytest.approx(
        {k: v for k, v in values.items() if k != "cost"}, nan_ok=True
    )


def test_what_totals_do_not_tell_is_unknown_and_in_the_one_list_of_figures():
    values = values_of(totals(crowd(60), 60.0))
    assert list(values) == [figure.key for figure in FIGURES]
    assert {key for key, value in values.items() if math.isnan(value)} >= {
        "regret",
        "warm_hits",
        "worst_shortage",
    }
    assert not math.isnan(values["vm_hours"])


FIGURE = {figure.key: figure for figure in FIGURES}
UNKNOWN, NOT_THERE = "?", "–"


@pytest.mark.parametrize(
    ("figure", "values", "said"),
    [
        ("mean_episode_s", {"episodes": 0.0}, NOT_THERE),
        ("mean_episode_s", {"episodes": math.nan}, UNKNOWN),
        ("mean_wait_s", {"longest_wait_s": 0.0}, NOT_THERE),
        ("warm_hits", {"starts_per_day": 0.0}, NOT_THERE),
        ("failed_starts", {}, UNKNOWN),
        ("capacity_used", {"vm_hours": 0.0}, NOT_THERE),
        ("unserved_share", {"unserved_work": 0.0, "unknown_s": 0.0}, NOT_THERE),
        ("unserved_share", {"unserved_work": 0.0, "unknown_s": 60.0}, UNKNOWN),
        ("regret", {}, UNKNOWN),
        ("captured", {"regret": math.nan}, UNKNOWN),
        ("captured", {"regret": 0.0}, NOT_THERE),
        ("pool_cost", {}, UNKNOWN),
        ("cost_per_avoided_s", {"shortage_avoided_s": math.nan}, UNKNOWN),
        ("cost_per_avoided_s", {"shortage_avoided_s": -60.0}, NOT_THERE),
        ("cost", {}, UNKNOWN),
    ],
)
def test_what_does_not_apply_is_told_apart_from_what_is_not_known(figure, values, said):
    told = entry("policy", "this policy", judged=True, **values, **{figure: math.nan})
    assert told.formatted(FIGURE[figure]) == said
    document = card_json(Card(FIGURES, (told,)))["entries"][0]
    assert (figure in document["does_not_apply"]) is (said == NOT_THERE)
    assert entry("policy", "this policy", judged=True, **values).formatted(FIGURE[figure]) not in (
        UNKNOWN,
        NOT_THERE,
    )


def test_peers_are_judged_by_no_pool_and_no_forecast_of_their_own():
    peer = entry("google", "Google autoscaler", pool_cost=math.nan)
    assert peer.formatted(FIGURE["pool_cost"]) == NOT_THERE
    forecast = FORECAST_FIGURES[0]
    assert peer.formatted(forecast) == NOT_THERE
    # A policy without a forecast has none either, and where no demand was known, none can be judged.
    assert policy().formatted(forecast) == NOT_THERE
    assert policy(unserved_share=math.nan, unknown_s=60.0).formatted(forecast) == UNKNOWN


def test_the_report_of_a_demo_has_a_card_too():
    from dataclasses import asdict

    t = asdict(totals(crowd(60), 60.0))
    card = card_from({"totals": t, "baselines": {"always on at peak": {**t, "cost": None}}}, "report.json")
    assert [one.key for one in card.entries] == ["policy", "static_peak"]
    assert card.subject.values["vm_hours"] == pytest.approx(3.0)
    assert card.entries[1].what.startswith("As many VMs as the highest demand needs")
    assert math.isnan(card.entries[1].values["cost"])


def swept(*rows, current=0):
    """A sweep of one parameter; rows are (cost, share left unserved)."""
    import numpy as np

    costs, lost = (np.array(column, np.float64) for column in zip(*rows, strict=True))
    return variants_json(
        {"reactive.headroom": [f"{10 * n}%" for n in range(len(rows))]},
        {"cost": costs, "unserved_share": lost},
        shortage="unserved_share",
        current=current,
    )


def test_a_parameter_that_changes_nothing_is_named():
    own = words(policy(), PEAK)
    values = {"cost": np.array([10.0, 10.0, 12.0, 12.0]), "unserved_share": np.zeros(4)}
    names = {"forecast.cover": ["off", "95%", "off", "95%"], "reactive.headroom": ["5%", "5%", "9%", "9%"]}
    said = conclude_sweep(variants_json(names, values, shortage="unserved_share", current=0), own).sentences
    idle = "`forecast.cover` made no difference: all its values gave the same figures."
    assert [text for text in said if "no difference" in text] == [idle]
    drawn = {"a": [1, 2, 3, 4], "b": [4, 3, 2, 1]}  # at random, where no two differ in one parameter alone
    said = conclude_sweep(variants_json(drawn, values, shortage="unserved_share", current=0), own).sentences
    assert not any("no difference" in text for text in said)


def test_a_sweep_names_the_cheapest_variant_that_serves_as_much():
    own = words(policy(), PEAK)
    said = conclude_sweep(swept((100, 0.01), (80, 0.02), (90, 0.01), (95, 0.0), (math.nan, 0.0)), own)
    assert (
        said.headline
        == "One variant costs 10% less than the policy in force and leaves no more work unserved"
    )
    assert said.sentences[:2] == (
        "It is reactive.headroom 20%: 90.00 instead of 100.00.",
        "Of 4 variants, 2 do better in this sense.",
    )
    assert "another period" in said.sentences[2]
    assert said.sentences[3:] == own.sentences


def test_a_sweep_that_finds_nothing_says_so():
    own = words(policy(), PEAK)
    said = conclude_sweep(swept((100, 0.01), (80, 0.02), (100, 0.01), (120, 0.0)), own)
    assert said.headline.startswith("No variant costs less than the policy in force")
    assert said.sentences[0] == f"{own.headline}."
    assert conclude_sweep(swept((100, 0.01), (80, 0.0), current=None), own) == own
    # What is not told apart by its cost is no advice.
    said = conclude_sweep(swept((100, 0.01), (99.9, 0.01), (120, 0.0)), own)
    assert said.headline.startswith("No variant costs clearly less than the policy in force")


@pytest.mark.parametrize(
    "document",
    [{}, {"totals": {}, "baselines": {}}, {"card": {"figures": [], "entries": []}}, {"card": {"figures": 1}}],
)
def test_what_is_no_card_is_refused(document):
    with pytest.raises(ConfigError, match="run the replay again"):
        card_from(document, "here/report.json")


@pytest.mark.parametrize("unit", list(Unit))
def test_unknown_is_a_question_mark_in_every_unit(unit):
    assert shown(math.nan, unit) == shown(None, unit) == "?"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.5, "60 s"), (119, "119 s"), (120, "2 min"), (150, "2.5 min"), (7199, "120 min"), (7200, "2 h"),
     (86_400, "24 h"), (172_800, "2 days"), (259_140, "3 days"), (31 * 86_400, "31 days"), (-0.4, "-0.4 s"), (-7200, "-2 h")],
)  # fmt: skip
def test_spans(seconds, words):
    assert span(seconds) == words


def test_small_amounts_stay_visible():
    assert (money(0.0123), money(0), money(12.346), money(1234.5), money(123_456.7)) == (
        "0.0123", "0.00", "12.35", "1,234.50", "123,457",
    )  # fmt: skip
    assert (share(0), share(1e-9), share(0.00012), share(0.0123), share(0.5)) == (
        "0%", "< 0.001%", "0.012%", "1.23%", "50.0%",
    )  # fmt: skip
    assert (rounded_share(0.001), rounded_share(0.5), rounded_share(-0.25)) == ("less than 1%", "50%", "25%")


@given(st.floats(min_value=0, max_value=1e12))
def test_no_number_is_shown_as_unknown_or_in_powers(value):
    for unit in Unit:
        text = shown(value, unit)
        assert text != "?"
        assert "e+" not in text


@pytest.mark.parametrize(
    ("price", "words"),
    [
        (0.25, "0.25 a unit"),
        (0.01, "0.01 a unit"),
        (0.0042, "4.2 a thousand units"),
        (2.22e-06, "2.22 a million units"),
        (3e-9, "3 a billion units"),
        (0.0, "0 a unit"),
        (12.0, "12 a unit"),
    ],
)
def test_money_for_a_unit_of_work_has_no_exponent(price, words):
    assert each_unit(price) == words

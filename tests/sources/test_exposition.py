"""Which lines of Prometheus text belong to a metric, wherever they are and however the text ends."""

from __future__ import annotations

import pytest

from autoscaler.sources import exposition
from autoscaler.sources.exposition import Metric, Series, parse
from autoscaler.sources.fan_out import UnreadableBodyError

PLAIN = frozenset()
WEB = frozenset({("job", "web")})


def values(body, name="load", **labels):
    return [series.value for series in parse(body, Metric(name, labels))]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b"load 12", [12.0]),
        (b"load 12\n", [12.0]),
        (b"\nload 12", [12.0]),
        (b"# TYPE load gauge\nload 12\r\n", [12.0]),
        (b"load_total 3\nload 12\nload_total 4", [12.0]),
        (b'load{job="web"} 1\nload{job="api"} 20', [1.0, 20.0]),
        (b'load{job="web"} 1\nother 5\nload{job="api"} 20\n\n', [1.0, 20.0]),
        (b"load\t12", [12.0]),
        (b'load{job="we\\"b"} 12', [12.0]),
    ],
)
def test_every_line_of_the_metric_is_read_to_its_end_and_no_other(body, found):
    assert values(body) == found


def test_labels_that_are_asked_for_must_be_there_and_others_are_free():
    body = b'load{job="web",vm="1"} 1\nload{job="api",vm="2"} 2\nload 4\n'
    assert values(body, job="web") == [1.0]
    assert values(body) == [1.0, 2.0, 4.0]


def test_the_stamp_is_in_seconds_and_may_be_missing():
    assert parse(b'load{job="web"} 1 1500\nload 2\n', Metric("load")) == (
        Series(WEB, 1.0, 1.5),
        Series(PLAIN, 2.0, None),
    )
    # The same through the slow parser, which labels with escapes need.
    (slow,) = parse(b'load{job="a\\\\b"} 1 1500\n', Metric("load"))
    assert (slow.labels, slow.stamp_s) == (frozenset({("job", "a\\b")}), 1.5)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no metric load"),
        (b"loads 3\n", "no metric load"),
        (b"other 3\n# load 4\n load 5\n", "no metric load"),
        (b"<!DOCTYPE html><title>load</title>", "no metric load (a web page came)"),
        (b"<HTML>", "no metric load (a web page came)"),
        (b" " * 2100 + b"<html>", "no metric load"),
        (b"load x\n", "metric load cannot be read"),
        (b'load{job="web" 1\n', "metric load cannot be read"),
    ],
)
def test_a_text_without_the_metric_is_an_error(body, words):
    with pytest.raises(UnreadableBodyError) as error:
        parse(body, Metric("load"))
    assert str(error.value) == words


def test_a_metric_without_such_labels_is_another_error():
    with pytest.raises(UnreadableBodyError, match="has no series with these labels"):
        values(b"load 3\n", job="web")


def test_series_that_are_not_wanted_are_not_parsed_and_do_not_count():
    body = "".join(f'load{{path="/{at}",job="other"}} 1\n' for at in range(1000))
    body += 'load{path="web",job="db"} 2\nload{job="web",path="/"} 3\nload{job = "web",path="\\n"} 4\n'
    before = exposition._shared_labels.cache_info().misses
    found = parse(body.encode(), Metric("load", {"job": "web"}), 6)
    assert [one.value for one in found] == [3.0, 4.0]
    assert exposition._shared_labels.cache_info().misses - before <= 2
    with pytest.raises(UnreadableBodyError, match="more than 5 labels in all"):
        parse(body.encode(), Metric("load", {"job": "web"}), 5)


@pytest.mark.parametrize("value", ['a"b', "a\\b", "a\nb", "ä", ""])
def test_a_wanted_value_is_found_however_it_is_written(value):
    written = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    assert values(f'load{{x="{written}"}} 7\nload{{x="other"}} 8\n'.encode(), x=value) == [7.0]


def test_only_sets_of_labels_that_vms_may_share_are_remembered():
    """A VM whose labels change at each scrape must not fill the memory with them."""

    def remembered(size):
        before = exposition._shared_labels.cache_info().misses
        body = f'load{{a="{"x" * size}"}} 1\n'.encode()
        assert values(body) == values(body) == [1.0]
        return exposition._shared_labels.cache_info().misses - before

    assert remembered(512 - len('a=""')) == 1
    assert remembered(512) == 0

"""Small and large runs for tests of reports, and a parser for their pages."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np

from autoscaler.simulator.replay.timeline import totals
from autoscaler.simulator.report.card import Card, Entry, card_json, values_of
from autoscaler.simulator.report.columns import columns_of
from autoscaler.simulator.report.figures import FIGURES
from tests.simulator.builders import row

CAPACITY = 100.0
EVIL = """</script><img src=x onerror="alert(1)">'&amp;<b>"""


def crowd(ticks=240, *, seed=0, crowds=((60, 90),), tick_s=60.0):
    """Rows of a quiet fleet of 3 VMs with counting noise, and crowds for which it has too few VMs."""
    noise = np.random.default_rng(seed).normal(0, 8, ticks)
    rows = []
    for number in range(ticks):
        high = next((100.0 * (1 + k) for k, (begin, end) in enumerate(crowds) if begin <= number < end), 0.0)
        demand = 240.0 + noise[number] + high
        rows.append(
            row(
                0, timestamp_s=1_772_409_600.0 + tick_s * number, demand=demand, forecast_hi=demand + 20,
                shortage=max(demand - 300.0, 0.0),
                reason=f"holding 3: demand {demand:.1f}/s with headroom needs 3 VMs (tick {number})",
            )
        )  # fmt: skip
    return rows


def document(rows, *, tick_s=60.0, name="this policy", not_scored_s=0.0, **details):
    """A report that compares these rows with a fleet that is always on."""
    t = totals(rows, tick_s)
    peak = {**values_of(t), "cost": 2 * t.cost, "unserved_share": 0.0, "shortage_s": 0.0, "episodes": 0.0}
    card = Card(
        FIGURES,
        (
            Entry("policy", name, "demand + 20%", values_of(t), judged=True),
            Entry("static_peak", "always on at peak", "As many VMs as the peak needs.", peak),
        ),
    )
    return {
        "version": 1,
        "identity": {"trace": "a" * 64, "policy": "b" * 64, "plant": "c" * 64, "code": "0.1.0", "seed": 1},
        "totals": {},
        "card": card_json(card),
        "details": {
            "fleet": "web", "trace": "crowd", "policy_file": "policies/web.yaml", "span_s": len(rows) * tick_s,
            "tick_s": tick_s, "not_scored_s": not_scored_s, "vm_capacity_per_s": CAPACITY, "engine": "loop",
            "notes": [], "cautions": [], **details,
        },
    }  # fmt: skip


def columns(rows, tick_s=60.0):
    return columns_of(rows, tick_s)


class Parsed(HTMLParser):
    """The elements, addresses, scripts and data of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.addresses, self.handlers, self.text = [], [], [], []
        self.scripts, self.data, self.policy = [], {}, ""
        self._inside = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.elements.append(tag)
        self.addresses += [given[name] for name in ("src", "href", "action", "data") if name in given]
        self.handlers += [name for name in given if name.startswith("on")]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        if tag in {"script", "style"}:
            self._inside = (tag, given.get("type"), given.get("id"))

    def handle_endtag(self, tag):
        if tag in {"script", "style"}:
            self._inside = None

    def handle_data(self, data):
        if self._inside is None:
            self.text.append(data)
        elif self._inside[:2] == ("script", None):
            self.scripts.append(data)
        elif self._inside[0] == "script":
            self.data[self._inside[2]] = data

    @property
    def words(self):
        return re.sub(r"\s+", " ", " ".join(self.text))


def unpacked(text):
    """Unpack what `packing.packed` has packed, as the page's script does."""
    data = gzip.decompress(base64.b64decode(text))
    told = int.from_bytes(data[:4], "little")
    base, found = 4 + told, {}
    for part in json.loads(data[4:base]):
        body = data[base + part["at"] : base + part["at"] + part["bytes"]]
        found[part["name"]] = (
            body.decode().split("\n")
            if part["type"] == "text"
            else np.frombuffer(
                body, f"<{part['type'][0]}{part['type'][-2:].replace('32', '4').replace('64', '8')}"
            )
        )
    return found

"""Advice for VMs that cannot be scraped, by the reason of the failure.

Rules of this file: pure. A message contains one remedy, that of the most frequent reason which has one. Reasons that pass by
themselves have none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

REMEDIES = tuple(
    (re.compile(reason), remedy)
    for reason, remedy in (
        # For a round that ended too early, the source itself says what to do.
        (r"first scrape|scraped twice|no answer when the round ended", ""),
        (
            r"its counters began anew",
            "if that repeats, see why the exporter restarts; a value that may fall takes `type: gauge`",
        ),
        (r"no address", "a VM has a private address once it runs; is this one in your network?"),
        (
            r"no answer within",
            "see whether the exporter is slow there, or allow more by `signal.scrape.timeout`",
        ),
        (r"HTTP 40[137]", "scraping sends no credentials, so admit this machine without them"),
        (r"HTTP 404", "is the path of `signal.scrape.url` right?"),
        (r"HTTP 3", "redirects are not followed: write the final address into `signal.scrape.url`"),
        (r"HTTP", "its own log says why"),
        (r"not a URL", "fix `signal.scrape.url`"),
        (r"broken answer", "check with curl: the answer ends too early, or is not HTTP"),
        (r"answer larger", "ask for less, for example by `?collect[]=cpu` in `signal.scrape.url`"),
        (r".*a web page came", "that is not a page of metrics, so fix `signal.scrape.url`"),
        (r"no metric", "check with curl whether it was renamed, and fix `signal.scrape.metric`"),
        (
            r"metric .* with these labels",
            "check with curl and fix the labels in `signal.scrape.metric`",
        ),
        (
            r"metric .* has series with more",
            'select fewer by labels in `signal.scrape.metric`, for example `requests_total{job="web"}`',
        ),
        (r"metric .* cannot be read", "check with curl: its lines are not Prometheus text"),
        (r"numbers too large", "check with curl: these are not counts of work"),
        (r"CPU counters", "they are not those of a node_exporter on Linux, so fix `signal.scrape.url`"),
        (r"", "does an exporter listen there, and may this machine reach it? `signal.scrape.url` says where"),
    )
)
"""Pairs of the beginning of a reason and its remedy. The first match counts; the last is for the system's connection errors."""


def remedy(errors: Mapping[str, str]) -> str:
    """What a person should do first; empty if nothing needs to be done.

    Args:
        errors: Reason by place (address or VM id), in the words of `fan_out`, `exposition` and `scrape`.
    """
    for reason, _ in Counter(errors.values()).most_common():
        found = next(remedy for fits, remedy in REMEDIES if fits.match(reason))
        if found:
            return found
    return ""

"""CHANGELOG.md tells upgrading operators first what they must do, in short entries."""

import re
from pathlib import Path

import autoscaler

CHANGELOG = Path(autoscaler.__file__).parents[1] / "CHANGELOG.md"
SECTION = re.compile(r"^(Before you upgrade|Changed|(New|Repaired): [a-z].+)$")
LONGEST = 600
"""Characters of an entry, about four lines."""


def unreleased():
    """Sections of the newest version: heading, and entries as one line each."""
    newest = CHANGELOG.read_text(encoding="utf-8").split("\n## ")[1]
    for part in newest.split("\n### ")[1:]:
        heading, _, body = part.partition("\n")
        yield (
            heading,
            [re.sub(r"\s+", " ", entry) for entry in re.split(r"^- ", body, flags=re.MULTILINE)[1:]],
        )


def test_what_to_do_stands_first_and_the_rest_is_grouped_by_subject():
    headings = [heading for heading, _ in unreleased()]
    assert headings[0] == "Before you upgrade"
    assert [heading for heading in headings if not SECTION.match(heading)] == []
    assert len(set(headings)) == len(headings)


def test_no_entry_is_longer_than_four_lines():
    assert [entry for _, entries in unreleased() for entry in entries if len(entry) > LONGEST] == []

"""README.md is short as a whole, in its paragraphs and in its sentences; for the guides, the limits are looser."""

import re
from pathlib import Path

import pytest

import autoscaler
from autoscaler.settings import Settings

ROOT = Path(autoscaler.__file__).parents[1]
README = ROOT / "README.md"
MOST_LINES = 300
MOST_LINES_OF_A_PARAGRAPH = 3
MOST_WORDS_OF_A_SENTENCE = 30
WIDEST = 125
GUIDES = ("deploy/README.md", "policies/README.md", "simulations/README.md")


def prose(text):
    """Paragraphs and items of lists, as lists of lines; without code, tables, headings and pictures."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for block in re.split(r"\n\s*\n|\n(?=(?:- |\d+\. ))", plain):
        lines = [line for line in block.splitlines() if line.strip()]
        if lines and not lines[0].startswith(("|", "#", "![", "    ")):
            yield lines


def sentences(lines):
    """Sentences of a paragraph, as lists of words; of a link its words count."""
    said = re.sub(r"\]\([^)]*\)", "]", " ".join(lines))
    said = re.sub(r"`[^`]*`", "code", said)
    return [
        re.findall(r"\S*\w\S*", part) for part in re.split(r"(?<=[.?:;!])\*{0,2}\s+", said) if part.strip()
    ]


def too_long(text, most_lines=MOST_LINES_OF_A_PARAGRAPH, most_words=MOST_WORDS_OF_A_SENTENCE, widest=WIDEST):
    """What a reader would not read to the end, in words."""
    found = []
    for lines in prose(text):
        if len(lines) > most_lines:
            found.append(f"{len(lines)} lines: {lines[0]}")
        found += [f"{len(line)} columns: {line}" for line in lines if len(line) > widest and "](" not in line]
        found += [
            f"{len(words)} words: {' '.join(words)}" for words in sentences(lines) if len(words) > most_words
        ]
    return found


def test_a_long_sentence_and_a_long_paragraph_are_found():
    words = " ".join(["a"] * 31)
    assert too_long(f"{words}.\n") == [f"31 words: {words}."]
    assert too_long("one\ntwo\nthree\nfour\n") == ["4 lines: one"]
    assert too_long("```\n" + "code\n" * 9 + "```\n\n| a | b |\n") == []
    assert too_long("- one\n- two\n- three\n- four\n") == []


def test_it_takes_five_minutes():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    assert too_long(text) == []


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_read_by_section(guide):
    text = (ROOT / guide).read_text(encoding="utf-8")
    assert too_long(text, most_lines=6, most_words=42, widest=170) == []


def test_settings_of_a_first_start_are_there_with_their_defaults():
    table = README.read_text(encoding="utf-8").partition("\n## Settings\n")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("| `")
    ]
    told = [
        (name, default)
        for names, defaults, _ in rows
        for name, default in zip(
            re.findall(r"`(\w+)`", names), [d.strip(" `") for d in defaults.split(",")] * 2, strict=False
        )
    ]
    assert {"policies", "state_dir", "aws_region", "tick_s", "http_port"} <= {name for name, _ in told}
    for name, default in told:
        own = Settings.model_fields[name].default
        assert default == ("none" if not own else f"{own:g}" if isinstance(own, float) else str(own)), name

"""The page in a real browser: it draws, responds, fits the window, and loads nothing from elsewhere."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from autoscaler.simulator.benchmark.page import page_text
from autoscaler.simulator.report.page import write_page
from autoscaler.simulator.report.variants import variants_json
from tests.chromium import ARGUMENTS, CHROMIUM, IS_THERE
from tests.real import require_real
from tests.simulator.reports import EVIL, columns, crowd, document
from tests.simulator.test_benchmark import bout_of

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 375, "height": 812}
MONTH_OF_MINUTES = 43_200
MOST_FRAMES = 1800
PATIENCE_MS = 200_000

pytestmark = pytest.mark.real


@pytest.fixture(name="browser", scope="module")
def _browser(tmp_path_factory):
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require_real("playwright", available=False)
    require_real("Chromium", IS_THERE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=PATIENCE_MS
        )
        yield Screens(browser, tmp_path_factory.mktemp("shown"))
        browser.close()


@pytest.fixture(name="month", scope="module")
def _month(tmp_path_factory):
    """A month of minutes with 40 crowds."""
    rows = crowd(MONTH_OF_MINUTES, crowds=[(1000 * k + 100, 1000 * k + 110 + k) for k in range(40)], seed=5)
    path = tmp_path_factory.mktemp("month") / "report.html"
    write_page(path, document(rows, not_scored_s=600.0), columns(rows))
    return path


class Screens:
    """A browser with one tab for each kind of screen, and the file that is shown in all of them.

    All that a page keeps goes with it when the next one is opened, but what has been compiled for a tab and an address stays:
    Plotly takes three seconds.
    """

    def __init__(self, browser, folder):
        self.browser, self.file, self.tabs = browser, folder / "report.html", {}

    def tab(self, **context):
        kind = tuple(sorted(context.items()))
        if kind not in self.tabs:
            opened = self.browser.new_context(**context)
            opened.set_default_timeout(PATIENCE_MS)
            self.tabs[kind] = opened.new_page()
        return self.tabs[kind]


class Looked:
    """A page in a browser, with what it said and whom it asked."""

    def __init__(self, browser, path, viewport, color_scheme="light", **context):
        shutil.copyfile(path, browser.file)
        self.page, self.address = browser.tab(**context), browser.file.as_uri()
        self.page.set_viewport_size(viewport)
        self.page.emulate_media(media="screen", color_scheme=color_scheme)
        self.said, self.asked = [], []
        self.listeners = {
            "console": lambda message: self.said.append(f"{message.type}: {message.text}"),
            "pageerror": lambda error: self.said.append(str(error)),
            "request": lambda request: self.asked.append(request.url),
        }
        for event, listener in self.listeners.items():
            self.page.on(event, listener)
        self.page.goto(self.address)
        self.page.wait_for_selector("[data-ready=true]")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for event, listener in self.listeners.items():
            self.page.remove_listener(event, listener)
        self.page.mouse.move(0, 0)
        self.page.goto("about:blank")

    def overflow(self):
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")

    def wait_for(self, expression):
        """Wait until it is true, asking once per frame: the page's policy refuses playwright's own waiting."""
        for _ in range(MOST_FRAMES):
            if self.page.evaluate(f"new Promise(requestAnimationFrame).then(() => Boolean({expression}))"):
                return
        pytest.fail(f"never true: {expression}; the page said {self.said}")

    def range(self):
        """Seconds that the chart shows."""
        return self.page.evaluate(
            "(() => { const [a, b] = document.getElementById('chart').layout.xaxis.range;"
            "return (Date.parse(b + 'Z') - Date.parse(a + 'Z')) / 1000; })()"
        )

    def chart(self):
        """Where the chart's upper part is, once it is in sight."""
        self.page.locator("#chart").scroll_into_view_if_needed()
        return self.page.locator("#chart .nsewdrag").first.bounding_box()

    def bottom(self, selector):
        box = self.page.locator(selector).bounding_box()
        return box["y"] + box["height"]


def test_the_area_of_shortage_has_no_height_in_gaps_and_where_capacity_suffices(browser, tmp_path):
    rows = [row for at, row in enumerate(crowd(240, crowds=((60, 90),))) if at % 50 != 49]
    path = tmp_path / "report.html"
    write_page(path, document(rows), columns(rows))
    with Looked(browser, path, DESKTOP) as looked:
        low, high = looked.page.evaluate(
            "['base', 'shortage'].map(name => document.getElementById('chart').data.find(one => one.name === name))"
            ".map(one => one.y)"
        )
    assert len(low) == len(high)
    assert None not in low + high, "a broken edge is joined across"
    apart = [at for at, (below, above) in enumerate(zip(low, high, strict=True)) if above > below]
    assert 0 < len(apart) <= 40
    assert apart[-1] - apart[0] <= 40, "one stretch, that of the crowd"


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_quietly_with_its_conclusion_in_sight(browser, month, viewport, scheme):
    with Looked(browser, month, viewport, color_scheme=scheme) as looked:
        assert looked.said == []
        assert looked.asked == [looked.address]
        assert looked.overflow() <= 0
        assert looked.bottom("h1") < viewport["height"] / 2
        assert looked.bottom("dl.key") < viewport["height"]
        background = looked.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = min(int(number) for number in re.findall(r"\d+", background)[:3]) > 200
        assert light == (scheme == "light")
        assert looked.page.locator("#chart .scatterlayer .trace").count() >= 6


def test_looking_at_a_shortage_shows_it_tick_by_tick_with_reasons(browser, month):
    with Looked(browser, month, DESKTOP) as looked:
        page = looked.page
        whole_s = looked.range()
        assert not page.locator("#episode").is_visible()
        page.click("[data-episode='0']")
        page.wait_for_selector("#episode tbody tr.short")
        assert looked.range() < whole_s / 100
        shown = page.locator("#episode tbody tr")
        assert shown.count() == 15 + 49 + 15
        assert page.locator("#episode tr.short").count() >= 49
        assert "holding 3: demand" in shown.first.locator("td.words").inner_text()
        # The tick with the worst shortage is read at once.
        assert "short by" in page.locator("#readout").inner_text()
        assert page.evaluate("document.activeElement.closest('#episode') !== null")
        page.get_by_role("button", name="Close", exact=True).click()
        assert not page.locator("#episode").is_visible()
        assert page.evaluate("document.activeElement.dataset.episode") == "0"
        page.click("#whole")
        assert looked.range() == pytest.approx(whole_s)
        assert looked.said == []


def test_pointing_at_the_chart_reads_the_decision_there(browser, month):
    with Looked(browser, month, DESKTOP) as looked:
        page = looked.page
        box = looked.chart()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        looked.wait_for(
            "/holding 3: demand .* needs 3 VMs \\(tick \\d+\\)/.test(document.getElementById('readout').textContent)"
        )
        tick = int(re.search(r"\(tick (\d+)\)", page.locator("#readout").inner_text())[1])
        assert tick == pytest.approx(MONTH_OF_MINUTES / 2, rel=0.02)


def test_clicking_a_mark_in_the_chart_opens_its_shortage(browser, tmp_path):
    rows = crowd(300, crowds=((140, 160),))
    write_page(tmp_path / "report.html", document(rows), columns(rows))
    with Looked(browser, tmp_path / "report.html", DESKTOP) as looked:
        box = looked.chart()
        x = box["x"] + box["width"] * 150 / 300
        looked.page.mouse.move(x, box["y"] + box["height"] / 3)
        looked.page.mouse.click(x, box["y"] + box["height"] / 3)
        looked.page.wait_for_selector("#episode tbody tr.short")
        assert looked.page.locator("#episode tr.short").count() == 20


def test_dragging_looks_closer(browser, month):
    with Looked(browser, month, DESKTOP) as looked:
        box = looked.chart()
        y = box["y"] + box["height"] / 2
        before_s = looked.range()
        looked.page.mouse.move(box["x"] + box["width"] * 0.4, y)
        looked.page.mouse.down()
        looked.page.mouse.move(box["x"] + box["width"] * 0.6, y, steps=5)
        looked.page.mouse.up()
        looked.wait_for(
            f"(() => {{ const [a, b] = document.getElementById('chart').layout.xaxis.range; return (Date.parse(b + 'Z') - Date.parse(a + 'Z')) / 1000 < {before_s / 2}; }})()"
        )
        assert looked.range() == pytest.approx(before_s / 5, rel=0.1)


def test_the_keyboard_is_enough(browser, month):
    with Looked(browser, month, DESKTOP) as looked:
        page = looked.page
        page.focus("#chart")
        page.keyboard.press("Home")
        assert "(tick 0)" in page.locator("#readout").inner_text()
        for _ in range(3):
            page.keyboard.press("ArrowRight")
        assert "(tick 3)" in page.locator("#readout").inner_text()
        page.keyboard.press("PageDown")
        assert "(tick 63)" in page.locator("#readout").inner_text()
        page.keyboard.press("Enter")
        page.wait_for_selector("#episode tbody tr.short")
        for name in ("Whole run", "Closer", "Wider", "Earlier", "Later", "Worst episode"):
            assert page.get_by_role("button", name=name, exact=True).is_enabled()


def test_a_phone_shows_a_tick_without_scrolling_sideways(browser, month):
    with Looked(browser, month, PHONE, has_touch=True, is_mobile=True) as looked:
        page = looked.page
        page.locator("[data-episode='0']").tap()
        page.wait_for_selector("#episode tbody tr.short")
        first = page.locator("#episode tr.short").first
        words = first.locator("td.words").bounding_box()
        assert words["x"] >= 0
        assert words["x"] + words["width"] <= PHONE["width"]
        assert looked.overflow() <= 0
        assert looked.said == []


def test_a_tap_on_a_phone_reads_the_decision_and_the_page_still_scrolls(browser, month):
    with Looked(browser, month, PHONE, has_touch=True, is_mobile=True) as looked:
        page = looked.page
        box = looked.chart()
        page.touchscreen.tap(box["x"] + box["width"] / 3, box["y"] + box["height"] / 2)
        looked.wait_for("/\\(tick \\d+\\)/.test(document.getElementById('readout').textContent)")
        before = page.evaluate("window.scrollY")
        finger = page.context.new_cdp_session(page)
        x, y = box["x"] + 100, box["y"] + 100
        for kind, moved in (("touchStart", 0), *(("touchMove", 20 * step) for step in range(1, 11))):
            points = [{"x": x, "y": y - moved}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        looked.wait_for(f"window.scrollY > {before + 100}")
        assert looked.said == []


def test_text_that_looks_like_markup_is_shown_as_it_is(browser, tmp_path):
    rows = [
        row.__class__(**{**{n: getattr(row, n) for n in row.__dataclass_fields__}, "reason": EVIL})
        for row in crowd(80, crowds=((30, 40),))
    ]
    doc = document(rows, name=EVIL)
    doc["sweep"] = variants_json(
        {EVIL: [EVIL, "x", EVIL, "x"], "b<i>": [1, 1, 2, 2]},
        {"cost": np.array([1.0, 2, 3, 4]), "shortage_s": np.array([4.0, 3, 2, 5])},
        current=1,
    )
    write_page(tmp_path / "report.html", doc, columns(rows), {EVIL: columns(rows)})
    with Looked(browser, tmp_path / "report.html", DESKTOP) as looked:
        page = looked.page
        page.click("[data-episode='0']")
        page.wait_for_selector("#episode tbody tr.short")
        assert page.locator("#episode td.words").first.inner_text() == EVIL
        page.wait_for_selector("#heat .heatmaplayer")
        assert page.locator("img").count() == 0
        assert EVIL in page.locator("table.card thead").inner_text()
        assert looked.said == []
        assert looked.asked == [looked.address]


def test_the_variants_of_a_sweep_can_be_read_and_turned(browser, tmp_path):
    headroom, cover = [0.1, 0.2, 0.3] * 2, ["50%"] * 3 + ["95%"] * 3
    cost = np.array([10.0, 11, 12, 13, 14, 9])
    doc = document(crowd(60))
    doc["sweep"] = variants_json(
        {"reactive.headroom": headroom, "forecast.cover": cover},
        {"cost": cost, "shortage_s": np.array([60.0, 50, 40, 70, np.nan, 80])},
        current=1,
    )
    write_page(tmp_path / "report.html", doc, None)
    with Looked(browser, tmp_path / "report.html", DESKTOP) as looked:
        page = looked.page
        front = page.evaluate("document.getElementById('pareto').data[1].x")
        assert front == [9, 10, 11, 12]
        looked.wait_for("document.getElementById('heat').data !== undefined")
        assert page.evaluate("document.getElementById('heat').data[0].z") == [[10, 11, 12], [13, 14, 9]]
        page.select_option("#across", "forecast.cover")
        page.select_option("#up", "reactive.headroom")
        page.select_option("#shows", "shortage_s")
        assert page.evaluate("document.getElementById('heat').data[0].z") == [[60, 70], [50, None], [40, 80]]
        page.locator("#pareto .points path").last.hover(force=True)
        looked.wait_for("document.getElementById('variant').textContent.includes('reactive.headroom 0.2')")
        assert page.locator("#variant").inner_text() == (
            "reactive.headroom 0.2, forecast.cover 50%: cost 11.00, time with shortage 50 s"
        )
        assert looked.said == []


def test_policies_drawn_beside_are_told_apart_and_within_the_chart(browser, tmp_path):
    rows = crowd(240, crowds=((60, 90),))
    more = [replace(row, capacity=5 * (row.capacity or 0)) for row in rows]
    path = tmp_path / "report.html"
    write_page(path, document(rows), columns(rows), {"lean": columns(rows), "large": columns(more)})
    with Looked(browser, path, DESKTOP) as looked:
        drawn = looked.page.evaluate(
            "document.getElementById('chart').data.filter(one => one.name.startsWith('capacity, '))"
            ".map(one => [one.line.color, Math.max(...one.y)])"
        )
        shown = looked.page.evaluate("document.getElementById('chart').layout.yaxis.range[1]")
        listed = looked.page.evaluate(
            "[...document.querySelectorAll('.legend .dashes')].map(one => getComputedStyle(one).borderTopColor)"
        )
    assert len({colour for colour, _ in drawn}) == len(set(listed)) == 2
    assert max(highest for _, highest in drawn) <= shown


def test_the_page_of_a_benchmark_fits_a_phone_and_names_its_axes(browser, tmp_path):
    bouts = [bout_of("day", {"ours": (0.1, 0.2, 0.3), "google": (1.2, 1.3, 2.4)})]
    path = tmp_path / "results.html"
    path.write_text(page_text(bouts, "ours", "this program", ("google",)), encoding="utf-8")
    for viewport in (DESKTOP, PHONE):
        with Looked(browser, path, viewport) as looked:
            assert looked.said == []
            assert looked.overflow() <= 0
            assert looked.page.locator("h1").inner_text().startswith("This program against")
            wide = looked.page.evaluate(
                "[...document.querySelectorAll('.bench.words')].map(t => t.scrollWidth)"
            )
            assert max(wide) <= viewport["width"]
            ticks = looked.page.evaluate(
                "[...document.querySelectorAll('#bars .ytick text')].map(t => t.textContent)"
            )
            assert ticks[:4] == ["1.2", "1.5", "2", "3"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_number_of_the_heat_map_can_be_read(browser, tmp_path, scheme):
    doc = document(crowd(60))
    doc["sweep"] = variants_json(
        {"a": [1, 2, 3, 4], "b": [1] * 4}, {"cost": np.arange(4.0), "shortage_s": np.arange(4.0)}, current=1
    )
    write_page(tmp_path / "report.html", doc, None)
    with Looked(browser, tmp_path / "report.html", DESKTOP, color_scheme=scheme) as looked:
        looked.wait_for("document.querySelectorAll('#heat .heatmap-label text').length === 4")
        text = looked.page.evaluate(
            "getComputedStyle(document.querySelector('#heat .heatmap-label text')).fill.match(/[0-9]+/g).map(Number)"
        )
        scale = looked.page.evaluate("document.getElementById('heat').data[0].colorscale.map(([_, c]) => c)")
    for end in scale:
        assert contrast(text, [int(end[at : at + 2], 16) for at in (1, 3, 5)]) >= 4.5


def contrast(one, other):
    """Of two colours, as of WCAG 2.1."""
    lights = []
    for colour in (one, other):
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        lights.append(0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2])
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_durations_of_variants_are_in_order_of_their_length(browser, tmp_path):
    doc = document(crowd(60))
    lengths = ["5m", "1h30m", "100s", "15m"]
    doc["sweep"] = variants_json(
        {"guards.stabilisation": lengths, "forecast.cover": ["50%"] * 4},
        {"cost": np.arange(4.0), "shortage_s": np.arange(4.0)},
        current=1,
    )
    write_page(tmp_path / "report.html", doc, None)
    with Looked(browser, tmp_path / "report.html", DESKTOP) as looked:
        looked.wait_for("document.getElementById('heat').data !== undefined")
        shown = looked.page.evaluate("document.getElementById('heat').data[0].x")
    assert shown == ["100s", "5m", "15m", "1h30m"]


def test_without_scripts_the_tables_still_read(browser, month):
    context = browser.browser.new_context(viewport=DESKTOP, java_script_enabled=False)
    page = context.new_page()
    page.goto(month.as_uri())
    assert "costs 50% less" in page.locator("h1").inner_text()
    assert page.locator("[data-episode]").count() >= 40
    assert "The chart needs scripts" in page.locator("noscript").inner_text()
    context.close()


def test_the_colours_follow_the_system_while_the_page_is_open(browser, month):
    with Looked(browser, month, DESKTOP, color_scheme="light") as looked:
        colour = "document.getElementById('chart').layout.paper_bgcolor"
        before = looked.page.evaluate(colour)
        looked.page.emulate_media(color_scheme="dark")
        looked.wait_for(f"{colour} !== {before!r}")
        assert looked.said == []


def test_on_paper_charts_are_dark_on_white_and_no_column_is_cut_off(browser, month):
    with Looked(browser, month, {"width": 718, "height": 1100}, color_scheme="dark") as looked:
        colour = "document.getElementById('chart').layout.paper_bgcolor"
        seen = looked.page.evaluate(colour)
        looked.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        looked.wait_for(f"{colour} === '#ffffff'")
        looked.page.emulate_media(media="print")
        cut = "[...document.querySelectorAll('.scroll')].map((each) => each.scrollWidth - each.clientWidth)"
        assert max(looked.page.evaluate(cut)) <= 0
        looked.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
        looked.wait_for(f"{colour} === {seen!r}")
        assert looked.said == []

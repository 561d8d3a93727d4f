"""The status page in a real browser, with a running daemon: it shows, updates, fits the window, and loads nothing else."""

import pytest
import pytest_asyncio

from autoscaler.daemon.loop import Daemon
from autoscaler.errors import ProviderError
from autoscaler.ports import Note
from autoscaler.store.history import JournalHistory
from autoscaler.store.journal import SqliteJournal
from autoscaler.web.site import Site
from tests.chromium import ARGUMENTS, CHROMIUM, IS_THERE
from tests.daemon.builders import TICK_0, Bench, policy
from tests.real import require_real
from tests.web.test_web_site import SetClock

PATIENCE_MS = 60_000
EVIL = "<img src=x onerror=\"document.body.dataset.owned='yes'\">"

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(name="chromium", scope="module", loop_scope="module")
async def _chromium():
    try:
        from playwright.async_api import async_playwright
    except ImportError:
        require_real("playwright", available=False)
    require_real("Chromium", IS_THERE)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=ARGUMENTS, timeout=PATIENCE_MS
        )
        yield browser
        await browser.close()


@pytest_asyncio.fixture(name="browser", loop_scope="module")
async def _browser(chromium):
    """One browser, in which no test finds anything of another: each page has a context of its own, which ends with its test."""
    yield chromium
    for context in chromium.contexts:
        await context.close()


class Shown:
    """A daemon with a journal, its site, and a page of it in the browser."""

    def __init__(self, tmp_path, names=("web",)):
        self.bench = Bench(vms=6, running=2, clock=SetClock())
        self.bench.journal = SqliteJournal(tmp_path)
        for name in names:
            self.bench.add(policy(name), 150.0)
        bench = self.bench
        self.daemon = Daemon(bench.clock, bench.setups, bench.journal, bench.telemetry, bench.settings)
        self.state_dir, self.ticks = tmp_path, 0
        self.said, self.asked = [], []

    async def tick(self, count=1):
        for _ in range(count):
            self.bench.clock.at_s = 10.0 * self.ticks
            await self.daemon.tick(TICK_0 + self.ticks)
            self.ticks += 1

    async def open(self, browser, site, width=1280, at=""):
        page = await browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        await page.goto(f"{site.url}/{at}")
        await page.wait_for_selector("[data-ready=true]")
        return page


async def wait_for(page, expression):
    """Ask once per frame, as the page's policy refuses playwright's own waiting; the page asks again within seconds."""
    for _ in range(3600):
        if await page.evaluate(f"new Promise(requestAnimationFrame).then(() => Boolean({expression}))"):
            return
    raise AssertionError(f"never: {expression}; the page says {await page.inner_text('body')}")


@pytest_asyncio.fixture(name="shown", loop_scope="module")
async def _shown(tmp_path):
    shown = Shown(tmp_path)
    yield shown
    await shown.bench.journal.close()


async def test_it_shows_the_fleet_its_past_and_its_events(shown, browser):
    await shown.tick(30)
    await shown.bench.journal.record_events(
        shown.bench.clock.now(), [Note("policies_reloaded", "", f"changed {EVIL}")]
    )
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(shown.state_dir)) as site:
        page = await shown.open(browser, site)
        await wait_for(page, "document.querySelectorAll('#chart path.demand').length === 1")
        assert await page.inner_text("#health") == "healthy"
        row = (await page.inner_text("#fleets tbody tr")).split()
        assert row[:6] == ["web", "150", "200", "2", "2", "0"]
        assert (await page.inner_text("#sentence")).startswith("holding 2: ")
        # Thirty points, of which the first knew of no demand yet.
        line = await page.get_attribute("#chart path.demand", "d")
        assert (line.count("M"), line.count("L")) == (1, 28)
        assert EVIL in await page.inner_text("#events")
        assert await page.evaluate("document.body.dataset.owned") is None
        assert "in service 2" in await page.inner_text("#readout")
        await page.focus("#chart")
        before = await page.inner_text("#readout")
        for _ in range(3):
            await page.keyboard.press("ArrowLeft")
        assert await page.inner_text("#readout") != before
        assert {url.split("/")[2] for url in shown.asked} == {site.url.split("/")[2]}
        assert shown.said == []


async def test_where_places_have_names_each_fleet_has_its_own_and_what_is_old_of_one_is_at_the_top(
    shown, browser
):
    provider = shown.bench.setups[0].provider
    provider.name = "far"
    await shown.tick(2)
    listing = provider.list_vms

    async def failing():
        raise ProviderError("the endpoint is gone")

    provider.list_vms = failing
    await shown.tick(8)
    provider.list_vms = listing
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(shown.state_dir)) as site:
        page = await shown.open(browser, site)
        assert (await page.inner_text("#fleets tbody tr")).split()[:3] == ["web", "in", "far"]
        assert await page.inner_text("#one-head") == "web in far"
        problems = await page.inner_text("#problems")
        assert problems == "Places: no complete list of VMs for 80 s: far: the endpoint is gone"
        await page.fill("#filter", "far", force=True)
        assert shown.said == []


async def test_it_follows_the_daemon_and_says_when_that_is_gone(shown, browser):
    await shown.tick(3)
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(shown.state_dir)) as site:
        page = await shown.open(browser, site)
        shown.bench.setups[0].source.demand = 450.0
        await shown.tick(3)
        await wait_for(page, "document.querySelector('#fleets tbody').innerText.includes('450')")
        assert float((await page.inner_text("#fleets tbody tr")).split()[3]) > 2
    await wait_for(page, "document.querySelector('#health').textContent === 'no answer'")
    assert "what is shown is old" in await page.inner_text("#problems")
    assert "450" in await page.inner_text("#fleets")


async def test_trouble_is_at_the_top_in_words(shown, browser):
    await shown.tick(2)
    shown.bench.clock.at_s += 60.0
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(shown.state_dir)) as site:
        page = await shown.open(browser, site)
        assert await page.inner_text("#health") == "trouble"
        assert "web has had no decision for" in await page.inner_text("#problems")


async def test_many_fleets_are_found_by_name_and_opened_by_their_address(tmp_path, browser):
    shown = Shown(tmp_path, [f"fleet-{number}" for number in range(12)] + ["shop"])
    await shown.tick(3)
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(tmp_path)) as site:
        page = await shown.open(browser, site)
        assert await page.is_hidden("#one")
        await page.fill("#filter", "sho")
        assert await page.locator("#fleets tbody tr").count() == 1
        await page.click("#fleets tbody a")
        await wait_for(page, "document.querySelector('#one-head').textContent === 'shop'")
        assert page.url.endswith("#fleet=shop")
        page = await shown.open(browser, site, at="#fleet=fleet-7")
        assert await page.inner_text("#one-head") == "fleet-7"
        assert shown.said == []
    await shown.bench.journal.close()


async def test_of_many_fleets_it_says_first_which_need_a_look(tmp_path, browser):
    shown = Shown(tmp_path, ["web", *(f"without-any-vm-{number}" for number in range(11))])
    shown.bench.setups[0].source.demand = 5_000.0
    await shown.tick(3)
    async with Site(shown.daemon, "127.0.0.1", 0, history=JournalHistory(tmp_path)) as site:
        page = await shown.open(browser, site, 390)
        assert (await page.inner_text("#sum")).startswith("12 of 12 fleets act: ")
        lines = await page.locator("#look li").all_inner_texts()
        assert len(lines) == 2
        assert lines[0].startswith("1 fleet is short: web of ")
        assert lines[1].startswith("without-any-vm-0, without-any-vm-1, ")
        assert lines[1].endswith(" and 5 more: Metrics: nobody to ask")
        await page.click("#look a >> nth=0")
        await wait_for(page, "!document.querySelector('#one').hidden")
        beyond = "(() => { const at = document.querySelector('.scroll'); return at.scrollWidth - at.clientWidth; })()"
        assert await page.evaluate(beyond) <= 0
        assert shown.said == []
    await shown.bench.journal.close()


async def test_on_a_phone_it_is_seen_without_scrolling_whether_a_fleet_is_short(shown, browser):
    await shown.tick(2)
    async with Site(shown.daemon, "127.0.0.1", 0) as site:
        page = await shown.open(browser, site, 390)
        heads = page.locator("#fleets th:visible")
        assert await heads.all_inner_texts() == [
            "fleet",
            "demand/s",
            "wanted",
            "in service",
            "short/s",
        ]
        beyond = await page.evaluate(
            "(() => { const at = document.querySelector('.scroll'); return at.scrollWidth - at.clientWidth; })()"
        )
        assert beyond <= 0


@pytest.mark.parametrize("width", [390, 1280])
async def test_it_fits_the_screen_and_shows_without_a_journal_what_it_sees(shown, browser, width):
    await shown.tick(2)
    async with Site(shown.daemon, "127.0.0.1", 0) as site:
        page = await shown.open(browser, site, width)
        assert await page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        await shown.tick(1)
        await wait_for(page, "document.querySelectorAll('#chart path.demand').length === 1")


async def test_programs_get_text_and_browsers_a_page_that_runs_nothing_else(shown):
    import aiohttp

    async with Site(shown.daemon, "127.0.0.1", 0) as site, aiohttp.ClientSession() as session:
        async with session.get(f"{site.url}/") as answer:
            assert (await answer.text()).startswith("autoscaler: /metrics /healthz /api/v1/status")
        async with session.get(f"{site.url}/", headers={"Accept": "text/html,*/*"}) as answer:
            assert answer.content_type == "text/html"
            rules = answer.headers["Content-Security-Policy"]
            assert "default-src 'none'" in rules
            assert "unsafe" not in rules
            assert "frame-ancestors 'none'" in rules
        for name in ("status.css", "status.js"):
            async with session.get(f"{site.url}/{name}") as answer:
                assert answer.status == 200
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
        async with session.get(f"{site.url}/status.html.bak") as answer:
            assert answer.status == 404

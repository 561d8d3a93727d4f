"use strict";
/* Draws the timeline of a report and answers clicks and keys; the charts of a sweep are variants.js.
 *
 * Rules of this file: no connection, no evaluated text, no HTML from data (textContent only; plotly reads some
 * tags in its labels, so names given by people pass `plain`). A long view is drawn from a subset of the real
 * ticks with the extremes of each bucket, as in thinning.py.
 */
(() => {
  const byId = (id) => document.getElementById(id);
  const meta = JSON.parse(byId("meta").textContent);
  const MOST_DRAWN = 2400;
  const AROUND = 15;
  const MOST_LISTED = 600;
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const touch = matchMedia("(pointer: coarse)").matches;
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // ── unpacking ────────────────────────────────────────────────────────────────────────────────────────

  async function inflated(id) {
    const packed = atob(byId(id).textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).arrayBuffer();
  }

  async function unpack(id) {
    const buffer = await inflated(id);
    const told = new DataView(buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, told)));
    const base = 4 + told;
    const kinds = { float32: Float32Array, float64: Float64Array, int32: Int32Array };
    const found = {};
    for (const { name, type, at, bytes } of header) {
      found[name] =
        type === "text"
          ? new TextDecoder().decode(new Uint8Array(buffer, base + at, bytes)).split("\n")
          : new kinds[type](buffer, base + at, bytes / kinds[type].BYTES_PER_ELEMENT);
    }
    return found;
  }

  async function loadPlotly() {
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await inflated("plotly"));
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not run");
  }

  // ── words ────────────────────────────────────────────────────────────────────────────────────────────

  const unknown = "?";
  const digits = (most) => new Intl.NumberFormat("en-US", { maximumFractionDigits: most });
  const whole = digits(0);
  const fine = digits(1);
  const number = (value) => (Number.isFinite(value) ? (Math.abs(value) < 100 ? fine : whole).format(value) : unknown);
  const days = new Intl.DateTimeFormat("en-GB", { weekday: "short", day: "2-digit", month: "short", timeZone: "UTC" });
  const clock = (at) => new Date(at * 1000).toISOString().slice(11, meta.interval_s % 60 ? 19 : 16);
  const moment = (at) => `${days.format(at * 1000).replace(",", "")} ${clock(at)}`;
  const iso = (at) => new Date(at * 1000).toISOString().slice(0, 19);
  const seconds = (text) => Date.parse(/Z$|[+-]\d\d:\d\d$/.test(text) ? text : `${String(text).replace(" ", "T")}Z`) / 1000;
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function span(length) {
    for (const [unit, least, name] of [[86400, 172800, "days"], [3600, 7200, "h"], [60, 120, "min"]]) {
      if (length >= least) return `${fine.format(length / unit)} ${name}`;
    }
    return `${fine.format(length)} s`;
  }

  function element(tag, text, more = {}) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    for (const [name, value] of Object.entries(more)) made.setAttribute(name, value);
    return made;
  }

  // ── looks ────────────────────────────────────────────────────────────────────────────────────────────

  function colours() {
    const style = getComputedStyle(document.documentElement);
    const names = ["page", "line", "text", "muted", "demand", "capacity", "wanted", "ahead", "warm", "starting", "short", "short-soft", "idle", "heat", "beside0", "beside1", "beside2"];
    return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
  }

  // Charts are drawn again when their colours change: with the system's colour scheme, and for printing on white paper.
  function recoloured(again) {
    dark.addEventListener("change", () => again());
    for (const [when, paper] of [["beforeprint", true], ["afterprint", false]]) {
      window.addEventListener(when, () => {
        document.documentElement.classList.toggle("paper", paper);
        again();
      });
    }
  }

  function looks() {
    const c = colours();
    const axis = {
      gridcolor: c.line, linecolor: c.line, zeroline: false, tickcolor: c.line, fixedrange: true,
      tickfont: { color: c.muted, size: 12 }, title: { font: { color: c.muted, size: 12 } },
    };
    const font = { family: getComputedStyle(document.body).fontFamily, color: c.text, size: 13 };
    return { c, axis, layout: { paper_bgcolor: c.page, plot_bgcolor: c.page, font, showlegend: false } };
  }

  const config = { displayModeBar: false, responsive: true, doubleClick: false, scrollZoom: false };

  // ── the timeline ─────────────────────────────────────────────────────────────────────────────────────

  function timeline(ticks) {
    const chart = byId("chart");
    const stamps = ticks.stamp;
    const step = meta.interval_s;
    const first = stamps[0];
    const last = stamps[stamps.length - 1] + step;
    const shownShare = stamps.length < meta.ticks;
    const others = meta.others.map((_, at) => ({ capacity: ticks[`other${at}.capacity`] }));
    let view = [first, last];
    let cursor = -1;
    let chosen = -1;

    const rowAt = (at) => {
      let low = 0;
      let high = stamps.length;
      while (low < high) {
        const middle = (low + high) >> 1;
        if (stamps[middle] <= at) low = middle + 1;
        else high = middle;
      }
      return Math.max(low - 1, 0);
    };

    const drawn = ["demand", "capacity", "shortage", "desired", "in_service", "starting", "stopped"].map((name) => ticks[name]);

    function drawnRows(begin, end) {
      const rows = end - begin;
      if (rows <= MOST_DRAWN) return Array.from({ length: rows }, (_, number) => begin + number);
      const buckets = Math.round(MOST_DRAWN / 8);
      const kept = new Set([begin, end - 1]);
      for (let bucket = 0; bucket < buckets; bucket += 1) {
        const from = begin + Math.round((rows * bucket) / buckets);
        const to = begin + Math.round((rows * (bucket + 1)) / buckets);
        for (const values of drawn) {
          let low = -1;
          let high = -1;
          for (let row = from; row < to; row += 1) {
            if (Number.isNaN(values[row])) kept.add(row);
            else {
              if (low < 0 || values[row] < values[low]) low = row;
              if (high < 0 || values[row] > values[high]) high = row;
            }
          }
          if (low >= 0) kept.add(low).add(high);
        }
      }
      return [...kept].sort((a, b) => a - b);
    }

    /** One trace's points: a value holds until the next tick, and a gap breaks the line. */
    function points(rows, valueOf) {
      const x = [];
      const y = [];
      for (const row of rows) {
        if (ticks.gap[row] && x.length) {
          x.push(iso(stamps[row - 1] + step));
          y.push(null);
        }
        const value = valueOf(row);
        x.push(iso(stamps[row]));
        y.push(Number.isFinite(value) ? value : null);
      }
      if (rows.length) {
        const end = rows[rows.length - 1];
        const value = valueOf(end);
        x.push(iso(stamps[end] + step));
        y.push(Number.isFinite(value) ? value : null);
      }
      return { x, y };
    }

    /**
     * Like `points`, for one of the two edges of an area over `base`. At a gap or an unknown value both edges lie on the base,
     * because plotly would draw an area across broken edges.
     */
    function edge(rows, valueOf) {
      const x = [];
      const y = [];
      const put = (at, ...values) => {
        x.push(iso(at));
        y.push(values.find(Number.isFinite) ?? 0);
      };
      for (const row of rows) {
        if (ticks.gap[row] && x.length) put(stamps[row - 1] + step, base(row - 1));
        put(stamps[row], Number.isFinite(base(row)) ? valueOf(row) : NaN);
      }
      if (rows.length) put(stamps[rows[rows.length - 1]] + step, base(rows[rows.length - 1]));
      return { x, y };
    }

    const base = (row) => Math.min(ticks.demand[row], ticks.capacity[row]);

    function traces(c) {
      const begin = Math.max(rowAt(view[0]) - 1, 0);
      const end = Math.min(rowAt(view[1]) + 2, stamps.length);
      const rows = drawnRows(begin, end);
      const line = (name, valueOf, colour, more = {}, width = 1.5) => ({
        type: "scatter", mode: "lines", name, ...points(rows, valueOf), hoverinfo: "none", connectgaps: false,
        line: { color: colour, width, shape: "hv", ...more },
      });
      const vm = meta.vm_capacity_per_s;
      const lower = { xaxis: "x", yaxis: "y2" };
      const found = [
        { ...line("forecast, 95% quantile", (row) => ticks.forecast_hi[row], c.ahead, {}, 1) },
        { ...line("base", base, "rgba(0,0,0,0)", {}, 0), ...edge(rows, base) },
        {
          ...line("shortage", base, "rgba(0,0,0,0)", {}, 0), ...edge(rows, (row) => ticks.demand[row]),
          fill: "tonexty", fillcolor: c["short-soft"],
        },
        line("capacity wanted", (row) => ticks.desired[row] * vm, c.wanted, { dash: "dot" }),
        line("capacity in service", (row) => ticks.capacity[row], c.capacity),
        line("demand", (row) => ticks.demand[row], c.demand, {}, 1.25),
        { ...line("VMs in the warm pool", (row) => ticks.stopped[row], c.warm), ...lower },
        { ...line("VMs in service", (row) => ticks.in_service[row], c.capacity), ...lower },
        { ...line("VMs starting", (row) => ticks.starting[row], c.starting), ...lower },
      ];
      meta.others.forEach((name, at) => {
        found.push(line(`capacity, ${plain(name)}`, (row) => others[at].capacity[row], c[`beside${at % 3}`], { dash: "dash" }));
      });
      const marks = meta.episodes.filter((episode) => episode.end > view[0] && episode.start < view[1]);
      found.push({
        type: "scatter", mode: "markers", name: "shortage episodes", hoverinfo: "none", cliponaxis: false,
        x: marks.map((episode) => iso((episode.start + episode.end) / 2)), y: marks.map(() => top() * 1.04),
        customdata: marks.map((episode) => meta.episodes.indexOf(episode)),
        marker: { symbol: "triangle-down", size: touch ? 13 : 9, color: c.short },
      });
      byId("thinned").textContent =
        (rows.length < end - begin ? "This view draws the ticks with the lowest and highest values of each stretch; zoom in to see every tick. " : "") +
        (shownShare ? `The run has ${whole.format(meta.ticks)} ticks; this page contains ${whole.format(stamps.length)}: all extremes, and every tick of the worst episodes.` : "");
      return found;
    }

    function top() {
      const begin = rowAt(view[0]);
      const end = Math.min(rowAt(view[1]) + 1, stamps.length);
      let high = meta.vm_capacity_per_s || 1;
      for (let row = begin; row < end; row += 1) {
        if (ticks.demand[row] > high) high = ticks.demand[row];
        if (ticks.capacity[row] > high) high = ticks.capacity[row];
        for (const { capacity } of others) if (capacity[row] > high) high = capacity[row];
      }
      return high;
    }

    function shapes(c) {
      const band = (from, to, colour) => ({
        type: "rect", xref: "x", yref: "paper", x0: iso(from), x1: iso(to), y0: 0, y1: 1, line: { width: 0 }, fillcolor: colour, layer: "below",
      });
      const found = meta.episodes
        .filter((episode) => episode.end > view[0] && episode.start < view[1])
        .slice(0, 150)
        .map((episode) => band(episode.start, episode.end, c["short-soft"]));
      if (meta.not_scored_s) found.push(band(first, first + meta.not_scored_s, c.idle));
      return found;
    }

    function draw() {
      const { c, axis, layout } = looks();
      const narrow = chart.clientWidth < 560;
      const spike = { showspikes: true, spikemode: "across", spikesnap: "hovered data", spikethickness: 1, spikedash: "solid", spikecolor: c.muted };
      const kept = touch ? false : "zoom";
      return Plotly.react(chart, traces(c), {
        ...layout,
        height: narrow ? 380 : 420,
        margin: { l: narrow ? 44 : 60, r: 8, t: 16, b: 44 },
        hovermode: "x", hoverdistance: -1, spikedistance: -1, dragmode: kept,
        xaxis: { ...axis, ...spike, type: "date", fixedrange: touch, range: view.map(iso), nticks: narrow ? 4 : 8, anchor: "y2", showgrid: false },
        yaxis: { ...axis, domain: [0.34, 1], range: [0, top() * 1.1], nticks: 6, tickformat: "~s", title: { ...axis.title, text: narrow ? "" : "work per second" } },
        yaxis2: { ...axis, domain: [0, 0.26], rangemode: "tozero", nticks: 4, title: { ...axis.title, text: narrow ? "" : "VMs" } },
        shapes: shapes(c),
      }, config);
    }

    function look(from, to) {
      const length = Math.min(Math.max(to - from, 8 * step), last - first);
      const begin = Math.min(Math.max(from, first), last - length);
      view = [begin, begin + length];
      return draw();
    }

    function read(row) {
      cursor = row;
      const told = byId("readout");
      const numbers = element("p", undefined, { class: "numbers" });
      const add = (label, value) => numbers.append(` ${label} `, element("b", value), " ");
      numbers.append(element("b", `${moment(stamps[row])} UTC`), " · ");
      add("demand", `${number(ticks.demand[row])}/s,`);
      add("capacity", `${number(ticks.capacity[row])}/s,`);
      if (ticks.shortage[row] > 0) add("short by", `${number(ticks.shortage[row])}/s,`);
      add("wanted", `${number(ticks.desired[row])} VMs,`);
      add("in service", `${number(ticks.in_service[row])},`);
      add("starting", `${number(ticks.starting[row])},`);
      add("warm", number(ticks.stopped[row]));
      told.replaceChildren(numbers, element("p", ticks.reason[row] || "No reason was recorded."));
    }

    function episodeAt(at, slack) {
      let best = -1;
      let distance = slack;
      meta.episodes.forEach((episode, index) => {
        const away = at < episode.start ? episode.start - at : at >= episode.end ? at - episode.end : 0;
        if (away < distance || (away === 0 && distance > 0)) {
          best = index;
          distance = away;
        }
      });
      return best;
    }

    function open(index, { scroll = true } = {}) {
      chosen = index;
      const episode = meta.episodes[index];
      const pad = Math.max(12 * step, 0.75 * (episode.end - episode.start));
      const begin = Math.max(rowAt(episode.start - AROUND * step), 0);
      const end = Math.min(rowAt(episode.end - step / 2) + 1 + AROUND, stamps.length);
      const panel = byId("episode");
      const bar = element("div", undefined, { class: "bar" });
      const told = `Shortage of ${moment(episode.start)} UTC: ${span(episode.end - episode.start)}, ${number(episode.work)} work unserved`;
      const close = element("button", "Close", { type: "button" });
      close.addEventListener("click", shut);
      bar.append(element("h3", told, { tabindex: "-1" }), close);
      const scroller = element("div", undefined, { class: "scroll", tabindex: "0", role: "region", "aria-label": "Ticks of the episode" });
      scroller.append(table(begin, Math.min(end, begin + MOST_LISTED)));
      panel.replaceChildren(bar, scroller);
      if (end - begin > MOST_LISTED) panel.append(element("p", `The first ${MOST_LISTED} of ${end - begin} ticks; the others are in the timeline's file.`, { class: "note" }));
      panel.hidden = false;
      for (const button of document.querySelectorAll("[data-episode]")) {
        button.closest("tr").setAttribute("aria-current", String(Number(button.dataset.episode) === index));
      }
      look(episode.start - pad, episode.end + pad);
      let worst = rowAt(episode.start);
      for (let row = worst; row < stamps.length && stamps[row] < episode.end; row += 1) {
        if (ticks.shortage[row] > ticks.shortage[worst]) worst = row;
      }
      read(worst);
      if (scroll) byId("line").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
      const short = scroller.querySelector("tr.short");
      if (short) scroller.scrollTop = Math.max(0, short.offsetTop - 4 * short.offsetHeight);
      bar.firstChild.focus({ preventScroll: true });
    }

    function shut() {
      byId("episode").hidden = true;
      const button = document.querySelector(`[data-episode="${chosen}"]`);
      if (button) {
        button.closest("tr").removeAttribute("aria-current");
        button.focus({ preventScroll: true });
      }
      chosen = -1;
    }

    function table(begin, end) {
      const shown = [
        ["Time", (row) => clock(stamps[row])],
        ["Demand/s", (row) => number(ticks.demand[row])],
        ["95% ahead", (row) => number(ticks.forecast_hi[row])],
        ["Capacity/s", (row) => number(ticks.capacity[row])],
        ["Short/s", (row) => (ticks.shortage[row] > 0 ? number(ticks.shortage[row]) : Number.isNaN(ticks.shortage[row]) ? unknown : "–")],
        ["Wanted", (row) => number(ticks.desired[row])],
        ["In service", (row) => number(ticks.in_service[row])],
        ["Starting", (row) => number(ticks.starting[row])],
        ["Warm", (row) => number(ticks.stopped[row])],
        ["Decision", (row) => ticks.reason[row]],
      ];
      const made = element("table", undefined, { class: "ticks" });
      const head = made.createTHead().insertRow();
      shown.forEach(([name]) => head.append(element("th", name, { scope: "col", ...(name === "Decision" ? { class: "words" } : {}) })));
      const body = made.createTBody();
      for (let row = begin; row < end; row += 1) {
        const line = body.insertRow();
        if (ticks.shortage[row] > 0) line.className = "short";
        shown.forEach(([name, of]) => line.append(element("td", of(row), { "data-name": name, ...(name === "Decision" ? { class: "words" } : {}) })));
      }
      return made;
    }

    function point(row) {
      read(row);
      if (stamps[row] < view[0] || stamps[row] >= view[1]) {
        const half = (view[1] - view[0]) / 2;
        look(stamps[row] - half, stamps[row] + half).then(() => spikeAt(row));
      } else spikeAt(row);
    }

    function spikeAt(row) {
      Plotly.Fx.hover(chart, [{ xval: Date.parse(`${iso(stamps[row])}Z`), curveNumber: 5 }], ["xy"]);
    }

    function keys(event) {
      const steps = { ArrowRight: 1, ArrowLeft: -1, PageDown: 60, PageUp: -60 };
      if (event.key in steps) {
        const from = cursor < 0 ? rowAt(view[0]) : cursor;
        point(Math.min(Math.max(from + steps[event.key], 0), stamps.length - 1));
      } else if (event.key === "Home") point(0);
      else if (event.key === "End") point(stamps.length - 1);
      else if (event.key === "Enter" && cursor >= 0 && meta.episodes.length) {
        const found = episodeAt(stamps[cursor], last - first);
        if (found >= 0) open(found, { scroll: false });
      } else if (event.key === "Escape") look(first, last);
      else return;
      event.preventDefault();
    }

    function buttons() {
      const move = (part) => look(view[0] + part * (view[1] - view[0]), view[1] + part * (view[1] - view[0]));
      const zoom = (factor) => {
        const middle = (view[0] + view[1]) / 2;
        const half = ((view[1] - view[0]) / 2) * factor;
        look(middle - half, middle + half);
      };
      byId("whole").addEventListener("click", () => look(first, last));
      byId("closer").addEventListener("click", () => zoom(0.4));
      byId("wider").addEventListener("click", () => zoom(2.5));
      byId("earlier").addEventListener("click", () => move(-0.5));
      byId("later").addEventListener("click", () => move(0.5));
      byId("worst").disabled = !meta.episodes.length;
      byId("worst").addEventListener("click", () => open(0, { scroll: false }));
      for (const button of document.querySelectorAll("[data-episode]")) {
        button.addEventListener("click", () => open(Number(button.dataset.episode)));
      }
    }

    draw().then(() => {
      chart.on("plotly_hover", (event) => {
        const at = event.points[0];
        if (at) read(rowAt(seconds(at.x) + (at.data.mode === "markers" ? 0 : step / 1e3)));
      });
      chart.on("plotly_click", (event) => {
        const mark = event.points.find((one) => one.customdata !== undefined && event.points.length === 1);
        const at = seconds(event.points[0].x);
        const found = mark ? mark.customdata : episodeAt(at + step / 1e3, Math.max((view[1] - view[0]) / 100, step));
        if (found >= 0) open(found, { scroll: false });
        else read(rowAt(at));
      });
      chart.on("plotly_relayout", (change) => {
        const from = change["xaxis.range[0]"];
        if (from !== undefined) look(seconds(from), seconds(change["xaxis.range[1]"]));
      });
      chart.addEventListener("keydown", keys);
      buttons();
      chart.dataset.ready = "true";
    });
    recoloured(draw);
  }

  // ── begin ────────────────────────────────────────────────────────────────────────────────────────────

  async function begin() {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack their data");
    await loadPlotly();
    if (byId("ticks").textContent) timeline(await unpack("ticks"));
    if (meta.sweep) variants(meta.sweep, { byId, looks, config, element, number, span, plain, recoloured });
  }

  begin().catch((error) => {
    for (const id of ["chart", "pareto", "heat"]) {
      const place = byId(id);
      if (place) place.replaceChildren(element("p", `The charts cannot be drawn: ${error.message}. The tables are complete without them.`));
    }
    console.error(error);
  });
})();

"use strict";
/* The status page: requests the daemon's status repeatedly and shows it.
 *
 * Rules of this file: read only, with requests to no other host; no HTML from data (textContent only). Time is the daemon's,
 * which may run faster than the browser's. Unknown is a dash, never zero. Old data is marked as old.
 */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const SPANS = [1, 6, 24, 168];
  const LEAST_WAIT_MS = 3000;
  const HISTORY_MS = 30000;
  const WORK = [
    { key: "demand", label: "demand" },
    { key: "forecast_hi", label: "95 % forecast" },
    { key: "capacity", label: "capacity", step: true },
  ];
  const VMS = [
    { key: "desired", label: "wanted", step: true },
    { key: "in_service", label: "in service", step: true },
    { key: "starting", label: "starting", step: true },
    { key: "stopped", label: "stopped", step: true },
  ];
  const KEYS = [...WORK, ...VMS].map((line) => line.key).concat(["shortage"]);

  const state = { told: null, chosen: "", hours: SPANS[0], past: null, events: [], pastAt: 0, cursor: null, failing: "" };

  // ── words ─────────────────────────────────────────────────────────────────────────────────────────────────

  const known = (value) => value !== null && value !== undefined && Number.isFinite(value);
  function number(value, digits = 3) {
    if (!known(value)) return "–";
    if (value !== 0 && Math.abs(value) < 1) return value.toPrecision(2);
    return Math.abs(value) >= 1000 || Number.isInteger(value)
      ? Math.round(value).toLocaleString("en")
      : value.toPrecision(digits);
  }
  const money = (value) => (known(value) ? value.toLocaleString("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 }) : "–");
  function span(seconds) {
    if (!known(seconds)) return "–";
    if (seconds < 120) return `${Math.round(seconds)} s`;
    if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
    return seconds < 172800 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} days`;
  }
  const stamp = (at_s) => new Date(at_s * 1000).toISOString();
  const clock = (at_s) => stamp(at_s).slice(11, 19);
  const day = (at_s) => stamp(at_s).slice(0, 10);
  const words = (name) => String(name).replaceAll("_", " ");

  function make(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    if (text !== undefined && text !== null) made.textContent = String(text);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function list(place, items) {
    place.replaceChildren(...items);
  }

  function facts(place, rows) {
    list(place, rows.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  }

  // ── asking ────────────────────────────────────────────────────────────────────────────────────────────────

  async function ask(path) {
    const answer = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(30000) });
    if (!answer.ok) {
      const error = new Error(`${answer.status} ${answer.statusText}`);
      error.code = answer.status;
      throw error;
    }
    return answer.json();
  }

  async function turn() {
    const began = performance.now();
    if (!document.hidden) {
      try {
        state.told = await ask("api/v1/status");
        state.failing = "";
        choose();
        follow();
        await past();
      } catch (error) {
        state.failing = error.name === "TimeoutError" ? "no answer within 30 s" : error.message;
      }
      show();
      document.body.dataset.ready = "true";
    }
    // A daemon of a thousand fleets answers slowly. It is asked less often, so that it has time for its fleets.
    setTimeout(turn, Math.max(LEAST_WAIT_MS, 10 * (performance.now() - began)));
  }

  async function past() {
    const wanted = `${state.chosen} ${state.hours}`;
    if (state.past && state.past.of === wanted && Date.now() - state.pastAt < HISTORY_MS) return;
    const fleet = encodeURIComponent(state.chosen);
    try {
      const [ticks, events] = await Promise.all([
        state.chosen ? ask(`api/v1/history?fleet=${fleet}&hours=${state.hours}`) : null,
        ask(state.chosen ? `api/v1/events?fleet=${fleet}` : "api/v1/events"),
      ]);
      if (wanted !== `${state.chosen} ${state.hours}`) return;
      state.past = ticks && { ...ticks, of: wanted };
      state.events = events.events;
      state.pastAt = Date.now();
    } catch (error) {
      // If the journal is missing or busy, the chart shows what was seen since the page was opened.
      if (!state.past || state.past.of !== wanted) state.past = empty(wanted);
      state.pastAt = Date.now();
    }
    follow();
  }

  function empty(of) {
    return { of, every: 1, at_s: [], ...Object.fromEntries(KEYS.map((key) => [key, []])) };
  }

  /** Adds the current status of the chosen fleet to its history, as the latest point. */
  function follow() {
    const fleet = fleetOf(state.chosen);
    const { past: seen, told } = state;
    if (!fleet || !seen || !seen.of.startsWith(`${state.chosen} `) || !fleet.decision || !known(fleet.evaluated_at_s)) return;
    const last = seen.at_s.at(-1);
    if (known(last) && fleet.evaluated_at_s <= last) return;
    seen.at_s.push(fleet.evaluated_at_s);
    for (const key of KEYS) seen[key].push(fleet.decision[key] ?? null);
    const first_s = told.at_s - 3600 * state.hours;
    while (seen.at_s.length && seen.at_s[0] < first_s) {
      seen.at_s.shift();
      for (const key of KEYS) seen[key].shift();
    }
  }

  const fleetOf = (name) => state.told?.fleets.find((fleet) => fleet.fleet === name);

  /** Returns the fleet named in the address, or the only one. */
  function choose() {
    const named = decodeURIComponent(location.hash.replace(/^#fleet=/, ""));
    const fleets = state.told.fleets;
    state.chosen = fleetOf(named)?.fleet ?? (fleets.length === 1 ? fleets[0].fleet : "");
  }

  // ── showing ───────────────────────────────────────────────────────────────────────────────────────────────

  function show() {
    const { told, failing } = state;
    const old = Boolean(failing);
    document.body.classList.toggle("old", old);
    const health = byId("health");
    health.className = `pill ${old || (told && !told.healthy) ? "bad" : "good"}`;
    health.textContent = old ? "no answer" : told.healthy ? "healthy" : "trouble";
    const doubts = [];
    if (old) doubts.push(`The daemon does not answer (${failing})${told ? "; what is shown is old" : ""}.`);
    if (!told) {
      list(byId("problems"), doubts.map((text) => make("li", text)));
      return;
    }
    byId("when").textContent = known(told.tick)
      ? `${day(told.at_s)} ${clock(told.at_s)} UTC, a decision every ${span(told.tick_s)}${told.ticks_skipped ? `, ${told.ticks_skipped} left out for lack of time` : ""}`
      : "It has not decided yet.";
    doubts.push(...told.problems);
    if (told.policies.error) doubts.push(`Policies: ${told.policies.error}`);
    if (told.journal.error) doubts.push(`Nothing is started or stopped until the journal can be written: ${told.journal.error}`);
    for (const place of told.providers) {
      if (place.sentence) doubts.push(`Places: ${place.sentence}`);
    }
    list(byId("problems"), doubts.map((text) => make("li", text)));
    showSum(told.fleets);
    showFleets(told.fleets);
    showOne(fleetOf(state.chosen));
    const sentences = told.operations.sentences;
    list(byId("operations"), sentences.length ? sentences.map((text) => make("li", text)) : [make("li", "Nothing.", { class: "note" })]);
    showEvents();
  }

  function troubles(fleet) {
    const found = [], lacks = fleet.act && fleet.shortage;
    if (lacks) found.push(["bad", `${lacks.missing === 1 ? "1 VM is" : `${lacks.missing} VMs are`} not available: ${lacks.why}`]);
    if (fleet.source_error) found.push(["bad", `Metrics: ${fleet.source_error}`]);
    if (fleet.listing_error) found.push(["bad", `Listing of VMs: ${fleet.listing_error}`]);
    if (fleet.balancer_error) found.push(["bad", `Load balancer: ${fleet.balancer_error}`]);
    if (fleet.leased_to) found.push(["doubt", `Another daemon acts on it: ${fleet.leased_to}`]);
    const freshness = fleet.decision?.freshness;
    if (freshness && freshness !== "fresh") found.push(["doubt", `Metrics are ${freshness}.`]);
    for (const [vm, why] of Object.entries(fleet.quarantined)) found.push(["doubt", `${vm} is set aside: ${why}`]);
    for (const [type, zone] of fleet.dry) {
      found.push(["doubt", zone ? `No room for ${type} in ${zone} just now.` : `The account's quota of ${type} VMs is used up just now.`]);
    }
    if (fleet.condition.condition !== "well" && fleet.condition.sentence) found.push(["doubt", fleet.condition.sentence]);
    return found;
  }

  /** Returns one line per trouble with all fleets that have it: the most serious first, then by number of fleets. */
  function alike(fleets) {
    const of = new Map();
    for (const fleet of fleets) {
      const found = troubles(fleet).filter(([kind, text]) => kind === "bad" || !text.startsWith("Metrics are"));
      for (const [kind, text] of found) {
        const line = of.get(text) ?? { kind, text, names: [] };
        line.names.push(fleet.fleet);
        of.set(text, line);
      }
    }
    return [...of.values()].sort((one, other) => one.kind.localeCompare(other.kind) || other.names.length - one.names.length);
  }

  function showSum(fleets) {
    const acting = fleets.filter((fleet) => fleet.act), decided = acting.map((fleet) => fleet.decision).filter(Boolean);
    const all = (key) => decided.reduce((sum, decision) => sum + decision[key], 0);
    byId("sum").hidden = fleets.length < 2;
    byId("sum").textContent = `${acting.length} of ${fleets.length} fleets act: ${number(all("in_service"))} VMs serve, ${number(all("starting"))} start, `
      + `${number(all("stopped"))} wait stopped; spent ${money(acting.reduce((sum, fleet) => sum + fleet.cost_total, 0))}`;
    const shortOf = (fleet) => fleet.decision?.shortage ?? 0;
    const short = acting.filter((fleet) => shortOf(fleet) > 0).sort((one, other) => shortOf(other) - shortOf(one));
    const lines = fleets.length < 2 ? [] : alike(fleets).map(({ kind, text, names }) => named("", names, `: ${text}`, kind));
    if (fleets.length > 1 && short.length) {
      const of = new Map(short.map((fleet) => [fleet.fleet, ` of ${number(shortOf(fleet))}/s`]));
      lines.unshift(named(`${short.length} ${short.length === 1 ? "fleet is" : "fleets are"} short: `, [...of.keys()], ".", "bad", of));
    }
    list(byId("look"), lines);
  }

  /** Returns a line with the first of these fleets as links, and the number of the others. */
  function named(before, names, after, kind, of = new Map()) {
    const item = make("li", before, { class: kind });
    names.slice(0, 6).forEach((name, at) => item.append(at ? ", " : "", make("a", name, { href: `#fleet=${encodeURIComponent(name)}` }), of.get(name) ?? ""));
    item.append(`${names.length > 6 ? ` and ${names.length - 6} more` : ""}${after}`);
    return item;
  }

  function manner(fleet) {
    if (fleet.leased_to) return "another daemon acts";
    return fleet.act ? "" : "shadow: decides, does not act";
  }

  function showFleets(fleets) {
    byId("find").hidden = fleets.length <= 10;
    const wanted = byId("filter").value.trim().toLowerCase();
    const rows = fleets
      .filter((fleet) => `${fleet.fleet} ${fleet.provider}`.toLowerCase().includes(wanted))
      .map((fleet) => {
        const row = make("tr");
        if (fleet.fleet === state.chosen) row.className = "chosen";
        const name = make("td");
        name.append(make("a", fleet.fleet, { href: `#fleet=${encodeURIComponent(fleet.fleet)}` }));
        if (fleet.provider) name.append(make("small", `in ${fleet.provider}`));
        const bad = troubles(fleet).filter(([kind]) => kind === "bad");
        if (bad.length) name.append(make("small", `${bad[0][1].split(":")[0]}: trouble`, { class: "bad" }));
        else if (manner(fleet)) name.append(make("small", manner(fleet)));
        const decided = fleet.decision ?? {};
        const short = make("td", number(decided.shortage));
        if (decided.shortage > 0) short.className = "bad";
        const stopped = make("td", number(fleet.vms.stopped));
        if (known(decided.warm_target)) stopped.append(make("small", `of ${decided.warm_target} wanted`));
        row.append(
          name,
          make("td", number(decided.demand)),
          make("td", number(decided.capacity)),
          make("td", number(decided.desired)),
          make("td", number(fleet.vms.in_service)),
          make("td", number(fleet.vms.starting + fleet.vms.running + fleet.vms.provisioning)),
          stopped,
          short,
          make("td", money(fleet.cost_total)),
        );
        row.addEventListener("click", () => { location.hash = `fleet=${encodeURIComponent(fleet.fleet)}`; });
        return row;
      });
    const focused = document.activeElement?.getAttribute?.("href");
    list(byId("fleets").tBodies[0], rows);
    if (focused?.startsWith("#fleet=")) byId("fleets").querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  }

  function showOne(fleet) {
    byId("one").hidden = !fleet;
    if (!fleet) return;
    byId("one-head").textContent = fleet.provider ? `${fleet.fleet} in ${fleet.provider}` : fleet.fleet;
    byId("sentence").textContent = fleet.decision?.sentence ?? "It has not been decided on yet.";
    list(byId("troubles"), troubles(fleet).map(([kind, text]) => make("li", text, { class: kind })));
    facts(byId("vms"), Object.entries(fleet.vms).filter(([name, count]) => count || ["in_service", "stopped"].includes(name)).map(([name, count]) => [words(name), number(count)]));
    const stages = fleet.decision?.stages ?? [], said = stages.filter((stage) => stage.reason !== "none");
    list(byId("stages"), said.map((stage) => {
      const item = make("li");
      item.append(make("span", `${words(stage.stage)}: ${words(stage.reason)}`), make("span", number(stage.vms)));
      return item;
    }));
    if (stages.length > said.length) byId("stages").append(make("li", `${said.length ? "The other" : "All"} ${stages.length - said.length} stages left it as it was.`, { class: "same" }));
    const { capacity, starts, planned_start_s: planned } = fleet.learned;
    const warm = starts.stopped ?? Object.values(starts)[0];
    facts(byId("learned"), [
      ["a start takes", fleet.start_time.count ? `${span(fleet.start_time.p50_s)}, at worst ${span(fleet.start_time.p95_s)}` : `${span(warm?.whole_p50_s ?? planned)} (expected)`],
      ["what one VM does", `${number(capacity.learned_per_s ?? capacity.planned_per_s)}/s${known(capacity.learned_per_s) ? "" : " (as the policy says)"}`],
      ["starts without a stopped VM, last day", number(fleet.missed_warm_starts_day)],
    ]);
    drawChart();
  }

  function showEvents() {
    const items = state.events.map((event) => {
      const item = make("li"), text = make("span");
      text.append(make("b", words(event.kind)), document.createTextNode(`${event.fleet ? ` ${event.fleet}` : ""}: ${event.text}`));
      item.append(make("time", `${day(event.at_s).slice(5)} ${clock(event.at_s)}`, { datetime: stamp(event.at_s) }), text);
      return item;
    });
    list(byId("events"), items.length ? items : [make("li", "None are known.", { class: "note" })]);
  }

  // ── the chart ─────────────────────────────────────────────────────────────────────────────────────────────

  function shape(tag, attributes, text) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  /** Returns a round step size with which about `count` steps reach `most`. */
  function stepOf(most, count) {
    const rough = most / count, power = 10 ** Math.floor(Math.log10(rough));
    return power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  }

  function panel(lines, top, height, seen, scale, box) {
    const most = Math.max(1e-9, ...lines.flatMap((line) => seen[line.key].filter(known)));
    const whole = lines === VMS;
    const step = whole ? Math.max(1, stepOf(most, 3)) : stepOf(most, 3);
    const end = Math.ceil(most / step) * step;
    const y = (value) => top + height - (height * value) / end;
    const drawn = [];
    for (let mark = 0; mark <= end + step / 2; mark += step) {
      drawn.push(shape("line", { x1: box.left, x2: box.right, y1: y(mark), y2: y(mark), class: "grid" }));
      drawn.push(shape("text", { x: box.left - 6, y: y(mark) + 4, "text-anchor": "end" }, number(mark)));
    }
    drawn.push(shape("text", { x: box.left, y: top - 6 }, whole ? "VMs" : "work per second"));
    if (!whole) drawn.push(shape("path", { d: areaOf(seen, scale, y), class: "shortage" }));
    for (const line of lines) {
      drawn.push(shape("path", { d: pathOf(seen.at_s, seen[line.key], scale, y, line.step), class: `line ${line.key}` }));
    }
    return drawn;
  }

  function pathOf(times, values, x, y, step) {
    const parts = [];
    let pen = false;
    values.forEach((value, at) => {
      if (!known(value)) { pen = false; return; }
      if (pen && step) parts.push(`H${x(times[at]).toFixed(1)}`);
      parts.push(`${pen ? "L" : "M"}${x(times[at]).toFixed(1)} ${y(value).toFixed(1)}`);
      pen = true;
    });
    return parts.join("");
  }

  /** Returns the path of the area between capacity and demand in times of shortage. */
  function areaOf(seen, x, y) {
    const parts = [], { shortage: short, capacity } = seen;
    for (let at = 0; at + 1 < seen.at_s.length; at++) {
      if (!(short[at] > 0) || !known(capacity[at])) continue;
      const left = x(seen.at_s[at]).toFixed(1), right = x(seen.at_s[at + 1]).toFixed(1);
      parts.push(`M${left} ${y(capacity[at]).toFixed(1)}H${right}V${y(capacity[at] + short[at]).toFixed(1)}H${left}Z`);
    }
    return parts.join("");
  }

  function drawChart() {
    const svg = byId("chart"), seen = state.past;
    const width = svg.clientWidth || 600, height = svg.clientHeight || 320;
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!seen || seen.at_s.length < 2) {
      svg.replaceChildren(shape("text", { x: 0, y: 24 }, seen ? "There is nothing to draw yet." : "reading the journal…"));
      byId("readout").textContent = "";
      return;
    }
    const box = { left: 52, right: width - 8, top: 20, bottom: height - 22 };
    const end_s = Math.max(state.told.at_s, seen.at_s.at(-1)), begin_s = end_s - 3600 * state.hours;
    const x = (at_s) => box.left + ((box.right - box.left) * (at_s - begin_s)) / (end_s - begin_s);
    const room = box.bottom - box.top, first = 0.54 * room, gap = 26;
    const parts = [
      ...panel(WORK, box.top, first, seen, x, box),
      ...panel(VMS, box.top + first + gap, room - first - gap, seen, x, box),
    ];
    const step_s = [300, 600, 1800, 3600, 7200, 14400, 43200, 86400].find((each) => (3600 * state.hours) / each <= Math.max(3, width / 110));
    for (let at_s = Math.ceil(begin_s / step_s) * step_s; at_s <= end_s; at_s += step_s) {
      const text = step_s >= 86400 ? day(at_s).slice(5) : clock(at_s).slice(0, 5);
      parts.push(shape("text", { x: x(at_s), y: height - 4, "text-anchor": "middle" }, text));
    }
    const at = state.cursor === null ? seen.at_s.length - 1 : Math.min(state.cursor, seen.at_s.length - 1);
    if (state.cursor !== null) parts.push(shape("line", { x1: x(seen.at_s[at]), x2: x(seen.at_s[at]), y1: box.top, y2: box.bottom, class: "cursor" }));
    svg.replaceChildren(...parts);
    svg.setAttribute("aria-label", `${state.chosen}, the last ${state.hours} h: demand, capacity and VMs`);
    state.toTime = (px) => begin_s + ((px - box.left) / (box.right - box.left)) * (end_s - begin_s);
    const told = [...WORK, ...VMS].map((line) => `${line.label} ${number(seen[line.key][at])}`);
    if (seen.shortage[at] > 0) told.push(`short by ${number(seen.shortage[at])}`);
    const thinned = seen.every > 1 ? ` (one of ${seen.every} decisions is drawn)` : "";
    byId("readout").textContent = `${day(seen.at_s[at])} ${clock(seen.at_s[at])} UTC: ${told.join(", ")}${thinned}`;
  }

  function move(at) {
    const count = state.past?.at_s.length ?? 0;
    state.cursor = count ? Math.min(Math.max(at, 0), count - 1) : null;
    drawChart();
  }

  // ── input ─────────────────────────────────────────────────────────────────────────────────────────────────

  function begin() {
    const legend = [...WORK, ...VMS].filter((line) => line.key !== "in_service");
    list(byId("legend"), legend.map((line) => make("span", line.key === "capacity" ? "capacity, in service" : line.label, { class: line.key })));
    list(byId("spans"), SPANS.map((hours) => {
      const button = make("button", hours < 48 ? `${hours} h` : `${hours / 24} days`, { type: "button", "aria-pressed": String(hours === state.hours) });
      button.addEventListener("click", async () => {
        Object.assign(state, { hours, past: null, cursor: null });
        for (const other of byId("spans").children) other.setAttribute("aria-pressed", String(other === button));
        await again();
      });
      return button;
    }));
    const chart = byId("chart");
    chart.addEventListener("pointermove", (event) => {
      if (!state.past || !state.toTime) return;
      const at_s = state.toTime(event.clientX - chart.getBoundingClientRect().left);
      const times = state.past.at_s;
      let at = times.findIndex((time) => time >= at_s);
      if (at < 0) at = times.length - 1;
      if (at > 0 && at_s - times[at - 1] < times[at] - at_s) at -= 1;
      move(at);
    });
    chart.addEventListener("pointerleave", () => { state.cursor = null; drawChart(); });
    chart.addEventListener("blur", () => { state.cursor = null; drawChart(); });
    chart.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 }[event.key];
      if (!by || !state.past) return;
      event.preventDefault();
      move((state.cursor ?? state.past.at_s.length - 1) + by);
    });
    byId("filter").addEventListener("input", () => state.told && showFleets(state.told.fleets));
    window.addEventListener("hashchange", async () => {
      if (!state.told) return;
      choose();
      Object.assign(state, { past: null, events: [], cursor: null });
      await again();
    });
    window.addEventListener("resize", () => state.told && showOne(fleetOf(state.chosen)));
    turn();
  }

  async function again() {
    show();
    await past();
    show();
  }

  begin();
})();

"use strict";
/* Draws the fronts of one fleet at a time, and the regrets of all.
 *
 * Rules of this file: no connection, no evaluated text, no HTML from data (textContent only; plotly reads some tags
 * in its labels, so names pass `plain`).
 */
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const MULTIPLES = [1, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100];
  const percent = (share) => `${(100 * share).toPrecision(2)}%`;

  async function loadPlotly() {
    const packed = atob(byId("plotly").textContent);
    const bytes = Uint8Array.from(packed, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = new TextDecoder().decode(await new Response(stream).arrayBuffer());
    document.head.append(script);
    if (!window.Plotly) throw new Error("plotly.js did not run");
  }

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  function looks(more) {
    const text = colour("--text");
    const line = colour("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line };
    return {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text },
      margin: { l: 64, r: 16, t: 16, b: 56 },
      legend: { orientation: "h", y: -0.2 },
      ...more,
      xaxis: { ...axis, ...more.xaxis },
      yaxis: { ...axis, ...more.yaxis },
    };
  }

  function front(at) {
    const fleet = data.fleets[at];
    const traces = fleet.rules.map((rule) => ({
      name: plain(rule.name),
      x: rule.unserved,
      y: rule.cost,
      text: rule.values.map((value) => plain(`${rule.knob} ${value}`)),
      mode: "lines+markers",
      line: { width: rule.ours ? 4 : 1, color: rule.ours ? colour("--short") : undefined },
      marker: { size: rule.ours ? 7 : 4 },
      opacity: rule.ours ? 1 : 0.75,
    }));
    traces.push({
      name: "clairvoyant optimum",
      x: data.shares,
      y: fleet.clairvoyant,
      mode: "lines",
      line: { width: 3, dash: "dot", color: colour("--text") },
    });
    const narrow = byId("front").clientWidth < 560;
    const shares = narrow ? [0.0001, 0.001, 0.01, 0.1] : [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1];
    Plotly.react(byId("front"), traces, looks({
      height: narrow ? 640 : 520,
      legend: narrow ? { orientation: "h", y: -0.22, font: { size: 11 }, entrywidthmode: "fraction", entrywidth: 0.5 } : { orientation: "h", y: -0.2 },
      xaxis: {
        type: "log", title: { text: "share of work unserved" }, range: [-4.2, -0.7],
        tickvals: shares, ticktext: shares.map((share) => `${Number((100 * share).toPrecision(1))}%`),
      },
      yaxis: { title: { text: "VM-hours billed" }, range: [0, 2.2 * Math.max(...fleet.clairvoyant)] },
    }), { responsive: true, displaylogo: false });
  }

  function bars() {
    const names = data.matches.map((match) => plain(match.name));
    const most = Math.max(...data.matches.map((match) => 1 + (match.best_regret ?? match.regret ?? 0)));
    const multiples = most > 2 ? MULTIPLES.filter((value) => value === 1 || value >= 1.2) : MULTIPLES;
    const bar = (name, key, tone) => ({
      type: "bar",
      name,
      x: names,
      y: data.matches.map((match) => (match[key] === null ? null : 1 + match[key])),
      hovertext: data.matches.map((match) => plain(`${match[key] === null ? "not reached" : percent(match[key])} ${match.best}`)),
      marker: { color: tone },
    });
    Plotly.react(byId("bars"), [
      bar(plain(data.name), "regret", colour("--short")),
      bar("best peer at its best setting", "best_regret", colour("--capacity")),
    ], looks({
      barmode: "group",
      margin: { l: 64, r: 16, t: 16, b: 150 },
      legend: { orientation: "h", y: 1.1 },
      xaxis: { tickangle: -60 },
      yaxis: { type: "log", title: { text: "cost, as a multiple of the least possible" }, tickvals: multiples, ticktext: multiples.map(String) },
    }), { responsive: true, displaylogo: false });
  }

  async function begin() {
    const choice = byId("fleet");
    data.fleets.forEach((fleet, at) => {
      const option = document.createElement("option");
      option.value = String(at);
      option.textContent = fleet.name;
      choice.append(option);
    });
    await loadPlotly();
    const draw = () => {
      if (data.fleets.length) front(Number(choice.value));
      if (data.matches.length) bars();
      document.body.dataset.ready = "true";
    };
    choice.addEventListener("change", draw);
    dark.addEventListener("change", draw);
    draw();
  }

  begin().catch((error) => {
    for (const id of ["front", "bars"]) {
      byId(id).textContent = `The charts cannot be drawn: ${error.message}. The tables are complete without.`;
    }
    console.error(error);
  });
})();

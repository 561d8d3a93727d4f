"use strict";
/* The charts of a sweep: cost against shortage with the variants that no other beats, and two parameters as a
 * heat map. The rules are those of page.js, which calls this with its tools.
 */
function variants(sweep, { byId, looks, config, element, number, span, plain, recoloured }) {
  const { parameters, figures, rows, cost, shortage } = sweep;
  const of = (key) => rows.map((row) => row.values[key]);
  const known = new Set(figures.map((figure) => figure.key));
  const labels = Object.fromEntries(figures.map((figure) => [figure.key, figure.label]));
  const units = Object.fromEntries(figures.map((figure) => [figure.key, figure.unit]));
  const SECONDS = { ms: 0.001, s: 1, m: 60, h: 3600, d: 86400, w: 604800 };
  const SAID = new Set([cost, shortage, "unserved_share", "shortage_s", "episodes", "longest_episode_s", "starts_per_day"]);

  /** Formats a figure, with its unit unless the number alone makes it clear. */
  function shown(key, value) {
    if (value === null || !Number.isFinite(value)) return "?";
    if (units[key] === "share") return `${Number((100 * value).toPrecision(3))}%`;
    if (units[key] === "span") return span(value);
    if (units[key] === "money") return value.toFixed(Math.abs(value) < 10000 ? 2 : 0);
    return number(value);
  }

  /** The unit of an axis: times in hours or minutes, shares in per cent. */
  function scaled(key, values) {
    const most = Math.max(...values.filter((value) => value !== null), 0);
    const [part, name] = units[key] === "share" ? [0.01, "%"] : units[key] !== "span" ? [1, ""] : most >= 7200 ? [3600, "h"] : most >= 120 ? [60, "min"] : [1, "s"];
    return { drawn: (value) => (value === null ? null : value / part), title: plain(labels[key]) + (name ? `, ${name}` : "") };
  }

  /** A number, or the seconds of a duration such as 1h30m, so that 5m comes after 100s; NaN for other words. */
  function amount(value) {
    if (typeof value === "number") return value;
    const parts = /^([\d.]+(ms|s|m|h|d|w))+$/.test(value) ? [...value.matchAll(/([\d.]+)(ms|s|m|h|d|w)/g)] : [];
    return parts.length ? parts.reduce((sum, [, size, unit]) => sum + Number(size) * SECONDS[unit], 0) : NaN;
  }

  const told = (row) => parameters.map((name) => `${name} ${row.parameters[name]}`).join(", ");

  function undominated() {
    const order = rows.map((_, index) => index).filter((index) => rows[index].values[cost] !== null && rows[index].values[shortage] !== null);
    order.sort((a, b) => rows[a].values[cost] - rows[b].values[cost] || rows[a].values[shortage] - rows[b].values[shortage]);
    let least = Infinity;
    return order.filter((index) => {
      const better = rows[index].values[shortage] < least;
      if (better) least = rows[index].values[shortage];
      return better;
    });
  }

  function pareto() {
    const { c, axis, layout } = looks();
    const front = undominated();
    const [x, y] = [scaled(cost, of(cost)), scaled(shortage, of(shortage))];
    const current = rows.findIndex((row) => row.current);
    const svg = { type: "scatter", hoverinfo: "none" };
    const all = rows.map((_, index) => index);
    const data = [
      { ...svg, mode: "markers", x: of(cost).map(x.drawn), y: of(shortage).map(y.drawn), customdata: all, marker: { color: c.ahead, size: 6, opacity: 0.65 } },
      { ...svg, mode: "lines+markers", x: front.map((i) => x.drawn(rows[i].values[cost])), y: front.map((i) => y.drawn(rows[i].values[shortage])), customdata: front, line: { color: c.capacity, width: 2, shape: "hv" }, marker: { color: c.capacity, size: 8 } },
    ];
    if (current >= 0) {
      const { values } = rows[current];
      data.push({ ...svg, mode: "markers+text", x: [x.drawn(values[cost])], y: [y.drawn(values[shortage])], customdata: [current], text: ["in force"], textposition: "top right", marker: { symbol: "diamond", color: c.short, size: 11 } });
    }
    return Plotly.react(byId("pareto"), data, {
      ...layout, height: 380, margin: { l: 60, r: 12, t: 12, b: 44 }, hovermode: "closest", dragmode: false,
      xaxis: { ...axis, title: { ...axis.title, text: x.title } },
      yaxis: { ...axis, title: { ...axis.title, text: y.title }, rangemode: "tozero" },
    }, config);
  }

  function heat() {
    const { c, axis, layout } = looks();
    const across = byId("across").value;
    const up = byId("up").value;
    const figure = byId("shows").value;
    const levels = (name) => {
      const found = [...new Set(rows.map((row) => row.parameters[name]))];
      return found.sort((a, b) => (isFinite(amount(a)) && isFinite(amount(b)) ? amount(a) - amount(b) : String(a).localeCompare(String(b), "en", { numeric: true })));
    };
    const xs = levels(across);
    const ys = levels(up);
    const cells = ys.map((y) =>
      xs.map((x) => {
        const values = rows.filter((row) => row.parameters[across] === x && row.parameters[up] === y).map((row) => row.values[figure]).filter((value) => value !== null);
        values.sort((a, b) => a - b);
        const half = values.length >> 1;
        if (!values.length) return null;
        return values.length % 2 ? values[half] : (values[half - 1] + values[half]) / 2;
      }),
    );
    const few = xs.length * ys.length <= 100;
    return Plotly.react(byId("heat"), [{
      type: "heatmap", x: xs.map((x) => plain(x)), y: ys.map((y) => plain(y)), z: cells, xgap: 1, ygap: 1,
      colorscale: [[0, c.page], [1, c.heat]], textfont: { color: c.text }, showscale: !few, text: cells.map((line) => line.map((value) => (value === null ? "" : shown(figure, value)))),
      hovertemplate: "%{x}, %{y}: %{text}<extra></extra>", ...(few ? { texttemplate: "%{text}" } : {}),
    }], {
      ...layout, height: 380, margin: { l: 70, r: 12, t: 12, b: 44 }, dragmode: false,
      xaxis: { ...axis, type: "category", title: { ...axis.title, text: plain(across) } },
      yaxis: { ...axis, type: "category", title: { ...axis.title, text: plain(up) } },
    }, config);
  }

  pareto().then((chart) => {
    const say = (event) => {
      const row = rows[event.points[0].customdata];
      byId("variant").textContent = `${told(row)}: ${figures.filter((f) => SAID.has(f.key)).map((f) => `${f.label.toLowerCase()} ${shown(f.key, row.values[f.key])}`).join(", ")}`;
    };
    chart.on("plotly_hover", say);
    chart.on("plotly_click", say);
    chart.dataset.ready = "true";
  });
  const lists = [pareto];
  if (byId("heat")) {
    byId("up").selectedIndex = 1;
    figures.forEach((figure) => byId("shows").append(element("option", figure.label, { value: figure.key })));
    if (known.has(cost)) byId("shows").value = cost;
    for (const id of ["across", "up", "shows"]) byId(id).addEventListener("change", heat);
    heat();
    lists.push(heat);
  }
  recoloured(() => lists.forEach((again) => again()));
}

"use strict";
/* The charts of a sweep: cost against shortage with the variants that no other beats, and two parameters as a
 * heat map. The rules are those of page.js, which calls this with its tools.
 */
function variants(sweep, { byId, looks, config, element, number, plain, dark }) {
  const { parameters, figures, rows, cost, shortage } = sweep;
  const of = (key) => rows.map((row) => row.values[key]);
  const known = new Set(figures.map((figure) => figure.key));
  const labels = Object.fromEntries(figures.map((figure) => [figure.key, figure.label]));
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
    const current = rows.findIndex((row) => row.current);
    const svg = { type: "scatter", hoverinfo: "none" };
    const all = rows.map((_, index) => index);
    const data = [
      { ...svg, mode: "markers", x: of(cost), y: of(shortage), customdata: all, marker: { color: c.ahead, size: 6, opacity: 0.65 } },
      { ...svg, mode: "lines+markers", x: front.map((i) => rows[i].values[cost]), y: front.map((i) => rows[i].values[shortage]), customdata: front, line: { color: c.capacity, width: 2, shape: "hv" }, marker: { color: c.capacity, size: 8 } },
    ];
    if (current >= 0) {
      const { values } = rows[current];
      data.push({ ...svg, mode: "markers+text", x: [values[cost]], y: [values[shortage]], customdata: [current], text: ["in force"], textposition: "top right", marker: { symbol: "diamond", color: c.short, size: 11 } });
    }
    return Plotly.react(byId("pareto"), data, {
      ...layout, height: 380, margin: { l: 60, r: 12, t: 12, b: 44 }, hovermode: "closest", dragmode: false,
      xaxis: { ...axis, title: { ...axis.title, text: plain(labels[cost]) } },
      yaxis: { ...axis, title: { ...axis.title, text: plain(labels[shortage]) }, rangemode: "tozero" },
    }, config);
  }

  function heat() {
    const { c, axis, layout } = looks();
    const across = byId("across").value;
    const up = byId("up").value;
    const figure = byId("shows").value;
    const levels = (name) => {
      const found = [...new Set(rows.map((row) => row.parameters[name]))];
      return found.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
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
      colorscale: [[0, c.page], [1, c.capacity]], showscale: !few, hovertemplate: `${plain(across)} %{x}<br>${plain(up)} %{y}<br>%{z:.4~g}<extra></extra>`,
      ...(few ? { texttemplate: "%{z:.3~s}" } : {}),
    }], {
      ...layout, height: 380, margin: { l: 70, r: 12, t: 12, b: 44 }, dragmode: false,
      xaxis: { ...axis, type: "category", title: { ...axis.title, text: plain(across) } },
      yaxis: { ...axis, type: "category", title: { ...axis.title, text: plain(up) } },
    }, config);
  }

  pareto().then((chart) => {
    const say = (event) => {
      const row = rows[event.points[0].customdata];
      byId("variant").textContent = `${told(row)}: ${figures.filter((f) => row.values[f.key] !== null).map((f) => `${f.label.toLowerCase()} ${number(row.values[f.key])}`).join(", ")}`;
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
  dark.addEventListener("change", () => lists.forEach((again) => again()));
}

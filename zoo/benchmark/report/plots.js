// The scatter plots: latency against one merit, the Pareto front of each block as a step line, at most a thousand points.

const LIMIT = 1000;
const EVERY = "every";
// Okabe and Ito's colours, told apart with any kind of colour vision; without black and yellow, which vanish on one ground.
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x", "star", "pentagon"];
const LABELLED = 12; // so many points have their names beside them; more would cover one another,
const CROWD = 60; // and beside more others than this they could not be read
const DASHES = ["solid", "dash", "dot", "dashdot"];
const latency = columnNamed.get("latency");
const plotted = { plot: data.plots[0], block: EVERY };
const figure = document.getElementById("plot");

/** Return the points of the chosen blocks: all of them, or the fronts and those nearest to their block's fastest. */
function pointsOf(plot, blocks) {
  const merit = columnNamed.get(plot.name).value;
  const points = everyRow.filter((row) => blocks.has(data.block[row]) && latency.value(row) !== null && merit(row) !== null);
  if (points.length <= LIMIT) return { points, left: 0 };
  const front = new Set([...blocks].flatMap((block) => plot.fronts[block] ?? []));
  const fastest = new Map([...blocks].map((block) => [block, Infinity]));
  for (const row of points) fastest.set(data.block[row], Math.min(fastest.get(data.block[row]), latency.value(row)));
  const distance = (row) => (front.has(row) ? 0 : latency.value(row) / fastest.get(data.block[row]));
  const kept = points.sort((a, b) => distance(a) - distance(b) || a - b).slice(0, Math.max(LIMIT, front.size));
  return { points: kept, left: points.length - kept.length };
}

/** Keep what plugins call their models from being read as Plotly's own small HTML. */
function plotText(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\s+/g, " ");
}

/** Break a long name where a hover label would leave the page. */
function folded(text, width = 44) {
  const lines = [""];
  for (const word of text.split(/(?<=[ ,:/_])/)) {
    if (lines.at(-1) && lines.at(-1).length + word.length > width) lines.push("");
    lines[lines.length - 1] += word;
  }
  return lines
    .flatMap((line) => line.match(/.{1,60}/gs) ?? [""])
    .map(plotText)
    .join("<br>");
}

function shortened(text, length = 32) {
  return text.length > length ? `${text.slice(0, length - 1)}…` : text;
}

function hoverText(row, plot, isOnFront) {
  const said = [`<b>${folded(data.pairings[data.pairing[row]].name)}</b>`];
  const dimensions = data.dimensions.map((name) => columnNamed.get(name)).filter(Boolean);
  const told = ({ name, heading, cell }) => (["run", "batch"].includes(name) ? `${heading} ${cell(row)}` : cell(row));
  said.push(folded(dimensions.map(told).join(", ")));
  for (const name of ["latency", "ratio", plot.name]) {
    const column = columnNamed.get(name);
    if (column) said.push(`${plotText(column.heading)}: ${plotText(column.cell(row))}`);
  }
  if (isOnFront) said.push("on the Pareto front");
  return said.join("<br>");
}

function tracesOf(plot, points) {
  const merit = columnNamed.get(plot.name).value;
  const x = (row) => latency.value(row) * 1000;
  const y = (row) => merit(row) * plot.scale;
  const blocks = [...new Set(points.map((row) => data.block[row]))].sort((a, b) => a - b);
  const fronts = blocks.flatMap((block) => plot.fronts[block] ?? []);
  const isLabelled = (rows) => rows.length <= LABELLED && points.length <= CROWD && figure.clientWidth >= 640;
  const [least, most] = [Math.min(...points.map(x)), Math.max(...points.map(x))];
  const f = most > WIDE * least ? Math.log : (value) => value;
  const place = (value) => (f(value) - f(least)) / (f(most) - f(least) || 1);
  const room = figure.clientWidth - 80; // between the axis and the right edge, where a name of 7 pixels a letter must end
  const name = (row) => shortened(data.pairings[data.pairing[row]].name);
  const side = (row) => ((0.05 + 0.9 * place(x(row))) * room + 7 * name(row).length + 12 > room ? "top left" : "top right");
  return blocks.flatMap((block) => {
    const front = plot.fronts[block] ?? [];
    const isOnFront = new Set(front);
    const own = points.filter((row) => data.block[row] === block);
    const color = COLOURS[block % COLOURS.length];
    const dash = DASHES[Math.floor(block / COLOURS.length) % DASHES.length];
    const marked = (rows, size, opacity) => ({
      type: "scatter",
      name: folded(data.blocks[block]),
      legendgroup: String(block),
      x: rows.map(x),
      y: rows.map(y),
      customdata: rows,
      hoverinfo: "text",
      hovertext: rows.map((row) => hoverText(row, plot, isOnFront.has(row))),
      text: rows.map((row) => plotText(name(row))),
      textposition: rows.map(side),
      textfont: { size: 12 },
      cliponaxis: false,
      marker: { color, size, opacity, symbol: SYMBOLS[block % SYMBOLS.length], line: { width: 1, color: "#333" } },
    });
    return [
      {
        ...marked(
          own.filter((row) => !isOnFront.has(row)),
          7,
          0.6,
        ),
        mode: isLabelled(points) ? "markers+text" : "markers",
        showlegend: false,
      },
      {
        ...marked(front, 11, 1),
        mode: isLabelled(fronts) ? "lines+markers+text" : "lines+markers",
        line: { color, dash, width: 1.5, shape: "hv" },
        showlegend: data.blocks.length > 1,
      },
    ];
  });
}

function axisOf(title, values) {
  const [least, most] = [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
  const isLog = least > 0 && most > WIDE * least;
  const kind = isLog
    ? { type: "log", dtick: "D2", minor: { showgrid: false } }
    : { type: "linear", zeroline: false, nticks: 8 };
  const told = { text: isLog ? `${title} (log)` : title, standoff: 8 };
  return { ...kind, title: told, automargin: true, gridwidth: 1, exponentformat: "none" };
}

function drawPlot() {
  const { plot } = plotted;
  const blocks = plotted.block === EVERY ? new Set(data.blocks.keys()) : new Set([Number(plotted.block)]);
  const { points, left } = pointsOf(plot, blocks);
  const merit = columnNamed.get(plot.name).value;
  const isNarrow = figure.clientWidth < 640; // the buttons would lie on the legend
  const legendPlace = isNarrow ? { y: -0.2, yanchor: "top" } : { y: 1.02, yanchor: "bottom" };
  const layout = {
    xaxis: axisOf(
      "latency, ms",
      points.map((row) => latency.value(row) * 1000),
    ),
    yaxis: axisOf(
      plot.label,
      points.map((row) => merit(row) * plot.scale),
    ),
    height: 460,
    margin: { l: 64, r: 16, t: 36, b: 56 },
    hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#555", font: { size: 13, color: "#1b1f24" } },
    legend: { orientation: "h", x: 0, itemsizing: "trace", ...legendPlace },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#1b1f24" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    dragmode: false,
    modebar: { bgcolor: "rgba(0,0,0,0)" },
  };
  const config = {
    responsive: true,
    displaylogo: false,
    showLink: false,
    showSendToCloud: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "sendDataToCloud"],
    toImageButtonOptions: { filename: `latency-${plot.name}`, scale: 2 },
  };
  tellPlot(plot, points.length, left);
  return Plotly.react(figure, tracesOf(plot, points), layout, config);
}

function tellPlot(plot, drawn, left) {
  const all = `Drawn ${drawn === 1 ? "is" : "are"} ${counted(drawn, "row")}, all that have both values.`;
  const some =
    `Drawn are the fronts and the rows nearest to their block's fastest, ${drawn.toLocaleString("en")} in all; ` +
    `${counted(left, "slower row")} ${left === 1 ? "is" : "are"} not drawn.`;
  document.getElementById("plot-caption").textContent = [
    `Better is ${plot.name === "quality" ? "left and up" : "left and down"}.`,
    "The step line is each block's Pareto front: no other row of the block beats its points, drawn larger, in both values.",
    left ? some : all,
    "Point at one for its name; a click opens its pairing.",
  ].join(" ");
}

function plotControls() {
  const redraw = (name) => (value) => {
    plotted[name] = name === "plot" ? data.plots[Number(value)] : value;
    if (window.Plotly) drawPlot();
    else startPlots();
  };
  const parts = [
    select(
      "plot",
      data.plots.map(({ title }, place) => [String(place), title]),
      "0",
      redraw("plot"),
    ),
  ];
  if (data.blocks.length > 1) {
    if (data.blocks.length > COLOURS.length) plotted.block = "0";
    const blocks = data.blocks.map((label, place) => [String(place), label]);
    parts.push(select("rows", [[EVERY, "all"], ...blocks], plotted.block, redraw("block")));
  }
  document.getElementById("plot-controls").replaceChildren(...parts);
}

/** Run plotly.js, which takes a second or more, and draw; asked for when the plot comes near, or for printing. */
function startPlots() {
  if (window.Plotly) return;
  const script = element("script", {}, document.getElementById("plotly").textContent);
  document.body.append(script);
  drawPlot().then(() => performance.mark("zoo-plot"));
  figure.on("plotly_click", ({ points: [{ customdata: row }] }) => (location.hash = `pairing-${data.pairing[row]}`));
}

/** Paper has a width of its own, which no resize tells of. */
function watchPrinting() {
  window.addEventListener("beforeprint", () => {
    startPlots();
    Plotly.relayout(figure, { width: 980 });
  });
  window.addEventListener("afterprint", () => Plotly.relayout(figure, { width: null, autosize: true }));
}

if (data.plots.length) {
  plotControls();
  // plotly.js stands below this script, and what is asked of it before it is there waits for it
  document.addEventListener("DOMContentLoaded", () => {
    watchPrinting();
    const near = new IntersectionObserver(
      (found) => {
        if (!found.some(({ isIntersecting }) => isIntersecting)) return;
        near.disconnect();
        setTimeout(startPlots, 50); // after the table is on the screen
      },
      { rootMargin: "100% 0%" },
    );
    near.observe(figure);
  });
} else {
  document.getElementById("plot-figure").replaceChildren("Nothing to plot: no row has a latency and a second value.");
}
performance.mark("zoo-ready");

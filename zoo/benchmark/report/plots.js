// The scatter plots: latency against another column, with each block's Pareto front as a step line.

const LIMIT = 1000; // points
// Okabe and Ito's colors can be told apart with any color vision; black and yellow would vanish on a black or white ground.
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x", "star", "pentagon"];
const DASHES = ["solid", "dash", "dot", "dashdot"];
const LABELED = 12; // the most points with names beside them: more names would cover one another
const CROWD = 60; // with more points than this, no names are shown, since they would be unreadable
const latency = columnNamed.get("latency");
const figure = document.getElementById("plot");
const chosen = { plot: 0, block: data.blocks.length > COLORS.length ? 0 : null }; // null: all blocks

/**
 * Return the points of some blocks. If there are more than `LIMIT`, return the points on the Pareto fronts and, up to `LIMIT`
 * points in all, those whose latency is closest to that of the fastest row of their block.
 */
function selectPoints(plot, blocks) {
  const { value } = columnNamed.get(plot.name);
  const points = everyRow.filter((row) => blocks.has(data.block[row]) && latency.value(row) !== null && value(row) !== null);
  if (points.length <= LIMIT) return { points, left: 0 };
  const front = new Set([...blocks].flatMap((block) => plot.fronts[block] ?? []));
  const fastest = new Map([...blocks].map((block) => [block, Infinity]));
  for (const row of points) fastest.set(data.block[row], Math.min(fastest.get(data.block[row]), latency.value(row)));
  const distance = (row) => (front.has(row) ? 0 : latency.value(row) / fastest.get(data.block[row]));
  const nearest = points.sort((a, b) => distance(a) - distance(b) || a - b).slice(0, Math.max(LIMIT, front.size));
  return { points: nearest, left: points.length - nearest.length };
}

/** Escape a text, since Plotly interprets some HTML tags in it. */
function escapeText(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;").replace(/\s+/g, " ");
}

/** Break a long name after a separator, so that a hover label stays on the page. */
function wrapText(text) {
  const lines = text.match(/.{1,44}$|.{0,43}[ ,:/_]|.{1,60}/gs) ?? [];
  return lines.map(escapeText).join("<br>");
}

function shortName(row, length = 32) {
  const { name } = pairingOf(row);
  return name.length > length ? `${name.slice(0, length - 1)}…` : name;
}

function formatHover(row, plot, isOnFront) {
  const describe = ({ name, heading, cell }) => (["run", "batch"].includes(name) ? `${heading} ${cell(row)}` : cell(row));
  const values = ["latency", "ratio", plot.name].map((name) => columnNamed.get(name)).filter(Boolean);
  return [
    `<b>${wrapText(pairingOf(row).name)}</b>`,
    wrapText(dimensions.map(describe).join(", ")),
    ...values.map(({ heading, cell }) => escapeText(`${heading}: ${cell(row)}`)),
    ...(isOnFront ? ["on the Pareto front"] : []),
  ].join("<br>");
}

/** Return two traces for each block: the points that are not on its Pareto front, and the front. */
function createTraces(plot, points, x, y) {
  const blocks = [...new Set(points.map((row) => data.block[row]))].sort((a, b) => a - b);
  const fronts = blocks.flatMap((block) => plot.fronts[block] ?? []);
  const hasNames = (rows) => rows.length <= LABELED && points.length <= CROWD && figure.clientWidth >= 640;
  const [least, most] = findRange(points.map(x));
  const middle = most > WIDE * least ? Math.sqrt(least * most) : (least + most) / 2;
  return blocks.flatMap((block) => {
    const front = plot.fronts[block] ?? [];
    const isOnFront = new Set(front);
    const beaten = points.filter((row) => data.block[row] === block && !isOnFront.has(row));
    const color = COLORS[block % COLORS.length];
    const symbol = SYMBOLS[block % SYMBOLS.length];
    const dash = DASHES[Math.floor(block / COLORS.length) % DASHES.length];
    const createTrace = (rows, size, opacity) => ({
      type: "scatter",
      name: wrapText(data.blocks[block]),
      legendgroup: String(block),
      x: rows.map(x),
      y: rows.map(y),
      customdata: rows,
      hoverinfo: "text",
      hovertext: rows.map((row) => formatHover(row, plot, isOnFront.has(row))),
      text: rows.map((row) => escapeText(shortName(row))),
      textposition: rows.map((row) => (x(row) > middle ? "top left" : "top right")), // toward the middle, inside the plot
      textfont: { size: 12 },
      cliponaxis: false,
      marker: { color, size, opacity, symbol, line: { width: 1, color: "#333" } },
    });
    const others = { ...createTrace(beaten, 7, 0.6), showlegend: false };
    others.mode = hasNames(points) ? "markers+text" : "markers";
    const line = { color, dash, width: 1.5, shape: "hv" };
    const frontTrace = { ...createTrace(front, 11, 1), line, showlegend: data.blocks.length > 1 };
    frontTrace.mode = hasNames(fronts) ? "lines+markers+text" : "lines+markers";
    return [others, frontTrace];
  });
}

function createAxisLayout(title, values) {
  const [least, most] = findRange(values);
  const isLog = least > 0 && most > WIDE * least;
  const logScale = { type: "log", dtick: "D2", minor: { showgrid: false } };
  const scale = isLog ? logScale : { type: "linear", zeroline: false, nticks: 8 };
  const text = isLog ? `${title} (log)` : title;
  return { ...scale, title: { text, standoff: 8 }, automargin: true, gridwidth: 1, exponentformat: "none" };
}

function drawPlot() {
  const plot = data.plots[chosen.plot];
  const { value } = columnNamed.get(plot.name);
  const blocks = new Set(chosen.block === null ? data.blocks.keys() : [chosen.block]);
  const { points, left } = selectPoints(plot, blocks);
  const x = (row) => latency.value(row) * 1000;
  const y = (row) => value(row) * plot.scale;
  const isNarrow = figure.clientWidth < 640; // the buttons would lie on the legend
  const legendPosition = isNarrow ? { y: -0.2, yanchor: "top" } : { y: 1.02, yanchor: "bottom" };
  const layout = {
    xaxis: createAxisLayout("latency, ms", points.map(x)),
    yaxis: createAxisLayout(plot.label, points.map(y)),
    height: 460,
    margin: { l: 64, r: 16, t: 36, b: 56 },
    hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: "#fff", bordercolor: "#555", font: { size: 13, color: "#1b1f24" } },
    legend: { orientation: "h", x: 0, itemsizing: "trace", ...legendPosition },
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#1b1f24" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    dragmode: false,
    modebar: { bgcolor: "rgba(0,0,0,0)" },
  };
  const config = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
    toImageButtonOptions: { filename: `latency-${plot.name}`, scale: 2 },
  };
  const content = left
    ? `the fronts and the rows nearest to their block's fastest, ${formatNumber(points.length)} in all; ` +
      `${formatCount(left, "slower row")} ${left === 1 ? "is" : "are"} not drawn`
    : `${formatCount(points.length, "row")}, all that have both values`;
  document.getElementById("plot-caption").textContent =
    `The plot shows ${content}. Better is ${plot.name === "quality" ? "left and up" : "left and down"}. ` +
    "The step line is each block's Pareto front, whose points are larger: no other row of the block is at least as good in " +
    "both values and better in one. Point at a row to see its name; click it to open its pairing.";
  return Plotly.react(figure, createTraces(plot, points, x, y), layout, config);
}

/** Draw the plot. The first call runs plotly.js before it draws, which takes a second or more. */
function showPlot() {
  const isFirst = !window.Plotly;
  if (isFirst) document.body.append(create("script", {}, document.getElementById("plotly").textContent));
  const drawn = drawPlot();
  if (!isFirst) return;
  drawn.then(() => performance.mark("zoo-plot"));
  figure.on("plotly_click", ({ points: [{ customdata: row }] }) => (location.hash = `pairing-${data.pairing[row]}`));
}

function choose(facts) {
  Object.assign(chosen, facts);
  showPlot();
}

/** Draw the plot when the reader scrolls near it or prints the page. Printing changes the width, but causes no resize event. */
function watchPage() {
  window.addEventListener("beforeprint", () => {
    if (!window.Plotly) showPlot();
    Plotly.relayout(figure, { width: 980 });
  });
  window.addEventListener("afterprint", () => Plotly.relayout(figure, { width: null, autosize: true }));
  const observer = new IntersectionObserver(
    (changes) => {
      if (!changes.some(({ isIntersecting }) => isIntersecting)) return;
      observer.disconnect();
      setTimeout(() => window.Plotly || showPlot(), 50); // after the table is on the screen
    },
    { rootMargin: "100% 0%" },
  );
  observer.observe(figure);
}

if (data.plots.length) {
  const titles = data.plots.map(({ title }) => title);
  const controls = [createSelect("plot", titles, (plot) => choose({ plot }))];
  if (data.blocks.length > 1) {
    const chooseBlock = (index) => choose({ block: index ? index - 1 : null });
    controls.push(createSelect("rows", ["all", ...data.blocks], chooseBlock, chosen.block === null ? 0 : 1));
  }
  document.getElementById("plot-controls").append(...controls);
  document.addEventListener("DOMContentLoaded", watchPage); // wait, because the source of plotly.js follows this script
} else {
  document.getElementById("plot-figure").replaceChildren("Nothing to plot: no row has a latency and a second value.");
}
performance.mark("zoo-ready");

// The page's data, and the functions that its parts share. Names and errors come from plugins: they become text, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns.map((column) => ({
  ...column,
  ties: new Set(column.ties),
  cell: (row) => column.entries[column.at[row]][0], // what a person reads
  value: (row) => column.entries[column.at[row]][1], // what the row is sorted by; null if it was not measured
}));
const columnNamed = new Map(columns.map((column) => [column.name, column]));
const dimensions = data.dimensions.map((name) => columnNamed.get(name)).filter(Boolean);
const baselines = new Set(data.baselines);
const everyRow = [...Array(data.size).keys()];
const pairingOf = (row) => data.pairings[data.pairing[row]];
const WIDE = 30; // the scale is logarithmic if the largest value is more than this many times the smallest

/** Return an element; children that are not nodes become text. */
function create(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value || value === 0) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat());
  return element;
}

const formatNumber = new Intl.NumberFormat("en").format;

function formatCount(number, noun) {
  return `${formatNumber(number)} ${noun}${number === 1 ? "" : "s"}`;
}

function findRange(values) {
  return [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];
}

/** Return a labeled select; `onchange` receives the index of the chosen text. */
function createSelect(label, texts, onchange, chosen = 0) {
  const options = texts.map((text, index) => create("option", { selected: index === chosen }, text));
  const select = create("select", { onchange: () => onchange(select.selectedIndex) }, options);
  return create("label", { class: "field" }, create("span", {}, label), select);
}

/** Return the cell of a row in any column except "pairing". */
function createCell(column, row) {
  const text = column.cell(row);
  if (column.lows && column.value(row) !== null) {
    return create("td", { role: "cell", class: "number estimate" }, createEstimate(column, row), createBar(column, row));
  }
  const kind = column.isNumber ? "number" : `words ${column.name}`;
  return create("td", { role: "cell", class: text === "-" ? `${kind} none` : kind }, text);
}

/** Return the median, the interval and the text after them as separate elements for the style sheet. */
function createEstimate(column, row) {
  const text = column.cell(row);
  const [, median, interval, rest] = /^(\S+)( \[[^\]]*\])( .*)?$/.exec(text) ?? [];
  if (!median) return create("span", { class: "told" }, text);
  const kind = column.ties.has(row) ? "told tie" : "told";
  const tag = rest ? [" ", create("span", { class: "tag" }, rest.trim())] : [];
  return create("span", { class: kind }, create("b", {}, median), create("i", {}, interval), tag);
}

/** Return the scale of a column's bars: its ends, and the position of a value in percent. All ratios share one scale. */
function scaleOf(column) {
  if (column.scale) return column.scale;
  const isRatio = column.name.endsWith("ratio");
  const sharing = isRatio ? columns.filter(({ name, lows }) => lows && name.endsWith("ratio")) : [column];
  let [low, high] = findRange(sharing.flatMap(({ lows, highs }) => [...lows, ...highs]).filter((value) => value !== null));
  if (isRatio) [low, high] = [Math.min(low, 0.9) / 1.02, Math.max(high, 1.1) * 1.02];
  const isLog = low > 0 && (isRatio || high / low > WIDE);
  if (!isLog) low = Math.min(low, 0);
  const f = isLog ? Math.log : (value) => value;
  const place = (value) => Math.max(0, Math.min(100, (100 * (f(value) - f(low))) / (f(high) - f(low) || 1)));
  if (isRatio) {
    const { style } = document.documentElement;
    style.setProperty("--one", `${place(1).toFixed(2)}%`);
    setSpan(style, "--tie-", ...data.tie.map(place));
  }
  return (column.scale = { low, high, isRatio, isLog, place });
}

/** Set the position of a bar's layer as `background-position` defines percentages, and its width in percent of the bar. */
function setSpan(style, name, low, high) {
  const span = high - low;
  style.setProperty(`${name}start`, `${(span < 100 ? (100 * low) / (100 - span) : 0).toFixed(2)}%`);
  style.setProperty(`${name}span`, `${span.toFixed(2)}%`);
}

function createBar(column, row) {
  const { isRatio, place } = scaleOf(column);
  const bar = create("span", { class: isRatio ? "bar ratio" : "bar", "aria-hidden": "true" });
  setSpan(bar.style, "--", place(column.lows[row]), place(column.highs[row]));
  bar.style.setProperty("--middle", `${place(column.value(row)).toFixed(2)}%`);
  return bar;
}

/** Return a table that scrolls sideways by itself, while the page stays in place. */
function createScrollingTable(label, kind, head, body) {
  const table = create("table", { class: kind }, create("thead", {}, create("tr", {}, head)), create("tbody", {}, body));
  return create("div", { class: "scroller", role: "region", "aria-label": label, tabindex: "0" }, table);
}

/** Open the pairing or failure that the address names. */
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    fillPairing(target);
    target.scrollIntoView();
  }
}
window.addEventListener("hashchange", openTarget);
document.addEventListener("click", ({ target }) => {
  if (target.closest("a[href^='#']")?.hash === location.hash) openTarget(); // the address is the same: no hashchange
});

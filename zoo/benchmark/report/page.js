// The page's data and what its parts share. Names and errors come from plugins: they become text nodes, never markup.

const data = JSON.parse(document.getElementById("data").textContent);
const columns = data.columns.map(decoded);
const columnNamed = new Map(columns.map((column) => [column.name, column]));
const baselines = new Set(data.baselines);
const distrusted = new Set(data.distrusted);
const rowsOf = data.pairings.map(() => []);
data.pairing.forEach((place, row) => rowsOf[place].push(row));
const WIDE = 30; // what ranges over more than this ratio is drawn on a logarithmic scale

/** Return the column with `cell(row)`, what a person reads, and `value(row)`, what it is sorted by (null: not measured). */
function decoded(column) {
  const { entries, at, cells, values } = column;
  const ties = new Set(column.ties ?? []);
  return entries
    ? { ...column, ties, cell: (row) => entries[at[row]][0], value: (row) => entries[at[row]][1] }
    : { ...column, ties, cell: (row) => cells[row], value: (row) => values[row] };
}

/** Return an element; what is among the children and no node becomes text. */
function element(tag, facts = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat());
  return made;
}

function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** Return a labelled select whose options are [value, text] pairs. */
function select(label, options, chosen, onchange) {
  const made = element("select", { onchange: () => onchange(made.value) });
  for (const [value, text] of options) made.append(element("option", { value, selected: value === chosen }, text));
  return element("label", { class: "field" }, element("span", {}, label), made);
}

/** Return one cell of a row, but its pairing's, as the table and the pairings show it. */
function cellOf(column, row) {
  const text = column.cell(row);
  if (column.lows && column.value(row) !== null) {
    return element("td", { role: "cell", class: "number estimate" }, estimateText(column, row, text), bar(column, row));
  }
  const tone = text === "-" ? " none" : "";
  return element("td", { role: "cell", class: (column.isNumber ? "number" : `words ${column.name}`) + tone }, text);
}

/** Return median, interval and what follows it, apart, so that a stylesheet can tell them apart. */
function estimateText(column, row, text) {
  const found = /^(\S+)( \[[^\]]*\])( .*)?$/.exec(text);
  const isTie = column.ties.has(row);
  if (!found) return element("span", { class: "told" }, text);
  const [, median, interval, rest] = found;
  const made = element("span", { class: isTie ? "told tie" : "told" }, element("b", {}, median), element("i", {}, interval));
  if (rest) made.append(" ", element("span", { class: "tag" }, rest.trim()));
  return made;
}

/** Return the scale of a column's bars: where a value lies, in percent, and its two ends. All ratios share one. */
function scaleOf(column) {
  if (column.scale) return column.scale;
  const isRatio = column.name.endsWith("ratio");
  const alike = isRatio ? columns.filter(({ name, lows }) => lows && name.endsWith("ratio")) : [column];
  const known = alike.flatMap(({ lows, highs }) => [...lows, ...highs]).filter((value) => value !== null);
  let [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
  if (isRatio) [low, high] = [Math.min(low, 0.9) / 1.02, Math.max(high, 1.1) * 1.02];
  const isLog = low > 0 && (isRatio || high / low > WIDE);
  if (!isLog) low = Math.min(low, 0);
  const f = isLog ? Math.log : (value) => value;
  const place = (value) => Math.max(0, Math.min(100, (100 * (f(value) - f(low))) / (f(high) - f(low) || 1)));
  const root = document.documentElement.style;
  if (isRatio) root.setProperty("--one", `${place(1).toFixed(2)}%`);
  if (isRatio) setSpan(root, "--tie-", ...data.tie.map(place));
  return (column.scale = { low, high, isRatio, isLog, place });
}

/** Set where a layer of a bar begins and how wide it is, both in percent as `background` counts them. */
function setSpan(style, name, low, high) {
  const span = high - low;
  style.setProperty(`${name}start`, `${(span < 100 ? (100 * low) / (100 - span) : 0).toFixed(2)}%`);
  style.setProperty(`${name}span`, `${span.toFixed(2)}%`);
}

function bar(column, row) {
  const scale = scaleOf(column);
  const made = element("span", { class: scale.isRatio ? "bar ratio" : "bar", "aria-hidden": "true" });
  setSpan(made.style, "--", scale.place(column.lows[row]), scale.place(column.highs[row]));
  made.style.setProperty("--middle", `${scale.place(column.value(row)).toFixed(2)}%`);
  return made;
}

/** Open what the address names: a pairing or a failure. */
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
  if (target.closest("a[href^='#']")?.hash === location.hash) openTarget(); // the address stays, so nothing else tells
});

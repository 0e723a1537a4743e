// The table: which columns and rows are shown, in which order. All rows are sorted and filtered; few are drawn at first.

const FEW = 200;
const TALL = 40; // more rows scroll below their headings, fewer with the page
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const shown = new Set(columns.filter((column) => column.isShown).map((column) => column.name));
const facets = new Map();
const state = { sort: null, direction: 1, words: "", outcome: "", limit: FEW };
const everyRow = Array.from({ length: data.size }, (_, row) => row);
let haystack = null;
let matching = everyRow;

// The rows are grids of fixed columns, so that the browser lays out only those in sight; the roles keep them a table.
const scroller = document.getElementById("scroller");
const head = element("thead", { role: "rowgroup" });
const body = element("tbody", { role: "rowgroup" });
const results = element("table", { class: "results", id: "results", role: "table", "aria-label": "Results" }, head, body);
scroller.append(results);

/** Return the rows that pass every filter, sorted; what was not measured comes last, whichever way. */
function chosenRows() {
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length && !haystack) haystack = everyRow.map(searched);
  const found = everyRow.filter(
    (row) =>
      words.every((word) => haystack[row].includes(word)) &&
      [...facets.values()].every(({ chosen, text }) => chosen === null || text(row) === chosen) &&
      (!state.outcome || outcomes(row).includes(state.outcome)),
  );
  if (!state.sort) return found;
  const value = columnNamed.get(state.sort).value;
  const known = found.filter((row) => value(row) !== null);
  const isText = known.length > 0 && typeof value(known[0]) === "string";
  const compare = isText ? (a, b) => collator.compare(value(a), value(b)) : (a, b) => value(a) - value(b);
  known.sort((a, b) => state.direction * compare(a, b) || a - b);
  return [...known, ...found.filter((row) => value(row) === null)];
}

function searched(row) {
  const { name, code } = data.pairings[data.pairing[row]];
  const said = ["licences", "flags"].map((column) => columnNamed.get(column)?.cell(row) ?? "");
  return [name, code, ...said, data.failures[row] ?? "", errorOf(row)].join("\n").toLowerCase();
}

function outcomes(row) {
  if (row in data.failures) return ["failed"];
  const isTie = columnNamed.get("ratio")?.ties.has(row);
  return isTie ? ["measured", "tie"] : ["measured"];
}

/** Return a failed row's error, which stands in the page's own text already. */
function errorOf(row) {
  return document.getElementById(`failure-${row}`)?.querySelector("pre").textContent ?? "";
}

function drawTable() {
  matching = chosenRows();
  measureColumns();
  drawHead();
  drawBody();
}

function visibleColumns() {
  return columns.filter((column) => shown.has(column.name) || column.name === "pairing");
}

/** Set the columns' widths, in digits, from the longest cell of all rows: they stay as they are whatever is shown. */
function measureColumns() {
  const visible = visibleColumns();
  const space = (width) => `calc(${width}ch + 1.5rem)`;
  const tags = (row) => (baselines.has(row) ? 10 : row in data.failures ? failureKind(row).length : 0);
  const widths = visible.map((column) => {
    const isPairing = column.name === "pairing";
    const length = (row) => column.cell(row).length + (isPairing ? tags(row) : 0);
    const longest = everyRow.reduce((most, row) => Math.max(most, length(row)), 0);
    const least = isPairing ? 16 : column.lows ? 20 : Math.round(column.heading.length * 0.85) + 3;
    return Math.min(Math.max(longest, least), Math.max(least, isPairing || column.lows ? 40 : 28));
  });
  const first = visible.findIndex(({ name }) => name === "pairing");
  const tracks = widths.map((width, place) => `minmax(${place === first ? "var(--first)" : space(width)}, ${width}fr)`);
  const others = widths.filter((_, place) => place !== first);
  const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
  results.style.setProperty("--first", space(widths[first]));
  results.style.setProperty("--columns", tracks.join(" "));
  results.style.setProperty("--width", `calc(var(--first) + ${sum(others)}ch + ${1.5 * others.length}rem)`);
  results.style.setProperty("--digits", sum(widths) + 3 * widths.length);
}

function drawHead() {
  const focused = document.activeElement?.dataset?.column;
  const cells = visibleColumns().map((column) => {
    const { name, heading, isNumber } = column;
    const button = element("button", { type: "button", "data-column": name, onclick: () => sortBy(name) }, heading);
    const sorted = state.sort !== name ? "none" : state.direction > 0 ? "ascending" : "descending";
    const kind = `${isNumber ? "number" : "words"} ${name}`;
    const made = element("th", { scope: "col", role: "columnheader", class: kind, "aria-sort": sorted }, button);
    if (column.lows?.some((value) => value !== null)) made.append(axis(column));
    return made;
  });
  head.replaceChildren(element("tr", { role: "row" }, cells));
  if (focused) head.querySelector(`[data-column="${focused}"]`)?.focus();
}

/** Return the ends of a column's bars, as small print below its heading. */
function axis(column) {
  const { low, high, isRatio, isLog } = scaleOf(column);
  const told = (value) => Number((isRatio ? value : value * 1000).toPrecision(2)).toLocaleString("en");
  const made = element(
    "span",
    { class: "axis", "aria-hidden": "true" },
    element("span", {}, told(low)),
    element("span", {}, told(high)),
  );
  if (isRatio) {
    const one = element("span", { class: "one" }, "1");
    one.style.setProperty("--place", `${scaleOf(column).place(1).toFixed(1)}%`);
    if (scaleOf(column).place(1) > 15 && scaleOf(column).place(1) < 85) made.append(one);
  } else if (isLog) made.append(element("span", { class: "one log" }, "log"));
  return made;
}

function sortBy(name) {
  if (state.sort !== name) [state.sort, state.direction] = [name, 1];
  else if (state.direction > 0) state.direction = -1;
  else state.sort = null;
  drawTable();
}

function drawBody() {
  const visible = visibleColumns();
  const drawn = matching.slice(0, state.limit);
  const parts = [];
  let before = null;
  for (const row of drawn) {
    const starts = !state.sort && before !== null && data.block[before] !== data.block[row];
    parts.push(tableRow(row, visible, starts));
    if (row in data.failures) parts.push(errorRow(row, visible.length));
    before = row;
  }
  if (!drawn.length) parts.push(wideRow(null, visible.length, "nothing", "No row matches."));
  body.replaceChildren(...parts);
  scroller.classList.toggle("tall", drawn.length > TALL);
  tellStatus(drawn.length);
}

function tableRow(row, visible, starts) {
  const kind = [row in data.failures && "failed", baselines.has(row) && "baseline", starts && "starts"].filter(Boolean);
  const made = element("tr", { role: "row", class: kind.join(" ") || null, "data-row": row });
  for (const column of visible) made.append(column.name === "pairing" ? pairingCell(row) : cellOf(column, row));
  return made;
}

function pairingCell(row) {
  const place = data.pairing[row];
  const link = element("a", { href: `#pairing-${place}`, class: "name" }, data.pairings[place].name);
  const made = element("th", { scope: "row", role: "rowheader", class: "words pairing" }, link);
  if (row in data.failures) made.append(" ", element("span", { class: "tag failed" }, failureKind(row)));
  else if (baselines.has(row)) made.append(" ", element("span", { class: "tag" }, "baseline"));
  if (distrusted.has(row)) made.append(" ", element("a", { class: "tag off", href: "#table" }, "A/A check off"));
  return made;
}

function failureKind(row) {
  return data.failures[row] === "error" ? "failed" : `failed: ${data.failures[row]}`;
}

function errorRow(row, width) {
  const error = errorOf(row).trim();
  const [first, ...others] = error.split("\n");
  const whole = element("details", { class: "error" }, element("summary", {}, first), element("pre", { tabindex: "0" }, error));
  const told = others.length || first.length > 120 ? whole : element("p", { class: "error" }, first);
  return wideRow("failed", width, "wide", told);
}

function wideRow(kind, width, name, told) {
  return element(
    "tr",
    { role: "row", class: kind },
    element("td", { role: "cell", colspan: width, "aria-colspan": width, class: name }, told),
  );
}

function tellStatus(drawn) {
  const told = (number) => number.toLocaleString("en");
  const rows = counted(data.size, "row");
  const found = matching.length === data.size ? rows : `${told(matching.length)} of ${rows}`;
  const isCut = drawn < matching.length;
  const cut = `${found}; the first ${told(drawn)} are shown, and would be printed.`;
  document.getElementById("status").textContent = isCut ? cut : `${found}.`;
  const button = (text, onclick) => element("button", { type: "button", onclick }, text);
  const buttons = [];
  if (isCut) {
    buttons.push(button(`Show ${told(Math.min(FEW, matching.length - drawn))} more`, () => showMore(state.limit + FEW)));
    buttons.push(button(`Show all ${told(matching.length)}`, () => showMore(Infinity)));
  }
  if (state.words || state.outcome || [...facets.values()].some(({ chosen }) => chosen !== null)) {
    buttons.push(button("Clear the filters", clearFilters));
  }
  document.getElementById("more").replaceChildren(...buttons);
}

function showMore(limit) {
  const before = body.querySelectorAll("[data-row]").length;
  state.limit = limit;
  drawBody();
  body.querySelectorAll("th a.name")[before]?.focus({ preventScroll: true });
}

function filterAgain() {
  state.limit = FEW;
  matching = chosenRows();
  drawBody();
}

function clearFilters() {
  Object.assign(state, { words: "", outcome: "" });
  facets.clear();
  drawControls();
  filterAgain();
  document.getElementById("words").focus();
}

function drawControls() {
  const words = element("input", {
    type: "search",
    id: "words",
    placeholder: "pairing, licence, flag or error",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      state.words = words.value;
      filterAgain();
    },
  });
  const parts = [element("label", { class: "field wide" }, element("span", {}, "filter"), words)];
  for (const name of data.dimensions) {
    const column = columnNamed.get(name);
    if (column) parts.push(...facet(name, column.heading, column.cell, column.value));
  }
  for (const name of ["encoder", "decoder"]) {
    const text = (row) => data.pairings[data.pairing[row]][name];
    parts.push(...facet(name, name, text, text));
  }
  const found = new Set(everyRow.flatMap(outcomes));
  if (found.size > 1) {
    const options = ["measured", "tie", "failed"].filter((outcome) => found.has(outcome)).map((outcome) => [outcome, outcome]);
    parts.push(
      select("outcome", [["", "all"], ...options], "", (value) => {
        state.outcome = value;
        filterAgain();
      }),
    );
  }
  document.getElementById("controls").replaceChildren(...parts, columnChooser());
}

/** Return a select for what has several values, but not nearly one a row, nor more than one would read through. */
function facet(name, label, text, value) {
  const found = new Map(everyRow.map((row) => [text(row), value(row)]));
  if (found.size < 2 || found.size > Math.min(60, data.size / 2)) return [];
  const sorted = [...found].sort(([, a], [, b]) => (typeof a === "number" ? a - b : collator.compare(a, b)));
  const options = [["", "all"], ...sorted.map(([cell], place) => [String(place), cell || "no pairing"])];
  return [
    select(label, options, "", (chosen) => {
      facets.set(name, { text, chosen: chosen === "" ? null : sorted[Number(chosen)][0] });
      filterAgain();
    }),
  ];
}

function columnChooser() {
  const boxes = columns
    .filter((column) => column.name !== "pairing")
    .map((column) => {
      const box = element("input", {
        type: "checkbox",
        checked: shown.has(column.name),
        value: column.name,
        onchange: () => {
          box.checked ? shown.add(column.name) : shown.delete(column.name);
          drawTable();
        },
      });
      return element("label", {}, box, ` ${column.heading}`);
    });
  const list = element("fieldset", {}, element("legend", { class: "hidden" }, "Columns to show"), boxes);
  return element("details", { class: "chooser" }, element("summary", {}, "Columns"), list);
}

drawControls();
drawTable();
performance.mark("zoo-table");

// The table: the shown columns and rows, and their order. All rows are sorted and filtered; few are drawn at first.

const FEW = 200;
const TALL = 40; // more rows than this scroll below their headings, fewer scroll with the page
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
const shown = new Set(columns.filter((column) => column.isShown).map((column) => column.name));
const distrusted = new Set(data.distrusted);
const filters = new Map(); // from the label of a control to a function that returns whether a row passes
const state = { sort: null, direction: 1, limit: FEW };
let searchTexts = null;
let matching = everyRow;

// Each row is a grid with fixed columns, so that the browser lays out only the rows in sight. The roles say that it is a table.
const scroller = document.getElementById("scroller");
const head = create("thead", { role: "rowgroup" });
const body = create("tbody", { role: "rowgroup" });
const results = create("table", { class: "results", id: "results", role: "table", "aria-label": "Results" }, head, body);
scroller.append(results);

/** Return the rows that pass every filter, sorted; rows without a value come last in either direction. */
function selectRows() {
  const tests = [...filters.values()];
  const rows = everyRow.filter((row) => tests.every((passes) => passes(row)));
  if (!state.sort) return rows;
  const { value } = columnNamed.get(state.sort);
  const known = rows.filter((row) => value(row) !== null);
  const isText = known.length > 0 && typeof value(known[0]) === "string";
  const compare = isText ? (a, b) => collator.compare(value(a), value(b)) : (a, b) => value(a) - value(b);
  known.sort((a, b) => state.direction * compare(a, b) || a - b);
  return [...known, ...rows.filter((row) => value(row) === null)];
}

function searchTextOf(row) {
  const { name, code } = pairingOf(row);
  const cells = ["licenses", "flags"].map((column) => columnNamed.get(column)?.cell(row) ?? "");
  return [name, code, ...cells, data.failures[row] ?? "", errorOf(row)].join("\n").toLowerCase();
}

/** Return a failed row's error, which the page contains as text already. */
function errorOf(row) {
  return document.getElementById(`failure-${row}`)?.querySelector("pre").textContent.trim() ?? "";
}

function failureKind(row) {
  return data.failures[row] === "error" ? "failed" : `failed: ${data.failures[row]}`;
}

function drawTable() {
  matching = selectRows();
  measureColumns();
  drawHead();
  drawBody();
}

function visibleColumns() {
  return columns.filter(({ name }) => shown.has(name) || name === "pairing");
}

/** Set the columns' widths, in digits, from the longest cell of all rows, so that they do not depend on the rows shown. */
function measureColumns() {
  const visible = visibleColumns();
  const tagLength = (row) => (baselines.has(row) ? 10 : row in data.failures ? failureKind(row).length : 0);
  const widths = visible.map((column) => {
    const isPairing = column.name === "pairing";
    const lengths = everyRow.map((row) => column.cell(row).length + (isPairing ? tagLength(row) : 0));
    const least = isPairing ? 16 : column.lows ? 20 : Math.round(column.heading.length * 0.85) + 3;
    const most = Math.max(least, isPairing || column.lows ? 40 : 28);
    return lengths.reduce((width, length) => Math.min(Math.max(width, length), most), least);
  });
  // On a phone, the column of names, which always stays in sight, must leave room for one more column.
  const spaces = widths.map((width, index) => {
    const space = `${width}ch + 1.5rem`;
    return visible[index].name === "pairing" ? `min(${space}, 40vw)` : space;
  });
  const tracks = widths.map((width, index) => `minmax(calc(${spaces[index]}), ${width}fr)`);
  results.style.setProperty("--columns", tracks.join(" "));
  results.style.setProperty("--width", `calc(${spaces.join(" + ")})`);
  results.style.setProperty("--digits", widths.reduce((sum, width) => sum + width + 3, 0)); // for the size of print
}

function drawHead() {
  const focused = document.activeElement?.dataset?.column;
  const cells = visibleColumns().map((column) => {
    const { name, heading, isNumber } = column;
    const button = create("button", { type: "button", "data-column": name, onclick: () => sortBy(name) }, heading);
    const order = state.sort !== name ? "none" : state.direction > 0 ? "ascending" : "descending";
    const kind = `${isNumber ? "number" : "words"} ${name}`;
    const hasBars = column.lows?.some((value) => value !== null);
    const attributes = { scope: "col", role: "columnheader", class: kind, "aria-sort": order };
    return create("th", attributes, button, hasBars ? createAxis(column) : []);
  });
  head.replaceChildren(create("tr", { role: "row" }, cells));
  if (focused) head.querySelector(`[data-column="${focused}"]`)?.focus();
}

/** Return the ends of a column's bars, in small print below its heading. */
function createAxis(column) {
  const { low, high, isRatio, isLog, place } = scaleOf(column);
  const createEnd = (value) => create("span", {}, formatNumber(Number((isRatio ? value : value * 1000).toPrecision(2))));
  const hasRoom = place(1) > 15 && place(1) < 85;
  const middle = isRatio ? hasRoom && create("span", { class: "one" }, "1") : isLog && create("span", {}, "log");
  return create("span", { class: "axis", "aria-hidden": "true" }, createEnd(low), middle || [], createEnd(high));
}

/** Sort by a column: ascending, descending, and then in the original order again. */
function sortBy(name) {
  if (state.sort !== name) [state.sort, state.direction] = [name, 1];
  else if (state.direction > 0) state.direction = -1;
  else state.sort = null;
  drawTable();
}

function drawBody() {
  const visible = visibleColumns();
  const drawn = matching.slice(0, state.limit);
  const rows = drawn.flatMap((row, index) => {
    const startsBlock = !state.sort && index > 0 && data.block[drawn[index - 1]] !== data.block[row];
    const hasFailed = row in data.failures;
    const kinds = [hasFailed && "failed", baselines.has(row) && "baseline", startsBlock && "starts"].filter(Boolean);
    const cells = visible.map((column) => (column.name === "pairing" ? createPairingCell(row) : createCell(column, row)));
    const line = create("tr", { role: "row", class: kinds.join(" "), "data-row": row }, cells);
    return hasFailed ? [line, createWideRow("failed", visible.length, "wide", createError(row))] : [line];
  });
  if (!rows.length) rows.push(createWideRow(null, visible.length, "nothing", "No row matches."));
  body.replaceChildren(...rows);
  scroller.classList.toggle("tall", drawn.length > TALL);
  drawStatus(drawn.length);
}

function createPairingCell(row) {
  const link = create("a", { href: `#pairing-${data.pairing[row]}`, class: "name" }, pairingOf(row).name);
  const cell = create("th", { scope: "row", role: "rowheader", class: "words pairing" }, link);
  if (row in data.failures) cell.append(" ", create("span", { class: "tag failed" }, failureKind(row)));
  else if (baselines.has(row)) cell.append(" ", create("span", { class: "tag" }, "baseline"));
  if (distrusted.has(row)) cell.append(" ", create("a", { class: "tag off", href: "#table" }, "A/A check off"));
  return cell;
}

/** Return the first line of a row's error. If there are more lines, a click on it shows them. */
function createError(row) {
  const error = errorOf(row);
  const [first, ...others] = error.split("\n");
  if (!others.length && first.length <= 120) return create("p", { class: "error" }, first);
  return create("details", { class: "error" }, create("summary", {}, first), create("pre", { tabindex: "0" }, error));
}

function createWideRow(kind, width, cellKind, content) {
  const attributes = { role: "cell", colspan: width, "aria-colspan": width, class: cellKind };
  return create("tr", { role: "row", class: kind }, create("td", attributes, content));
}

function drawStatus(drawn) {
  const rows = formatCount(data.size, "row");
  const found = matching.length === data.size ? rows : `${formatNumber(matching.length)} of ${rows}`;
  const buttons = [];
  const addButton = (text, onclick) => buttons.push(create("button", { type: "button", onclick }, text));
  let status = `${found}.`;
  if (drawn < matching.length) {
    status = `${found}; the first ${formatNumber(drawn)} are shown, and would be printed.`;
    addButton(`Show ${formatNumber(Math.min(FEW, matching.length - drawn))} more`, () => showMore(state.limit + FEW));
    addButton(`Show all ${formatNumber(matching.length)}`, () => showMore(Infinity));
  }
  if (filters.size) addButton("Clear the filters", clearFilters);
  document.getElementById("status").textContent = status;
  document.getElementById("more").replaceChildren(...buttons);
}

function showMore(limit) {
  const before = body.querySelectorAll("[data-row]").length;
  state.limit = limit;
  drawBody();
  body.querySelectorAll("th a.name")[before]?.focus({ preventScroll: true });
}

/** Set or remove the filter of a control, and draw the rows that pass. */
function setFilter(label, passes) {
  if (passes) filters.set(label, passes);
  else filters.delete(label);
  drawMatching();
}

function drawMatching() {
  state.limit = FEW;
  matching = selectRows();
  drawBody();
}

function clearFilters() {
  filters.clear();
  drawControls();
  drawMatching();
  document.getElementById("words").focus();
}

function drawControls() {
  const input = create("input", {
    type: "search",
    id: "words",
    size: 36,
    placeholder: "pairing, license, flag or error",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => {
      searchTexts ??= everyRow.map(searchTextOf);
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      setFilter("filter", words.length && ((row) => words.every((word) => searchTexts[row].includes(word))));
    },
  });
  const outcomes = [
    ["measured", (row) => !(row in data.failures)],
    ["tie", (row) => columnNamed.get("ratio")?.ties.has(row)],
    ["failed", (row) => row in data.failures],
  ].filter(([, passes]) => everyRow.some(passes));
  document.getElementById("controls").replaceChildren(
    create("label", { class: "field" }, create("span", {}, "filter"), input),
    ...dimensions.flatMap(({ name, heading, cell, value }) => createFacet(heading, cell, value)),
    ...createFacet("encoder", (row) => pairingOf(row).encoder),
    ...createFacet("decoder", (row) => pairingOf(row).decoder),
    ...(outcomes.length > 1 ? [createFilter("outcome", outcomes)] : []),
    createColumnChooser(),
  );
}

/** Return a select for a fact, unless it has only one value, more than 60, or more than half as many as there are rows. */
function createFacet(label, text, value = text) {
  const values = new Map(everyRow.map((row) => [text(row), value(row)]));
  if (values.size < 2 || values.size > Math.min(60, data.size / 2)) return [];
  const sorted = [...values].sort(([, a], [, b]) => (typeof a === "number" ? a - b : collator.compare(a, b)));
  return [createFilter(label, sorted.map(([cell]) => [cell || "no pairing", (row) => text(row) === cell]))];
}

/** Return a select whose choices are [text, passes] pairs. */
function createFilter(label, choices) {
  const texts = ["all", ...choices.map(([text]) => text)];
  return createSelect(label, texts, (index) => setFilter(label, index > 0 && choices[index - 1][1]));
}

function createColumnChooser() {
  const toggle = ({ target: { value, checked } }) => {
    shown[checked ? "add" : "delete"](value);
    drawTable();
  };
  const boxes = columns
    .filter(({ name }) => name !== "pairing")
    .map(({ name, heading }) => {
      const box = create("input", { type: "checkbox", checked: shown.has(name), value: name, onchange: toggle });
      return create("label", {}, box, ` ${heading}`);
    });
  const group = create("div", { role: "group", "aria-label": "Columns to show" }, boxes);
  return create("details", { class: "chooser" }, create("summary", {}, "Columns"), group);
}

drawControls();
drawTable();
performance.mark("zoo-table");

// A part a pairing, made when it is opened: the line of code, the plan, the parameters, all rows.

const ROW_COLUMNS = [
  ...data.dimensions,
  ..."latency p90 throughput ratio memory rss build first fits quality rounds flags".split(" "),
];
const list = document.getElementById("pairing-list");
const entries = data.pairings.map((pairing, place) => {
  const rows = rowsOf[place];
  const failed = rows.filter((row) => row in data.failures).length;
  const told = failed === rows.length ? "failed" : `${failed} of ${rows.length} failed`;
  const summary = element("summary", {}, element("span", { class: "name" }, pairing.name));
  if (failed) summary.append(" ", element("span", { class: "tag failed" }, told));
  const ontoggle = ({ target }) => target.open && fillPairing(target);
  return element("details", { class: "entry", id: `pairing-${place}`, ontoggle }, summary);
});
list.append(...entries);

function fillPairing(details) {
  if (!details.id.startsWith("pairing-") || details.dataset.filled) return;
  details.dataset.filled = "yes";
  const place = Number(details.id.slice("pairing-".length));
  const pairing = data.pairings[place];
  if (pairing.code) details.append(element("pre", { class: "code", tabindex: "0" }, element("code", {}, pairing.code)));
  else details.append(element("p", {}, "A reference: a model that is no pairing, for pairings to be compared with."));
  const facts = [];
  if (pairing.licences.length) facts.push(["licences", pairing.licences.join("; ")]);
  if (pairing.flags.length) facts.push(["flags", pairing.flags.join("; ")]);
  if (facts.length) details.append(definitions(facts));
  const { variants } = pairing;
  for (const variant of variants) {
    const where = [...new Set(variant.rows.map((row) => data.blocks[data.block[row]]))];
    const isOne = variants.length === 1;
    if (!isOne) details.append(element("h3", {}, where.join("; ")));
    details.append(...parametersPart(variant));
    if (variant.plan !== null) details.append(element(isOne ? "h3" : "h4", {}, "Plan"), ...planPart(data.plans[variant.plan]));
  }
  if (!variants.length && pairing.code) {
    details.append(element("p", {}, "Neither plan nor parameters are known: it failed before it was counted."));
  }
  details.append(element("h3", {}, "Rows"), rowsPart(rowsOf[place]));
}

function definitions(facts) {
  return element(
    "dl",
    {},
    facts.map(([term, told]) => element("div", {}, element("dt", {}, term), element("dd", {}, told))),
  );
}

function parametersPart({ parameters, parts }) {
  if (parameters === null) return [];
  const told = (number) => `${number.toLocaleString("en")} (${((100 * number) / parameters || 0).toFixed(1)} %)`;
  const facts = [["parameters", parameters.toLocaleString("en")]];
  for (const name of parts ? ["encoder", "adapters", "decoder", "head"] : []) {
    if (name in parts) facts.push([name, parts[name] ? told(parts[name]) : "0"]);
  }
  return [definitions(facts)];
}

function planPart(plan) {
  const routes = plan.routes.map((place, level) => [String(level + 1), ...data.routes[place]]);
  const unused = plan.unused.map(([name, channels, stride, reason]) => ["-", name, channels, stride, "not used", "-", reason]);
  const headings = ["level", "source map", "channels", "stride", "adapter", "decoder gets", "why"];
  const table = plainTable("Plan", headings, [...routes, ...unused], (row) => row[4] === "not used" && "unused");
  const notes = [
    plan.added ? `Adapters add ${plan.added.toLocaleString("en")} parameters.` : "No adapter is needed.",
    ...plan.notes,
    ...(plan.options ? [`Encoder options that the plan adds: ${plan.options}.`] : []),
    `Image size: ${plan.sizes}`,
  ];
  return [
    table,
    element(
      "ul",
      {},
      notes.map((note) => element("li", {}, note)),
    ),
  ];
}

function plainTable(label, headings, rows, kind) {
  const kinds = headings.map((heading) => (["channels", "stride"].includes(heading) ? "number" : null));
  const head = headings.map((heading, place) => element("th", { scope: "col", class: kinds[place] }, heading));
  const body = rows.map((cells) => {
    const made = cells.map((cell, place) => element("td", { class: kinds[place] }, cell));
    return element("tr", { class: kind(cells) || null }, made);
  });
  return scrolling(label, "plain", head, body);
}

function scrolling(label, kind, head, body) {
  const parts = [element("thead", {}, element("tr", {}, head)), element("tbody", {}, body)];
  const table = element("table", { class: kind }, parts);
  return element("div", { class: "scroller", role: "region", "aria-label": label, tabindex: "0" }, table);
}

/** Return all rows of a pairing; the columns are those that say something of one of them. */
function rowsPart(rows) {
  const saysSomething = (column) => column && rows.some((row) => column.cell(row) !== "-");
  const told = ROW_COLUMNS.map((name) => columnNamed.get(name)).filter(saysSomething);
  const head = told.map((column) => element("th", { scope: "col", class: column.isNumber ? "number" : null }, column.heading));
  const body = rows.flatMap((row) => {
    const kind = row in data.failures ? "failed" : baselines.has(row) ? "baseline" : null;
    const line = element(
      "tr",
      { class: kind },
      told.map((column) => cellOf(column, row)),
    );
    if (!(row in data.failures)) return [line];
    const link = element("a", { href: `#failure-${row}` }, `${failureKind(row)}: ${errorOf(row).trim().split("\n")[0]}`);
    return [line, element("tr", { class: "failed" }, element("td", { colspan: told.length }, link))];
  });
  return scrolling("Rows", "results", head, body);
}

openTarget();

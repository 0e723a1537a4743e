// One entry for each pairing, filled when it is opened: the line of code, the plan, the parameters, all rows.

const ROW_COLUMNS = "latency p90 throughput ratio memory rss build first fits quality rounds flags".split(" ");
const PLAN_HEADINGS = ["level", "source map", "channels", "stride", "adapter", "decoder gets", "why"];

const rowsOf = data.pairings.map(() => []);
for (const row of everyRow) rowsOf[data.pairing[row]].push(row);
const entries = data.pairings.map(({ name }, index) => {
  const rows = rowsOf[index];
  const failed = rows.filter((row) => row in data.failures).length;
  const text = failed === rows.length ? "failed" : `${failed} of ${rows.length} failed`;
  const tag = failed ? [" ", create("span", { class: "tag failed" }, text)] : [];
  const summary = create("summary", {}, create("span", { class: "name" }, name), tag);
  const ontoggle = ({ target }) => target.open && fillPairing(target);
  return create("details", { class: "entry", id: `pairing-${index}`, ontoggle }, summary);
});
document.getElementById("pairing-list").append(...entries);

/** Fill a pairing's entry, unless it is filled already. */
function fillPairing(details) {
  if (details.childElementCount > 1) return;
  const index = entries.indexOf(details);
  const { code, licenses, flags, variants } = data.pairings[index];
  if (code) details.append(create("pre", { class: "code", tabindex: "0" }, create("code", {}, code)));
  else details.append(create("p", {}, "A reference: a model that is not a pairing, for comparison with pairings."));
  details.append(...createDefinitions({ licenses: licenses.join("; "), flags: flags.join("; ") }));
  for (const { rows, parameters, parts, plan } of variants) {
    // Most pairings have one variant; if rows differ in plan or parameters, the headings name their blocks.
    const blocks = new Set(rows.map((row) => data.blocks[data.block[row]]));
    const title = plan === null ? "Parameters" : "Plan";
    details.append(create("h3", {}, variants.length > 1 ? `${title}: ${[...blocks].join("; ")}` : title));
    details.append(...createParameters(parameters, parts), ...(plan === null ? [] : createPlan(data.plans[plan])));
  }
  if (!variants.length && code) {
    details.append(create("p", {}, "Its plan and parameters are unknown, because it failed before they were computed."));
  }
  details.append(create("h3", {}, "Rows"), createRows(rowsOf[index]));
}

/** Return a list of terms and their definitions, without the empty ones. */
function createDefinitions(facts) {
  const known = Object.entries(facts).filter(([, definition]) => definition);
  const pairs = known.map(([term, definition]) => create("div", {}, create("dt", {}, term), create("dd", {}, definition)));
  return pairs.length ? [create("dl", {}, pairs)] : [];
}

function createParameters(parameters, parts) {
  if (parameters === null) return [];
  const facts = { parameters: formatNumber(parameters) };
  for (const name of parts ? ["encoder", "adapters", "decoder", "head"] : []) {
    const share = ((100 * parts[name]) / parameters).toFixed(1);
    facts[name] = parts[name] ? `${formatNumber(parts[name])} (${share} %)` : "0";
  }
  return createDefinitions(facts);
}

function createPlan({ routes, unused, added, notes, options, sizes }) {
  const kinds = PLAN_HEADINGS.map((heading) => ["channels", "stride"].includes(heading) && "number");
  const head = PLAN_HEADINGS.map((heading, index) => create("th", { scope: "col", class: kinds[index] }, heading));
  const createLine = (kind, texts) => {
    const cells = texts.map((text, index) => create("td", { class: kinds[index] }, text));
    return create("tr", { class: kind }, cells);
  };
  const used = routes.map((route, level) => createLine(null, [String(level + 1), ...data.routes[route]]));
  const others = unused.map(([name, channels, stride, reason]) =>
    createLine("unused", ["-", name, channels, stride, "not used", "-", reason]),
  );
  const lines = [
    added ? `Adapters add ${formatNumber(added)} parameters.` : "No adapter is needed.",
    ...notes,
    ...(options ? [`Encoder options that the plan adds: ${options}.`] : []),
    `Image size: ${sizes}`,
  ];
  const list = create("ul", {}, lines.map((line) => create("li", {}, line)));
  return [createScrollingTable("Plan", "plain", head, [...used, ...others]), list];
}

/** Return all rows of a pairing, with the columns in which at least one row has a value. */
function createRows(rows) {
  const others = ROW_COLUMNS.map((name) => columnNamed.get(name)).filter(Boolean);
  const visible = [...dimensions, ...others].filter(({ cell }) => rows.some((row) => cell(row) !== "-"));
  const head = visible.map(({ isNumber, heading }) => create("th", { scope: "col", class: isNumber && "number" }, heading));
  const body = rows.flatMap((row) => {
    const hasFailed = row in data.failures;
    const kind = hasFailed ? "failed" : baselines.has(row) && "baseline";
    const line = create("tr", { class: kind }, visible.map((column) => createCell(column, row)));
    if (!hasFailed) return [line];
    const link = create("a", { href: `#failure-${row}` }, `${failureKind(row)}: ${errorOf(row).split("\n")[0]}`);
    return [line, create("tr", { class: "failed" }, create("td", { colspan: visible.length }, link))];
  });
  return createScrollingTable("Rows", "results", head, body);
}

openTarget();

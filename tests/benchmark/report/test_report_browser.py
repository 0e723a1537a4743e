"""The report in a real browser: quick with 5,000 rows, sorted, filtered, plotted, printed, on a phone, in the dark."""

from __future__ import annotations

import shutil
import time

import pytest
import report_tables as made

from zoo.benchmark.report import write_report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]
LIMIT = 2000
"""Milliseconds within which a page opens, and within which it sorts."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs chromium and chromedriver"),
]

TIMED_CLICK = """
const done = arguments[arguments.length - 1];
const before = performance.now();
arguments[0].click();
document.body.offsetHeight;
requestAnimationFrame(() => setTimeout(() => done(performance.now() - before), 0));
"""

FAINT = """
// every text on the page whose contrast with what lies behind it is below 4.5 to 1 (WCAG 2.1, 1.4.3)
const parsed = (color) => (color.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const luminance = ([r, g, b]) => {
  const linear = (part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  const [x, y, z] = [r, g, b].map((part) => linear(part / 255));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
};
const ground = (element) => {
  for (let each = element; each; each = each.parentElement) {
    const color = parsed(getComputedStyle(each).backgroundColor);
    if (color.length === 3 || color[3] === 1) return color;
  }
  return [255, 255, 255];
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const said = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data.trim()).join("");
  if (!said || !element.checkVisibility({ visibilityProperty: true })) continue;
  const style = getComputedStyle(element);
  const ink = parsed(element instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [luminance(ink), luminance(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) found.push(`${said.slice(0, 40)}: ${ink} on ${ground(element)}`);
}
return [...new Set(found)];
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    started.set_script_timeout(60)
    yield started
    started.quit()


class Browser:
    """One page in the browser, and what a test does with it."""

    def __init__(self, driver):
        self.driver = driver

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector):
        return self.driver.find_element("css selector", selector)

    def wait_for(self, script, seconds=30):
        end = time.monotonic() + seconds
        while not self.run(f"return {script}"):
            assert time.monotonic() < end, f"not within {seconds} seconds: {script}"
            time.sleep(0.05)

    def column(self, name):
        """Return what the shown rows say in a column; the errors' own rows are left out."""
        place = self.run(
            "return [...document.querySelectorAll('#results thead th')].findIndex((th) => th.classList.contains(arguments[0]))",
            name,
        )
        return self.run(
            "return [...document.querySelectorAll('#results [data-row]')].map((row) => row.children[arguments[0]].innerText)",
            place,
        )

    def sorted_by(self, name):
        return self.run("return document.querySelector(`[data-column='${arguments[0]}']`).parentElement.ariaSort", name)

    def sort(self, name):
        """Click a heading; return the milliseconds until the page shows the rows in order."""
        return self.timed_click(self.one(f"[data-column='{name}']"))

    def timed_click(self, element):
        return self.driver.execute_async_script(TIMED_CLICK, element)

    def button(self, text):
        return next(button for button in self.all("button") if button.text.startswith(text))

    def filter(self, words):
        field = self.one("#words")
        field.clear()
        field.send_keys(words)

    def choose(self, label, text):
        """Choose an option of the select that has this label."""
        self.run(
            "const fields = [...document.querySelectorAll('.field')];"
            "const field = fields.find((each) => each.firstChild.textContent === arguments[0]);"
            "const select = field.querySelector('select');"
            "select.value = [...select.options].find((each) => each.text === arguments[1]).value;"
            "select.dispatchEvent(new Event('change'));",
            label,
            text,
        )

    def plot(self):
        """Bring the plot near, and wait until it is drawn."""
        self.run("document.getElementById('plot').scrollIntoView()")
        self.wait_for("performance.getEntriesByName('zoo-plot').length")

    def hover(self, name):
        """Point at a row's mark; return what the label says."""
        self.run(
            "const plot = document.getElementById('plot');"
            "plot.data.forEach((trace, curveNumber) => trace.customdata.forEach((row, pointNumber) => {"
            "  if (trace.hovertext[pointNumber].includes(arguments[0])) Plotly.Fx.hover(plot, [{ curveNumber, pointNumber }]);"
            "}));",
            name,
        )
        time.sleep(0.2)  # Plotly takes one such event in 50 ms, and the last of those that come sooner
        return self.run(
            "return [...document.querySelectorAll('#plot .hovertext .nums .line')].map((line) => line.textContent).join('\\n')"
        )

    def media(self, *features, media=""):
        listed = [{"name": name, "value": value} for name, value in features]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": listed})

    def width(self, pixels):
        size = {"width": pixels, "height": 800, "deviceScaleFactor": 1, "mobile": pixels < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def complaints(self):
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


@pytest.fixture
def browse(driver, tmp_path):
    """Return a function that writes a table's report and opens it."""
    browser = Browser(driver)

    def open_report(table, fragment=""):
        path = tmp_path / "report.html"
        write_report(table, path)
        driver.get("about:blank")
        driver.get(path.as_uri() + fragment)
        return browser

    browser.media(("prefers-reduced-motion", "reduce"))  # else a click meets a page that still scrolls
    browser.width(1280)
    yield open_report
    driver.get("about:blank")
    assert browser.complaints() == []


@pytest.mark.parametrize("size", [3, 5000])
def test_it_opens_and_sorts_within_two_seconds(browse, size):
    browser = browse(made.three() if size == 3 else made.large(size))
    opened = browser.run("return performance.getEntriesByName('zoo-ready')[0].startTime")
    browser.wait_for("performance.getEntriesByName('first-contentful-paint').length")
    painted = browser.run("return performance.getEntriesByName('first-contentful-paint')[0].startTime")
    assert max(opened, painted) < LIMIT
    sorts = [browser.sort(name) for name in ("latency", "latency", "pairing")]
    assert max(sorts) < LIMIT
    assert browser.one("#status").text.startswith(f"{size:,} rows")
    if size == 5000:
        assert len(browser.all("#results [data-row]")) == 200
        browser.button("Show all 5,000").click()
        assert len(browser.all("#results [data-row]")) == size
        assert browser.sort("latency") < LIMIT


def test_it_asks_for_nothing_and_complains_of_nothing(browse):
    browser = browse(made.eventful())
    browser.plot()
    browser.choose("plot", "latency and quality")
    asked = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in asked if not name.startswith("data:")] == []
    assert browser.complaints() == []


def test_numbers_are_sorted_as_numbers_and_what_was_not_measured_comes_last_either_way(browse):
    latencies = (0.9, 0.1, None, 0.02, 1.1)
    rows = [made.row(f"e{place} x d", latency=latency and made.estimate(latency)) for place, latency in enumerate(latencies)]
    browser = browse(made.table(*rows))
    names = [row.name for row in rows]
    assert browser.sorted_by("latency") == "none"
    browser.sort("latency")
    assert browser.column("pairing") == [names[place] for place in (3, 1, 0, 4, 2)]
    assert browser.sorted_by("latency") == "ascending"
    browser.sort("latency")
    assert browser.column("pairing") == [names[place] for place in (4, 0, 1, 3, 2)]
    assert browser.sorted_by("latency") == "descending"
    browser.sort("pairing")
    assert (browser.sorted_by("latency"), browser.sorted_by("pairing")) == ("none", "ascending")
    browser.sort("latency")
    browser.sort("latency")
    browser.sort("latency")
    assert browser.column("pairing") == names
    assert browser.sorted_by("latency") == "none"


def test_the_keyboard_sorts_and_stays_where_it_was(browse):
    from selenium.webdriver.common.keys import Keys

    browser = browse(made.three())
    heading = "return document.activeElement.dataset.column"
    browser.run("document.querySelector('[data-column=ratio]').focus()")
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert (browser.sorted_by("ratio"), browser.run(heading)) == ("ascending", "ratio")
    browser.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert (browser.sorted_by("ratio"), browser.run(heading)) == ("descending", "ratio")
    assert browser.column("ratio")[0].startswith("1 (baseline)")
    outline = browser.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def test_the_first_stop_of_the_keyboard_skips_to_the_table(browse):
    from selenium.webdriver.common.keys import Keys

    browser = browse(made.three())
    browser.one("body").send_keys(Keys.TAB)
    assert browser.driver.switch_to.active_element.text == "Skip to the table"
    browser.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "table"


def test_the_rows_stay_a_table_to_a_screen_reader(browse):
    browser = browse(made.three())
    nodes = browser.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = [node.get("role", {}).get("value") for node in nodes if not node["ignored"]]
    assert roles.count("rowheader") == 3
    assert roles.count("columnheader") == len(browser.all("#results thead th"))
    region = browser.one("#scroller")
    assert (region.get_attribute("role"), region.get_attribute("tabindex")) == ("region", "0")
    assert region.get_attribute("aria-label")


def test_rows_are_filtered_by_words_and_by_what_they_have_in_common(browse):
    browser = browse(made.eventful())
    browser.filter("UNETPLUSPLUS convnext")
    assert set(browser.column("pairing")) == {"timm:convnext_tiny x smp:unetplusplus"}
    assert browser.one("#status").text == "4 of 26 rows."
    browser.choose("mode", "training")
    browser.choose("batch", "8")
    assert browser.column("mode") == ["training"]
    browser.filter("nothing like this")
    assert "No row matches." in browser.one("#results").text
    browser.button("Clear the filters").click()
    assert browser.one("#status").text == "26 rows."
    browser.filter("differ")
    assert browser.column("pairing") == ["broken x unet-basic failed"]
    browser.button("Clear the filters").click()
    browser.choose("outcome", "tie")
    assert len(browser.column("pairing")) == 4
    assert all("tie" in cell for cell in browser.column("ratio"))


def test_only_what_differs_can_be_filtered_by(browse):
    browser = browse(made.eventful())
    labels = [label.text.splitlines()[0] for label in browser.all("#controls .field")]
    assert {"filter", "mode", "batch", "outcome"} <= set(labels)
    assert not {"size", "dtype", "device", "run"} & set(labels)


def test_columns_are_chosen(browse):
    browser = browse(made.three())
    assert not browser.all("[data-column=p90]")
    browser.one(".chooser summary").click()
    browser.one("input[value=p90]").click()
    browser.one("input[value=throughput]").click()
    assert browser.column("p90") == ["70.0"] * 3
    assert not browser.all("[data-column=throughput]")


def test_intervals_are_drawn_where_they_lie(browse):
    browser = browse(
        made.table(made.baseline(), made.row(ratio=made.estimate(0.7, 0.1)), made.row("a x b", ratio=made.estimate(1.4, 0.1)))
    )
    bars = (
        "[...document.querySelectorAll('#results .bar.ratio')].map((bar) => parseFloat(getComputedStyle(bar).getPropertyValue("
    )
    middles = browser.run(f"return {bars}'--middle')))")[::2]
    one = browser.run("return parseFloat(getComputedStyle(document.documentElement).getPropertyValue('--one'))")
    assert middles[1] < one < middles[2]
    assert middles[0] == one
    spans = browser.run(f"return {bars}'--span')))")[::2]
    assert spans[0] == 0
    assert spans[1] == pytest.approx(spans[2], rel=0.01)  # the scale is that of ratios, on which halves and doubles are alike


def test_a_tie_a_failure_and_a_check_that_is_off_are_seen(browse):
    browser = browse(made.eventful())
    tie = browser.one("#results .told.tie b")
    muted = browser.run("return getComputedStyle(document.querySelector('.facts')).color")
    assert browser.run("return getComputedStyle(arguments[0]).color", tie) == muted
    assert len(browser.all("#results tr.failed[data-row]")) == 2
    error = browser.one("#results details.error")
    assert error.text == "ValueError: sizes <b>differ</b>"
    error.find_element("css selector", "summary").click()
    assert error.find_element("css selector", "pre").text == made.ERROR.strip()
    assert len(browser.all("#results .tag.off")) == 2
    assert browser.one(".warnings").text.startswith("Warning: inference, batch 8")


def test_a_name_links_to_its_pairing_with_code_plan_parameters_and_rows(browse):
    browser = browse(made.eventful())
    browser.all("#results [data-row='1'] a.name")[0].click()
    entry = browser.one("details.entry[open]")
    browser.wait_for("document.querySelector('details.entry[open] h3')")
    said = " ".join(entry.text.split())
    for told in (
        "zoo.build('resnet18', 'unet-basic')",
        "BSD-3-Clause, Apache-2.0",
        "11,176,512 (78.5 %)",
        "131,328 parameters",
    ):
        assert told in said
    for told in ("the decoder takes 256 channels", "not used", "not a multiple of 32", "build s", "first call s", "0.13"):
        assert told in said
    assert len(entry.find_elements("css selector", ".results tbody tr")) == 4
    entry.find_element("css selector", "summary").click()
    assert not browser.all("details.entry[open]")
    browser.all("#results [data-row='1'] a.name")[0].click()
    assert browser.all("details.entry[open]")


def test_an_address_opens_the_pairing_it_names(browse):
    browser = browse(made.three(), "#pairing-2")
    assert "zoo.build('resnet18', 'unet-attention')" in browser.one("#pairing-2[open]").text


def test_names_from_plugins_stay_text_everywhere(browse):
    name = f"timm:vit x {made.HOSTILE}"
    browser = browse(made.eventful())
    browser.plot()
    for entry in browser.all("details.entry > summary"):
        entry.click()
    assert browser.driver.title == "resnet18: benchmark report"
    assert browser.run("return window.hacked === undefined")
    assert name in browser.run("return [...document.querySelectorAll('#results .name')].map((each) => each.textContent)")
    assert name in browser.run("return [...document.querySelectorAll('.entry .name')].map((each) => each.textContent)")
    assert not browser.all("main img, main script")
    told = browser.hover("&lt;b&gt;bold")
    assert "<b>bold</b>" in told
    assert "</script><script>" in told.replace("\n", "")


def test_a_run_with_a_hostile_name_is_a_page_like_any_other(browse):
    browser = browse(made.table(made.row(), runs=[made.run(name=made.HOSTILE)]))
    assert browser.run("return window.hacked === undefined")
    assert made.HOSTILE.split()[0] in browser.driver.title


def test_points_are_named_and_the_front_is_marked(browse):
    browser = browse(made.eventful())
    browser.plot()
    told = browser.hover("convnext_tiny")
    assert "timm:convnext_tiny x smp:unetplusplus" in told.replace("\n", "")
    assert "peak MiB" in told
    assert "latency ms" in told
    assert "front" not in told
    assert "on the Pareto front" in browser.hover("mobilenetv3")
    traces = browser.run("return document.getElementById('plot').data")
    assert {trace["line"]["shape"] for trace in traces if "line" in trace} == {"hv"}
    shown = [trace for trace in traces if trace["showlegend"]]
    assert [trace["name"] for trace in shown] == [
        "inference, batch 1",
        "inference, batch 8",
        "training, batch 1",
        "training, batch 8",
    ]
    assert len({trace["marker"]["color"] for trace in shown}) == len({trace["marker"]["symbol"] for trace in shown}) == 4


def test_the_plot_is_chosen_and_wide_ranges_are_logarithmic(browse):
    browser = browse(made.eventful())
    browser.plot()
    axes = "const { xaxis, yaxis } = document.getElementById('plot').layout; return [xaxis.type, yaxis.type, yaxis.title.text]"
    assert browser.run(axes) == ["log", "log", "peak memory, MiB (log)"]
    browser.choose("plot", "latency and quality")
    assert browser.run(axes) == ["log", "linear", "mean intersection over union"]
    assert "Better is left and up." in browser.one("#plot-caption").text
    browser.choose("rows", "inference, batch 1")
    assert browser.run(axes)[0] == "linear"
    assert "5 rows" in browser.one("#plot-caption").text


def test_a_click_on_a_point_opens_its_pairing(browse):
    browser = browse(made.three())
    browser.plot()
    browser.run("document.getElementById('plot').emit('plotly_click', { points: [{ customdata: 1 }] })")
    browser.wait_for("document.querySelector('#pairing-1[open] h3')")


def test_of_many_points_the_fronts_and_the_fastest_are_drawn_and_the_caption_says_so(browse):
    table = made.large()
    browser = browse(table)
    browser.plot()
    drawn = browser.run("return document.querySelectorAll('#plot .scatterlayer .points path').length")
    assert drawn == 1000
    assert "1,000 in all; 3,875 slower rows are not drawn." in browser.one("#plot-caption").text
    fastest = min((row.latency.median, index) for index, row in enumerate(table.rows) if row.latency)[1]
    assert browser.run(
        "return document.getElementById('plot').data.some((trace) => trace.customdata.includes(arguments[0]))", fastest
    )


def test_the_plot_leaves_the_page_as_a_picture_and_has_no_way_to_a_cloud(browse):
    browser = browse(made.three())
    browser.plot()
    script = "Plotly.toImage('plot', { format: 'png' }).then(arguments[0])"
    assert browser.driver.execute_async_script(script).startswith("data:image/png")
    titles = browser.run("return [...document.querySelectorAll('.modebar-btn')].map((each) => each.dataset.title)")
    assert titles
    assert not any("cloud" in title.lower() or "plotly" in title.lower() for title in titles)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_is_readable_in_light_and_dark(browse, scheme):
    browser = browse(made.eventful())
    browser.media(("prefers-color-scheme", scheme))
    for summary in browser.all("summary"):
        if summary.is_displayed():
            browser.run("arguments[0].parentElement.open = true", summary)
    browser.plot()
    browser.hover("convnext_tiny")
    assert browser.run(FAINT) == []
    ground = browser.run("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 26)")


@pytest.mark.parametrize("size", ["three", "eventful"])
def test_on_a_phone_only_the_table_scrolls_sideways(browse, size):
    browser = browse(getattr(made, size)())
    browser.width(360)
    browser.run("for (const details of document.querySelectorAll('details')) details.open = true")
    browser.plot()
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    assert browser.run(
        "const { scrollWidth, clientWidth } = document.getElementById('scroller'); return scrollWidth > clientWidth"
    )
    assert browser.run("return document.querySelector('#plot .main-svg').getBoundingClientRect().right") <= 360


def test_names_and_headings_stay_in_sight(browse):
    browser = browse(made.large(480))
    browser.run("const it = document.getElementById('scroller'); it.scrollLeft = 300; it.scrollTop = 2000")
    browser.wait_for("document.getElementById('scroller').scrollTop > 1000")
    edge, top = browser.run("const it = document.getElementById('scroller').getBoundingClientRect(); return [it.left, it.top]")
    heading = browser.run("return document.querySelector('#results thead').getBoundingClientRect().top")
    name = browser.run("return document.querySelector('#results [data-row] th').getBoundingClientRect().left")
    assert (round(name - edge), round(heading - top)) in {(0, 0), (0, 1)}


def test_paper_is_light_and_has_the_plot_and_says_what_is_left_out(browse):
    browser = browse(made.large(480))
    browser.media(("prefers-color-scheme", "dark"))
    printed = browser.driver.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    assert len(printed["data"]) > 50_000
    browser.wait_for("performance.getEntriesByName('zoo-plot').length")
    assert "480 rows; the first 200 are shown, and would be printed." in browser.one("#status").text
    browser.media(("prefers-color-scheme", "dark"), media="print")
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    hidden = browser.run(
        "return ['.controls', 'nav', '#more'].map((each) => getComputedStyle(document.querySelector(each)).display)"
    )
    assert set(hidden) == {"none"}
    assert browser.run("return getComputedStyle(document.getElementById('scroller')).overflow") == "visible"


def test_motion_is_reduced_where_it_is_asked_for(browse):
    browser = browse(made.three())
    scrolling = "return getComputedStyle(document.documentElement).scrollBehavior"
    browser.media(("prefers-reduced-motion", "no-preference"))
    assert browser.run(scrolling) == "smooth"
    browser.media(("prefers-reduced-motion", "reduce"))
    assert browser.run(scrolling) == "auto"


def test_without_scripts_it_says_what_is_missing_and_shows_the_rest(browse):
    browser = browse(made.three())
    browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.driver.refresh()
        said = browser.one("body").text
    finally:
        browser.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "Turn on JavaScript" in said
    assert made.DEVICE in said
    assert "1 faster than the baseline" in said


def test_a_table_in_which_everything_failed_opens(browse):
    browser = browse(
        made.table(made.failed(role="baseline"), made.failed("other x unet-basic", plan=None, parameters=None, parts=None))
    )
    assert "Nothing to plot" in browser.one("#plot-figure").text
    browser.all("details.entry summary")[1].click()
    browser.wait_for("document.querySelector('#pairing-1[open] h3')")
    assert "because it failed before they were computed" in browser.one("#pairing-1").text

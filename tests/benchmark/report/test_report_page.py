"""The report's HTML: nothing from outside, every row and fact in it, and names and errors that were made to break it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import report_tables as made
from hypothesis import given
from hypothesis import strategies as st

from zoo.benchmark.analysis.pareto import pareto_front
from zoo.benchmark.report import report_html, write_report
from zoo.benchmark.report.payload import payload_of
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial
from zoo.cli import main
from zoo.errors import OptionError
from zoo.pairing.pairing import Pairing

LOADING = ("src", "href", "srcset", "action", "formaction", "poster", "data", "background", "xlink:href", "ping", "manifest")
VOID = ("meta", "link", "input", "br", "img")


class Page(HTMLParser):
    """What a browser would make of the page: its tags, scripts, styles and text."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.open, self.scripts, self.styles, self.text, self.pre = [], [], [], [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        for kind, found in (("script", self.scripts), ("style", self.styles), ("pre", self.pre)):
            if tag == kind:
                found.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside in ("script", "style"):
            (self.scripts if inside == "script" else self.styles)[-1] += data
        else:
            self.text.append(data)
            if inside == "pre":
                self.pre[-1] += data

    @property
    def said(self):
        return " ".join(" ".join(self.text).split())

    @property
    def data(self):
        return json.loads(self.scripts[0])


@pytest.fixture(scope="module")
def eventful():
    return made.eventful()


@pytest.fixture(scope="module")
def page(eventful):
    return Page(report_html(eventful))


def cells(data, name):
    column = next(column for column in data["columns"] if column["name"] == name)
    return [column["entries"][at][0] for at in column["at"]] if "entries" in column else column["cells"]


def values(data, name):
    column = next(column for column in data["columns"] if column["name"] == name)
    return [column["entries"][at][1] for at in column["at"]] if "entries" in column else column["values"]


def test_nothing_is_loaded_from_outside(page):
    asked = [value for _, attributes in page.tags for name, value in attributes.items() if name in LOADING]
    assert [value for value in asked if not value.startswith(("#", "data:"))] == []
    assert not any("url(" in style or "@import" in style or "@font-face" in style for style in page.styles)
    assert not {"iframe", "object", "embed", "base", "img"} & {tag for tag, _ in page.tags}


def test_the_browser_is_told_to_run_these_scripts_and_to_load_nothing(page):
    (policy,) = [tag["content"] for _, tag in page.tags if tag.get("http-equiv") == "Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    _, own, plotly = page.scripts
    for script in (own, plotly):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


def test_the_page_says_what_it_is_to_a_browser(page):
    assert ("html", {"lang": "en"}) in page.tags
    assert page.said.startswith("resnet18: benchmark report")
    assert any(tag.get("name") == "viewport" for _, tag in page.tags)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_names_and_errors_of_plugins_are_text(page, eventful):
    assert len(page.scripts) == 3
    assert {"b", "img"} & {tag for tag, _ in page.tags} == set()
    assert page.open == []
    assert f"timm:vit x {made.HOSTILE}" in cells(page.data, "pairing")
    assert made.ERROR in page.pre


def test_no_name_can_end_the_data(page):
    assert not set("<>&\u2028\u2029") & set(page.scripts[0])


def test_what_a_run_is_called_is_text():
    page = Page(report_html(made.table(made.row(), runs=[made.run(name=made.HOSTILE)])))
    assert len(page.scripts) == 3
    assert " ".join(made.HOSTILE.split()) in page.said
    assert page.open == []


def test_every_row_is_in_it_as_the_table_shows_it(page, eventful):
    data = page.data
    assert data["size"] == len(eventful.rows)
    assert cells(data, "pairing") == [row.name for row in eventful.rows]
    assert cells(data, "mode") == [row.mode for row in eventful.rows]
    assert values(data, "latency") == [pytest.approx(row.latency.median) if row.latency else None for row in eventful.rows]
    assert cells(data, "ratio")[:3] == ["1 (baseline)", "0.87 [0.84, 0.90]", "0.99 [0.96, 1.02] tie"]
    ratio = next(column for column in data["columns"] if column["name"] == "ratio")
    assert (ratio["lows"][1], ratio["highs"][1]) == (pytest.approx(0.8439), pytest.approx(0.8961))
    assert ratio["ties"][:1] == [2]
    assert data["baselines"] == [0, 6, 12, 18]


def test_five_thousand_rows_stay_small():
    table = made.large()
    data = json.dumps(payload_of(table))
    assert len(table.rows) == 5000
    assert len(data) < 3_000_000
    assert cells(json.loads(data), "pairing") == [row.name for row in table.rows]


def test_what_is_not_known_is_null_and_never_a_number_that_json_lacks():
    data = Page(
        report_html(made.table(made.row(), made.row("a x b", efficiency=float("nan"), p90=float("inf"), licenses="")))
    ).data
    assert values(data, "efficiency") == [0.4, None]
    assert values(data, "p90") == [0.07, None]
    assert values(data, "licenses") == ["BSD-3-Clause, Apache-2.0", None]


def test_the_columns_shown_are_the_usual_ones_that_differ_and_what_is_alike_is_said_once(page):
    shown = [column["name"] for column in page.data["columns"] if column["isShown"]]
    assert {"pairing", "mode", "batch", "latency", "ratio", "memory", "parameters", "quality"} <= set(shown)
    assert not {"size", "device", "dtype", "p90", "flags"} & set(shown)
    assert "All rows: size 256x256, device cpu, dtype float32." in page.said


def test_it_says_where_and_when_it_was_measured(page):
    for told in (made.DEVICE, "4 threads of 8 cores", "31.3 GiB", "Linux-6.1-x86_64", "Python 3.11.7", "torch 2.14.1+cpu"):
        assert told in page.said
    for told in ("c959298c0323", "2026-11-25 19:28 to 20:02 UTC", "256x256, 225x301", "until ratios are known to ±2 %"):
        assert told in page.said
    assert "results/zoo.sqlite" in page.said
    assert "341 GFLOP/s" in page.said


def test_several_runs_each_have_their_card_and_their_blocks():
    runs = [made.run(1), made.run(2, "again", finished=None)]
    page = Page(report_html(made.table(made.row(), made.row(run=2), runs=runs)))
    assert "Run 1: resnet18" in page.said
    assert "Run 2: again" in page.said
    assert "not finished" in page.said
    assert page.data["blocks"] == ["run 1", "run 2"]
    assert cells(page.data, "run") == ["1", "2"]


def test_failures_stand_in_the_page_with_their_whole_errors(page, eventful):
    failed = {index: row for index, row in enumerate(eventful.rows) if row.error}
    assert [tag["id"] for _, tag in page.tags if tag.get("class") == "failure"] == [f"failure-{index}" for index in failed]
    assert [row.error for row in failed.values()] == [text for text in page.pre if "Error" in text]
    assert page.data["failures"] == {str(index): row.failure for index, row in failed.items()}
    assert "2 of 26 rows failed" in page.said
    assert "out of memory" in page.said


def test_without_failures_there_is_no_part_for_them():
    page = Page(report_html(made.three()))
    assert "failures" not in {tag.get("id") for _, tag in page.tags}
    assert "0 failed." in page.said


def test_a_table_in_which_everything_failed_is_still_a_page():
    page = Page(
        report_html(made.table(made.failed(role="baseline"), made.failed("other x unet-basic", plan=None, parameters=None)))
    )
    assert "2 of 2 rows failed" in page.said
    assert page.data["plots"] == []


def test_a_check_that_is_off_is_a_warning_and_marks_its_rows(page, eventful):
    assert "Warning: inference, batch 8: the second copy of the baseline" in page.said
    assert "took 1.050 [1.029, 1.071] times as long as the baseline" in page.said
    assert [eventful.rows[index].name for index in page.data["distrusted"]] == [
        "resnet18 x unet-basic",
        "resnet18 x unet-attention",
    ]
    assert {eventful.rows[index].batch for index in page.data["distrusted"]} == {8}
    assert "2 in all, 1 off" in page.said


def test_the_summary_counts_what_came_of_it(page):
    assert "8 models, 26 rows. 8 faster than the baseline, 8 slower, 4 tied. 2 failed." in page.said


def test_the_legend_says_what_the_columns_mean(page):
    assert "below 1 is faster" in page.said
    assert "the peak size of all live tensors during a step" in page.said
    assert "a multiply-add counts as two" in page.said


def test_each_pairing_has_its_code_licenses_parts_and_plan(page):
    data = page.data
    pairing = next(pairing for pairing in data["pairings"] if pairing["name"] == "resnet18 x unet-basic")
    assert pairing["code"] == "zoo.build('resnet18', 'unet-basic')"
    assert pairing["licenses"] == ["BSD-3-Clause, Apache-2.0"]
    (variant,) = pairing["variants"]
    assert variant["parts"]["encoder"] == 11_176_512
    assert len(variant["rows"]) == 4
    plan = data["plans"][variant["plan"]]
    stem, last = (data["routes"][place] for place in plan["routes"])
    assert stem == ["stem", "64", "2", "none", "64 at stride 2", "the only map at stride 2"]
    assert last[3:5] == ["1x1 convolution 512 -> 256 (+131,328 parameters)", "256 at stride 32"]
    assert plan["unused"] == [["pool", "64", "4", "the decoder takes no stride 4"]]
    assert "not a multiple of 32" in plan["sizes"]
    assert plan["notes"] == ["unet-basic ends at stride 2."]
    assert plan["added"] == 131_328


def test_a_plan_that_differs_between_rows_is_told_for_each():
    other = replace(made.plan(), notes=("made for another size",)).as_dict()
    data = payload_of(made.table(made.row(), made.row(height=512, plan=other)))
    (pairing,) = data["pairings"]
    assert [variant["rows"] for variant in pairing["variants"]] == [[0], [1]]


def test_routes_that_many_pairings_share_are_kept_once():
    data = payload_of(made.large(480))
    assert len(data["pairings"]) == 120
    assert len(data["routes"]) == 2


def test_a_reference_has_a_part_without_a_plan(page):
    pairing = page.data["pairings"][0]
    assert (pairing["name"], pairing["code"]) == ("smp.Unet(resnet18)", "")
    assert [variant["plan"] for variant in pairing["variants"]] == [None]


def test_the_plots_are_those_that_have_points_with_a_front_a_block(page, eventful):
    plots = {plot["name"]: plot for plot in page.data["plots"]}
    assert set(plots) == {"memory", "parameters", "quality"}
    names = [[eventful.rows[index].name for index in front] for front in plots["quality"]["fronts"].values()]
    assert names[0] == [
        "timm:mobilenetv3_small_100 x smp:fpn",
        "resnet18 x unet-basic",
        "resnet18 x unet-attention",
        "timm:convnext_tiny x smp:unetplusplus",
    ]
    assert {plot["name"] for plot in payload_of(made.three())["plots"]} == {"memory", "parameters"}


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)).map(lambda point: (float(point[0]), float(point[1]))), max_size=20)
)
def test_a_front_is_what_no_other_point_beats(points):
    def is_beaten(point):
        return any(other != point and other[0] <= point[0] and other[1] <= point[1] for other in points)

    front = pareto_front(points)
    assert sorted(front) == [index for index, point in enumerate(points) if not is_beaten(point)]
    assert [points[index][0] for index in front] == sorted(points[index][0] for index in front)


def test_the_file_is_the_page_and_replaces_the_one_before(tmp_path):
    path = tmp_path / "new" / "report.html"
    write_report(made.table(made.row("first x unet-basic")), path)
    write_report(made.three(), path)
    assert path.read_text(encoding="utf-8") == report_html(made.three())
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]


def test_a_name_that_is_no_valid_unicode_is_written_all_the_same(tmp_path):
    path = tmp_path / "report.html"
    write_report(made.table(made.failed("\ud800 x unet-basic")), path)
    assert "? x unet-basic" in path.read_text(encoding="utf-8")


def test_a_path_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path):
    with pytest.raises(OptionError, match=r"--output .* cannot be written: it is a folder"):
        write_report(made.three(), tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="cannot be written"):
        write_report(made.three(), tmp_path / "file" / "report.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
    assert not list(tmp_path.parent.glob("*.part"))


def test_a_missing_plotly_is_told_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(OptionError, match=re.escape("pip install 'segmentation-zoo[report]'")):
        write_report(made.three(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Return a function that runs `zoo report` in an empty folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zoo", "report", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


def begin(store, name):
    facts = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
    trial = Trial(subject=Pairing("resnet18", name), mode="inference", **facts)
    return store.start_run(name, made.run().config | {"name": name}, made.run().environment, [trial]).id


def test_the_command_writes_the_latest_run_or_those_asked_for(cli, tmp_path):
    with closing(Store(tmp_path / "results/zoo.sqlite")) as store:
        begin(store, "unet-basic")
        begin(store, "unet-bilinear")
    status, _, err = cli()
    assert (status, err[:30]) == (0, "Written to results/report.html")
    page = Page((tmp_path / "results/report.html").read_text(encoding="utf-8"))
    assert cells(page.data, "pairing") == ["resnet18 x unet-bilinear"]
    assert cli("1", "unet-bilinear", "--output", "both.html")[0] == 0
    page = Page((tmp_path / "both.html").read_text(encoding="utf-8"))
    assert cells(page.data, "pairing") == ["resnet18 x unet-basic", "resnet18 x unet-bilinear"]


def test_the_command_tells_of_a_store_or_run_that_is_not_there(cli, tmp_path):
    status, _, err = cli("--store", "nowhere.sqlite")
    assert status == 2
    assert "There is no results store nowhere.sqlite" in " ".join(err.split())
    with closing(Store(tmp_path / "results/zoo.sqlite")) as store:
        begin(store, "unet-basic")
    status, _, err = cli("7")
    assert (status, "has no run" in err) == (2, True)


def test_a_page_without_plots_is_small_and_has_all_rows():
    whole, small = report_html(made.three()), report_html(made.three(), plots=False)
    assert len(small) < len(whole) / 10
    assert 'id="plot' not in small
    assert Page(small).data["size"] == Page(whole).data["size"] == 3

"""The table as text, Markdown, CSV and JSON, wide and narrow, with names and errors that were made to break it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from contextlib import closing

import pytest
import torch
from rich.console import Console

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.cost import StaticCost
from zoo.benchmark.environment import describe_environment
from zoo.benchmark.formats import FORMATS, render, terminal_view
from zoo.benchmark.measure import Failure, Sample
from zoo.benchmark.store import Store
from zoo.benchmark.table import table_of
from zoo.benchmark.trial import Reference, Trial, trials_of

ROUNDS = 20
HEADINGS = ["pairing", "mode", "batch", "size", "device", "dtype", "latency", "images/s", "baseline", "peak"]
HEADINGS += ["params", "GFLOPs", "licences", "rounds"]
HOSTILE = "a|b <script>alert(1)</script> & [bold]c[/nope]"
ERROR = 'ValueError: sizes | differ, "quoted"\n<b>second</b> line'


@pytest.fixture
def table_with(tmp_path):
    """Return a function that stores a run of real trials with made-up samples, and gives its table."""

    def build(*, name="named", extra=(), failed=(), modes=("inference", "training")):
        config = BenchConfig.model_validate(
            {
                "name": name,
                "encoders": ["resnet18"],
                "decoders": ["unet-basic", "unet-bilinear"],
                "baseline": {"name": "peer", "factory": "torch.nn:Identity"},
                "modes": list(modes),
                "size": [64],
            }
        )
        trials = [*trials_of(config), *extra]
        environment = describe_environment(torch.device("cpu")).as_dict()
        with closing(Store(tmp_path / "store.sqlite")) as store:
            run = store.start_run(name, config.model_dump(mode="json"), environment, trials).id
            for place, trial in enumerate(trials):
                store.add_cost(
                    run, trial, StaticCost(parameters=1_230_000 + place, flops=10**9 * (place + 1), live_bytes=2**24)
                )
                if str(trial.subject) in failed:
                    store.add_failure(run, Failure(trial=trial, error=ERROR))
            alive = [trial for trial in trials if str(trial.subject) not in failed]
            for number in range(ROUNDS):
                store.add_round(run, number, [sample(trial, place, number) for place, trial in enumerate(alive)])
            return table_of(store, run)

    return build


def sample(trial, place, number):
    return Sample(trial=trial, slot=place, calls=1, seconds=0.1 * (place + 1) * (1 + number / 97))


def reference(name):
    facts = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
    return Trial(subject=Reference(name=name, factory="torch.nn:Identity", options={}), mode="inference", **facts)


def drawn(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(terminal_view(table, width))
    return console.file.getvalue()


def markdown_cells(text):
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_str_and_render_give_the_whole_table_as_text(table_with):
    table = table_with()
    text = str(table)
    assert text == render(table, "table")
    assert all(heading in text for heading in [*HEADINGS, "resnet18 x unet-bilinear", "1 (baseline)"])
    assert table.run.environment["processor"] in text
    assert f"torch {torch.__version__}" in text
    assert "named" in text.splitlines()[0]
    assert table.run.started[:10] in text


def test_the_text_explains_its_units_and_names_the_store(table_with):
    table = table_with()
    text = " ".join(str(table).split())
    assert all(part in text for part in ("95 % interval", "below 1 is faster", "a multiply-add is two", table.store, "image"))


def test_csv_has_units_in_its_names_and_one_row_a_trial(table_with):
    table = table_with()
    rows = list(csv.DictReader(io.StringIO(render(table, "csv"))))
    assert {"latency_ms", "latency_ms_low", "latency_ms_high", "images_per_second", "peak_mib", "gflops"} <= rows[0].keys()
    assert {"ratio_to_baseline", "parameters", "device", "device_name", "torch", "zoo", "started"} <= rows[0].keys()
    assert [(row["pairing"], row["mode"]) for row in rows] == [(row.pairing, row.mode) for row in table.rows]
    first, second = rows[:2]
    assert float(second["latency_ms"]) == pytest.approx(table.rows[1].latency.median * 1000)
    assert float(second["ratio_to_baseline"]) == pytest.approx(2)
    assert (float(second["peak_mib"]), float(second["gflops"]), second["parameters"]) == (16, 2, "1230001")
    assert (first["is_baseline"], second["is_baseline"], second["rounds"]) == ("True", "False", str(ROUNDS))


def test_json_holds_the_rows_of_the_csv_and_the_run(table_with):
    table = table_with()
    facts = json.loads(render(table, "json"))
    assert facts["run"]["config"]["rounds"] == ROUNDS
    assert facts["run"]["environment"]["versions"]["torch"] == torch.__version__
    assert [row["pairing"] for row in facts["rows"]] == [row.pairing for row in table.rows]
    assert facts["rows"][1]["latency_ms"] == pytest.approx(table.rows[1].latency.median * 1000)
    assert facts["rows"][1]["images_per_second"] == pytest.approx(1 / table.rows[1].latency.median)


def test_markdown_is_a_table_with_a_cell_for_every_column_of_every_row(table_with):
    table = table_with()
    heading, rule, *rows = markdown_cells(render(table, "markdown"))
    assert all(any(name in cell for cell in heading) for name in HEADINGS)
    assert all(re.fullmatch(r":?-{3,}:?", cell) for cell in rule)
    assert {len(cells) for cells in (heading, rule, *rows)} == {len(HEADINGS)}
    assert [row[0] for row in rows] == [row.pairing for row in table.rows]


def test_what_a_model_is_called_stays_text_in_markdown(table_with):
    text = render(table_with(extra=[reference(HOSTILE)], failed=[HOSTILE]), "markdown")
    rows = markdown_cells(text)
    assert {len(cells) for cells in rows} == {len(HEADINGS)}
    assert html.unescape(rows[-1][0]).replace("\\", "") == HOSTILE
    assert "<script" not in text
    assert "<b>" not in text


def test_what_a_run_is_called_stays_text_in_markdown(table_with):
    assert "<script" not in render(table_with(name=HOSTILE), "markdown")


@pytest.mark.parametrize("width", [80, 190])
def test_what_a_model_or_a_run_is_called_stays_text_in_the_terminal(table_with, width):
    text = drawn(table_with(name=HOSTILE, extra=[reference("[b]m[/x]")]), width)
    assert "[bold]c[/nope]" in text
    assert "[b]m[/x]" in text


def test_what_a_model_is_called_stays_text_in_csv_and_json(table_with):
    table = table_with(extra=[reference(HOSTILE)])
    assert list(csv.DictReader(io.StringIO(render(table, "csv"))))[-1]["pairing"] == HOSTILE
    assert json.loads(render(table, "json"))["rows"][-1]["pairing"] == HOSTILE


@pytest.mark.parametrize("form", FORMATS)
def test_a_failed_row_is_shown_with_its_error(table_with, form):
    text = render(table_with(failed=["resnet18 x unet-basic"]), form)
    if form == "csv":
        found = {row["error"] for row in csv.DictReader(io.StringIO(text)) if row["pairing"] == "resnet18 x unet-basic"}
        assert found == {ERROR}
    elif form == "json":
        found = [row for row in json.loads(text)["rows"] if row["pairing"] == "resnet18 x unet-basic"]
        assert [(row["error"], row["latency_ms"]) for row in found] == [(ERROR, None)] * 2
    else:
        assert text.count("FAILED resnet18 x unet-basic") == 2
        assert all(part in text for part in ("ValueError: sizes", "second", "line"))
        assert text.count("1 (baseline)") == 2


def test_a_run_in_which_everything_failed_is_still_a_table(table_with):
    table = table_with(failed=["peer", "resnet18 x unet-basic", "resnet18 x unet-bilinear"])
    for form in FORMATS:
        text = render(table, form)
        assert text.count("ValueError") == 6


def test_a_narrow_terminal_has_the_constant_columns_in_a_line_of_their_own(table_with):
    table = table_with()
    shared = "All rows: batch 1, size 64x64, device cpu, dtype float32"
    narrow, wide = (" ".join(drawn(table, width).split()) for width in (80, 230))
    assert shared in narrow
    assert "All rows:" not in wide
    assert all(heading in wide.partition("peer")[0] for heading in HEADINGS)


@pytest.mark.parametrize("modes", [("inference",), ("inference", "training")])
@pytest.mark.parametrize("width", [80, 100, 120, 190])
def test_no_cell_is_lost_however_narrow_the_terminal(table_with, width, modes):
    table = table_with(modes=modes)
    text = drawn(table, width)
    assert max(map(len, text.splitlines())) <= width
    heading, _, *rows = markdown_cells(render(table, "markdown"))
    words = text.split()
    for cell in {cell for cells in [heading, *rows] for cell in cells}:
        assert all(word in words or f"{word}," in words or f"{word}." in words for word in cell.split()), cell


def test_a_baseline_that_failed_is_compared_with_nothing(table_with):
    table = table_with(failed=["peer"])
    assert "(baseline)" not in render(table, "markdown")
    assert [row.ratio for row in table.rows] == [None] * 6

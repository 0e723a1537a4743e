"""The table as text, Markdown, CSV and JSON, wide and narrow, with names and errors that were made to break it."""

from __future__ import annotations

import csv
import html
import io
import json
import re
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import zoo
from zoo.benchmark.config import BenchConfig
from zoo.benchmark.messages import ColdStart, Failure, KernelRate, Round, Sample, StaticCost
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.columns import chosen_columns
from zoo.benchmark.table.document import document
from zoo.benchmark.table.table import table_of
from zoo.benchmark.trial import Reference, Trial, make_trials, split_into_blocks
from zoo.common.grid import FORMATS
from zoo.common.statistics import Estimate

ROUNDS = 20
HEADINGS = [
    "pairing",
    "mode",
    "batch",
    "size",
    "device",
    "dtype",
    "latency ms",
    "images/s",
    "time / baseline",
    "busy / baseline",
]
HEADINGS += ["of best rate", "peak MiB", "params M", "GFLOPs", "licenses", "rounds"]
HOSTILE = "a|b <script>alert(1)</script> & [bold]c[/nope]"
ERROR = 'ValueError: sizes | differ, "quoted"\n<b>second</b> line'


@pytest.fixture
def table_with(tmp_path):
    """Return a function that stores a run of real trials with made-up samples, and gives its table."""

    def build(*, name="named", extra=(), failed=(), modes=("inference", "training"), drift=0.0):
        config = BenchConfig.model_validate(
            {
                "name": name,
                "encoders": ["resnet18"],
                "decoders": ["unet-basic", "unet-bilinear"],
                "baseline": {"name": "peer", "factory": "torch.nn:Identity"},
                "modes": list(modes),
                "size": [64],
                "rounds": ROUNDS,
            }
        )
        trials = [*make_trials(config), *extra]
        environment = describe_environment(torch.device("cpu")).as_dict()
        with closing(Store(tmp_path / "store.sqlite")) as store:
            run = store.start_run(name, config.model_dump(mode="json"), environment, trials).id
            where = store.environment_id(run, environment)
            store.add_rate(run, where, KernelRate(kernel="matrix product", dtype="float32", flops_per_second=1e11))
            for place, trial in enumerate(trials):
                flops = 10**9 * (place + 1)
                cost = StaticCost(parameters=1_230_000 + place, flops=flops, step_flops=3 * flops, live_bytes=2**24)
                store.add_cost(run, trial.key, cost)
                store.add_cold_start(
                    run, ColdStart(trial=trial.key, batch=1, build_seconds=0.5, first_seconds=0.7, seconds=0.1, rss_bytes=2**25)
                )
                if str(trial.subject) in failed:
                    store.add_failure(run, Failure(trial=trial.key, kind="error", error=ERROR))
            for group, block in enumerate(split_into_blocks(trials)):
                store.add_groups(run, [[trial.key for trial in block]])
                alive = [trial for trial in block if str(trial.subject) not in failed]
                for number in range(ROUNDS if alive else 0):
                    samples = tuple(sample(trial, trials.index(trial), number, drift) for trial in alive)
                    store.add_round(run, group, where, Round(number=number, samples=samples, conditions={"seconds": 1.0}))
                store.stop_group(run, group, where, "fixed")
            store.finish_run(run)
            return table_of(store, run)

    return build


def sample(trial, place, number, drift):
    """Trials take 1, 2, 3 ... tenths of a second; a control takes what its baseline does, but for `drift`."""
    factor = 1 + drift if trial.role == "control" else place % 4 + 1
    seconds = 0.1 * factor * (1 + number / 97)
    return Sample(trial=trial.key, slot=place, calls=1, seconds=seconds, busy_seconds=seconds / 2)


def reference(name):
    facts = {"batch": 1, "height": 64, "width": 64, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
    return Trial(subject=Reference(name=name, factory="torch.nn:Identity", options={}), mode="inference", **facts)


def drawn(table, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(document(table).view(width))
    return console.file.getvalue()


def markdown_cells(text):
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]


def test_str_and_render_give_the_whole_table_as_text(table_with):
    table = table_with()
    text = str(table)
    assert text == document(table).render("table")
    assert all(heading in text for heading in [*HEADINGS, "resnet18 x unet-bilinear", "1 (baseline)"])
    assert table.run.environment["processor"] in text
    assert f"torch {torch.__version__}" in text
    assert "named" in text.splitlines()[0]
    assert table.run.started[:10] in text


def test_the_text_names_the_store_and_explains_its_columns_on_request(table_with):
    table = table_with()
    explanations = ("a confidence level of 95 %", "below 1 is faster", "a multiply-add counts as two")
    text = " ".join(str(table).split())
    assert all(part in text for part in (table.store, "image", "--legend"))
    assert not any(part in text for part in explanations)
    legend = " ".join(str(document(table, legend=True)).split())
    assert all(part in legend for part in explanations)


def test_csv_has_units_in_its_names_and_one_row_a_trial(table_with):
    table = table_with()
    rows = list(csv.DictReader(io.StringIO(document(table).render("csv"))))
    assert {"latency_ms", "latency_ms_low", "latency_ms_high", "images_per_second", "peak_mib", "gflops"} <= rows[0].keys()
    assert {"ratio_to_baseline", "parameters", "device", "device_name", "torch", "zoo", "started"} <= rows[0].keys()
    assert [(row["pairing"], row["mode"]) for row in rows] == [(row.name, row.mode) for row in table.rows]
    first, second = rows[:2]
    assert float(second["latency_ms"]) == pytest.approx(table.rows[1].latency.median * 1000)
    assert float(second["ratio_to_baseline"]) == pytest.approx(2)
    assert (float(second["peak_mib"]), float(second["gflops"]), second["parameters"]) == (16, 2, "1230001")
    assert (first["is_baseline"], second["is_baseline"], second["rounds"]) == ("True", "False", str(ROUNDS))


def test_json_holds_the_rows_of_the_csv_and_the_run(table_with):
    table = table_with()
    facts = json.loads(document(table).render("json"))
    assert facts["runs"][0]["config"]["rounds"] == ROUNDS
    assert facts["best_rates"] == {"float32": "100 GFLOP/s (matrix product)"}
    assert facts["runs"][0]["environment"]["versions"]["torch"] == torch.__version__
    assert [row["pairing"] for row in facts["rows"]] == [row.name for row in table.rows]
    assert facts["rows"][1]["latency_ms"] == pytest.approx(table.rows[1].latency.median * 1000)
    assert facts["rows"][1]["images_per_second"] == pytest.approx(1 / table.rows[1].latency.median)


def test_markdown_is_a_table_with_a_cell_for_every_column_of_every_row(table_with):
    table = table_with()
    heading, rule, *rows = markdown_cells(document(table).render("markdown"))
    assert all(any(name in cell for cell in heading) for name in HEADINGS)
    assert all(re.fullmatch(r":?-{3,}:?", cell) for cell in rule)
    assert {len(cells) for cells in (heading, rule, *rows)} == {len(HEADINGS)}
    assert [row[0] for row in rows] == [row.name for row in table.rows]


def test_what_a_model_is_called_stays_text_in_markdown(table_with):
    text = document(table_with(extra=[reference(HOSTILE)], failed=[HOSTILE])).render("markdown")
    rows = markdown_cells(text)
    assert {len(cells) for cells in rows} == {len(HEADINGS)}
    assert html.unescape(rows[-1][0]).replace("\\", "") == HOSTILE
    assert "<script" not in text
    assert "<b>" not in text


def test_what_a_run_is_called_stays_text_in_markdown(table_with):
    assert "<script" not in document(table_with(name=HOSTILE)).render("markdown")


@pytest.mark.parametrize("width", [80, 190])
def test_what_a_model_or_a_run_is_called_stays_text_in_the_terminal(table_with, width):
    text = drawn(table_with(name=HOSTILE, extra=[reference("[b]m[/x]")]), width)
    assert "[bold]c[/nope]" in text
    assert "[b]m[/x]" in text


def test_what_a_model_is_called_stays_text_in_csv_and_json(table_with):
    table = table_with(extra=[reference(HOSTILE)])
    assert list(csv.DictReader(io.StringIO(document(table).render("csv"))))[-1]["pairing"] == HOSTILE
    assert json.loads(document(table).render("json"))["rows"][-1]["pairing"] == HOSTILE


@pytest.mark.parametrize("form", FORMATS)
def test_a_failed_row_is_shown_with_its_error(table_with, form):
    text = document(table_with(failed=["resnet18 x unet-basic"])).render(form)
    if form == "csv":
        found = {row["error"] for row in csv.DictReader(io.StringIO(text)) if row["pairing"] == "resnet18 x unet-basic"}
        assert found == {ERROR}
    elif form == "json":
        found = [row for row in json.loads(text)["rows"] if row["pairing"] == "resnet18 x unet-basic"]
        assert [(row["error"], row["latency_ms"]) for row in found] == [(ERROR, None)] * 2
    else:
        assert text.count("FAILED resnet18 x unet-basic") == 2
        assert all(part in text for part in ("ValueError: sizes", "second", "line"))
        assert text.count("1 (baseline)") == 4


def test_a_run_in_which_everything_failed_is_still_a_table(table_with):
    table = table_with(failed=["peer", "resnet18 x unet-basic", "resnet18 x unet-bilinear"])
    for form in FORMATS:
        text = document(table).render(form)
        assert text.count("ValueError") == 6


def test_a_narrow_terminal_has_the_constant_columns_in_a_line_of_their_own(table_with):
    table = table_with()
    shared = "All rows: batch 1, size 64x64, device cpu, dtype float32"
    narrow, wide = (" ".join(drawn(table, width).split()) for width in (80, 270))
    assert shared in narrow
    assert "All rows:" not in wide
    assert all(heading in wide.partition("peer")[0] for heading in HEADINGS)


@pytest.mark.parametrize("modes", [("inference",), ("inference", "training")])
@pytest.mark.parametrize("width", [80, 100, 120, 190])
def test_no_cell_is_lost_or_broken_however_narrow_the_terminal_but_columns_that_are_named(table_with, width, modes):
    table = table_with(modes=modes)
    text = drawn(table, width)
    assert max(map(len, text.splitlines())) <= width
    dropped = " ".join(text.split()).partition("No room for: ")[2].partition(";")[0].split(", ")
    assert (dropped == [""]) or width < 190
    heading, _, *rows = markdown_cells(document(table).render("markdown"))
    kept = [place for place, name in enumerate(heading) if name not in dropped]
    assert {"pairing", "mode", "latency ms", "time / baseline", "peak MiB"} <= {heading[place] for place in kept}
    words = text.split()
    for cell in {cells[place] for cells in [heading, *rows] for place in kept}:
        assert all(word in words or f"{word}," in words or f"{word}." in words for word in cell.split()), cell


def test_a_terminal_of_100_columns_shows_whole_cells_of_the_main_columns(table_with):
    text = drawn(table_with(modes=("inference", "training")), 100)
    rows = [line for line in text.splitlines() if line.strip().startswith("resnet18 x ")]
    assert len(rows) == 4
    assert [row.count("[") for row in rows] == [row.count("]") for row in rows] == [2, 2, 2, 2]


def test_a_baseline_that_failed_is_compared_with_nothing(table_with):
    table = table_with(failed=["peer"])
    assert "(baseline)" not in document(table).render("markdown")
    assert [row.ratio for row in table.rows] == [None] * 6


def test_the_columns_that_say_something_are_shown_and_any_can_be_asked_for(table_with):
    table = table_with()
    assert [column.heading for column in chosen_columns(table.rows)] == HEADINGS
    everything = document(table, chosen_columns(table.rows, "all")).render("markdown")
    headings = everything.splitlines()[2]
    assert all(heading in headings for heading in ("p90 ms", "busy ms", "build s", "first call s", "RSS MiB", "live MiB"))
    assert not any(heading in headings for heading in ("allocated", "mIoU", "batch that fits", "format", "runtime"))
    few = document(table, chosen_columns(table.rows, "pairing, p90,rss")).render("markdown")
    assert few.splitlines()[2] == "| pairing | p90 ms | RSS MiB |"
    with pytest.raises(zoo.errors.OptionError, match="'latncy'") as caught:
        chosen_columns(table.rows, "pairing,latncy")
    assert "Did you mean 'latency'?" in str(caught.value)


def test_efficiency_is_what_was_achieved_over_the_best_rate_of_the_run(table_with):
    row = table_with().rows[1]
    achieved = 3 * 2e9 / row.latency.median
    assert row.flops_per_second == pytest.approx(achieved)
    assert row.efficiency == pytest.approx(achieved / 1e11)


def test_the_device_s_own_time_has_a_ratio_of_its_own(table_with):
    baseline, row = table_with().rows[:2]
    assert row.busy.median == pytest.approx(row.latency.median / 2)
    assert row.busy_ratio.median == pytest.approx(2)
    assert baseline.busy_ratio.median == 1


@pytest.mark.parametrize("form", ["table", "markdown"])
def test_a_baseline_that_differs_from_itself_is_a_warning_row(table_with, form):
    quiet, noisy = document(table_with()).render(form), document(table_with(drift=0.04)).render(form)
    assert "WARNING" not in quiet
    assert "A/A check, inference" in quiet
    assert noisy.count("WARNING: baseline copy") == 2
    assert noisy.count("WARNING: A/A check") == 2
    assert noisy.count("1.040 [1.040, 1.040]") == 4
    assert all(check.is_off for check in table_with(drift=0.04).checks)


def test_the_checks_of_many_groups_share_a_note(table_with):
    table = table_with(modes=["inference"])
    (check,) = table.checks
    off = replace(check, ratio=Estimate(median=1.1, low=1.05, high=1.2))
    text = " ".join(document(replace(table, checks=(*[check] * 39, off))).render("table").split())
    assert text.count("A/A check") == 2
    assert "in 39 of 40 groups" in text
    assert "its median is 1.000 to 1.000. By chance, at most about 2 intervals exclude 1." in text
    assert "WARNING: A/A check, inference, batch 1, 64x64, float32: the second copy of the baseline took 1.100" in text

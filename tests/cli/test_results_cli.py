"""The commands that read what was measured: what each prints and writes, and its exit status."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from made_stores import BASIC, BILINEAR, ENVIRONMENT, SECONDS, add_run

from zoo.benchmark.messages import KernelRate
from zoo.benchmark.store.store import Store

NAMES = ["peer", BASIC, BILINEAR]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder whose results/zoo.sqlite holds three runs: one, one with a slower pairing, one unfinished with a failure."""
    made = tmp_path_factory.mktemp("project")
    with closing(Store(made / "results/zoo.sqlite")) as store:
        add_run(store, name="nightly")
        add_run(store, name="nightly", seconds=SECONDS | {BASIC: 0.0225}, drift=1.2)
        add_run(store, name="stopped", failed={BASIC: "ValueError: [bold]no[/nope]"}, finish=False, done=7)
    return made


@pytest.fixture
def cli(command_line, folder, monkeypatch, fresh_registry):
    """Return a function that runs a command line in that folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(folder)
    return command_line


def rows_of(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_runs_lists_each_with_how_far_it_came_and_what_failed(cli):
    status, out, err = cli("runs")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if line.strip()]
    assert [line[:2] for line in lines[2:]] == [["1", "nightly"], ["2", "nightly"], ["3", "stopped"]]
    assert [line[-2:] for line in lines[2:]] == [["3", "0"], ["3", "0"], ["3", "1"]]
    assert "so far: group 1 of 1, round 7 of 20" in out
    assert "Abacus 3000 (cpu, 2 threads)" in out


def test_runs_says_where_there_is_none(cli, tmp_path):
    Store(tmp_path / "empty.sqlite").close()
    status, out, _ = cli("runs", "--store", tmp_path / "empty.sqlite")
    assert status == 0
    assert "contains no run yet; `zoo bench CONFIG`" in out


def test_table_shows_the_latest_run_or_those_asked_for(cli):
    assert cli("table")[1].startswith("stopped: Abacus 3000")
    status, out, _ = cli("table", 1, 2, "--format", "csv")
    assert status == 0
    assert [(row["run"], row["pairing"]) for row in rows_of(out)] == [(run, name) for run in "12" for name in NAMES]


def test_table_filters_sorts_and_chooses(cli):
    where = ["--where", "run=1 and encoder!=none", "--where", "latency<50ms"]
    status, out, _ = cli("table", "1", "2", *where, "--sort", "-latency", "--format", "csv")
    assert status == 0
    assert [row["pairing"] for row in rows_of(out)] == [BILINEAR, BASIC]
    status, out, _ = cli("table", "1", "--columns", "pairing,flops", "--pareto", "latency,flops", "--format", "markdown")
    table = [line for line in out.splitlines() if line.startswith("|")]
    assert (status, table) == (0, ["| pairing | GFLOPs |", "| --- | ---: |", "| peer | 1.00 |"])


def test_table_writes_a_file_as_its_suffix_says_and_shows_the_table(cli, tmp_path):
    status, out, err = cli("table", "nightly", "--output", tmp_path / "new/table.csv")
    assert status == 0
    assert [row["pairing"] for row in rows_of((tmp_path / "new/table.csv").read_text())] == NAMES
    assert "latency ms" in out
    assert "Written to" in err


def test_no_row_that_meets_the_conditions_is_status_1_and_says_why(cli):
    status, out, err = cli("table", "1", "--where", "latency<1ms", "--format", "csv")
    assert (status, out) == (1, "")
    assert "latency<1ms: none meets it" in err


def test_compare_shows_what_became_slower(cli):
    status, out, err = cli("compare", 1, "nightly")
    assert (status, err) == (0, "")
    assert "In run 2: 1 slower, 1 tie." in out
    assert any("slower" in line and BASIC in line for line in out.splitlines())
    by_latency = cli("compare", 1, 2, "--by", "latency", "--format", "json")[1]
    assert {trial["verdict"] for trial in json.loads(by_latency)["trials"]} == {"slower"}


def test_compare_can_fail_where_something_is_slower(cli):
    status, out, err = cli("compare", 1, 2, "--fail-if-slower", "5%")
    assert status == 1
    assert "In run 2" in out
    assert "Slower than --fail-if-slower 5% allows:" in err
    assert f"{BASIC}, inference, batch 1, 64x64, float32: 1.1" in err
    assert BILINEAR not in err
    assert cli("compare", 1, 2, "--fail-if-slower", "0.05")[0] == 1
    for arguments in ([1, 2, "--fail-if-slower", "50%"], [2, 1, "--fail-if-slower", "5%"]):
        status, _, err = cli("compare", *arguments)
        assert status == 0
        assert "None of 2 trials is slower" in err
    assert cli("compare", 1, 2)[0] == 0
    status, _, err = cli("compare", 1, 3, "--fail-if-slower", "50%")
    assert status == 1
    assert "Failing in 3, but not in 1:" in err


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_compare_tells_a_failure_as_it_was_written(cli, form):
    status, out, _ = cli("compare", 1, 3, "--format", form)
    assert status == 0
    assert "[bold]no[/nope]" in out


def test_recommend_says_what_to_choose(cli):
    status, out, err = cli("recommend", "1", "--max-latency", "25ms", "--device", "cpu", "--batch", 1, "--size", 64)
    assert (status, err) == (0, "")
    assert "1. zoo.build('resnet18', 'unet-basic')" in out.splitlines()
    assert "this recommendation is about cost alone" in out
    status, out, _ = cli("recommend", "1", "--max-memory", "0.15GiB", "--max-parameters", "13", "--format", "csv")
    assert (status, [row["pairing"] for row in rows_of(out)]) == (0, [BILINEAR])


@pytest.mark.parametrize("form", ["table", "markdown", "csv", "json"])
def test_recommend_has_status_1_where_nothing_fits(cli, form):
    status, out, err = cli("recommend", "1", "--max-latency", "1ms", "--min-throughput", "30", "--format", form)
    assert (status, err) == (1, "")
    assert out
    if form in ("table", "markdown"):
        assert "With --max-latency 20.1ms instead, resnet18 x unet-basic would meet all limits." in out


def test_export_writes_every_fact_of_the_rows(cli, tmp_path):
    status, out, _ = cli("export-results", "1")
    assert (status, [row["pairing"] for row in rows_of(out)]) == (0, NAMES)
    status, out, err = cli("export-results", "1", "2", "--output", tmp_path / "new/all.json")
    assert (status, out) == (0, "")
    assert "Written to" in err
    facts = json.loads((tmp_path / "new/all.json").read_text())
    assert (len(facts["rows"]), len(facts["runs"])) == (6, 2)


def test_export_writes_parquet_with_the_same_columns_whatever_was_measured(cli, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    for run in (1, 3):
        assert cli("export-results", run, "--output", tmp_path / f"{run}.parquet")[0] == 0
    first, second = (parquet.read_table(tmp_path / f"{run}.parquet") for run in (1, 3))
    assert first.column("pairing").to_pylist() == NAMES
    assert second.column("error").to_pylist() == [None, "ValueError: [bold]no[/nope]", None]
    assert first.schema.equals(second.schema)
    expected = [float(row["latency_ms"]) for row in rows_of(cli("export-results", 1)[1])]
    assert first.column("latency_ms").to_pylist() == expected
    facts = json.loads(first.schema.metadata[b"zoo"])
    assert facts["runs"][0]["environment"]["device_name"] == "Abacus 3000"


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_export_writes_the_raw_samples(cli, tmp_path, form):
    path = tmp_path / f"samples.{form}"
    assert cli("export-results", "2", "--samples", "--output", path)[0] == 0
    if form == "csv":
        samples = rows_of(path.read_text())
    elif form == "json":
        samples = json.loads(path.read_text())
    else:
        samples = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
    assert list(samples[0]) == ["run", "key", "pairing", "role", "group", "round", "seconds", "busy_seconds"]
    assert len(samples) == 4 * 20
    assert {(sample["pairing"], sample["role"]) for sample in samples} == {
        ("peer", "baseline"),
        (BASIC, "candidate"),
        (BILINEAR, "candidate"),
        ("peer", "control"),
    }
    assert {int(sample["round"]) for sample in samples} == set(range(20))
    assert all(float(sample["busy_seconds"]) > float(sample["seconds"]) > 0 for sample in samples)


def test_without_pyarrow_the_error_says_how_to_install_it(cli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "kept.parquet").write_text("precious")
    status, _, err = cli("export-results", "1", "--output", tmp_path / "kept.parquet")
    assert status == 2
    assert "pip install 'segmentation-zoo[parquet]'" in err
    assert (tmp_path / "kept.parquet").read_text() == "precious"


@pytest.mark.parametrize(
    "arguments",
    [
        ("export-results", "9", "--output"),
        ("export-results", "1", "--format", "xml", "--output"),
        ("table", "9", "--output"),
        ("table", "1", "--where", "latenzy<2", "--output"),
        ("table", "1", "--where", "latency<1us", "--output"),
        ("table", "1", "--columns", "latenzy", "--output"),
        ("compare", "1", "9", "--output"),
        ("compare", "1", "2", "--fail-if-slower", "x", "--output"),
    ],
)
def test_a_mistake_neither_changes_a_file_nor_leaves_one(cli, tmp_path, arguments):
    (tmp_path / "kept.csv").write_text("precious")
    for name in ("kept.csv", "new/other.csv"):
        assert cli(*arguments, tmp_path / name)[0] in (1, 2)
    assert (tmp_path / "kept.csv").read_text() == "precious"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.csv"]


@pytest.mark.parametrize("output", ["loop", "long" * 70, "loop/within"], ids=["loop", "long", "in-loop"])
@pytest.mark.parametrize(("command", "suffix"), [("table", ".csv"), ("export-results", ".csv"), ("report", ".html")])
def test_an_output_that_no_file_can_have_is_told(cli, tmp_path, command, suffix, output):
    place = tmp_path / f"{output}{suffix}"
    (tmp_path / "loop").symlink_to("loop")
    if output == "loop":
        place.symlink_to(place.name)
    status, out, err = cli(command, "1", "--output", place)
    assert (status, out) == (2, "")
    assert "cannot be written: " in err
    assert sum(1 for _ in tmp_path.iterdir()) == (2 if output == "loop" else 1)


def test_an_export_replaces_a_file_whole_and_leaves_nothing_beside_it(cli, tmp_path):
    (tmp_path / "kept.csv").write_text("old" * 100_000)
    (tmp_path / "link.csv").symlink_to(tmp_path / "kept.csv")
    assert cli("export-results", "1", "--output", tmp_path / "link.csv")[0] == 0
    assert len(rows_of((tmp_path / "kept.csv").read_text())) == 3
    assert {path.name for path in tmp_path.iterdir()} == {"kept.csv", "link.csv"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["runs", "--store", "absent.sqlite"], "There is no results store absent.sqlite"),
        (["table", "--store", "absent.sqlite"], "There is no results store absent.sqlite"),
        (["table", "nihgtly"], "Did you mean 'nightly'"),
        (["table", "1", "--where", "latenzy<2"], "Did you mean 'latency'"),
        (["table", "1", "--where", "latency<2MiB"], "ms"),
        (["table", "1", "--sort", "-latenzy"], "Did you mean 'latency'"),
        (["table", "1", "--columns", "latenzy"], "Did you mean 'latency'"),
        (["table", "1", "--pareto", "latency,quality"], "quality is not measured in these rows (run 1)"),
        (["table", "1", "--output", "table.xyz"], "suffix"),
        (["table", "1", "--output", ".", "--format", "csv"], "directory"),
        (["table", "7" * 5000], "has no run"),
        (["table", "¹"], "has no run"),
        (["table", "1", "--where", f"batch>{'7' * 5000}"], "batch cannot be"),
        (["table", "1", "--where", f"size={'7' * 5000}"], "a size must be HEIGHTxWIDTH"),
        (["table", "1", "--where", f"run={'7' * 5000}"], "run cannot be"),
        (["compare", "1", "2", "--fail-if-slower", f"{'7' * 5000}%"], "--fail-if-slower"),
        (["recommend", "1", "--size", "7" * 5000], "256x320"),
        (["recommend", "1", "--batch", "7" * 5000], "--batch"),
        (["compare", "1"], "RUN_B"),
        (["compare", "1", "1"], "Both are run 1"),
        (["compare", "1", "2", "--by", "hand"], "latency"),
        (["compare", "1", "2", "--fail-if-slower", "5"], "such as 5% or 0.05"),
        (["compare", "1", "2", "--fail-if-slower", "-5%"], "such as 5% or 0.05"),
        (["compare", "1", "2", "--fail-if-slower", "much"], "--fail-if-slower"),
        (["recommend", "1", "--max-latency", "20MiB"], "--max-latency 20MiB: latency cannot be '20MiB'"),
        (["recommend", "1", "--min-quality", "0.7"], "quality is not measured"),
        (["recommend", "1", "--batch", "8"], "measured: 1."),
        (["recommend", "1", "--batch", "0"], "--batch"),
        (["recommend", "1", "--size", "large"], "256x320"),
        (["recommend", "1", "--mode", "training"], "measured: inference."),
        (["export-results", "1", "--format", "parquet"], "--output FILE.parquet"),
        (["export-results", "1", "--output", "rows.md"], ".csv, .json, .parquet"),
        (["export-results", "1", "--output", ".", "--format", "csv"], "directory"),
        (["export-results", "1", "--output", "results/zoo.sqlite/rows.csv"], "cannot be written"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_2(cli, arguments, told):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("Error") == 1
    assert "Traceback" not in err


def test_samples_of_a_run_that_has_none_are_told(cli, tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        add_run(store, done=0, finish=False)
    status, _, err = cli("export-results", "--samples", "--store", tmp_path / "zoo.sqlite")
    assert status == 2
    assert "There are no samples in run 1" in err


@pytest.mark.parametrize("command", ["runs", "table", "compare", "recommend", "export-results"])
def test_every_command_has_a_help_of_its_own(cli, command):
    status, out, _ = cli(command, "--help")
    assert status == 0
    assert f"zoo {command}" in out
    assert "--store" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs",),
        ("table", "1"),
        ("compare", "1", "2"),
        ("recommend", "1"),
        ("export-results", "1"),
        ("export-results", "--samples"),
    ],
)
def test_reading_results_does_not_import_torch(folder, arguments):
    code = "import sys, zoo.cli\ntry: zoo.cli.main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, check=False)
    assert (done.returncode, done.stderr) == (0, "False\n")


READING = [
    ("runs",),
    ("table", "1"),
    ("table", "1", "-f", "json"),
    ("compare", "1", "2"),
    ("recommend", "1"),
    ("export-results", "1", "-f", "json"),
    ("export-results", "1", "--samples"),
    ("report", "1"),
]
MALFORMED = [
    ("run", "config", "[]"),
    ("run", "config", "{"),
    ("run", "environment", "7"),
    ("run", "config", '{"rounds": 0}'),
    ("run", "config", '{"rounds": "x"}'),
    ("run", "environment", "{}"),
    ("run", "environment", '{"device": 3}'),
    ("run", "environment", '{"device": "cpu", "device_name": "a", "threads": 2, "versions": []}'),
    ("run", "environment", "[" * 10_000),
    ("run", "name", b"\xff\x00"),
    ("run", "started", b"7"),
    ("run", "finished", b"7"),
    ("trial", "error", b"\xff"),
    ("trial", "failure", "of another kind"),
    ("trial", "facts", "{}"),
    ("trial", "facts", "[1]"),
    ("trial", "facts", "\x1b[31m"),
    ("trial", "cost", '{"unknown": 3}'),
    ("trial", "cost", '{"parameters": "7", "flops": 1, "live_bytes": 1}'),
    ("trial", "cost", '{"parameters": 7, "flops": 1e999, "live_bytes": 1}'),
    ("trial", "cost", b"{}"),
    ("trial", "cold_start", '{"seconds": "x"}'),
    ("trial", "cold_start", '{"first_seconds": NaN}'),
    ("trial", "smaller_batch", '{"batch": 1}'),
    ("trial", "notes", "3"),
    ("environment", "facts", '{"device": "cpu", "device_name": "a", "threads": 2}'),
    ("trial_group", "trials", "7"),
    ("trial_group", "stopped", "NaN"),
    ("round", "conditions", "[[]]"),
    ("round", "conditions", '{"load": "much"}'),
    ("rate", "flops_per_second", "fast"),
    ("quality", "result", '{"scores": {"miou": "good"}}'),
    ("sample", "seconds", "text"),
    ("sample", "seconds", -1.0),
    ("sample", "busy_seconds", b"x"),
]


@pytest.fixture
def store_of_two(tmp_path):
    path = tmp_path / "zoo.sqlite"
    with closing(Store(path)) as store:
        run = add_run(store)
        add_run(store)
        store.add_rate(
            run, store.environment_id(run, ENVIRONMENT), KernelRate(kernel="a", dtype="float32", flops_per_second=1e9)
        )
        store.add_quality(run, "majority class", 0, {"scores": {"miou": 0.5, "iou": [0.5, None]}})
    return path


@pytest.mark.parametrize(("table", "column", "value"), MALFORMED)
def test_malformed_facts_of_a_store_are_one_error(store_of_two, cli, table, column, value):
    with closing(sqlite3.connect(store_of_two)) as database:
        database.execute(f"UPDATE {table} SET {column} = ?", (value,))
        database.commit()
    outcomes = [cli(*arguments, "--store", store_of_two) for arguments in READING]
    assert any(status == 2 for status, _, _ in outcomes)
    for status, _, errors in outcomes:
        assert status in (0, 2)
        assert status == 0 or re.search(rf"{store_of_two}: run [12] contains values that cannot be read", errors), errors
        assert "\x1b" not in errors


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("sample.seconds", float("inf")),
        ("sample.busy_seconds", -float("inf")),
        ("sample.seconds", 1e308),
        ("trial.cost", '{"parameters": 3, "flops": Infinity, "live_bytes": NaN}'),
    ],
)
def test_infinite_values_make_no_invalid_json(store_of_two, cli, column, value):
    table, _, name = column.partition(".")
    with closing(sqlite3.connect(store_of_two)) as database:
        database.execute(f"UPDATE {table} SET {name} = ?", (value,))
        database.commit()

    def refuse(constant):
        raise AssertionError(constant)

    for arguments in (("export-results", "1"), ("export-results", "1", "--samples"), ("table", "1"), ("recommend", "1")):
        status, shown, errors = cli(*arguments, "-f", "json", "--store", store_of_two)
        assert status in (0, 1, 2)
        assert status or json.loads(shown, parse_constant=refuse)
        assert status != 2 or "cannot be read" in errors


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_store_in_a_place_that_cannot_be_written_to_is_read(store_of_two, cli):
    store_of_two.parent.chmod(0o555)
    store_of_two.chmod(0o444)
    try:
        for arguments in (("runs",), ("table", "1")):
            status, shown, _ = cli(*arguments, "--store", store_of_two)
            assert status == 0
            assert shown
    finally:
        store_of_two.parent.chmod(0o755)


def test_table_explains_its_columns_on_request(cli):
    _, plain, _ = cli("table")
    _, explained, _ = cli("table", "--legend")
    assert "below 1 is faster" not in plain
    assert "below 1 is faster" in explained

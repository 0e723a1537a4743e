"""Runs and rows as a reader asks for them: by name, by condition, sorted, and the Pareto-optimal ones."""

from __future__ import annotations

import operator
import re
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_stores import BASIC, BILINEAR, COSTS, SECONDS, add_run
from report_tables import quality

from zoo.benchmark.analysis.conditions import explain_no_match, filter_rows, parse_conditions
from zoo.benchmark.analysis.facts import FACTS
from zoo.benchmark.analysis.pareto import pareto_rows
from zoo.benchmark.analysis.selection import select_rows, select_runs, sort_rows
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.columns import COLUMNS, column_named
from zoo.benchmark.table.table import table_of
from zoo.common.statistics import Estimate
from zoo.errors import OptionError, StoreError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with closing(Store(tmp_path_factory.mktemp("results") / "zoo.sqlite")) as opened:
        add_run(opened, name="nightly", modes=["inference", "training"], batch=[1, 4])
        add_run(opened, name="2024", seconds=SECONDS | {BILINEAR: 0.0101}, size=[64, [32, 96]])
        add_run(opened, name="nightly", failed={BASIC: "RuntimeError: no"}, finish=False, done=3)
        yield opened


@pytest.fixture(scope="module")
def table(store):
    return table_of(store, 1, 2, 3)


@pytest.fixture(scope="module")
def plain(store):
    """A row to make others of."""
    return table_of(store, 1).rows[1]


def select(table, conditions):
    return select_rows(table, filter_rows(table.rows, parse_conditions(conditions)))


def front(table, names):
    return select_rows(table, pareto_rows(table.rows, names))


def names(table):
    return [row.name for row in table.rows]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ([], (3,)),
        (["latest"], (3,)),
        (["1"], (1,)),
        (["nightly"], (3,)),
        (["2024"], (2,)),
        (["1", "2024", "nightly"], (1, 2, 3)),
        (["2", "1", "2024"], (2, 1)),
    ],
)
def test_a_run_is_chosen_by_its_number_its_name_or_as_the_latest(store, asked, found):
    assert select_runs(store, asked) == found


@pytest.mark.parametrize(
    ("asked", "told"), [("nightlly", "Did you mean 'nightly'"), ("4", "no run '4'"), ("-1", "no run '-1'")]
)
def test_an_unknown_run_is_told_with_all_that_there_are(store, asked, told):
    with pytest.raises(StoreError) as raised:
        select_runs(store, ["1", asked])
    message = str(raised.value)
    assert told in message
    assert all(f"{run.id}  {run.name}  started {run.started}" in message for run in store.runs())


def test_of_many_runs_an_error_lists_the_latest(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        for number in range(15):
            add_run(store, name=f"run-{number}", rounds=20, done=0)
        with pytest.raises(StoreError, match="3 earlier runs; `zoo runs` lists all") as raised:
            select_runs(store, ["none"])
    assert "run-14" in str(raised.value)
    assert "run-2 " not in str(raised.value)


def test_an_empty_store_has_no_latest_run(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store, pytest.raises(StoreError, match="contains no run yet"):
        select_runs(store)


def everything(row):
    return True


@pytest.mark.parametrize(
    ("condition", "meets"),
    [
        ("latency<20.5ms", lambda row: row.latency and row.latency.median < 0.0205),
        ("latency < 20.5", lambda row: row.latency and row.latency.median < 0.0205),
        ("latency<20500us", lambda row: row.latency and row.latency.median < 0.0205),
        ("latency>=0.0205s", lambda row: row.latency and row.latency.median >= 0.0205),
        ("latency=20", lambda row: row.latency and round(row.latency.median * 1e3) == 20),
        ("memory<=100", lambda row: row.peak_bytes <= 100 * 2**20),
        ("memory>0.1GiB", lambda row: row.peak_bytes > 0.1 * 2**30),
        ("parameters<13M", lambda row: row.parameters < 13e6),
        ("parameters==14", lambda row: row.parameters == 14_000_000),
        ("flops!=3", lambda row: row.flops != 3 * 10**9),
        ("flops<3.5G", lambda row: row.flops < 3.5e9),
        ("throughput>100", lambda row: row.images_per_second and row.images_per_second > 100),
        ("ratio<150%", lambda row: row.ratio and row.ratio.median < 1.5),
        ("batch=4", lambda row: row.batch == 4),
        ("batch!=4", lambda row: row.batch != 4),
        ("run=2", lambda row: row.run == 2),
        ("size=64", lambda row: (row.height, row.width) == (64, 64)),
        ("size!=64x64", lambda row: (row.height, row.width) != (64, 64)),
        ("size~32x*", lambda row: row.height == 32),
        ("size<64", lambda row: row.height * row.width < 64 * 64),
        ("size>=32x96", lambda row: row.height * row.width >= 32 * 96),
        ("mode=training", lambda row: row.mode == "training"),
        ("decoder~BILIN", lambda row: row.decoder == "unet-bilinear"),
        ("decoder~*bilin", lambda row: False),
        ("pairing~*x unet-*", lambda row: " x unet-" in row.name),
        ("pairing='resnet18 x unet-basic'", lambda row: row.name == BASIC),
        ('pairing = "resnet18 x unet-basic"', lambda row: row.name == BASIC),
        ("encoder=none", lambda row: not row.encoder),
        ("encoder!=none", lambda row: row.encoder),
        ("encoder!=other", lambda row: row.encoder),
        ("device_name~abacus", everything),
        ("device=cuda", lambda row: False),
        ("role=baseline", lambda row: row.role == "baseline"),
        ("failure=error", lambda row: row.failure == "error"),
        ("failure!=none", lambda row: row.failure),
        ("failure~*", lambda row: row.failure),
        ("tie=yes", lambda row: not row.is_baseline and row.ratio and row.ratio.is_tie),
        ("tie=no", lambda row: not row.is_baseline and row.ratio and not row.ratio.is_tie),
        ("tie!=no", lambda row: not row.is_baseline and row.ratio and row.ratio.is_tie),
        ("quality>0", lambda row: False),
        ("quality!=0", lambda row: False),
        ("quality=none", everything),
        (
            "mode=training and batch=4 and latency<90ms",
            lambda row: row.mode == "training" and row.batch == 4 and row.name != BILINEAR,
        ),
    ],
)
def test_a_condition_keeps_the_rows_that_meet_it(table, condition, meets):
    assert select(table, [condition]).rows == tuple(row for row in table.rows if meets(row))


def test_several_conditions_all_hold_and_none_keeps_everything(table):
    both = select(table, ["batch=1", "mode=inference and run=1"])
    assert both.rows == tuple(row for row in table.rows if (row.batch, row.mode, row.run) == (1, "inference", 1))
    assert select(table, []) == table


def test_what_is_left_keeps_its_run_and_its_checks_alone(table):
    kept = select(table, ["run=1 and mode=training and batch=4"])
    assert [run.id for run in kept.runs] == [1]
    assert {check.block for check in kept.checks} == {row.block for row in kept.rows}
    assert len(table.checks) > len(kept.checks) == 1
    nothing = select(table, ["batch=5"])
    assert (nothing.rows, nothing.runs) == ((), table.runs)


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("latenzy<20", "no column 'latenzy'. Did you mean 'latency'?"),
        ("encodr=x", "Did you mean 'encoder'?"),
        ("latency", "NAME OP VALUE"),
        ("latency<", "NAME OP VALUE"),
        ("<20", "NAME OP VALUE"),
        ("", "NAME OP VALUE"),
        ("latency<20MiB", "us µs ms s. A number without a unit is in ms"),
        ("latency<fast", "latency cannot be 'fast'"),
        ("latency<nan", "latency cannot be 'nan'"),
        ("memory<20M", "MiB"),
        ("batch<4ms", "without a unit"),
        ("latency~2*", "for latency (a number), the operator must be one of = != < <= > >=; found ~"),
        ("mode<training", "for mode (text), the operator must be one of = != ~; found <"),
        ("tie=perhaps", "tie must be yes or no"),
        ("tie<yes", "for tie (yes or no), the operator must be one of = !="),
        ("size<large", "HEIGHTxWIDTH"),
    ],
)
def test_a_condition_that_cannot_be_read_says_what_can(table, condition, told):
    with pytest.raises(OptionError, match="--where") as raised:
        select(table, [condition])
    assert told in str(raised.value)


def test_where_no_row_is_left_each_condition_says_why(table):
    told = explain_no_match(
        table.rows, parse_conditions(["latency<1ms and mode=inference", "decoder=unet", "quality>0.5", "tie=no"])
    )
    lines = told.splitlines()
    assert f"Of the {len(table.rows)} rows" in lines[0]
    assert re.search(r"latency<1ms: none meets it; latency ranges from [\d.]+ms to [\d.]+ms", lines[1])
    assert lines[2] == f"  mode=inference: {sum(row.mode == 'inference' for row in table.rows)} meet it"
    assert lines[3].endswith("decoder is one of: unet-basic, unet-bilinear")
    assert lines[4].endswith("no row has a value of quality")


def test_every_column_can_be_named_and_has_the_unit_of_its_heading(table):
    for column in COLUMNS:
        select(table, [f"{column.name}=none"])
        sort_rows(table.rows, column.name)
    for name, text, value in [
        ("latency", "20", 0.02),
        ("p90", "20", 0.02),
        ("busy", "20", 0.02),
        ("build", "2", 2.0),
        ("first", "2ms", 0.002),
        ("memory", "1", 2**20),
        ("rss", "1kB", 1000),
        ("parameters", "1.5", 1.5e6),
        ("parameters", "200k", 2e5),
        ("flops", "2", 2e9),
        ("flops", "2TFLOPs", 2e12),
        ("efficiency", "30", 0.3),
        ("quality", "70%", 0.7),
        ("quality", ".7", 0.7),
        ("throughput", "3e1", 30),
    ]:
        fact = FACTS[name]
        assert fact.parse(text, name)[0] == pytest.approx(value)
        assert fact.parse(fact.format(value), name)[0] == pytest.approx(value)


@given(
    st.floats(min_value=1e-6, max_value=1e6),
    st.sampled_from(["latency", "memory", "parameters", "flops", "ratio", "efficiency"]),
)
def test_a_formatted_number_reads_as_what_it_was(value, name):
    fact = FACTS[name]
    assert fact.parse(fact.format(value), name)[0] == pytest.approx(value, rel=1e-5)


def test_rows_are_sorted_by_a_column_either_way_with_the_unknown_last(table):
    up, down = ([row.latency and row.latency.median for row in sort_rows(table.rows, name)] for name in ("latency", "-latency"))
    known = [value for value in up if value is not None]
    assert len(known) == len(table.rows) - 1
    assert up == [*sorted(known), None]
    assert down == [*sorted(known, reverse=True), None]


def test_rows_are_sorted_by_several_columns_the_first_counting_most(table):
    rows = sort_rows(table.rows, "mode, -batch,pairing")
    assert [(row.mode, -row.batch, row.name) for row in rows] == sorted((row.mode, -row.batch, row.name) for row in table.rows)
    assert sort_rows(table.rows, "encoder")[-1].encoder == ""
    assert set(rows) == set(table.rows)


@pytest.mark.parametrize("name", ["latenzy", "-latenzy", "mode,latenzy", ""])
def test_an_unknown_column_to_sort_by_is_told(table, name):
    with pytest.raises(OptionError, match="--sort: there is no column"):
        sort_rows(table.rows, name)


def test_pareto_keeps_what_no_other_of_the_same_block_beats(table):
    kept = front(table, "latency,parameters")
    assert set(names(select(kept, ["run=1"]))) == {"peer"}
    pairings = front(select(table, ["encoder!=none"]), "latency, parameters")
    assert names(select(pairings, ["run=1 and batch=1 and mode=inference"])) == [BASIC, BILINEAR]
    assert set(names(select(pairings, ["run=2"]))) == {BILINEAR}
    assert names(select(pairings, ["run=3"])) == [BILINEAR]


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("latency,quality", "quality is not measured in these rows (run 1, 2, 3). Leave this column out"),
        ("latency,mode", "'mode' is not a column that ranks rows"),
        ("latensy", "Did you mean 'latency'?"),
        ("", "there is no column ''"),
    ],
)
def test_an_objective_that_cannot_be_one_is_told(table, named, told):
    with pytest.raises(OptionError, match="--pareto") as raised:
        front(table, named)
    assert told in str(raised.value)


def test_no_row_with_every_objective_is_told(table, plain):
    rows = (replace(plain, quality=quality(0.5), latency=None), plain)
    with pytest.raises(OptionError, match="no row has a value in every one of these columns: latency,quality"):
        front(replace(table, rows=rows), "latency,quality")


VALUES = st.sampled_from([1, 2, 3, 4, 5, 1, 2, 3, 4, None])
FAILED = st.sampled_from([False, False, False, True])


@given(st.lists(st.tuples(st.sampled_from([1, 2]), VALUES, VALUES, VALUES, FAILED), min_size=1, max_size=12))
def test_no_kept_row_is_beaten_and_every_dropped_one_is_or_lacks_a_value(table, plain, facts):
    rows = tuple(
        replace(
            plain,
            batch=batch,
            latency=latency and Estimate(median=latency, low=latency, high=latency),
            parameters=parameters,
            quality=score and quality(score),
            failure="error" if failed else None,
        )
        for batch, latency, parameters, score, failed in facts
    )
    objectives = {"latency": operator.le, "parameters": operator.le, "quality": operator.ge}

    def costs(row):
        return {name: column_named(name).value(row) for name in objectives}

    def counts(row):
        return row.failure is None and None not in costs(row).values()

    def beats(one, other):
        mine, theirs = costs(one), costs(other)
        return (
            one.block == other.block
            and mine != theirs
            and all(at_least(mine[name], theirs[name]) for name, at_least in objectives.items())
        )

    counted = [row for row in rows if counts(row)]
    if not counted:
        with pytest.raises(OptionError):
            front(replace(table, rows=rows), "latency,parameters,quality")
        return
    kept = front(replace(table, rows=rows), "latency,parameters,quality").rows
    assert all(counts(row) for row in kept)
    for row in counted:
        assert (row in kept) is not any(beats(other, row) for other in counted)
        assert any(other == row or beats(other, row) for other in kept)


def test_a_control_and_what_it_costs_stand_in_no_table(table):
    assert {row.role for row in table.rows} == {"baseline", "candidate"}
    assert {row.parameters for row in table.rows} == {cost.parameters for cost in COSTS.values()}


def test_a_calibration_is_not_the_latest_run_unless_it_is_the_only_one(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        add_run(store, name="zoo calibrate", rounds=20, done=0)
        assert select_runs(store) == (1,)
        add_run(store, name="mine", rounds=20, done=0)
        add_run(store, name="zoo calibrate", rounds=20, done=0)
        assert select_runs(store) == (2,)
        assert select_runs(store, ["zoo calibrate"]) == (3,)

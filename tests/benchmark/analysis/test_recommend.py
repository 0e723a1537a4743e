"""What to choose within limits: promises that hold, what limits the choice, and what is said where nothing fits."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_stores import BASIC, BILINEAR, SECONDS, add_run
from report_tables import quality

from zoo.benchmark.analysis.facts import FACTS
from zoo.benchmark.analysis.recommend import LIMITS, loosen, parse_limit, recommend
from zoo.benchmark.analysis.recommend_document import document
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of
from zoo.common.rendering import plain_text
from zoo.common.statistics import Estimate
from zoo.errors import OptionError

MIB = 2**20


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with closing(Store(tmp_path_factory.mktemp("results") / "zoo.sqlite")) as opened:
        add_run(opened, name="both", modes=["inference", "training"], batch=[1, 4])
        add_run(opened, name="training", modes=["training"])
        add_run(opened, name="failing", failed={BASIC: "ValueError: no", BILINEAR: "ValueError: no", "peer": "ValueError: no"})
        yield opened


@pytest.fixture(scope="module")
def table(store):
    return table_of(store, 1)


def picks(recommendation):
    return [[pick.row.name for pick in choice.picks] for choice in recommendation.choices]


def text_of(recommendation):
    return " ".join(str(document(recommendation)).split())


def test_without_limits_all_that_no_other_beats_are_picked_block_by_block(table):
    found = recommend(table)
    assert picks(found) == [[BASIC, BILINEAR]] * 2
    assert [choice.block[1:3] for choice in found.choices] == [("inference", 1), ("inference", 4)]
    assert [pick.best_in for pick in found.choices[0].picks] == [("fastest",), ("least memory", "fewest parameters")]
    assert "zoo.build('resnet18', 'unet-basic')" in str(document(found))
    assert "peer" not in str(document(found))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"max_latency": "25ms"}, [BASIC]),
        ({"max_memory": "150MiB"}, [BILINEAR]),
        ({"max_parameters": "13M"}, [BILINEAR]),
        ({"max_flops": "3.5G"}, [BILINEAR]),
        ({"min_throughput": "40"}, [BASIC]),
        ({"max_latency": "0.05s", "max_memory": "500MiB"}, [BASIC, BILINEAR]),
    ],
)
def test_a_limit_leaves_those_that_keep_it(table, limits, expected):
    found = recommend(table, batch=1, **limits)
    assert picks(found) == [expected]
    assert found.fits


def test_a_limit_must_hold_for_the_unfavorable_end_of_the_interval(table):
    row = next(row for row in table.rows if row.name == BASIC)
    wide = replace(row, latency=Estimate(median=0.020, low=0.015, high=0.026))
    noisy = replace(table, rows=(wide,))
    assert recommend(noisy, max_latency="26ms").fits
    assert not recommend(noisy, max_latency="25.9ms").fits
    assert recommend(noisy, min_throughput="38.4615").fits
    assert not recommend(noisy, min_throughput="38.4616").fits


def test_latencies_whose_intervals_overlap_are_a_tie(table):
    rows = [row for row in table.rows if row.block == table.rows[0].block and row.code]
    close = [
        replace(row, latency=Estimate(median=ms, low=0.9 * ms, high=1.1 * ms)) for row, ms in zip(rows, (10, 11), strict=True)
    ]
    found = recommend(replace(table, rows=tuple(close)))
    assert [pick.best_in for pick in found.choices[0].picks] == [
        ("fastest (tie)",),
        ("fastest (tie)", "least memory", "fewest parameters"),
    ]


def test_quality_is_an_objective_where_it_is_measured_and_missed_where_it_is_not(table):
    assert "this recommendation is about cost alone" in text_of(recommend(table))
    better = replace(table, rows=tuple(replace(row, quality=quality(0.8 if row.name == BASIC else 0.7)) for row in table.rows))
    found = recommend(better, batch=1, min_quality="0.75")
    assert picks(found) == [[BASIC]]
    assert "best quality" in found.choices[0].picks[0].best_in
    assert "this recommendation is about cost alone" not in text_of(found)
    with pytest.raises(OptionError, match=r"--min-quality 0\.75: quality is not measured in these runs"):
        recommend(table, min_quality="0.75")


def test_the_best_quality_comes_first_and_of_those_that_seeds_cannot_tell_apart_the_fastest(table):
    scores = {BASIC: (0.70, 0.71, 0.72), BILINEAR: (0.84, 0.80, 0.85), "peer": (0.1, 0.1, 0.1)}

    def with_scores(scores):
        return replace(table, rows=tuple(replace(row, quality=quality(*scores[row.name])) for row in table.rows))

    found = recommend(with_scores(scores), batch=1, maximize="miou")
    assert picks(found) == [[BILINEAR, BASIC]]
    assert "best quality" in found.choices[0].picks[0].best_in
    assert picks(recommend(with_scores(scores), batch=1)) == [[BASIC, BILINEAR]]
    tied = recommend(with_scores(scores | {BASIC: (0.80, 0.84, 0.80)}), batch=1, maximize="miou")
    assert picks(tied) == [[BASIC, BILINEAR]]
    assert all("best quality (tie)" in pick.best_in for pick in tied.choices[0].picks)
    assert "seeds cannot tell the qualities apart" in text_of(tied)


@pytest.mark.parametrize(
    ("maximize", "told"), [("miou", "quality is not measured in these runs"), ("moiu", "Did you mean 'miou'")]
)
def test_what_cannot_be_maximized_is_told(table, maximize, told):
    with pytest.raises(OptionError, match=told):
        recommend(table, maximize=maximize)


def test_an_unknown_limit_names_the_one_that_was_meant(table):
    with pytest.raises(OptionError, match=r"There is no limit 'max_latancy'\. Did you mean 'max_latency'"):
        recommend(table, max_latancy="20ms")


def test_each_limit_says_how_many_it_excludes_and_what_a_looser_one_would_let_in(table):
    found = recommend(table, batch=1, max_latency="25ms", max_memory="250MiB")
    latency, memory = found.choices[0].exclusions
    assert (latency.missed, latency.alone, latency.nearest.name) == (1, 1, BILINEAR)
    assert (memory.missed, memory.alone, memory.nearest) == (0, 0, None)
    assert "--max-latency 25ms excludes 1 of 2, 1 of them by itself. With --max-latency 30.1ms instead" in text_of(found)
    assert "--max-memory 250MiB excludes none." in text_of(found)


def test_where_nothing_fits_each_limit_says_what_comes_closest(table):
    found = recommend(table, batch=1, max_latency="5ms", max_memory="20MiB")
    assert not found.fits
    assert picks(found) == [[]]
    assert {exclusion.limit.fact.name: exclusion.nearest.name for exclusion in found.choices[0].exclusions} == {
        "latency": BASIC,
        "memory": BILINEAR,
    }
    told = text_of(found)
    assert "No suitable pairing with --max-latency 5ms --max-memory 20MiB" in told
    assert "Closest is resnet18 x unet-bilinear: it meets --max-memory 100MiB, but misses --max-latency 5ms too." in told


def test_a_reference_is_no_pairing_and_stands_where_nothing_else_fits(table):
    found = recommend(table, batch=1, max_latency="15ms")
    assert picks(found) == [["peer"]]
    assert not found.fits
    assert "a reference, to compare pairings with" in text_of(found)
    assert "With --max-latency 20.1ms instead, resnet18 x unet-basic would meet all limits." in text_of(found)


def test_failed_rows_are_never_picked_but_told(store, tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as other:
        add_run(other, failed={BASIC: "ValueError: no"})
        found = recommend(table_of(other, 1))
    assert picks(found) == [[BILINEAR]]
    assert "1 pairing(s) failed and are not counted" in text_of(found)
    with pytest.raises(OptionError, match="None of the 3 selected rows was measured"):
        recommend(table_of(store, 3))


def test_rows_that_lack_an_objective_are_left_out_and_named(table):
    rows = [replace(row, live_bytes=None) if row.name == BASIC else row for row in table.rows]
    found = recommend(replace(table, rows=tuple(rows)), batch=1)
    assert picks(found) == [[BILINEAR]]
    assert "Left out, because a value of latency, memory, parameters is missing: resnet18 x unet-basic." in text_of(found)
    limited = recommend(replace(table, rows=tuple(rows)), batch=1, max_memory="500MiB")
    assert limited.choices[0].exclusions[0].unknown == 1
    assert "excludes 1 of 2 (1 without a value)" in text_of(limited)
    each = [replace(row, live_bytes=None) if row.name == BASIC else replace(row, parameters=None) for row in table.rows]
    assert picks(recommend(replace(table, rows=tuple(each)), batch=1)) == [[BASIC]]


@pytest.mark.parametrize(
    ("asked", "blocks"),
    [
        ({"mode": "training"}, [("training", 1), ("training", 4)]),
        ({"batch": 4}, [("inference", 4)]),
        ({"size": (64, 64), "batch": 1}, [("inference", 1)]),
        ({"dtype": "float32", "batch": 1}, [("inference", 1)]),
        ({"device": "cpu", "batch": 1}, [("inference", 1)]),
        ({"device": "abacus", "batch": 1}, [("inference", 1)]),
    ],
)
def test_blocks_are_chosen_by_what_they_are(table, asked, blocks):
    assert [choice.block[1:3] for choice in recommend(table, **asked).choices] == blocks


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"batch": 8}, "--batch 8 was not measured in these runs; measured: 1, 4."),
        ({"size": (32, 64)}, "--size 32x64 was not measured in these runs; measured: 64x64."),
        ({"dtype": "bfloat16"}, "measured: float32."),
        ({"device": "cuda"}, "measured: cpu (Abacus 3000)."),
    ],
)
def test_what_was_not_measured_is_told_with_what_was(table, asked, told):
    with pytest.raises(OptionError) as raised:
        recommend(table, **asked)
    assert told in str(raised.value)


def test_a_run_of_training_alone_says_so(store):
    with pytest.raises(OptionError, match="--mode inference was not measured in these runs; measured: training"):
        recommend(table_of(store, 2))


def test_runs_are_not_ranked_against_each_other(store):
    found = recommend(table_of(store, 1, 2), mode="training", batch=1)
    assert [choice.block[0] for choice in found.choices] == [1, 2]
    assert "run 2, training, batch 1" in text_of(found)


SHARES = st.floats(min_value=0.2, max_value=3)


@given(st.dictionaries(st.sampled_from([name for name in LIMITS if name != "min_quality"]), SHARES, max_size=3), st.data())
def test_every_pick_keeps_its_promise_and_every_looser_limit_lets_its_row_in(table, shares, data):
    usual = {"max_latency": 0.025, "max_memory": 150 * MIB, "max_parameters": 13e6, "max_flops": 3.5e9, "min_throughput": 40}
    limits = {name: FACTS[LIMITS[name][0]].format(usual[name] * share) for name, share in shares.items()}
    found = recommend(table, batch=1, **limits)
    measured = [row for row in table.rows if row.block == found.choices[0].block and row.code]
    conditions = [parse_limit(name, value) for name, value in limits.items()]
    fitting = {row.name for row in measured if all(limit.meets(row) for limit in conditions)}
    assert found.choices[0].fitting == len(fitting)
    assert found.fits is bool(fitting)
    for pick in found.choices[0].picks if fitting else ():
        assert pick.row.name in fitting
        for limit in conditions:
            bound, _ = limit.fact.parse(limit.value, limit.option)
            assert limit.fact.value(pick.row) <= bound if limit.sign == "<=" else limit.fact.value(pick.row) >= bound
    for exclusion in found.choices[0].exclusions:
        if exclusion.nearest and not exclusion.also_missed:
            option, _, typed = str(loosen(exclusion.limit, exclusion.nearest)).partition(" ")
            name = option.removeprefix("--").replace("-", "_")
            again = recommend(table, batch=1, **(limits | {name: typed}))
            assert again.choices[0].fitting > found.choices[0].fitting


@given(st.floats(min_value=1e-5, max_value=1e3))
def test_a_loosened_limit_is_met_and_hardly_looser_than_need_be(table, seconds):
    row = replace(table.rows[1], latency=Estimate(median=seconds, low=seconds, high=seconds))
    for limit in (parse_limit("max_latency", "1e-6ms"), parse_limit("min_throughput", "1e9")):
        looser = loosen(limit, row)
        assert looser.meets(row)
        assert looser.fact.parse(looser.value, looser.option)[0] == pytest.approx(limit.fact.value(row), rel=0.011)


def test_csv_and_json_hold_the_picks_with_their_code(table):
    found = recommend(table, batch=1, max_latency="25ms")
    (row,) = csv.DictReader(io.StringIO(document(found).render("csv")))
    assert (row["pairing"], row["code"]) == (BASIC, "zoo.build('resnet18', 'unet-basic')")
    facts = json.loads(document(found).render("json"))
    assert (facts["fits"], facts["is_about_cost_alone"], facts["limits"]) == (True, True, {"max_latency": 0.025})
    (choice,) = facts["choices"]
    assert [pick["pairing"] for pick in choice["picks"]] == [BASIC]
    assert (choice["limits"][0]["nearest_pairing"], choice["limits"][0]["missed_alone"]) == (BILINEAR, 1)


def test_where_nothing_fits_csv_has_its_heading_and_json_says_so(table):
    found = recommend(table, batch=1, max_latency="1ms")
    (heading,) = document(found).render("csv").splitlines()
    assert heading == document(recommend(table, batch=1)).render("csv").splitlines()[0]
    facts = json.loads(document(found).render("json"))
    assert (facts["fits"], facts["choices"][0]["picks"]) == (False, [])


@pytest.mark.parametrize("width", [80, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_the_code_is_whole(table, width):
    text = plain_text(document(recommend(table, max_latency="25ms")).view(width), width)
    assert max(map(len, text.splitlines())) <= width
    assert "1. zoo.build('resnet18', 'unet-basic')" in text.splitlines()


def test_markdown_has_the_table_the_code_and_the_limits(table):
    lines = document(recommend(table, batch=1, max_latency="25ms")).render("markdown").splitlines()
    assert any(line.startswith("| 1 | resnet18 x unet-basic |") for line in lines)
    assert "1. `zoo.build('resnet18', 'unet-basic')`" in lines
    assert any(line.startswith("- --max-latency 25ms excludes 1 of 2.") for line in lines)


def test_an_unusual_format_is_part_of_the_name(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        add_run(store, memory_format=["contiguous", "channels_last"], seconds=SECONDS)
        found = recommend(table_of(store, 1))
    assert len(found.choices) == 1
    assert "channels_last" in str(document(found))

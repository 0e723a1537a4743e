"""Two runs side by side: what counts as slower, what cancels, what cannot be compared, and how it is told."""

from __future__ import annotations

import csv
import io
import json
import re
from contextlib import closing
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_stores import BASIC, BILINEAR, COSTS, ENVIRONMENT, PEER, SECONDS, add_run
from rich.console import Console

from zoo.benchmark.analysis.compare import Compared, compare
from zoo.benchmark.analysis.compare_document import document, summary
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import Trial
from zoo.common.rendering import plain_text
from zoo.common.statistics import Estimate
from zoo.errors import OptionError

SLOWER = SECONDS | {BASIC: 0.0225}
HOSTILE = "a|b <script>alert(1)</script> [bold]c[/nope]"


@pytest.fixture
def store(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as opened:
        yield opened


def uncompared(comparison, outcome):
    return [(str(each.trial), each.error) for each in comparison.uncompared if each.outcome == outcome]


def by_name(comparison):
    return {str(each.trial): each for each in comparison.compared}


def test_what_became_slower_is_told_from_what_did_not(store):
    found = compare(store, add_run(store), add_run(store, seconds=SLOWER | {BILINEAR: 0.027}))
    each = by_name(found)
    assert {name: (one.by, one.verdict) for name, one in each.items()} == {
        "peer": ("latency", "tie"),
        BASIC: ("ratio", "slower"),
        BILINEAR: ("ratio", "faster"),
    }
    assert each[BASIC].quotient.median == pytest.approx(22.5 / 20, rel=0.01)
    assert each[BASIC].before.median == pytest.approx(2, rel=0.01)
    assert each[BILINEAR].quotient.high < 0.98
    assert summary(found) == "In run 2: 1 slower, 1 faster."


def test_how_fast_the_machine_was_cancels_in_the_ratio_and_not_in_the_latency(store):
    runs = add_run(store), add_run(store, drift=1.3, seconds=SLOWER)
    ratio, latency = compare(store, *runs), compare(store, *runs, by="latency")
    assert [by_name(ratio)[name].verdict for name in (BASIC, BILINEAR)] == ["slower", "tie"]
    assert {each.verdict for each in latency.compared} == {"slower"}
    assert by_name(latency)[BILINEAR].quotient.median == pytest.approx(1.3, rel=0.01)
    warning = "If the machine was faster in one of the runs, that changes the quotients"
    assert warning in " ".join(document(latency).render("table").split())
    assert warning not in " ".join(document(ratio).render("table").split())


def test_a_reference_that_is_the_baseline_gauges_the_machine_and_is_not_judged(store):
    found = compare(store, add_run(store), add_run(store, drift=1.3))
    assert by_name(found)["peer"].is_gauge
    assert by_name(found)["peer"].verdict == "slower"
    assert "slower, by latency" in document(found).render("table")
    assert summary(found) == "In run 2: 2 tie."
    assert found.slower_than(0.05) == ()
    judged = compare(store, 1, 2, by="latency")
    assert {str(each.trial) for each in judged.slower_than(0.05)} == {"peer", BASIC, BILINEAR}


def test_a_pairing_that_is_the_baseline_is_judged_by_its_latency(store):
    found = compare(store, add_run(store, baseline=None), add_run(store, baseline=None, seconds=SLOWER))
    assert by_name(found)[BASIC].by == "latency"
    assert not by_name(found)[BASIC].is_gauge
    assert [str(each.trial) for each in found.slower_than(0.05)] == [BASIC]


def test_what_is_slower_than_allowed_has_its_whole_interval_above(store):
    found = compare(store, add_run(store), add_run(store, seconds=SLOWER))
    assert [str(each.trial) for each in found.slower_than(0.05)] == [BASIC]
    assert found.slower_than(0.20) == ()
    assert found.slower_than(by_name(found)[BASIC].quotient.low - 1) == ()


@given(st.lists(st.floats(min_value=0.5, max_value=2), min_size=3, max_size=3))
def test_a_verdict_takes_an_interval_outside_the_band_of_ties(ends):
    low, median, high = sorted(ends)
    trial = Trial.from_dict(
        {"subject": {"reference": "peer", "factory": "a:b", "options": {}}, "mode": "inference", "batch": 1, "height": 1}
        | {"width": 1, "dtype": "float32", "input": "image", "classes": 1, "in_channels": 3}
    )
    quotient = Estimate(median=median, low=low, high=high)
    verdict = Compared(trial=trial, by="ratio", before=quotient, after=quotient, quotient=quotient, costs=()).verdict
    assert (verdict == "slower") is (low > 1.02)
    assert (verdict == "faster") is (high < 0.98)


@settings(max_examples=10)
@given(drift=st.floats(min_value=0.3, max_value=3), change=st.sampled_from([0.8, 1.25]))
def test_the_other_way_round_the_verdicts_are_reversed(tmp_path_factory, drift, change):
    with closing(Store(tmp_path_factory.mktemp("results") / "zoo.sqlite")) as store:
        add_run(store)
        add_run(store, drift=drift, seconds=SECONDS | {BASIC: 0.02 * change})
        there, back = (by_name(compare(store, *runs)) for runs in ((1, 2), (2, 1)))
    assert there[BASIC].quotient.median == pytest.approx(1 / back[BASIC].quotient.median)
    assert {there[BASIC].verdict, back[BASIC].verdict} == {"slower", "faster"}
    assert there[BILINEAR].verdict == back[BILINEAR].verdict == "tie"


def test_blocks_are_compared_each_with_its_own(store):
    dimensions = {"modes": ["inference", "training"], "batch": [1, 2]}
    found = compare(store, add_run(store, **dimensions), add_run(store, **dimensions, seconds=SLOWER))
    blocks = list(dict.fromkeys(each.trial.block for each in found.compared))
    assert len(blocks) == 4
    assert [(each.trial.block, str(each.trial)) for each in found.compared] == [
        (block, name) for block in blocks for name in ("peer", BASIC, BILINEAR)
    ]
    assert summary(found) == "In run 2: 4 slower, 4 tie."


def test_a_trial_is_the_same_whether_it_is_the_baseline_or_not(store):
    found = compare(store, add_run(store, baseline=None), add_run(store))
    assert {name: each.by for name, each in by_name(found).items()} == {BASIC: "latency", BILINEAR: "latency"}
    assert uncompared(found, "only after") == [("peer", None)]
    assert "the baselines differ" in found.notes[0]


def test_the_ratio_asked_for_takes_a_shared_baseline(store):
    add_run(store)
    add_run(store, baseline=None)
    add_run(store, failed={"peer": "RuntimeError: gone"})
    with pytest.raises(OptionError, match=r"use --by latency(.|\n)*the baselines differ \(peer, resnet18 x unet-basic\)"):
        compare(store, 1, 2, by="ratio")
    with pytest.raises(OptionError, match="baseline failed or was not measured in run 3"):
        compare(store, 1, 3, by="ratio")
    found = compare(store, 1, 3)
    assert {each.by for each in found.compared} == {"latency"}
    assert "the baseline failed or was not measured in run 3" in document(found).render("table")


def test_failures_that_came_went_or_stayed_are_told(store):
    add_run(store, failed={BASIC: "ValueError: old", BILINEAR: "ValueError: both"})
    add_run(store, failed={"peer": "ValueError: new", BILINEAR: "ValueError: both again"})
    found = compare(store, 1, 2)
    assert uncompared(found, "fails now") == [("peer", "ValueError: new")]
    assert uncompared(found, "failed before") == [(BASIC, "ValueError: old")]
    assert uncompared(found, "fails still") == [(BILINEAR, "ValueError: both again")]
    assert found.compared == ()
    for form in ("table", "markdown"):
        text = document(found).render(form)
        assert "FAILS NOW peer" in text
        assert "1 failing now, 1 no longer failing, 1 failing in both" in text


def test_trials_that_one_run_lacks_or_has_not_measured_are_told(store):
    add_run(store)
    add_run(store, decoders=["unet-basic", "unet-attention"], seconds=SECONDS | {"resnet18 x unet-attention": 0.03})
    add_run(store, unmeasured=[BILINEAR], finish=False)
    found = compare(store, 1, 2)
    assert uncompared(found, "only before") == [(BILINEAR, None)]
    assert uncompared(found, "only after") == [("resnet18 x unet-attention", None)]
    assert "Only in run 1: inference, batch 1, 64x64, float32: resnet18 x unet-bilinear." in document(found).render("table")
    unfinished = compare(store, 1, 3)
    assert uncompared(unfinished, "not measured in both") == [(BILINEAR, None)]
    assert "unfinished" in document(unfinished).render("table")


def test_changed_costs_are_told_where_they_differ(store):
    grown = COSTS | {BASIC: replace(COSTS[BASIC], parameters=14_700_000, live_bytes=300 * 2**20)}
    found = compare(store, add_run(store), add_run(store, costs=grown))
    assert {name: [change.fact for change in each.changes] for name, each in by_name(found).items()} == {
        "peer": [],
        BASIC: ["live_bytes", "parameters"],
        BILINEAR: [],
    }
    for form in ("table", "markdown"):
        assert "live MiB 200.0 -> 300.0 (+50.0 %)" in document(found).render(form)
        assert "params M 14.000 -> 14.700 (+5.0 %)" in document(found).render(form)
        assert "1 with a changed size or cost" in document(found).render(form)


def test_different_devices_are_refused_unless_asked_for(store):
    add_run(store)
    add_run(store, environment=ENVIRONMENT | {"threads": 4})
    add_run(store, environment=ENVIRONMENT | {"device_name": "Slide rule"})
    for other, told in ((2, "Abacus 3000 (cpu, 4 threads)"), (3, "Slide rule (cpu, 2 threads)")):
        with pytest.raises(OptionError, match="--different-devices") as raised:
            compare(store, 1, other)
        assert told in str(raised.value)
        found = compare(store, 1, other, anywhere=True)
        assert len(found.compared) == 3
        assert "Differences: " in document(found).render("table")


def test_on_an_accelerator_the_threads_are_another_machines_detail(store):
    device = ENVIRONMENT | {"device": "cuda", "device_name": "GPU"}
    found = compare(store, add_run(store, environment=device), add_run(store, environment=device | {"threads": 9}))
    assert [(change.fact, change.before, change.after) for change in found.differences] == [("threads", "2", "9")]


def test_other_differences_of_the_environment_are_notes(store):
    newer = ENVIRONMENT | {"versions": ENVIRONMENT["versions"] | {"torch": "2.10.0"}, "commit": "def"}
    found = compare(store, add_run(store), add_run(store, environment=newer))
    assert {change.fact: (change.before, change.after) for change in found.differences} == {
        "torch": ("2.9.0", "2.10.0"),
        "commit": ("abc", "def"),
    }
    assert re.search(r"Differences: .*torch 2.9.0 -> 2.10.0", document(found).render("table"))


@pytest.mark.parametrize(("controls", "told"), [((1.05, 1.0), "In run 1, the second"), ((1.0, 1.05), "In run 2, the second")])
def test_a_baseline_that_differs_from_itself_is_a_warning(store, controls, told):
    found = compare(store, *(add_run(store, control=control) for control in controls))
    assert any(told in warning for warning in found.warnings)
    assert any("A/A check between the runs" in warning for warning in found.warnings)
    assert "WARNING: In run" in document(found).render("table")


def test_a_baseline_that_agrees_with_itself_is_a_note(store):
    found = compare(store, add_run(store, rounds=20), add_run(store, drift=1.1))
    assert not any("A/A check between the runs" in warning for warning in found.warnings)
    assert any("A/A check between the runs" in note for note in found.notes)


def test_what_cannot_be_compared_is_told(store):
    add_run(store)
    add_run(store, size=[32])
    with pytest.raises(OptionError, match="Both are run 1"):
        compare(store, 1, 1)
    with pytest.raises(OptionError, match=r"share no trial(.|\n)*64x64(.|\n)*32x32"):
        compare(store, 1, 2)


def test_csv_and_json_hold_a_record_a_trial_of_either_run(store):
    add_run(store, failed={BILINEAR: "ValueError: gone"})
    add_run(
        store, seconds=SLOWER | {"resnet18 x unet-attention": 0.1}, decoders=["unet-basic", "unet-bilinear", "unet-attention"]
    )
    found = compare(store, 1, 2)
    rows = list(csv.DictReader(io.StringIO(document(found).render("csv"))))
    assert [(row["outcome"], row["pairing"], row["verdict"]) for row in rows] == [
        ("compared", "peer", "tie"),
        ("compared", BASIC, "slower"),
        ("failed before", BILINEAR, ""),
        ("only after", "resnet18 x unet-attention", ""),
    ]
    assert float(rows[0]["before"]) == pytest.approx(10, rel=0.01)
    assert rows[0]["compared_by"] == "latency ms"
    assert float(rows[1]["quotient_low"]) > 1.02
    assert rows[1]["parameters_before"] == rows[1]["parameters_after"] == "14000000"
    facts = json.loads(document(found).render("json"))
    assert [row["outcome"] for row in facts["trials"]] == [row["outcome"] for row in rows]
    assert (facts["before"]["id"], facts["after"]["id"]) == (1, 2)


def test_names_and_errors_cannot_break_a_page_or_a_terminal(store):
    pairings = [{"encoder": "resnet18", "decoder": "unet-basic", "name": HOSTILE}]
    add_run(store, pairings=pairings, seconds=SECONDS | {HOSTILE: 0.01})
    add_run(store, pairings=pairings, failed={HOSTILE: f"ValueError: {HOSTILE}"})
    for runs in ((1, 2), (2, 1)):
        found = compare(store, *runs)
        assert HOSTILE in document(found).render("table")
        assert "<script>" not in document(found).render("markdown")


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_verdict_is_lost(store, width):
    long = {'resnet18 x unet-basic (levels=2, size_policy="resize")': 0.02}
    pairings = [{"encoder": "resnet18", "decoder": "unet-basic", "levels": 2, "size_policy": "resize"}]
    runs = [add_run(store, seconds=SECONDS | long, drift=drift, pairings=pairings, baseline=PEER) for drift in (1, 1.2)]
    found = compare(store, *runs)
    assert len(found.compared) == 4
    text = plain_text(document(found).view(width), width)
    assert max(map(len, text.splitlines())) <= width
    assert all(word in text.split() for name in long for word in ("unet-basic", "slower,", "1.20"))
    screen = Console(file=io.StringIO(), width=width)
    screen.print(document(found).view(width))
    assert "tie" in screen.file.getvalue()


def test_the_text_of_a_comparison_is_its_table(store):
    shown = document(compare(store, add_run(store), add_run(store)))
    assert str(shown) == shown.render("table")
    assert f"From {store.path}." in str(shown)

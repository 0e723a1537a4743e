"""`zoo recommend --estimated` shows estimated pairings below the measured ones, and ranks them apart."""

from __future__ import annotations

import json
import shutil

import pytest

import zoo
from zoo.search import estimated

pytestmark = pytest.mark.usefixtures("one_thread")

ENCODERS = ("--encoders", "timm:test_resnet", "--encoders", "timm:test_convnext")
ESTIMATED = ("--estimated", *ENCODERS, "--decoders", "unet-basic", "--decoders", "unet-bilinear")


@pytest.fixture(scope="module")
def measured(calibrated, tmp_path_factory):
    """A store with a calibration and a run of one pairing."""
    store = tmp_path_factory.mktemp("measured") / "zoo.sqlite"
    shutil.copy(calibrated, store)
    config = {
        "name": "one",
        "pairings": [{"encoder": "timm:test_resnet", "decoder": "unet-basic"}],
        "modes": ["inference", "training"],
        "size": [64],
        "device": "cpu",
        "rounds": 20,
    }
    zoo.bench(zoo.BenchConfig.model_validate(config), store=store)
    return store


@pytest.fixture(scope="module")
def measured_large(calibrated, tmp_path_factory):
    """A store with a calibration, and with a run of one pairing whose images are much larger than the calibration's."""
    store = tmp_path_factory.mktemp("measured-large") / "zoo.sqlite"
    shutil.copy(calibrated, store)
    pairing = {"encoder": "timm:test_resnet", "decoder": "unet-basic"}
    config = {"name": "large", "pairings": [pairing], "modes": ["inference"], "size": [256], "device": "cpu", "rounds": 20}
    zoo.bench(zoo.BenchConfig.model_validate(config), store=store)
    return store


@pytest.fixture
def recommend(measured, tmp_path, monkeypatch, command_line):
    monkeypatch.setattr(estimated, "default_cache", lambda: tmp_path / "counts.sqlite")
    return lambda *options: command_line("recommend", "--store", measured, *options)


def test_the_estimated_pairings_stand_below_the_measured_ones_with_their_intervals(recommend):
    status, out, _ = recommend(*ESTIMATED)
    text = " ".join(out.split())
    assert status == 0
    assert text.index("1 pairings, 1 worth choosing") < text.index(
        "Estimated, not measured: inference, batch 1, 64x64, float32"
    )
    assert "3 of 4 pairings may meet the limits" in text
    assert "Estimates are not ranked with measurements" in text
    below = text[text.index("Estimated, not measured") :]
    assert "timm:test_resnet x unet-basic" not in below  # it is measured


def test_the_answer_as_json_has_all_estimates_and_the_limits_hold(recommend):
    status, out, _ = recommend(*ESTIMATED, "--max-parameters", "2.8M", "--format", "json")
    (facts,) = json.loads(out)["estimated"]
    assert status == 0, out
    assert facts["total"] == 4
    for pick in facts["picks"]:
        assert pick["parameters"] <= 2.8e6
        assert 0 < pick["estimated_latency_low"] <= pick["estimated_latency_seconds"] <= pick["estimated_latency_high"]


def test_a_pairing_unlike_all_timed_ones_is_not_shown_with_a_guessed_time(measured_large, tmp_path, monkeypatch, command_line):
    monkeypatch.setattr(estimated, "default_cache", lambda: tmp_path / "counts.sqlite")
    store = ("--store", measured_large)
    status, out, _ = command_line("recommend", *store, *ESTIMATED, "--format", "json")
    (facts,) = json.loads(out)["estimated"]
    assert status == 0
    assert facts["dropped"]["they are unlike all pairings that the calibration timed"] >= 1
    for pick in facts["picks"]:
        found = zoo.estimate_cost(pick["encoder"], pick["decoder"], size=256, device="cpu", store=measured_large)
        assert found.latency is not None


def test_what_cannot_be_estimated_says_why(recommend):
    status, out, err = recommend(*ESTIMATED, "--mode", "training")
    assert status == 0, err
    assert "nothing, because only inference in float32 can be estimated" in " ".join(out.split())


def test_patterns_without_the_option_are_an_error(recommend):
    status, _, err = recommend(*ENCODERS)
    assert status == 2
    assert "Add --estimated, or leave them out" in " ".join(err.split())

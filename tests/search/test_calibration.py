"""A calibration times real pairings in processes of their own, is kept in the store, and gives estimates of others."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest
import torch

import zoo
from zoo.benchmark.store.store import Store
from zoo.search import calibration

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def calibrated(small, tmp_path_factory):
    """A store with a calibration whose times are measured."""
    store = tmp_path_factory.mktemp("calibrated") / "zoo.sqlite"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert len(zoo.calibrate(device="cpu", store=store).model.errors) == 6
    torch.set_num_threads(threads)
    return store


def test_a_calibration_estimates_a_pairing_that_it_did_not_time(calibrated):
    found = zoo.estimate_cost("timm:test_resnet", "unet-attention", size=(64, 96), device="cpu", store=calibrated)
    assert found.latency is not None, found.reason
    assert 0 < found.latency.low <= found.latency.seconds <= found.latency.high < 1
    model = zoo.build("timm:test_resnet", "unet-attention")
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.flops > 0
    assert found.peak_bytes > 4 * found.parameters
    assert "(estimated)" in str(found)


def test_a_pairing_unlike_all_timed_ones_has_no_latency_and_the_reason(calibrated):
    found = zoo.estimate_cost("timm:test_resnet", "unet-basic", size=1024, device="cpu", store=calibrated)
    assert found.latency is None
    assert "operations unlike all timed ones take" in found.reason
    assert found.reason in str(found)


def test_the_command_prints_the_estimate(calibrated, command_line):
    pairing = ("timm:test_resnet", "unet-attention")
    status, out, err = command_line("estimate", *pairing, "--size", "64x96", "--device", "cpu", "--store", calibrated)
    assert (status, err) == (0, "")
    assert "timm:test_resnet x unet-attention, batch 1, 64x96" in out
    assert "90 % interval" in out


@pytest.mark.usefixtures("small")
def test_the_command_calibrates_and_says_how_large_the_errors_are(tmp_path, command_line):
    status, out, _ = command_line("calibrate", "--device", "cpu", "--store", tmp_path / "zoo.sqlite")
    assert status == 0
    assert "6 pairings timed (run 1 of" in out
    assert "median error" in out


def test_each_pairing_is_timed_in_one_setting(calibrated):
    with closing(Store(calibrated)) as store:
        timed = [stored for stored in store.trials(1) if stored.operation_times]
    assert sorted((stored.trial.height, stored.trial.batch) for stored in timed) == [(32, 1)] * 4 + [(64, 2)] * 2
    assert len({stored.trial.subject.encoder for stored in timed}) == 6


def test_a_calibration_that_was_interrupted_goes_on(calibrated, tmp_path):
    store = tmp_path / "zoo.sqlite"
    shutil.copy(calibrated, store)
    query = "SELECT key, operation_times FROM trial WHERE operation_times NOTNULL ORDER BY key"
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE run SET finished = NULL")
        kept = database.execute(query).fetchall()
        database.execute("UPDATE trial SET operation_times = NULL WHERE key = ?", kept[0][:1])
    assert zoo.calibrate(device="cpu", store=store).run.id == 1
    with closing(sqlite3.connect(store)) as database:
        again = database.execute(query).fetchall()
    assert [key for key, _ in again] == [key for key, _ in kept]
    assert again[1:] == kept[1:]


@pytest.mark.usefixtures("small")
def test_too_few_encoders_are_an_error_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(calibration, "list_encoders", lambda: ["resnet18"])
    with pytest.raises(zoo.errors.StoreError, match=r"at least 6 models; found 1\. Install more encoders"):
        zoo.calibrate(device="cpu", store=tmp_path / "zoo.sqlite")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["list_encoders", "list_decoders"])
def test_without_encoders_or_decoders_the_error_says_what_to_do(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(calibration, kind, list)
    with pytest.raises(zoo.errors.OptionError, match="No pairing of the installed encoders and decoders can be timed"):
        zoo.calibrate(device="cpu", store=tmp_path / "zoo.sqlite")


def test_a_calibration_with_too_few_times_does_not_hide_an_earlier_one(calibrated, tmp_path, monkeypatch):
    store = tmp_path / "zoo.sqlite"
    shutil.copy(calibrated, store)
    monkeypatch.setattr(calibration, "list_encoders", lambda: ["resnet18"])
    with pytest.raises(zoo.errors.StoreError, match="at least 6 models; found 1"):
        zoo.calibrate(device="cpu", store=store)
    assert zoo.estimate_cost("timm:test_resnet", "unet-attention", size=64, device="cpu", store=store).latency is not None


def test_a_device_without_a_calibration_is_an_error(tmp_path):
    Store(tmp_path / "zoo.sqlite").close()
    with pytest.raises(
        zoo.errors.StoreError, match=r"has no calibration of .*cpu, 1 threads\).*Run `zoo calibrate --device cpu --store"
    ):
        zoo.estimate_cost("resnet18", "unet-basic", device="cpu", store=tmp_path / "zoo.sqlite")


@pytest.mark.usefixtures("fresh_registry")
def test_a_model_that_the_meta_device_cannot_run_is_an_error_that_says_what_to_do(calibrated):
    class Reading(torch.nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return features[0] * float(features[0].mean())

    zoo.register_decoder("reading", Reading)
    with pytest.raises(zoo.errors.PluginError, match=r"cannot be run on the meta device.*Measure it with `zoo bench` instead"):
        zoo.estimate_cost("timm:test_resnet", "reading", size=64, device="cpu", store=calibrated)


def test_a_store_that_does_not_exist_is_an_error_and_is_not_created(tmp_path):
    with pytest.raises(zoo.errors.StoreError, match="There is no results store"):
        zoo.estimate_cost("resnet18", "unet-basic", store=tmp_path / "none.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "size and batch must be whole numbers of at least 1; found 0 and 1"),
        ({"size": (64, 64, 3)}, r"found \(64, 64, 3\) and 1"),
        ({"batch": 1.5}, "found 256 and 1.5"),
        ({"decoder_option": {}}, "A pairing has no option 'decoder_option'. Did you mean"),
    ],
)
def test_wrong_arguments_are_errors(tmp_path, arguments, words):
    with pytest.raises(zoo.errors.OptionError, match=words):
        zoo.estimate_cost("resnet18", "unet-basic", store=tmp_path / "zoo.sqlite", **arguments)


def test_a_module_as_encoder_is_an_error_that_says_what_to_do(tmp_path):
    module = zoo.build("resnet18", "unet-basic").encoder
    with pytest.raises(zoo.errors.OptionError, match=r"takes the id of an encoder, and no module\. zoo\.register_encoder"):
        zoo.estimate_cost(module, "unet-basic", store=tmp_path / "zoo.sqlite")

"""A store with a calibration of six small pairings at small sizes, so that a search takes seconds."""

from __future__ import annotations

import shutil
from contextlib import closing

import pytest
import torch

import zoo
from zoo.benchmark.operation import OperationTime, OperationTimes
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.store.store import Store
from zoo.benchmark.trial import make_trials
from zoo.common.choices import CALIBRATION
from zoo.search import calibration, cost_model
from zoo.search.calibration import Setting
from zoo.search.counting.counter import PairingCounter

ENCODERS = [
    "resnet18",
    "timm:test_byobnet",
    "timm:test_convnext",
    "timm:test_efficientnet",
    "timm:test_resnet",
    "timm:test_vit",
]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Calibrate with six small pairings at small sizes."""
    settings = (Setting(size=32, batch=1, pairings=4, most_flops=1e10), Setting(size=64, batch=2, pairings=2, most_flops=1e10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "list_encoders", lambda: ENCODERS)
        patch.setattr(calibration, "list_decoders", lambda: ["unet-basic", "unet-bilinear"])
        patch.setattr(calibration, "MOST_OF_A_FAMILY", 10)
        patch.setattr(calibration, "SETTINGS", settings)
        patch.setattr(calibration, "default_cache", lambda: tmp_path_factory.getbasetemp() / "calibration-counts.sqlite")
        patch.setattr(cost_model, "MIN_MODELS", 6)
        patch.setattr(cost_model, "FOLDS", 3)
        yield


@pytest.fixture(scope="session")
def made_calibration(tmp_path_factory):
    """A store with a calibration whose times are not measured, but follow from the operations."""
    store = tmp_path_factory.mktemp("calibration") / "zoo.sqlite"
    pairings = [{"encoder": encoder, "decoder": "unet-basic"} for encoder in ENCODERS]
    config = {"name": CALIBRATION, "pairings": pairings, "modes": ["inference"], "size": [64], "device": "cpu"}
    config = zoo.BenchConfig.model_validate(config)
    trials = [trial for trial in make_trials(config) if trial.role != "control"]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    environment = describe_environment(torch.device("cpu")).as_dict()
    torch.set_num_threads(threads)
    with closing(Store(store)) as opened:
        run = opened.start_run(CALIBRATION, config.model_dump(mode="json"), environment, trials).id
        for trial in trials:
            counted = PairingCounter().count(trial.subject, height=trial.height, width=trial.width).operations
            times = tuple(OperationTime(operation=each, calls=calls, seconds=seconds(each)) for each, calls in counted.items())
            total = sum(each.calls * each.seconds for each in times)
            opened.add_operation_times(run, OperationTimes(trial=trial.key, seconds=total, operations=times))
        opened.finish_run(run)
    return store


def seconds(operation):
    return operation.flops / 3e10 + operation.bytes / 1e10 + 3e-6


@pytest.fixture(scope="module")
def calibrated(small, made_calibration, tmp_path_factory):
    """A store with a calibration whose times are not measured."""
    store = tmp_path_factory.mktemp("calibrated") / "zoo.sqlite"
    shutil.copy(made_calibration, store)
    return store

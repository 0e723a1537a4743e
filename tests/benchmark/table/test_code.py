"""The line of code of a row builds the model that was measured."""

from __future__ import annotations

from contextlib import closing

import pytest

import zoo
from zoo.benchmark.config import BenchConfig
from zoo.benchmark.measuring.steps import build_subject
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of
from zoo.benchmark.trial import make_trials
from zoo.common.devices import choose_device


@pytest.mark.parametrize(("encoder", "adapts"), [("timm:vit_tiny_patch16_224", True), ("timm:test_resnet", False)])
def test_the_line_of_code_builds_the_model_that_was_measured(tmp_path, encoder, adapts):
    """An encoder made for one image size is measured at the trial's size, so the line names the size."""
    config = {"name": "code", "encoders": [encoder], "decoders": ["unet-basic"], "modes": ["inference"], "size": [64]}
    config = BenchConfig.model_validate(config | {"device": "cpu"})
    trial, *_ = make_trials(config)
    environment = describe_environment(choose_device("cpu")).as_dict()
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        run = store.start_run("code", config.model_dump(mode="json"), environment, [trial]).id
        (row,) = table_of(store, run).rows
    assert ("image_size" in row.code) is adapts
    measured, built = build_subject(trial), eval(row.code, {"zoo": zoo})
    shapes = [{name: each.shape for name, each in model.state_dict().items()} for model in (measured, built)]
    assert shapes[0] == shapes[1]
    assert measured.plan.sizes.image_size == built.plan.sizes.image_size

"""A training that stops early is validated and tested as it is, and goes on later to the same weights."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo import SegmentationData
from zoo.training.fit import fit
from zoo.training.settings import TrainSettings

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SETTINGS = TrainSettings(steps=6, batch=2, validations=0, device="cpu")
PAIRING = zoo.Pairing("timm:test_resnet", "unet-basic", classes=2)


@pytest.fixture(scope="module")
def data():
    draw = torch.Generator().manual_seed(0)
    samples = [(torch.rand(3, 32, 32, generator=draw), torch.randint(2, (32, 32), generator=draw)) for _ in range(8)]
    parts = {"train": samples[:4], "validation": samples[4:6], "test": samples[6:]}
    return SegmentationData(name="noise", classes=("a", "b"), size=(32, 32), **parts)


def weights(folder):
    return torch.load(folder / "last.ckpt", weights_only=False)["state_dict"]


def test_a_training_that_stopped_goes_on_to_the_same_weights(data, tmp_path):
    whole = fit(PAIRING, data, SETTINGS, tmp_path / "whole")
    early = fit(PAIRING, data, SETTINGS, tmp_path / "parts", stop_after=2)
    assert (early.steps, whole.steps) == (2, 6)
    assert whole.validation is None
    assert 0 <= early.validation <= 1
    assert not (tmp_path / "parts/result.json").exists()
    at_the_stop = weights(tmp_path / "parts")

    again = fit(PAIRING, data, SETTINGS, tmp_path / "parts", stop_after=2)  # nothing to train, the same scores
    assert (again.steps, again.validation, again.test) == (2, early.validation, early.test)
    torch.testing.assert_close(weights(tmp_path / "parts"), at_the_stop, rtol=0, atol=0)

    last = fit(PAIRING, data, SETTINGS, tmp_path / "parts", stop_after=6)
    assert last.steps == 6
    assert last.test == whole.test
    torch.testing.assert_close(weights(tmp_path / "parts"), weights(tmp_path / "whole"), rtol=0, atol=0)
    finished = fit(PAIRING, data, SETTINGS, tmp_path / "parts", stop_after=6)
    assert finished.validation == last.validation

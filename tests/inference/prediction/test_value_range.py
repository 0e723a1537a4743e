"""A model of pixels in units of their own: images are scaled as its training images were, and strange units are said."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")
RANGES = ((100.0, 2100.0), (0.0, 1000.0), (500.0, 4000.0))


def built(value_range, **options):
    torch.manual_seed(0)
    model = zoo.build("timm:test_resnet", "unet-basic", classes=3, in_channels=len(value_range), **options).eval()
    model.value_range = value_range
    return model


@pytest.fixture(scope="module")
def model():
    return built(RANGES)


def scene(*size, low=200, high=900):
    return np.random.default_rng(0).integers(low, high, size).astype(np.uint16)


def scale(pixels, ranges=RANGES):
    low, high = np.array(ranges).T
    return torch.from_numpy((pixels - low) / (high - low)).float().permute(2, 0, 1)


def probabilities(model, image, **options):
    return zoo.Predictor(model, **options)(image, probabilities=True).probabilities


@pytest.mark.parametrize("options", [{}, {"tile": 64}])
@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_arrays_are_scaled_and_tensors_are_not(model, dtype, options):
    pixels = scene(70, 90, 3)
    expected = probabilities(model, scale(pixels.astype(float)), **options)
    assert probabilities(model, pixels.astype(dtype), **options) == pytest.approx(expected, abs=1e-5)


def test_files_are_scaled(model, tmp_path):
    pixels = scene(40, 50, 3)
    np.save(tmp_path / "scene.npy", pixels)
    assert probabilities(model, tmp_path / "scene.npy") == pytest.approx(probabilities(model, pixels), abs=1e-6)


def test_gray_is_repeated_before_it_is_scaled(model):
    gray = scene(40, 50)
    assert probabilities(model, gray) == pytest.approx(probabilities(model, np.stack([gray] * 3, axis=-1)), abs=1e-5)


def test_colors_become_gray_after_they_are_scaled():
    model = built(((0.0, 1000.0),))
    colors = scene(40, 50, 3)
    expected = torch.einsum("chw,c->hw", scale(colors, ((0.0, 1000.0),) * 3), torch.tensor([0.299, 0.587, 0.114]))[None]
    assert probabilities(model, colors) == pytest.approx(probabilities(model, expected), abs=1e-5)


def test_opacity_is_left_out(tmp_path):
    model = built(((0.0, 100.0), (50.0, 255.0), (0.0, 200.0)))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    found = probabilities(model, tmp_path / "image.png")
    assert found == pytest.approx(probabilities(model, pixels[..., :3]), abs=1e-6)


@pytest.mark.parametrize(
    "image",
    [
        scene(40, 50, 3, low=0, high=256).astype(np.uint8) // 4,
        np.random.default_rng(0).random((40, 50, 3)).astype(np.float32),
        scene(40, 50, 3, low=0, high=65536),
        scene(40, 50, 3, low=30000, high=33000),
    ],
    ids=["8 bits", "0 to 1", "16 bits", "elsewhere"],
)
def test_images_in_another_unit_are_said(model, image, tmp_path, command_line):
    with pytest.warns(UserWarning, match=r"ndarray: the model's value_range, .*, scales the pixels .* Use images in the units"):
        zoo.Predictor(model)(image)
    zoo.save(model, tmp_path / "model")
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "images" / f"{name}.npy", image)
    status, _, stderr = command_line("predict", tmp_path / "model", tmp_path / "images", "-o", tmp_path / "masks")
    assert status == 0
    text = " ".join(stderr.split())
    assert "a.npy: the model's value_range" in text
    assert "This may also apply to 1 other image." in text


@pytest.mark.parametrize("image", [scene(40, 50, 3), np.zeros((40, 50), dtype=np.uint16), scene(40, 50, 3, high=5000)])
def test_usual_images_and_empty_ones_are_not_said(model, image):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        zoo.Predictor(model)(image)


def test_a_deployed_model_scales_alike(model):
    pixels = scene(64, 64, 3)
    deployed = zoo.deploy(model, example=torch.rand(1, 3, 64, 64), runtime="eager")
    assert probabilities(deployed, pixels) == pytest.approx(probabilities(model, pixels), abs=1e-3)


@pytest.mark.parametrize("normalize", [True, False])
def test_a_file_with_the_normalization_inside_takes_pixels_in_the_units_of_the_training(model, tmp_path, normalize):
    report = zoo.export(model, tmp_path / "model.pt2", normalize=normalize, fixed=True, size=(64, 64), timeout=None)
    pixels = scene(64, 64, 3)
    taken = (
        torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1) if normalize else model.normalize(scale(pixels)[None])[0]
    )
    held = {"zoo.json": ""}
    logits = torch.export.load(report.path, extra_files=held).module()(taken[None])
    expected = model(model.normalize(scale(pixels)[None]))
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-3)
    facts = json.loads(held["zoo.json"])
    assert json.loads(facts["value_range"]) == [list(pair) for pair in RANGES]
    assert ("units of the training images" in facts["input"]) == normalize
    assert ("units of the training images" in str(report)) == normalize

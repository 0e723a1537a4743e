"""`zoo.Predictor`: whatever image comes in, a class for each of its pixels; in tiles as if it had been one."""

from __future__ import annotations

import asyncio
import signal

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.image_tensors import image_to_tensor

pytestmark = pytest.mark.usefixtures("one_thread")


def built(encoder="timm:test_resnet", decoder="unet-basic", classes=3, **options):
    torch.manual_seed(0)
    model = zoo.build(encoder, decoder, classes=classes, **options)
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    model = built()
    model.preprocessing = zoo.Preprocessing(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), value_range=(0.0, 1.0))
    model.class_names = ("road", "wall", "sky")
    return model


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width):
    """Return an image with shapes in it, so that a prediction is more than noise."""
    rows, columns = np.mgrid[:height, :width] / 40
    waves = np.stack([np.sin(rows), np.cos(columns), np.sin(rows + columns)], axis=-1)
    return ((waves + 1) * 127).astype(np.uint8)


def by_hand(model, image):
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (model.preprocessing.mean, model.preprocessing.std))
    with torch.no_grad():
        return model((image_to_tensor(image)[None] - mean) / std).softmax(1)[0].numpy()


def test_a_whole_image_gets_what_the_model_gives_it(model):
    image = noise(50, 70, 3)
    found = zoo.Predictor(model)(image, probabilities=True)
    assert found.probabilities == pytest.approx(by_hand(model, image), abs=1e-6)
    assert (found.mask == found.probabilities.argmax(0)).all()
    assert (found.mask.shape, found.mask.dtype) == ((50, 70), np.uint8)
    assert found.classes == ("road", "wall", "sky")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size", [(300, 391), (20, 257)])
def test_tiles_give_what_the_whole_gives_where_a_fourth_of_the_overlap_is_what_a_pixel_sees(size, batch):
    model = built("resnet18", "unet-basic", levels=2)
    image = smooth(*size)
    whole = zoo.Predictor(model, tile=None)(image, probabilities=True)
    tiled = zoo.Predictor(model, tile=256, overlap=128, batch=batch)(image, probabilities=True)
    assert tiled.probabilities == pytest.approx(whole.probabilities, abs=1e-5)
    assert tiled.probabilities.sum(0) == pytest.approx(1, abs=1e-5)


def test_tiles_of_an_encoder_that_sees_far_differ_little_and_leave_no_seam():
    model = built("resnet18", "unet-basic")
    image = smooth(320, 320)
    whole = zoo.Predictor(model, tile=None)(image, probabilities=True).probabilities
    tiled = zoo.Predictor(model, tile=128)(image, probabilities=True).probabilities
    jumps = [np.abs(np.diff(each, axis=2)).max(axis=(0, 1)) for each in (whole, tiled)]
    assert jumps[1].max() < 1.5 * jumps[0].max()


def test_large_images_go_in_tiles_unasked_and_others_do_not(model):
    predictor = zoo.Predictor(model)
    assert predictor.takes_whole((2048, 2048))
    assert not predictor.takes_whole((2048, 2049))
    assert zoo.Predictor(model, tile=None).takes_whole((30000, 30000))


def test_an_encoder_of_one_size_has_tiles_of_that_size():
    model = built("timm:levit_128s", image_size=(64, 64))
    found = zoo.Predictor(model, tile=64)(noise(100, 150, 3), probabilities=True)
    assert found.probabilities.sum(0) == pytest.approx(1, abs=1e-5)
    unasked = zoo.Predictor(model)(noise(100, 150, 3), probabilities=True)
    assert np.array_equal(unasked.probabilities, found.probabilities)
    assert zoo.Predictor(model, tile=None).takes_whole((100, 150))
    with pytest.raises(zoo.errors.OptionError, match="tiles must be 64x64"):
        zoo.Predictor(model, tile=128)


@pytest.mark.parametrize(
    ("flips", "axes"), [("horizontal", [(), (2,)]), ("all", [(), (2,), (1,), (1, 2)])], ids=["horizontal", "all"]
)
def test_flips_average_over_mirror_images(model, flips, axes):
    image = noise(64, 96, 3)
    each = [np.flip(by_hand(model, np.flip(image, [axis - 1 for axis in flip]).copy()), flip) for flip in axes]
    found = zoo.Predictor(model, flips=flips)(image, probabilities=True)
    assert found.probabilities == pytest.approx(np.mean(each, axis=0), abs=1e-5)


def test_bfloat16_is_near(model):
    image = smooth(64, 64)
    exact, near = (zoo.Predictor(model, precision=name)(image, probabilities=True) for name in ("float32", "bfloat16"))
    assert near.probabilities == pytest.approx(exact.probabilities, abs=0.05)
    assert not np.array_equal(near.probabilities, exact.probabilities)


def test_a_model_of_one_class_says_where_it_is():
    model = built(classes=1)
    model.class_names = ("crack",)
    found = zoo.Predictor(model, tile=64)(noise(100, 90, 3), probabilities=True)
    assert found.probabilities.shape == (1, 100, 90)
    assert (found.mask == (found.probabilities[0] >= 0.5)).all()
    assert found.classes == ("background", "crack")
    assert set(np.unique(found.mask)) == {0, 1}


def test_more_than_256_classes_have_a_mask_of_16_bits():
    found = zoo.Predictor(built(classes=300))(noise(32, 32, 3))
    assert found.mask.dtype == np.uint16
    assert found.picture().mode == "I;16"


def test_it_takes_files_arrays_pictures_and_tensors_alike(model, tmp_path):
    image = noise(40, 50, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    predictor = zoo.Predictor(model)
    kinds = (tmp_path / "image.png", image, Image.fromarray(image), image_to_tensor(image), image.astype(np.uint16) * 257)
    masks = [predictor(kind).mask for kind in kinds]
    assert all((mask == masks[0]).all() for mask in masks)


def test_gray_is_repeated_opacity_left_out_and_colors_brought_to_gray(model):
    gray, image = noise(40, 50), noise(40, 50, 3)
    predictor = zoo.Predictor(model)
    assert (predictor(gray).mask == predictor(np.repeat(gray[..., None], 3, axis=2)).mask).all()
    opaque = Image.fromarray(np.concatenate([image, noise(40, 50, 1, seed=1)], axis=2), "RGBA")
    assert (predictor(opaque).mask == predictor(image).mask).all()
    one = zoo.Predictor(built(in_channels=1))
    found = one(image, probabilities=True).probabilities
    assert found == pytest.approx(
        one(np.array(Image.fromarray(image).convert("L")), probabilities=True).probabilities, abs=0.01
    )


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((8, 8, 4), np.uint8), "4 channels, but the model expects 3"),
        (np.zeros((8,), np.uint8), r"found the shape \(8,\)"),
        (np.zeros((0, 8, 3), np.uint8), r"found the shape \(0, 8, 3\)"),
        (np.full((8, 8, 3), np.nan), "not finite"),
        (np.array([["a", "b"]]), "not numbers"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "a tensor must be a float image"),
        ("no.png", "there is no such file"),
    ],
)
def test_what_is_no_image_for_the_model_is_refused(model, image, told):
    with pytest.raises(zoo.errors.DataError, match=told):
        zoo.Predictor(model)(image)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tile": 100}, "a side length in pixels that the encoder accepts .*, such as 128; found 100"),
        ({"tile": 0}, "found 0"),
        ({"overlap": 600, "tile": 1024}, "must be an integer from 0 to"),
        ({"batch": 0}, "at least 1; found 0"),
        ({"flips": "both"}, "flips must be one of 'none', 'horizontal', 'all'; found 'both'"),
        ({"precision": "float16"}, "precision must be one of"),
        ({"device": "gpu"}, "'gpu' cannot be used here"),
    ],
)
def test_a_wrong_option_is_told(model, options, told):
    with pytest.raises(zoo.ZooError, match=told):
        zoo.Predictor(model, **options)


def test_masks_and_probabilities_go_to_arrays_of_ones_own(model, tmp_path):
    image = smooth(150, 130)
    mask = np.lib.format.open_memmap(tmp_path / "mask.npy", mode="w+", dtype=np.uint8, shape=(150, 130))
    kept = np.lib.format.open_memmap(tmp_path / "kept.npy", mode="w+", dtype=np.float16, shape=(3, 150, 130))
    predictor = zoo.Predictor(model, tile=64)
    shares = []
    predictor(image, mask=mask, probabilities=kept, progress=shares.append)
    expected = predictor(image, probabilities=True)
    assert (np.load(tmp_path / "mask.npy") == expected.mask).all()
    assert np.load(tmp_path / "kept.npy") == pytest.approx(expected.probabilities, abs=1e-3)
    assert shares == sorted(shares)
    assert shares[-1] == 1
    with pytest.raises(zoo.errors.OptionError, match=r"mask= must be an array of shape \(150, 130\)"):
        predictor(image, mask=mask[:100])
    with pytest.raises(zoo.errors.OptionError, match=r"can hold every value of uint8; found .* the dtype bool"):
        predictor(image, mask=np.empty((150, 130), bool))
    with pytest.raises(zoo.errors.OptionError, match=r"can hold every value of float16; found .* the dtype uint8"):
        predictor(image, probabilities=np.empty((3, 150, 130), np.uint8))


def test_a_saved_model_and_a_deployed_one_predict_as_the_model_does(model, tmp_path):
    image = smooth(70, 70)
    expected = zoo.Predictor(model)(image, probabilities=True).probabilities
    zoo.save(model, tmp_path / "model")
    saved = zoo.Predictor(tmp_path / "model", device="cpu")
    assert np.array_equal(saved(image, probabilities=True).probabilities, expected)
    deployed = zoo.deploy(model, example=torch.rand(1, 3, 70, 70), runtime="eager")
    assert zoo.Predictor(deployed)(image, probabilities=True).probabilities == pytest.approx(expected, abs=1e-4)
    with pytest.raises(zoo.errors.OptionError, match=r"precision='bfloat16' has no effect on a deployed model"):
        zoo.Predictor(deployed, precision="bfloat16")


def test_the_picture_is_the_same_of_a_mask_of_any_type(model):
    image = smooth(40, 60)
    expected = np.array(zoo.Predictor(model)(image).picture())
    found = zoo.Predictor(model)(image, mask=np.empty((40, 60), np.int64)).picture()
    assert (np.array(found) == expected).all()


def test_the_picture_has_the_classes_colors_and_the_overlay_the_image(model):
    image = smooth(40, 60)
    found = zoo.Predictor(model)(image)
    picture = found.picture()
    assert (np.array(picture) == found.mask).all()
    assert tuple(picture.getpalette()[3:6]) == found.colors[1]
    overlay = np.array(found.overlay(image))
    assert overlay.shape == image.shape
    assert (overlay[found.mask == 0] == image[found.mask == 0]).all()


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt(), asyncio.CancelledError(), LookupError("nothing")])
@pytest.mark.parametrize("tile", [None, 32])
def test_a_model_whose_code_ends_the_program_fails_on_the_image(end, tile):
    class Ending(torch.nn.Conv2d):
        def forward(self, x):
            raise end

    model = built(levels=2)
    model.head = Ending(1, 3, 1)
    with pytest.raises(zoo.errors.InputError, match=rf"The model fails on images \(1, 3, .*\): {type(end).__name__}"):
        zoo.Predictor(model, tile=tile)(noise(40, 40, 3))


@pytest.mark.usefixtures("heeds_interrupts")
def test_the_users_interrupt_stops_a_prediction(model):
    handle = model.head.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        zoo.Predictor(model)(noise(40, 40, 3))
    handle.remove()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_an_accelerator_it_predicts_as_on_the_cpu(model, tmp_path, precision):
    image = smooth(200, 230)
    zoo.save(model, tmp_path / "model")
    there = zoo.Predictor(tmp_path / "model", tile=64, batch=4, flips="all", precision=precision)
    here = zoo.Predictor(tmp_path / "model", device="cpu", tile=64, flips="all")
    assert next(there.model.parameters()).device.type != "cpu"
    found, expected = (predictor(image, probabilities=True).probabilities for predictor in (there, here))
    assert found == pytest.approx(expected, abs=0.05)

"""What the measured models are fed."""

from __future__ import annotations

import pytest
import torch

import zoo
from zoo.benchmark.measuring.inputs import image_batch, label_batch

IMAGENET = zoo.Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), value_range=(0.0, 1.0))


def photograph(channels=3, height=33, width=47, batch=1, preprocessing=None):
    preprocessing = preprocessing or zoo.Preprocessing.identity(channels)
    return image_batch("image", batch=batch, channels=channels, height=height, width=width, preprocessing=preprocessing)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(33, 47), (225, 301), (64, 64), (500, 32), (1, 1)])
def test_the_photograph_fits_any_size_and_channels_and_stays_in_range(channels, height, width):
    image = photograph(channels, height, width)
    assert image.shape == (1, channels, height, width)
    assert image.dtype == torch.float32
    assert image.min() >= 0
    assert image.max() <= 1


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_photograph_has_contrast_in_every_channel(channels):
    image = photograph(channels, 64, 64)
    assert (image.std(dim=(0, 2, 3)) > 0.05).all()


def test_the_photograph_is_the_same_each_time_and_random_pixels_are_not():
    assert torch.equal(photograph(), photograph())
    facts = {"batch": 1, "channels": 3, "height": 33, "width": 47, "preprocessing": zoo.Preprocessing.identity(3)}
    first, second = (image_batch("random", **facts) for _ in range(2))
    assert first.shape == (1, 3, 33, 47)
    assert not torch.equal(first, second)
    assert not torch.equal(first, photograph())


def test_pixels_of_a_photograph_resemble_their_neighbors_and_random_pixels_do_not():
    facts = {"batch": 1, "channels": 3, "height": 96, "width": 96, "preprocessing": zoo.Preprocessing.identity(3)}
    likeness = {}
    for kind in ("image", "random"):
        pixels = image_batch(kind, **facts)
        likeness[kind] = torch.corrcoef(torch.stack([pixels[..., 1:].flatten(), pixels[..., :-1].flatten()]))[0, 1]
    assert likeness["image"] > 0.9
    assert abs(likeness["random"]) < 0.1


def test_the_crop_is_of_the_center_and_keeps_the_proportions():
    wide, square = photograph(height=60, width=90), photograph(height=60, width=60)
    assert (wide[..., 15:75] - square).abs().mean() < 0.02


def test_every_second_image_of_a_batch_is_mirrored():
    images = photograph(batch=3)
    assert torch.equal(images[1], images[0].flip(-1))
    assert torch.equal(images[2], images[0])
    assert not torch.equal(images[1], images[0])


def test_the_fourth_channel_repeats_the_first_and_one_channel_is_the_average():
    color = photograph(3)
    assert torch.equal(photograph(4)[:, 3], color[:, 0])
    assert torch.allclose(photograph(1), color.mean(dim=1, keepdim=True))


@pytest.mark.parametrize("kind", ["image", "random"])
def test_pixels_are_normalized_as_the_weights_want_it(kind):
    facts = {"batch": 1, "channels": 3, "height": 32, "width": 32}
    torch.manual_seed(0)
    plain = image_batch(kind, **facts, preprocessing=zoo.Preprocessing.identity(3))
    torch.manual_seed(0)
    given = image_batch(kind, **facts, preprocessing=IMAGENET)
    for channel in range(3):
        expected = (plain[:, channel] - IMAGENET.mean[channel]) / IMAGENET.std[channel]
        assert torch.allclose(given[:, channel], expected, atol=1e-6)


def test_a_value_range_of_255_or_about_zero_is_honored():
    plain = photograph()
    bytes_ = zoo.Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=(0.0, 255.0))
    signed = zoo.Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=(-1.0, 1.0))
    assert torch.allclose(photograph(preprocessing=bytes_), plain * 255)
    assert torch.allclose(photograph(preprocessing=signed), plain * 2 - 1)


def test_labels_of_one_class_are_zeros_and_ones_and_of_more_are_indices():
    one = label_batch(batch=2, classes=1, height=16, width=24)
    assert (one.shape, one.dtype, set(one.unique().tolist())) == ((2, 1, 16, 24), torch.float32, {0.0, 1.0})
    many = label_batch(batch=2, classes=5, height=16, width=24)
    assert (many.shape, many.dtype, set(many.unique().tolist())) == ((2, 16, 24), torch.int64, {0, 1, 2, 3, 4})

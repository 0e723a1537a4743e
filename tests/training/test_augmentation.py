"""What training shows a network: crops at the image's own scale, of any number of channels and in any range of values."""

from __future__ import annotations

import pytest
import torch

from zoo.training.loop.augmentation import Augmentation

pytestmark = pytest.mark.usefixtures("one_thread")

IGNORED = 255


def crops(image, mask, size, *, is_on=True, count=60):
    augmentation = Augmentation(size=size, ignored=IGNORED, is_on=is_on)
    for seed in range(count):
        yield augmentation(image, mask, torch.Generator().manual_seed(seed))


def coordinates(height, width):
    """Return an image whose two channels are each pixel's row and column, and a mask of squares of 16 pixels."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).float(), (rows // 16 + columns // 16) % 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_images_may_have_any_number_of_channels(channels):
    image, mask = torch.rand(channels, 40, 50), torch.zeros(40, 50, dtype=torch.int64)
    for crop, crop_mask in crops(image, mask, (24, 32)):
        assert crop.shape == (channels, 24, 32)
        assert crop_mask.shape == (24, 32)
        assert torch.isfinite(crop).all()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 255), (-30, 5), (270, 310), (0, 1e-4), (-1, 1)])
def test_values_of_any_range_vary_by_shares_of_it_and_are_not_clamped(low, high):
    image = torch.linspace(0, 1, 64 * 64).view(1, 64, 64) * (high - low) + low
    mask = torch.zeros(64, 64, dtype=torch.int64)
    found = [((crop - low) / (high - low)) for crop, _ in crops(image, mask, (64, 64))]
    assert all(crop.unique().numel() > 2000 for crop in found)  # of 4096, and one color if they were clamped
    means = torch.stack([crop.mean() for crop in found])
    assert 0.02 < means.std() < 0.15
    assert all(crop.min() > -0.5 and crop.max() < 1.5 for crop in found)


def test_channels_of_different_ranges_vary_alike():
    image = torch.rand(2, 32, 32)
    scaled = image * torch.tensor([1.0, 200.0]).view(2, 1, 1) + torch.tensor([0.0, 300.0]).view(2, 1, 1)
    mask = torch.zeros(32, 32, dtype=torch.int64)
    for (plain, _), (found, _) in zip(crops(image, mask, (24, 24)), crops(scaled, mask, (24, 24)), strict=True):
        assert torch.allclose((found[1] - 300) / 200, plain[1], atol=1e-4)


@pytest.mark.parametrize(
    ("image_size", "size"), [((1024, 1024), (256, 256)), ((256, 1024), (256, 256)), ((300, 200), (64, 96))]
)
def test_the_scale_is_relative_to_the_image_and_not_to_the_crop(image_size, size):
    """The step between neighbors of an image of coordinates is one over the scale."""
    image, mask = coordinates(*image_size)
    scales = []
    for crop, _ in crops(image, mask, size):
        scales.append(1 / float(crop[1][:, 8:-8].diff(dim=1).abs().median()))
    assert min(scales) > 0.75 / 1.25
    assert max(scales) < 1.5 * 1.25  # with the change of contrast
    assert sum(abs(scale - 1) < 1e-3 for scale in scales) > 8


def test_image_and_mask_stay_together():
    image, mask = torch.zeros(1, 90, 120), torch.zeros(90, 120, dtype=torch.int64)
    image[:, 20:60, 30:80] = 1
    mask[20:60, 30:80] = 1
    for crop, crop_mask in crops(image, mask, (64, 64)):
        known = crop_mask != IGNORED
        middle = (crop.min() + crop.max()) / 2
        if crop_mask[known].unique().numel() == 2:
            assert ((crop[0] > middle)[known] == (crop_mask == 1)[known]).float().mean() > 0.97


@pytest.mark.parametrize("is_on", [True, False])
def test_where_the_crop_is_larger_than_the_image_pixels_are_ignored(is_on):
    image, mask = 300 + torch.rand(3, 20, 70), torch.ones(20, 70, dtype=torch.int64)
    for crop, crop_mask in crops(image, mask, (48, 48), is_on=is_on):
        assert set(crop_mask.unique().tolist()) == {1, IGNORED}
        assert ((crop_mask == 1).sum(dim=0) > 0).all()
        assert crop.min() > 298  # no black border in kelvin


def test_without_augmentation_a_crop_is_cut_alone():
    image, mask = coordinates(50, 70)
    for crop, crop_mask in crops(image, mask, (32, 48), is_on=False):
        top, left = (int(crop[channel, 0, 0]) for channel in range(2))
        assert torch.equal(crop, image[:, top : top + 32, left : left + 48])
        assert torch.equal(crop_mask, mask[top : top + 32, left : left + 48])


def test_every_place_of_the_image_is_shown():
    image, mask = coordinates(6, 6)
    corners = {tuple(crop[:, 0, 0].int().tolist()) for crop, _ in crops(image, mask, (4, 4), is_on=False, count=200)}
    assert corners == {(row, column) for row in range(3) for column in range(3)}


def test_an_image_that_is_larger_than_memory_is_cut_first():
    image = torch.ones(3, 1, 1).expand(3, 200_000, 200_000)  # one number a channel, which stands for all
    mask = torch.zeros(1, 1, dtype=torch.int64).expand(200_000, 200_000)
    assert all(crop.shape == (3, 64, 64) for crop, _ in crops(image, mask, (64, 64), count=20))

"""Resizing and padding leave out what changes nothing, and hold for every size where an export keeps sizes open."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo

OPEN = {"x": {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}


def image(height, width):
    return torch.randn(1, 2, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("mode", "given"),
    [
        ("bilinear", {"mode": "bilinear", "align_corners": False}),
        ("bicubic", {"mode": "bicubic", "align_corners": False}),
        ("nearest", {"mode": "nearest"}),
        ("area", {"mode": "area"}),
    ],
)
def test_a_map_of_another_size_is_resized_as_interpolate_does_it(mode, given):
    x = image(5, 7)
    assert torch.equal(zoo.plugin.resize_map(x, (10, 9), mode), F.interpolate(x, size=(10, 9), **given))


def test_a_map_of_that_size_is_returned_as_it_is():
    x = image(5, 7)
    assert zoo.plugin.resize_map(x, (5, 7)) is x
    assert zoo.plugin.pad_map(x, 0, 0) is x


def test_zeros_are_put_below_and_to_the_right():
    x = image(2, 3)
    padded = zoo.plugin.pad_map(x, 1, 2)
    assert padded.shape == (1, 2, 3, 5)
    assert torch.equal(padded[..., :2, :3], x)
    assert padded[..., 2:, :].abs().sum() + padded[..., 3:].abs().sum() == 0


class Even(nn.Module):
    """Pads to even sizes, halves, and comes back to the size given."""

    def forward(self, x):
        padded = zoo.plugin.pad_map(x, x.shape[-2] % 2, x.shape[-1] % 2)
        return zoo.plugin.resize_map(F.max_pool2d(padded, 2), x.shape[-2:])


@pytest.mark.parametrize("seen", [(8, 10), (9, 11)])
def test_an_export_with_open_sizes_is_right_at_sizes_that_need_what_the_example_did_not(seen):
    exported = torch.export.export(Even(), (image(*seen),), dynamic_shapes=OPEN, strict=False)
    for size in ((12, 14), (13, 14), (12, 15), (21, 17)):
        torch.testing.assert_close(exported.graph_module(image(*size))[0], Even()(image(*size)))


def test_what_is_the_same_for_every_size_is_left_out_of_an_export():
    class Doubled(nn.Module):
        def forward(self, x):
            larger = F.interpolate(x, scale_factor=2.0)
            return zoo.plugin.resize_map(larger, (2 * x.shape[-2], x.shape[-1] * 2))

    exported = torch.export.export(Doubled(), (image(8, 10),), dynamic_shapes=OPEN, strict=False)
    assert "bilinear" not in exported.graph_module.code

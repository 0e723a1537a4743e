"""One architecture of each of timm's families, with real tensors: gradients, places, and timm's own maps."""

from __future__ import annotations

import gc

import pytest
import timm
import torch
import torch.nn.functional as F
from timm_families import FAMILIES
from torch import nn

import zoo
from zoo_timm.describe import describe
from zoo_timm.index import index

SIZE = (160, 224)
PIXELS = ((81, 111), (23, 31), (23, 193), (137, 31), (137, 193))
WINDOW = 33

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.parametrize("architecture", FAMILIES.values(), ids=FAMILIES),
]


@pytest.fixture(autouse=True)
def _memory():
    yield
    gc.collect()


def test_an_architecture_of_each_family_learns_everywhere_and_in_place(architecture):
    """Forward and backward are finite, every parameter gets a gradient, and nothing is shifted or scrambled."""
    torch.manual_seed(0)
    model = zoo.build(f"timm:{architecture}", "unet-basic", image_size=SIZE)
    image = torch.rand(1, 3, *SIZE, requires_grad=True)
    near = model.plan.pyramid[-1].stride + WINDOW // 2  # a window blurs by half of it
    held = 0
    for _ in range(5):  # of one draw of weights the coarse maps, whose places are blurred, may drown the rest
        calibrate(model, image)
        logits = model(image)
        assert logits.shape == (1, 1, *SIZE)
        held = held + offsets(logits, image)
        found = shift(held)
        if max(map(abs, found)) <= near:
            break
        weaken_coarse_maps(model)
    assert max(map(abs, found)) <= near
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_maps_of_each_family_are_timms_own(architecture):
    torch.manual_seed(0)
    model = zoo.build(f"timm:{architecture}", "unet-basic")
    network = timm.create_model(architecture, num_classes=0).eval()
    network.load_state_dict(model.encoder.network.state_dict(), strict=False)
    size = network.pretrained_cfg["input_size"][1:]
    image = torch.rand(1, 3, *(size if max(size) <= 384 else model.plan.sizes.fit(192, 256)[1]))
    with torch.no_grad():
        found = model.encoder.eval()(image)
        expected = network.forward_intermediates(image, intermediates_only=True)
    indices = index()[architecture].indices
    for name, tensor in zip(model.plan.maps, found, strict=True):
        assert torch.equal(tensor, expected[indices[name]]), name


def test_the_index_holds_what_a_real_build_of_each_family_shows(architecture):
    if architecture.startswith(("gemma4", "sequencer")):
        pytest.skip("takes minutes: real tensors of 768 x 768, or a recurrence step by step")
    fresh = index()[architecture].of(architecture, describe(architecture))
    assert fresh == index()[architecture]


def weaken_coarse_maps(model):
    """Give the decoder PyTorch's own initial weights: coarse maps, whose places are blurred, count less at each step."""
    for module in model.decoder.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.reset_parameters()


def calibrate(model, image):
    """Give batch norms the statistics of an image: with those of none, deep paths of random weights drown or explode."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.cat([image, torch.rand_like(image)]))
    model.eval()


def offsets(logits, image):
    """Return what share of an output pixel's gradient lies how far from the pixel's own place: (2 H, 2 W), the center is 0, 0.

    It is that of a window, on average and beyond its share of the other pixels': what global attention spreads over the whole
    image, it spreads for all of them alike.
    """
    height, width = SIZE
    shares = []
    for row, column in PIXELS:
        (gradient,) = torch.autograd.grad(logits[..., row, column].sum(), image, retain_graph=True)
        held = F.avg_pool2d(gradient.abs().sum(1), WINDOW, stride=1, padding=WINDOW // 2)[0]
        shares.append(held / held.sum())
    found = torch.zeros(2 * height, 2 * width)
    for share, (row, column) in zip(shares, PIXELS, strict=True):
        found[height - row :, width - column :][:height, :width] += share - sum(shares) / len(shares)
    return found


def shift(held):
    """Return the offset, in rows and columns, at which most of the gradients lies."""
    height, width = SIZE
    row, column = divmod(int(held.flatten().argmax()), 2 * width)
    return row - height, column - width

"""The counts of a pairing's two parts add up to those of the whole model, and each part is counted once."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest
import torch

import zoo
from zoo.benchmark.measuring.cost import static_cost
from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.trial import Trial
from zoo.common.json_cache import JsonCache
from zoo.search.counting import counter as counter_module
from zoo.search.counting.counter import PairingCounter
from zoo.search.counting.fast_meta import FastMeta

PAIRINGS = (
    ("resnet18", "unet-basic"),
    ("timm:test_vit", "unet-attention"),
    ("timm:test_efficientnet", "smp:deeplabv3plus"),
    ("timm:test_mambaout", "smp:fpn"),
)


@pytest.fixture
def counted(monkeypatch):
    """The modules that were run to count them."""
    modules = []
    count = counter_module._count
    monkeypatch.setattr(counter_module, "_count", lambda module, image: modules.append(module) or count(module, image))
    return modules


def whole(pairing, size, batch):
    trial = Trial(
        subject=pairing,
        mode="inference",
        batch=batch,
        height=size[0],
        width=size[1],
        dtype="float32",
        input="random",
        classes=pairing.classes,
        in_channels=pairing.in_channels,
    )
    return static_cost(trial, torch.device("cpu"))


@pytest.mark.parametrize(("encoder", "decoder"), PAIRINGS)
@pytest.mark.parametrize(("size", "batch"), [((64, 96), 1), ((75, 101), 2)])
def test_the_parts_add_up_to_the_whole(encoder, decoder, size, batch):
    pairing = zoo.Pairing(encoder, decoder, classes=3)
    found = PairingCounter().count(pairing, height=size[0], width=size[1], batch=batch)
    expected = whole(pairing, size, batch)
    assert (found.parameters, found.flops) == (expected.parameters, expected.step_flops)
    assert found.peak_bytes == pytest.approx(expected.live_bytes, rel=0.03)


@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        *PAIRINGS,
        ("timm:test_convnext", "unet-attention"),
        ("timm:test_efficientnet_ln", "unet-bilinear"),
        ("timm:test_vit2", "smp:dpt"),
        ("timm:test_nfnet", "smp:pan"),
    ],
)
def test_the_counted_operations_are_those_that_run_on_the_cpu_in_the_same_memory_layouts(encoder, decoder):
    """Convolutions and attention choose the layout of their result by that of their input, but not on the meta device."""
    pairing = zoo.Pairing(encoder, decoder)
    counted = PairingCounter().count(pairing, height=64, width=96, batch=2).operations
    model = zoo.build(replace(pairing, image_size=(64, 96))).eval()
    image = torch.rand(2, 3, 64, 96)
    with torch.inference_mode(), OperationCounter() as ran:
        model(image)
    assert comparable(counted) == comparable(ran.operations)


def test_what_a_module_keeps_of_its_first_call_counts_for_the_whole_model():
    """LeViT keeps the biases of its attention, for each image size."""
    pairing = zoo.Pairing("timm:levit_conv_128s", "unet-basic")
    found = PairingCounter().count(pairing, height=512, width=512)
    assert found.peak_bytes == pytest.approx(whole(pairing, (512, 512), 1).live_bytes, rel=0.03)


def test_the_image_is_in_memory_beside_its_padded_copy():
    pairing = zoo.Pairing("timm:sequencer2d_s", "smp:pspnet")  # patches of 7x7
    found = PairingCounter().count(pairing, height=256, width=256, batch=4)
    assert found.peak_bytes == whole(pairing, (256, 256), 4).live_bytes


def comparable(operations):
    """Return the operations without views, and batch norms without their bytes: some kernels also return statistics."""
    counts = Counter()
    for operation, calls in operations.items():
        if operation.kind != "view":
            counts[replace(operation, bytes=0) if operation.kind == "batch norm" else operation] += calls
    return counts


def test_an_encoder_is_counted_once_for_all_decoders_that_use_the_same_maps(counted):
    counter = PairingCounter()
    for decoder in ("unet-basic", "unet-bilinear", "unet-attention"):
        counter.count(zoo.Pairing("resnet18", decoder), height=64, width=64)
    assert len(counted) == 1 + 3


def test_a_decoder_is_counted_once_for_encoders_with_equal_maps(counted):
    counter = PairingCounter()
    for encoder in ("timm:resnet18", "timm:resnet34"):
        counter.count(zoo.Pairing(encoder, "unet-basic"), height=64, width=64)
    assert len(counted) == 2 + 1


def test_kept_counts_are_read_again(counted, tmp_path):
    pairing, costs = zoo.Pairing("resnet18", "unet-basic"), []
    for _ in range(2):
        with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
            costs.append(PairingCounter(cache).count(pairing, height=64, width=64))
    assert costs[0] == costs[1]
    assert len(counted) == 2


def test_pretrained_weights_are_not_loaded(counted):
    counter = PairingCounter()
    costs = [
        counter.count(zoo.Pairing("timm:resnet18", "unet-basic", weights=name), height=64, width=64)
        for name in (None, "default")
    ]
    assert costs[0] == costs[1]
    assert len(counted) == 2


def test_another_option_is_counted_again(counted):
    counter = PairingCounter()
    small, large = (
        counter.count(zoo.Pairing("resnet18", "unet-basic", decoder_options={"head_kernel_size": size}), height=64, width=64)
        for size in (1, 3)
    )
    assert small.flops < large.flops


def test_auxiliary_heads_and_the_treatment_of_sizes_are_counted_again():
    counter = PairingCounter()
    padded, resized, supervised = (
        counter.count(zoo.Pairing("resnet18", "unet-basic", **options), height=75, width=101)
        for options in ({}, {"size_policy": "resize"}, {"aux_levels": 1})
    )
    assert padded.operations != resized.operations
    assert padded.parameters < supervised.parameters


@pytest.mark.usefixtures("fresh_registry")
def test_what_a_script_registers_is_counted_and_not_kept(counted, tmp_path):
    class Sum(torch.nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.project = torch.nn.Conv2d(pyramid[0].channels, 8, 1)
            self.out_channels, self.out_stride = 8, pyramid[0].stride

        def forward(self, features):
            return self.project(features[0])

    zoo.register_decoder("sum", Sum)
    for _ in range(2):
        with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
            PairingCounter(cache).count(zoo.Pairing("resnet18", "sum"), height=64, width=64)
    assert len(counted) == 3


def test_tensors_that_do_not_fit_fail_on_the_faster_meta_device_too():
    image = torch.empty(1, 3, 4, 4, device="meta")
    with FastMeta():
        with pytest.raises(RuntimeError, match="broadcast"):
            image.add_(torch.empty(1, 2, 4, 4, device="meta"))
        assert (image * torch.empty(3, 1, 1, device="meta")).shape == image.shape
        result = torch.empty(1, 3, 4, 4, device="meta")
        assert torch.mul(image, image, out=result) is result
        assert (image > 0).dtype == torch.bool

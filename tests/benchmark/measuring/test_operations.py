"""The work of a model, by kind of operation, equals what arithmetic gives, and its FLOPs equal those of PyTorch's counter."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.benchmark.measuring.operations import OperationCounter
from zoo.benchmark.messages import Work

FLOAT = 4


def work_of(module, *shapes):
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    with torch.inference_mode(), OperationCounter() as counter:
        module(*inputs)
    return counter.work


@pytest.mark.parametrize(
    ("kind", "options", "taps"),
    [
        ("convolution", {"kernel_size": 3, "padding": 1}, 9 * 8),
        ("convolution 1x1", {"kernel_size": 1}, 8),
        ("grouped convolution", {"kernel_size": 3, "padding": 1, "groups": 2}, 9 * 4),
        ("depthwise convolution", {"kernel_size": 3, "padding": 1, "groups": 8}, 9),
    ],
)
def test_a_convolution_is_counted_by_its_kind(kind, options, taps):
    conv = nn.Conv2d(8, 16, bias=False, device="meta", **options)
    pixels = 2 * 10 * 12
    size = FLOAT * (8 * pixels + 16 * taps + 16 * pixels)
    assert work_of(conv, (2, 8, 10, 12)) == {kind: Work(flops=2 * taps * 16 * pixels, bytes=size, calls=1)}


def test_a_transposed_convolution_is_a_kind_of_its_own():
    work = work_of(nn.ConvTranspose2d(8, 4, 2, stride=2, device="meta"), (1, 8, 10, 10))
    assert work["transposed convolution"].flops == 2 * 8 * 4 * 4 * 100


def test_an_operation_that_reads_no_values_counts_as_a_call_without_bytes():
    work = work_of(lambda x: x.transpose(0, 1)[1:].relu(), (5, 4))
    assert work["view"] == Work(calls=2)
    assert work["elementwise"] == Work(bytes=2 * 15 * FLOAT, calls=1)


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "resize"),
        (lambda x: F.max_pool2d(x, 2), "resize"),
        (lambda x: F.gelu(x), "activation"),
        (lambda x: F.softmax(x, dim=1), "softmax"),
        (lambda x: F.layer_norm(x, x.shape[-1:]), "norm"),
        (lambda x: torch.cat([x, x]), "copy"),
    ],
)
def test_an_operation_that_runs_as_one_kernel_counts_once(call, kind):
    work = work_of(call, (1, 4, 8, 8))
    assert {name for name in work if name != "view"} == {kind}
    assert work[kind].calls == 1


@pytest.mark.parametrize("lead", [(2,), (2, 3), (2, 3, 5)])
def test_attention_counts_both_of_its_matrix_products_for_any_number_of_dimensions(lead):
    query, key = (*lead, 7, 16), (*lead, 11, 16)
    work = work_of(F.scaled_dot_product_attention, query, key, key)
    rows = torch.Size(lead).numel() * 7
    assert work["attention"].flops == 2 * rows * 11 * 16 + 2 * rows * 11 * 16


@pytest.mark.parametrize("encoder", ["resnet18", "timm:test_vit", "timm:test_efficientnet", "timm:test_mambaout"])
def test_the_flops_of_a_pairing_are_those_that_torch_counts(encoder):
    with torch.device("meta"):
        model = zoo.build(encoder, "unet-attention", image_size=(96, 96)).eval()
        image = torch.empty(1, 3, 96, 96)
    with torch.inference_mode(), OperationCounter() as counter:
        model(image)
    with torch.inference_mode(), FlopCounterMode(display=False) as expected:
        model(image)
    assert sum(work.flops for work in counter.work.values()) == expected.get_total_flops()


def test_the_backward_pass_is_counted_too():
    conv = nn.Conv2d(8, 16, 3, padding=1)
    with OperationCounter() as counter:
        conv(torch.rand(1, 8, 10, 10)).sum().backward()
    forward = 2 * 9 * 8 * 16 * 100
    assert counter.work["convolution"].flops == 2 * forward  # the image needs no gradient
    assert counter.work["convolution"].calls == 2

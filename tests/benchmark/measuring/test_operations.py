"""The operations of a model are counted by kind and size, as arithmetic gives them, and timed one by one."""

from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.benchmark.measuring.operation_times import time_operations
from zoo.benchmark.measuring.operations import OperationCounter, OperationTimer
from zoo.benchmark.messages import Failure
from zoo.benchmark.operation import Operation, OperationTimes, total_flops
from zoo.benchmark.trial import Reference, Trial

FLOAT = 4


def operations_of(module, *shapes):
    inputs = [torch.empty(shape, device="meta") for shape in shapes]
    with torch.inference_mode(), OperationCounter() as counter:
        module(*inputs)
    return counter.operations


def kinds_of(module, *shapes):
    """Return the kinds of a module's operations, without views, as often as they are called."""
    counted = operations_of(module, *shapes).elements()
    return [operation.kind for operation in counted if operation.kind != "view"]


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
    width = conv.weight.shape[1]
    expected = Operation(kind=kind, flops=2 * taps * 16 * pixels, bytes=size, width=width, positions=pixels)
    assert operations_of(conv, (2, 8, 10, 12)) == {expected: 1}


def test_a_transposed_convolution_is_a_kind_of_its_own():
    (operation,) = operations_of(nn.ConvTranspose2d(8, 4, 2, stride=2, device="meta"), (1, 8, 10, 10))
    assert (operation.kind, operation.flops) == ("transposed convolution", 2 * 8 * 4 * 4 * 100)


def test_a_view_has_no_size_and_makes_the_next_operation_strided():
    operations = operations_of(lambda x: x.transpose(0, 1)[1:].relu(), (5, 4))
    relu = Operation(kind="elementwise", bytes=2 * 15 * FLOAT, width=5, positions=3, is_strided=True)
    assert operations == {Operation(kind="view"): 2, relu: 1}


def test_equal_operations_are_counted_together():
    layers = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False, device="meta") for _ in range(3)))
    assert list(operations_of(layers, (1, 8, 6, 6)).values()) == [3]


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), "resize"),
        (lambda x: F.max_pool2d(x, 2), "resize"),
        (lambda x: F.gelu(x), "activation"),
        (lambda x: F.softmax(x, dim=1), "softmax"),
        (lambda x: F.layer_norm(x, x.shape[-1:]), "norm"),
        (lambda x: torch.cat([x, x]), "copy"),
        (lambda x: x.mean(dim=(2, 3)), "reduction"),
        (lambda x: F.scaled_dot_product_attention(x, x, x), "attention"),
        (lambda x: F.scaled_dot_product_attention(x, x, x, attn_mask=x @ x.mT), "masked attention"),
    ],
)
def test_an_operation_that_runs_as_one_kernel_counts_once(call, kind):
    assert kinds_of(call, (1, 4, 8, 8)).count(kind) == 1


@pytest.mark.parametrize(
    ("lead", "kind"), [((2,), "attention in steps"), ((2, 3), "attention"), ((2, 3, 5), "attention in steps")]
)
def test_attention_counts_both_of_its_matrix_products_for_any_number_of_dimensions(lead, kind):
    query, key = (*lead, 7, 16), (*lead, 11, 16)
    (operation,) = operations_of(F.scaled_dot_product_attention, query, key, key)
    rows = torch.Size(lead).numel() * 7
    assert (operation.kind, operation.flops) == (kind, 2 * rows * 11 * 16 + 2 * rows * 11 * 16)


@pytest.mark.parametrize("encoder", ["resnet18", "timm:test_vit", "timm:test_efficientnet", "timm:test_mambaout"])
def test_the_flops_of_a_pairing_are_those_that_torch_counts(encoder):
    with torch.device("meta"):
        model = zoo.build(encoder, "unet-attention", image_size=(96, 96)).eval()
        image = torch.empty(1, 3, 96, 96)
    with torch.inference_mode(), OperationCounter() as counter:
        model(image)
    with torch.inference_mode(), FlopCounterMode(display=False) as expected:
        model(image)
    assert total_flops(counter.operations) == expected.get_total_flops()


def test_the_backward_pass_is_counted_too():
    conv = nn.Conv2d(8, 16, 3, padding=1)
    with OperationCounter() as counter:
        conv(torch.rand(1, 8, 10, 10)).sum().backward()
    forward = 2 * 9 * 8 * 16 * 100
    convolutions = [operation for operation in counter.operations.elements() if operation.kind == "convolution"]
    assert [operation.flops for operation in convolutions] == [forward, forward]  # the image needs no gradient


def test_each_call_of_an_operation_is_timed():
    layers = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(3)))
    image = torch.rand(1, 8, 64, 64)
    with torch.inference_mode(), OperationTimer(torch.device("cpu")) as timer:
        layers(image)
    (times,) = timer.seconds.values()
    assert len(times) == 3
    assert all(0 < each < 1 for each in times)


def trial_of(factory, **options):
    return Trial(
        subject=Reference(name=factory, factory=f"{__name__}:{factory}", options=options),
        mode="inference",
        batch=2,
        height=64,
        width=64,
        dtype="float32",
        input="random",
        classes=1,
        in_channels=3,
    )


def three_layers():
    return nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(3)))


class Failing(nn.Module):
    def forward(self, image):
        raise LookupError("no such thing")


class FailingLater(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, image):
        self.calls += 1
        time.sleep(0.006)
        if self.calls > 6:  # its model is built, and the rounds have begun
            raise LookupError("no such thing")
        return image.sum()


def test_the_times_of_a_trial_add_up_to_about_the_time_of_its_step():
    *activities, times = time_operations([trial_of("three_layers")], torch.device("cpu"), seed=0)
    assert isinstance(times, OperationTimes)
    assert {activity.trial for activity in activities} == {times.trial}
    (conv,) = times.operations
    assert conv.calls == 3
    assert times.seconds > conv.seconds > 0


def test_a_trial_that_fails_while_its_operations_are_timed_is_a_failure():
    trials = [trial_of("Failing"), trial_of("FailingLater"), trial_of("three_layers")]
    *messages, times = time_operations(trials, torch.device("cpu"), seed=0)
    failures = {message.trial: message.error for message in messages if isinstance(message, Failure)}
    assert failures.keys() == {trials[0].key, trials[1].key}
    assert all("no such thing" in error for error in failures.values())
    assert times.trial == trials[2].key

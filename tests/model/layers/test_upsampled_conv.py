"""The low-resolution form: equal to upsampling, concatenating and convolving, in value and gradient, wherever a module goes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import zoo
from zoo.model.layers.upsampled_conv import MIN_PIXELS, low_resolution_kernel, pays_at_low_resolution

LAYOUTS = [torch.contiguous_format, torch.channels_last]
SHAPES = [(1, 1), (1, 5), (2, 3), (7, 6), (24, 32)]


def plain(conv, x, skip=None):
    """Upsampling, concatenation and convolution with the module's parameters, step by step."""
    if skip is None:
        x = F.interpolate(x, scale_factor=2, mode="nearest")
    else:
        x = torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], 1)
    return F.conv2d(x, conv.weight, conv.bias, padding=1)


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def inputs(height, width, *, up=6, skip=4, dtype=torch.float32, **options):
    torch.manual_seed(0)
    x = torch.randn(2, up, height, width, dtype=dtype, **options)
    return (x, torch.randn(2, skip, 2 * height, 2 * width, dtype=dtype, **options)) if skip else (x,)


@pytest.mark.parametrize("size", SHAPES)
def test_the_4x4_kernel_gives_what_upsampling_and_the_3x3_kernel_give_borders_included(size):
    weight = torch.randn(5, 6, 3, 3, dtype=torch.float64)
    (x,) = inputs(*size, skip=0, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    found = F.conv_transpose2d(x, low_resolution_kernel(weight), stride=2, padding=1)
    torch.testing.assert_close(found, expected)


def test_each_tap_of_the_4x4_kernel_is_the_sum_of_the_taps_that_a_phase_sees():
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, :, 1] = torch.tensor([1.0, 10.0, 100.0])
    column = low_resolution_kernel(weight)[0, 0, :, 1]
    assert column.tolist() == [100, 110, 11, 1]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("skip", [0, 4])
@pytest.mark.parametrize("size", SHAPES)
@pytest.mark.parametrize("form", ["auto", "low"])
def test_the_module_equals_the_plain_form(form, size, skip, bias, layout):
    conv = zoo.plugin.UpsampledConv2d(6, skip, 5, bias=bias, form=form).to(memory_format=layout)
    tensors = [tensor.to(memory_format=layout) for tensor in inputs(*size, skip=skip)]
    found, expected = conv(*tensors), plain(conv, *tensors)
    assert relative_error(found, expected) < 1e-5
    assert found.stride() == expected.stride()


@pytest.mark.parametrize("size", [(15, 20), (16, 19), (17, 21), (30, 40)])
def test_a_skip_that_is_not_exactly_twice_as_large_gets_the_plain_form(size):
    conv = zoo.plugin.UpsampledConv2d(6, 4, 5, form="low")
    x, skip = torch.randn(1, 6, 8, 10), torch.randn(1, 4, *size)
    torch.testing.assert_close(conv(x, skip), plain(conv, x, skip), rtol=0, atol=0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("skip", [0, 4])
def test_gradients_equal_the_plain_forms(skip, layout):
    conv = zoo.plugin.UpsampledConv2d(6, skip, 5, form="low").to(memory_format=layout)
    gradients = []
    for call in (conv, lambda *tensors: plain(conv, *tensors)):
        tensors = [tensor.to(memory_format=layout).requires_grad_() for tensor in inputs(9, 8, skip=skip)]
        wanted = [*tensors, conv.weight, conv.bias]
        gradients.append(torch.autograd.grad(call(*tensors).sin().sum(), wanted))
    for found, expected in zip(*gradients, strict=True):
        assert relative_error(found, expected) < 1e-4


def test_gradients_in_double_precision_are_those_of_finite_differences():
    conv = zoo.plugin.UpsampledConv2d(2, 1, 2, form="low").double()
    x, skip = inputs(3, 2, up=2, skip=1, dtype=torch.float64, requires_grad=True)

    def call(x, skip, weight, bias):
        return torch.func.functional_call(conv, {"weight": weight, "bias": bias}, (x, skip))

    assert torch.autograd.gradcheck(call, (x, skip, conv.weight, conv.bias))


def test_its_state_dict_is_an_ordinary_convolutions():
    conv, ordinary = zoo.plugin.UpsampledConv2d(6, 4, 5), nn.Conv2d(10, 5, 3, padding=1)
    conv.load_state_dict(ordinary.state_dict())
    shapes = [{name: value.shape for name, value in module.state_dict().items()} for module in (conv, ordinary)]
    assert shapes[0] == shapes[1]
    x, skip = inputs(24, 32)
    expected = ordinary(torch.cat([F.interpolate(x, scale_factor=2), skip], 1))
    assert relative_error(conv(x, skip), expected) < 1e-5


def test_the_form_is_chosen_by_the_pixels_of_the_whole_batch():
    assert not pays_at_low_resolution(1, 8, 8)
    assert pays_at_low_resolution(8, 8, 8)
    assert pays_at_low_resolution(1, MIN_PIXELS, 1)


def test_an_accelerator_wants_more_pixels_and_fewer_once_the_kernel_is_made():
    device = torch.device("cuda")
    assert not pays_at_low_resolution(8, 64, 64, device=device)
    assert pays_at_low_resolution(8, 128, 128, device=device)
    assert pays_at_low_resolution(8, 32, 32, device=device, is_made=True)
    assert not pays_at_low_resolution(8, 8, 8, device=device, is_made=True)


def test_few_pixels_get_the_plain_form_and_many_the_one_with_fewer_flops():
    flops = {}
    for form in ("plain", "auto"):
        conv = zoo.plugin.UpsampledConv2d(8, 0, 8, form=form)
        for side in (4, 32):
            with FlopCounterMode(display=False) as counter:
                conv(torch.randn(1, 8, side, side))
            flops[form, side] = counter.get_total_flops()
    assert flops["auto", 4] == flops["plain", 4]
    assert flops["auto", 32] / flops["plain", 32] == pytest.approx(16 / 36, rel=0.01)


def test_another_form_is_refused_with_those_there_are():
    with pytest.raises(zoo.errors.OptionError, match="'auto', 'plain', 'low'; found 'fast'"):
        zoo.plugin.UpsampledConv2d(6, 4, 5, form="fast")


def test_it_works_under_bfloat16_autocast():
    conv = zoo.plugin.UpsampledConv2d(6, 4, 5, form="low")
    x, skip = inputs(9, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = conv(x, skip)
    assert found.dtype is torch.bfloat16
    assert relative_error(found.float(), plain(conv, x, skip)) < 2e-2
    found.float().sum().backward()
    assert conv.weight.grad.dtype is torch.float32


def test_it_works_on_the_meta_device():
    conv = zoo.plugin.UpsampledConv2d(6, 4, 5).to("meta")
    assert conv(*inputs(24, 32, device="meta")).shape == (2, 5, 48, 64)


def test_copies_and_pickles_give_the_same():
    conv, tensors = zoo.plugin.UpsampledConv2d(6, 4, 5), inputs(24, 32)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        torch.testing.assert_close(other(*tensors), conv(*tensors))


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("skip", [0, 4])
def test_an_export_of_open_sizes_is_right_at_each(strict, skip):
    conv = zoo.plugin.UpsampledConv2d(6, skip, 5).eval()
    height, width = torch.export.Dim("height", min=2, max=99), torch.export.Dim("width", min=2, max=99)
    shapes = ({2: height, 3: width}, {2: 2 * height, 3: 2 * width})[: 2 if skip else 1]
    exported = torch.export.export(conv, inputs(24, 32, skip=skip), dynamic_shapes=shapes, strict=strict).module()
    for size in ((24, 32), (40, 8), (5, 6)):
        tensors = inputs(*size, skip=skip)
        assert relative_error(exported(*tensors), conv(*tensors)) < 1e-5


def test_an_export_of_one_size_keeps_the_low_resolution_form():
    exported = torch.export.export(zoo.plugin.UpsampledConv2d(6, 4, 5), inputs(24, 32))
    assert any("conv_transpose2d" in str(node.target) for node in exported.graph.nodes)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_onnx_runtime_gives_the_same(tmp_path):
    import onnxruntime

    conv, tensors = zoo.plugin.UpsampledConv2d(6, 4, 5).eval(), inputs(24, 32)
    torch.onnx.export(conv, tensors, dynamo=True, verbose=False).save(tmp_path / "conv.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "conv.onnx")
    names = [value.name for value in session.get_inputs()]
    (found,) = session.run(None, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
    assert relative_error(torch.from_numpy(found), conv(*tensors)) < 1e-5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_it_gives_the_same():
    conv, tensors = zoo.plugin.UpsampledConv2d(6, 4, 5), inputs(24, 32)
    assert relative_error(torch.compile(conv, fullgraph=True)(*tensors), conv(*tensors)) < 1e-5

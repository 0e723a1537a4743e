"""Norm and ReLU in training: the same output, gradients and statistics as the modules give, and less memory."""

from __future__ import annotations

import contextlib
import copy
import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import zoo
from zoo.benchmark.cost import LiveTensors

pytestmark = pytest.mark.usefixtures("one_thread")

DECODERS = ["unet-basic", "unet-bilinear", "unet-attention", "smp:unet"]


def built(decoder="smp:unet", **options):
    torch.manual_seed(0)
    return zoo.build("resnet18", decoder, classes=2, **options).double().train()


def images(height=64, width=96, *, batch=2):
    torch.manual_seed(1)
    return torch.randn(batch, 3, height, width, dtype=torch.float64)


@contextlib.contextmanager
def module_by_module():
    """Keep all that PyTorch keeps: where others' hooks are in force, nothing is recomputed."""
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        yield


def trained(model, image, steps=1):
    """Return the model's outputs, gradients and buffers after some forward and backward passes."""
    outputs = []
    for _ in range(steps):
        logits = model(image)
        logits.square().mean().backward()
        outputs.append(logits.detach())
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [*outputs, *gradients, *model.buffers()]


def assert_same(model, image, **how):
    plain = copy.deepcopy(model)
    found = trained(model, image, **how)
    with module_by_module():
        expected = trained(plain, image, **how)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def kept_bytes(model, image):
    """Return the bytes of the maps that a forward pass keeps for the backward one."""
    live = LiveTensors(model)
    with live:
        logits = model(image)
        kept = live.live
    del logits
    return kept


def is_recomputed(model, image):
    """Whether less is kept than PyTorch keeps."""
    with module_by_module():
        plain = kept_bytes(model, image)
    return kept_bytes(model, image) < plain


@pytest.mark.parametrize(
    "decoder",
    [
        "unet-basic",
        pytest.param("unet-bilinear", marks=pytest.mark.slow),
        pytest.param("unet-attention", marks=pytest.mark.slow),
        "smp:unet",
    ],
)
def test_output_gradients_and_statistics_are_the_modules_own(decoder):
    model = built(decoder)
    assert is_recomputed(model, images())
    assert_same(model, images(), steps=3)


@pytest.mark.parametrize("decoder", ["unet-basic", "smp:unet"])
def test_it_holds_for_odd_sizes_and_channels_last(decoder):
    assert_same(built(decoder), images(65, 97))
    assert_same(built(decoder).to(memory_format=torch.channels_last), images().to(memory_format=torch.channels_last))


def test_a_training_step_of_smps_unet_takes_seven_tenths_of_smps_memory():
    smp = pytest.importorskip("segmentation_models_pytorch")

    def peak(model):
        model = model.to("meta").train()
        optimizer = torch.optim.AdamW(model.parameters())
        image, target = torch.randn(8, 3, 256, 256, device="meta"), torch.rand(8, 1, 256, 256, device="meta")
        live = LiveTensors(model)
        with live:
            for _ in range(2):
                optimizer.zero_grad(set_to_none=True)
                F.binary_cross_entropy_with_logits(model(image), target).backward()
                optimizer.step()
        return live.peak

    theirs = smp.Unet("resnet18", encoder_weights=None)
    ours = zoo.from_smp(theirs)
    assert peak(ours) <= 0.7 * peak(theirs)


def test_nothing_outlives_the_graph():
    model = built()
    kept = []
    model.decoder.blocks[-1].conv1[0].register_forward_hook(lambda *call: kept.append(weakref.ref(call[-1])))
    gc.disable()
    try:
        logits = model(images())
        assert kept[-1]() is not None
        logits.sum().backward()
        assert kept[-1]() is None  # although the output is there still
        del logits
        model(images())
        assert kept[-1]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("momentum", [None, 0.3])
def test_running_statistics_follow_the_momentum(momentum):
    model = built()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = momentum
    assert_same(model, images(), steps=2)


@pytest.mark.filterwarnings("ignore")  # autocast's own
def test_it_holds_in_autocast():
    model = built().float()
    plain = copy.deepcopy(model)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_recomputed(copy.deepcopy(model), images().float())
    found = []
    for each, around in ((model, contextlib.nullcontext()), (plain, module_by_module())):
        with around, torch.autocast("cpu", torch.bfloat16):
            loss = each(images().float()).float().square().mean()
        loss.backward()
        found.append([parameter.grad for parameter in each.parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


def test_a_graph_can_be_gone_through_twice_and_gradients_have_gradients():
    model, plain = built("unet-basic"), built("unet-basic")
    found = []
    for each, around in ((model, contextlib.nullcontext()), (plain, module_by_module())):
        with around:
            loss = each(images()).square().mean()
            weight = each.decoder.steps[0].convs[0].weight
            (first,) = torch.autograd.grad(loss, weight, retain_graph=True)
            (again,) = torch.autograd.grad(loss, weight, create_graph=True)
            (second,) = torch.autograd.grad(again.square().sum(), weight)
        torch.testing.assert_close(first, again)
        found.append((first, second))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_a_frozen_part_changes_nothing():
    model = built()
    model.encoder.requires_grad_(False)
    model.decoder.blocks[0].requires_grad_(False)
    model.decoder.blocks[2].conv1[1].requires_grad_(False)
    assert_same(model, images())


def changed(model, change):
    """Return a model with one module of its decoder changed: the last block's first norm or ReLU."""
    change(model.decoder.blocks[-1].conv1)
    return model


def synchronised(block):
    block[1] = nn.SyncBatchNorm.convert_sync_batchnorm(block[1])


def listened_to(block):
    block[2].register_forward_hook(lambda *_: None)


def smooth(block):
    block[2] = nn.SiLU()


def without_statistics(block):
    block[1] = nn.BatchNorm2d(block[0].out_channels, track_running_stats=False).double()


@pytest.mark.parametrize("change", [listened_to, smooth, without_statistics])
def test_what_is_no_usual_norm_and_relu_is_run_module_by_module(change):
    calls = []
    model = changed(built(), change)
    model.decoder.blocks[-1].conv1[2].register_forward_hook(lambda *_: calls.append(1))
    assert_same(model, images())
    assert calls


def test_a_synchronised_norm_is_run_as_itself():
    model = changed(built(), synchronised)
    assert isinstance(model.decoder.blocks[-1].conv1[1], nn.SyncBatchNorm)
    assert_same(model, images())


def test_other_norms_and_evaluation_mode_are_left_alone():
    assert not is_recomputed(built(decoder_options={"norm": "group"}), images())
    assert not is_recomputed(built().eval(), images())


def test_checkpointing_and_hooks_of_the_callers_own_go_before():
    model = built()
    plain = copy.deepcopy(model)
    checkpoint(model, images(), use_reentrant=False).square().mean().backward()
    plain(images()).square().mean().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
    with torch.autograd.graph.save_on_cpu():
        assert_same(built(), images())


def test_functional_transforms_go_through():
    model = torch.func.replace_all_batch_norm_modules_(built())
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (images(),)).square().mean()

    found = torch.func.grad(loss)(parameters)
    loss({name: value.requires_grad_() for name, value in parameters.items()}).backward()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, parameters[name].grad)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("decoder", ["unet-basic", "smp:unet"])
def test_on_a_cuda_device_nothing_is_made_anew_since_that_takes_longer(decoder):
    model = built(decoder).cuda()
    assert not is_recomputed(model, images().cuda())
    assert_same(model, images().cuda(), steps=2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_model_trains_as_before():
    model = built()
    plain = copy.deepcopy(model)
    torch.compile(model, dynamic=False, fullgraph=True)(images()).square().mean().backward()
    plain(images()).square().mean().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_a_model_in_train_mode_can_be_exported():
    model = built().float()
    exported = torch.export.export(model, (images().float(),), strict=False).module()
    plain = copy.deepcopy(model)
    torch.testing.assert_close(exported(images().float()), plain(images().float()), rtol=1e-3, atol=1e-4)

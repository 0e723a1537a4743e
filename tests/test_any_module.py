"""Any `nn.Module` in an encoder id's place."""

from __future__ import annotations

import pickle

import pytest
import torch
import torchvision
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
    )


@pytest.fixture(scope="module")
def modules():
    torch.manual_seed(0)
    return {"sequential": small(), "mobilenet": torchvision.models.mobilenet_v3_small()}


@pytest.mark.parametrize("name", ["sequential", "mobilenet"])
@pytest.mark.parametrize("decoder", ["unet-basic", "unet-attention"])
def test_a_module_makes_a_model_that_exports_and_pickles(modules, name, decoder):
    model = zoo.build(modules[name], decoder, classes=2).eval()
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        logits = model(image)
        assert logits.shape == (1, 2, 65, 97)
        assert torch.equal(pickle.loads(pickle.dumps(model))(image), logits)
        torch.testing.assert_close(torch.export.export(model, (image,)).module()(image), logits)


def test_every_parameter_of_such_a_model_gets_a_gradient(modules):
    model = zoo.build(modules["mobilenet"], "unet-attention")
    model(torch.rand(2, 3, 64, 96)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_the_model_shares_the_modules_weights_and_leaves_the_rest_alone():
    module = small().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    random_state = torch.get_rng_state()
    zoo.channels(module)
    assert torch.equal(torch.get_rng_state(), random_state)
    model = zoo.build(module, "unet-basic")
    assert not any(submodule.training for submodule in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert {id(parameter) for parameter in module.parameters()} == {id(parameter) for parameter in model.encoder.parameters()}


def test_only_the_stages_that_the_levels_need_are_held(modules):
    whole = zoo.build(modules["mobilenet"], "unet-basic").encoder
    cut = zoo.build(modules["mobilenet"], "unet-basic", levels=3).encoder
    assert sum(p.numel() for p in cut.parameters()) < 0.2 * sum(p.numel() for p in whole.parameters())


def test_a_module_is_explained_negotiated_and_listed_like_an_id(modules):
    assert zoo.channels(modules["sequential"]) == [8, 16, 24]
    plan = zoo.negotiate(modules["sequential"], "unet-basic")
    assert [route.source.stride for route in plan.routes] == [2, 4, 8]
    assert zoo.explain(modules["sequential"], "unet-basic").startswith("module:Sequential x unet-basic")


def test_other_channels_than_three_are_asked_for_by_in_channels():
    module = nn.Sequential(nn.Conv2d(5, 8, 3, stride=2, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1))
    assert zoo.build(module, "unet-basic", in_channels=5)(torch.rand(1, 5, 33, 33)).shape == (1, 1, 33, 33)
    assert zoo.channels(module, in_channels=5) == [8, 8]
    with pytest.raises(zoo.ZooError, match="in_channels"):
        zoo.build(module, "unet-basic")


def test_a_module_brings_its_own_weights(modules):
    with pytest.raises(zoo.WeightsError, match="brings its own weights"):
        zoo.build(modules["sequential"], "unet-basic", weights="default")


def test_a_module_of_one_stride_gets_a_pyramid_made():
    module = nn.Sequential(nn.Conv2d(3, 24, kernel_size=16, stride=16), nn.GELU(), nn.Conv2d(24, 24, 1))
    model = zoo.build(module, "unet-bilinear").eval()
    assert [entry.stride for entry in model.plan.pyramid] == [4, 8, 16, 32]
    assert model(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


def test_what_is_neither_an_id_nor_a_module_is_refused():
    for wrong in (3, None, b"resnet18", nn.Conv2d):
        with pytest.raises(zoo.OptionError, match="id"):
            zoo.build(wrong, "unet-basic")

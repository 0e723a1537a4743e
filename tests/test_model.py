"""The built model: sizes, channels, gradients, and what a plain module must survive."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")

DECODERS = ("unet-basic", "unet-bilinear", "unet-attention")


class Sum(nn.Module):
    needs = zoo.Needs(channels=32, strides=(4, 8, 16, 32))

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

    def forward(self, features):
        return sum(F.interpolate(x, size=features[0].shape[-2:]) for x in features)


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    torch.manual_seed(0)
    return zoo.build("resnet18", request.param, classes=2).eval()


@pytest.fixture
def basic():
    torch.manual_seed(0)
    return zoo.build("resnet18", "unet-basic").eval()


def by_hand(model, image):
    return model.head(model.decoder(model.encoder(image)))


@pytest.mark.parametrize("size", [(225, 301), (33, 47), (256, 256), (32, 32), (64, 33)])
def test_logits_have_the_images_own_size(model, size):
    with torch.no_grad():
        logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.isfinite().all()


@pytest.mark.parametrize("decoder", DECODERS)
def test_training_gives_every_parameter_a_finite_gradient(decoder):
    model = zoo.build("resnet18", decoder, classes=2)
    assert model.training
    logits = model(torch.rand(2, 3, 65, 97))
    F.cross_entropy(logits, torch.randint(2, (2, 65, 97))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("levels", [None, 2, 3, 4, 5])
@pytest.mark.parametrize(("in_channels", "classes"), [(1, 19), (4, 1), (13, 19)])
def test_any_channels_classes_and_levels_build_on_the_meta_device(decoder, levels, in_channels, classes):
    with torch.device("meta"):
        model = zoo.build("resnet18", decoder, in_channels=in_channels, classes=classes, levels=levels)
        assert model(torch.rand(2, in_channels, 225, 301)).shape == (2, classes, 225, 301)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    assert len(model.plan.routes) == (levels or 5)


@pytest.mark.parametrize(("in_channels", "classes", "levels"), [(1, 19, 2), (4, 1, 3), (13, 19, 4)])
def test_any_channels_classes_and_levels_compute(in_channels, classes, levels):
    model = zoo.build("resnet18", "unet-attention", in_channels=in_channels, classes=classes, levels=levels)
    logits = model(torch.rand(2, in_channels, 33, 47))
    assert logits.shape == (2, classes, 33, 47)
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_the_encoder_holds_no_stage_that_the_plan_leaves_out():
    model = zoo.build("resnet18", "unet-basic", levels=3)
    assert [name for name, _ in model.encoder.named_children()] == ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2"]


def test_more_levels_than_the_encoder_has_are_refused():
    with pytest.raises(zoo.NegotiationError, match=r"resnet18 cannot serve unet-basic(?s:.)*levels=6.*at most 5"):
        zoo.build("resnet18", "unet-basic", levels=6)
    with pytest.raises(zoo.NegotiationError, match="at least 2"):
        zoo.build("resnet18", "unet-basic", levels=1)


@pytest.mark.parametrize("policy", ["auto", "pad", "resize", "error"])
def test_an_image_of_a_fitting_size_is_taken_as_it_is(policy):
    model = zoo.build("resnet18", "unet-basic", size_policy=policy).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(image), by_hand(model, image))


@pytest.mark.parametrize("policy", ["auto", "pad"])
def test_padding_adds_zeros_right_and_bottom_and_crops_the_logits(policy):
    model = zoo.build("resnet18", "unet-basic", size_policy=policy).eval()
    image = torch.rand(1, 3, 33, 47)
    padded = torch.zeros(1, 3, 64, 64)
    padded[..., :33, :47] = image
    with torch.no_grad():
        assert torch.equal(model(image), by_hand(model, padded)[..., :33, :47])


def test_padding_is_to_the_coarsest_stride_in_use_only():
    model = zoo.build("resnet18", "unet-basic", levels=2, size_policy="error").eval()
    assert model(torch.rand(1, 3, 36, 44)).shape == (1, 1, 36, 44)
    with pytest.raises(zoo.InputError, match=r"multiples of 4; found 36 x 45"):
        model(torch.rand(1, 3, 36, 45))


def test_resizing_brings_the_image_up_and_the_logits_back():
    model = zoo.build("resnet18", "unet-basic", size_policy="resize").eval()
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        logits = by_hand(model, F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False))
        assert torch.equal(model(image), F.interpolate(logits, size=(33, 47), mode="bilinear", align_corners=False))


def test_a_size_that_does_not_fit_is_refused_where_asked():
    model = zoo.build("resnet18", "unet-basic", size_policy="error")
    with pytest.raises(zoo.InputError, match=r"multiples of 32; found 225 x 301\. Build with size_policy='auto'"):
        model(torch.rand(1, 3, 225, 301))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 3, 64), (1, 1, 3, 64, 64), (1, 64, 64, 3)])
def test_a_tensor_that_is_no_batch_of_such_images_is_refused(basic, shape):
    with pytest.raises(zoo.InputError, match=r"resnet18 x unet-basic takes images of shape \(N, 3, H, W\); found") as caught:
        basic(torch.rand(*shape))
    assert str(shape) in str(caught.value)


def test_eval_mode_gives_the_same_twice(model):
    image = torch.rand(2, 3, 65, 97)
    with torch.no_grad():
        assert torch.equal(model(image), model(image))


def test_a_seed_settles_the_weights():
    torch.manual_seed(3)
    first = zoo.build("resnet18", "unet-attention").state_dict()
    torch.manual_seed(3)
    second = zoo.build("resnet18", "unet-attention").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"]
)
def test_a_copy_gives_the_same_and_shares_nothing(model, duplicate):
    other = duplicate(model)
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        assert torch.equal(other(image), model(image))
        other.head.bias.add_(1)
        assert not torch.equal(other(image), model(image))
    assert (other.pairing, other.plan) == (model.pairing, model.plan)


def test_a_state_dict_restores_the_model(model):
    torch.manual_seed(1)
    pairing = model.pairing
    other = zoo.build(pairing.encoder, pairing.decoder, classes=pairing.classes).eval()
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        assert not torch.equal(other(image), model(image))
        other.load_state_dict(model.state_dict())
        assert torch.equal(other(image), model(image))


def test_the_model_exports_at_a_fixed_size(model):
    image = torch.rand(1, 3, 33, 47)
    exported = torch.export.export(model, (image,)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(image), model(image))


def test_the_model_knows_what_was_asked_for():
    model = zoo.build("torchvision:resnet18", "unet-basic", classes=3, levels=2, decoder_options={"channels": [16, 8]})
    assert model.pairing == zoo.Pairing(
        "torchvision:resnet18", "unet-basic", classes=3, levels=2, decoder_options={"channels": (16, 8)}
    )
    assert model.plan == zoo.negotiate("resnet18", "unet-basic", levels=2)


def test_weights_that_were_never_trained_take_pixels_as_they_are():
    model = zoo.build("resnet18", "unet-basic", in_channels=4, levels=2)
    assert model.preprocessing == zoo.Preprocessing(mean=(0.0,) * 4, std=(1.0,) * 4, value_range=(0.0, 1.0))


@pytest.mark.usefixtures("fresh_registry")
def test_the_plans_projections_are_the_models_adapters():
    zoo.register_decoder("sum", Sum)
    model = zoo.build("resnet18", "sum", classes=5)
    assert model.plan.maps == ("layer1", "layer2", "layer3", "layer4")
    assert [(conv.in_channels, conv.out_channels, conv.kernel_size) for conv in model.adapters] == [
        (width, 32, (1, 1)) for width in (64, 128, 256, 512)
    ]
    parameters = sum(parameter.numel() for parameter in model.adapters.parameters())
    assert parameters == model.plan.adapter_parameters == (64 + 128 + 256 + 512 + 4) * 32
    logits = model(torch.rand(2, 3, 33, 47))
    assert logits.shape == (2, 5, 33, 47)
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.adapters.parameters())


@pytest.mark.usefixtures("fresh_registry")
def test_with_no_adapters_allowed_a_decoder_of_one_width_is_refused():
    zoo.register_decoder("sum", Sum)
    with pytest.raises(zoo.NegotiationError, match=r"layer2 \(128 ch, stride 8\) would need 1x1 convolution 128 -> 32"):
        zoo.build("resnet18", "sum", adapters="none")
    assert zoo.build("resnet18", "unet-basic", levels=2, adapters="none").plan.adapter_parameters == 0


def test_an_unknown_encoder_is_answered_with_the_nearest():
    with pytest.raises(zoo.UnknownIdError, match=r"'resnt18'.*Did you mean resnet18\b"):
        zoo.build("resnt18", "unet-basic")


def test_what_is_no_tensor_is_an_input_error():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-basic", levels=2)
    with pytest.raises(zoo.InputError, match="found None"):
        model(None)


def test_an_encoder_that_returns_too_few_maps_is_named(fresh_registry):
    class Forgetful(nn.Module):
        def __init__(self, *, maps, in_channels, weights):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)

        def forward(self, image):
            return [self.conv(image)]

    pyramid = [zoo.FeatureMap(name=f"map{stride}", channels=4, stride=stride) for stride in (2, 4)]
    zoo.register_encoder("forgetful", Forgetful, pyramid=pyramid)
    model = zoo.build("forgetful", "unet-basic")
    with pytest.raises(zoo.PluginError, match=r"forgetful was asked for 2 maps \(map2, map4\) and returned 1"):
        model(torch.rand(1, 3, 32, 32))


def test_weights_may_be_a_path_object_everywhere(tmp_path):
    assert zoo.negotiate("resnet18", "unet-basic", weights=tmp_path / "file.pth") == zoo.negotiate("resnet18", "unet-basic")


def test_pixels_that_are_no_floating_point_numbers_are_an_input_error():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-basic", levels=2)
        with pytest.raises(zoo.InputError, match=r"floating-point.*uint8.*preprocessing"):
            model(torch.empty(1, 3, 32, 32, dtype=torch.uint8))


def test_the_image_size_is_told_to_an_encoder_that_asks_for_it(fresh_registry):
    class Sized(nn.Module):
        def __init__(self, *, maps, in_channels, weights, image_size=(32, 32)):
            super().__init__()
            self.image_size = image_size

    pyramid = [zoo.FeatureMap(name=f"map{stride}", channels=4, stride=stride) for stride in (2, 4)]
    zoo.register_encoder("sized", Sized, pyramid=pyramid)
    assert zoo.build("sized", "unet-basic", image_size=(96, 64)).encoder.image_size == (96, 64)
    assert zoo.build("sized", "unet-basic").encoder.image_size == (32, 32)
    with pytest.raises(zoo.OptionError, match="image_size"):
        zoo.build("sized", "unet-basic", image_size=(96, 64), encoder_options={"image_size": (1, 1)})

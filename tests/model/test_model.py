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


class OneSize(nn.Module):
    """Gives maps of strides 4 and 8 of images of one size only, as an encoder with position embeddings does."""

    PYRAMID = tuple(zoo.plugin.FeatureMap(name=f"map{stride}", channels=stride, stride=stride) for stride in (4, 8))

    def __init__(self, *, maps, in_channels, weights, image_size=(32, 48)):
        super().__init__()
        self.maps, self.image_size = maps, image_size
        self.position = nn.Parameter(torch.randn(4, image_size[0] // 4, image_size[1] // 4))
        self.fine = nn.Conv2d(in_channels, 4, 4, stride=4)
        self.coarse = nn.Conv2d(4, 8, 2, stride=2)

    def forward(self, image):
        assert image.shape[-2:] == self.image_size
        fine = self.fine(image) + self.position
        return [{"map4": fine, "map8": self.coarse(fine)}[name] for name in self.maps]


class Patches(nn.Module):
    """Gives one map of stride 14, as a ViT does."""

    PYRAMID = (zoo.plugin.FeatureMap(name="patches", channels=12, stride=14),)

    def __init__(self, *, maps, in_channels, weights):
        super().__init__()
        assert maps == ("patches",)
        self.embed = nn.Conv2d(in_channels, 12, 14, stride=14)

    def forward(self, image):
        return [self.embed(image)]


class Dilating(nn.Module):
    """Gives maps of strides 4 to 32, or no coarser than `output_stride`."""

    def __init__(self, *, maps, in_channels, weights, output_stride=32):
        super().__init__()
        self.maps, self.output_stride = maps, output_stride
        self.stem = nn.Conv2d(in_channels, 4, 4, stride=4)
        self.stages = nn.ModuleList(
            nn.Conv2d(4, 4, 3, padding=1, stride=2)
            if stride <= output_stride
            else nn.Conv2d(4, 4, 3, padding=stride // output_stride, dilation=stride // output_stride)
            for stride in (8, 16, 32)
        )

    @staticmethod
    def pyramid(output_stride=32):
        return tuple(
            zoo.plugin.FeatureMap(name=f"stage{index}", channels=4, stride=min(output_stride, 4 * 2**index))
            for index in range(4)
        )

    def forward(self, image):
        maps = [self.stem(image)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return [given for index, given in enumerate(maps) if f"stage{index}" in self.maps]


class Coarsest(nn.Module):
    needs = zoo.Needs(max_levels=1, output_stride=8)

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

    def forward(self, features):
        self.seen = features[-1].shape[-2:]
        return features[-1]


@pytest.fixture
def one_size(fresh_registry):
    torch.manual_seed(0)
    sizes = zoo.plugin.ImageSizes(multiple=8, fixed=(32, 48), adapts=True)
    zoo.register_encoder("one-size", OneSize, pyramid=OneSize.PYRAMID, sizes=sizes)


@pytest.fixture
def patches(fresh_registry):
    torch.manual_seed(0)
    zoo.register_encoder("patches", Patches, pyramid=Patches.PYRAMID)


@pytest.fixture
def dilating(fresh_registry):
    torch.manual_seed(0)
    zoo.register_encoder("dilating", Dilating, pyramid=Dilating.pyramid, output_strides=(8, 16))
    zoo.register_decoder("coarsest", Coarsest)


@pytest.fixture(scope="module", params=DECODERS)
def model(request):
    torch.manual_seed(0)
    return zoo.build("resnet18", request.param, classes=2).eval()


@pytest.fixture
def basic():
    torch.manual_seed(0)
    return zoo.build("resnet18", "unet-basic").eval()


def by_hand(model, image):
    given = dict(zip(model.plan.maps, model.encoder(image), strict=True))
    inputs = [adapter(given[route.source.name]) for adapter, route in zip(model.adapters, model.plan.routes, strict=True)]
    return model.head(model.decoder(inputs))


def padded(image, height, width):
    larger = torch.zeros(*image.shape[:-2], height, width)
    larger[..., : image.shape[-2], : image.shape[-1]] = image
    return larger


def resized(image, height, width):
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(225, 301), (33, 47), (256, 256), (32, 32), (64, 33)])
def test_logits_have_the_images_own_size(model, size):
    with torch.no_grad():
        logits = model(torch.rand(2, 3, *size))
    assert logits.shape == (2, 2, *size)
    assert logits.isfinite().all()


class WithImage(nn.Module):
    needs = zoo.Needs(image=True, strides=(4, 8))

    def __init__(self, pyramid):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(entry.channels, 4, 1) for entry in pyramid)
        self.out_channels, self.out_stride = 4, 1

    def forward(self, features):
        return sum(resized(conv(x), *features[0].shape[-2:]) for conv, x in zip(self.convs, features, strict=True))


def test_a_decoder_that_asks_for_the_image_gets_it_as_the_encoder_sees_it(fresh_registry):
    zoo.register_decoder("with-image", WithImage)
    model = zoo.build("resnet18", "with-image", in_channels=4, classes=2).eval()
    image = torch.rand(2, 4, 33, 47)
    seen = padded(image, 40, 48)
    with torch.no_grad():
        expected = model.head(model.decoder([seen, *model.encoder(seen)]))[..., :33, :47]
        torch.testing.assert_close(model(image), expected)


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
@pytest.mark.parametrize(("levels", "in_channels", "classes"), [(None, 1, 19), (2, 4, 1), (3, 13, 19), (4, 1, 1), (5, 4, 19)])
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
    with pytest.raises(zoo.errors.NegotiationError, match=r"resnet18 cannot serve unet-basic(?s:.)*levels=6.*at most 5"):
        zoo.build("resnet18", "unet-basic", levels=6)
    with pytest.raises(zoo.errors.NegotiationError, match="at least 2"):
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
    with torch.no_grad():
        assert torch.equal(model(image), by_hand(model, padded(image, 64, 64))[..., :33, :47])


def test_padding_is_to_the_coarsest_stride_in_use_only():
    model = zoo.build("resnet18", "unet-basic", levels=2, size_policy="error").eval()
    assert model(torch.rand(1, 3, 36, 44)).shape == (1, 1, 36, 44)
    with pytest.raises(zoo.errors.InputError, match=r"multiples of 4 \(size_policy='error'\); found 36 x 45"):
        model(torch.rand(1, 3, 36, 45))


def test_resizing_brings_the_image_up_and_the_logits_back():
    model = zoo.build("resnet18", "unet-basic", size_policy="resize").eval()
    image = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        assert torch.equal(model(image), resized(by_hand(model, resized(image, 64, 64)), 33, 47))


def test_a_size_that_does_not_fit_is_refused_where_asked():
    model = zoo.build("resnet18", "unet-basic", size_policy="error")
    with pytest.raises(
        zoo.errors.InputError,
        match=r"multiples of 32 .*found 225 x 301\. To accept other sizes, build the model with size_policy='auto'",
    ):
        model(torch.rand(1, 3, 225, 301))


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64), (1, 3, 64), (1, 1, 3, 64, 64), (1, 64, 64, 3)])
def test_a_tensor_that_is_no_batch_of_such_images_is_refused(basic, shape):
    with pytest.raises(
        zoo.errors.InputError, match=r"resnet18 x unet-basic takes images of shape \(N, 3, H, W\); found"
    ) as caught:
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
    with pytest.raises(
        zoo.errors.NegotiationError, match=r"layer2 \(128 ch, stride 8\) .*would need .*1x1 convolution 128 -> 32"
    ):
        zoo.build("resnet18", "sum", adapters="none")
    assert zoo.build("resnet18", "unet-basic", levels=2, adapters="none").plan.adapter_parameters == 0


def test_an_unknown_encoder_is_answered_with_the_nearest():
    with pytest.raises(zoo.errors.UnknownIdError, match=r"'resnt18'.*Did you mean resnet18\b"):
        zoo.build("resnt18", "unet-basic")


def test_what_is_no_tensor_is_an_input_error():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-basic", levels=2)
    with pytest.raises(zoo.errors.InputError, match="found a value of type NoneType"):
        model(None)


def test_an_encoder_that_returns_too_few_maps_is_named(fresh_registry):
    class Forgetful(nn.Module):
        def __init__(self, *, maps, in_channels, weights):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)

        def forward(self, image):
            return [self.conv(image)]

    pyramid = [zoo.plugin.FeatureMap(name=f"map{stride}", channels=4, stride=stride) for stride in (2, 4)]
    zoo.register_encoder("forgetful", Forgetful, pyramid=pyramid)
    model = zoo.build("forgetful", "unet-basic")
    with pytest.raises(zoo.errors.PluginError, match=r"forgetful must return 2 maps \(map2, map4\), but returned 1"):
        model(torch.rand(1, 3, 32, 32))


def test_weights_may_be_a_path_object_everywhere(tmp_path):
    assert zoo.negotiate("resnet18", "unet-basic", weights=tmp_path / "file.pth") == zoo.negotiate("resnet18", "unet-basic")


@pytest.fixture(scope="module")
def small():
    return zoo.build("resnet18", "unet-basic", levels=2, decoder_options={"channels": (8, 4)}).eval()


UNFIT = {
    "bytes": (lambda image: image.to(torch.uint8), r"floating-point images; found torch\.uint8.*preprocessing"),
    "complex": (lambda image: image.to(torch.complex64), r"floating-point images; found torch\.complex64"),
    "float64": (
        torch.Tensor.double,
        r"parameters of torch\.float32; found an image of torch\.float64.*image\.to\(torch\.float32\)",
    ),
    "float16": (torch.Tensor.half, r"parameters of torch\.float32; found an image of torch\.float16"),
    "no height": (lambda image: image[:, :, :0], r"at least one pixel; found the shape \(2, 3, 0, 32\)"),
    "no width": (lambda image: image[..., :0], r"at least one pixel; found the shape \(2, 3, 32, 0\)"),
    "no channel": (lambda image: image[:, :0], r"shape \(N, 3, H, W\); found \(2, 0, 32, 32\)"),
    "no batch axis": (lambda image: image[0], r"shape \(N, 3, H, W\); found \(3, 32, 32\)"),
    "an array": (torch.Tensor.numpy, "found a value of type ndarray"),
}


@pytest.mark.parametrize(("change", "words"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("way", ["eager", "train", "exported"])
def test_an_image_that_no_model_takes_is_an_input_error(small, change, words, way):
    image = change(torch.rand(2, 3, 32, 32))
    small.train(way == "train")
    with pytest.raises(zoo.errors.InputError, match=words):
        torch.export.export(small, (image,)) if way == "exported" and torch.is_tensor(image) else small(image)
    small.eval()


def test_a_compiled_model_refuses_an_image_of_another_dtype_in_the_same_words(small):
    with pytest.raises(zoo.errors.InputError, match=UNFIT["float64"][1]):
        torch.compile(small, backend="eager")(torch.rand(1, 3, 32, 32).double())


def test_an_empty_batch_has_empty_logits_and_is_not_learned_from(small):
    empty = torch.rand(0, 3, 32, 32)
    assert small(empty).shape == (0, 1, 32, 32)
    with pytest.raises(zoo.errors.InputError, match=r"cannot be trained on an empty batch.*\(0, 3, 32, 32\)"):
        small.train()(empty)
    small.eval()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_float32_image_is_for_a_model_of_another_dtype_only_under_autocast(dtype):
    model = zoo.build("resnet18", "unet-basic", levels=2).to(dtype).eval()
    image = torch.rand(1, 3, 32, 32)
    with pytest.raises(zoo.errors.InputError, match=rf"parameters of {dtype}; found an image of torch\.float32"):
        model(image)
    assert model(image.to(dtype)).dtype == dtype


def test_autocast_takes_images_of_every_float_but_float64(small):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            assert small(torch.rand(1, 3, 32, 32).to(dtype)).dtype == torch.bfloat16
        with pytest.raises(zoo.errors.InputError, match=r"found an image of torch\.float64"):
            small(torch.rand(1, 3, 32, 32).double())


def test_an_image_on_another_device_than_the_model_is_an_input_error(small):
    with pytest.raises(zoo.errors.InputError, match="The model is on cpu, but the image is on meta"):
        small(torch.rand(1, 3, 32, 32, device="meta"))


def test_the_image_size_is_told_to_an_encoder_that_adapts(one_size):
    assert zoo.build("one-size", "unet-basic", image_size=(96, 64)).encoder.image_size == (96, 64)
    assert zoo.build("one-size", "unet-basic", image_size=(90, 57)).encoder.image_size == (96, 64)
    assert zoo.build("one-size", "unet-basic").encoder.image_size == (32, 48)
    with pytest.raises(zoo.errors.OptionError, match="image_size"):
        zoo.build("one-size", "unet-basic", image_size=(96, 64), encoder_options={"image_size": (1, 1)})


@pytest.mark.parametrize("sizes", [zoo.plugin.ImageSizes(), zoo.plugin.ImageSizes(multiple=8, fixed=(32, 48))])
def test_the_image_size_is_not_told_to_an_encoder_that_does_not_adapt(fresh_registry, sizes):
    zoo.register_encoder("one-size", OneSize, pyramid=OneSize.PYRAMID, sizes=sizes)
    assert zoo.build("one-size", "unet-basic", image_size=(96, 64)).encoder.image_size == (32, 48)


def test_an_encoder_that_adapts_and_cannot_be_told_an_image_size_is_the_plugins_error(fresh_registry):
    sizes = zoo.plugin.ImageSizes(fixed=(28, 28), adapts=True)
    zoo.register_encoder("patches", Patches, pyramid=Patches.PYRAMID, sizes=sizes)
    with pytest.raises(zoo.errors.PluginError, match=r"factory of local:patches raised TypeError.*image_size"):
        zoo.build("patches", "unet-basic", image_size=(28, 28))


ONE_SIZE_CASES = {
    (32, 48): dict.fromkeys(("auto", "pad", "resize", "error"), "as is"),
    (20, 48): {"auto": "pad", "pad": "pad", "resize": "resize", "error": "refuse"},
    (31, 5): {"auto": "pad", "pad": "pad", "resize": "resize", "error": "refuse"},
    (33, 40): {"auto": "resize", "pad": "refuse", "resize": "resize", "error": "refuse"},
    (75, 101): {"auto": "resize", "pad": "refuse", "resize": "resize", "error": "refuse"},
}


@pytest.mark.parametrize("policy", ["auto", "pad", "resize", "error"])
@pytest.mark.parametrize("image_size", [None, (32, 48), (27, 41)])
def test_an_encoder_of_one_size_sees_it_and_the_logits_have_the_images(one_size, policy, image_size):
    if policy == "error" and image_size == (27, 41):
        with pytest.raises(zoo.errors.OptionError, match=r"image_size=27x41 is refused.*32x48"):
            zoo.build("one-size", "unet-basic", size_policy=policy, image_size=image_size)
        return
    model = zoo.build("one-size", "unet-basic", classes=2, size_policy=policy, image_size=image_size).eval()
    assert model.encoder.image_size == (32, 48)
    done = {
        "as is": lambda image: by_hand(model, image),
        "pad": lambda image: by_hand(model, padded(image, 32, 48))[..., : image.shape[-2], : image.shape[-1]],
        "resize": lambda image: resized(by_hand(model, resized(image, 32, 48)), *image.shape[-2:]),
    }
    for size, by_policy in ONE_SIZE_CASES.items():
        image = torch.rand(2, 3, *size)
        if by_policy[policy] == "refuse":
            with pytest.raises(
                zoo.errors.InputError, match=rf"images of .*32x48 .*found {size[0]} x {size[1]}\. To accept other sizes, build"
            ):
                model(image)
            continue
        with torch.no_grad():
            logits = model(image)
            assert logits.shape == (2, 2, *size)
            assert torch.equal(logits, done[by_policy[policy]](image))


def test_an_encoder_made_for_a_larger_size_takes_a_larger_image_without_resizing(one_size):
    model = zoo.build("one-size", "unet-basic", image_size=(60, 90)).eval()
    assert model.encoder.image_size == (64, 96)
    image = torch.rand(1, 3, 60, 90)
    with torch.no_grad():
        assert torch.equal(model(image), by_hand(model, padded(image, 64, 96))[..., :60, :90])
        assert model(torch.rand(1, 3, 200, 30)).shape == (1, 1, 200, 30)


def test_an_encoder_of_one_size_trains_on_images_of_another(one_size):
    model = zoo.build("one-size", "unet-basic")
    model(torch.rand(2, 3, 30, 50)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_an_image_is_brought_to_what_an_encoder_of_several_rules_takes(fresh_registry):
    seen = []

    class Picky(Patches):
        def forward(self, image):
            seen.append(tuple(image.shape[-2:]))
            return super().forward(image)

    sizes = zoo.plugin.ImageSizes(multiple=4, minimum=50, square=True)
    zoo.register_encoder("picky", Picky, pyramid=Patches.PYRAMID, sizes=sizes)
    model = zoo.build("picky", "unet-basic").eval()
    for size in ((3, 7), (56, 57), (84, 84)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 1, *size)
    assert seen == [(56, 56), (84, 84), (84, 84)]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("levels", [None, 2, 3])
def test_an_encoder_of_one_map_serves_every_unet_at_full_resolution(patches, decoder, levels):
    model = zoo.build("patches", decoder, classes=2, levels=levels)
    assert [entry.stride for entry in model.plan.pyramid] == [3.5, 7, 14, 28][:levels]
    added = sum(parameter.numel() for parameter in model.adapters.parameters())
    assert added == model.plan.adapter_parameters > 0
    logits = model(torch.rand(2, 3, 30, 45))
    assert logits.shape == (2, 2, 30, 45)
    F.cross_entropy(logits, torch.randint(2, (2, 30, 45))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("decoder", ["unet-basic", "unet-bilinear"])
def test_an_image_of_one_patch_is_enough(patches, decoder):
    model = zoo.build("patches", decoder).eval()
    for size in ((14, 14), (1, 1)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 1, *size)


def test_an_image_of_one_patch_is_enough_for_attention(patches):
    model = zoo.build("patches", "unet-attention").eval()
    assert model(torch.rand(1, 3, 14, 14)).shape == (1, 1, 14, 14)


def test_a_pyramid_made_from_one_map_exports_and_pickles(patches):
    model = zoo.build("patches", "unet-basic").eval()
    image = torch.rand(1, 3, 30, 45)
    with torch.no_grad():
        expected = model(image)
        torch.testing.assert_close(torch.export.export(model, (image,)).module()(image), expected)
    again = zoo.build("patches", "unet-basic").eval()
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(again(image), expected)
        assert torch.equal(pickle.loads(pickle.dumps(model))(image), expected)


def test_without_adapters_an_encoder_of_one_map_is_refused_with_every_level(patches):
    with pytest.raises(zoo.errors.NegotiationError) as caught:
        zoo.build("patches", "unet-basic", adapters="none")
    for level, stride in enumerate((4, 8, 16, 32), start=1):
        assert f"level {level} (stride {stride}): " in str(caught.value)


def test_a_filled_stride_is_computed_and_learns(fresh_registry):
    class Gap(nn.Module):
        def __init__(self, *, maps, in_channels, weights):
            super().__init__()
            self.fine = nn.Conv2d(in_channels, 6, 4, stride=4)
            self.coarse = nn.Conv2d(6, 6, 4, stride=4)

        def forward(self, image):
            fine = self.fine(image)
            return [fine, self.coarse(fine)]

    maps = [zoo.plugin.FeatureMap(name=f"map{stride}", channels=6, stride=stride) for stride in (4, 16)]
    zoo.register_encoder("gap", Gap, pyramid=maps)
    zoo.register_decoder("sum", Sum, needs=zoo.Needs(strides=(4, 8, 16)))
    model = zoo.build("gap", "sum")
    assert [adapter.kind for adapter in model.plan.adapters] == ["fill"]
    image = torch.rand(1, 3, 33, 47)
    logits = model(image)
    assert logits.shape == (1, 1, 33, 47)
    logits.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    with torch.no_grad():
        larger = resized(by_hand(model, padded(image, 48, 48)), 48, 48)
        assert torch.equal(logits, larger[..., :33, :47])


def test_an_encoder_that_can_dilate_is_given_the_output_stride_that_the_decoder_wants(dilating):
    model = zoo.build("dilating", "coarsest")
    assert model.encoder.output_stride == 8
    assert model.plan.encoder_options == {"output_stride": 8}
    assert model.pairing.encoder_options == {}
    assert model.plan.maps == ("stage3",)
    assert model.plan.sizes.sizes.multiple == 8
    assert model(torch.rand(1, 3, 35, 47)).shape == (1, 1, 35, 47)
    assert model.decoder.seen == (5, 6)
    assert model.plan.notes[0].endswith("dilating is built with output_stride=8 (dilated).")


def test_an_encoder_that_cannot_dilate_gives_its_coarsest_map_up_to_the_output_stride(dilating):
    model = zoo.build("resnet18", "coarsest")
    assert model.plan.maps == ("layer2",)
    assert model.plan.encoder_options == {}
    assert "resnet18 cannot dilate to it" in model.plan.notes[0]
    assert model(torch.rand(1, 3, 33, 47)).shape == (1, 1, 33, 47)
    assert model.decoder.seen == (5, 6)


def test_what_is_asked_of_the_encoder_goes_before_what_the_decoder_wants(dilating):
    model = zoo.build("dilating", "coarsest", encoder_options={"output_stride": 16})
    assert model.encoder.output_stride == 16
    assert model.plan.encoder_options == {}
    assert model.plan.maps == ("stage1",)


def test_without_adapters_an_encoder_is_not_dilated_and_the_plan_says_so(dilating):
    model = zoo.build("dilating", "coarsest", adapters="none")
    assert (model.encoder.output_stride, model.plan.maps) == (32, ("stage1",))
    assert "could dilate to it, but adapters='none' forbids it" in model.plan.notes[0]


def test_normalize_gives_images_the_mean_the_deviation_and_the_range_of_the_weights():
    model = zoo.build("timm:test_resnet", "unet-basic")
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(model.normalize(images), images)
    model.preprocessing = zoo.Preprocessing(mean=(100.0, 110.0, 120.0), std=(50.0, 60.0, 70.0), value_range=(0.0, 255.0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std))
    torch.testing.assert_close(model.normalize(images), (255 * images - mean) / std)


class TakesChannels(torch.nn.Module):
    """A decoder in the style of tutorials, which takes a list of channels."""

    out_channels, out_stride = 8, 2

    def __init__(self, channels):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Conv2d(width // 2, 8, 1) for width in channels)


def test_a_decoder_that_takes_channels_is_told_how_to_be_registered(fresh_registry):
    zoo.register_decoder("takes-channels", TakesChannels)
    with pytest.raises(zoo.errors.PluginError, match=r"raised TypeError.*register zoo\.from_channels\(CLASS\)"):
        zoo.build("resnet18", "takes-channels")


@pytest.mark.parametrize("register", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_hook_on_an_adapter_that_does_nothing_is_called(register):
    model = zoo.build("resnet18", "unet-basic").eval()
    called = []
    assert isinstance(model.adapters[0], torch.nn.Identity)
    getattr(model.adapters[0], register)(lambda *_: called.append(True))
    model(torch.rand(1, 3, 32, 32))
    assert called == [True]

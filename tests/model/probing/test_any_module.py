"""Any `nn.Module` in an encoder id's place."""

from __future__ import annotations

import pickle

import pytest
import small_networks
import timm
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
    return {"sequential": small(), "mobilenet": small_networks.mobilenet()}


@pytest.mark.parametrize(("name", "decoder"), [("sequential", "unet-basic"), ("mobilenet", "unet-attention")])
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


@pytest.mark.parametrize("function", [zoo.build, zoo.negotiate, zoo.explain])
def test_a_module_brings_its_own_weights(modules, function):
    with pytest.raises(zoo.errors.WeightsError, match=r"Sequential is a module and has its own weights.*found 'imagenet'"):
        function(modules["sequential"], "unet-basic", weights="imagenet")


def test_a_module_of_one_stride_gets_a_pyramid_made():
    module = nn.Sequential(nn.Conv2d(3, 24, kernel_size=16, stride=16), nn.GELU(), nn.Conv2d(24, 24, 1))
    model = zoo.build(module, "unet-bilinear").eval()
    assert [entry.stride for entry in model.plan.pyramid] == [4, 8, 16, 32]
    assert model(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


def test_what_is_neither_an_id_nor_a_module_is_refused():
    for wrong in (3, None, b"resnet18", nn.Conv2d):
        with pytest.raises(zoo.errors.OptionError, match="id"):
            zoo.build(wrong, "unet-basic")


class Tokens(nn.Module):
    """A vision transformer as people write it: patches, a class token, blocks, and tokens (N, L, C) as its output."""

    def __init__(self, patch_size=8, num_prefix_tokens=1):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, patch_size, patch_size)
        self.prefix = nn.Parameter(torch.rand(1, num_prefix_tokens, 16))
        self.blocks = nn.Sequential(*[nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16)) for _ in range(2)])

    def forward(self, image):
        x = self.patch(image).flatten(2).transpose(1, 2)
        return self.blocks(torch.cat([self.prefix.expand(x.shape[0], -1, -1), x], 1))


class Classifies(nn.Module):
    """Pools another module's tokens."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.head = tokens, nn.Linear(16, 4)

    def forward(self, image):
        return self.head(self.tokens(image).mean(1))


def declared(module, **declared_as):
    for name, value in declared_as.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    "wrap", [lambda tokens: tokens, Classifies, nn.Sequential, lambda tokens: nn.Sequential(tokens, nn.GELU())]
)
def test_tokens_whose_order_nobody_declares_are_refused_and_no_patch_embedding_is_taken_in_their_place(wrap):
    with pytest.raises(
        zoo.errors.NegotiationError, match=r"blocks.0.0.weight(?s:.)*num_prefix_tokens(?s:.)*forward_intermediates"
    ):
        zoo.build(wrap(Tokens()), "unet-basic")


def test_a_declaration_that_the_number_of_tokens_refutes_is_refused():
    for wrong in ({"num_prefix_tokens": 0, "patch_size": 8}, {"num_prefix_tokens": 1, "patch_size": 16}):
        with pytest.raises(zoo.errors.NegotiationError, match=f"declares {wrong['num_prefix_tokens']} prefix tokens"):
            zoo.build(declared(Tokens(), **wrong), "unet-basic")


@pytest.mark.parametrize(("patch_size", "num_prefix_tokens"), [(8, 1), (7, 3), (8, 0)])
def test_declared_tokens_are_a_map_of_their_patches_in_rows(patch_size, num_prefix_tokens):
    tokens = Tokens(patch_size, num_prefix_tokens)
    declared(tokens, num_prefix_tokens=num_prefix_tokens, patch_size=(patch_size, patch_size))
    model = zoo.build(Classifies(tokens), "unet-basic").eval()
    image = torch.rand(2, 3, 6 * patch_size, 4 * patch_size)
    with torch.no_grad():
        found, expected = model.encoder(image)[0], tokens(image)
    assert found.shape == (2, 16, 6, 4)
    for row, column in [(0, 0), (2, 1), (5, 3)]:
        torch.testing.assert_close(found[:, :, row, column], expected[:, num_prefix_tokens + 4 * row + column])
    assert {name for name, _ in model.encoder.named_parameters()} >= {f"tokens.{name}" for name, _ in tokens.named_parameters()}
    with torch.no_grad():
        logits = model(torch.rand(1, 3, 61, 83))
        assert logits.shape == (1, 1, 61, 83)
        assert torch.equal(pickle.loads(pickle.dumps(model))(image), model(image))
        torch.testing.assert_close(torch.export.export(model, (image,)).module()(image), model(image))


def test_a_vision_transformer_that_declares_its_tokens_is_an_encoder_with_all_of_its_blocks():
    module = timm.create_model("vit_tiny_patch16_224", dynamic_img_size=True, depth=2).eval()
    model = zoo.build(module, "unet-basic").eval()
    held = {id(parameter) for parameter in model.encoder.parameters()}
    assert {name for name, parameter in module.named_parameters() if id(parameter) not in held} == {"head.weight", "head.bias"}
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = module.forward_intermediates(image, indices=1, norm=True, intermediates_only=True)[0]
        torch.testing.assert_close(model.encoder(image)[0], expected)


def test_a_list_of_a_map_and_of_tokens_is_not_cut_down_to_its_maps():
    class Both(Tokens):
        def forward(self, image):
            fine = self.patch(image)
            return [fine, fine.relu(), super().forward(image)]

    with pytest.raises(zoo.errors.NegotiationError, match="blocks"):
        zoo.build(Both(), "unet-basic")


def test_the_last_map_is_taken_even_where_it_lies_deeper_than_another_of_its_stride():
    module = torchvision.models.squeezenet1_1()
    held = {id(parameter) for parameter in zoo.build(module, "unet-basic").encoder.parameters()}
    assert all(id(parameter) in held for parameter in module.parameters())


class OneSize(nn.Module):
    """Takes images of one size only, by a position embedding, squeezes and pools."""

    def __init__(self, size=(48, 64)):
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(i, o, 3, 2, 1) for i, o in ((3, 8), (8, 16), (16, 24)))
        self.position = nn.Parameter(torch.rand(1, 8, size[0] // 2, size[1] // 2))
        self.gate, self.head = nn.Conv2d(16, 16, 1), nn.Linear(24, 5)

    def forward(self, image):
        x = self.two(self.one(image) + self.position)
        x = x * self.gate(nn.functional.adaptive_avg_pool2d(x, 1)).sigmoid()
        x = self.three(x).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 2).mean((2, 3)))


def test_a_module_of_one_image_size_is_measured_at_the_size_that_is_given():
    module = OneSize()
    model = zoo.build(module, "unet-basic", image_size=(48, 64), classes=2).eval()
    assert [(route.source.channels, route.source.stride) for route in model.plan.routes] == [(8, 2), (16, 4), (24, 8)]
    assert zoo.channels(module, image_size=(48, 64)) == [8, 16, 24]
    held = {id(parameter) for parameter in model.encoder.parameters()}
    assert {name for name, parameter in module.named_parameters() if id(parameter) not in held} == {"head.weight", "head.bias"}
    for size in ((48, 64), (30, 50), (100, 100)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_a_module_of_one_image_size_names_the_keyword_that_is_missing_or_wrong():
    module = nn.Sequential(OneSize((64, 64)))
    with pytest.raises(zoo.errors.PluginError, match=r"takes images of 64 x 64(?s:.)*pass image_size=\(64, 64\)") as caught:
        zoo.build(module, "unet-basic")
    assert "timm" not in str(caught.value)
    with pytest.raises(zoo.errors.PluginError, match=r"96 x 96 on(?s:.)*pass image_size=\(64, 64\)"):
        zoo.build(module, "unet-basic", image_size=(96, 96))
    with pytest.raises(zoo.errors.PluginError, match=r"For a module of one image size, pass image_size=\(H, W\)"):
        zoo.build(OneSize(), "unet-basic")


def test_an_axis_order_that_one_size_does_not_show_is_not_guessed():
    class ChannelsLast(OneSize):
        def forward(self, image):
            x = self.three(self.two(self.one(image) + self.position)).permute(0, 2, 3, 1)
            return self.head(x).mean((1, 2))

    with pytest.raises(zoo.errors.NegotiationError, match=r"2 of its parameters affect its output(?s:.)*head.weight"):
        zoo.build(ChannelsLast(), "unet-basic", image_size=(48, 64))


def test_a_vision_transformer_of_one_size_needs_its_number_of_prefix_tokens_beside_it():
    module = torchvision.models.VisionTransformer(32, 8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32).eval()
    with pytest.raises(zoo.errors.NegotiationError, match="declares patch_size = 8, but no num_prefix_tokens"):
        zoo.build(module, "unet-basic", image_size=(32, 32))
    module.num_prefix_tokens = 1
    model = zoo.build(module, "unet-basic", image_size=(32, 32)).eval()
    held = {id(parameter) for parameter in model.encoder.parameters()}
    assert all(id(parameter) in held for name, parameter in module.named_parameters() if not name.startswith("heads"))
    image, tokens = torch.rand(1, 3, 32, 32), {}
    handle = module.encoder.register_forward_hook(lambda _, __, output: tokens.update(found=output))
    with torch.no_grad():
        module(image)
        handle.remove()
        torch.testing.assert_close(model.encoder(image)[0].flatten(2).mT, tokens["found"][:, 1:])
        assert model(torch.rand(1, 3, 65, 97)).shape == (1, 1, 65, 97)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_whole_model_has_the_modules_dtype(dtype):
    module = small().to(dtype)
    model = zoo.build(module, "unet-attention", classes=2)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert model(torch.rand(1, 3, 65, 97, dtype=dtype)).dtype == dtype
    assert {parameter.dtype for parameter in zoo.build(small(), "unet-basic").parameters()} == {torch.float32}


class TwoAndTheImage(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(count, 4, 1) for count in channels)

    def forward(self, features):
        maps = [conv(x) for conv, x in zip(self.convs, features, strict=True)]
        return sum(nn.functional.interpolate(x, size=maps[0].shape[-2:]) for x in maps)


class LastMap(nn.Module):
    def __init__(self, channels):
        super().__init__()

    def forward(self, features):
        return features[-1]


class UnderAutocast(nn.Sequential):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, image):
        return super().forward(image)


class GivesFloat32(nn.Module):
    """Computes in bfloat16, and gives its maps in the image's dtype."""

    def __init__(self):
        super().__init__()
        self.fine, self.coarse = (nn.Conv2d(*channels, 3, 2, 1).bfloat16() for channels in ((3, 8), (8, 16)))

    def forward(self, image):
        fine = self.fine(image.bfloat16())
        return [fine.float(), self.coarse(fine).float()]


@pytest.mark.parametrize("make", [lambda: UnderAutocast(*small()), GivesFloat32])
@pytest.mark.parametrize("decoder", ["unet-basic", "image-too", "last-map"])
@pytest.mark.usefixtures("fresh_registry")
def test_maps_of_another_dtype_than_the_modules_parameters_reach_the_decoder_in_its_own(make, decoder):
    needs = zoo.Needs(strides=(2, 4), image=True)
    zoo.register_decoder("image-too", zoo.from_channels(TwoAndTheImage, needs=needs))
    zoo.register_decoder("last-map", zoo.from_channels(LastMap))
    model = zoo.build(make(), decoder)
    image = torch.rand(2, 3, 32, 64)
    model(image).float().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model(image).shape == (2, 1, 32, 64)
    program = torch.export.export(model.eval(), (image,)).module()
    with torch.no_grad():
        torch.testing.assert_close(program(image), model(image))


def test_a_compiled_module_is_asked_for_plain_before_it_runs():
    ran = []
    compiled_inside = nn.Sequential(small(), torch.compile(nn.ReLU(), backend="eager"))
    compiled_in_place = small()
    compiled_in_place[2].compile(backend="eager")
    for module, where in ((torch.compile(small()), "as a whole"), (compiled_inside, "at 1"), (compiled_in_place, "at 2")):
        module.register_forward_pre_hook(lambda *_: ran.append(True))
        with pytest.raises(zoo.errors.PluginError, match=f"compiled {where}(?s:.)*_orig_mod(?s:.)*torch.compile.zoo.build"):
            zoo.build(module, "unet-basic")
    assert ran == []


def test_a_module_that_looks_up_positions_in_a_table_of_one_size_is_not_believed_on_the_meta_device():
    class LooksUp(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.last, self.table = nn.Conv2d(3, 8, 8, 8), nn.Conv2d(8, 8, 3, 2, 1), nn.Embedding(8, 8)

        def forward(self, image):
            x = self.stem(image)
            rows = self.table(torch.arange(x.shape[2], device=x.device))
            return self.last(x + rows.T[None, :, :, None])

    module = LooksUp()
    with pytest.raises(zoo.errors.PluginError, match=r"256 x 320 on its own device: IndexError(?s:.)*image_size="):
        zoo.build(module, "unet-basic")
    model = zoo.build(module, "unet-basic", image_size=(64, 96)).eval()
    assert model(torch.rand(1, 3, 100, 70)).shape == (1, 1, 100, 70)


def test_an_image_below_what_a_module_takes_is_padded_to_it():
    class Valid(nn.Module):
        """Convolves without padding, so that a small image ends before it does."""

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 8, 5), nn.Conv2d(8, 16, 3, 2), nn.Conv2d(16, 16, 5))

        def forward(self, image):
            return self.body(image)

    model = zoo.build(Valid(), "unet-basic").eval()
    assert model.plan.sizes.sizes.minimum == 32
    for size in ((5, 9), (31, 64), (65, 97)):
        assert model(torch.rand(1, 3, *size)).shape == (1, 1, *size)


def test_an_image_is_padded_to_multiples_of_a_window_that_a_module_does_not_pad_itself():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.last, self.inside = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(64, 64)

        def forward(self, image):
            x = self.stem(image)
            n, c, h, w = x.shape
            x = self.inside(x.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4).flatten(-2))
            return self.last(x.unflatten(-1, (8, 8)).transpose(3, 4).reshape(n, c, h, w))

    model = zoo.build(Windows(), "unet-basic").eval()
    assert model.plan.sizes.sizes.multiple == 32
    assert model(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


def test_maps_without_channels_are_left_out():
    class Gap(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 16, 2, 2)

        def forward(self, image):
            empty = image.new_empty(image.shape[0], 0, image.shape[2] // 2, image.shape[3] // 2)
            fine = self.one(image)
            return [image, empty, fine, self.two(fine)]

    assert zoo.channels(Gap()) == [3, 8, 16]
    assert zoo.build(Gap(), "unet-basic")(torch.rand(2, 3, 65, 97)).shape == (2, 1, 65, 97)

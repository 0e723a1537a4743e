"""The three U-Nets: equal to a plain reference of the same weights, for any ladder of feature maps, with their options."""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo_unet.decoders import UNetAttention, UNetBasic, UNetBilinear

UNETS = ["unet-basic", "unet-bilinear", "unet-attention"]
CLASSES = {"unet-basic": UNetBasic, "unet-bilinear": UNetBilinear, "unet-attention": UNetAttention}

LADDERS = {
    "strides 2 to 32": {2: (32, 48), 4: (16, 24), 8: (8, 12), 16: (4, 6), 32: (2, 3)},
    "from stride 4": {4: (16, 24), 8: (8, 12), 16: (4, 6), 32: (2, 3)},
    "with gaps": {2: (32, 48), 8: (8, 12), 32: (2, 3)},
    "of odd sizes": {2: (33, 49), 4: (17, 25), 8: (9, 13), 16: (5, 7), 32: (3, 4)},
    "without padding": {2: (31, 47), 4: (14, 22), 8: (6, 10), 16: (2, 4)},
    "two levels": {2: (8, 8), 4: (4, 4)},
    "down from stride 1": {1: (16, 16), 2: (8, 8), 4: (4, 4)},
    "of no power of two": {3.5: (16, 24), 7: (8, 12), 14: (4, 6)},
}


def ladder(sizes, requires_grad=False):
    """Return facts and tensors for maps of these strides and sizes, each of another width."""
    pyramid = tuple(
        zoo.plugin.FeatureMap(name=f"map{index}", channels=16 + 2 * index, stride=stride) for index, stride in enumerate(sizes)
    )
    features = [
        torch.rand(2, entry.channels, *size, dtype=torch.float64, requires_grad=requires_grad)
        for entry, size in zip(pyramid, sizes.values(), strict=True)
    ]
    return pyramid, features


def narrow(unet, pyramid, **options):
    """Return the decoder, with a small width of its own for each step."""
    return CLASSES[unet](pyramid, channels=range(8 + pyramid[-1].level, 8, -1), **options).double()


def trained(module):
    """Return the module in double precision, with norms that are no longer the identity, as after some training."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d | nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 1.5)
    return module.double().eval()


def reference(unet, weights, features, levels, norm="batch"):
    """U-Net's expanding path in plain functions: one step a factor of two, from the coarsest map to stride 1."""
    skips = dict(zip(levels, features, strict=True))
    x = features[-1]
    for index, level in enumerate(range(levels[-1] - 1, -1, -1)):
        step = {name.removeprefix(f"steps.{index}."): value for name, value in weights.items()}
        skip = skips.get(level)
        size = (2 * x.shape[2], 2 * x.shape[3]) if skip is None else skip.shape[2:]
        up = resized(x, size) if unet == "unet-bilinear" else resized(transposed(x, step), size)
        if skip is not None:
            up = torch.cat([up, gated(skip, x, step) if unet == "unet-attention" else skip], dim=1)
        x = convolved(convolved(up, step, 0, norm), step, 3, norm)
    return x


def resized(x, size):
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def transposed(x, step):
    blocks = torch.einsum("nchw,coij->nohiwj", x, step["up.conv.weight"])
    return blocks.reshape(x.shape[0], -1, 2 * x.shape[2], 2 * x.shape[3]) + step["up.conv.bias"][:, None, None]


def gated(skip, gating, step):
    even = F.pad(skip, (0, skip.shape[-1] % 2, 0, skip.shape[-2] % 2))
    keys = F.conv2d(even, step["gate.theta.weight"], stride=2)
    signal = F.conv2d(gating, step["gate.phi.weight"], step["gate.phi.bias"])
    scores = F.conv2d((keys + resized(signal, keys.shape[2:])).clamp(min=0), step["gate.psi.weight"], step["gate.psi.bias"])
    return skip * resized(1 / (1 + torch.exp(-scores)), skip.shape[2:])


def convolved(x, step, index, norm):
    x = F.conv2d(x, step[f"convs.{index}.weight"], step.get(f"convs.{index}.bias"), padding=1)
    scale = {name: step[f"convs.{index + 1}.{name}"] for name in ("weight", "bias") if norm != "none"}
    if norm == "batch":
        mean, var = (step[f"convs.{index + 1}.running_{name}"] for name in ("mean", "var"))
        x = F.batch_norm(x, mean, var, **scale)
    if norm == "group":
        x = F.group_norm(x, x.shape[1] // 8, **scale)
    return x.clamp(min=0)


@pytest.mark.parametrize("unet", UNETS)
def test_a_unet_on_resnet18_equals_the_plain_reference(unet):
    torch.manual_seed(0)
    model = trained(zoo.build("resnet18", unet))
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        features = model.encoder(image)
        expected = reference(unet, model.decoder.state_dict(), features, levels=[1, 2, 3, 4, 5])
        torch.testing.assert_close(model.decoder(features), expected)
        torch.testing.assert_close(model(image), model.head(expected))
    assert expected.std() > 0


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("name", LADDERS)
def test_a_unet_on_any_ladder_equals_the_plain_reference(unet, name):
    torch.manual_seed(0)
    pyramid, features = ladder(LADDERS[name])
    decoder = trained(narrow(unet, pyramid))
    levels = [entry.level for entry in pyramid]
    with torch.no_grad():
        found = decoder(features)
        torch.testing.assert_close(found, reference(unet, decoder.state_dict(), features, levels))
    finest = features[0].shape[2:]
    assert found.shape == (2, decoder.out_channels, *(side * 2 ** levels[0] for side in finest))
    assert decoder.out_stride == 1


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_a_unet_with_any_norm_equals_the_plain_reference(unet, norm):
    torch.manual_seed(0)
    pyramid, features = ladder(LADDERS["strides 2 to 32"])
    decoder = trained(CLASSES[unet](pyramid, norm=norm, channels=[32, 24, 16, 16, 8]))
    with torch.no_grad():
        expected = reference(unet, decoder.state_dict(), features, [1, 2, 3, 4, 5], norm)
        torch.testing.assert_close(decoder(features), expected)


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("name", LADDERS)
def test_every_parameter_and_every_map_gets_a_gradient(unet, name):
    torch.manual_seed(0)
    pyramid, features = ladder(LADDERS[name], requires_grad=True)
    decoder = narrow(unet, pyramid)
    output = decoder(features)
    (output * torch.rand_like(output)).sum().backward()
    without = [name for name, parameter in decoder.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []
    assert all(feature.grad.any() for feature in features)


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_any_depth_of_two_or_more_levels_works(unet, levels):
    with torch.device("meta"):
        model = zoo.build("resnet18", unet, classes=19, levels=levels)
        assert model(torch.empty(2, 3, 65, 97)).shape == (2, 19, 65, 97)
    assert len(model.plan.routes) == levels


@pytest.mark.parametrize("unet", UNETS)
def test_one_level_is_refused_with_what_would_mend_it(unet):
    with pytest.raises(zoo.errors.NegotiationError, match=rf"(?s)resnet18.*{unet}.*at least 2.*levels="):
        zoo.build("resnet18", unet, levels=1)


def test_gates_lie_between_0_and_1_and_vary_with_the_input_and_the_place():
    torch.manual_seed(0)
    pyramid, _ = ladder(LADDERS["strides 2 to 32"])
    decoder = narrow("unet-attention", pyramid).eval()
    seen = []
    gates = [module for name, module in decoder.named_modules() if name.endswith("gate")]
    for gate in gates:
        gate.register_forward_hook(lambda _, inputs, output: seen.append(output / inputs[0]))
    with torch.no_grad():
        for _ in range(2):
            decoder([1 + feature for feature in ladder(LADDERS["strides 2 to 32"])[1]])
    assert len(gates) == 4
    for first, second in zip(seen[:4], seen[4:], strict=True):
        assert 0 < first.min() < first.max() < 1
        assert first.std(dim=(2, 3)).min() > 1e-4
        assert (first - second).abs().max() > 1e-4
        torch.testing.assert_close(first, first[:, :1].expand_as(first))


def test_a_closed_gate_keeps_its_skip_out():
    torch.manual_seed(0)
    pyramid, features = ladder(LADDERS["strides 2 to 32"])
    decoder = narrow("unet-attention", pyramid).eval()
    others = [torch.rand_like(feature) for feature in features]
    for step, skip in enumerate([3, 2, 1, 0]):
        swapped = [*features[:skip], others[skip], *features[skip + 1 :]]
        with torch.no_grad():
            assert not torch.allclose(decoder(swapped), decoder(features))
            decoder.get_submodule(f"steps.{step}.gate.psi").bias.fill_(-1e4)
            assert torch.equal(decoder(swapped), decoder(features))


def widths(model):
    return [model.decoder.state_dict()[f"steps.{step}.convs.3.weight"].shape[0] for step in range(len(model.decoder.steps))]


@pytest.mark.parametrize("unet", UNETS)
def test_the_default_widths_are_those_of_smp(unet):
    with torch.device("meta"):
        assert widths(zoo.build("resnet18", unet)) == [256, 128, 64, 32, 16]


def test_the_bilinear_unet_is_of_the_size_of_smps():
    with torch.device("meta"):
        ours = zoo.build("resnet18", "unet-bilinear")
        theirs = smp.Unet("resnet18", encoder_weights=None)
    count, expected = (sum(parameter.numel() for parameter in model.parameters()) for model in (ours, theirs))
    assert count == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize("channels", [[40, 24, 16, 9, 5], (8, 8, 8, 8, 8)])
def test_channels_are_the_widths_of_the_steps(unet, channels):
    with torch.device("meta"):
        model = zoo.build("resnet18", unet, decoder_options={"channels": channels})
        assert model(torch.empty(1, 3, 64, 64)).shape == (1, 1, 64, 64)
    assert widths(model) == list(channels)
    assert model.head.in_channels == model.decoder.out_channels == channels[-1]


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)])
def test_norm_chooses_the_layer_after_each_convolution_which_has_a_bias_without_one(unet, norm, kind):
    with torch.device("meta"):
        decoder = zoo.build("resnet18", unet, decoder_options={"norm": norm}).decoder
    layers = [decoder.get_submodule(f"steps.{step}.convs.{layer}") for step in range(5) for layer in (1, 4)]
    assert {type(layer) for layer in layers} == {kind}
    assert any(isinstance(module, nn.BatchNorm2d) for module in decoder.modules()) == (norm == "batch")
    convolutions = [decoder.get_submodule(f"steps.{step}.convs.{layer}") for step in range(5) for layer in (0, 3)]
    assert {convolution.bias is not None for convolution in convolutions} == {norm == "none"}


def test_groups_are_made_for_any_width():
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-basic", decoder_options={"norm": "group", "channels": [20, 12, 9, 3, 1]})
        assert model(torch.empty(1, 3, 64, 64)).shape == (1, 1, 64, 64)


@pytest.mark.parametrize("unet", UNETS)
def test_dropout_acts_in_training_only(unet):
    torch.manual_seed(0)
    pyramid, features = ladder(LADDERS["two levels"])
    decoder = narrow(unet, pyramid, norm="none", dropout=0.5)
    plain = narrow(unet, pyramid, norm="none")
    plain.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        assert not torch.equal(decoder(features), decoder(features))
        assert torch.equal(plain(features), plain(features))
        assert torch.equal(decoder.eval()(features), plain(features))


def test_dropout_is_taken_over_from_the_decoder_options():
    model = zoo.build("resnet18", "unet-basic", levels=2, decoder_options={"dropout": 0.5, "norm": "none"})
    features = [torch.rand(1, 64, 16, 16), torch.rand(1, 64, 8, 8)]
    with torch.no_grad():
        assert not torch.equal(model.decoder(features), model.decoder(features))


@pytest.mark.parametrize("unet", UNETS)
@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"channels": [64, 32]}, r"5 whole numbers.*strides 16, 8, 4, 2, 1, in this order; found \(64, 32\)"),
        ({"channels": [64, 32, 16, 8, 0]}, r"5 whole numbers of at least 1"),
        ({"channels": 64}, r"channels.*64"),
        ({"channels": [64, 32, 16, 8, 4.5]}, r"channels.*4\.5"),
        ({"norm": "layer"}, r"'batch', 'group', 'none'; found 'layer'"),
        ({"dropout": 1.5}, r"at least 0 and less than 1; found 1\.5"),
        ({"dropout": -0.1}, r"at least 0 and less than 1; found -0\.1"),
        ({"dropout": "half"}, r"dropout.*'half'"),
        ({"chanels": [8] * 5}, r"no option 'chanels'.*Did you mean 'channels'.*channels, norm, dropout"),
    ],
)
def test_a_wrong_option_is_named_with_what_is_allowed(unet, options, named):
    with torch.device("meta"), pytest.raises(zoo.errors.OptionError, match=named):
        zoo.build("resnet18", unet, decoder_options=options)


@pytest.mark.parametrize("decoder", UNETS)
def test_the_head_is_a_3x3_convolution_unless_a_1x1_is_requested(decoder):
    kernels = {
        size: zoo.build("timm:test_resnet", decoder, classes=2, decoder_options=options).head.kernel_size
        for size, options in ((3, {}), (1, {"head_kernel_size": 1}))
    }
    assert kernels == {3: (3, 3), 1: (1, 1)}
    with pytest.raises(zoo.errors.OptionError, match="head_kernel_size"):
        zoo.build("timm:test_resnet", decoder, decoder_options={"head_kernel_size": 2})

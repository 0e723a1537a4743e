"""The modules behind a plan's adapters: what they hold, what they make of a map, and that they train and export."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zoo.model.adapters import ChannelNorm, build_adapters
from zoo.pairing.plan import Adapter

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = range(-3, 5)
SIZES = [(4, 6), (7, 5), (1, 1), (1, 3)]


def adapters_of(in_channels, out_channels):
    yield Adapter(kind="project", in_channels=in_channels, out_channels=out_channels)
    for steps in STEPS:
        if steps:
            yield Adapter(kind="fill", in_channels=in_channels, out_channels=out_channels, steps=steps)
        yield Adapter(kind="synthesize", in_channels=in_channels, out_channels=out_channels, steps=steps)


ADAPTERS = [adapter for widths in ((12, 5), (5, 12), (8, 8), (1, 3)) for adapter in adapters_of(*widths)]
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=str)


def scaled(length, steps):
    """Return a map's length after it is doubled, or halved and rounded up, `steps` times."""
    return length * 2**steps if steps > 0 else -(-length // 2**-steps)


@every_adapter
def test_a_module_has_as_many_parameters_as_its_adapter_says(adapter):
    module = build_adapters([adapter])
    assert sum(parameter.numel() for parameter in module.parameters()) == adapter.parameters
    assert not list(module.buffers())
    assert f"+{adapter.parameters:,} parameters" in str(adapter)


@every_adapter
def test_a_map_of_any_size_is_doubled_or_halved_and_gets_the_width(adapter):
    with torch.device("meta"):
        module = build_adapters([adapter])
        for size in SIZES:
            out = module(torch.empty(2, adapter.in_channels, *size))
            assert out.shape == (2, adapter.out_channels, *(scaled(length, adapter.steps) for length in size))


@every_adapter
@pytest.mark.parametrize("size", [(3, 4), (1, 1)])
def test_what_is_computed_is_finite_and_has_the_shape_that_meta_gives(adapter, size):
    torch.manual_seed(0)
    image = torch.rand(2, adapter.in_channels, *size)
    out = build_adapters([adapter])(image)
    assert out.isfinite().all()
    assert out.shape == build_adapters([adapter]).to("meta")(image.to("meta")).shape


@every_adapter
def test_a_gradient_reaches_every_parameter_and_the_map(adapter):
    torch.manual_seed(0)
    module = build_adapters([adapter])
    source = torch.rand(2, adapter.in_channels, 6, 6, requires_grad=True)
    out = module(source)
    (out * torch.rand_like(out)).sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert source.grad.isfinite().all()
    if adapter.in_channels > 1 and adapter.kind != "synthesize":
        assert source.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("kind", "steps"),
    [("project", 0), ("fill", -2), ("fill", 1), ("fill", 3), ("synthesize", -2), ("synthesize", 0), ("synthesize", 3)],
)
def test_an_adapter_exports(kind, steps):
    torch.manual_seed(0)
    module = build_adapters([Adapter(kind=kind, in_channels=6, out_channels=4, steps=steps)]).eval()
    source = torch.rand(1, 6, 5, 7)
    exported = torch.export.export(module, (source,)).module()
    torch.testing.assert_close(exported(source), module(source))


def test_no_adapter_leaves_the_map_as_it_is():
    source = torch.rand(1, 3, 2, 2)
    assert build_adapters([])(source) is source


def test_several_adapters_follow_one_another():
    chain = [
        Adapter(kind="project", in_channels=6, out_channels=4),
        Adapter(kind="fill", in_channels=4, out_channels=2, steps=1),
    ]
    module = build_adapters(chain)
    assert module(torch.rand(1, 6, 3, 3)).shape == (1, 2, 6, 6)
    assert sum(parameter.numel() for parameter in module.parameters()) == sum(adapter.parameters for adapter in chain)


def test_a_doubling_is_a_transposed_convolution_and_a_halving_is_learned_only_where_a_gap_is_filled():
    def kinds(kind, steps):
        module = build_adapters([Adapter(kind=kind, in_channels=16, out_channels=8, steps=steps)])
        return [type(part) for part in module.modules() if not list(part.children())]

    up, norm, gelu, conv, pool = nn.ConvTranspose2d, ChannelNorm, nn.GELU, nn.Conv2d, nn.MaxPool2d
    assert kinds("fill", 2) == [up, norm, gelu, up]
    assert kinds("fill", -2) == [conv, norm, gelu, conv]
    assert kinds("synthesize", 2) == [up, norm, gelu, up, conv, norm, conv, norm]
    assert kinds("synthesize", 0) == [conv, norm, conv, norm]
    assert kinds("synthesize", -1) == [pool, conv, norm, conv, norm]


def test_each_doubling_of_a_synthesized_level_halves_the_width_as_in_vitdet():
    assert Adapter(kind="synthesize", in_channels=768, out_channels=256, steps=2).widths == (768, 384, 192)
    assert Adapter(kind="synthesize", in_channels=768, out_channels=256, steps=-1).widths == (768, 768)
    assert Adapter(kind="synthesize", in_channels=3, out_channels=8, steps=4).widths == (3, 1, 1, 1, 1)
    assert Adapter(kind="fill", in_channels=64, out_channels=32, steps=-2).widths == (64, 32, 32)


def test_an_adapter_says_what_it_is():
    texts = {
        ("project", 0): "1x1 convolution 16 -> 8 (+136 parameters)",
        ("fill", 1): "learned upsampling x2 16 -> 8 (+520 parameters)",
        ("fill", -2): "learned downsampling /4 16 -> 8 (+1,760 parameters)",
        ("synthesize", 0): "simple feature pyramid level 16 -> 8 (+736 parameters)",
        ("synthesize", 2): "simple feature pyramid level x4 16 -> 8 (+1,308 parameters)",
        ("synthesize", -1): "simple feature pyramid level /2 16 -> 8 (+736 parameters)",
    }
    made = {key: str(Adapter(kind=key[0], in_channels=16, out_channels=8, steps=key[1])) for key in texts}
    assert made == texts


@pytest.mark.parametrize("shape", [(2, 7, 3, 5), (1, 1, 1, 1), (3, 16, 1, 2)])
def test_a_channel_norm_is_a_layer_norm_over_the_channels_of_each_place(shape):
    torch.manual_seed(0)
    channels = shape[1]
    norm, reference = ChannelNorm(channels), nn.LayerNorm(channels)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    reference.load_state_dict(norm.state_dict())
    source = torch.randn(shape)
    out = norm(source)
    assert out.shape == shape
    torch.testing.assert_close(out, reference(source.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


def test_a_channel_norm_gives_the_same_for_each_image_whatever_else_is_in_the_batch():
    norm = ChannelNorm(4)
    source = torch.randn(3, 4, 2, 2)
    torch.testing.assert_close(norm(source)[1:2], norm(source[1:2]))

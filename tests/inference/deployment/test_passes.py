"""Each pass by itself, on modules that have what it looks for: the same output, less to do, and a reason where it is left."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.inference.deployment.graph import capture
from zoo.inference.deployment.passes import PASSES, apply_and_measure, apply_passes
from zoo.inference.deployment.resizes import spread_borders

pytestmark = pytest.mark.usefixtures("one_thread")


def settled(module):
    """Give norms statistics and parameters that change something."""
    torch.manual_seed(0)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 2)
                nn.init.normal_(layer.bias)
    return module.eval()


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def passed(module, image, *names, error=2e-6):
    """Return what the passes did, and the graph after them, checked to give the module's output."""
    settled(module)
    graph = capture(module, image)
    with torch.no_grad():
        done = apply_and_measure(graph, names)
        assert relative_error(graph(image), module(image)) < error
        other = torch.randn_like(image)
        assert relative_error(graph(other), module(other)) < error
    return done, graph


def operations(graph):
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def image(height=32, width=32, *, channels=4, batch=1):
    torch.manual_seed(1)
    return torch.randn(batch, channels, height, width)


class Doubled(nn.Module):
    """Upsampling, a concatenation with a skip, a 3x3 convolution; the skip is made from the image itself."""

    def __init__(self, mode="nearest", *, kernel=3, bias=True, first=True, factor=2, twice=False):
        super().__init__()
        channels = 12 if twice else 8
        self.conv = nn.Conv2d(channels, 5, kernel, padding=kernel // 2, bias=bias)
        self.skip = nn.ConvTranspose2d(4, 4, factor, stride=factor)
        self.mode, self.first, self.factor, self.twice = mode, first, factor, twice

    def forward(self, x):
        up = F.interpolate(x, scale_factor=self.factor, mode=self.mode)
        skip = self.skip(x).relu()
        maps = [up, skip] if self.first else [skip, up]
        return self.conv(torch.cat([*maps, up] if self.twice else maps, 1))


class Merged(nn.Module):
    """A transposed convolution, a concatenation with the enlarged image, a 3x3 convolution."""

    def __init__(self, *, bias=True, conv_bias=True, skip=True, used_again=False, kernel=2):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, kernel, stride=2, padding=(kernel - 2) // 2, bias=bias)
        self.conv = nn.Conv2d(10 if skip else 6, 5, 3, padding=1, bias=conv_bias)
        self.skip, self.used_again = skip, used_again

    def forward(self, x):
        up = self.up(x)
        seen = torch.cat([up, F.interpolate(x, scale_factor=2, mode="bilinear")], 1) if self.skip else up
        y = self.conv(seen)
        return y + up[:, :5] if self.used_again else y


@pytest.mark.parametrize(("affine", "bias"), [(True, False), (False, True)])
@pytest.mark.parametrize(
    "convolution",
    [
        lambda bias: nn.Conv2d(4, 6, 3, bias=bias),
        lambda bias: nn.Conv2d(4, 6, 3, padding="same", bias=bias),
        lambda bias: nn.Conv2d(4, 6, 3, groups=2, stride=2, bias=bias),
        lambda bias: nn.ConvTranspose2d(4, 6, 2, stride=2, bias=bias),
    ],
)
def test_a_norm_after_a_convolution_is_folded_into_it(convolution, affine, bias):
    module = nn.Sequential(convolution(bias), nn.BatchNorm2d(6, affine=affine), nn.ReLU())
    (done,), graph = passed(module, image(), "fold-norms")
    assert (done.places, done.skipped) == (("1",), ())
    assert not any("batch_norm" in name for name in operations(graph))


def test_a_norm_after_a_sum_of_convolutions_is_folded_into_each():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.other, self.norm = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)

        def forward(self, x):
            return self.norm(self.one(x) + self.other(x))

    (done,), graph = passed(Sum(), image(), "fold-norms")
    assert done.places == ("norm",)
    assert len(operations(graph)) == 3


@pytest.mark.parametrize("twice", [True, False])
def test_a_norm_after_a_sum_that_is_used_elsewhere_or_counts_one_twice_is_left(twice):
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Conv2d(4, 6, 1) for _ in range(3))
            self.norm = nn.BatchNorm2d(6)

        def forward(self, x):
            y = self.one(x)
            inner = y + (y if twice else self.two(x))
            outer = self.norm(inner + self.three(x))
            return outer if twice else outer + inner

    (done,), _ = passed(Sum(), image(), "fold-norms")
    assert done.places == ()


def test_a_norm_that_cannot_be_folded_is_left_with_the_reason():
    class Left(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.shared, self.first = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(self.first(x))
            return self.shared(y) + y

    (done,), graph = passed(Left(), image(), "fold-norms")
    assert dict(done.skipped) == {
        "first": "it does not follow a convolution",
        "shared": "the convolution's output is used elsewhere as well",
    }
    assert sum("batch_norm" in name for name in operations(graph)) == 2


@pytest.mark.parametrize("size", [(32, 32), (17, 40), (512, 1)])
@pytest.mark.parametrize(
    ("mode", "first", "batch"),  # each two of them in every combination
    [("nearest", True, 1), ("nearest", False, 3), ("nearest-exact", True, 3), ("nearest-exact", False, 1)],
)
def test_nearest_upsampling_before_a_convolution_is_computed_at_low_resolution(mode, first, batch, size):
    (done,), graph = passed(Doubled(mode, first=first), image(*size, batch=batch), "low-resolution")
    assert done.places == ("conv",)
    assert done.saved.flops == 20 * 2 * 4 * 5 * batch * size[0] * size[1]
    assert not any("upsample" in name or "cat" in name for name in operations(graph))


@pytest.mark.parametrize(
    ("options", "size", "why"),
    [
        ({"factor": 4}, (32, 32), "the upsampling is not by two"),
        ({}, (8, 8), "too few pixels for the larger kernel to be faster"),
    ],
)
def test_what_is_not_computed_at_low_resolution_says_why(options, size, why):
    (done,), _ = passed(Doubled(**options), image(*size), "low-resolution")
    assert (done.places, done.skipped) == ((), (("conv", why),))
    assert done.saved.flops == done.saved.operations == 0


def test_a_map_that_is_joined_twice_is_left_alone():
    (done,), _ = passed(Doubled(twice=True), image(), "low-resolution")
    assert done.places == ()


@pytest.mark.parametrize("size", [(32, 32), (23, 24), (600, 1)])
@pytest.mark.parametrize(
    ("bias", "conv_bias", "skip"),  # each two of them in every combination
    [(True, True, True), (True, False, False), (False, True, False), (False, False, True)],
)
def test_a_transposed_convolution_is_merged_with_the_one_after_it_borders_included(bias, conv_bias, skip, size):
    (done,), graph = passed(Merged(bias=bias, conv_bias=conv_bias, skip=skip), image(*size, batch=2), "merge-transposed")
    assert done.places == ("conv",)
    assert done.saved.flops > 0
    assert sum("conv_transpose2d" in name for name in operations(graph)) == 1
    before = graph(image(*size, batch=2))
    spread_borders(graph)
    assert not any("add_border" in name for name in operations(graph))
    assert relative_error(graph(image(*size, batch=2)), before) < 2e-6


def test_a_map_without_channels_is_no_part_of_the_sum():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 5, 3, padding=1)

        def forward(self, x):
            x = F.interpolate(x, scale_factor=2)
            return self.conv(torch.cat([x, x.new_empty(x.shape[0], 0, *x.shape[2:])], dim=1))

    (done,), graph = passed(Joined(), image(32, 33), "low-resolution")
    assert done.places == ("conv",)
    assert not any("conv2d" in name and "transpose" not in name for name in operations(graph))


@pytest.mark.parametrize(
    ("options", "size", "left"),
    [
        ({"used_again": True}, (32, 32), ["the transposed convolution's output is used elsewhere as well"]),
        ({}, (8, 8), ["too few pixels for the larger kernel to be faster"]),
        ({"kernel": 4}, (32, 32), []),
    ],
)
def test_a_transposed_convolution_that_is_not_merged_says_why(options, size, left):
    (done,), _ = passed(Merged(**options), image(*size), "merge-transposed")
    assert (done.places, [why for _, why in done.skipped]) == ((), left)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("joined", [True, False])
def test_a_projection_is_computed_before_the_resize(joined, mode):
    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Conv2d(8 if joined else 4, 2, 1)

        def forward(self, x):
            large = F.interpolate(x, size=(70, 90), mode=mode)
            seen = torch.cat([F.pad(x, (0, 58, 0, 38)), large], 1) if joined else large
            return self.project(seen)

    (done,), _ = passed(Head(), image(), "project-before-resize")
    assert done.places == ("project",)
    assert done.saved.flops == 2 * 4 * 2 * (70 * 90 - 32 * 32)


def test_a_projection_that_widens_or_follows_a_reduction_stays_where_it_is():
    class Head(nn.Module):
        def __init__(self, channels, size):
            super().__init__()
            self.project, self.size = nn.Conv2d(4, channels, 1), size

        def forward(self, x):
            return self.project(F.interpolate(x, size=self.size, mode="bilinear"))

    reasons = [passed(Head(*case), image(), "project-before-resize")[0][0].skipped[0][1] for case in [(5, 64), (2, 16)]]
    assert reasons == ["more channels than before would be resized", "the resize does not enlarge the map"]


def test_what_follows_from_weights_alone_is_computed_once():
    class Standardized(nn.Conv2d):
        def forward(self, x):
            weight = (self.weight - self.weight.mean((1, 2, 3), keepdim=True)) / self.weight.std((1, 2, 3), keepdim=True)
            return F.conv2d(x, weight, self.bias)

    (done,), graph = passed(Standardized(4, 6, 3), image(), "fold-constants")
    assert operations(graph) == ["aten.conv2d.default"]
    assert done.saved.operations >= 3


def test_a_constant_that_is_much_larger_than_what_it_is_made_from_is_left_to_be_computed():
    class Grown(nn.Module):
        def __init__(self):
            super().__init__()
            self.row = nn.Parameter(torch.randn(1, 4, 1, 1))

        def forward(self, x):
            return x + self.row.repeat(1, 1, 1024, 1024)

    (done,), graph = passed(Grown(), torch.randn(1, 4, 1024, 1024), "fold-constants")
    assert [why for _, why in done.skipped] == ["the result is much larger than its inputs"]
    assert any("repeat" in name for name in operations(graph))


def test_random_numbers_are_drawn_anew_in_each_call():
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn(x.shape)

    seen = image()
    graph = capture(Noisy(), seen)
    apply_passes(graph, ["fold-constants"])
    assert not torch.equal(graph(seen), graph(seen))


def test_what_gives_back_what_it_was_given_is_dropped():
    class Idle(nn.Module):
        def forward(self, x):
            x = F.interpolate(F.dropout(x, 0.5, self.training), size=x.shape[2:], mode="bilinear")
            return (x.clone()[..., :32, :32] * 2)[..., :1000]

    (done,), graph = passed(Idle(), image(), "drop-identities")
    assert operations(graph) == ["aten.mul.Tensor"]
    assert len(done.places) >= 3


@pytest.mark.parametrize("decoder", ["unet-attention", "smp:unet", "smp:segformer"])
def test_all_passes_together_take_less_of_everything_and_leave_the_output(decoder):
    model = zoo.build("timm:test_resnet", decoder, classes=2, levels=3)
    done, graph = passed(model, image(96, 160, channels=3), *PASSES, error=2e-5)
    assert [each.name for each in done] == list(PASSES)
    assert not any("batch_norm" in name for name in operations(graph))
    assert all(each.saved.flops >= 0 for each in done)
    assert sum(each.saved.written for each in done) > 0


def test_the_cost_of_a_graph_is_what_arithmetic_gives():
    module = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1), nn.ReLU())
    cost = capture(module, image()).cost()
    assert (cost.flops, cost.written, cost.operations) == (2 * 4 * 6 * 9 * 32 * 32, 2 * 4 * 6 * 32 * 32, 2)


def test_a_graph_shares_the_models_weights_until_a_pass_changes_them():
    module = nn.Sequential(nn.Conv2d(4, 6, 3))
    graph = capture(module, image())
    held = [graph.constant(node).data_ptr() for node in graph.nodes if node.op == "get_attr"]
    assert held == [parameter.data_ptr() for parameter in module.parameters()]

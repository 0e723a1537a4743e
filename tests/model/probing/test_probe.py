"""The probe: the pyramid of any module, and an encoder that computes just that."""

from __future__ import annotations

import copy
import functools
import pickle
import random
import warnings
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pytest
import small_networks
import torch
import torch.nn.functional as F
import torchvision.models as models
from small_networks import made
from torch import nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.feature_extraction import create_feature_extractor

import zoo
from zoo.model.probing.probe import probe

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORKS = [
    (
        small_networks.mobilenet,
        {"features.0": 2, "features.1": 4, "features.2": 8, "features.3": 16, "features.5": 32},
    ),
    (small_networks.resnet, {"relu": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}),
    (small_networks.swin, {"features.1": 4, "features.3": 8, "features.5": 16, "permute": 32}),
    (
        small_networks.densenet,
        {"features.relu0": 2, "features.denseblock1": 4, "features.denseblock2": 8, "features.denseblock3": 16, "relu": 32},
    ),
    (
        small_networks.vgg,
        {"features.1": 1, "features.4": 2, "features.9": 4, "features.14": 8, "features.19": 16, "features.20": 32},
    ),
]


def conv(in_channels, out_channels, stride=2):
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


class Functional(nn.Module):
    """Pools by functions, and classifies at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.classifier = conv(3, 4, 1), conv(4, 8, 1), nn.Linear(8, 5)

    def forward(self, image):
        x = F.max_pool2d(F.relu(self.first((image - 0.5) / 0.25)), 2)
        x = F.avg_pool2d(self.second(x), 2)
        return self.classifier(x.mean((2, 3)))


class Listed(nn.Module):
    """Returns its maps as a list, the coarsest too."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = conv(3, 4), conv(4, 6), conv(6, 8)

    def forward(self, image):
        one = self.one(image)
        two = self.two(one)
        return [one, two, self.three(two)]


class Pair(NamedTuple):
    fine: torch.Tensor
    coarse: torch.Tensor


@dataclass
class Maps:
    fine: torch.Tensor
    coarse: torch.Tensor


class Wraps(nn.Module):
    """Returns two maps as a structure of its own."""

    def __init__(self, kind):
        super().__init__()
        self.fine, self.coarse, self.kind = conv(3, 4), conv(4, 8), kind

    def forward(self, image):
        fine = self.fine(image)
        return self.kind(fine=fine, coarse=self.coarse(fine))


class Branching(nn.Module):
    """Decides by the data, so that torch.fx cannot trace it."""

    def __init__(self):
        super().__init__()
        self.stem, self.stage, self.last = conv(3, 4), conv(4, 8), conv(8, 16)
        self.side, self.classifier = conv(4, 2), nn.Linear(16, 3)

    def forward(self, image):
        x = self.stem(image)
        self.side(x)
        if x.shape[1] > 2 and image.shape[-1] % 2 == 0:
            x = x * 2
        x = self.last(F.relu(self.stage(x)))
        return self.classifier(x.mean((2, 3)))


class BranchingDict(nn.Module):
    def __init__(self):
        super().__init__()
        self.fine, self.coarse = conv(3, 4), conv(4, 8)

    def forward(self, image):
        fine = self.fine(image)
        return {"fine": fine if image.shape[-1] > 1 else -fine, "coarse": self.coarse(fine)}


class FixedSize(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 4)

    def forward(self, image):
        assert image.shape[-2:] == (64, 64), "made for 64 x 64"
        return self.conv(image)


def encoder_of(spec, names=None, **given):
    names = [feature_map.name for feature_map in spec.pyramid] if names is None else names
    return spec.factory(**{"maps": names, "in_channels": 3, "weights": None, **given})


def seen_by_hooks(module, names, image):
    """What the module itself computes at these submodules, and before they change in place."""
    found = {}
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: found.update({name: output.clone()}))
        for name in names
    ]
    with torch.no_grad():
        module(image)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


@pytest.fixture(scope="module", params=NETWORKS, ids=[make.__name__ for make, _ in NETWORKS])
def network(request):
    """A module, its encoder spec, and the strides by the names of the maps that it shall have."""
    make, strides = request.param
    module = made(make).eval()
    return module, probe(module), strides


@pytest.fixture(scope="module")
def encoder(network):
    return encoder_of(network[1])


def test_the_maps_are_the_last_of_each_stride_at_module_boundaries(network):
    _, spec, strides = network
    assert {feature_map.name: feature_map.stride for feature_map in spec.pyramid} == strides
    assert isinstance(spec, zoo.plugin.EncoderSpec)
    assert spec.options == ()


def test_maps_are_what_the_module_computes_in_nchw(network, encoder):
    module, spec, strides = network
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        maps = encoder(image)
    for feature_map, x in zip(spec.pyramid, maps, strict=True):
        size = (64 // strides[feature_map.name], 96 // strides[feature_map.name])
        assert x.shape == (2, feature_map.channels, *size), feature_map
    modules = dict(module.named_modules())
    names = [name for name in strides if name in modules and not (name == "relu" and strides[name] == 32)]
    for name, expected in zip(names, seen_by_hooks(module, names, image), strict=True):
        x = maps[list(strides).index(name)]
        torch.testing.assert_close(x, expected if x.shape == expected.shape else expected.permute(0, 3, 1, 2))


def test_every_parameter_of_the_encoder_gets_a_gradient(network, encoder):
    module, spec, _ = network
    shallower = encoder_of(spec, [feature_map.name for feature_map in spec.pyramid][1:3])
    for each in (encoder, shallower):
        trained = copy.deepcopy(each).train()
        sum(x.sum() for x in trained(torch.rand(2, 3, 64, 96))).backward()
        assert [name for name, parameter in trained.named_parameters() if parameter.grad is None] == []
    assert len(list(shallower.parameters())) < len(list(module.parameters()))


def test_the_encoder_pickles_and_copies(encoder):
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = encoder(image)
        for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
            assert all(torch.equal(x, y) for x, y in zip(other(image), expected, strict=True))


def test_the_encoder_exports():
    encoder = encoder_of(probe(made(small_networks.resnet).eval()))
    image = torch.rand(1, 3, 64, 96)
    exported = torch.export.export(encoder, (image,)).module()
    with torch.no_grad():
        for x, y in zip(exported(image), encoder(image), strict=True):
            torch.testing.assert_close(x, y)


@pytest.mark.parametrize("kind", [small_networks.mobilenet, Branching, Functional, Listed])
def test_the_probe_leaves_the_module_and_the_random_state_as_they_were(kind):
    module = kind()
    next(module.children()).eval()
    next(module.parameters()).requires_grad = False
    list(module.parameters())[-1].grad = grad = torch.ones_like(list(module.parameters())[-1])
    state = {name: value.clone() for name, value in module.state_dict(keep_vars=False).items()}
    modes = [submodule.training for submodule in module.modules()]
    attributes = [list(vars(submodule)) for submodule in module.modules()]
    wanted = [parameter.requires_grad for parameter in module.parameters()]
    identities = [id(value) for value in (*module.modules(), *module.parameters(), *module.buffers())]
    torch.manual_seed(1)
    random.seed(1)
    before = torch.get_rng_state(), random.getstate()

    encoder_of(probe(module))

    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert modes == [submodule.training for submodule in module.modules()]
    assert attributes == [list(vars(submodule)) for submodule in module.modules()]
    assert wanted == [parameter.requires_grad for parameter in module.parameters()]
    assert identities == [id(value) for value in (*module.modules(), *module.parameters(), *module.buffers())]
    assert list(module.parameters())[-1].grad is grad
    assert not any(submodule._forward_hooks or submodule._forward_pre_hooks for submodule in module.modules())
    after = module.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)


def test_the_encoder_shares_the_modules_weights_and_modes():
    module = made(small_networks.resnet).train()
    module.layer1.eval()
    encoder = encoder_of(probe(module))
    assert encoder.get_submodule("layer1.0.bn1") is module.layer1[0].bn1
    assert (encoder.training, encoder.layer1.training, encoder.layer2.training) == (True, False, True)
    assert not hasattr(encoder, "fc")


def test_modes_are_obeyed_after_the_probe():
    module = made(small_networks.swin).eval()  # its stochastic depth acts in train mode only
    encoder = encoder_of(probe(module))
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(encoder.eval()(image)[-1], encoder(image)[-1])
        assert not torch.equal(encoder.train()(image)[-1], encoder(image)[-1])


def test_a_mode_that_the_modules_own_forward_reads_is_obeyed():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 8)

        def forward(self, image):
            return self.two(F.dropout(self.one(image), 0.5, training=self.training))

    encoder = encoder_of(probe(Drops()))
    image = torch.rand(1, 3, 32, 48)
    assert not torch.equal(encoder.train()(image)[1], encoder(image)[1])
    assert torch.equal(encoder.eval()(image)[1], encoder(image)[1])


def test_what_a_forward_keeps_on_the_module_is_put_back():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.calls, self.kept, self.widths = conv(3, 4), 0, ["before"], {1}

        def forward(self, image):
            self.calls += 1
            self.widths.add(image.shape[-1])
            self.kept.append(self.conv(image))
            return self.kept[-1]

    module = Keeps()
    encoder_of(probe(module))
    assert (module.calls, module.kept, module.widths) == (0, ["before"], {1})


def test_a_sequential_of_ones_own_is_probed():
    module = nn.Sequential(conv(3, 8), nn.ReLU(), conv(8, 16), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    spec = probe(module)
    assert spec.name == "Sequential"
    assert spec.pyramid == (
        zoo.plugin.FeatureMap(name="1", channels=8, stride=2),
        zoo.plugin.FeatureMap(name="3", channels=16, stride=4),
    )
    image = torch.rand(2, 3, 32, 48)
    expected = module[:4].eval()(image)
    assert torch.equal(encoder_of(spec, ["3"])(image)[0], expected)
    assert [name for name, _ in encoder_of(spec, ["1"]).named_children()] == ["0", "1"]


def test_functional_pooling_counts_where_it_is_called_and_the_image_is_no_map():
    module = Functional()
    spec = probe(module)
    assert [(entry.channels, entry.stride) for entry in spec.pyramid] == [(4, 1), (8, 2), (8, 4)]
    image = torch.rand(2, 3, 16, 24)
    x = F.relu(module.first((image - 0.5) / 0.25))
    y = module.second(F.max_pool2d(x, 2))
    for found, expected in zip(encoder_of(spec)(image), (x, y, F.avg_pool2d(y, 2)), strict=True):
        assert torch.equal(found, expected)


def test_a_list_that_forward_returns_is_the_pyramid():
    module = Listed()
    spec = probe(module)
    assert [(entry.name, entry.channels, entry.stride) for entry in spec.pyramid] == [
        ("map0", 4, 2), ("map1", 6, 4), ("map2", 8, 8),
    ]  # fmt: skip
    image = torch.rand(1, 3, 32, 48)
    assert all(torch.equal(x, y) for x, y in zip(encoder_of(spec)(image), module(image), strict=True))
    assert [name for name, _ in encoder_of(spec, ["map0", "map1"]).named_children()] == ["one", "two"]


def test_a_dict_that_forward_returns_is_the_pyramid():
    module = create_feature_extractor(made(small_networks.resnet).eval(), {"layer2": "middle", "layer4": "last"})
    spec = probe(module)
    assert [str(entry) for entry in spec.pyramid] == ["middle (128 ch, stride 8)", "last (512 ch, stride 32)"]
    encoder = encoder_of(spec, ["middle"])
    assert not hasattr(encoder, "layer3")
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(encoder(image)[0], module(image)["middle"])


@pytest.mark.parametrize(("kind", "names"), [(Pair, ["map0", "map1"]), (Maps, ["fine", "coarse"]), (dict, ["fine", "coarse"])])
def test_a_structure_of_maps_that_forward_returns_is_the_pyramid_and_traced(kind, names):
    module = Wraps(kind)
    spec = probe(module)
    assert [entry.name for entry in spec.pyramid] == names
    encoder = encoder_of(spec)
    assert isinstance(encoder, torch.fx.GraphModule)
    image = torch.rand(1, 3, 32, 48)
    fine, coarse = encoder(image)
    assert torch.equal(fine, module.fine(image))
    assert torch.equal(coarse, module.coarse(fine))


def test_channels_last_maps_come_out_channels_first():
    module = create_feature_extractor(made(small_networks.swin).eval(), {"features.1": "a", "features.7": "b"})
    spec = probe(module)
    assert [(entry.channels, entry.stride) for entry in spec.pyramid] == [(16, 4), (128, 32)]
    image = torch.rand(1, 3, 128, 64)  # here H of the first map is its C twice over, and W is C
    with torch.no_grad():
        assert torch.equal(encoder_of(spec, ["a"])(image)[0], module(image)["a"].permute(0, 3, 1, 2))


def test_an_untraceable_module_is_run_as_it_is_up_to_the_last_map():
    module = Branching()
    spec = probe(module)
    assert [str(entry) for entry in spec.pyramid] == [
        "stem (4 ch, stride 2)",
        "stage (8 ch, stride 4)",
        "last (16 ch, stride 8)",
    ]
    image = torch.rand(1, 3, 32, 48)
    expected = seen_by_hooks(module, ["stem", "stage", "last"], image)
    encoder = encoder_of(spec)
    for other in (encoder, copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert all(torch.equal(x, y) for x, y in zip(other(image), expected, strict=True))
    assert not any(submodule._forward_hooks for submodule in encoder.modules())


def test_an_untraceable_modules_encoder_drops_what_its_maps_do_not_need():
    module = Branching()
    image = torch.rand(2, 3, 32, 48)
    logits = module(image)
    encoder = encoder_of(probe(module), ["stem", "stage"])
    assert {name.removeprefix("module.") for name, _ in encoder.named_parameters()} == {
        "stem.weight", "stem.bias", "stage.weight", "stage.bias",
    }  # fmt: skip
    sum(x.sum() for x in encoder(image)).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert encoder.module.stem.weight is module.stem.weight
    assert torch.equal(module(image), logits)
    assert len(list(module.parameters())) == 10


def test_an_untraceable_module_that_returns_a_dict_keeps_its_keys():
    module = BranchingDict()
    spec = probe(module)
    assert [entry.name for entry in spec.pyramid] == ["fine", "coarse"]
    image = torch.rand(1, 3, 32, 48)
    assert all(torch.equal(x, module(image)[name]) for x, name in zip(encoder_of(spec)(image), ["fine", "coarse"], strict=True))
    assert [name for name, _ in encoder_of(spec, ["fine"]).named_parameters()] == ["module.fine.weight", "module.fine.bias"]


def test_an_untraceable_modules_encoder_exports_and_compiles_without_a_whole_graph():
    encoder = encoder_of(probe(Branching()))
    image = torch.rand(1, 3, 32, 48)
    expected = encoder(image)
    exported = torch.export.export(encoder, (image,), strict=False).module()
    assert all(torch.allclose(x, y) for x, y in zip(exported(image), expected, strict=True))
    compiled = torch.compile(encoder, backend="eager")
    assert all(torch.allclose(x, y) for x, y in zip(compiled(image), expected, strict=True))


def test_a_recorded_encoder_exports_although_what_follows_its_maps_is_gone():
    class Classifies(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.norm, self.compare = Branching(), nn.LayerNorm(16), nn.Bilinear(16, 16, 4)
            self.body.classifier = nn.Identity()

        def forward(self, image):
            x = self.body(image * 2 if image.shape[-1] < 2 else image)
            return self.compare(self.norm(x), x)

    encoder = encoder_of(probe(Classifies()))
    assert not [name for name, _ in encoder.named_parameters() if "norm" in name or "compare" in name]
    image = torch.rand(2, 3, 32, 48)
    call = nn.Module.__call__
    sizes = ({0: torch.export.Dim.AUTO},)
    exported = torch.export.export(encoder, (image,), dynamic_shapes=sizes, strict=False).module()
    assert nn.Module.__call__ is call
    image = torch.rand(3, 3, 32, 48)
    assert all(torch.allclose(x, y) for x, y in zip(exported(image), encoder(image), strict=True))


def test_a_submodule_that_cannot_be_traced_stays_whole_in_the_graph():
    class Stage(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(4, 8)

        def forward(self, x):
            return self.conv(x) if x.shape[-1] > 1 else x

    module = nn.Sequential(OrderedDict(stem=conv(3, 4), stage=Stage(), last=conv(8, 8)))
    encoder = encoder_of(probe(module))
    assert isinstance(encoder, torch.fx.GraphModule)
    assert encoder.stage is module.stage


def test_a_module_that_a_graph_calls_and_reads_from_is_held_once():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 8)

        def forward(self, image):
            return self.two(self.one(image * self.two.weight.mean()))

    module = Scaled()
    encoder = encoder_of(probe(module))
    assert encoder.two is module.two
    image = torch.rand(1, 3, 32, 48)
    assert torch.equal(encoder(image)[-1], module(image))


def test_what_a_forward_computes_from_its_parameters_stays_trainable():
    class Standardized(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(4, 3, 3, 3))
            self.register_buffer("scale", torch.tensor(2.0))

        def forward(self, image):
            return F.conv2d(image, (self.weight - self.weight.mean()) * (self.scale + 1), stride=2, padding=1)

    module = Standardized()
    encoder = encoder_of(probe(module))
    image = torch.rand(1, 3, 16, 24)
    with torch.no_grad():
        module.weight.add_(torch.rand(4, 3, 3, 3))
        module.scale.add_(1)
    assert torch.equal(encoder(image)[0], module(image))


@pytest.mark.parametrize("was_run", [False, True])
def test_what_eval_keeps_in_a_cache_hides_no_parameter(was_run):
    """As LeViT's and TinyViT's attention biases, which eval computes once."""

    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.biases, self.cache = conv(3, 4), nn.Parameter(torch.rand(4)), {}

        def forward(self, image):
            if self.training:
                return self.conv(image) + self.biases[:, None, None]
            if str(image.device) not in self.cache:
                self.cache[str(image.device)] = self.biases[:, None, None]
            return self.conv(image) + self.cache[str(image.device)]

    module = nn.Sequential(Biased(), nn.ReLU(), conv(4, 8)).eval()
    if was_run:
        module(torch.rand(1, 3, 32, 32))
    before = dict(module[0].cache)
    model = zoo.build(module, "unet-basic", levels=2)
    assert module[0].cache == before
    assert any(parameter is module[0].biases for parameter in model.encoder.parameters())
    model.train()(torch.rand(2, 3, 32, 32)).sum().backward()
    assert module[0].biases.grad is not None


def test_a_forward_that_takes_another_way_for_a_proxy_is_not_believed():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 8)

        def forward(self, image):
            x = self.one(image)
            return self.two(x.relu() if isinstance(x, torch.Tensor) else x)

    module = Asks()
    image = torch.rand(1, 3, 32, 48)
    assert torch.equal(encoder_of(probe(module))(image)[-1], module(image))


class Frozen(nn.Module):
    """Freezes its first convolution by a context around its call."""

    def __init__(self, context=torch.no_grad):
        super().__init__()
        self.one, self.two, self.three = conv(3, 4), conv(4, 8), conv(8, 8)
        self.context = context

    def forward(self, image):
        with self.context():
            x = self.one(image)
        return self.three(self.two(x.float()))


class FrozenInTraining(Frozen):
    def forward(self, image):
        with torch.set_grad_enabled(not self.training):
            x = self.one(image)
        return self.three(self.two(x))


class FrozenStage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = conv(3, 4)

    @torch.no_grad()
    def forward(self, x):
        return self.conv(x)


def trained(module, image):
    """The names of the parameters that a backward pass through the encoder's maps gives a gradient."""
    maps = encoder_of(probe(module)).train()(image)
    sum(x.sum() for x in maps).backward()
    return {name for name, parameter in module.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("kind", [Frozen, FrozenInTraining])
def test_what_a_forward_freezes_stays_frozen_and_its_maps_are_found(kind):
    module = kind()
    assert [entry.name for entry in probe(module).pyramid] == ["one", "two", "three"]
    assert trained(module, torch.rand(2, 3, 32, 48)) == {"two.weight", "two.bias", "three.weight", "three.bias"}


def test_a_submodule_that_freezes_itself_stays_whole_and_the_rest_is_a_graph():
    module = nn.Sequential(OrderedDict(stage=FrozenStage(), last=conv(4, 8)))
    assert isinstance(encoder_of(probe(module)), torch.fx.GraphModule)
    assert trained(module, torch.rand(2, 3, 32, 48)) == {"last.weight", "last.bias"}


@pytest.mark.parametrize("is_enabled", [False, True])
def test_autocasting_in_a_forward_is_kept(is_enabled):
    module = Frozen(functools.partial(torch.autocast, "cpu", torch.bfloat16, enabled=is_enabled)).eval()
    encoder = encoder_of(probe(module))
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        maps = encoder(image)
        assert maps[0].dtype == (torch.bfloat16 if is_enabled else torch.float32)
        assert torch.equal(maps[-1], module(image))


def test_gradient_checkpointing_in_a_forward_is_kept():
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.calls = nn.Sequential(conv(4, 8), nn.ReLU(), conv(8, 8, 1)), 0

        def forward(self, x):
            return checkpoint(self.counted, x, use_reentrant=False)

        def counted(self, x):
            self.calls += 1
            return self.inner(x)

    module = nn.Sequential(conv(3, 4), Checkpointed())
    encoder = encoder_of(probe(module))
    assert isinstance(encoder, torch.fx.GraphModule)
    calls = module[1].calls
    sum(x.sum() for x in encoder(torch.rand(1, 3, 32, 48))).backward()
    assert module[1].calls == calls + 2, "once forward, and once more for the gradient"


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("wrap", [lambda module: module, lambda module: nn.Sequential(module, conv(8, 8))])
def test_reentrant_checkpointing_is_refused_since_it_hides_gradients(wrap):
    class Reentrant(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), nn.Sequential(conv(4, 8), nn.ReLU())

        def forward(self, image):
            return checkpoint(self.two, self.one(image), use_reentrant=True)

    with pytest.raises(zoo.errors.PluginError, match="use_reentrant=False"):
        probe(wrap(Reentrant()))


def test_a_graph_of_other_gradients_than_the_modules_is_not_believed():
    class Detaches(Frozen):
        def forward(self, image):
            x = self.one(image)
            return self.three(self.two(x.detach() if isinstance(x, torch.Tensor) else x))

    module = Detaches()
    maps = encoder_of(probe(module))(torch.rand(1, 3, 32, 48))
    maps[-1].sum().backward()
    assert module.one.weight.grad is None
    assert module.two.weight.grad is not None


def test_a_wrapped_module_is_asked_for_plain():
    with pytest.raises(zoo.errors.PluginError, match=r"DataParallel hides.*plain module"):
        probe(nn.DataParallel(Listed()))


def test_a_change_in_place_that_nobody_returns_is_kept():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 8)

        def forward(self, image):
            x = self.one(image)
            x[:, :2].mul_(3)
            x.add_(1)
            return self.two(x)

    module = InPlace()
    spec = probe(module)
    image = torch.rand(1, 3, 16, 24)
    assert torch.equal(encoder_of(spec)(image)[-1], module(image))


def test_preprocessing_is_handed_on():
    module = nn.Sequential(conv(1, 4), conv(4, 8))
    module.preprocessing = zoo.Preprocessing.identity(1)
    encoder = encoder_of(probe(module, in_channels=1), in_channels=1)
    assert encoder.preprocessing is module.preprocessing
    assert pickle.loads(pickle.dumps(encoder)).preprocessing == module.preprocessing


def test_a_module_on_the_meta_device_is_probed_there():
    with torch.device("meta"):
        module = models.resnet18()
    assert [entry.channels for entry in probe(module).pyramid] == [64, 64, 128, 256, 512]


def test_a_module_that_meta_cannot_run_is_measured_on_small_images():
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = conv(3, 4), conv(4, 8)
            self.norm = nn.BatchNorm2d(4)

        def forward(self, image):
            x = self.norm(self.one(image))
            return self.two(x * (2 if x.mean().item() > 0 else 1))

    module = Reads()
    spec = probe(module)
    assert [(entry.name, entry.stride) for entry in spec.pyramid] == [("norm", 2), ("two", 4)]
    assert module.norm.num_batches_tracked == 0
    assert {name for name, _ in encoder_of(spec, ["norm"]).named_children()} == {"module"}


def test_other_channels_weights_or_maps_are_refused():
    spec = probe(nn.Sequential(conv(3, 4)))
    with pytest.raises(zoo.errors.OptionError, match="Sequential takes images of 3 channels, but in_channels=4 was requested"):
        encoder_of(spec, in_channels=4)
    with pytest.raises(zoo.errors.WeightsError, match=r"brings its own weights.*found 'imagenet'"):
        encoder_of(spec, weights="imagenet")
    with pytest.raises(zoo.errors.OptionError, match=r"has no map layer9\. Its maps: 0"):
        encoder_of(spec, ["layer9"])


def test_a_module_of_other_channels_is_told_with_what_it_was_asked():
    with pytest.raises(
        zoo.errors.PluginError, match=r"Sequential raised.*\(4 channels\)(?s:.)*512 x 768(?s:.)*in_channels="
    ) as caught:
        probe(nn.Sequential(conv(3, 4)), in_channels=4)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_module_made_for_one_size_is_told_so():
    with pytest.raises(
        zoo.errors.PluginError, match=r"made for 64 x 64(?s:.)*It takes images of 64 x 64.*image_size=\(64, 64\)"
    ):
        probe(FixedSize())


def test_a_module_without_maps_is_told_so():
    with pytest.raises(zoo.errors.NegotiationError, match=r"Sequential was probed.*512 x 768 and 1024 x 1536.*no feature map"):
        probe(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)))


def test_lazy_parameters_are_told():
    with pytest.raises(zoo.errors.PluginError, match=r"lazy parameters.*call it once"):
        probe(nn.Sequential(nn.LazyConv2d(4, 3)))


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = conv(3, 8), nn.BatchNorm2d(8), conv(8, 16)

    def forward(self, image):
        return self.b(self.norm(self.a(image)).relu())


def encoder_for(module, **options):
    return zoo.build(module, "unet-basic", **options).encoder


def test_a_train_of_its_own_is_kept():
    class Frozen(Body):
        def train(self, mode=True):
            super().train(mode)
            self.norm.eval()
            return self

    for module in (Frozen(), nn.Sequential(Frozen())):
        encoder = encoder_for(module).train()
        frozen = module if isinstance(module, Frozen) else module[0]
        assert encoder.training
        assert not frozen.norm.training


@pytest.mark.parametrize("draw", [random.random, np.random.rand])
def test_what_a_forward_draws_from_other_generators_is_drawn_each_time(draw):
    class Skips(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(8, 8, 1)

        def forward(self, x):
            return x if self.training and draw() < 0.5 else x + self.conv(x)

    before = random.getstate(), np.random.get_state()[1].tolist()
    encoder = encoder_for(nn.Sequential(conv(3, 8), Skips(), conv(8, 16))).train()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    image = torch.rand(2, 3, 32, 32)
    assert len({encoder(image)[-1].sum().item() for _ in range(30)}) == 2


def test_a_tensor_that_is_set_on_another_is_set_in_each_forward():
    class MaxNorm(nn.Conv2d):
        def forward(self, x):
            self.weight.data = torch.renorm(self.weight.data, p=2, dim=0, maxnorm=1.0)
            return super().forward(x)

    module = nn.Sequential(MaxNorm(3, 8, 3, 2, 1), nn.ReLU(), MaxNorm(8, 16, 3, 2, 1))
    encoder = encoder_for(module)
    with torch.no_grad():
        module[0].weight.mul_(10)
        encoder(torch.rand(1, 3, 32, 32))
    assert module[0].weight.flatten(1).norm(dim=1).max() < 1.001


def test_statistics_that_a_forward_updates_in_place_are_updated():
    class Running(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(1, 8, 1, 1))

        def forward(self, x):
            if self.training:
                self.mean.mul_(0.9).add_(0.1 * x.detach().mean((0, 2, 3), keepdim=True))
            return x - self.mean

    module = nn.Sequential(conv(3, 8), Running(), conv(8, 16))
    encoder_for(module).train()(torch.rand(2, 3, 32, 32))
    assert module[1].mean.abs().sum() > 0


def test_parameters_of_complex_numbers_are_trained():
    class Spectral(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 1, 1, dtype=torch.cfloat))

        def forward(self, x):
            return torch.fft.irfft2(torch.fft.rfft2(x) * self.weight, s=x.shape[-2:])

    module = nn.Sequential(conv(3, 8), Spectral(), conv(8, 16))
    zoo.build(module, "unet-basic")(torch.rand(2, 3, 32, 32)).sum().backward()
    assert module[1].weight.grad.abs().sum() > 0


class Changes(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.a, self.b, self.c, self.change = conv(3, 8), conv(8, 16), conv(16, 16), change

    def forward(self, image):
        a = self.a(image)
        b = self.b(a)
        return [a, b, self.c(self.change(b))]


class Doubles(nn.Module):
    def forward(self, x):
        if x.shape[0] > 0:  # so that it is no graph
            x.mul_(2)
        return x


@pytest.mark.parametrize("levels", [2, 3])
@pytest.mark.parametrize("change", [lambda x: F.relu(x, True), lambda x: x.mul_(3), Doubles()], ids=["relu", "mul", "module"])
def test_a_returned_map_is_as_the_module_returns_it_whatever_changes_it_in_place(change, levels):
    module = Changes(change)
    image = torch.rand(1, 3, 32, 32)
    found, expected = encoder_for(module, levels=levels)(image), module(image)
    assert [torch.equal(one, other) for one, other in zip(found, expected, strict=False)] == [True] * levels


def test_a_map_that_an_untraceable_module_changes_after_its_last_call_is_the_changed_one():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 16)

        def forward(self, image):
            if image.shape[-1] < 4:
                raise ValueError("too small")
            a = self.a(image)
            b = self.b(a)
            b *= 3
            return [a, b]

    module, image = Net(), torch.rand(1, 3, 32, 32)
    assert torch.equal(encoder_for(module)(image)[-1], module(image)[-1])


@pytest.mark.parametrize("size", [(16, 96), (96, 16), (64, 96)])
def test_a_layer_that_only_some_sizes_need_is_kept(size):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.small, self.portrait, self.b = conv(3, 8), conv(8, 8, 1), conv(8, 8, 1), conv(8, 16)

        def forward(self, image):
            x = self.a(image)
            if x.shape[2] < 32:
                x = self.small(x)
            if x.shape[2] > x.shape[3]:
                x = self.portrait(x)
            return self.b(x)

    module, image = Net().eval(), torch.rand(1, 3, *size)
    assert torch.equal(encoder_for(module).eval()(image)[-1], module(image))


def test_maps_of_one_stride_that_do_not_need_one_another_are_refused():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.rgb, self.depth = conv(3, 8), conv(1, 8)

        def forward(self, image):
            return self.rgb(image[:, :3]), self.depth(image[:, 3:])

    told = r"map0 \(8 channels\) and map1 \(8 channels\), both of stride 2.*leave out 2 parameters.*rgb\.weight.*picks one of"
    with pytest.raises(zoo.errors.NegotiationError, match=told):
        zoo.build(Branches(), "unet-basic", in_channels=4)


def test_a_returned_map_without_parameters_displaces_none_that_has_some():
    class Joiner(Body):
        def forward(self, image):
            features = super().forward(image)
            return features, torch.ones_like(features).cumsum(-1)

    model = zoo.build(Joiner(), "unet-basic").eval()
    assert not torch.equal(model(torch.rand(1, 3, 32, 32)), model(torch.zeros(1, 3, 32, 32)))


@pytest.mark.parametrize("returned", [lambda a, b: [b, a], lambda a, b: ([a, b], b)], ids=["order", "structure"])
def test_other_maps_in_train_mode_are_refused(returned):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = conv(3, 8), conv(8, 8)

        def forward(self, image):
            assert image.shape[-1] > 4
            a = self.a(image).relu()
            b = self.b(a).relu()
            return returned(a, b) if self.training else [a, b]

    with pytest.raises(zoo.errors.PluginError, match="in train mode"):
        zoo.build(Net(), "unet-basic")


def test_hooks_on_what_an_encoder_does_not_compute_are_refused_and_others_run():
    module, called = Body(), []
    module.b.register_full_backward_hook(lambda *_: called.append("backward"))
    model = zoo.build(module, "unet-basic")
    called.clear()
    model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert called == ["backward"]
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(zoo.errors.PluginError, match="has hooks on its own forward or backward pass"):
        zoo.build(module, "unet-basic")


def test_a_scripted_submodule_is_refused_with_where_it_lies():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # recent versions of torch deprecate scripting
        scripted = torch.jit.script(nn.Sequential(conv(8, 16), nn.ReLU()))
    with pytest.raises(
        zoo.errors.PluginError, match=r"RecursiveScriptModule at 1 hides the modules inside\. Pass the plain module"
    ):
        zoo.build(nn.Sequential(conv(3, 8), scripted), "unet-basic")


def test_what_a_forward_keeps_deep_inside_its_attributes_is_put_back():
    class Keeps(Body):
        def __init__(self):
            super().__init__()
            self.tables, self.last = {"by size": {}}, deque(maxlen=4)

        def forward(self, image):
            x = super().forward(image)
            table = self.tables["by size"].setdefault(tuple(x.shape[-2:]), torch.ones(x.shape[-2:], device=x.device))
            self.last.append(x.detach().mean())
            return x * table + torch.stack(list(self.last)).mean()

    module = Keeps()
    zoo.build(module, "unet-basic")
    assert (module.tables, list(module.last)) == ({"by size": {}}, [])


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt()])
def test_a_module_whose_code_ends_the_program_is_an_error(end):
    class Ending(nn.Conv2d):
        def forward(self, image):
            raise end

    with pytest.raises(zoo.errors.PluginError, match=f"Measuring a module was ended by {type(end).__name__}"):
        zoo.build(Ending(3, 8, 3, stride=2), "unet-basic")

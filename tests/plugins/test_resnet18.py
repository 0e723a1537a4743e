"""The encoder `resnet18`: torchvision's own activations, weights from files and from torch hub, any number of channels."""

from __future__ import annotations

import math
import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from timm.models._manipulate import adapt_input_conv
from torchvision.models import ResNet, ResNet18_Weights, resnet18, resnet34

import zoo
from zoo.registry.registry import default_registry
from zoo_resnet18.encoder import ResNet18Encoder

FACTS = [
    ("stem", 64, 2),
    ("pool", 64, 4),
    ("layer1", 64, 4),
    ("layer2", 128, 8),
    ("layer3", 256, 16),
    ("layer4", 512, 32),
]
NAMES = [name for name, _, _ in FACTS]
HUB_FILE = Path(ResNet18_Weights.IMAGENET1K_V1.url).name


@pytest.fixture(scope="module")
def network() -> ResNet:
    """torchvision's ResNet18 with random weights and random running statistics, as after some training."""
    torch.manual_seed(0)
    network = resnet18(weights=None)
    for name, value in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def state(network):
    return network.state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def weights(state, folder):
    torch.save(state, folder / "resnet18.pth")
    save_file(state, folder / "resnet18.safetensors")
    return folder / "resnet18.pth"


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """torch hub's empty folder for checkpoints, and no network: what listens for the proxy refuses every connection."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        for name in ("https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{closed.getsockname()[1]}")
        folder = tmp_path / "hub" / "checkpoints"
        folder.mkdir(parents=True)
        yield folder


def activations(network, image):
    """Return what torchvision's own modules give on the way to the classifier."""
    found = {}
    hooks = [
        network.get_submodule(module).register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
        for name, module in zip(NAMES, ["relu", "maxpool", *NAMES[2:]], strict=True)
    ]
    network(image)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in NAMES]


class CodeInside:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
def test_the_six_maps_equal_torchvisions_own_activations_bit_for_bit(network, weights, name):
    image = torch.rand(2, 3, 65, 97)
    encoder = ResNet18Encoder(maps=NAMES, weights=str(weights.with_name(name))).eval()
    with torch.no_grad():
        maps, expected = encoder(image), activations(network, image)
    assert all(torch.equal(found, wanted) for found, wanted in zip(maps, expected, strict=True))


def test_the_maps_that_a_unet_takes_equal_torchvisions_bit_for_bit(network, weights):
    image = torch.rand(1, 3, 64, 64)
    model = zoo.build("resnet18", "unet-basic", weights=weights).eval()
    with torch.no_grad():
        maps, expected = model.encoder(image), dict(zip(NAMES, activations(network, image), strict=True))
    assert model.plan.maps == ("stem", "layer1", "layer2", "layer3", "layer4")
    assert all(torch.equal(found, expected[name]) for name, found in zip(model.plan.maps, maps, strict=True))


@pytest.mark.parametrize("size", [(64, 96), (65, 97), (33, 47), (225, 301)])
def test_the_declared_pyramid_is_the_measured_one(size):
    plan = zoo.negotiate("resnet18", "unet-basic")
    given = [entry.source for entry in [*plan.routes, *plan.unused]]
    assert {(entry.name, entry.channels, entry.stride) for entry in given} == set(FACTS)
    assert zoo.channels("resnet18") == [64, 64, 64, 128, 256, 512]
    with torch.device("meta"):
        maps = ResNet18Encoder(maps=NAMES)(torch.empty(2, 3, *size))
    assert [tuple(found.shape) for found in maps] == [
        (2, channels, *(math.ceil(side / stride) for side in size)) for _, channels, stride in FACTS
    ]


@pytest.mark.parametrize("name", NAMES)
def test_any_one_map_can_be_had_alone(network, weights, name):
    image = torch.rand(1, 3, 64, 64)
    encoder = ResNet18Encoder(maps=[name], weights=str(weights)).eval()
    with torch.no_grad():
        (found,) = encoder(image)
        assert torch.equal(found, activations(network, image)[NAMES.index(name)])


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_only_the_stages_in_use_are_held(levels):
    with torch.device("meta"):
        model = zoo.build("resnet18", "unet-basic", levels=levels)
        model(torch.rand(2, 3, 64, 64)).square().mean().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    stages = {name.split(".")[0] for name, _ in model.encoder.named_parameters()}
    assert stages == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"} - {f"layer{n}" for n in range(levels, 5)}


@pytest.mark.parametrize("in_channels", [1, 4, 13])
def test_pretrained_weights_follow_the_number_of_channels_as_in_timm(state, weights, in_channels):
    model = zoo.build("resnet18", "unet-basic", weights=weights, in_channels=in_channels)
    found = model.encoder.state_dict()
    expected = {name: value for name, value in state.items() if not name.startswith("fc.")}
    expected["conv1.weight"] = adapt_input_conv(in_channels, state["conv1.weight"])
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("in_channels", [1, 4, 13])
def test_images_have_as_many_channels_as_asked_for(in_channels):
    model = zoo.build("resnet18", "unet-basic", in_channels=in_channels, levels=2)
    model(torch.rand(2, in_channels, 33, 47)).square().mean().backward()
    gradient = model.encoder.get_submodule("conv1").weight.grad
    assert gradient.shape[1] == in_channels
    assert gradient.abs().amax(dim=(0, 2, 3)).min() > 0
    with pytest.raises(zoo.errors.InputError, match=rf"\(N, {in_channels}, H, W\)"):
        model(torch.rand(1, 3, 33, 47))


@pytest.mark.parametrize("in_channels", [1, 3, 4])
def test_random_weights_ask_for_no_preprocessing(in_channels):
    preprocessing = zoo.build("resnet18", "unet-basic", in_channels=in_channels).preprocessing
    assert preprocessing.mean == (0.0,) * in_channels
    assert preprocessing.std == (1.0,) * in_channels
    assert preprocessing.value_range == (0.0, 1.0)


@pytest.mark.parametrize(
    ("in_channels", "mean", "std"),
    [
        (3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        (1, (0.449,), (0.226,)),
        (4, (0.485, 0.456, 0.406, 0.485), (0.229, 0.224, 0.225, 0.229)),
    ],
)
def test_trained_weights_ask_for_imagenets_preprocessing(weights, in_channels, mean, std):
    preprocessing = zoo.build("resnet18", "unet-basic", in_channels=in_channels, weights=weights).preprocessing
    assert preprocessing.mean == pytest.approx(mean)
    assert preprocessing.std == pytest.approx(std)
    assert preprocessing.value_range == (0.0, 1.0)


@pytest.mark.parametrize("name", ["nowhere.pth", "imagenette"])
def test_a_file_that_is_missing_is_named_with_what_is_allowed(tmp_path, name):
    with pytest.raises(zoo.errors.WeightsError, match=rf"{name}.*'imagenet'.*\.pth.*\.safetensors"):
        zoo.build("resnet18", "unet-basic", weights=tmp_path / name)


@pytest.mark.parametrize("name", ["resnet18.pth", "resnet18.safetensors"])
@pytest.mark.parametrize("kept", [0, 100, 1_000_000])
def test_a_truncated_file_is_a_weights_error(weights, tmp_path, name, kept):
    path = tmp_path / f"cut-{name}"
    path.write_bytes(weights.with_name(name).read_bytes()[:kept])
    with pytest.raises(zoo.errors.WeightsError, match=f"cut-{name} could not be read"):
        zoo.build("resnet18", "unet-basic", weights=path)


@pytest.mark.parametrize("content", [b"no weights at all", b"GM_\xd0\xc7\t", b"\x80\x02Qc\xb5\xfe\t\x7f{"])
def test_a_file_of_something_else_is_a_weights_error(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(zoo.errors.WeightsError, match=r"other\.pth could not be read"):
        zoo.build("resnet18", "unet-basic", weights=path)


def test_code_in_a_file_is_refused_and_never_run(state, tmp_path):
    path, trace = tmp_path / "code.pth", tmp_path / "trace"
    torch.save({**state, "fc.bias": CodeInside(trace)}, path)
    with pytest.raises(zoo.errors.WeightsError, match=r"code\.pth could not be read.*state_dict"):
        zoo.build("resnet18", "unet-basic", weights=path)
    assert not trace.exists()


@pytest.mark.parametrize("content", ["whole model", "settings", "tensor", "numbered tensors"])
def test_what_is_no_state_dict_is_told_from_one(network, tmp_path, content):
    whole = {
        "whole model": network,
        "settings": {"learning_rate": 0.1},
        "tensor": torch.zeros(3),
        "numbered tensors": {1: torch.zeros(3)},
    }
    path = tmp_path / "whole.pth"
    torch.save(whole[content], path)
    with pytest.raises(zoo.errors.WeightsError, match=r"whole\.pth.*state_dict\(\)") as caught:
        zoo.build("resnet18", "unet-basic", weights=path)
    assert "\x1b" not in str(caught.value)


def without_layer2(state):
    return {name: value for name, value in state.items() if not name.startswith("layer2.")}


def with_more_under_its_prefix(state):
    return {f"module.{name}": value for name, value in {**state, "layer5.weight": torch.zeros(3)}.items()}


def with_another_shape(state):
    return {**state, "layer3.0.conv1.weight": torch.zeros(256, 128, 1, 1)}


def with_four_channels(state):
    return {**state, "conv1.weight": torch.zeros(64, 4, 7, 7)}


def of_resnet34(_):
    return resnet34(weights=None).state_dict()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (without_layer2, r"missing 25 \(layer2\.0\.conv1\.weight"),
        (with_more_under_its_prefix, r"unexpected 1 \(module\.layer5\.weight\)"),
        (with_another_shape, r"layer3\.0\.conv1\.weight: found \(256, 128, 1, 1\), needed \(256, 128, 3, 3\)"),
        (with_four_channels, r"conv1\.weight: found \(64, 4, 7, 7\), needed \(64, 3, 7, 7\)"),
        (of_resnet34, r"unexpected .*layer1\.2\.conv1\.weight"),
    ],
)
def test_weights_that_do_not_fit_name_the_keys(state, tmp_path, change, named):
    path = tmp_path / "other.pth"
    torch.save(change(state), path)
    with pytest.raises(zoo.errors.WeightsError, match=rf"(?s)other\.pth.*{named}"):
        zoo.build("resnet18", "unet-basic", weights=path)


def test_fewer_levels_need_only_their_own_keys(state, tmp_path):
    path = tmp_path / "first.pth"
    torch.save({name: value for name, value in state.items() if not name.startswith(("layer3.", "layer4.", "fc."))}, path)
    encoder = zoo.build("resnet18", "unet-basic", levels=3, weights=path).encoder
    assert torch.equal(encoder.state_dict()["layer2.1.conv2.weight"], state["layer2.1.conv2.weight"])
    with pytest.raises(zoo.errors.WeightsError, match=r"missing .*layer3\.0\.conv1\.weight"):
        zoo.build("resnet18", "unet-basic", levels=4, weights=path)


def test_imagenets_weights_are_found_in_torch_hubs_folder(state, checkpoints):
    torch.save(state, checkpoints / HUB_FILE)
    model = zoo.build("resnet18", "unet-basic", weights="imagenet")
    assert all(torch.equal(value, state[name]) for name, value in model.encoder.state_dict().items())
    assert model.preprocessing.mean == (0.485, 0.456, 0.406)


def test_without_network_the_error_says_where_to_put_the_file(checkpoints):
    with pytest.raises(zoo.errors.WeightsError) as caught:
        zoo.build("resnet18", "unet-basic", weights="imagenet")
    assert ResNet18_Weights.IMAGENET1K_V1.url in str(caught.value)
    assert str(checkpoints / HUB_FILE) in str(caught.value)
    assert "weights=" in str(caught.value)
    assert list(checkpoints.iterdir()) == []


def test_a_broken_file_in_torch_hubs_folder_is_named(checkpoints):
    (checkpoints / HUB_FILE).write_bytes(b"half a download")
    with pytest.raises(zoo.errors.WeightsError) as caught:
        zoo.build("resnet18", "unet-basic", weights="imagenet")
    assert str(checkpoints / HUB_FILE) in str(caught.value)


def test_code_in_torch_hubs_folder_is_never_run(checkpoints, tmp_path):
    trace = tmp_path / "trace"
    torch.save({"conv1.weight": CodeInside(trace)}, checkpoints / HUB_FILE)
    with pytest.raises(zoo.errors.WeightsError):
        zoo.build("resnet18", "unet-basic", weights="imagenet")
    assert not trace.exists()


def test_an_option_that_resnet18_has_not_is_refused():
    with pytest.raises(zoo.errors.OptionError, match=r"resnet18 has no option 'depth'.*none"):
        zoo.build("resnet18", "unet-basic", encoder_options={"depth": 18})


def test_building_changes_no_entry_of_the_registry(weights):
    def entries():
        return (
            zoo.list_encoders("resnet18"),
            zoo.list_decoders(),
            zoo.channels("resnet18"),
            zoo.explain("resnet18", "unet-basic"),
        )

    before = entries()
    options = {"channels": [8, 8, 8, 8, 8], "norm": "none"}
    model = zoo.build(
        "resnet18", "unet-basic", classes=7, in_channels=4, weights=weights, adapters="none", decoder_options=options
    )
    model.encoder.maps = ()
    options["channels"].append(8)
    assert entries() == before
    assert model.pairing.decoder_options["channels"] == (8, 8, 8, 8, 8)
    again = zoo.build("resnet18", "unet-basic")
    assert (again.decoder.out_channels, again.head.out_channels, again.pairing.in_channels) == (16, 1, 3)
    assert again.preprocessing.mean == (0.0, 0.0, 0.0)


def test_weights_in_the_folder_of_torch_hub_are_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    entry = default_registry().encoder("resnet18")
    assert entry.find_local_weights() is None
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    (tmp_path / "hub/checkpoints" / HUB_FILE).write_bytes(b"")
    assert entry.find_local_weights() == "imagenet"

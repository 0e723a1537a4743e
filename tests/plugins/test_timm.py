"""timm's architectures as encoders: all are listed, those of strides 2 to 32 build, with timm's own maps and weights."""

from __future__ import annotations

import json
import math
from importlib.resources import files

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import DropPath
from timm.models._manipulate import adapt_input_conv

import zoo

SMALL = "test_resnet"
FAMILIES = [
    "resnet18",
    "densenet121",
    "dla34",
    "efficientnet_b0",
    "ghostnet_100",
    "hrnet_w18_small",
    "legacy_xception",
    "mobilenetv3_small_100",
    "nfnet_f0",
    "regnetx_002",
    "repvgg_a0",
    "resnest14d",
    "tf_efficientnet_lite0",
]


@pytest.fixture(scope="module")
def trained():
    """A small timm model with random weights and random running statistics, as after some training."""
    torch.manual_seed(0)
    model = timm.create_model(SMALL)
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    return model.eval()


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.save(trained.state_dict(), folder / "small.pth")
    save_file(trained.state_dict(), folder / "small.safetensors")
    return folder


def test_every_architecture_of_timm_is_listed():
    indexed = json.loads(files("zoo_timm").joinpath("index.json").read_text(encoding="utf-8"))["timm"]
    if timm.__version__ != indexed:
        pytest.skip(f"the index is of timm {indexed}, installed is {timm.__version__}: their architectures differ")
    assert zoo.list_encoders("timm:*") == sorted(f"timm:{name}" for name in timm.list_models())


@pytest.mark.parametrize("name", FAMILIES)
def test_an_architecture_of_strides_2_to_32_pairs_at_any_size(name):
    with torch.device("meta"):
        model = zoo.build(f"timm:{name}", "unet-basic", classes=5).eval()
        assert model(torch.empty(2, 3, 65, 97)).shape == (2, 5, 65, 97)
        maps = model.encoder(torch.empty(2, 3, 192, 256))
    declared = [route.source for route in model.plan.routes]
    assert [found.shape[1] for found in maps] == [entry.channels for entry in declared] == zoo.channels(f"timm:{name}")
    assert [entry.stride for entry in declared] == [2, 4, 8, 16, 32]
    measured = [(round(math.log2(192 / found.shape[2])), round(math.log2(256 / found.shape[3]))) for found in maps]
    assert measured == [(entry.level, entry.level) for entry in declared]


def test_the_maps_are_those_of_timms_features_only_networks():
    torch.manual_seed(0)
    encoder = zoo.build("timm:mobilenetv3_small_050", "unet-basic").encoder.eval()
    torch.manual_seed(0)
    expected = timm.create_model("mobilenetv3_small_050", features_only=True).eval()
    image = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        assert all(map(torch.equal, encoder(image), expected(image)))
        assert len(encoder(image)) == 5


@pytest.mark.parametrize("name", ["small.pth", "small.safetensors"])
def test_weights_are_loaded_from_a_file(trained, folder, name):
    model = zoo.build(f"timm:{SMALL}", "unet-basic", weights=folder / name).eval()
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found, expected = model.encoder(image), trained.forward_intermediates(image, intermediates_only=True)
        untrained = zoo.build(f"timm:{SMALL}", "unet-basic").encoder.eval()(image)
    assert all(map(torch.equal, found, expected))
    assert not any(map(torch.equal, found, untrained))


@pytest.mark.parametrize("name", [SMALL, "mobilenetv3_small_050"])
def test_trained_weights_ask_for_their_own_preprocessing(tmp_path, name):
    model = timm.create_model(name)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    wanted = timm.data.resolve_model_data_config(model)
    preprocessing = zoo.build(f"timm:{name}", "unet-basic", weights=tmp_path / "weights.pth").preprocessing
    assert (preprocessing.mean, preprocessing.std) == (wanted["mean"], wanted["std"])
    untrained = zoo.build(f"timm:{name}", "unet-basic").preprocessing
    assert (untrained.mean, untrained.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("in_channels", [1, 4, 13])
def test_images_may_have_other_channels_pretrained_weights_included(trained, folder, in_channels):
    model = zoo.build(f"timm:{SMALL}", "unet-basic", weights=folder / "small.pth", in_channels=in_channels).eval()
    first = f"{trained.default_cfg['first_conv']}.weight"
    assert torch.equal(
        model.encoder.get_submodule("network").state_dict()[first],
        adapt_input_conv(in_channels, trained.state_dict()[first]),
    )
    assert model(torch.rand(1, in_channels, 65, 97)).shape == (1, 1, 65, 97)
    assert len(model.preprocessing.mean) == in_channels


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(zoo.WeightsError, match=r"nowhere\.pth.*neither a file nor 'default'"):
        zoo.build(f"timm:{SMALL}", "unet-basic", weights=tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18", "dla46_c"])
def test_weights_of_another_architecture_are_refused(folder, name):
    with pytest.raises(zoo.WeightsError, match=rf"small\.pth.*{name}"):
        zoo.build(f"timm:{name}", "unet-basic", weights=folder / "small.pth")


def test_code_in_a_file_is_refused(trained, tmp_path):
    torch.save(trained, tmp_path / "whole.pth")
    with pytest.raises(zoo.WeightsError, match=r"whole\.pth"):
        zoo.build(f"timm:{SMALL}", "unet-basic", weights=tmp_path / "whole.pth")


def test_a_vision_transformer_is_listed_and_its_pairing_refused_with_the_reason():
    assert "timm:vit_tiny_patch16_224" in zoo.list_encoders("vit_tiny_patch16_224")
    with pytest.raises(zoo.NegotiationError, match=r"timm:vit_tiny_patch16_224.*strides 16, 16, 16"):
        zoo.build("timm:vit_tiny_patch16_224", "unet-basic")


def test_a_name_that_two_plugins_have_is_the_projects_own_bare_and_timms_in_full():
    with torch.device("meta"):
        own, timms = (type(zoo.build(id, "unet-basic").encoder) for id in ("resnet18", "timm:resnet18"))
    assert own is not timms


def test_encoder_options_are_timms_own_keywords():
    with torch.device("meta"):
        plain = zoo.build("timm:resnet18", "unet-basic").encoder
        dropping = zoo.build("timm:resnet18", "unet-basic", encoder_options={"drop_path_rate": 0.2}).encoder
    rates = [module.drop_prob for module in dropping.modules() if isinstance(module, DropPath)]
    assert max(rates) == pytest.approx(0.2)
    assert not any(isinstance(module, DropPath) for module in plain.modules())


@pytest.mark.parametrize("weights", [None, "small.pth"])
def test_an_option_that_timm_has_not_is_named_and_not_blamed_on_the_weights(folder, weights):
    weights = weights and folder / weights
    with pytest.raises(zoo.ZooError, match=rf"timm:{SMALL}.*drop_pathrate") as caught:
        zoo.build(f"timm:{SMALL}", "unet-basic", weights=weights, encoder_options={"drop_pathrate": 0.2})
    assert not isinstance(caught.value, zoo.WeightsError)


@pytest.mark.parametrize("option", ["in_chans", "pretrained", "num_classes", "out_indices", "output_stride"])
def test_a_keyword_of_timms_that_would_belie_the_plan_is_refused(option):
    with pytest.raises(zoo.OptionError, match=rf"timm:resnet18.*{option}"):
        zoo.build("timm:resnet18", "unet-basic", encoder_options={option: 1})


def test_a_pickle_that_may_hold_code_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    with pytest.raises(zoo.WeightsError, match=r"may hold code is not read"):
        zoo.build("timm:resnet18", "unet-basic", weights=path)

"""timm's architectures as encoders: all are listed, all pair, with timm's own maps, weights, tags and options."""

from __future__ import annotations

import json
import sys
from importlib.resources import files

import pytest
import timm
import torch
from indexed_timm import IS_INSTALLED, needs_indexed_timm, skip_if_lacking
from safetensors.torch import save_file
from timm.layers import DropPath
from timm.models._manipulate import adapt_input_conv
from timm_families import FAMILIES
from torch import nn

import zoo
from zoo_timm.describe import Indexing, describe
from zoo_timm.index import Index, index

SMALL = "test_resnet"
DECODERS = ("unet-basic", "unet-bilinear", "unet-attention")

pytestmark = pytest.mark.usefixtures("one_thread")


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


@needs_indexed_timm
def test_every_architecture_of_timm_is_listed():
    assert zoo.list_encoders("timm:*") == sorted(f"timm:{name}" for name in timm.list_models())


@pytest.mark.parametrize(
    "family",
    [pytest.param(each, marks=pytest.mark.slow) if each == "sequencer" else each for each in FAMILIES],  # half a minute alone
)
def test_an_architecture_of_each_family_pairs_with_a_decoder_at_an_odd_size(family):
    """Which of the decoders takes turns; benchmarks/coverage.py runs all of timm with all of them."""
    decoder = DECODERS[list(FAMILIES).index(family) % len(DECODERS)]
    id = f"timm:{FAMILIES[family]}"
    if family == "gemma4_vit":
        pytest.skip("asks for numbers, which the meta device has not; run with real tensors among the slow tests")
    skip_if_lacking(FAMILIES[family])
    with torch.device("meta"):
        model = zoo.build(id, decoder, classes=5, image_size=(97, 129)).eval()
        assert model(torch.empty(2, 3, 97, 129)).shape == (2, 5, 97, 129)
    assert model.plan == zoo.negotiate(id, decoder, classes=5, image_size=(97, 129))


@pytest.mark.parametrize(
    ("options", "size"),
    [({}, (225, 301)), ({}, (256, 256)), ({"image_size": (256, 256)}, (256, 256)), ({"image_size": (320, 256)}, (320, 256))],
)
def test_an_architecture_that_indexes_by_relative_position_runs_with_real_tensors_at_other_sizes(options, size):
    """On the meta device an index is never out of bounds, so that MViTv2 seemed to take images of any size."""
    model = zoo.build("timm:mvitv2_tiny", "unet-basic", classes=2, **options).eval()
    with torch.no_grad():
        logits = model(torch.rand(1, 3, *size))
    assert logits.shape == (1, 2, *size)
    assert logits.isfinite().all()


def test_an_index_by_values_is_found_where_nothing_is_computed():
    with torch.device("meta"):
        table, positions = torch.zeros(4, 2), torch.zeros(9, dtype=torch.int64)
        for look_up in (
            lambda: table[positions],
            lambda: table.index_select(0, positions),
            lambda: table.gather(0, table.long()),
        ):
            with Indexing() as indexing:
                look_up()
            assert indexing.is_found
        with Indexing() as indexing:
            (table[1:] + table[:-1]).softmax(1)
        assert not indexing.is_found


@needs_indexed_timm
def test_every_architecture_negotiates_with_every_decoder():
    plans = [zoo.negotiate(id, decoder) for id in zoo.list_encoders("timm:*") for decoder in DECODERS]
    assert len(plans) == len(DECODERS) * len(timm.list_models())
    assert all(len(plan.routes) >= 2 for plan in plans)


def shipped_entry(name):
    shipped = json.loads(files("zoo_timm").joinpath("index.json").read_text(encoding="utf-8"))
    return {key: value for key, value in shipped["architectures"][name].items() if key != "tags"}


@needs_indexed_timm
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "nest_tiny", "dla34", SMALL])
def test_the_index_holds_what_a_real_build_shows(name):
    assert json.loads(json.dumps(describe(name))) == shipped_entry(name)


def test_the_tags_are_timms_own():
    shipped = {name: tags for name, tags in index().tags.items() if tags}
    listed = {}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        listed.setdefault(architecture, []).append(tag)
    assert {name: list(tags) for name, tags in shipped.items()} == listed


def test_the_maps_are_those_of_timms_features_only_networks():
    encoder = zoo.build("timm:mobilenetv3_small_050", "unet-basic").encoder.eval()
    expected = timm.create_model("mobilenetv3_small_050", features_only=True).eval()
    copy_parameters(encoder, expected)
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
    with pytest.raises(zoo.errors.WeightsError, match=r"nowhere\.pth.*neither a file nor a known name"):
        zoo.build(f"timm:{SMALL}", "unet-basic", weights=tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["test_efficientnet", "resnet18", "dla46_c"])
def test_weights_of_another_architecture_are_refused(folder, name):
    skip_if_lacking(name)
    with pytest.raises(zoo.errors.WeightsError, match=rf"small\.pth.*{name}"):
        zoo.build(f"timm:{name}", "unet-basic", weights=folder / "small.pth")


def test_code_in_a_file_is_refused(trained, tmp_path):
    torch.save(trained, tmp_path / "whole.pth")
    with pytest.raises(zoo.errors.WeightsError, match=r"whole\.pth"):
        zoo.build(f"timm:{SMALL}", "unet-basic", weights=tmp_path / "whole.pth")


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
    assert not isinstance(caught.value, zoo.errors.WeightsError)


@pytest.mark.parametrize("option", ["in_chans", "pretrained", "num_classes", "out_indices", "features_only"])
def test_a_keyword_of_timms_that_would_belie_the_plan_is_refused(option):
    with pytest.raises(zoo.errors.OptionError, match=rf"timm:resnet18.*{option}"):
        zoo.build("timm:resnet18", "unet-basic", encoder_options={option: 1})


def test_a_pickle_that_may_hold_code_is_refused(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Conv2d(1, 1, 1), path)
    with pytest.raises(zoo.errors.WeightsError, match=r"may contain code is not read"):
        zoo.build("timm:resnet18", "unet-basic", weights=path)


def copy_parameters(source, target):
    """Copy in order: the two name them differently."""
    with torch.no_grad():
        for theirs, ours in zip(target.parameters(), source.parameters(), strict=True):
            theirs.copy_(ours)


class TakesFour(nn.Module):
    """As DPT: four maps of one stride."""

    needs = zoo.Needs(min_levels=4, max_levels=4, distinct_strides=False)

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, int(pyramid[-1].stride)

    def forward(self, features):
        return sum(features)


@pytest.mark.usefixtures("fresh_registry")
def test_a_vision_transformer_offers_every_block_and_a_decoder_may_take_four():
    zoo.register_decoder("four", TakesFour)
    assert zoo.channels("timm:vit_tiny_patch16_224") == [192] * 12
    with torch.device("meta"):
        model = zoo.build("timm:vit_tiny_patch16_224", "four")
        assert model(torch.empty(1, 3, 65, 97)).shape == (1, 1, 65, 97)
    assert model.plan.maps == ("blocks.2", "blocks.5", "blocks.8", "blocks.11")
    with torch.device("meta"):
        shallower = zoo.build("timm:vit_tiny_patch16_224", "unet-basic").encoder
    assert model.plan.adapters == ()
    assert len(shallower.network.blocks) == 12


def test_a_vision_transformer_without_adapters_is_refused_level_by_level():
    with pytest.raises(zoo.errors.NegotiationError) as caught:
        zoo.build("timm:vit_tiny_patch16_224", "unet-basic", adapters="none")
    problems = [line for line in str(caught.value).splitlines() if "Problem" in line]
    assert [f"stride {2**level}" in line for level, line in enumerate(problems, start=2)] == [True] * 4
    assert all("would need" in line and "parameters" in line and "adapters='auto'" in line for line in problems)


def test_swin_where_height_equals_channels_gives_timms_own_features():
    """At 384 the first map is 96 x 96 of 96 channels: no shape tells NHWC from NCHW."""
    name = "swin_tiny_patch4_window7_224"
    options = {} if IS_INSTALLED else {"strict_img_size": False}  # timm 1.0.20 lacks dynamic_img_size for Swin
    encoder = zoo.build(f"timm:{name}", "unet-basic", encoder_options=options).encoder.eval()
    theirs = timm.create_model(name, features_only=True, **(options or {"dynamic_img_size": True})).eval()
    copy_parameters(encoder, theirs)
    image = torch.rand(1, 3, 384, 384)
    with torch.no_grad():
        found, expected = encoder(image), theirs(image)
    assert found[0].shape == (1, 96, 96, 96)
    assert all(torch.equal(ours, nhwc.permute(0, 3, 1, 2)) for ours, nhwc in zip(found, expected, strict=True))
    assert not torch.equal(found[0], expected[0])


@pytest.mark.parametrize(
    "name", ["crossvit_tiny_240", "hrnet_w18_small", "efficientvim_m1", "efficientnet_b0", "legacy_xception"]
)
@pytest.mark.parametrize("levels", [None, 2])
def test_no_parameter_is_held_that_no_chosen_map_needs(name, levels):
    skip_if_lacking(name)
    with torch.device("meta"):
        model = zoo.build(f"timm:{name}", "unet-basic", levels=levels).eval()
        model(torch.empty(1, 3, 128, 128)).sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("output_stride", [8, 16])
def test_an_output_stride_is_an_option_of_what_can_dilate(output_stride):
    with torch.device("meta"):
        model = zoo.build("timm:resnet18", "unet-basic", encoder_options={"output_stride": output_stride}).eval()
        maps = model.encoder(torch.empty(1, 3, 64, 96))
    assert [route.source.stride for route in model.plan.routes] == [
        stride for stride in (2, 4, 8, 16) if stride <= output_stride
    ]
    assert [found.shape[-1] for found in maps] == [96 // stride for stride in (2, 4, 8, 16) if stride <= output_stride]


def test_an_output_stride_that_cannot_be_is_refused_with_those_that_can():
    with pytest.raises(zoo.errors.OptionError, match=r"resnet18 cannot be dilated to output_stride=4. Choose one of: 8, 16"):
        zoo.negotiate("timm:resnet18", "unet-basic", encoder_options={"output_stride": 4})
    with pytest.raises(zoo.errors.OptionError, match=r"timm:vit_tiny_patch16_224 cannot be dilated.*or any other"):
        zoo.negotiate("timm:vit_tiny_patch16_224", "unet-basic", encoder_options={"output_stride": 8})


@pytest.mark.usefixtures("fresh_registry")
def test_a_decoder_that_wants_an_output_stride_gets_a_dilated_encoder():
    zoo.register_decoder("atrous", nn.Identity, needs=zoo.Needs(max_levels=1, output_stride=8))
    plan = zoo.negotiate("timm:resnet18", "atrous")
    assert plan.encoder_options == {"output_stride": 8}
    assert [route.source.name for route in plan.routes] == ["layer4"]
    undilated = zoo.negotiate("timm:convnext_atto", "atrous", adapters="none")
    assert undilated.encoder_options == {}
    assert [route.source.stride for route in undilated.routes] == [8]


def test_image_size_makes_position_embeddings_and_windows_for_it():
    with torch.device("meta"):
        beit = zoo.build("timm:beit_base_patch16_224", "unet-basic", image_size=(97, 129))
        assert beit.encoder.network.patch_embed.grid_size == (7, 9)
        assert beit.eval()(torch.empty(1, 3, 97, 129)).shape == (1, 1, 97, 129)
        square = zoo.build("timm:nest_tiny", "unet-basic", image_size=(97, 129)).eval()
        assert square.plan.sizes.image_size[0] == square.plan.sizes.image_size[1] >= 129
        assert square(torch.empty(1, 3, 97, 129)).shape == (1, 1, 97, 129)


def test_what_is_made_for_one_size_pads_smaller_images_and_resizes_larger_ones():
    with torch.device("meta"):
        model = zoo.build("timm:efficientformer_l1", "unet-basic").eval()
        for size in ((97, 129), (224, 224), (300, 97)):
            assert model(torch.empty(1, 3, *size)).shape == (1, 1, *size)
    sizes = model.plan.sizes
    assert [sizes.fit(97, 129)[0], sizes.fit(224, 224)[0], sizes.fit(300, 97)[0]] == ["pad", "as is", "resize"]


def test_timms_own_img_size_is_heeded():
    options = {"img_size": 96}
    with torch.device("meta"):
        model = zoo.build("timm:beit_base_patch16_224", "unet-basic", encoder_options=options).eval()
        assert model(torch.empty(1, 3, 96, 90)).shape == (1, 1, 96, 90)
    assert model.plan.sizes.sizes.fixed == (96, 96)


def test_an_option_that_changes_the_maps_is_refused():
    with pytest.raises(zoo.errors.OptionError, match=r"'patch_size', which would change its feature maps"):
        zoo.negotiate("timm:vit_tiny_patch16_224", "unet-basic", encoder_options={"patch_size": 8})
    with pytest.raises(zoo.errors.OptionError, match=r"stem_width.*change the maps"), torch.device("meta"):
        zoo.build("timm:resnet18", "unet-basic", encoder_options={"stem_width": 16, "stem_type": "deep"})


@pytest.mark.parametrize("dropped", ["bn1.weight", "layer1.0.bn1.running_var", "layer4.0.conv1.weight"])
def test_a_file_without_one_of_the_networks_tensors_is_refused(tmp_path, dropped):
    state = timm.create_model("test_resnet").state_dict()
    assert dropped in state
    torch.save({name: value for name, value in state.items() if name != dropped}, tmp_path / "short.pth")
    with pytest.raises(zoo.errors.WeightsError, match=rf"missing 1 \(network\.{dropped}\)"):
        zoo.build("timm:test_resnet", "unet-basic", weights=tmp_path / "short.pth")


@pytest.mark.parametrize("size", ["a", (225, 301), (96,), 0])
def test_an_img_size_that_cannot_be_is_an_option_error(size):
    with pytest.raises(zoo.errors.OptionError, match="img_size"):
        zoo.negotiate("timm:beit_base_patch16_224", "unet-basic", encoder_options={"img_size": size})


@pytest.mark.parametrize("option", ["image_size", "maps", "weights", "architecture", "tag", "name"])
def test_what_zoo_gives_itself_is_no_encoder_option(option):
    with pytest.raises(zoo.errors.OptionError, match=option), torch.device("meta"):
        zoo.build("timm:beit_base_patch16_224", "unet-basic", encoder_options={option: "x"})


def test_img_size_reaches_a_network_whose_unused_parameters_are_looked_for():
    skip_if_lacking("coat_tiny")
    with torch.device("meta"):
        model = zoo.build("timm:coat_tiny", "unet-basic", encoder_options={"img_size": 256}).eval()
        assert model(torch.empty(1, 3, 256, 256)).shape == (1, 1, 256, 256)


def test_default_weights_are_offered_only_where_timm_has_some():
    assert not index().tags["test_vit4"]
    with pytest.raises(zoo.errors.WeightsError, match="no pretrained weights"), torch.device("meta"):
        zoo.build("timm:test_vit4", "unet-basic", weights="default")


def test_tags_are_listed_where_the_pattern_has_a_dot():
    assert "timm:resnet50.a1_in1k" in zoo.list_encoders("resnet50.a1*")
    assert "timm:resnet50.a1_in1k" not in zoo.list_encoders("resnet50*")


def test_a_tag_chooses_the_weights_and_loads_none_by_itself(tmp_path):
    id = "timm:vit_tiny_patch16_224.augreg_in21k"
    untrained = zoo.build(id, "unet-basic")
    assert untrained.preprocessing.mean == (0.0, 0.0, 0.0)
    torch.save(timm.create_model("vit_tiny_patch16_224").state_dict(), tmp_path / "vit.pth")
    trained = zoo.build(id, "unet-basic", weights=tmp_path / "vit.pth")
    assert trained.preprocessing.mean == timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k").mean
    assert trained.pairing.encoder == id


def test_a_tag_that_timm_has_not_is_answered_with_those_it_has():
    with pytest.raises(zoo.errors.UnknownIdError, match=r"resnet50.*tags.*a1_in1k"):
        zoo.build("timm:resnet50.a1_in2k", "unet-basic")


@pytest.mark.usefixtures("fresh_registry")
def test_an_architecture_that_the_installed_timm_cannot_serve_is_refused_with_the_reason(monkeypatch):
    monkeypatch.delattr(timm.models.resnet.ResNet, "forward_intermediates")
    with pytest.raises(
        zoo.errors.OptionError, match=r"test_resnet of the installed timm [\d.]+ cannot be an encoder: ResNet does not return"
    ):
        describe("test_resnet")


@pytest.fixture
def timm_reads_values(monkeypatch):
    """As earlier versions of timm, which read the values of a tensor when they create most architectures."""
    create = timm.create_model

    def reads_values(*arguments, **keywords):
        torch.linspace(0, 0.1, 4).tolist()
        return create(*arguments, **keywords)

    monkeypatch.setattr(timm, "create_model", reads_values)


@pytest.mark.usefixtures("timm_reads_values")
def test_an_architecture_that_cannot_be_created_on_the_meta_device_is_created_on_the_cpu():
    state = torch.random.get_rng_state()
    assert json.loads(json.dumps(describe("test_vit"))) == shipped_entry("test_vit")
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.usefixtures("timm_reads_values")
def test_a_model_is_built_on_the_meta_device_although_timm_reads_values():
    state = torch.random.get_rng_state()
    with torch.device("meta"):
        model = zoo.build("timm:test_resnet", "unet-basic")
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_classifier_without_classes_which_earlier_versions_of_timm_create_gives_no_warning(monkeypatch):
    create = timm.create_model

    def makes_classifier(*arguments, num_classes, **keywords):
        nn.Linear(4, num_classes)
        return create(*arguments, num_classes=num_classes, **keywords)

    monkeypatch.setattr(timm, "create_model", makes_classifier)
    assert zoo.build("timm:test_resnet", "unet-basic").encoder.network.num_classes == 0


def test_another_version_of_timm_is_probed_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["zoo_timm.index"], "version", lambda _: "0.0.1")
    monkeypatch.setattr("platformdirs.user_cache_path", lambda _: tmp_path)
    index.cache_clear()
    try:
        plan = zoo.negotiate("timm:test_vit", "unet-basic")
        assert len(zoo.list_encoders("timm:*")) == len(timm.list_models())
    finally:
        index.cache_clear()
    assert plan == zoo.negotiate("timm:test_vit", "unet-basic")
    kept = sorted(path.name for path in (tmp_path / "timm-0.0.1-format-1").iterdir())
    assert kept == ["tags.json", "test_vit.json"]
    again = Index.probed(tmp_path / "timm-0.0.1-format-1")
    (tmp_path / "timm-0.0.1-format-1" / "test_vit.json").write_text("{")  # cut short
    assert again["test_vit"] == Index.shipped()["test_vit"]


def test_default_weights_that_cannot_be_fetched_are_an_error_that_names_the_tag(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    told = r"timm could not fetch the weights of resnet18\.a1_in1k.*pass its path as weights="
    with pytest.raises(zoo.errors.WeightsError, match=told):
        zoo.build("timm:resnet18.a1_in1k", "unet-basic", weights="default")

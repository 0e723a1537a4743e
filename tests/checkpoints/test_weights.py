"""Weights from elsewhere: files of other programs in an encoder or a whole model, all of them or an error."""

from __future__ import annotations

import argparse
import os
import re

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from safetensors.torch import save_file
from smp_models import MODELS
from torch import nn
from torchvision.models import resnet18, resnet34

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")

SOURCES = {
    "resnet18": resnet18,
    "timm:test_resnet": lambda: timm.create_model("test_resnet"),
    "timm:test_vit": lambda: timm.create_model("test_vit"),
    "smp:resnet18": resnet18,
}


@pytest.fixture(scope="module")
def states():
    """By encoder: the state dict of the network that its weights come from, classifier included."""
    torch.manual_seed(0)
    return {id: make().state_dict() for id, make in SOURCES.items()}


@pytest.fixture(scope="module")
def unet():
    """A U-Net of smp's with three classes, whose norms have the statistics of something."""
    torch.manual_seed(0)
    made = smp.Unet("resnet18", encoder_weights=None, classes=3)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


@pytest.fixture
def saved(tmp_path):
    """Return a function that saves what it is given as a file, and returns the path."""

    def save(content, name="weights.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


def under(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def without_classifier(state):
    return {name: tensor for name, tensor in state.items() if not name.startswith(("fc.", "head."))}


def with_ten_classes(state):
    return {name: tensor[:10] if name.startswith(("fc.", "head.")) else tensor for name, tensor in state.items()}


def holds(model, state, path="encoder."):
    """Say whether a part of a model has just the numbers of a state dict by the same names, behind a path."""
    own = {
        name.removeprefix(path).removeprefix("network."): value
        for name, value in model.state_dict().items()
        if name.startswith(path)
    }
    return all(torch.equal(value, state[name]) for name, value in own.items())


def untouched(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


WRAPPED = {
    "plain": lambda state: state,
    "no classifier": without_classifier,
    "ten classes": with_ten_classes,
    "DataParallel": lambda state: under("module.", state),
    "compiled, then DDP": lambda state: under("module._orig_mod.", state),
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": {**under("model.encoder.", state), "model.decoder.weight": torch.ones(3), "loss.weight": torch.ones(2)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": []}],
        "hyper_parameters": {"learning_rate": 1e-3},
    },
    "timm's training": lambda state: {
        "arch": "some",
        "args": argparse.Namespace(lr=0.1),
        "state_dict": {name: torch.zeros_like(tensor) for name, tensor in state.items()},
        "state_dict_ema": under("module.", state),
    },
    "model_state_dict": lambda state: {"model_state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": []}},
    "nested": lambda state: {"model": {"state_dict": state, "step": 3}},
    "one of another name": lambda state: {"teacher": under("backbone.", without_classifier(state)), "epoch": 1},
}


@pytest.mark.parametrize(
    ("encoder", "wrapping"),
    [
        *((encoder, wrapping) for encoder in ("timm:test_resnet", "timm:test_vit") for wrapping in WRAPPED),
        *((encoder, wrapping) for encoder in ("resnet18", "smp:resnet18") for wrapping in ("ten classes", "Lightning")),
    ],
)
def test_an_encoder_is_built_with_a_files_weights_however_they_are_wrapped(states, saved, encoder, wrapping):
    model = zoo.build(encoder, "unet-basic", weights=saved(WRAPPED[wrapping](states[encoder])))
    assert holds(model, states[encoder])


@pytest.mark.parametrize("encoder", SOURCES)
def test_an_encoder_of_fewer_levels_takes_the_file_of_the_whole_and_its_own(states, saved, encoder):
    adapters = {"levels": 2} if "vit" not in encoder else {}
    model = zoo.build(encoder, "unet-basic", weights=saved(states[encoder]), **adapters)
    assert holds(model, states[encoder])
    kept = {name: tensor for name, tensor in model.state_dict().items() if name.startswith("encoder.")}
    again = zoo.build(encoder, "unet-basic", weights=saved(kept), **adapters)
    assert holds(again, states[encoder])
    report = zoo.load_weights(again, states[encoder], part="encoder")
    assert report.is_complete
    assert len(report.loaded) + len(report.left_out) == len(states[encoder])


@pytest.mark.parametrize(
    ("encoder", "deeper"),
    [
        ("resnet18", resnet34),
        ("smp:resnet18", resnet34),
        ("timm:resnet18", lambda: timm.create_model("resnet34")),
        ("timm:vit_tiny_patch16_224", lambda: timm.create_model("vit_tiny_patch16_224", depth=13)),
    ],
)
def test_a_deeper_networks_weights_are_refused_although_every_tensor_is_there(saved, encoder, deeper):
    with pytest.raises(
        zoo.errors.WeightsError, match=r"(?s)weights\.pth.*missing none; unexpected \d+ \((layer1\.2|blocks\.12)\."
    ):
        zoo.build(encoder, "unet-basic", weights=saved(deeper().state_dict()))


@pytest.mark.parametrize("encoder", SOURCES)
@pytest.mark.parametrize("other", ["test_efficientnet", "test_vit2"])
def test_another_architectures_weights_are_refused(saved, encoder, other):
    with pytest.raises(zoo.errors.WeightsError, match=rf"weights\.pth.*{encoder}"):
        zoo.build(encoder, "unet-basic", weights=saved(timm.create_model(other).state_dict()))


@pytest.mark.parametrize("encoder", ["resnet18", "timm:test_resnet", "smp:resnet18"])
@pytest.mark.parametrize("in_channels", [1, 5])
def test_weights_for_three_channels_serve_images_of_others(states, saved, encoder, in_channels):
    model = zoo.build(encoder, "unet-basic", in_channels=in_channels, weights=saved(under("module.", states[encoder])))
    first = next(name for name, value in model.encoder.named_parameters() if value.ndim == 4)
    found, given = model.encoder.state_dict()[first], states[encoder][first.removeprefix("network.")]
    expected = given.sum(1, keepdim=True) if in_channels == 1 else given[:, [0, 1, 2, 0, 1]] * 3 / 5
    assert torch.allclose(found, expected, atol=1e-6)
    del model.encoder
    own = zoo.build(encoder, "unet-basic", in_channels=in_channels)
    again = zoo.build(encoder, "unet-basic", in_channels=in_channels, weights=saved(own.state_dict()))
    assert same(again.encoder, own.encoder.state_dict())


def in_facebooks_names(state):
    """Return a ConvNeXt's tensors by the names of its authors, which timm brings to its own."""
    renamed = {}
    for name, tensor in state.items():
        for pattern, other in (
            (r"^stem\.", "downsample_layers.0."),
            (r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1."),
            (r"^stages\.(\d)\.blocks\.", r"stages.\1."),
            ("conv_dw", "dwconv"),
            (r"mlp\.fc", "pwconv"),
            (r"^head\.norm\.", "norm."),
            (r"^head\.fc\.", "head."),
        ):
            name = re.sub(pattern, other, name)
        renamed[name] = tensor
    return renamed


def test_timms_older_names_are_brought_to_its_own_behind_any_prefix(saved):
    network = timm.create_model("test_convnext")
    old = in_facebooks_names(network.state_dict())
    assert not {"stem.0.weight", "head.norm.weight"} & old.keys()
    assert holds(
        zoo.build("timm:test_convnext", "unet-basic", weights=saved(under("model.module.", old))), network.state_dict()
    )
    del old["stages.3.0.dwconv.weight"]
    with pytest.raises(zoo.errors.WeightsError, match=r"missing 1 \(network\.stages\.3\.blocks\.0\.conv_dw\.weight\)"):
        zoo.build("timm:test_convnext", "unet-basic", weights=saved(old))


def test_what_timm_would_overlook_is_refused(saved):
    deeper = saved(timm.create_model("resnet34").state_dict())
    with pytest.raises(zoo.errors.WeightsError, match=r"missing none; unexpected \d+ \(layer1\.2\."):
        zoo.build("timm:resnet18", "unet-basic", in_channels=1, weights=deeper)


def test_timm_resamples_position_embeddings_of_another_size(states, saved):
    state = states["timm:test_vit"]
    model = zoo.build("timm:test_vit", "unet-basic", encoder_options={"img_size": 96}, weights=saved(under("module.", state)))
    assert model.encoder.network.pos_embed.shape != state["pos_embed"].shape
    assert torch.equal(model.encoder.network.blocks[0].attn.qkv.weight, state["blocks.0.attn.qkv.weight"])
    report = zoo.load_weights(model, state, part="encoder")
    assert report.is_complete
    assert len(report.loaded) + len(report.left_out) == len(state)


def test_an_encoder_is_found_in_a_whole_segmentation_checkpoint(unet, saved):
    path = saved({"state_dict": under("net.", unet.state_dict()), "epoch": 1})
    for encoder in ("resnet18", "smp:resnet18", "timm:resnet18"):
        assert holds(zoo.build(encoder, "unet-basic", weights=path), unet.encoder.state_dict())


def test_smps_unet_checkpoint_gives_smps_output_bit_for_bit(unet, tmp_path, saved):
    unet.save_pretrained(tmp_path / "folder")
    image = torch.rand(1, 3, 64, 96)
    for path in (
        saved(unet.state_dict()),
        saved({"state_dict": under("model.", unet.state_dict()), "epoch": 1}, "lightning.ckpt"),
        tmp_path / "folder",
    ):
        model = zoo.build("smp:resnet18", "smp:unet", classes=3).eval()
        report = zoo.load_weights(model, path)
        assert report.is_complete
        assert len(report.loaded) == len(model.state_dict()) == len(unet.state_dict())
        for module in model.modules():
            if isinstance(module, zoo.plugin.UpsampledConv2d):
                module.form = "plain"  # the other form sums in another order
        with torch.no_grad():
            assert torch.equal(model(image), unet(image))


@pytest.mark.parametrize("name", MODELS)
def test_every_decoders_checkpoint_of_smps_fits_its_pairing(name):
    theirs = MODELS[name]("resnet18", encoder_weights=None, classes=2)
    ours = zoo.build("smp:resnet18", f"smp:{name}", classes=2)
    report = zoo.load_weights(ours, under("module.", theirs.state_dict()))
    assert {name.split(".")[1] for name in report.left_out} <= {"encoder"}  # PSPNet does not use the last stages
    assert holds(ours, theirs.encoder.state_dict())
    assert holds(ours, theirs.decoder.state_dict(), "decoder.")
    assert holds(ours, theirs.segmentation_head.state_dict(), "head.")


def test_a_checkpoint_of_smps_on_an_encoder_of_timms_fits_whatever_its_names_are_flattened_to():
    theirs = smp.Unet("tu-convnext_atto", encoder_weights=None)
    assert any(name.startswith("encoder.model.stages_0.") for name in theirs.state_dict())
    ours = zoo.build("timm:convnext_atto", "smp:unet")
    assert zoo.load_weights(ours, theirs.state_dict()).is_complete
    assert torch.equal(ours.encoder.network.stages[0].blocks[0].gamma, theirs.encoder.model.stages_0.blocks[0].gamma)


def test_what_smps_attention_never_applies_is_left_out():
    theirs = smp.Unet("resnet18", encoder_weights=None, decoder_attention_type="scse")
    ours = zoo.build("smp:resnet18", "smp:unet", decoder_options={"attention": "scse"})
    report = zoo.load_weights(ours, theirs.state_dict())
    assert {name.rpartition(".attention1.")[0] for name in report.left_out} == {"decoder.blocks.4"}


@pytest.mark.parametrize("part", ["encoder", "decoder", "head"])
def test_a_part_is_loaded_and_the_others_are_left(part):
    source, model = (zoo.build("smp:resnet18", "unet-attention", classes=classes) for classes in (2, 2))
    before = untouched(model)
    report = zoo.load_weights(model, {"state_dict": under("module.", source.state_dict()), "step": 1}, part=part)
    assert all(name.startswith(f"{part}.") for name in report.loaded)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (source.state_dict() if name.startswith(f"{part}.") else before)[name])
    with pytest.raises(zoo.errors.OptionError, match=r"'encoder', 'decoder', 'head'.*'neck'"):
        zoo.load_weights(model, source.state_dict(), part="neck")


def test_another_number_of_classes_is_refused_and_left_where_that_is_asked(saved):
    source, model = (zoo.build("timm:test_resnet", "unet-basic", classes=classes) for classes in (16, 4))
    path, before = saved(source.state_dict()), untouched(model)
    with pytest.raises(
        zoo.errors.WeightsError, match=r"another shape 2 \(head\.weight: found \(16, 16, 3, 3\), needed \(4, 16, 3, 3\)"
    ):
        zoo.load_weights(model, path)
    assert same(model, before)
    report = zoo.load_weights(model, path, strict=False)
    assert [text.partition(":")[0] for text in report.reshaped] == ["head.weight", "head.bias"]
    assert torch.equal(model.head.bias, before["head.bias"])
    assert holds(model, source.encoder.network.state_dict())
    assert holds(model, source.decoder.state_dict(), "decoder.")


@pytest.mark.parametrize("called", ["head", "classifier"])
def test_a_head_of_other_classes_takes_nothing_that_merely_has_its_shape(called):
    source, model = (zoo.build("timm:test_resnet", "unet-basic", classes=classes) for classes in (4, 16))
    before = untouched(model)
    assert any(name.endswith("bias") and tensor.shape == (16,) for name, tensor in source.decoder.state_dict().items())
    state = {name.replace("head.", f"{called}.", 1): tensor for name, tensor in source.state_dict().items()}
    zoo.load_weights(model, state, strict=False)
    assert holds(model, source.decoder.state_dict(), "decoder.")
    assert all(torch.equal(tensor, before[f"head.{name}"]) for name, tensor in model.head.state_dict().items())


@pytest.mark.parametrize(("wrap", "within"), [(torch.compile, "_orig_mod"), (nn.DataParallel, "module")])
def test_a_model_within_another_is_asked_for(wrap, within):
    source, model = (zoo.build("timm:test_resnet", "unet-basic") for _ in range(2))
    wrapped = wrap(model)
    with pytest.raises(zoo.errors.OptionError, match=rf"found a {type(wrapped).__name__}.*{within}"):
        zoo.load_weights(wrapped, source.state_dict())
    zoo.load_weights(getattr(wrapped, within), source.state_dict())
    assert same(model, source.state_dict())


def test_tensors_that_have_no_place_are_refused_and_told(unet):
    model = zoo.build("smp:resnet18", "smp:unet", classes=3)
    before = untouched(model)
    more = {**unet.state_dict(), "classification_head.3.weight": torch.ones(2, 512)}
    with pytest.raises(
        zoo.errors.WeightsError, match=r"missing none; unexpected 1 \(classification_head\.3\.weight\).*strict=False"
    ):
        zoo.load_weights(model, more)
    assert same(model, before)
    report = zoo.load_weights(model, more, strict=False)
    assert report.unexpected == ("classification_head.3.weight",)
    assert holds(model, unet.decoder.state_dict(), "decoder.")
    with pytest.raises(zoo.errors.WeightsError, match="No tensor fits"):
        zoo.load_weights(model, {"a.weight": torch.ones(3)}, strict=False)


def test_what_is_not_there_stays_as_it_is_where_that_is_asked(states):
    model = zoo.build("resnet18", "unet-basic")
    before = untouched(model)
    short = {name: tensor for name, tensor in states["resnet18"].items() if not name.startswith("layer4.")}
    report = zoo.load_weights(model, short, part="encoder", strict=False)
    assert {name.split(".")[1] for name in report.missing} == {"layer4"}
    assert torch.equal(model.encoder.layer4[0].conv1.weight, before["encoder.layer4.0.conv1.weight"])
    assert torch.equal(model.encoder.conv1.weight, short["conv1.weight"])


def test_a_report_prints_as_five_short_lines(unet):
    model = zoo.build("smp:resnet18", "smp:unet", classes=5, levels=5)
    lines = str(zoo.load_weights(model, under("net.", unet.state_dict()), strict=False)).splitlines()
    assert lines[0] == (
        "loaded            180 tensors (encoder from 'net.encoder.', decoder from 'net.decoder.', "
        "head from 'net.segmentation_head.')"
    )
    assert lines[2].startswith("of another shape  2 (head.0.weight: found (3, 16, 3, 3), needed (5, 16, 3, 3), ")
    assert [line.split("  ")[0] for line in lines] == ["loaded", "missing", "of another shape", "unexpected", "left out"]


def test_two_sets_of_weights_that_fit_alike_are_named_and_one_can_be_chosen(states, saved):
    own = states["resnet18"]
    path = saved({**under("module.encoder_q.", own), **under("module.encoder_k.", own)})
    told = r"several prefixes: 'module\.encoder_k\.' and 'module\.encoder_q\.'.*zoo\.read_state_dict"
    with pytest.raises(zoo.errors.WeightsError, match=rf"weights\.pth.*{told}"):
        zoo.build("resnet18", "unet-basic", weights=path)
    model = zoo.build("resnet18", "unet-basic")
    with pytest.raises(zoo.errors.WeightsError, match=told):
        zoo.load_weights(model, path, part="encoder", strict=False)
    chosen = zoo.read_state_dict(path, prefix="module.encoder_q.")
    assert zoo.load_weights(model, chosen, part="encoder").is_complete
    with pytest.raises(zoo.errors.WeightsError, match=r"begins with 'encoder'. The names begin with module"):
        zoo.read_state_dict(path, prefix="encoder")


def test_two_entries_that_could_be_meant_are_named_and_one_can_be_chosen(states, saved):
    own = states["resnet18"]
    path = saved({"student": own, "teacher": under("backbone.", own), "epoch": 3})
    with pytest.raises(
        zoo.errors.WeightsError, match=r"several entries.*'student' \(122 tensors\), 'teacher' \(122 tensors\).*entry="
    ):
        zoo.build("resnet18", "unet-basic", weights=path)
    assert zoo.read_state_dict(path, entry="teacher").keys() == under("backbone.", own).keys()
    with pytest.raises(zoo.errors.WeightsError, match=r"has no entry 'ema'; it contains 'student', 'teacher', 'epoch'"):
        zoo.read_state_dict(path, entry="ema")


class CodeInside:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def test_code_in_a_file_is_refused_and_never_run(tmp_path, saved):
    path = saved({"state_dict": {"conv1.weight": torch.ones(1)}, "callback": CodeInside(tmp_path / "trace")})
    with pytest.raises(zoo.errors.WeightsError, match=r"weights\.pth could not be read.*may contain code.*mkdir.*state_dict"):
        zoo.load_weights(zoo.build("resnet18", "unet-basic"), path)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("encoder", SOURCES)
def test_a_file_that_is_cut_short_is_told(states, tmp_path, encoder, suffix):
    path = tmp_path / f"weights{suffix}"
    save_file(states[encoder], path) if suffix == ".safetensors" else torch.save(states[encoder], path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(zoo.errors.WeightsError, match=rf"weights{suffix} could not be read"):
        zoo.build(encoder, "unet-basic", weights=path)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"epoch": 3, "lr": 0.1}, r"contains no state dict.*with the keys 'epoch', 'lr'. Save model\.state_dict\(\)"),
        ([torch.ones(1)], "contains no state dict.*a list"),
        ({}, "contains no state dict.*with the keys none"),
        ({"conv1.weight": torch.ones(1), "epoch": 3}, "contains no state dict"),
        ({"state_dict": {"epoch": 3}}, "contains no state dict"),
    ],
)
def test_a_file_of_something_else_is_told(saved, content, told):
    with pytest.raises(zoo.errors.WeightsError, match=rf"weights\.pth {told}"):
        zoo.read_state_dict(saved(content))


def test_a_folder_or_a_file_that_is_not_there_is_told(tmp_path):
    with pytest.raises(zoo.errors.WeightsError, match=r"weights file .*nowhere\.pth does not exist"):
        zoo.read_state_dict(tmp_path / "nowhere.pth")
    with pytest.raises(zoo.errors.WeightsError, match=r"has no \.safetensors files and neither model\.safetensors"):
        zoo.read_state_dict(tmp_path)


def test_a_saved_model_and_a_training_give_their_weights_to_another_pairing(tmp_path):
    source = zoo.build("timm:test_resnet", "unet-basic", classes=2)
    zoo.save(source, tmp_path / "model")
    other = zoo.build("timm:test_resnet", "unet-attention", classes=7)
    assert zoo.load_weights(other, tmp_path / "model", part="encoder").is_complete
    assert holds(other, source.encoder.network.state_dict())


def test_a_saved_models_weights_are_those_that_it_names_whatever_lies_beside_them(tmp_path):
    place = zoo.save(zoo.build("timm:test_resnet", "unet-basic"), tmp_path / "model")
    before = (place / "model.safetensors").read_bytes()
    model = zoo.build("timm:test_resnet", "unet-basic")
    zoo.save(model, place)
    (place / "model.safetensors").write_bytes(before)  # as where one copy was put over another
    state = zoo.read_state_dict(place)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    (place / "config.yaml").write_text("weights: imagenet", encoding="utf-8")  # another program's
    assert not torch.equal(zoo.read_state_dict(place)["head.weight"], state["head.weight"])


def test_weights_of_integers_are_none_for_a_module_of_floats(states):
    model = zoo.build("resnet18", "unet-basic")
    quantized = {**states["resnet18"], "conv1.weight": torch.ones(64, 3, 7, 7, dtype=torch.int8)}
    with pytest.raises(zoo.errors.WeightsError, match=r"conv1\.weight: found \(64, 3, 7, 7\) of torch\.int8, needed"):
        zoo.load_weights(model, quantized, part="encoder")


def test_a_module_of_ones_own_is_filled_by_its_names():
    body, other = (
        nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2), nn.ReLU()) for _ in range(2)
    )
    model = zoo.build(body, "unet-basic")
    assert zoo.load_weights(model, under("backbone.", other.state_dict()), part="encoder").is_complete
    assert torch.equal(body[2].weight, other[2].weight)


def test_loading_changes_no_random_state_and_no_mode(states):
    model = zoo.build("timm:test_vit", "unet-basic").eval()
    model.encoder.train()
    before = torch.get_rng_state()
    zoo.load_weights(model, states["timm:test_vit"], part="encoder")
    assert torch.equal(before, torch.get_rng_state())
    assert model.encoder.training
    assert not model.decoder.training

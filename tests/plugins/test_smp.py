"""smp's encoders and decoders as plugins: smp's own output, any size, any levels, and models taken over from smp."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings

import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from smp_models import MODELS
from torch import nn

import zoo
from zoo_smp.encoder import make_network
from zoo_smp.index import index
from zoo_smp.make_index import describe
from zoo_smp.pooled import AdaptiveAvgPool

pytestmark = pytest.mark.usefixtures("one_thread")

DECODERS = (*MODELS, "dpt")
SMALL = "timm:test_resnet"
SMALL_TO_SMP = "tu-test_resnet"
ONE_OF_EACH_FAMILY = (
    "resnet18", "dpn68", "vgg11_bn", "se_resnet50", "densenet121", "inceptionresnetv2", "inceptionv4", "efficientnet-b0",
    "mobilenet_v2", "xception", "timm-efficientnet-b0", "timm-skresnet18", "mit_b0", "mobileone_s0",
)  # fmt: skip


def made_by_smp(model, encoder=SMALL_TO_SMP, **options):
    """Return a model of smp's whose norms have the statistics of something."""
    torch.manual_seed(0)
    made = model(encoder, encoder_weights=None, **options)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return made.eval()


def largest_error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1))


def test_the_twelve_decoders_and_smps_own_encoders_are_listed_without_torch_or_smp():
    code = (
        "import sys, zoo\n"
        "assert len(zoo.list_decoders('smp:*')) == 12 and 'smp:mit_b0' in zoo.list_encoders('smp:*')\n"
        "zoo.negotiate('smp:mit_b0', 'smp:fpn'); zoo.explain('resnet18', 'smp:deeplabv3')\n"
        "assert not {'torch', 'segmentation_models_pytorch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", MODELS)
def test_with_smps_weights_a_decoder_gives_smps_own_output(name):
    theirs = made_by_smp(MODELS[name], classes=3)
    ours = zoo.from_smp(theirs)
    image = torch.randn(1, 3, 256, 288)
    with torch.no_grad():
        assert largest_error(ours(image), theirs(image)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_with_smps_weights_a_decoder_learns_what_smps_does(name):
    theirs = made_by_smp(MODELS[name], "resnet18")
    ours = zoo.from_smp(theirs)
    image = torch.randn(1, 3, *((256, 256) if name == "pan" else (96, 96)))
    for model in (ours, theirs):
        model(image).square().mean().backward()
    found, expected = ours.encoder.network.conv1.weight.grad, theirs.encoder.conv1.weight.grad
    assert largest_error(found, expected) < 1e-4


@pytest.mark.parametrize("depth", [1, 3, 4])
def test_smps_dpt_gives_its_own_output_where_it_reads_no_class_token(depth):
    widths = (32, 48, 64, 64)[:depth]
    options = {"encoder_depth": depth, "decoder_intermediate_channels": widths, "decoder_fusion_channels": 32}
    theirs = made_by_smp(smp.DPT, "tu-test_vit", classes=2, decoder_readout="ignore", **options)
    image = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        assert largest_error(zoo.from_smp(theirs)(image), theirs(image)) < 1e-5


@pytest.mark.parametrize("size", [(256, 320), (321, 255)])
def test_the_unet_computes_at_low_resolution_what_smp_computes_upsampled(size):
    theirs = made_by_smp(smp.Unet, classes=3)
    ours = zoo.from_smp(theirs)
    convs = [module for module in ours.modules() if isinstance(module, zoo.plugin.UpsampledConv2d)]
    assert len(convs) == 5
    image = torch.randn(1, 3, *size)
    padded = torch.nn.functional.pad(image, (0, -size[1] % 32, 0, -size[0] % 32))
    with torch.no_grad():
        found = ours(image)
        assert largest_error(found, theirs(padded)[..., : size[0], : size[1]]) < 1e-5
        for conv in convs:
            conv.form = "plain"
        assert largest_error(found, ours(image)) < 1e-5


@pytest.mark.parametrize("levels", [5, 4, 3])
def test_the_unet_has_smps_state_dict_keys(levels):
    theirs = smp.Unet("resnet18", encoder_weights=None, encoder_depth=levels, decoder_channels=(256, 128, 64, 32, 16)[-levels:])
    with torch.device("meta"):
        ours = zoo.build("resnet18", "smp:unet", levels=levels)
    assert ours.decoder.state_dict().keys() == theirs.decoder.state_dict().keys()
    assert ours.head.state_dict().keys() == theirs.segmentation_head.state_dict().keys()


@pytest.mark.parametrize("levels", [None, pytest.param(4, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("name", DECODERS)
def test_any_image_size_and_any_number_of_levels_work_with_every_decoder(name, levels):
    encoder = "resnet18" if name == "dpt" else SMALL  # of two maps of stride 2, so that three levels are the four maps of DPT
    model = zoo.build(encoder, f"smp:{name}", classes=2, levels=levels).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 65, 97)).shape == (1, 2, 65, 97)
        assert model(torch.rand(2, 3, 33, 31)).isfinite().all()


@pytest.mark.parametrize("name", DECODERS)
def test_a_batch_of_one_trains_or_is_refused_with_the_layer_and_a_remedy_that_helps(name):
    image = torch.rand(1, 3, 64, 64)
    model = zoo.build(SMALL, f"smp:{name}")
    if name not in ("pan", "deeplabv3", "deeplabv3plus", "upernet"):
        model(image).mean().backward()
        return
    with pytest.raises(
        zoo.errors.InputError, match=r"^decoder\..*\(BatchNorm2d\).*batch of two.*\{'norm': 'group'\}"
    ) as caught:
        model(image)
    layer = str(caught.value).split(" ")[0]
    assert isinstance(model.get_submodule(layer), nn.BatchNorm2d)
    zoo.build(SMALL, f"smp:{name}", decoder_options={"norm": "group"})(image).mean().backward()
    model(torch.rand(2, 3, 64, 64)).mean().backward()


def test_an_encoders_norm_that_gets_one_value_is_named_too():
    with pytest.raises(zoo.errors.InputError, match=r"^encoder\.layer4\.0\.bn1 .*larger images.*model\.encoder\.eval\(\)"):
        zoo.build("resnet18", "unet-basic")(torch.rand(1, 3, 32, 32))


@pytest.mark.parametrize(
    "encoder",
    [
        "timm:test_vit",
        pytest.param("timm:convnext_atto", marks=pytest.mark.slow),
        pytest.param("timm:cspdarknet53", marks=pytest.mark.slow),
        "smp:mit_b0",
    ],
)
@pytest.mark.parametrize("name", DECODERS)
def test_encoders_that_smp_refuses_or_fills_with_empty_maps_work(name, encoder):
    size = (64, 96) if encoder == "smp:mit_b0" else (65, 97)
    with torch.device("meta"):
        model = zoo.build(encoder, f"smp:{name}", classes=2).eval()
        assert model(torch.rand(1, 3, *size)).shape == (1, 2, *size)
    assert all(parameter.numel() for parameter in model.parameters())


def test_a_dilated_encoder_is_asked_for_where_it_can_be():
    plan = zoo.negotiate("smp:resnet18", "smp:deeplabv3")
    assert plan.encoder_options["output_stride"] == 8
    assert plan.maps == ("stage5",)
    assert zoo.negotiate("smp:resnet18", "smp:pan").pyramid[-1].stride == 16
    assert "output stride 8" in str(zoo.explain("smp:vgg11", "smp:deeplabv3"))


@pytest.mark.parametrize(
    ("decoder", "options", "found"),
    [
        ("smp:unet", {"channels": [8, 8]}, r"channels must be 5 whole numbers.*\(8, 8\)"),
        ("smp:unet", {"attention": "cbam"}, "attention must be one of None, 'scse'; found 'cbam'"),
        ("smp:unet", {"interpolation": "area"}, "interpolation must be one of"),
        *(
            (
                f"smp:{name}",
                {"interpolation": "foo"},
                "interpolation must be one of 'nearest', 'bilinear', 'bicubic'; found 'foo'",
            )
            for name in ("unet", "unetplusplus", "manet", "fpn", "pan")
        ),
        ("smp:unetplusplus", {"center": "no"}, "center must be one of True, False; found 'no'"),
        ("smp:deeplabv3", {"separable": "no"}, "separable must be one of True, False; found 'no'"),
        ("unet-basic", {"norm": "layer"}, "norm must be one of 'batch', 'group', 'none'; found 'layer'"),
        ("smp:manet", {"norm": "layer"}, "norm must be one of 'batch', 'group'; found 'layer'"),
        ("smp:pan", {"output_stride": 8}, "output_stride must be one of 16, 32; found 8"),
        ("smp:deeplabv3", {"output_stride": 32}, "output_stride must be one of 8, 16; found 32"),
        ("smp:deeplabv3plus", {"atrous_rates": [6, 12]}, "atrous_rates must be three"),
        ("smp:deeplabv3plus", {"atrous_rates": [6, 12, True]}, "atrous_rates must be three"),
        ("smp:fpn", {"merge": "max"}, "merge must be one of 'add', 'cat'; found 'max'"),
        ("smp:fpn", {"segmentation_channels": 40}, "multiple of 32"),
        ("smp:dpt", {"readout": "add"}, "readout must be one of 'ignore', 'cat'; found 'add'"),
        ("smp:dpt", {"intermediate_channels": [8, 0]}, "a list of whole numbers of at least 1, one for each map; found"),
        ("smp:dpt", {"intermediate_channels": [8, True]}, "a list of whole numbers of at least 1, one for each map; found"),
        ("smp:dpt", {"intermediate_channels": 8}, "a list of whole numbers of at least 1, one for each map; found 8"),
    ],
)
def test_a_wrong_option_is_refused_with_what_is_allowed(decoder, options, found):
    with torch.device("meta"), pytest.raises(zoo.errors.OptionError, match=found):
        zoo.build("resnet18", decoder, decoder_options=options)


WIDTHS = [
    *(
        (name, "channels")
        for name in ["fpn", "pan", "deeplabv3", "deeplabv3plus", "pspnet", "upernet", "segformer", "dpt", "unet", "manet"]
    ),
    ("fpn", "segmentation_channels"),
    ("manet", "pab_channels"),
]


@pytest.mark.parametrize("width", [0, "8", 2.5, True])
@pytest.mark.parametrize(("decoder", "option"), WIDTHS)
def test_a_width_that_is_none_is_refused_when_a_model_is_built(decoder, option, width):
    with torch.device("meta"), pytest.raises(zoo.errors.OptionError, match=rf"^{option} .*of at least 1.*found {width!r}"):
        zoo.build("resnet18", f"smp:{decoder}", decoder_options={option: width})


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("decoder", ["unet", "unetplusplus", "manet", "fpn", "pan"])
def test_every_interpolation_that_is_listed_runs(decoder, interpolation):
    model = zoo.build(SMALL, f"smp:{decoder}", decoder_options={"interpolation": interpolation}).eval()
    with torch.no_grad():
        assert model(torch.rand(1, 3, 33, 47)).shape == (1, 1, 33, 47)


def test_a_wrong_value_of_an_option_is_refused_before_anything_is_built():
    with pytest.raises(zoo.errors.OptionError, match=r"smp:fpn: interpolation must be one of .*found 'foo'"):
        zoo.explain("resnet18", "smp:fpn", decoder_options={"interpolation": "foo"})


@pytest.mark.parametrize(("encoder", "levels"), [("resnet18", 4), ("mit_b0", 3), ("tu-convnext_atto", 3)])
def test_an_encoder_depth_of_4_is_as_many_levels_as_there_are_maps_up_to_stride_16(encoder, levels):
    theirs = smp.Unet(encoder, encoder_weights=None, encoder_depth=4, decoder_channels=(32, 16, 8, 8))
    assert zoo.from_smp(theirs).pairing.levels == levels


def test_one_stride_is_too_few_for_deeplabv3plus():
    with torch.device("meta"), pytest.raises(zoo.errors.OptionError, match="Pass a larger value for levels"):
        zoo.build("resnet18", "smp:deeplabv3plus", levels=2)


@pytest.mark.parametrize(("size", "length"), [(1, 5), (2, 7), (3, 8), (6, 4), (6, 17)])
def test_pooling_by_products_is_adaptive_pooling(size, length):
    x = torch.randn(2, 3, length, 2 * length + 1)
    pool = AdaptiveAvgPool(size)
    found = pool._shares(length, x) @ x @ pool._shares(2 * length + 1, x).transpose(0, 1)
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(x, size))
    torch.testing.assert_close(pool(x), F.adaptive_avg_pool2d(x, size))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pspnet", "upernet"])
def test_an_onnx_export_with_dynamic_sizes_is_right_at_another_size(name, tmp_path):
    model = zoo.build("resnet18", f"smp:{name}", classes=2).eval()
    dynamic = {"image": {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(model, (torch.randn(2, 3, 128, 160),), dynamo=True, dynamic_shapes=dynamic, verbose=False)
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for size in ((128, 160), (192, 224), (64, 96), (160, 128)):
        image = torch.randn(1, 3, *size)
        (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
        with torch.no_grad():
            assert largest_error(torch.from_numpy(found), model(image)) < 1e-4


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_an_encoder_gives_smps_own_maps_without_the_image_and_the_empty_ones(name):
    maps = tuple(entry.name for entry in index()[name].pyramid())
    model = zoo.build(f"smp:{name}", "smp:unet", in_channels=4).eval()
    with torch.device("meta"):  # nothing is drawn for it; a tensor that it does not get from the model fails below
        theirs = make_network(name, in_channels=4).eval()
    nn.Module.load_state_dict(theirs, model.encoder.network.state_dict(), strict=False, assign=True)  # some have their own
    image = torch.randn(1, 4, 64, 96)
    with torch.no_grad():
        found, expected = model.encoder(image), theirs(image)
    expected = [tensor for tensor in expected if tensor.shape[1] not in (0, 4) and tensor.shape[2] < 64]
    assert model.plan.maps == tuple(entry for entry in maps if entry != "stage0")
    assert all(torch.equal(mine, their) for mine, their in zip(found, expected, strict=True))
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())


@pytest.mark.parametrize("name", ["resnet18", "mit_b0", "efficientnet-b0", "vgg11"])
@pytest.mark.parametrize("levels", [2, 4])
def test_an_encoder_holds_no_parameter_that_no_map_needs(name, levels):
    with torch.device("meta"):
        model = zoo.build(f"smp:{name}", "smp:unet", levels=levels)
        model(torch.empty(2, 3, 64, 64)).square().mean().backward()
    assert [entry for entry, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", ONE_OF_EACH_FAMILY)
def test_the_index_holds_what_a_fresh_build_shows(name):
    entry, architecture = describe(name), index()[name]
    assert (tuple(entry["channels"]), entry["dilates"], entry["unused"]) == (
        architecture.channels,
        architecture.dilates,
        architecture.leaves_unused,
    )
    assert (entry["module"], tuple(entry["weights"])) == (architecture.module, architecture.weights)


def test_the_index_names_just_the_encoders_that_smp_has():
    assert set(index()) == set(smp.encoders.get_encoder_names())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_an_encoders_weights_come_from_a_file(tmp_path, suffix):
    state = make_network("resnet18").state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = zoo.build("smp:resnet18", "smp:fpn", weights=path)
    assert torch.equal(model.encoder.network.conv1.weight, state["conv1.weight"])


def test_weights_that_are_not_there_or_do_not_fit_are_told(tmp_path):
    with pytest.raises(
        zoo.errors.WeightsError,
        match=r"neither a name of weights for smp:resnet18 \('imagenet', 'ssl', 'swsl'\), nor hf-hub:OWNER/NAME, nor a file",
    ):
        zoo.build("smp:resnet18", "smp:unet", weights="imagenett")
    path = tmp_path / "other.safetensors"
    save_file(make_network("resnet34").state_dict(), path)
    with pytest.raises(zoo.errors.WeightsError, match=r"do not fit smp:resnet18: .*unexpected 96 \(layer1"):
        zoo.build("smp:resnet18", "smp:unet", weights=path)
    path = tmp_path / "code.pth"
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(zoo.errors.WeightsError, match="may contain code is not read"):
        zoo.build("smp:resnet18", "smp:unet", weights=path)


def test_weights_that_the_hub_does_not_give_are_told(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to the hub")

    monkeypatch.setattr("segmentation_models_pytorch.encoders.hf_hub_download", unreachable)
    with pytest.raises(zoo.errors.WeightsError, match=r"'imagenet' of smp:resnet18 could not be fetched.*no route to the hub"):
        zoo.build("smp:resnet18", "smp:unet", weights="imagenet")


def test_the_licenses_of_code_and_weights_are_known():
    registry = zoo.registry.registry.default_registry()
    assert "non-commercial" in registry.encoder("smp:mit_b0").spec.license
    assert "non-commercial" in registry.encoder("smp:mit_b0").spec.license_of_weights("imagenet")
    resnet = registry.encoder("smp:resnet50").spec
    assert (resnet.license, resnet.license_of_weights("imagenet"), resnet.license_of_weights("swsl")) == (
        "MIT",
        "",
        "CC-BY-NC-4.0 (non-commercial)",
    )
    assert registry.decoder("smp:deeplabv3").spec.license == "BSD-3-Clause"


@pytest.mark.parametrize(
    ("model", "encoder", "options", "pairing"),
    [
        (smp.Unet, "mit_b0", {}, "smp:mit_b0 x smp:unet"),
        pytest.param(
            smp.UnetPlusPlus,
            "mobileone_s0",
            {"decoder_attention_type": "scse"},
            "smp:mobileone_s0 x smp:unetplusplus",
            marks=pytest.mark.slow,
        ),
        pytest.param(smp.Unet, "vgg11", {}, "smp:vgg11 x smp:unet", marks=pytest.mark.slow),
        (smp.Unet, "resnet18", {"encoder_depth": 3, "decoder_channels": (64, 32, 16), "in_channels": 4}, "smp:resnet18"),
        (smp.Unet, "resnet18", {"decoder_attention_type": "scse"}, "smp:resnet18 x smp:unet"),
        (smp.Unet, "tu-convnext_atto", {}, "timm:convnext_atto x smp:unet"),
        (smp.PSPNet, "tu-convnext_atto", {}, "timm:convnext_atto x smp:pspnet"),
        pytest.param(
            smp.Unet, "tu-swin_tiny_patch4_window7_224", {}, "timm:swin_tiny_patch4_window7_224", marks=pytest.mark.slow
        ),
        (
            smp.DeepLabV3Plus,
            "resnet18",
            {"encoder_output_stride": 8, "decoder_channels": 32},
            "smp:resnet18 x smp:deeplabv3plus",
        ),
        (smp.UPerNet, "resnet18", {"encoder_depth": 4, "decoder_channels": 32}, "smp:resnet18 x smp:upernet"),
    ],
)
def test_a_model_of_smps_is_taken_over_whatever_it_was_made_with(model, encoder, options, pairing):
    theirs = made_by_smp(model, encoder, **options)
    ours = zoo.from_smp(theirs)
    assert str(ours.pairing).startswith(pairing)
    size = 224 if "224" in encoder else 128
    image = torch.randn(1, theirs.encoder.out_channels[0] if not encoder.startswith("vgg") else 3, size, size)
    with torch.no_grad():
        assert largest_error(ours(image), theirs(image)) < 1e-5
    with torch.device("meta"):
        rebuilt = zoo.build(ours.pairing.encoder, ours.pairing.decoder, **pairing_options(ours))
    assert rebuilt.state_dict().keys() == ours.state_dict().keys()


def pairing_options(model):
    facts = model.pairing.as_dict()
    return {name: value for name, value in facts.items() if name not in ("encoder", "decoder")}


def test_what_is_taken_over_is_a_copy_in_the_same_mode_and_takes_any_size():
    theirs = made_by_smp(smp.Unet).double().train()
    before = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
    mean = zoo.Preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    state = torch.get_rng_state()
    ours = zoo.from_smp(theirs, preprocessing=mean)
    assert torch.equal(state, torch.get_rng_state())
    assert ours.training
    assert theirs.training
    assert ours.preprocessing is mean
    assert ours(torch.rand(2, 3, 65, 97, dtype=torch.double)).shape == (2, 1, 65, 97)
    assert all(torch.equal(tensor, before[name]) for name, tensor in theirs.state_dict().items())
    with torch.no_grad():
        ours.head[0].weight.zero_()
    assert theirs.segmentation_head[0].weight.abs().sum() > 0


def test_a_model_that_smp_saved_is_taken_over_from_its_folder(tmp_path):
    theirs = made_by_smp(smp.Unet, classes=3)
    theirs.save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved/config.json").read_text(encoding="utf-8"))
    config["encoder_weights"] = "imagenet"  # as most were made with; nothing is fetched for it
    (tmp_path / "saved/config.json").write_text(json.dumps(config), encoding="utf-8")
    ours = zoo.from_smp(tmp_path / "saved")
    assert "encoder weights: those of smp's model" in repr(ours)  # which smp does not say the origin of
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert largest_error(ours(image), theirs(image)) < 1e-5
    with pytest.raises(zoo.errors.WeightsError, match=r"contains no model that the installed smp can load.*zoo\.load_weights"):
        zoo.from_smp(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"activation": "sigmoid"}, "the activation 'sigmoid'"),
        ({"aux_params": {"classes": 2}}, "the auxiliary classifier"),
    ],
)
def test_what_a_taken_over_model_leaves_out_is_told(options, told):
    theirs = made_by_smp(smp.Unet, **options)
    with pytest.warns(UserWarning, match=told):
        ours = zoo.from_smp(theirs)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = theirs(image)
        found = ours(image)
    if "activation" in options:
        assert largest_error(found.sigmoid(), expected) < 1e-5
    else:
        assert largest_error(found, expected[0]) < 1e-5


def test_what_cannot_be_taken_over_is_refused_with_why():
    with pytest.raises(
        zoo.errors.OptionError, match=r"requires a model of segmentation_models_pytorch.*found torch\.nn\.modules\.conv\.Conv2d"
    ):
        zoo.from_smp(nn.Conv2d(1, 1, 1))
    with pytest.raises(zoo.errors.OptionError, match=r"class token.*'cat'"):
        zoo.from_smp(smp.DPT("tu-test_vit", encoder_weights=None))
    changed = made_by_smp(smp.Unet)
    changed.decoder.blocks[0].conv1[0] = nn.Conv2d(8, 8, 1)
    with pytest.raises(
        zoo.errors.WeightsError,
        match=r"smp's Unet\('tu-test_resnet'\) was built with .*decoder\.blocks\.0\.conv1\.0\.weight: found",
    ):
        zoo.from_smp(changed)
    changed = made_by_smp(smp.Unet)
    changed.decoder.forward = lambda features: torch.zeros(1, 16, *features[0].shape[2:])
    with pytest.raises(zoo.errors.WeightsError, match="returns a different output"):
        zoo.from_smp(changed)
    with pytest.raises(zoo.errors.WeightsError, match="returns a different output"):
        zoo.from_smp(made_by_smp(smp.FPN, encoder_depth=4))  # smp's own output is of another size than the image


def test_four_levels_of_an_fpn_give_the_images_size_where_smps_give_another():
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert made_by_smp(smp.FPN, encoder_depth=4)(image).shape[2:] != image.shape[2:]
        assert zoo.build(SMALL, "smp:fpn", levels=4)(image).shape[2:] == image.shape[2:]


def test_a_predictor_refuses_a_model_whose_pixels_may_have_several_classes(tmp_path):
    with pytest.warns(UserWarning, match="the activation 'sigmoid'"):
        ours = zoo.from_smp(made_by_smp(smp.Unet, activation="sigmoid", classes=3))
    zoo.save(ours, tmp_path / "model")
    for model in (ours, tmp_path / "model", zoo.load(tmp_path / "model")):
        with pytest.raises(zoo.errors.OptionError, match=r"sigmoid for each of its \d classes.*one class"):
            zoo.Predictor(model)
    ours.has_one_class_per_pixel = True
    assert zoo.Predictor(ours)


class Sigmoid(nn.Module):
    """A sigmoid that is not torch's module."""

    def forward(self, x):
        return x.sigmoid()


@pytest.mark.filterwarnings("ignore:zoo.from_smp leaves out the activation")
@pytest.mark.parametrize(
    ("activation", "is_sigmoid"),
    [
        (lambda: torch.sigmoid, True),
        (nn.Hardsigmoid, True),
        (Sigmoid, True),
        (lambda: nn.Softmax(dim=1), False),
        (nn.Tanh, False),
        (nn.Identity, False),
    ],
)
def test_a_sigmoid_is_known_by_what_it_does(activation, is_sigmoid):
    theirs = made_by_smp(smp.Unet, activation=activation, classes=3)
    assert zoo.from_smp(theirs).has_one_class_per_pixel != is_sigmoid


def test_a_sigmoid_that_was_put_in_later_is_known():
    theirs = made_by_smp(smp.Unet, classes=3)
    theirs.segmentation_head[2] = Sigmoid().eval()
    with pytest.raises(zoo.errors.OptionError, match="sigmoid for each of its 3 classes"):
        zoo.Predictor(zoo.from_smp(theirs))


def test_a_predictor_takes_a_model_of_one_class_with_a_sigmoid():
    theirs = smp.Unet(SMALL_TO_SMP, encoder_weights=None, classes=1, activation="sigmoid").eval()
    with pytest.warns(UserWarning, match="the activation 'sigmoid'"):
        predictor = zoo.Predictor(zoo.from_smp(theirs))
    image = torch.rand(3, 64, 64)
    with torch.no_grad():
        expected = theirs(image[None])[0]
    found = torch.from_numpy(predictor(image, probabilities=True).probabilities)
    assert torch.allclose(found, expected, atol=1e-4)

"""`zoo.deploy` as a user meets it: the same output at any size, a report that tells all, and clear refusals."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import zoo
from zoo.inference.deployment import onednn
from zoo.inference.deployment.choice import select_runtimes
from zoo.inference.deployment.graph import capture
from zoo.inference.deployment.passes import PASSES, apply_passes
from zoo.inference.reference import ROUNDINGS
from zoo.inference.runtimes import has_bfloat16, make_program

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = "timm:test_resnet"
DECODERS = list(zoo.list_decoders())
SAMPLE = ("unet-basic", "smp:unet")
FAMILIES = [
    "timm:convnext_atto",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:regnety_002",
    "timm:densenet121",
    "timm:vgg11_bn",
    "timm:repvgg_a0",
    "timm:pvt_v2_b0",
    "timm:vit_tiny_patch16_224",
]
SIZES = [(64, 96), (65, 97), (127, 64)]


def settled(model):
    """Give norms statistics that change something."""
    torch.manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def built(encoder, decoder, **options):
    torch.manual_seed(0)
    return settled(zoo.build(encoder, decoder, classes=2, **options))


def relative_error(found, expected):
    return ((found - expected).abs().max() / expected.abs().max()).item()


def stack(channels=3):
    """Return a small model that is faster once its norms are folded and its activations fused."""
    layers = []
    for width in (channels, 64, 64):
        layers += [nn.Conv2d(width, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    return settled(nn.Sequential(*layers, nn.Conv2d(64, 2, 1)))


def images(height=64, width=96, *, batch=1, channels=3):
    torch.manual_seed(1)
    return torch.randn(batch, channels, height, width)


def assert_same(deployed, model, sizes=SIZES, **options):
    for size in sizes:
        image = images(*size, **options)
        with torch.no_grad():
            expected = model(image)
        found = deployed(image)
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert relative_error(found, expected) < 1e-4
    assert deployed.fallbacks == {}


@pytest.mark.parametrize(
    "decoder", [each if each in SAMPLE else pytest.param(each, marks=pytest.mark.slow) for each in DECODERS]
)
def test_every_decoder_gives_the_same_at_any_size(decoder):
    model = built(SMALL, decoder)
    deployed = zoo.deploy(model, example=images(), runtime="eager")
    assert deployed.report.unread is None
    assert deployed.report.candidates[1].refused is None
    assert_same(deployed, model, [(65, 97)], batch=3)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", FAMILIES)  # times all decoders: benchmarks/deployed.py
def test_encoders_of_other_families_give_the_same(encoder):
    size = (224, 224) if "vit" in encoder else (64, 96)
    model = built(encoder, "unet-basic", image_size=size)
    deployed = zoo.deploy(model, example=images(*size), runtime="eager")
    assert deployed.report.unread is None
    assert all(each.error is not None for each in deployed.report.candidates if each.precision == "float32")
    assert_same(deployed, model, [size] if "vit" in encoder else SIZES)


def test_a_model_that_is_no_pairing_is_deployed_on_an_example():
    model = stack(channels=1)
    deployed = zoo.deploy(model, example=images(channels=1), runtime="eager")
    assert_same(deployed, model, channels=1)


@pytest.mark.parametrize(
    "activation", [nn.SiLU(), nn.GELU(), nn.GELU("tanh"), nn.Hardswish(), nn.Hardsigmoid(), nn.LeakyReLU(0.2), nn.ReLU6()]
)
def test_activations_of_every_kind_are_right(activation):
    convs = [
        layer
        for groups in (1, 4)
        for layer in (
            nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=groups),
            nn.ConvTranspose2d(8, 4, 2, stride=2, groups=groups),
        )
    ]
    model = nn.Sequential(*[layer for conv in convs for layer in (conv, activation)]).eval()
    deployed = zoo.deploy(model, example=images(16, 24, channels=4), runtime="eager")
    assert deployed.report.candidates[1].refused is None
    assert_same(deployed, model, [(17, 24)], channels=4)


@pytest.mark.skipif(not onednn.is_available(torch.device("cpu")), reason="this PyTorch has no fused convolutions")
def test_the_sum_of_a_step_up_is_done_by_the_skips_convolution():
    class StepUp(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = zoo.plugin.UpsampledConv2d(4, 4, 8, form="low")

        def forward(self, x):
            return self.conv(x, nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear")).relu()

    graph = capture(StepUp().eval(), images(channels=4))
    with torch.no_grad():
        apply_passes(graph, ["fold-constants"])  # the kernel is made once
        onednn.fuse_activations(graph)
    assert sum("_convolution_pointwise.binary" in str(node.target) for node in graph.nodes) == 1
    assert not any("add" in str(node.target) or "relu" in str(node.target) for node in graph.nodes)


def test_a_sum_that_is_still_needed_or_broadcast_is_right():
    class Sums(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two, self.three = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(3))

        def forward(self, x):
            y = self.one(x)
            z = (y + self.two(y)).relu()
            return self.three(z) + z.mean((2, 3), keepdim=True) + y - z

    model = Sums().eval()
    assert_same(zoo.deploy(model, example=images(channels=4), runtime="eager"), model, channels=4)


def test_the_model_stays_as_it_was():
    model = stack().train()
    before = copy.deepcopy(model.state_dict())
    deployed = zoo.deploy(model, example=images(), runtime="eager")
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with torch.no_grad():
        expected = deployed(images()).clone()
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(deployed(images(height=65)[..., :64, :]), deployed(images(height=65)[..., :64, :]))
    torch.testing.assert_close(deployed(images()), expected)


def test_the_report_tells_what_was_tried_and_what_each_pass_did():
    deployed = zoo.deploy(stack(), example=images(128, 128), runtime=("eager", "onnxruntime"), passes=["fold-norms"])
    report = deployed.report
    assert [done.name for done in report.passes] == ["fold-norms"]
    assert report.passes[0].places == ("1", "4", "7")
    assert report.shape == (1, 3, 128, 128)
    assert [str(each) for each in report.candidates] == [
        "original",
        "eager, float32",
        "eager, bfloat16",
        "onnxruntime, float32",
        "onnxruntime, bfloat16",
    ]
    assert report.chosen in report.candidates
    assert report.candidates[0].speed.median == 1
    refused = [each.refused for each in report.candidates if each.precision == "bfloat16"]
    assert refused == [
        "bfloat16 requires a tolerance of at least 0.01; the requested tolerance is 0.0001",
        "its convolutions do not support bfloat16 on the CPU",
    ]
    told = zoo.explain(deployed)
    assert all(part in told for part in ("fold-norms", "1x3x128x128", "tolerance 0.0001", "chosen", "onnxruntime, float32"))


def test_the_fastest_is_chosen_and_none_is_slower_than_the_model_itself():
    report = zoo.deploy(stack(), example=images(), runtime="eager").report
    assert report.chosen.speed.median == max(each.speed.median for each in report.candidates if each.speed)
    assert report.chosen.speed.median >= 1


def test_an_output_that_is_not_near_enough_is_not_chosen():
    deployed = zoo.deploy(stack(), example=images(), runtime="eager", tolerance=1e-12)
    eager = deployed.report.candidates[1]
    assert "is accepted" in eager.refused
    assert eager.speed is None
    assert str(deployed.report.chosen) == "original"
    assert_same(deployed, deployed.original)


def test_bfloat16_is_tried_where_the_tolerance_allows_it_and_the_processor_has_it():
    deployed = zoo.deploy(stack(), example=images(), runtime="eager", tolerance=0.05)
    coarse = deployed.report.candidates[2]
    assert coarse.precision == "bfloat16"
    if has_bfloat16(torch.device("cpu")):
        assert coarse.error < 0.05
    else:
        assert coarse.refused == "the processor (cpu) does not support bfloat16 arithmetic"


@pytest.mark.parametrize("runtime", ["eager", pytest.param("openvino", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # the exporter's own
def test_in_bfloat16_the_output_is_as_near_as_its_eight_bits_allow(runtime):
    model = stack()
    program = make_program(capture(model, images()), images(), runtime, "bfloat16")
    found, expected = program(images()), model(images())
    assert found.dtype is torch.float32
    assert relative_error(found, expected) < 0.05


def test_where_the_model_has_types_of_its_own_bfloat16_is_left_to_autocast():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, image):
            return self.conv(image.to(torch.float32))

    model = Stubborn().eval()
    program = make_program(capture(model, images()), images(), "eager", "bfloat16")
    with torch.no_grad():
        assert 0 < relative_error(program(images()), model(images())) < 0.05


def test_runtimes_of_other_devices_are_tried_only_when_asked_for():
    deployed = zoo.deploy(stack(), example=images(), runtime=("eager", "cudagraphs"))
    refused = {each.refused for each in deployed.report.candidates if each.runtime == "cudagraphs"}
    assert refused == {"it is used on cuda devices only; the model is on cpu"}
    assert "cudagraphs" not in select_runtimes("auto", torch.device("cpu"))
    assert select_runtimes("auto", torch.device("cuda")) == ("eager", "cudagraphs", "compile")


def test_a_shape_at_which_the_output_is_not_near_enough_is_run_as_it_was_given():
    class Touchy(nn.Module):
        def __init__(self):
            super().__init__()
            self.stack = stack()

        def forward(self, x):
            return self.stack(x) + (torch.randn(()) if x.shape[-1] == 50 else 0)

    deployed = zoo.deploy(Touchy(), example=images(), runtime="eager")
    assert str(deployed.report.chosen) == "eager, float32"
    deployed(images(64, 50))
    assert list(deployed.fallbacks) == [(1, 3, 64, 50)]
    assert "is accepted" in deployed.fallbacks[1, 3, 64, 50]


def test_what_cannot_be_read_as_a_graph_is_run_as_it_was_given_and_the_report_says_so():
    class Unreadable(nn.Module):
        def forward(self, x):
            return x * 2 if float(x.sum()) > 0 else x * 3

    model = Unreadable()
    deployed = zoo.deploy(model, example=images())
    assert "torch.export cannot capture the model" in deployed.report.unread
    assert "torch.export cannot capture the model" in zoo.explain(deployed)
    for image in (images().abs(), -images().abs()):
        assert torch.equal(deployed(image), model(image))


def test_few_shapes_are_kept_and_the_others_made_again():
    model = stack()
    deployed = zoo.deploy(model, example=images(32, 32), runtime="eager")
    assert_same(deployed, model, [(32, 32 + 2 * index) for index in range(9)])
    assert len(deployed._programs) == 8
    assert_same(deployed, model, [(32, 32)])


def test_an_image_that_the_model_refuses_is_refused_in_the_same_words():
    model = built(SMALL, "unet-basic", levels=2)
    deployed = zoo.deploy(model, example=images(), runtime="eager")
    for image in (images(channels=1), "cat.jpg"):
        with pytest.raises(zoo.errors.InputError, match=r"takes images of shape \(N, 3, H, W\)"):
            deployed(image)


@pytest.mark.slow
def test_without_an_example_a_pairing_gets_the_size_that_it_is_made_for():
    assert zoo.deploy(built("resnet18", "unet-basic"), runtime="eager", passes=[]).report.shape == (1, 3, 256, 256)
    model = built("timm:vit_tiny_patch16_224", "unet-basic", image_size=(64, 64), in_channels=1)
    assert zoo.deploy(model, runtime="eager").report.shape == (1, 1, 64, 64)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"runtime": "tensorrt"}, zoo.errors.OptionError, "'eager', 'cudagraphs', 'compile', 'onnxruntime', 'openvino'"),
        ({"runtime": ()}, zoo.errors.OptionError, "runtime must be 'auto'"),
        ({"passes": ["fold-everything"]}, zoo.errors.OptionError, "'fold-norms'"),
        ({"passes": "fold-norms"}, zoo.errors.OptionError, "passes must be a list of names"),
        ({"tolerance": 0}, zoo.errors.OptionError, "above 0, such as 1e-4; found 0"),
        ({"tolerance": float("nan")}, zoo.errors.OptionError, "found nan"),
        ({"tolerance": "low"}, zoo.errors.OptionError, "found 'low'"),
        ({"example": torch.zeros(3, 64, 64)}, zoo.errors.InputError, r"\(N, channels, H, W\); found \(3, 64, 64\)"),
        ({"example": "cat.jpg"}, zoo.errors.InputError, "found 'cat.jpg'"),
        (
            {"example": torch.zeros(1, 3, 64, 64, device="meta")},
            zoo.errors.InputError,
            "example is on meta, but the model is on cpu",
        ),
        ({"example": torch.zeros(1, 1, 64, 64)}, zoo.errors.InputError, "takes images of shape"),
    ],
)
def test_a_mistake_is_told_with_what_helps(options, error, told):
    with pytest.raises(error, match=told):
        zoo.deploy(built(SMALL, "unet-basic"), **options)


def test_a_module_of_ones_own_needs_an_example_and_one_tensor():
    with pytest.raises(zoo.errors.InputError, match="needs example= for a Conv2d"):
        zoo.deploy(nn.Conv2d(3, 2, 1))

    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(zoo.errors.InputError, match="returns one tensor; Two returns tuple"):
        zoo.deploy(Two(), example=images())


def test_explain_of_anything_else_alone_says_what_it_takes():
    with pytest.raises(zoo.errors.OptionError, match=r"a model that zoo\.deploy made; found str alone"):
        zoo.explain("resnet18")


def test_it_cannot_be_trained_or_pickled_and_says_what_to_do():
    deployed = zoo.deploy(stack(), example=images(), runtime="eager", passes=[])
    assert deployed.eval() is deployed
    with pytest.raises(zoo.ZooError, match="Train the original model"):
        deployed.train()
    with pytest.raises(zoo.ZooError, match="Save the original model"):
        pickle.dumps(deployed)


def test_moved_to_another_type_it_makes_its_programs_anew():
    model = stack()
    deployed = zoo.deploy(model, example=images(), runtime="eager").double()
    found = deployed(images().double())
    assert found.dtype is torch.float64
    with torch.no_grad():
        assert relative_error(found, model.double()(images().double())) < 1e-9


def test_the_passes_have_the_names_that_the_docs_tell():
    assert list(PASSES) == [
        "drop-identities",
        "fold-constants",
        "fold-norms",
        "merge-transposed",
        "low-resolution",
        "project-before-resize",
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's and the exporter's own
@pytest.mark.parametrize("runtime", ["compile", "onnxruntime", "openvino"])
@pytest.mark.parametrize("decoder", ["unet-basic", "unet-bilinear", "unet-attention", "smp:unet"])
def test_every_runtime_gives_the_same(decoder, runtime):
    model = built("resnet18", decoder)
    report = zoo.deploy(model, example=images(), runtime=runtime).report
    tried = next(each for each in report.candidates if each.runtime == runtime)
    assert tried.refused is None
    assert tried.error < 1e-4
    assert tried.speed.median > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize("decoder", ["unet-basic", "unet-bilinear", "smp:unet"])
def test_on_an_accelerator_it_is_as_near_to_float32_as_the_model_itself(decoder):
    device = torch.accelerator.current_accelerator()
    model = built("resnet18", decoder)
    deployed = zoo.deploy(model.to(device), example=images().to(device), runtime=("eager", "cudagraphs"))
    assert str(deployed.report.chosen) != "original"
    assert deployed.report.accepted >= deployed.report.tolerance
    exact = copy.deepcopy(model).double()
    for size in SIZES:
        image = images(*size).to(device)
        with torch.no_grad():
            expected = exact(image.double()).float()
            own = relative_error(model(image), expected)
        assert relative_error(deployed(image), expected) < max(2 * deployed.report.tolerance, ROUNDINGS * 1.01 * own)
    assert deployed.fallbacks == {}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator")
@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_on_an_accelerator_what_is_compiled_gives_the_same():
    device = torch.accelerator.current_accelerator()
    model = built("resnet18", "unet-basic").to(device)
    report = zoo.deploy(model, example=images().to(device), runtime="compile").report
    assert report.candidates[1].error < report.accepted
    assert report.candidates[1].refused is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("tolerance", [1e-4, 0.2])
def test_recorded_cuda_graphs_give_the_same_for_every_image(tolerance):
    model = built("resnet18", "smp:unet").cuda()
    deployed = zoo.deploy(model, example=images().cuda(), runtime="cudagraphs", tolerance=tolerance)
    assert deployed.report.chosen.runtime == "cudagraphs"
    batches = [images().cuda(), torch.randn_like(images()).cuda(), -images().cuda()]
    found = [deployed(batch) for batch in batches]
    with torch.no_grad():
        for each, batch in zip(found, batches, strict=True):
            assert relative_error(each, model(batch)) < 3 * deployed.report.accepted


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt()])
def test_a_model_whose_code_ends_the_program_is_an_error(end):
    class Ending(nn.Conv2d):
        def forward(self, image):
            raise end

    with pytest.raises(zoo.errors.PluginError, match=rf"zoo\.deploy was ended by {type(end).__name__}"):
        zoo.deploy(Ending(3, 2, 1), example=images(), runtime="eager")


def test_a_model_that_gives_no_number_is_told_from_a_runtime_that_is_not_exact():
    model = stack().eval()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(zoo.ZooError, match=r"cannot be deployed\. The model itself returns NaN or infinity in"):
        zoo.deploy(model, example=images(), runtime="eager")

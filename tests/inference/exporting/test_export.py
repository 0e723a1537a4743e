"""A model as a file for other programs: it gives the model's logits for images of every size, or is not kept."""

import json
import math
import sys

import made_models
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(1, 64, 96), (2, 75, 49), (1, 9, 161)]


def built(encoder="timm:test_resnet", decoder="unet-basic", **options):
    return made_models.built(encoder, decoder, **{"levels": 2} | options)


def image(batch, height, width, channels=3):
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(batch + height))


def by_torch(path):
    return torch.export.load(path).module()


def by_openvino(path):
    import openvino

    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: torch.from_numpy(compiled({"image": given.numpy()})["logits"].copy())


class SamePadding(nn.Module):
    """Convolutions of stride 2 with TensorFlow's "same" padding, as in timm's `tf_` models."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(nn.Conv2d(channels, 8, 3, stride=2) for channels in (3, 8, 8))

    def forward(self, x):
        maps = []
        for stage in self.stages:
            rows, columns = (max((math.ceil(length / 2) - 1) * 2 + 3 - length, 0) for length in x.shape[-2:])
            x = stage(F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))).relu()
            maps.append(x)
        return maps


RUN = {".onnx": made_models.by_onnxruntime, ".pt2": by_torch, ".xml": by_openvino}


def assert_same(model, path, sizes=SIZES):
    run = RUN[path.suffix](path)
    for size in sizes:
        given = image(*size, channels=model.pairing.in_channels)
        with torch.no_grad():
            expected, found = model(given), run(given)
        assert found.shape == expected.shape
        assert float((found - expected).abs().max() / expected.abs().max()) <= 1e-4


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that exports one model to a format, once: the model and its report."""
    model = built(classes=2)
    model.class_names, model.colors = ("sky", "Straße"), ((0, 0, 0), (255, 0, 0))
    reports = {}

    def export(suffix):
        if suffix not in reports:
            reports[suffix] = zoo.export(model, tmp_path_factory.mktemp("exported") / f"model{suffix}", timeout=None)
        return model, reports[suffix]

    return export


@pytest.mark.parametrize(
    ("suffix", "files"), [(".onnx", ["model.onnx"]), (".pt2", ["model.pt2"]), (".xml", ["model.bin", "model.xml"])]
)
def test_a_format_has_its_files_and_they_give_the_models_logits(suffix, files, written):
    model, report = written(suffix)
    assert_same(model, report.path)
    there = sorted(report.path.parent.iterdir())
    assert [file.name for file in there] == files
    assert report.num_bytes == sum(file.stat().st_size for file in there)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [("resnet18", "unet-basic"), ("timm:test_resnet", "unet-attention"), ("timm:test_vit", "unet-bilinear")],
)
def test_a_file_gives_the_models_logits_at_sizes_that_it_was_not_exported_with(encoder, decoder, suffix, tmp_path):
    model = built(encoder, decoder, levels=None)
    report = zoo.export(model, tmp_path / f"model{suffix}", timeout=None)
    assert report.path == tmp_path / f"model{suffix}"
    assert (report.size, report.is_batch_open, report.notes) == (None, True, ())
    assert [check.shape[0] for check in report.checks[:4]] == [1, 2, 1, 2]
    assert all(check.relative <= 1e-4 for check in report.checks)
    assert_same(model, report.path)
    assert [file.name for file in tmp_path.iterdir()] == [f"model{suffix}"]


def test_an_onnx_file_names_its_tensors_and_axes_and_says_what_it_is(written):
    model, report = written(".onnx")
    held = onnx.load(report.path)
    onnx.checker.check_model(held, full_check=True)
    for tensor, name, channels in ((held.graph.input[0], "image", 3), (held.graph.output[0], "logits", 2)):
        assert tensor.name == name
        axes = [axis.dim_param or axis.dim_value for axis in tensor.type.tensor_type.shape.dim]
        assert axes == ["batch", channels, "height", "width"]
    told = {entry.key: entry.value for entry in held.metadata_props}
    assert told["zoo.encoder"] == "timm:test_resnet"
    assert zoo.Pairing(**json.loads(told["zoo.pairing"])) == model.pairing
    assert json.loads(told["zoo.class_names"]) == ["sky", "Straße"]
    assert json.loads(told["zoo.colors"]) == [[0, 0, 0], [255, 0, 0]]
    assert json.loads(told["zoo.preprocessing"])["mean"] == list(model.preprocessing.mean)
    assert (told["zoo.normalization"], told["zoo.size"]) == ("outside", "any")
    assert json.loads(told["zoo.licenses"])["encoder"] == model.licenses.encoder
    assert next(each.version for each in held.opset_import if not each.domain) == report.opset


def test_the_other_formats_say_the_same(written):
    import openvino

    held = {"zoo.json": ""}
    torch.export.load(written(".pt2")[1].path, extra_files=held)
    told = json.loads(held["zoo.json"])
    read = openvino.Core().read_model(written(".xml")[1].path)
    assert {key: read.get_rt_info(["zoo", key]).astype(str) for key in told} == told
    assert told["input"].startswith("(N, 3, H, W), float32: pixels in 0 to 1, minus the mean")


def test_with_the_normalization_inside_a_file_takes_pixels_in_0_to_1(tmp_path):
    model = built()
    model.preprocessing = zoo.Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), value_range=(0.0, 255.0))
    report = zoo.export(model, tmp_path / "model.pt2", normalize=True, timeout=None)
    pixels = image(1, 40, 56)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std))
    expected = model((pixels * 255 - mean) / std).detach()
    torch.testing.assert_close(by_torch(report.path)(pixels), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    held = {"zoo.json": ""}
    torch.export.load(report.path, extra_files=held)
    told = json.loads(held["zoo.json"])
    assert told["normalization"] == "inside"
    assert "which the file normalizes itself" in told["input"]
    assert "pixels in 0 to 1" in str(report)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".xml"])
def test_a_file_for_one_size_says_so_in_its_name_and_refuses_others(suffix, tmp_path):
    model = built()
    report = zoo.export(model, tmp_path / f"model{suffix}", size=(64, 50), fixed=True, timeout=None)
    assert report.path == tmp_path / f"model-64x50{suffix}"
    assert (report.size, report.is_batch_open) == ((64, 50), True)
    assert "64x50 only" in str(report)
    assert_same(model, report.path, [(1, 64, 50), (3, 64, 50)])
    with pytest.raises(Exception, match=r"(?i)dimension|shape|guard|expected"):
        RUN[suffix](report.path)(image(1, 64, 64))


@pytest.mark.slow
def test_an_encoder_of_one_size_gives_a_file_of_that_size_and_the_report_says_why(tmp_path):
    model = built("timm:vit_relpos_small_patch16_224", "unet-basic", image_size=(32, 48))
    report = zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert report.path.name == "model-32x48.pt2"
    assert "the encoder takes images of 32x48 only" in str(report)
    assert_same(model, report.path, [(1, 32, 48), (2, 32, 48)])


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["auto", "resize"])
@pytest.mark.parametrize("facts", [{"minimum": 70}, {"square": True}, {"multiple": 48}])
def test_sizes_that_an_encoder_takes_do_not_close_an_export(facts, policy, tmp_path, fresh_registry):
    from zoo_resnet18.encoder import ResNet18Encoder

    pyramid = zoo.negotiate("resnet18", "unet-basic", levels=2).pyramid
    zoo.register_encoder("particular", ResNet18Encoder, pyramid=pyramid, sizes=zoo.plugin.ImageSizes(**facts))
    model = built("local:particular", size_policy=policy)
    report = zoo.export(model, tmp_path / "model.onnx", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert_same(model, report.path, [(1, 96, 96), (2, 33, 101), (1, 7, 150)])


def test_a_size_policy_that_refuses_sizes_gives_a_file_of_one_size(tmp_path):
    model = built(size_policy="error")
    report = zoo.export(model, tmp_path / "model.pt2", size=(64, 96), timeout=None)
    assert report.path.name == "model-64x96.pt2"
    assert "size_policy='error'" in str(report)
    with pytest.raises(zoo.errors.InputError, match="multiples of 4"):
        zoo.export(model, tmp_path / "model.pt2", size=(65, 96), timeout=None)


def test_what_is_not_done_in_time_is_exported_for_one_size(tmp_path):
    model = built()
    report = zoo.export(model, tmp_path / "model.pt2", size=(64, 64), timeout=0.05)
    assert report.path.name == "model-64x64.pt2"
    assert "A graph for any height and width cannot be exported: it took longer than 0.05 seconds. Set a longer timeout" in str(
        report
    )
    assert not report.is_batch_open
    assert_same(model, report.path, [(1, 64, 64)])


@pytest.mark.slow
def test_within_the_time_another_process_writes_the_same_file(tmp_path):
    model = built()
    report = zoo.export(model, tmp_path / "model.pt2")
    assert (report.size, report.notes) == (None, ())
    assert_same(model, report.path)


def test_a_decoder_of_a_script_is_exported_without_a_time_limit_and_the_report_says_so(tmp_path, fresh_registry):
    class Local(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

        def forward(self, features):
            return features[-1]

    zoo.register_decoder("last", Local)
    model = built(decoder="local:last")
    report = zoo.export(model, tmp_path / "model.pt2")
    assert report.size is None
    assert "without a time limit" in str(report)
    assert_same(model, report.path)


class Deciding(nn.Module):
    """Does for wide maps what it does not for others, as an export can hold one branch alone."""

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

    def forward(self, features):
        return features[-1] * 2 if features[-1].shape[-1] > 6 else features[-1]


def test_a_graph_that_is_wrong_at_other_sizes_is_not_kept(tmp_path, fresh_registry):
    zoo.register_decoder("deciding", Deciding)
    model = built(decoder="local:deciding")
    place = tmp_path / "model.pt2"
    with pytest.raises(zoo.errors.ExportError, match=r"more than the tolerance, 0\.0001\. .* not written.*--fixed"):
        zoo.export(model, place, timeout=None)
    assert list(tmp_path.iterdir()) == []
    assert zoo.export(model, place, size=(64, 64), fixed=True, timeout=None).path.name == "model-64x64.pt2"


def test_past_the_tolerance_nothing_is_written_and_what_was_there_stays(tmp_path):
    place = tmp_path / "model.onnx"
    place.write_bytes(b"before")
    with pytest.raises(zoo.errors.ExportError, match=r"(?s)tolerance, 1e-12.*1x3x96x128.*2x3x75x133"):
        zoo.export(built(), place, tolerance=1e-12, timeout=None)
    assert place.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_a_file_that_is_there_is_replaced_and_a_folder_that_is_not_is_made(tmp_path):
    place = tmp_path / "new" / "folder" / "model.pt2"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"before")
    model = built()
    zoo.export(model, place, timeout=None)
    assert_same(model, place)
    made = zoo.export(model, tmp_path / "other" / "model.pt2", size=(64, 96), fixed=True, timeout=None).path
    assert made.parent == tmp_path / "other"
    assert_same(model, made, SIZES[:1])


def test_the_model_stays_as_it_was(tmp_path):
    model = built(decoder="smp:unet", aux_levels=1).train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    zoo.export(model.half(), tmp_path / "model.pt2", timeout=None)
    assert model.training
    assert next(model.parameters()).dtype == torch.half
    assert next(model.parameters()).requires_grad
    assert state.keys() == model.state_dict().keys()
    assert not any(key.startswith("aux_heads") for key in torch.export.load(tmp_path / "model.pt2").state_dict)


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("model.pth", {}, r"suffix is not that of a format.*\.onnx \(onnx\), \.pt2 \(torch-export\), \.xml \(openvino\)"),
        ("model.onnx", {"format": "tflite"}, r"format must be one of 'onnx', 'torch-export', 'openvino'; found 'tflite'"),
        ("model.onnx", {"format": "openvino"}, r"'openvino' must end in \.xml"),
        ("model.onnx", {"tolerance": 0}, "tolerance must be a finite number above 0"),
        ("model.onnx", {"tolerance": None}, "tolerance must be a finite number above 0"),
        ("model.onnx", {"timeout": -1}, "timeout must be a finite number above 0"),
        ("model.onnx", {"size": (64, 0)}, "size must be a pair"),
        ("model.onnx", {"size": 64}, "size must be a pair"),
        ("folder.onnx", {}, "is a folder"),
        ("file/model.onnx", {}, "cannot be written"),
    ],
)
def test_a_mistake_is_told_before_any_work(path, options, message, tmp_path):
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(zoo.errors.OptionError, match=message):
        zoo.export(built(), tmp_path / path, **options)


def test_a_module_that_is_no_pairing_is_refused(tmp_path):
    with pytest.raises(zoo.errors.OptionError, match=r"zoo\.build or zoo\.load returned; found a Conv2d"):
        zoo.export(nn.Conv2d(3, 3, 1), tmp_path / "model.pt2")


@pytest.mark.parametrize(("suffix", "package"), [("onnx", "onnxscript"), ("xml", "openvino")])
def test_a_missing_package_is_told_with_what_installs_it(suffix, package, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "zoo.inference.runtimes.find_spec", lambda name: None if name == package else sys.modules["zoo"].__spec__
    )
    with pytest.raises(zoo.errors.OptionError, match=rf"{package} not installed: pip install 'segmentation-zoo\[deploy\]'"):
        zoo.export(built(), tmp_path / f"model.{suffix}")


@pytest.mark.slow
def test_weights_of_more_than_onnx_holds_lie_beside_the_file_and_go_with_it(tmp_path, monkeypatch):
    model = built()
    with monkeypatch.context() as patch:
        patch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 1000)
        report = zoo.export(model, tmp_path / "model.onnx", timeout=None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert_same(model, report.path)
    zoo.export(model, report.path, timeout=None)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.onnx"]
    assert_same(model, report.path)


@pytest.mark.slow
def test_the_command_line_exports_a_saved_model(tmp_path, monkeypatch, command_line):
    model = built()
    zoo.save(model, tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    status, out, err = command_line("export", "saved")
    assert (status, err) == (0, "")
    assert "saved.onnx: onnx, opset" in out
    assert "1x3x96x128" in out
    assert_same(model, tmp_path / "saved.onnx")


def test_the_command_line_exports_for_one_size_with_the_normalization_inside(tmp_path, monkeypatch, command_line):
    zoo.save(built(), tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    status, out, err = command_line("export", "saved", "-f", "torch-export", "--fixed", "--size", "64x48", "--normalize")
    assert (status, err) == (0, "")
    assert "saved-64x48.pt2: torch-export" in out
    assert "64x48 only; pixels in 0 to 1" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing",), "missing does not exist"),
        (("saved", "--size", "wide"), "--size: a size must be HEIGHTxWIDTH"),
        (("saved", "-o", "model.pth"), "no format has this suffix"),
        pytest.param(
            ("saved", "--tolerance", "1e-12"),
            "differs from the model's by more than the tolerance, 1e-12",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_command_line_ends_a_mistake_with_one_message_and_status_2(arguments, message, tmp_path, monkeypatch, command_line):
    zoo.save(built(), tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    status, _, err = command_line("export", *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert [file.name for file in tmp_path.iterdir()] == ["saved"]


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt()])
def test_a_model_whose_code_ends_the_program_is_an_error(tmp_path, end):
    class Ending(nn.Conv2d):
        def forward(self, x):
            raise end

    model = built()
    model.head = Ending(1, 1, 1)
    with pytest.raises(zoo.errors.PluginError, match=rf"zoo\.export was ended by {type(end).__name__}"):
        zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_that_gives_no_number_is_told_from_an_export_that_is_not_exact(tmp_path, value):
    model = built()
    with torch.no_grad():
        model.head.bias.fill_(value)
    with pytest.raises(
        zoo.errors.ExportError, match=r"cannot be exported\. The model itself returns NaN or infinity in 196,608 of 196,608"
    ):
        zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert not list(tmp_path.iterdir())


def test_sizes_that_a_model_rounds_up_are_integers_in_the_graph(tmp_path):
    """With floats, the expressions of the sizes grow with each layer, and the export of an EfficientNet takes minutes."""
    model = zoo.build(SamePadding(), "unet-basic", classes=2).eval()
    zoo.export(model, tmp_path / "model.pt2")
    program = torch.export.load(tmp_path / "model.pt2")
    assert not [node for node in program.graph.nodes if "truediv" in str(node.target) or "ceil" in str(node.target)]
    for size in SIZES:
        given = image(*size)
        with torch.no_grad():
            torch.testing.assert_close(program.module()(given), model(given), rtol=1e-4, atol=1e-5)

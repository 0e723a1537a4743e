"""Every decoder of the project with encoders of several kinds, as files that take every size."""

from itertools import product

import onnxruntime
import pytest
import torch
from torch import nn

import zoo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ENCODERS = ["resnet18", "timm:convnext_atto", "timm:test_resnet", "timm:vit_tiny_patch16_224"]
UNETS = ["unet-basic", "unet-bilinear", "unet-attention"]
PAIRINGS = [*product(ENCODERS, UNETS), *product(("resnet18", "timm:test_vit"), zoo.list_decoders("smp:*"))]
SIZES = [(1, 64, 96), (2, 67, 45), (1, 15, 200)]


def built(encoder, decoder, **options):
    model = zoo.build(encoder, decoder, classes=3, **options)
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model.eval()


def relative_errors(model, run, sizes=SIZES):
    for batch, height, width in sizes:
        image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected, found = model(image), run(image)
        yield float((found - expected).abs().max() / expected.abs().max())


def onnxruntime_of(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(path, options)
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


@pytest.mark.parametrize(("encoder", "decoder"), PAIRINGS)
def test_onnx_runtime_gives_the_models_logits_at_every_size(encoder, decoder, tmp_path):
    model = built(encoder, decoder)
    report = zoo.export(model, tmp_path / "model.onnx", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert max(relative_errors(model, onnxruntime_of(report.path))) <= 1e-4


@pytest.mark.parametrize("decoder", UNETS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_program_of_torch_export_gives_the_models_logits_at_every_size(encoder, decoder, tmp_path):
    model = built(encoder, decoder)
    report = zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert max(relative_errors(model, torch.export.load(report.path).module())) <= 1e-4


def test_swins_windows_are_exported_for_one_size(tmp_path):
    model = built("timm:swin_tiny_patch4_window7_224", "unet-basic")
    report = zoo.export(model, tmp_path / "model.onnx", fixed=True, size=(64, 96), timeout=None)
    assert report.path.name == "model-64x96.onnx"
    run = onnxruntime_of(report.path)
    assert max(relative_errors(model, run, [(1, 64, 96)])) <= 1e-4
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(torch.rand(1, 3, 96, 96))


def test_swins_windows_are_exported_for_every_size(tmp_path):
    model = built("timm:swin_tiny_patch4_window7_224", "unet-basic")
    report = zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert max(relative_errors(model, torch.export.load(report.path).module(), [*SIZES, (1, 300, 40)])) <= 1e-4

"""Every decoder of the project with encoders of several kinds, as files that take every size."""

from itertools import product

import pytest
import torch
from made_models import built, by_onnxruntime

import zoo

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

ENCODERS = ["resnet18", "timm:convnext_atto", "timm:test_resnet", "timm:vit_tiny_patch16_224"]
UNETS = ["unet-basic", "unet-bilinear", "unet-attention"]
PAIRINGS = [*product(ENCODERS, UNETS), *product(("resnet18", "timm:test_vit"), zoo.list_decoders("smp:*"))]
SIZES = [(1, 64, 96), (2, 67, 45), (1, 15, 200)]


def relative_errors(model, run, sizes=SIZES):
    for batch, height, width in sizes:
        image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height))
        with torch.no_grad():
            expected, found = model(image), run(image)
        yield float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("encoder", "decoder"), PAIRINGS)
def test_onnx_runtime_gives_the_models_logits_at_every_size(encoder, decoder, tmp_path):
    model = built(encoder, decoder)
    report = zoo.export(model, tmp_path / "model.onnx", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert max(relative_errors(model, by_onnxruntime(report.path))) <= 1e-4


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
    run = by_onnxruntime(report.path)
    assert max(relative_errors(model, run, [(1, 64, 96)])) <= 1e-4
    with pytest.raises(Exception, match="Got invalid dimensions"):
        run(torch.rand(1, 3, 96, 96))


def test_swins_windows_are_exported_for_every_size(tmp_path):
    model = built("timm:swin_tiny_patch4_window7_224", "unet-basic")
    report = zoo.export(model, tmp_path / "model.pt2", timeout=None)
    assert (report.size, report.notes) == (None, ())
    assert max(relative_errors(model, torch.export.load(report.path).module(), [*SIZES, (1, 300, 40)])) <= 1e-4

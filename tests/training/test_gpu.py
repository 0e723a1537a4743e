"""Training on a GPU: mixed precision by default, resumption, and what gradient checkpointing saves there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import zoo
from zoo import SegmentationData
from zoo.training.fit import fit
from zoo.training.scores import score_predictor
from zoo.training.settings import TrainSettings

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.filterwarnings("ignore"),  # Lightning's own
]


class Squares:
    """A bright square on a dark ground, somewhere else in each image."""

    def __init__(self, count, offset, *, broken_at=None):
        self.count, self.offset, self.broken_at, self.taken = count, offset, broken_at, 0

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.taken += 1
        if self.taken == self.broken_at:
            raise OSError("the disk is gone")
        generator = torch.Generator().manual_seed(self.offset + index)
        top, left = torch.randint(0, 40, (2,), generator=generator).tolist()
        mask = torch.zeros(64, 64, dtype=torch.int64)
        mask[top : top + 24, left : left + 24] = 1
        return 0.2 * torch.rand(3, 64, 64, generator=generator) + 0.7 * mask, mask


def squares(**options):
    return SegmentationData(
        name="squares",
        classes=("ground", "square"),
        train=Squares(64, 0, **options),
        validation=Squares(4, 1000),
        test=Squares(16, 2000),
        size=(64, 64),
    )


class Listening(nn.Module):
    """A model that keeps in which type its logits came."""

    def __init__(self):
        super().__init__()
        self.model = zoo.build("resnet18", "unet-basic", classes=2)
        self.seen = set()

    def forward(self, image):
        logits = self.model(image)
        self.seen.add((logits.device.type, logits.dtype))
        return logits


def test_auto_is_bfloat16_and_comes_to_what_float32_does(tmp_path):
    scores = {}
    for precision, dtype in (("auto", torch.bfloat16), ("float32", torch.float32), ("float16", torch.float16)):
        torch.manual_seed(0)
        model = Listening()
        settings = TrainSettings(steps=60, batch=8, learning_rate=3e-3, validations=0, precision=precision)
        scores[precision] = fit(model, squares(), settings, tmp_path / precision).test.miou
        assert model.seen == {("cuda", dtype)}
    assert min(scores.values()) > 0.9
    assert max(scores.values()) - min(scores.values()) < 0.05


def test_an_interrupted_run_goes_on_to_nearly_the_same_result(tmp_path):
    options = {"steps": 60, "batch": 8, "validations": 0, "learning_rate": 3e-3}
    whole = zoo.train("resnet18", "unet-basic", squares(), output=tmp_path / "whole", **options)
    with pytest.raises(zoo.errors.DataError, match=r"sample \d+ cannot be read: OSError: the disk is gone"):
        zoo.train("resnet18", "unet-basic", squares(broken_at=363), output=tmp_path / "cut", **options)
    resumed = zoo.train("resnet18", "unet-basic", squares(), output=tmp_path / "cut", **options)
    assert (tmp_path / "cut" / "log" / "from-step-25").is_dir()
    assert resumed.test.miou == pytest.approx(whole.test.miou, abs=0.03)
    assert not zoo.load(resumed.checkpoint).training


def test_images_larger_than_the_crop_are_tested_in_tiles_as_a_predictor_has_them(tmp_path):
    data = squares()
    options = {"steps": 20, "batch": 8, "size": 32, "learning_rate": 3e-3, "validations": 1, "precision": "float32"}
    result = zoo.train("resnet18", "unet-basic", data, output=tmp_path / "run", **options)
    predictor = zoo.Predictor(zoo.load(result.checkpoint), device="cuda", tile=32)
    expected = score_predictor(data, lambda image: torch.from_numpy(predictor(image).mask).long())
    assert result.test.pixels == expected.pixels
    assert result.test.miou == pytest.approx(expected.miou, abs=0.005)


def test_gradient_checkpointing_takes_less_of_the_device(tmp_path):
    peaks, losses = {}, {}
    for choice in (None, "encoder", "decoder", "both"):
        torch.manual_seed(0)
        model = zoo.build("resnet18", "unet-basic", gradient_checkpointing=choice).cuda()
        image = torch.rand(8, 3, 256, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(0))
        for _ in range(2):  # the first brings what a library takes once
            torch.cuda.reset_peak_memory_stats()
            loss = model(image).square().mean()
            loss.backward()
            peaks[choice] = torch.cuda.max_memory_allocated()
            model.zero_grad(set_to_none=True)
        losses[choice] = loss.item()
        del model, loss
    assert max(peaks["encoder"], peaks["decoder"]) < peaks[None]
    assert peaks["both"] < 0.9 * peaks[None]
    assert max(losses.values()) == pytest.approx(min(losses.values()), rel=1e-3)

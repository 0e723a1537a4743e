"""Validation and test of images larger than the crop: in tiles as by `zoo.Predictor`, and in the memory of tiles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from planted_encoders import OfOneSize, register

import zoo
from zoo.training.fit import fit
from zoo.training.scores import score_predictor, scores_of
from zoo.training.settings import TrainSettings

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
SIZES = ((150, 131), (20, 257), (64, 64), (30, 50))


class Waves:
    """Images of several sizes, whose classes are where they are bright; one column of each is ignored."""

    def __init__(self, *sizes):
        self.sizes = sizes

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, index):
        height, width = self.sizes[index]
        rows, columns = torch.arange(height)[:, None] / 9, torch.arange(width)[None] / 7
        image = (torch.stack([rows.sin() * columns.cos(), rows.cos() * columns.sin(), (rows + columns).sin()]) + 1) / 2
        mask = (image[0] > 0.5).long() + (image[2] > 0.8).long()
        mask[:, 3] = 255
        return image, mask


def waves(*test, others=(70, 90), **options):
    return zoo.SegmentationData(
        name="waves",
        classes=("dark", "gray", "bright"),
        train=Waves(*[others] * 6),
        validation=Waves(*[others] * 3),
        test=Waves(*test),
        **options,
    )


def trained(output, data, encoder="timm:test_resnet", **settings):
    settings = {"steps": 4, "batch": 3, "validations": 1, "memory_format": "contiguous", "device": "cpu", **settings}
    return zoo.train(encoder, "unet-basic", data, output=output, **settings)


def score_of(data, predictor):
    return score_predictor(data, lambda image: torch.from_numpy(predictor(image).mask).long())


def assert_equal(one, other):
    assert one.pixels == other.pixels
    assert (one.miou, one.dice, one.accuracy) == pytest.approx((other.miou, other.dice, other.accuracy), abs=1e-6)
    assert one.iou == pytest.approx(other.iou, abs=1e-6)


def test_the_test_scores_the_masks_of_a_predictor_with_tiles_of_the_crops_size(tmp_path):
    data = waves(*SIZES)
    result = trained(tmp_path / "run", data, size=64, levels=3)
    assert_equal(result.test, score_of(data, zoo.Predictor(zoo.load(result.checkpoint), tile=64)))
    assert result.test.miou != pytest.approx(score_of(data, zoo.Predictor(zoo.load(result.checkpoint))).miou, abs=1e-6)


def test_images_of_one_size_are_tested_in_tiles_too(tmp_path):
    data = waves(*[(96, 130)] * 2, others=(96, 130), size=(96, 130))
    result = trained(tmp_path / "run", data, size=64, levels=3)
    assert_equal(result.test, score_of(data, zoo.Predictor(zoo.load(result.checkpoint), tile=64)))


def test_a_crop_that_the_encoder_does_not_take_has_tiles_of_the_next_size_that_it_takes(tmp_path):
    data = waves(*SIZES)
    result = trained(tmp_path / "run", data, size=60, levels=3)
    assert_equal(result.test, score_of(data, zoo.Predictor(zoo.load(result.checkpoint), tile=64)))


@pytest.mark.usefixtures("fresh_registry")
def test_an_encoder_of_one_size_has_tiles_of_that_size(tmp_path):
    data = waves((100, 150), (96, 90), (30, 40))
    result = trained(tmp_path / "run", data, register(OfOneSize), size=48)
    assert_equal(result.test, score_of(data, zoo.Predictor(zoo.load(result.checkpoint))))


class Recorder(torch.nn.Conv2d):
    """A model that says something about each pixel by itself, and keeps which images it was given."""

    def __init__(self):
        super().__init__(3, 3, 1)
        self.seen = set()

    def forward(self, image):
        self.seen.add((self.training, *image.shape))
        return super().forward(image)


def test_a_module_of_ones_own_has_tiles_of_the_crops_size_and_smaller_images_whole(tmp_path):
    data = waves(*SIZES)
    model = Recorder()
    settings = TrainSettings(steps=2, batch=4, size=(40, 60), validations=0, device="cpu", memory_format="contiguous")
    result = fit(model, data, settings, tmp_path / "run")
    whole = torch.zeros(3, 3)
    for image, mask in data.test:
        kept = mask != 255
        predicted = model(image[None]).argmax(1)[0]
        whole += torch.bincount(3 * mask[kept] + predicted[kept], minlength=9).view(3, 3)
    assert_equal(result.test, scores_of(whole))
    evaluated = [shape for is_training, *shape in model.seen if not is_training]
    assert {tuple(size) for _, _, *size in evaluated} == {(40, 60), (30, 50)}
    assert max(count for count, *_ in evaluated) == 4


def test_logits_that_are_not_finite_are_told_of_tiles_too(tmp_path):
    class Broken(torch.nn.Conv2d):
        def forward(self, image):
            logits = super().forward(image)
            return logits if self.training else logits / 0

    settings = TrainSettings(steps=1, batch=2, size=32, validations=0, device="cpu", memory_format="contiguous")
    with pytest.raises(zoo.ZooError, match="logits contain NaN or infinity after step 1"):
        fit(Broken(3, 3, 1), waves((40, 50)), settings, tmp_path / "run")


SCRIPT = """
import sys
import zoo
from test_large_images import trained, waves

if __name__ == "__main__":
    data = waves((70, 90), (64, 64), (40, 100))
    trained(sys.argv[1], data, size=64, levels=3, devices=2, steps=1)
"""


@pytest.mark.slow
def test_two_processes_test_each_image_once(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "run"],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
    )
    data = waves((70, 90), (64, 64), (40, 100))
    found = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))["test"]
    expected = score_of(data, zoo.Predictor(zoo.load(tmp_path / "run" / "best.ckpt"), tile=64))
    assert found["pixels"] == expected.pixels
    assert found["miou"] == pytest.approx(expected.miou, abs=1e-6)


def write_folder(folder, size):
    """Write two pairs of each part, which are quick to read."""
    rows, columns = np.indices(size) // 100
    mask = ((rows + columns) % 2).astype(np.uint8)
    for part in ("train", "validation", "test"):
        for kind, pixels in (("images", np.stack([250 * mask, 5 * mask, 90 * mask], axis=-1)), ("masks", mask)):
            (folder / part / kind).mkdir(parents=True)
            for name in ("a", "b"):
                Image.fromarray(pixels).save(folder / part / kind / f"{name}.png", compress_level=1)
    return folder


PEAKS = """
import sys
import torch
import zoo
from zoo.benchmark.measuring.memory import peak_resident_bytes

torch.set_num_threads(1)
for folder in sys.argv[1:]:
    zoo.train(
        "timm:test_resnet", "unet-basic", folder, output=folder + "-run", levels=2, decoder_options={"channels": [8, 8]},
        size=256, steps=1, batch=2, validations=0, device="cpu",
    )
    print(peak_resident_bytes())
"""


@pytest.mark.slow
def test_images_of_12_million_pixels_need_less_than_a_gibibyte(tmp_path):
    folders = [write_folder(tmp_path / str(size[0]), size) for size in ((256, 256), (3000, 4000))]
    done = subprocess.run(
        [sys.executable, "-c", PEAKS, *folders],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
        timeout=300,
        text=True,
    )
    small, large = map(int, done.stdout.split())
    assert large - small < 2**30

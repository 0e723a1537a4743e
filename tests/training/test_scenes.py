"""Training on scenes whose values fill little of their dtype's range, and on samples normalized by their own statistics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.benchmark.measuring.training import open_quality_data
from zoo.benchmark.quality import QualityEntry
from zoo.training.fit import fit
from zoo.training.settings import TrainSettings

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
SPECTRA = np.array([(420, 510, 620, 900), (640, 430, 800, 1300)])
"""The mean of each of four bands on the ground and in a field: of 12 bits in uint16, at most 3 % of the range."""
PAIRING = ("timm:test_resnet", "unet-basic")
QUICK = {"steps": 2, "batch": 2, "validations": 0}


def write_scenes(folder, *, scale=None, size=64, counts=(12, 2, 4)):
    """Make a divided folder of scenes; `scale` is the pair of values that are brought to 0 and 1 before they are saved."""
    random = np.random.default_rng(0)
    for part, count in zip(("train", "validation", "test"), counts, strict=True):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        for index in range(count):
            mask = np.zeros((size, size), dtype=np.uint8)
            top, left = random.integers(0, size // 2, 2)
            mask[top : top + size // 2, left : left + size // 2] = 1
            scene = (SPECTRA[mask] + random.normal(0, 60, (size, size, 4))).clip(0).astype(np.uint16)
            if scale:
                scene = ((scene.astype(float) - scale[0]) / (scale[1] - scale[0])).astype(np.float32)
            np.save(folder / part / "images" / f"{index}.npy", scene)
            Image.fromarray(mask).save(folder / part / "masks" / f"{index}.png")
    return folder


def miou_of(masks, folder):
    """Return the mean IoU of masks by the name of their image."""
    truth = {path.stem: np.asarray(Image.open(path)) for path in (folder / "test/masks").iterdir()}
    pairs = [(masks[name] == value, truth[name] == value) for name in truth for value in (0, 1)]
    hits, unions = ([op(*pair).sum() for pair in pairs] for op in (np.logical_and, np.logical_or))
    return np.mean([sum(hits[value::2]) / sum(unions[value::2]) for value in (0, 1)])


@pytest.mark.slow
def test_scenes_of_12_bits_are_learned_as_well_as_by_hand_and_predicted_alike(tmp_path, command_line):
    def train(folder, name):
        return zoo.train(
            "timm:tf_efficientnet_lite0",
            "unet-basic",
            folder,
            output=tmp_path / name,
            weights="packaged",
            freeze_encoder=True,
            levels=3,
            steps=30,
            batch=4,
            learning_rate=1e-2,
            validations=0,
            augment=False,
        )

    scenes = write_scenes(tmp_path / "scenes")
    result = train(scenes, "run")
    by_hand = train(write_scenes(tmp_path / "by hand", scale=(200, 1600)), "run by hand")
    assert by_hand.test.miou > 0.85
    assert result.test.miou == pytest.approx(by_hand.test.miou, abs=0.02)

    model = zoo.load(result.checkpoint)
    data = zoo.open_data(scenes)
    assert model.value_range == data.value_range
    images = {path.stem: np.load(path) for path in (scenes / "test/images").iterdir()}

    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    assert loaded.value_range == data.value_range
    predictor = zoo.Predictor(loaded)
    masks = {name: predictor(image).mask for name, image in images.items()}
    assert miou_of(masks, scenes) == pytest.approx(result.test.miou, abs=1e-6)

    status, _, stderr = command_line("predict", tmp_path / "model", scenes / "test/images", "-o", tmp_path / "masks")
    assert (status, "Note" in stderr) == (0, False)
    written = {name: np.asarray(Image.open(tmp_path / "masks" / f"{name}.png")) for name in images}
    assert all((written[name] == masks[name]).all() for name in images)

    report = zoo.export(loaded, tmp_path / "model.onnx", normalize=True, fixed=True, size=(64, 64), timeout=None)
    assert "units of the training images" in str(report)
    import onnxruntime

    session = onnxruntime.InferenceSession(report.path)
    pixels = {name: image.transpose(2, 0, 1)[None].astype(np.float32) for name, image in images.items()}
    exported = {name: session.run(None, {"image": each})[0][0].argmax(0) for name, each in pixels.items()}
    assert miou_of(exported, scenes) == pytest.approx(result.test.miou, abs=0.002)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["zoo.value_range"]) == [list(pair) for pair in data.value_range]


def test_mean_and_std_of_the_data_replace_those_of_the_weights(tmp_path):
    folder = write_scenes(tmp_path / "scenes", size=32)
    data = zoo.open_data(folder, mean="auto", std="auto")
    result = zoo.train(*PAIRING, data, output=tmp_path / "run", **QUICK)
    model = zoo.load(result.checkpoint)
    assert model.preprocessing == zoo.Preprocessing(mean=data.mean, std=data.std)
    assert model.value_range == data.value_range
    images = torch.stack([image for image, _ in data.train])
    normalized = model.normalize(images)
    assert normalized.mean(dim=(0, 2, 3)) == pytest.approx([0] * 4, abs=1e-4)
    assert normalized.std(dim=(0, 2, 3)) == pytest.approx([1] * 4, abs=1e-3)


@pytest.mark.parametrize("changes", [{"value_range": [0, 4095]}, {"mean": "auto", "std": "auto"}])
def test_a_run_does_not_go_on_with_other_scaling(tmp_path, changes):
    folder = write_scenes(tmp_path / "scenes", size=32)
    zoo.train(*PAIRING, zoo.open_data(folder), output=tmp_path / "run", **QUICK)
    with pytest.raises(zoo.errors.ConfigError, match=rf"which differ in .*facts\.{next(iter(changes))}"):
        zoo.train(*PAIRING, zoo.open_data(folder, **changes), output=tmp_path / "run", **QUICK)


class Net(torch.nn.Module):
    """A model of another library, which keeps the last images that it was given."""

    def __init__(self):
        super().__init__()
        self.preprocessing = zoo.Preprocessing(mean=(0.5,) * 4, std=(0.1,) * 4)
        self.layer = torch.nn.Conv2d(4, 2, 1)
        self.images = None

    def forward(self, images):
        self.images = images.detach()
        return self.layer(images)


@pytest.mark.parametrize("has_mean", [False, True])
def test_modules_of_other_libraries_get_the_same_pixels_in_a_benchmark(tmp_path, has_mean):
    folder = write_scenes(tmp_path / "scenes", size=32, counts=(4, 1, 1))
    options = {"mean": "auto", "std": "auto"} if has_mean else {}
    plan = QualityEntry.model_validate({"data": {"source": str(folder), **options}})
    data, model = open_quality_data(plan), Net()
    fit(model, data, TrainSettings(steps=1, batch=1, validations=0, device="cpu"), tmp_path / "run")
    pixels = torch.from_numpy(np.load(folder / "test/images/0.npy").astype(np.float64)).permute(2, 0, 1)
    low, high = torch.tensor(data.value_range, dtype=torch.float64).T.view(2, 4, 1, 1)
    scaled = (pixels - low) / (high - low)
    means, stds = (data.mean, data.std) if has_mean else (model.preprocessing.mean, model.preprocessing.std)
    mean, std = (torch.tensor(each, dtype=torch.float64).view(4, 1, 1) for each in (means, stds))
    torch.testing.assert_close(model.images[0], ((scaled - mean) / std).float(), rtol=1e-4, atol=1e-4)


class Own:
    """Samples of a user's own, in degrees; `is_random` gives others each time."""

    def __init__(self, count, *, is_random=False, offset=0.0):
        self.count, self.is_random, self.offset = count, is_random, offset

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = None if self.is_random else torch.Generator().manual_seed(index)
        mask = (torch.rand(32, 32, generator=generator) > 0.5).long()
        image = 280 + self.offset * index + 10 * torch.rand(2, 32, 32, generator=generator) + mask
        return image, mask


def own(**options):
    parts = {"train": Own(4, **options), "validation": Own(2), "test": Own(2)}
    return zoo.SegmentationData(name="own", classes=("a", "b"), size=(32, 32), in_channels=2, **parts)


def test_auto_measures_the_samples_of_a_users_own(tmp_path, caplog):
    data = replace(own(offset=3.0), mean="auto", std="auto")
    result = zoo.train(*PAIRING, data, output=tmp_path / "run", **QUICK)
    assert not [record for record in caplog.records if "float32 values from" in record.getMessage()]
    preprocessing = zoo.load(result.checkpoint).preprocessing
    images = torch.stack([data.train[index][0] for index in range(4)]).double()
    assert preprocessing.mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), rel=1e-9)
    assert preprocessing.std == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist(), rel=1e-6)
    assert zoo.train(*PAIRING, data, output=tmp_path / "run", **QUICK) == result


def test_samples_outside_0_to_1_are_noted_with_the_remedy(tmp_path, caplog):
    zoo.train(*PAIRING, own(), output=tmp_path / "run", **QUICK)
    (message,) = [record.getMessage() for record in caplog.records if "float32 values from" in record.getMessage()]
    assert "mean= and std=" in message


def test_auto_is_refused_for_samples_that_differ_each_time(tmp_path):
    data = replace(own(is_random=True), mean="auto", std="auto")
    with pytest.raises(
        zoo.errors.DataError, match=r"samples of the train split differ each time .* Set mean and std to numbers"
    ):
        zoo.train(*PAIRING, data, output=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()
    numbers = replace(data, mean=(285, 285), std=(3, 3))
    assert zoo.train(*PAIRING, numbers, output=tmp_path / "run", **QUICK).steps == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"mean": "auto"}, "mean and std must both have 2 numbers, one for each channel"),
        ({"mean": (1, 2)}, "mean and std must both"),
        ({"mean": (1, 2), "std": (1,)}, "mean and std must both"),
        ({"mean": (1, 2), "std": (1, 0)}, "std must be above 0"),
        ({"mean": (1, float("nan")), "std": (1, 1)}, "mean and std must both"),
        ({"value_range": (0, 1)}, r"value_range must have 2 pairs \(low, high\), one for each channel"),
        ({"value_range": ((0, 1),)}, "value_range must have 2 pairs"),
        ({"value_range": ((0, 1), (3, 3))}, "value_range must have 2 pairs"),
    ],
)
def test_statistics_that_cannot_be_are_refused(changes, told):
    with pytest.raises(zoo.errors.DataError, match=told):
        replace(own(), **changes)

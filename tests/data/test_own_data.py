"""A data set of a user's own: every sample is checked, the later ones too, before and while it is trained on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

import zoo
from zoo import SegmentationData
from zoo.data.checked_samples import check_on_read

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
LATER = 7


class Samples:
    """Random images with two classes; one sample is spoiled."""

    def __init__(self, count=9, *, channels=3, spoil=None, dtype=torch.float32, is_random=False):
        self.count, self.channels, self.spoil, self.dtype, self.is_random = count, channels, spoil, dtype, is_random
        self.scale = 1

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = None if self.is_random else torch.Generator().manual_seed(index)
        image = torch.rand(self.channels, 32, 32, generator=generator).to(self.dtype)
        mask = (image[0] > 0.5).long()
        image = image * self.scale
        if index == LATER and self.spoil:
            return self.spoil(image, mask)
        return image, mask


def data_of(part="train", channels=3, **options):
    sound = {name: Samples(channels=channels) for name in ("train", "validation", "test")}
    parts = sound | {part: Samples(channels=channels, **options)}
    return SegmentationData(name="mine", classes=("a", "b"), in_channels=channels, size=(32, 32), **parts)


def train(data, output, **settings):
    settings = {"steps": 2, "batch": 2, "validations": 0, **settings}
    return zoo.train("timm:mobilenetv3_small_050", "unet-basic", data, output=output, **settings)


def with_pixel(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[5] = value
    return changed


class Stream(torch.utils.data.IterableDataset):
    """Samples without numbers."""

    def __iter__(self):
        return iter(Samples())


class StreamOfLength(Stream):
    def __len__(self):
        return 9


@pytest.mark.parametrize("samples", [Stream(), StreamOfLength(), iter([]), {1, 2}, torch.utils.data.Dataset(), None])
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_samples_without_a_length_and_numbers_are_refused(samples, part):
    with pytest.raises(
        zoo.errors.DataError, match=rf"mine, {part} split: a map-style data set with a length is required.*found a \w+\. Read"
    ):
        replace(data_of(), **{part: samples})


SPOILED = {
    "class 7": (
        lambda image, mask: (image, with_pixel(mask, 7)),
        "a mask has values that belong to no class: 7. The indexes of the 2 classes are 0 to 1",
    ),
    "class -1": (
        lambda image, mask: (image, with_pixel(mask, -1)),
        "a mask has values that belong to no class: -1. The indexes of the 2 classes are 0 to 1",
    ),
    "NaN": (lambda image, mask: (with_pixel(image, math.nan), mask), "1 non-finite value"),
    "infinity": (lambda image, mask: (with_pixel(image, math.inf), mask), "1 non-finite value"),
    "uint8": (lambda image, mask: ((image * 255).byte(), mask), r"found \(3, 32, 32\) of torch\.uint8"),
    "size": (lambda image, mask: (image[:, :20], mask[:20]), r"the size \(20, 32\), but size is \(32, 32\)"),
    "channels": (lambda image, mask: (image[:2], mask), "2 channels, but in_channels is 3"),
    "no values": (
        lambda image, mask: (image.to("meta"), mask),
        "must be dense tensors with values; found .* .on the meta device",
    ),
    "sparse": (lambda image, mask: (image.to_sparse(), mask), "dense tensors with values; found .*sparse"),
    "sparse mask": (lambda image, mask: (image, mask.to_sparse()), r"dense tensors with values; found \(32, 32\)"),
    "no mask": (lambda image, mask: image, "a pair of an image and its mask; found a Tensor"),
}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize("kind", SPOILED)
def test_a_later_sample_is_checked_before_training_begins(tmp_path, part, kind):
    spoil, told = SPOILED[kind]
    with pytest.raises(zoo.errors.DataError, match=rf"mine, {part} split: .*{told}.*\(sample 7\)"):
        train(data_of(part, spoil=spoil), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_sample_that_is_another_each_time_is_checked_when_it_is_trained_on(tmp_path):
    spoil, told = SPOILED["class 7"]
    with pytest.raises(zoo.errors.DataError, match=told):
        train(data_of(spoil=spoil, is_random=True), tmp_path / "run", steps=9)


def test_an_ignored_value_of_ones_own_is_not_strange(tmp_path):
    data = replace(data_of(spoil=lambda image, mask: (image, with_pixel(mask, -1))), ignored=-1)
    assert check_on_read(data).train[LATER][1].min() == -1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_floating_point_images_of_other_precisions_become_float32(dtype):
    assert check_on_read(data_of(dtype=dtype)).train[0][0].dtype == torch.float32


@pytest.mark.parametrize("channels", [2, 4])
def test_any_number_of_channels_is_trained_on_with_augmentation(tmp_path, channels):
    result = train(data_of(channels=channels), tmp_path / "run", steps=4, batch=8, size=24)
    assert result.steps == 4
    assert math.isfinite(result.test.miou)


def test_images_of_another_range_are_used_as_they_are_and_said(tmp_path, caplog):
    bright = data_of()
    bright.train.scale = 255
    train(bright, tmp_path / "run", size=24)
    assert any("float32 values from" in record.getMessage() for record in caplog.records)


def test_the_range_of_all_images_is_said_not_only_the_firsts(tmp_path, caplog):
    train(data_of(spoil=lambda image, mask: (image * 200, mask)), tmp_path / "run", size=24)
    assert [record for record in caplog.records if "float32 values from" in record.getMessage()]


class LeftOut(Samples):
    """Samples without a pixel of a class."""

    def __getitem__(self, index):
        image, mask = super().__getitem__(index)
        return image, torch.full_like(mask, 255)


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_in_which_every_pixel_is_left_out_is_refused(tmp_path, part):
    with pytest.raises(zoo.errors.DataError, match=rf"mine, {part} split: every pixel of 9 masks is ignored \(255\)"):
        train(replace(data_of(), **{part: LeftOut()}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class LeftOutLater(Samples):
    """Samples that have pixels of classes the first time that they are read."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __getitem__(self, index):
        image, mask = super().__getitem__(index)
        if index in self.seen:
            return image, torch.full_like(mask, 255)
        self.seen.add(index)
        return image, mask


def test_a_result_without_a_pixel_is_never_kept(tmp_path):
    with pytest.raises(zoo.errors.DataError, match="test split: every pixel is ignored"):
        train(replace(data_of(), test=LeftOutLater()), tmp_path / "run")
    assert not (tmp_path / "run/result.json").exists()


@pytest.mark.parametrize(
    "colors",
    [((0, 0, 0),), ("#000000", "#ff0000"), ((0.0, 0, 0), (1.0, 0, 0)), ((0, 0), (1, 1)), ((0, 0, 0), (256, 0, 0)), (0, 1)],
)
def test_colors_that_are_none_are_refused(colors):
    with pytest.raises(zoo.errors.DataError, match="mine: colors must have three integers from 0 to 255 for each of 2 classes"):
        replace(data_of(), colors=colors)


@pytest.mark.parametrize("size", [32, (32,), (32.0, 32.0), (0, 32), "32"])
def test_a_size_that_is_none_is_refused(size):
    with pytest.raises(zoo.errors.DataError, match=r"mine: size must be \(height, width\) of every image, or None"):
        replace(data_of(), size=size)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("a", "a"), "classes: a occurs more than once"),
        (("a", ""), "classes must be names, such as .*found \\('a', ''\\)"),
        ("ab", "classes must be names"),
        ((0, 1), "classes must be names"),
        (("a",), "at least two classes"),
    ],
)
def test_classes_without_names_of_their_own_are_refused(classes, told):
    with pytest.raises(zoo.errors.DataError, match=f"mine: .*{told}"):
        replace(data_of(), classes=classes)


def test_a_sample_that_something_was_computed_with_is_taken_as_it_is():
    data = check_on_read(data_of(spoil=lambda image, mask: (image.requires_grad_(), mask)))
    assert not data.train[LATER][0].requires_grad

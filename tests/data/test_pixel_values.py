"""Which pixel values of a folder become 0 and 1, and by which mean and standard deviation they are normalized."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import yaml

import zoo
from zoo import open_data
from zoo.data.folders.scan import scan_folder
from zoo.data.image_tensors import image_to_tensor
from zoo.data.pixel_statistics import measure_pixels, merge_statistics

COUNTS = {"train": 6, "validation": 2, "test": 2}


def folder_of(folder, draw, counts=None):
    """Make a divided folder; `draw(random, index)` returns the image (H, W, bands) with this index."""
    random = np.random.default_rng(0)
    index = 0
    for part, count in (counts or COUNTS).items():
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        for _ in range(count):
            image = draw(random, index)
            np.save(folder / part / "images" / f"{index}.npy", image)
            mask = np.zeros(image.shape[:2], dtype=np.uint8)
            mask[:, 4:] = 1
            np.save(folder / part / "masks" / f"{index}.npy", mask)
            index += 1
    return folder


def scene(random, index=0, *, low=200, high=1800, dtype=np.uint16, bands=4):
    return random.integers(low, high + 1, (16, 16, bands)).astype(dtype)


def test_pixels_that_fill_little_of_their_dtype_are_scaled_by_the_range_of_the_training_part(tmp_path, command_line):
    data = open_data(folder_of(tmp_path / "scenes", scene))
    ((low, high),) = set(data.value_range)
    assert 200 <= low < 240
    assert 1760 < high <= 1800
    assert len(data.value_range) == 4
    image, _ = data.train[0]
    pixels = np.load(tmp_path / "scenes/train/images/0.npy").astype(np.float64)
    torch.testing.assert_close(image, torch.from_numpy((pixels - low) / (high - low)).float().permute(2, 0, 1))
    (note,) = data.notes
    assert "uint16 values from 200 to 1800" in note
    again = open_data(tmp_path / "scenes", **yaml.safe_load(re.search(r"value_range: \[[^\]]+\]", note)[0]))
    assert again.value_range == data.value_range
    assert again.notes == ()
    status, stdout, _ = command_line("data", "check", tmp_path / "scenes", "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert f"value_range: [{low:g}, {high:g}] become 0 and 1" in " ".join(stdout.split())
    assert "robust high" in stdout


def test_photographs_of_8_bits_are_read_as_ever(tmp_path):
    def draw(random, index):
        return scene(random, low=0, high=255, dtype=np.uint8, bands=3)

    data = open_data(folder_of(tmp_path, draw))
    assert (data.value_range, data.mean, data.std, data.notes) == (None, None, None, ())
    pixels = torch.from_numpy(np.load(tmp_path / "train/images/0.npy"))
    assert torch.equal(data.train[0][0], pixels.permute(2, 0, 1).float() / 255)
    same = open_data(tmp_path, value_range=(0, 255))
    assert torch.equal(same.train[0][0], data.train[0][0])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, bool])
def test_the_range_of_the_dtype_is_the_same_as_none(dtype):
    array = np.random.default_rng(0).integers(0, 2, (5, 7, 2)).astype(dtype)
    ends = (0, 1) if dtype is bool else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    value_range = ((float(ends[0]), float(ends[1])),) * 2
    assert torch.equal(image_to_tensor(array), image_to_tensor(array, value_range=value_range))


def test_one_hot_pixel_and_one_saturated_file_do_not_decide(tmp_path):
    def draw(random, index):
        image = scene(random)
        image[0, 0] = 65535
        return np.full_like(image, 65535) if index == 1 else image

    data = open_data(folder_of(tmp_path, draw))
    assert max(high for _, high in data.value_range) <= 1800
    assert data.train[1][0].max() > 30  # nothing is clamped


def test_bands_of_other_ranges_have_a_range_each(tmp_path):
    def draw(random, index):
        bands = (scene(random, low=low, high=high, bands=1) for low, high in ((0, 100), (1000, 3000)))
        return np.concatenate([*bands], axis=-1)

    data = open_data(folder_of(tmp_path, draw))
    (_, first), (second, third) = data.value_range
    assert first <= 100
    assert second >= 1000
    assert third <= 3000
    assert [round(float(band.max())) for band in data.train[0][0]] == [1, 1]
    assert f"value_range: [[{data.value_range[0][0]:g}, {first:g}], [{second:g}, {third:g}]]" in data.notes[0]


def test_the_test_part_does_not_decide(tmp_path):
    def draw(random, index):
        return scene(random, high=1800 if index < 6 else 9000)

    assert max(high for _, high in open_data(folder_of(tmp_path / "one dtype", draw)).value_range) <= 1800

    def draw_floats(random, index):
        return scene(random, high=1800 if index < 6 else 2500, dtype=np.uint16 if index < 6 else np.float32)

    assert max(high for _, high in open_data(folder_of(tmp_path / "two dtypes", draw_floats)).value_range) <= 1800


@pytest.mark.parametrize(
    ("low", "high", "is_measured"),
    [(0.0, 1.0, False), (0.0, 0.1, True), (-1.0, 1.0, True), (0.0, 255.0, True), (270.0, 310.0, True), (1e8, 1e8 + 64, True)],
)
def test_floats_outside_0_to_1_or_in_little_of_it_are_measured(tmp_path, low, high, is_measured):
    def draw(random, index):
        return random.uniform(low, high, (16, 16, 3)).astype(np.float32)

    data = open_data(folder_of(tmp_path, draw))
    assert (data.value_range is not None) == is_measured
    image, _ = data.train[0]
    assert -0.2 < image.min() < 0.2
    assert 0.8 < image.max() < 1.2


def test_a_few_floats_beyond_1_are_noted_and_change_nothing(tmp_path):
    def draw(random, index):
        image = random.uniform(0, 1, (16, 16, 3)).astype(np.float32)
        image[0, 0] = 1.5
        return image

    data = open_data(folder_of(tmp_path, draw))
    assert data.value_range is None
    assert "from" in data.notes[0]
    assert "1.5, which are not scaled" in data.notes[0]


@pytest.mark.parametrize("value", [0, 1000])
def test_a_constant_band_is_noted_and_divides_by_nothing(tmp_path, value):
    def draw(random, index):
        image = scene(random)
        image[..., 2] = value
        return image

    data = open_data(folder_of(tmp_path, draw))
    assert all(low < high for low, high in data.value_range)
    assert f"band 3 has the value {value} in every pixel" in data.notes[1]
    with pytest.raises(zoo.errors.DataError, match=r"the same value in band 3, so std would be 0. Leave the band"):
        open_data(tmp_path, mean="auto", std="auto")


def test_images_of_one_value_keep_the_range_of_their_dtype(tmp_path):
    data = open_data(folder_of(tmp_path, lambda random, index: np.full((8, 8, 1), 300, dtype=np.uint16)))
    assert data.value_range is None
    assert "no range can be measured. Set value_range" in data.notes[0]


def test_a_band_that_is_almost_everywhere_0_is_scaled_by_its_extremes(tmp_path):
    def draw(random, index):
        image = np.zeros((40, 40, 1), dtype=np.uint16)
        image[3, 3] = 700 + index
        return image

    assert open_data(folder_of(tmp_path, draw)).value_range == ((0.0, 705.0),)


def test_dark_bands_beside_a_bright_one_are_noted(tmp_path):
    def draw(random, index):
        image = scene(random)
        image[..., 3] = random.integers(0, 65536, (16, 16))
        return image

    data = open_data(folder_of(tmp_path, draw))
    assert data.value_range is None
    assert "most of that range is empty in band 1, 2, 3. If this is not intended, set value_range" in data.notes[0]


def test_several_dtypes_of_one_unit_share_a_measured_range(tmp_path):
    def draw(random, index):
        return scene(random, dtype=np.uint16 if index % 2 else np.float32)

    data = open_data(folder_of(tmp_path, draw))
    ((low, high),) = set(data.value_range)
    assert low < 250
    assert high > 1750
    assert 0.9 < data.train[0][0].max() < 1.1
    assert 0.9 < data.train[1][0].max() < 1.1


def test_several_dtypes_without_a_common_unit_are_refused(tmp_path):
    def draw(random, index):
        return scene(random) if index % 2 else scene(random, low=0, high=255, dtype=np.uint8)

    folder_of(tmp_path, draw)
    with pytest.raises(zoo.errors.DataError, match=r"no common unit: uint8 from \d+ to 25\d, uint16 from 2\d\d to 1\d\d\d"):
        open_data(tmp_path)
    assert open_data(tmp_path, value_range=[0, 1800]).value_range == ((0.0, 1800.0),) * 4


def test_several_dtypes_that_fill_their_ranges_are_scaled_by_their_own(tmp_path):
    def draw(random, index):
        image = random.integers(0, 256, (16, 16, 3))
        return (image * 257).astype(np.uint16) if index % 2 else image.astype(np.uint8)

    data = open_data(folder_of(tmp_path, draw), mean="auto", std="auto")
    assert data.value_range is None
    assert "each scaled by the range of its own dtype" in data.notes[0]
    samples = torch.stack([image for image, _ in data.train]).double()
    np.testing.assert_allclose(data.mean, samples.mean(dim=(0, 2, 3)), rtol=1e-6)
    with pytest.raises(zoo.errors.DataError, match=r"mean and std have no common unit. Set value_range"):
        open_data(tmp_path, mean=[1, 2, 3], std=[1, 2, 3])


def test_mean_and_std_are_those_of_all_training_pixels(tmp_path):
    def draw(random, index):
        rows = 16 + 8 * index  # larger files count for more
        return (random.integers(200, 1800, (rows, 16, 2)) + 100 * index).astype(np.uint16)

    data = open_data(folder_of(tmp_path, draw), mean="auto", std="auto")
    ((low, high),) = set(data.value_range)
    pixels = np.concatenate([np.load(path).reshape(-1, 2) for path in (tmp_path / "train/images").iterdir()]).astype(float)
    np.testing.assert_allclose(data.mean, (pixels.mean(0) - low) / (high - low), rtol=1e-12)
    np.testing.assert_allclose(data.std, pixels.std(0) / (high - low), rtol=1e-12)
    assert data.preprocessing == zoo.Preprocessing(mean=data.mean, std=data.std)
    pasted = yaml.safe_load("{" + re.search(r"mean: .*", data.notes[-1])[0] + "}")
    again = open_data(tmp_path, **pasted)
    np.testing.assert_allclose(again.mean, data.mean, rtol=1e-4)
    np.testing.assert_allclose(again.std, data.std, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"value_range": [5, 5]}, "value_range: .*in which high is greater, .*found \\[5, 5\\]"),
        ({"value_range": [0, 1, 2]}, "value_range: "),
        ({"value_range": [0, float("inf")]}, "value_range"),
        ({"value_range": "dtype"}, "value_range.*auto"),
        ({"value_range": [[0, 1], [0, 1]]}, "value_range has 2 pairs, but the images have 4 bands"),
        ({"mean": "auto"}, "mean is set, but std is not"),
        ({"std": [1, 1, 1, 1]}, "std is set, but mean is not"),
        ({"mean": "auto", "std": [1, 1, 1, 1]}, 'must both be "auto", or both be lists'),
        ({"mean": [1, 1], "std": [1, 1]}, "mean has 2 numbers, but the images have 4 bands"),
        ({"mean": [1, 1, 1, 1], "std": [1, 1, 1]}, "std has 3 numbers, but the images have 4 bands"),
        ({"mean": [1, 1, 1, 1], "std": [1, 1, 0, 1]}, "std: .*numbers above 0"),
        ({"mean": [1, 1, 1, 1], "std": [1, 1, -2, 1]}, "std: .*numbers above 0"),
        ({"mean": [1, 1, 1, 1], "std": [1e-300] * 4}, "mean and std must be in the units of the pixels"),
    ],
)
def test_options_that_cannot_be_are_refused(tmp_path, options, told):
    folder_of(tmp_path, scene)
    with pytest.raises(zoo.errors.ZooError, match=f"(?s){told}"):
        open_data(tmp_path, **options)


@pytest.mark.parametrize("value_range", [[0, 1], [0, 65535], [5000, 9000]])
def test_a_given_range_that_the_pixels_do_not_fill_is_noted(tmp_path, value_range):
    data = open_data(folder_of(tmp_path, scene), value_range=value_range)
    assert "scales the pixels of the training split" in data.notes[0]
    assert data.value_range == (tuple(map(float, value_range)),) * 4


def test_another_range_of_opened_files_is_refused(tmp_path):
    from dataclasses import replace

    data = open_data(folder_of(tmp_path, scene))
    with pytest.raises(
        zoo.errors.DataError, match=r"its files are scaled by the value_range .* Set value_range in zoo.open_data"
    ):
        replace(data, value_range=((0.0, 100.0),) * 4)
    assert replace(data, notes=()).value_range == data.value_range


def test_the_range_is_part_of_what_identifies_the_data(tmp_path):
    folder_of(tmp_path, scene)
    measured, given = open_data(tmp_path), open_data(tmp_path, value_range=[0, 4095])
    assert measured.fingerprint.differences(given.fingerprint) == "value_range differs"
    normalized = open_data(tmp_path, value_range=[0, 4095], mean="auto", std="auto")
    assert given.fingerprint.differences(normalized.fingerprint) == "mean differs, std differs"
    assert (
        "value_range"
        not in open_data(
            folder_of(tmp_path / "8 bits", lambda random, index: random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        ).fingerprint.reading
    )


def test_scans_of_an_earlier_version_are_read_again(tmp_path):
    folder_of(tmp_path, scene)
    scans = json.loads(json.dumps(scan_folder(tmp_path).scans))
    older = json.loads(json.dumps(scans))
    for scan in older.values():
        del scan["facts"]["bands"]
        scan["facts"] |= {"low": 200.0, "high": 1800.0}
    assert json.loads(json.dumps(scan_folder(tmp_path, earlier_scans=older).scans)) == scans


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (37, 53, 2), (700, 900, 1), (3, 40000, 2)])
def test_statistics_are_those_of_numpy(shape, dtype):
    array = (np.random.default_rng(0).random(shape) * 200).astype(dtype)
    for index, band in enumerate(measure_pixels(array)):
        pixels = array[..., index].astype(np.float64)
        assert (band.count, band.minimum, band.maximum) == (pixels.size, pixels.min(), pixels.max())
        assert band.mean == pytest.approx(pixels.mean(), rel=1e-12)
        assert band.std == pytest.approx(pixels.std(), rel=1e-9, abs=1e-12)
        assert band.low == pytest.approx(np.percentile(pixels, 0.5), abs=2)
        assert band.high == pytest.approx(np.percentile(pixels, 99.5), abs=2)


def test_statistics_of_files_are_merged_exactly():
    array = 1e6 + np.random.default_rng(0).random((60, 20, 2))
    merged = merge_statistics([measure_pixels(array[:7]), measure_pixels(array[7:20]), measure_pixels(array[20:])])
    for one, whole in zip(merged, measure_pixels(array), strict=True):
        assert (one.count, one.minimum, one.maximum) == (whole.count, whole.minimum, whole.maximum)
        assert one.mean == pytest.approx(whole.mean, rel=1e-14)
        assert one.std == pytest.approx(whole.std, rel=1e-9)

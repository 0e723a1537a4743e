"""Which pixels an image's file gives, whatever it is compressed by, turned or named."""

from __future__ import annotations

import gc
import re
import sys
import time
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import zoo
from zoo import open_data
from zoo.data.folders.scan import scan_folder
from zoo.data.formats.files import SUFFIXES, image_to_array, read_array
from zoo.data.masks.masks import read_mask

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (12, 16, 3), dtype=np.uint8)
MASK = np.arange(192, dtype=np.uint8).reshape(12, 16) % 2


def write_geotiff(path, bands, **options):
    rasterio = pytest.importorskip("rasterio")
    pytest.importorskip("tifffile")
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **options
        ) as file:
            file.write(bands)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("compress", ["LZW", "ZSTD", "LERC", "DEFLATE"])
def test_a_compressed_geotiff_gives_all_its_bands(tmp_path, compress, dtype, count, interleave):
    bands = (RANDOM.random((count, 40, 50)) * 200).astype(dtype)
    predictor = {"predictor": 3 if dtype == "float32" else 2} if compress != "LERC" else {}
    write_geotiff(tmp_path / "a.tif", bands, compress=compress, interleave=interleave, **predictor)
    found = read_array(tmp_path / "a.tif")
    assert found.dtype == dtype
    assert np.array_equal(found, bands[0] if count == 1 else np.moveaxis(bands, 0, -1))


def test_a_palette_that_a_tiff_has_in_8_bits_is_not_black(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    colors = RANDOM.integers(0, 256, (3, 256)).astype(np.uint16)
    for scale in (1, 257):
        tifffile.imwrite(tmp_path / "a.tif", PIXELS[..., 0], photometric="palette", colormap=colors * np.uint16(scale))
        assert np.array_equal(read_array(tmp_path / "a.tif"), colors.T[PIXELS[..., 0]])


def test_no_data_of_a_compressed_geotiff_is_0(tmp_path):
    bands = RANDOM.random((2, 20, 30), dtype=np.float32)
    bands[0, :5] = np.nan
    write_geotiff(tmp_path / "a.tif", bands, compress="LZW", nodata=np.nan)
    assert np.array_equal(read_array(tmp_path / "a.tif"), np.moveaxis(np.nan_to_num(bands), 0, -1))


EARLIER_PILLOW = "is not an image that Pillow can read"
"""What Pillow before 12.1 makes of several bands of 16 bits, where later versions read the first one."""


def test_without_rasterio_a_geotiff_of_which_pillow_reads_one_band_is_refused(tmp_path, monkeypatch):
    write_geotiff(tmp_path / "a.tif", RANDOM.integers(0, 9, (4, 20, 30)).astype(np.uint16), compress="LZW", interleave="band")
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(
        zoo.errors.DataError,
        match=rf"(4 bands of uint16.*Pillow reads 1 band of uint16\. |{EARLIER_PILLOW}).*install 'segmentation-zoo\[geo\]'",
    ):
        read_array(tmp_path / "a.tif")
    with pytest.raises(zoo.errors.DataError, match=f"Pillow reads 1|{EARLIER_PILLOW}"):
        read_mask(tmp_path / "a.tif")


def test_a_broken_geotiff_is_named(tmp_path):
    write_geotiff(tmp_path / "a.tif", RANDOM.integers(0, 9000, (4, 40, 50)).astype(np.uint16), compress="LZW")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[:-2000] + b"\xff" * 2000)
    with pytest.raises(zoo.errors.DataError, match=r"a\.tif is broken"):
        read_array(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"), [(".jpg", {}), (".png", {}), (".tif", {"compression": "tiff_lzw"}), (".tif", {})]
)
def test_an_image_is_turned_as_its_exif_says(tmp_path, suffix, options, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(PIXELS).save(path, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert np.array_equal(read_array(path), expected)
    with Image.open(path) as image:
        assert np.array_equal(image_to_array(image), expected)
    if suffix != ".jpg":
        assert np.array_equal(read_mask(path).pixels, expected)


def test_turned_images_are_said_since_their_masks_must_be_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    write(tmp_path, ("a.jpg", "b.jpg"), ("a.png", "b.png"))
    assert scan_folder(tmp_path).notes == ()
    Image.fromarray(PIXELS).save(tmp_path / "train" / "images" / "a.jpg", exif=exif)
    (note,) = scan_folder(tmp_path).notes
    assert "EXIF orientation rotates or mirrors 1 image;" in note
    exif[274] = 6
    Image.fromarray(PIXELS).save(tmp_path / "train" / "images" / "a.jpg", exif=exif)
    assert "the mask is 12x16, but its image is 16x12" in scan_folder(tmp_path).problems[0]


def test_turned_masks_are_said_where_their_images_are_not_turned(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    write(tmp_path)
    for kind, notes in (
        ("masks", ["EXIF orientation rotates or mirrors 1 mask, but not the corresponding images"]),
        ("images", []),
    ):
        path = tmp_path / "train" / kind / "a.png"
        Image.open(path).save(path, exif=exif)
        assert [note for note in scan_folder(tmp_path).notes if "mirrors 1 mask" in note] == notes


def write(folder, images=("a.png", "b.png"), masks=None):
    for part in ("train", "validation", "test"):
        for kind, names, pixels in (("images", images, PIXELS), ("masks", masks or images, MASK)):
            (folder / part / kind).mkdir(parents=True)
            for name in names:
                Image.fromarray(pixels).save(folder / part / kind / name)
    return folder


def test_companions_of_macos_are_not_images(tmp_path):
    write(tmp_path)
    for path in (tmp_path / "train" / "images" / "._a.png", tmp_path / "train" / "masks" / "._a.png"):
        path.write_bytes(b"\0\5\26\7\0\2\0\0Mac OS X")
    assert len(open_data(tmp_path).train) == 2


def test_names_meet_however_unicode_writes_them(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "Zürich.png") for form in ("NFC", "NFD"))
    assert composed != decomposed
    data = open_data(write(tmp_path, (composed,), (decomposed,)))
    assert len(data.train) == 1


def test_an_undivided_folder_is_divided_alike_however_unicode_writes_names(tmp_path):
    names = [f"ü{number}.png" for number in range(20)]
    parts = []
    for form in ("NFC", "NFD"):
        for kind, pixels in (("images", PIXELS), ("masks", MASK)):
            (tmp_path / form / kind).mkdir(parents=True)
            for name in names:
                Image.fromarray(pixels).save(tmp_path / form / kind / unicodedata.normalize(form, name))
        pairs = open_data(tmp_path / form, validation=0.3, test=0.3).test.pairs
        parts.append({unicodedata.normalize("NFC", pair.image.name) for pair in pairs})
    assert parts[0] == parts[1]


def test_jpeg_2000_is_an_image(tmp_path):
    assert {".jp2", ".j2k"} <= SUFFIXES
    data = open_data(write(tmp_path, ("a.jp2",), ("a.png",)))
    assert torch.equal((data.train[0][0] * 255).round().byte(), torch.from_numpy(PIXELS).permute(2, 0, 1))


def test_files_that_are_left_out_are_said(tmp_path, command_line):
    write(tmp_path)
    (tmp_path / "train" / "images" / "c.heic").write_bytes(b"")
    (tmp_path / "train" / "images" / "more").mkdir()
    (note,) = scan_folder(tmp_path).notes
    assert note.endswith("skipped, since these are folders or do not have the suffix of an image: c.heic, more")
    status, stdout, _ = command_line("data", "check", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert "c.heic" in stdout


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (RANDOM.integers(0, 4096, (12, 16, 3)).astype(np.uint16), r"uint16 values from \d+ to 4\d\d\d, .*0 to 65535.*is empty"),
        (RANDOM.integers(0, 10000, (12, 16, 3)).astype(np.int16), r"int16 values .*most .*\(-32768 to 32767\) is empty"),
        (PIXELS.astype(np.int64), "int64 values .*is empty"),
        ((PIXELS // 2).astype(np.int8), r"int8 values .*half of the range of the dtype \(-128 to 127\) is empty"),
        (PIXELS // 200, "uint8 values .*is empty"),
        (PIXELS.astype(np.float32), "float32 values from 0 to 25., but pretrained weights expect 0 to 1"),
        (PIXELS.astype(np.float32) / 255 - 0.5, "float32 values from -0.5 .*expect 0 to 1"),
        (PIXELS.astype(np.float32) / 255 / 1000, "float32 .*most of 0 to 1 is empty"),
        (PIXELS.astype(np.uint16) * 257, None),
        (PIXELS.astype(np.float32) / 255, None),
        (PIXELS, None),
    ],
)
def test_values_that_fill_little_of_their_range_are_said(tmp_path, array, told, command_line):
    write(tmp_path)
    for path in tmp_path.rglob("images/*.png"):
        np.save(path.with_suffix(".npy"), array)
        path.unlink()
    notes = open_data(tmp_path).notes
    if told is None:
        assert notes == ()
    else:
        (note,) = notes
        assert re.search(told, note)
    status, stdout, stderr = command_line("data", "check", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert status == 0, stderr
    assert ("Note: images have" in stdout) == (told is not None)


def test_an_image_that_float32_cannot_hold_is_refused_alone(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "train/images/a.npy", np.full((12, 16, 3), 1e300))
    (tmp_path / "train/images/a.png").unlink()
    with pytest.raises(zoo.errors.DataError, match=r"a\.npy: the image has values that are not finite"):
        open_data(tmp_path)


def test_images_of_several_types_are_said(tmp_path):
    write(tmp_path)
    np.save(tmp_path / "train" / "images" / "a.npy", PIXELS.astype(np.uint16) * 257)
    (tmp_path / "train" / "images" / "a.png").unlink()
    (note,) = open_data(tmp_path).notes
    assert "different dtypes" in note


@pytest.fixture
def switching_threads():
    """Collect garbage after each allocation, and let another thread run meanwhile, as on a busy machine."""

    def let_others_run(*_):
        time.sleep(0)

    threshold = gc.get_threshold()
    gc.callbacks.append(let_others_run)
    gc.set_threshold(1)
    yield
    gc.set_threshold(*threshold)
    gc.callbacks.remove(let_others_run)


@pytest.mark.usefixtures("switching_threads")
def test_several_threads_read_numpy_files_at_the_same_time(tmp_path):
    """In Python 3.11, `ast`, which NumPy parses headers with, may raise a SystemError if several threads use it at once."""
    path = tmp_path / "a.npy"
    np.save(path, PIXELS)
    with ThreadPoolExecutor(8) as threads:
        shapes = threads.map(lambda _: {read_array(path).shape for _ in range(200)}, range(8))
        assert set.union(*shapes) == {PIXELS.shape}

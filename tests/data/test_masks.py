"""What masks' values stand for: right, or refused with the values that were found."""

from __future__ import annotations

import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

import zoo
from zoo import open_data
from zoo.data.folders.scan import scan_folder
from zoo.data.masks.masks import read_mask

SIZE = (12, 16)
NEEDS_AVIF = pytest.mark.skipif("avif" not in features.get_supported(), reason="the installed Pillow has no AVIF")


def drawn(values):
    """Return a mask in which each value has a stripe."""
    mask = np.zeros(SIZE, dtype=np.int64)
    for number, value in enumerate(values):
        mask[:, number * SIZE[1] // len(values) :] = value
    return mask


def write(folder, save):
    """Make a divided folder of two pairs a part; `save` writes a mask, whose path has no suffix yet."""
    for part in ("train", "validation", "test"):
        for kind in ("images", "masks"):
            (folder / part / kind).mkdir(parents=True)
        for name in ("a", "b"):
            pixels = np.random.default_rng(len(name)).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / part / "images" / f"{name}.png")
            save(folder / part / "masks" / name)
    return folder


def of_values(folder, *values, suffix=".png", dtype=np.uint8):
    def save(path):
        Image.fromarray(drawn(values).astype(dtype)).save(
            path.with_suffix(suffix), **({"quality": 60} if "j" in suffix else {})
        )

    return write(folder, save)


def of_array(folder, mask):
    return write(folder, lambda path: np.save(path.with_suffix(".npy"), mask))


def indexes(data):
    return sorted(data.train[0][1].unique().tolist())


@pytest.mark.parametrize("foreground", [1, 128, 255])
@pytest.mark.parametrize("classes", [[], ["background", "nucleus"]])
def test_two_values_are_two_classes_with_names_and_without(tmp_path, classes, foreground):
    data = open_data(of_values(tmp_path, 0, foreground), classes=classes)
    expected = torch.from_numpy((drawn([0, foreground]) > 0).astype(np.int64))
    assert torch.equal(data.train[0][1], expected)


@pytest.mark.parametrize("values", [(0, 128, 255), (0, 100, 200), (1, 2), (0, 1, 3), (5, 255), (0, 7, 9, 255), (0,), (255,)])
def test_values_that_are_not_0_1_2_are_refused_with_what_was_found(tmp_path, values):
    listed = ", ".join(map(str, values))
    with pytest.raises(zoo.errors.DataError, match=f"ambiguous.*Found: {listed}. Set `values`"):
        open_data(of_values(tmp_path, *values))
    if len(values) > 2:
        assert indexes(open_data(tmp_path, values=values)) == list(range(len(values)))


@pytest.mark.parametrize(("values", "count", "strange"), [((0, 128, 255), 3, 128), ((0, 1, 3), 3, 3), ((0, 100, 200), 2, 100)])
def test_names_do_not_make_a_value_a_class(tmp_path, values, count, strange):
    listed = ", ".join(map(str, values))
    with pytest.raises(
        zoo.errors.DataError, match=rf"no class \({strange}: \d+ pixels.*; first in .*\. The values in the masks are {listed}"
    ):
        open_data(of_values(tmp_path, *values), classes=["a", "b", "c"][:count])


def test_255_is_not_left_out_where_it_may_be_the_last_class(tmp_path):
    of_values(tmp_path, 0, 1, 255)
    with pytest.raises(zoo.errors.DataError, match=r"255 may be a class or ignored\. Found: 0, 1, 255"):
        open_data(tmp_path, classes=["a", "b", "c"])
    assert indexes(open_data(tmp_path, classes=["a", "b", "c"], values=[0, 1, 255])) == [0, 1, 2]
    assert indexes(open_data(tmp_path, classes=["a", "b", "c"], ignored=[255])) == [0, 1, 255]
    assert indexes(open_data(tmp_path, classes=["a", "b"])) == [0, 1, 255]


def test_a_mask_without_a_second_class_is_refused(tmp_path):
    with pytest.raises(zoo.errors.DataError, match=r"Of 3 classes, the masks have only 0\. Found: 0, 255"):
        open_data(of_values(tmp_path, 0, 255), classes=["a", "b", "c"])


def test_a_value_is_not_both_a_class_and_ignored(tmp_path):
    of_values(tmp_path, 0, 1, 2)
    with pytest.raises(zoo.errors.DataError, match="0 is also the value of a class"):
        open_data(tmp_path, ignored=[0])
    with pytest.raises(zoo.errors.DataError, match="2 is also the value of a class"):
        open_data(tmp_path, values=[0, 1, 2], ignored=[2])
    assert indexes(open_data(tmp_path, values=[1, 2], ignored=[0])) == [0, 1, 255]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"classes": ["nucleus"]}, "At least two classes are required, including the background; found 1"),
        ({"values": [1], "ignored": [0, 2]}, "At least two classes are required"),
        ({"classes": ["a", "a", "b"]}, "classes: a occurs more than once"),
        ({"classes": ["a", "b", "c"], "values": [0, 1]}, "values must have 3 entries, one for each class; found 2"),
        ({"values": [0, 1, 2], "colors": [(0, 0, 0)]}, "Set only one of them"),
        ({"values": [0, 1, 1]}, "two classes have the same value"),
    ],
)
def test_options_that_contradict_each_other_are_refused(tmp_path, options, told):
    with pytest.raises(zoo.errors.DataError, match=told):
        open_data(of_values(tmp_path, 0, 1, 2), **options)


@pytest.mark.parametrize("values", [(0, 255), (0, 1, 2)])
def test_masks_as_jpeg_are_refused_with_the_values_that_jpeg_made(tmp_path, values):
    def save(path):
        noisy = np.random.default_rng(0).choice(np.array(values, dtype=np.uint8), SIZE)
        Image.fromarray(noisy).save(path.with_suffix(".jpg"), quality=60)

    with pytest.raises(zoo.errors.DataError, match=r"a\.jpg: JPEG changes the values of masks; this mask contains \d.*as PNG"):
        open_data(write(tmp_path, save), values=values)


def saved(options, suffix, mode="L"):
    """Return what saves masks of 0, 128 and 255 in a format."""
    noisy = np.random.default_rng(0).choice(np.array([0, 128, 255], dtype=np.uint8), (64, 64))
    return lambda path: Image.fromarray(noisy).convert(mode).save(path.with_suffix(suffix), **options)


def with_images_of(folder, side):
    for path in folder.glob("*/images/*"):
        Image.fromarray(np.zeros((side, side, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize(
    ("options", "suffix", "told"),
    [
        ({"quality": 90}, ".webp", "lossy WebP"),
        ({"quality": 90, "icc_profile": b"x" * 9999}, ".webp", "lossy WebP"),
        ({"irreversible": True}, ".jp2", "JPEG 2000"),
        ({"irreversible": True, "no_jp2": True}, ".j2k", "JPEG 2000"),
        pytest.param({"format": "AVIF"}, ".png", "AVIF", marks=NEEDS_AVIF),
        ({"compression": "jpeg"}, ".tif", "JPEG"),
        ({"compression": "jpeg", "format": "TIFF"}, ".png", "jpeg"),
    ],
)
def test_masks_whose_files_say_that_they_are_lossy_are_refused(tmp_path, options, suffix, told):
    write(tmp_path, saved(options, suffix, "RGB" if suffix == ".webp" else "L"))
    with pytest.raises(zoo.errors.DataError, match=rf"a{suffix}: {told} changes the values of masks; this mask .*as PNG"):
        open_data(with_images_of(tmp_path, 64), values=[0, 128, 255])


LOSSLESS = [({"lossless": True}, ".webp"), ({"lossless": True, "icc_profile": b"x" * 999}, ".webp"), ({}, ".png"), ({}, ".tif")]


@pytest.mark.parametrize(("options", "suffix"), LOSSLESS)
def test_masks_in_formats_that_may_be_lossy_are_read_where_they_are_not(tmp_path, options, suffix):
    mode = "RGB" if suffix == ".webp" else "L"
    of_three = {"colors": [[each] * 3 for each in (0, 128, 255)]} if mode == "RGB" else {"values": [0, 128, 255]}
    data = open_data(with_images_of(write(tmp_path, saved(options, suffix, mode)), 64), **of_three)
    assert indexes(data) == [0, 1, 2]
    assert not any("compressed" in note for note in data.notes)


def test_masks_that_may_be_lossy_are_said_and_their_values_decide(tmp_path):
    write(tmp_path / "exact", saved({}, ".jp2"))
    data = open_data(with_images_of(tmp_path / "exact", 64), values=[0, 128, 255])
    assert indexes(data) == [0, 1, 2]
    assert any("the compression of 6 masks (JPEG 2000) can change values" in note for note in data.notes)
    write(tmp_path / "lossy", saved({"quality_layers": [20]}, ".jp2"))
    with pytest.raises(zoo.errors.DataError, match=r"no class(.|\n)*the compression of 6 masks \(JPEG 2000\)"):
        open_data(with_images_of(tmp_path / "lossy", 64), values=[0, 128, 255])


@pytest.mark.parametrize("compress", ["LERC", "LERC_DEFLATE", "LERC_ZSTD", "WEBP"])
@pytest.mark.parametrize("is_lossy", [True, False])
def test_geotiffs_as_masks_are_refused_where_their_compression_lost_something(tmp_path, compress, is_lossy):
    rasterio = pytest.importorskip("rasterio")
    exact = {"WEBP_LOSSLESS": not is_lossy} if compress == "WEBP" else {"MAX_Z_ERROR": 3 if is_lossy else 0}
    count = 3 if compress == "WEBP" else 1
    noisy = np.random.default_rng(0).choice(np.array([0, 128, 255], dtype=np.uint8), (64, 64))

    def save(path):
        shape = {"height": 64, "width": 64, "count": count, "dtype": "uint8", "transform": rasterio.Affine.scale(2)}
        with rasterio.open(path.with_suffix(".tif"), "w", driver="GTiff", compress=compress, **shape, **exact) as file:
            file.write(np.stack([noisy] * count))

    with_images_of(write(tmp_path, save), 64)
    options = {"colors": [[each] * 3 for each in (0, 128, 255)]} if compress == "WEBP" else {"values": [0, 128, 255]}
    if is_lossy:
        with pytest.raises(
            zoo.errors.DataError, match=r"a\.tif: (lossy WebP|LERC with an error of up to 3) changes the values of masks"
        ):
            open_data(tmp_path, **options)
    else:
        assert indexes(open_data(tmp_path, **options)) == [0, 1, 2]


RED, GREEN, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 0), (255, 255, 255)


def of_palettes(folder, first, second, suffix=".png"):
    """Make a folder whose masks `a` and `b` have these palettes: an image of the palette's mode, or of plain numbers (None)."""

    def save(path):
        palette, numbers = first if path.name == "a" else second
        image = Image.fromarray(drawn(numbers).astype(np.uint8))
        if palette is not None:
            image.putpalette([part for color in palette for part in color])
        image.save(path.with_suffix(suffix))

    return write(folder, save)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        (([BLACK, RED], [0, 1]), ([BLACK, GREEN], [0, 1]), r"1 is \(255, 0, 0\) in .+a\.\w+, but \(0, 255, 0\) in .+b\."),
        (([BLACK, RED, GREEN], [0, 1, 2]), ([BLACK, GREEN, RED], [0, 1, 2]), "1 is"),
        (([BLACK, RED], [0, 1]), ([BLACK, GREEN, RED], [0, 2]), r"\(255, 0, 0\) is 1 in .+a\.\w+, but 2 in .+b\."),
        (([BLACK, WHITE], [0, 1]), ([WHITE, BLACK], [0, 1]), "0 is"),
        (([BLACK, WHITE], [0, 1]), (None, [0, 255]), r"\(255, 255, 255\) is 1 in"),
    ],
)
def test_masks_whose_palettes_differ_are_refused_with_two_files(tmp_path, suffix, first, second, told):
    of_palettes(tmp_path, first, second, suffix)
    with pytest.raises(zoo.errors.DataError, match=f"Masks disagree on colors: {told}.*set `colors`"):
        open_data(tmp_path)
    with pytest.raises(zoo.errors.DataError, match="Masks disagree on colors"):
        open_data(tmp_path, classes=["a", "b", "c"], values=[0, 1, 2])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        (([BLACK, RED, GREEN], [0, 1]), ([BLACK, RED, WHITE], [0, 1])),  # only what no pixel has differs
        (([BLACK, RED, GREEN], [0, 2]), ([BLACK, RED, GREEN], [0, 1])),
        (([BLACK, RED], [0, 1]), (None, [0, 1])),
        (([BLACK, BLACK, BLACK], [0, 1]), ([BLACK, BLACK, BLACK], [0, 2])),  # tells nothing
        (([BLACK, RED, GREEN, BLACK], [0, 1, 2]), ([BLACK, RED, GREEN, BLACK], [1, 2, 3])),  # nor does one palette for all
        (([RED, GREEN, BLACK], [0, 1, 2]), (None, [0, 1])),  # a plain 0 is not what is shown in black
    ],
)
def test_indexes_of_palettes_are_classes_where_their_colors_agree(tmp_path, suffix, first, second):
    data = open_data(of_palettes(tmp_path, first, second, suffix))
    for (_, mask), (_, numbers) in zip(data.train, (first, second), strict=False):
        assert torch.equal(mask, torch.from_numpy(drawn(numbers)))


def test_a_number_beyond_a_short_palette_has_no_color(tmp_path):
    palette = [BLACK, RED, *((gray,) * 3 for gray in range(1, 18))]  # of up to 16 Pillow writes fewer bits a number
    data = open_data(of_palettes(tmp_path, (palette, [0, 1, 255]), (palette, [1, 255])))
    assert indexes(data) == [0, 1, 255]
    with pytest.raises(zoo.errors.DataError, match="255"):
        open_data(tmp_path, colors=[BLACK, RED])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_given_colors_are_read_whatever_their_indexes_are(tmp_path, suffix):
    of_palettes(tmp_path, ([BLACK, RED, GREEN], [0, 1, 2]), ([GREEN, BLACK, RED], [0, 1, 2]), suffix)
    data = open_data(tmp_path, colors=[BLACK, RED, GREEN])
    assert torch.equal(data.train[0][1], torch.from_numpy(drawn([0, 1, 2])))
    assert torch.equal(data.train[1][1], torch.from_numpy(drawn([2, 0, 1])))
    assert indexes(open_data(tmp_path, colors=[BLACK, RED], ignored=[GREEN])) == [0, 1, 255]
    with pytest.raises(zoo.errors.DataError, match=r"no class \(\(0, 255, 0\): 396 pixels"):
        open_data(tmp_path, colors=[BLACK, RED])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_png_of_few_bits_has_its_own_numbers(tmp_path, bits):
    values = range(min(2**bits, 4))
    data = open_data(write(tmp_path, lambda path: path.with_suffix(".png").write_bytes(png_of(drawn(values), bits))))
    assert torch.equal(data.train[0][1], torch.from_numpy(drawn(values)))


def png_of(mask, bits):
    """Return a gray PNG with so many bits a number, which Pillow cannot write."""
    height, width = mask.shape
    shifts = np.arange(bits - 1, -1, -1)
    rows = np.packbits((mask[..., None] >> shifts & 1).reshape(height, -1).astype(np.uint8), axis=1)
    pixels = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )


@pytest.mark.parametrize("compress", ["NONE", "CCITTFAX4"])
def test_masks_in_which_0_is_white_have_the_numbers_of_their_files_whatever_reads_them(tmp_path, compress, monkeypatch):
    rasterio = pytest.importorskip("rasterio")
    shape = {"height": SIZE[0], "width": SIZE[1], "count": 1, "dtype": "uint8", "transform": rasterio.Affine.scale(2)}

    def save(path, **options):
        with rasterio.open(
            path.with_suffix(".tif"), "w", driver="GTiff", nbits=1, compress=compress, **(shape | options)
        ) as file:
            file.write(drawn([0, 1, 0]).astype(np.uint8), 1)

    write(tmp_path, lambda path: save(path, photometric="MINISWHITE"))
    save(tmp_path / "test/masks/a")  # of which 0 is black
    for module in ("none", "rasterio"):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(zoo.errors.DataError, match="Masks disagree on colors: 0 is"):
            open_data(tmp_path)
        assert np.array_equal(read_mask(tmp_path / "train/masks/a.tif").pixels, drawn([0, 1, 0]))


def test_a_mask_with_smooth_edges_is_refused(tmp_path):
    smooth = np.arange(256, dtype=np.uint8)[:192].reshape(SIZE)
    with pytest.raises(zoo.errors.DataError, match=r"ambiguous.*0, 1, 2, .*191 \(192 values\)"):
        open_data(write(tmp_path, lambda path: Image.fromarray(smooth).save(path.with_suffix(".png"))))


def test_a_named_class_without_a_pixel_is_said(tmp_path, command_line):
    of_values(tmp_path, 0, 1)
    data = open_data(tmp_path, classes=["road", "car", "tram"])
    assert "classes without a pixel in all masks: tram (2)" in data.notes
    (tmp_path / "run.yaml").write_text(
        "encoder: resnet18\ndecoder: unet-basic\ndata: {source: ., classes: [road, car, tram]}\n", encoding="utf-8"
    )
    status, stdout, _ = command_line("data", "check", tmp_path / "run.yaml", "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert "classes without a pixel in all masks: tram (2)" in stdout


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Lightning's own, on import
def test_training_says_how_it_reads_unusual_masks(tmp_path, command_line, caplog):
    of_values(tmp_path / "cells", 0, 255)
    pairing = ("timm:mobilenetv3_small_050", "unet-basic")
    settings = {"steps": 1, "batch": 2, "validations": 0, "size": 32}
    options = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    data = f"data={{source: {tmp_path / 'cells'}, classes: [background, nucleus]}}"
    status, stdout, stderr = command_line("train", *pairing, *options, "--set", data, "--data", "-", "-o", tmp_path / "one")
    assert status == 0, stderr
    assert "cells: the mask value 0 means class background, and 255 means class nucleus." in stderr
    assert stderr.count("means class nucleus") == 1
    assert "nucleus" in stdout
    zoo.train(*pairing, open_data(tmp_path / "cells"), output=tmp_path / "two", **settings)
    assert [record.getMessage() for record in caplog.records if "means class" in record.getMessage()] == [
        "cells: the mask value 0 means class 0, and 255 means class 1."
    ]


def test_a_class_that_training_never_sees_is_said(tmp_path):
    of_values(tmp_path, 0, 1)
    Image.fromarray(drawn([0, 2]).astype(np.uint8)).save(tmp_path / "test" / "masks" / "a.png")
    assert (
        "classes without a pixel in the training split: tram (2)" in open_data(tmp_path, classes=["road", "car", "tram"]).notes
    )


def test_pixels_that_are_mostly_left_out_are_said(tmp_path):
    data = open_data(of_values(tmp_path, 0, 1, 255, 255, 255), classes=["a", "b"])
    assert any("of all pixels are ignored" in note for note in data.notes)


def test_the_check_of_a_folder_finds_what_training_would_refuse(tmp_path, command_line):
    of_values(tmp_path, 0, 100, 200)
    status, _, stderr = command_line("data", "check", tmp_path, "--sheet", tmp_path / "sheet.png")
    assert status == 1
    assert "Found: 0, 100, 200" in stderr


WHOLE = drawn([0, 1])


@pytest.mark.parametrize(
    "mask", [WHOLE.astype(bool), WHOLE.astype(np.float32), WHOLE.astype(np.float16), WHOLE[..., None], WHOLE.astype(np.int16)]
)
def test_yes_and_no_and_whole_numbers_are_classes(tmp_path, mask):
    data = open_data(of_array(tmp_path, mask))
    assert torch.equal(data.train[0][1], torch.from_numpy(WHOLE))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_of_one_bit_is_two_classes(tmp_path, suffix):
    data = open_data(write(tmp_path, lambda path: Image.fromarray(WHOLE.astype(bool)).save(path.with_suffix(suffix))))
    assert torch.equal(data.train[0][1], torch.from_numpy(WHOLE))


ONE_HOT = np.eye(5, dtype=np.uint8)[drawn(range(5))]


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        (ONE_HOT, r"the shape \(12, 16, 5\).*one-hot.*argmax"),
        (ONE_HOT.astype(np.float32), "one-hot"),
        (ONE_HOT.astype(bool), "one-hot"),
        (ONE_HOT[..., :2], "one-hot"),
        (np.dstack([WHOLE.astype(np.uint8)] * 4), r"the shape \(12, 16, 4\)"),
        (np.where(WHOLE == 1, np.nan, 0.0), "96 non-finite pixels"),
        (WHOLE * 0.5, "must be whole numbers; found float64, such as 0.5"),
        (WHOLE.astype(complex), "complex128, not numbers"),
        (np.dstack([WHOLE * 300] * 3), "the channels of a color must be from 0 to 255; found 0 to 300"),
        (np.zeros((2, 3, *SIZE), dtype=np.uint8), r"the shape \(2, 3, 12, 16\)"),
    ],
)
def test_masks_of_another_kind_are_refused_with_their_file(tmp_path, mask, told):
    with pytest.raises(zoo.errors.DataError, match=rf"a\.npy: .*{told}"):
        open_data(of_array(tmp_path, mask))
    assert len(scan_folder(tmp_path).problems) == 6


TABLE = [(0, 0, 0), (250, 10, 10)]


def of_colors(folder, table, opacity=None):
    def save(path):
        colors = np.array(table, dtype=np.uint8)[drawn(range(len(table)))]
        if opacity is not None:
            colors = np.dstack([colors, opacity])
        Image.fromarray(colors).save(path.with_suffix(".png"))

    return write(folder, save)


@pytest.mark.parametrize("opacity", [np.full(SIZE, 255, np.uint8), (WHOLE * 255).astype(np.uint8)])
def test_opacity_is_dropped_where_color_says_the_same(tmp_path, opacity):
    data = open_data(of_colors(tmp_path, TABLE, opacity), colors=TABLE)
    assert torch.equal(data.train[0][1], torch.from_numpy(WHOLE))


def test_opacity_that_says_more_than_color_is_refused(tmp_path):
    opacity = np.full(SIZE, 255, np.uint8)
    opacity[0] = 0
    with pytest.raises(zoo.errors.DataError, match=r"a\.png: pixels of the same color differ in opacity"):
        open_data(of_colors(tmp_path, TABLE, opacity), colors=TABLE)


def test_a_color_may_be_left_out(tmp_path):
    void = (224, 224, 192)
    of_colors(tmp_path, [*TABLE, void])
    with pytest.raises(zoo.errors.DataError, match=r"no class \(\(224, 224, 192\): "):
        open_data(tmp_path, colors=TABLE)
    assert indexes(open_data(tmp_path, colors=TABLE, ignored=[list(void)])) == [0, 1, 255]
    with pytest.raises(zoo.errors.DataError, match=r"ignored: expected colors.*found 255"):
        open_data(tmp_path, colors=TABLE, ignored=[255])


def test_a_color_to_leave_out_is_read_from_yaml(tmp_path, command_line):
    of_colors(tmp_path, [*TABLE, (224, 224, 192)])
    (tmp_path / "run.yaml").write_text(
        "encoder: resnet18\ndecoder: unet-basic\n"
        "data: {source: ., colors: [[0, 0, 0], [250, 10, 10]], ignored: [[224, 224, 192]]}\n",
        encoding="utf-8",
    )
    status, stdout, _ = command_line("data", "check", tmp_path / "run.yaml", "--sheet", tmp_path / "sheet.png")
    assert status == 0
    assert "Nothing is wrong." in stdout


def test_there_may_be_more_than_255_classes(tmp_path):
    mask = np.arange(192, dtype=np.uint16).reshape(SIZE) + 128
    mask[0, 0] = 65535

    data = open_data(of_array(tmp_path, mask), classes=[str(number) for number in range(320)], ignored=[65535])
    found = data.train[0][1]
    assert found[0, 0] == data.ignored == 65535
    assert torch.equal(found.flatten()[1:], torch.arange(129, 320))
    with pytest.raises(zoo.errors.DataError, match=r"no class \(65535: 6 pixels; first in .*test.*a\.npy"):
        open_data(Path(tmp_path), classes=[str(number) for number in range(320)])


@pytest.mark.parametrize("classes", [(), ("background", "nucleus")])
def test_masks_of_0_and_1_among_masks_of_0_and_255_are_refused(tmp_path, classes):
    of_values(tmp_path, 0, 1)
    for index, path in enumerate(sorted(tmp_path.glob("*/masks/*.png"))):
        if index % 2:
            mask = np.asarray(Image.open(path)) * np.uint8(255)
            Image.fromarray(mask).save(path)
    with pytest.raises(
        zoo.errors.DataError,
        match=r"\(such as .+/masks/.+\) contain the values 0 and 1, and others \(such as .+/masks/.+\) contain",
    ):
        open_data(tmp_path, classes=classes)
    assert open_data(tmp_path, classes=classes, ignored=[255]).classes


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_part_in_which_every_pixel_is_left_out_is_refused(tmp_path, part, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (of_values(tmp_path / "cells", 0, 1) / part / "masks").iterdir():
        Image.fromarray(np.full(SIZE, 7, dtype=np.uint8)).save(path)
    with pytest.raises(zoo.errors.DataError, match=f"{part}: every pixel of 2 masks is ignored"):
        open_data(tmp_path / "cells", classes=["a", "b"], ignored=[7])
    (tmp_path / "run.yaml").write_text(
        "encoder: resnet18\ndecoder: unet-basic\ndata: {source: cells, classes: [a, b], ignored: [7]}\n", encoding="utf-8"
    )
    status, _, stderr = command_line("data", "check", "run.yaml")
    assert status == 1
    assert f"{part}: every pixel of 2 masks is ignored" in stderr


LARGE = np.random.default_rng(0).integers(0, 3, (1030, 1100))
"""More pixels than are processed at once."""
SHADES = ((10, 20, 30), (0, 0, 255), (255, 0, 0))


@pytest.mark.parametrize(
    ("mask", "options"),
    [
        (LARGE.astype(np.uint8), {}),
        (np.array([7, 70000, -5])[LARGE], {"values": [7, 70000, -5]}),
        (np.array(SHADES, dtype=np.uint8)[LARGE], {"colors": SHADES}),
    ],
    ids=["numbers", "large numbers", "colors"],
)
def test_every_pixel_of_a_large_mask_is_converted_and_counted(tmp_path, mask, options):
    for part in ("train", "validation", "test"):
        for kind, array in (("images", np.zeros((*LARGE.shape, 1), dtype=np.uint8)), ("masks", mask)):
            (tmp_path / part / kind).mkdir(parents=True)
            np.save(tmp_path / part / kind / "a.npy", array)
    assert np.array_equal(open_data(tmp_path, **options).test[0][1].numpy(), LARGE)
    assert sorted(scan_folder(tmp_path).values.values()) == sorted((3 * np.bincount(LARGE.ravel())).tolist())

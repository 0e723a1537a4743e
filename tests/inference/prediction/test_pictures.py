"""Which image a file is taken for: what a person sees in it, whatever numbers it holds that in."""

from __future__ import annotations

import struct
from importlib.metadata import version

import numpy as np
import pytest
import torch
from PIL import Image

import zoo

tifffile = pytest.importorskip("tifffile")

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GRAY = IMAGE[..., 0]


@pytest.fixture(scope="module")
def predictor():
    torch.manual_seed(0)
    return zoo.Predictor(zoo.build("timm:test_resnet", "unet-basic", classes=3))


def is_taken_for(predictor, path, image):
    found, expected = (predictor(each, probabilities=True).probabilities for each in (path, image))
    return found == pytest.approx(expected, abs=1e-5)


def with_palette(indexes):
    image = Image.fromarray(indexes, "P")
    image.putpalette(list(IMAGE.tobytes()[:768]))
    return image


def write_tiff(path, numbers, *, bits, palette=None):
    """Write a plain TIFF of numbers (H, W) of so many bits: gray, or indexes of a palette (3, 2**bits)."""
    height, width = numbers.shape
    rows = (numbers[..., None] >> np.arange(bits)[::-1] & 1).astype(np.uint8).reshape(height, -1)
    data = np.packbits(rows, axis=1).tobytes()
    colors = b"" if palette is None else palette.astype("<u2").tobytes()
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, bits), (259, 3, 1, 1), (262, 3, 1, 3 if colors else 1)]
    entries += [(273, 4, 1, 200 + len(colors)), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, len(data))]
    entries += [(320, 3, len(colors) // 2, 200)] if colors else []
    table = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    path.write_bytes((b"II*\0" + struct.pack("<I", 8) + table + b"\0" * 4).ljust(200, b"\0") + colors + data)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_palettes_indexes_in_a_tiff_are_its_colors(predictor, tmp_path, compression):
    image = with_palette(GRAY)
    image.save(tmp_path / "image.tif", compression=compression)
    assert is_taken_for(predictor, tmp_path / "image.tif", np.asarray(image.convert("RGB")))


def test_a_palette_may_have_two_colors(predictor, tmp_path):
    colors = np.array([[10, 20, 250], [200, 100, 0]], dtype=np.uint8)
    write_tiff(tmp_path / "image.tif", GRAY // 128, bits=1, palette=colors.T.astype(np.uint16) * 257)
    assert is_taken_for(predictor, tmp_path / "image.tif", colors[GRAY // 128])


def test_a_palette_without_a_pixels_color_is_broken(predictor, tmp_path):
    with_palette(GRAY).save(tmp_path / "image.tif")
    content = (tmp_path / "image.tif").read_bytes()
    (tmp_path / "image.tif").write_bytes(content.replace(struct.pack("<HHI", 320, 3, 768), struct.pack("<HHI", 320, 3, 48)))
    with pytest.raises(zoo.errors.DataError, match="broken: its pixels exceed its palette of 16 colors"):
        predictor(tmp_path / "image.tif")


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_may_be_a_tiffs_zero(predictor, tmp_path, kind):
    numbers = GRAY.astype(kind) * (np.iinfo(kind).max // 255)
    tifffile.imwrite(tmp_path / "image.tif", ~numbers, photometric="miniswhite")
    assert is_taken_for(predictor, tmp_path / "image.tif", numbers)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
def test_other_colors_in_a_tiff_become_red_green_and_blue(predictor, tmp_path, mode):
    image = Image.fromarray(IMAGE).convert(mode)
    image.save(tmp_path / "image.tif")
    try:
        with Image.open(tmp_path / "image.tif") as written:
            written.load()
    except OSError:
        pytest.skip(f"Pillow {version('pillow')} does not read its own TIFFs of {mode}")
    assert is_taken_for(predictor, tmp_path / "image.tif", np.asarray(image.convert("RGB")))


def test_numbers_of_12_bits_have_the_range_of_12_bits(predictor, tmp_path):
    numbers = GRAY.astype(np.uint16) * 16
    write_tiff(tmp_path / "image.tif", numbers, bits=12)
    assert is_taken_for(predictor, tmp_path / "image.tif", (numbers / 4095)[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("height", [40, 30])
def test_a_tiff_of_several_images_is_refused(predictor, tmp_path, height):
    with tifffile.TiffWriter(tmp_path / "image.tif") as file:
        file.write(IMAGE, photometric="rgb")
        file.write(IMAGE[:height], photometric="rgb")
    with pytest.raises(zoo.errors.DataError, match="expected one image; found 2"):
        predictor(tmp_path / "image.tif")


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_smaller_copies_and_a_mask_in_a_tiff_are_no_further_images(predictor, tmp_path, compression):
    with tifffile.TiffWriter(tmp_path / "image.tif") as file:
        file.write(IMAGE, photometric="rgb", subifds=0, compression=compression)
        file.write(np.ascontiguousarray(IMAGE[::2, ::2]), photometric="rgb", subfiletype=1, compression=compression)
        file.write(GRAY > 0, photometric="mask", subfiletype=4)
    assert is_taken_for(predictor, tmp_path / "image.tif", IMAGE)


def test_smaller_copies_are_no_further_images_where_pillow_unpacks_them(predictor, tmp_path):
    small = Image.fromarray(np.ascontiguousarray(IMAGE[::2, ::2]))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(IMAGE).save(tmp_path / "image.tif", save_all=True, append_images=[small], compression="tiff_lzw")
    assert is_taken_for(predictor, tmp_path / "image.tif", IMAGE)


@pytest.mark.parametrize("name", ["image.tga", "image.jp2", "image.ico"])
def test_opacity_is_left_out_in_every_format_of_pillow(predictor, tmp_path, name):
    image = Image.fromarray(np.dstack([IMAGE, GRAY]))
    image.save(tmp_path / name, **({"sizes": [(50, 40)]} if name == "image.ico" else {}))
    with Image.open(tmp_path / name) as written:
        assert is_taken_for(predictor, tmp_path / name, np.asarray(written)[..., :3])


def test_a_ppm_of_16_bits_has_their_range(predictor, tmp_path):
    numbers = GRAY.astype(np.uint16) * 257
    (tmp_path / "image.ppm").write_bytes(b"P5 50 40 65535\n" + numbers.astype(">u2").tobytes())
    assert is_taken_for(predictor, tmp_path / "image.ppm", numbers)


def test_a_photograph_with_a_preview_in_its_file_is_one_image(predictor, tmp_path):
    image, preview = Image.fromarray(IMAGE), Image.fromarray(IMAGE).resize((25, 20))
    image.save(tmp_path / "image.jpg", "MPO", save_all=True, append_images=[preview])
    with Image.open(tmp_path / "image.jpg") as written:
        assert is_taken_for(predictor, tmp_path / "image.jpg", np.asarray(written))


@pytest.mark.parametrize(("samples", "is_read"), [(["unassalpha"], True), (["assocalpha"], True), (["unspecified"], False)])
def test_of_a_tiff_opacity_is_left_out_where_it_says_so(predictor, tmp_path, samples, is_read):
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=samples)
    if is_read:
        assert (predictor(tmp_path / "a.tif").mask == predictor(pixels[..., :3]).mask).all()
    else:
        with pytest.raises(zoo.errors.DataError, match="4 channels, but the model expects 3"):
            predictor(tmp_path / "a.tif")

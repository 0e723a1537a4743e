"""Folders of images and masks: what is read, and that everything wrong with them is named before it costs anything."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from zoo import open_data
from zoo.data.data_config import DataEntry, locate_data
from zoo.data.folders.scan import scan_folder
from zoo.data.masks.contact_sheet import contact_sheet

RANDOM = np.random.default_rng(0)


def write(folder, names=("a", "b", "c", "d"), *, part="", values=(0, 1), size=(12, 16), image_suffix=".png", draw=None):
    """Make a folder of images and masks."""
    for kind in ("images", "masks"):
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / part / "images" / f"{name}{image_suffix}")
        mask = np.array(values, dtype=np.uint8)[RANDOM.integers(0, len(values), size)]
        mask[0, : len(values)] = values
        drawn = Image.fromarray(mask) if draw is None else draw(mask)
        drawn.save(folder / part / "masks" / f"{name}.png")
    return folder


def divided(folder, **options):
    for part in ("train", "val", "test"):
        write(folder, (f"{part}1", f"{part}2"), part=part, **options)
    return folder


def test_a_divided_folder_is_three_parts(tmp_path):
    data = open_data(divided(tmp_path))
    assert [len(samples) for _, samples in data.parts()] == [2, 2, 2]
    assert (data.in_channels, data.size, data.classes) == (3, (12, 16), ("0", "1"))
    image, mask = data.train[0]
    assert image.shape == (3, 12, 16)
    assert image.dtype == torch.float32
    assert 0 <= image.min() <= image.max() <= 1
    assert mask.dtype == torch.int64
    with Image.open(tmp_path / "train" / "masks" / "train1.png") as drawn:
        assert torch.equal(mask, torch.from_numpy(np.array(drawn)).long())


def test_an_undivided_folder_is_divided_by_name_always_in_the_same_way(tmp_path):
    names = [f"tile{number}" for number in range(40)]
    write(tmp_path, names)
    data = open_data(tmp_path, validation=0.2, test=0.2)
    counts = [len(samples) for _, samples in data.parts()]
    assert sum(counts) == 40
    assert all(count >= 3 for count in counts)
    before = {pair.image.name for pair in data.test.pairs}
    write(tmp_path, ["another", "onemore"])
    after = {pair.image.name for pair in open_data(tmp_path, validation=0.2, test=0.2).test.pairs}
    assert before <= after


def test_black_and_white_masks_are_two_classes(tmp_path):
    data = open_data(divided(tmp_path, values=(0, 255)))
    assert len(data.classes) == 2
    assert sorted(data.train[0][1].unique().tolist()) == [0, 1]


def test_the_ignored_value_is_no_class(tmp_path):
    data = open_data(divided(tmp_path, values=(0, 1, 2, 255)))
    assert len(data.classes) == 3
    assert sorted(data.train[0][1].unique().tolist()) == [0, 1, 2, 255]


def test_masks_of_a_palette_give_their_indexes(tmp_path):
    def draw(mask):
        image = Image.fromarray(mask).convert("P")
        image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        image.frombytes(mask.tobytes())
        return image

    data = open_data(divided(tmp_path, values=(0, 1, 2), draw=draw), classes=["sea", "land", "ice"])
    assert data.classes == ("sea", "land", "ice")
    assert sorted(data.train[0][1].unique().tolist()) == [0, 1, 2]


def test_masks_of_a_palette_in_a_packed_tiff_give_their_indexes(tmp_path):
    divided(tmp_path, values=(0, 1, 2))
    for path in tmp_path.rglob("masks/*.png"):
        with Image.open(path) as image:
            mask = Image.fromarray(np.array(image), "P")
        mask.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
        mask.save(path.with_suffix(".tif"), compression="tiff_lzw")
        path.unlink()
    data = open_data(tmp_path)
    assert data.classes == ("0", "1", "2")
    assert data.train[0][1].unique().tolist() == [0, 1, 2]


def test_masks_in_colors_are_read_by_a_table(tmp_path):
    table = [(0, 0, 0), (250, 10, 10), (10, 250, 10)]

    def draw(mask):
        return Image.fromarray(np.array(table, dtype=np.uint8)[mask])

    divided(tmp_path, values=(0, 1, 2), draw=draw)
    with pytest.raises(zoo.errors.DataError, match=r"Set `colors` to one color per class.*\(250, 10, 10\)"):
        open_data(tmp_path)
    data = open_data(tmp_path, colors=table, classes=["a", "b", "c"])
    assert sorted(data.train[0][1].unique().tolist()) == [0, 1, 2]
    with pytest.raises(zoo.errors.DataError, match=r"no class \(\(10, 250, 10\)"):
        open_data(tmp_path, colors=table[:2])


@pytest.mark.parametrize("channels", [1, 4, 7])
def test_images_may_have_any_number_of_channels(tmp_path, channels):
    divided(tmp_path)
    for path in tmp_path.glob("*/images/*.png"):
        np.save(path.with_suffix(".npy"), RANDOM.random((12, 16, channels)).astype(np.float32))
        path.unlink()
    data = open_data(tmp_path)
    assert data.in_channels == channels
    assert data.test[0][0].shape == (channels, 12, 16)


def test_sixteen_bits_are_brought_to_one_range(tmp_path):
    divided(tmp_path)
    for path in tmp_path.glob("*/images/*.png"):
        Image.fromarray(np.full((12, 16), 65535, dtype=np.uint16)).save(path)
    data = open_data(tmp_path)
    assert data.train[0][0].unique().tolist() == [1.0]


def test_where_a_geotiff_names_no_data_it_is_0(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    divided(tmp_path)
    pixels = RANDOM.random((12, 16, 5)).astype(np.float32)
    pixels[:4, :, 1:3] = np.nan
    for path in tmp_path.glob("*/images/*.png"):
        tifffile.imwrite(path.with_suffix(".tif"), pixels, planarconfig="contig", extratags=[(42113, "s", 0, "nan", True)])
        path.unlink()
    assert torch.equal(open_data(tmp_path).train[0][0], torch.from_numpy(np.nan_to_num(pixels)).permute(2, 0, 1))


def truncated(folder):
    path = folder / "images" / "a.png"
    path.write_bytes(path.read_bytes()[:60])


def of_another_size(folder):
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(folder / "masks" / "b.png")


def twice(folder):
    Image.new("RGB", (16, 12)).save(folder / "images" / "c.jpg")


def without_mask(folder):
    (folder / "masks" / "d.png").unlink()


def without_image(folder):
    (folder / "images" / "d.png").unlink()


def of_other_channels(folder):
    Image.new("L", (16, 12)).save(folder / "images" / "a.png")


def no_image(folder):
    (folder / "images" / "a.png").write_text("hello", encoding="utf-8")


def empty(folder):
    for path in folder.glob("*/*"):
        path.unlink()


def animated(folder):
    frames = [Image.new("L", (16, 12), color) for color in (0, 255)]
    (folder / "images" / "a.png").unlink()
    frames[0].save(folder / "images" / "a.gif", save_all=True, append_images=frames[1:])


def not_finite(folder):
    (folder / "images" / "a.png").unlink()
    np.save(folder / "images" / "a.npy", np.full((12, 16, 3), np.nan, dtype=np.float32))


def not_finite_at_the_end(folder):
    (folder / "images" / "a.png").unlink()
    pixels = np.zeros((700, 700, 3))
    pixels[-1, -1, -1] = np.inf
    np.save(folder / "images" / "a.npy", pixels)


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (truncated, r"a\.png is broken"),
        (of_another_size, r"b\.png: the mask is 5x5, but its image is 12x16"),
        (twice, r"2 files named c: c\.jpg, c\.png"),
        (without_mask, r"d\.png: no mask has this name"),
        (without_image, r"d\.png: no image has this name"),
        (of_other_channels, r"differ in their number of channels: 3 images with 3 channels, 1 image with 1 channel"),
        (no_image, r"a\.png is not an image"),
        (empty, r"images: no images with a supported suffix"),
        (animated, r"a\.gif: expected one frame; found 2"),
        (not_finite, r"a\.npy: .*not finite"),
        (not_finite_at_the_end, r"a\.npy: .*not finite"),
    ],
)
def test_whatever_is_wrong_is_named(tmp_path, spoil, told):
    spoil(write(tmp_path))
    with pytest.raises(zoo.errors.DataError, match=told):
        open_data(tmp_path)


def test_all_that_is_wrong_is_named_at_once(tmp_path):
    write(tmp_path)
    for spoil in (truncated, of_another_size, without_mask):
        spoil(tmp_path)
    report = scan_folder(tmp_path)
    assert len(report.problems) == 3
    with pytest.raises(zoo.errors.DataError) as raised:
        report.check()
    assert all(name in str(raised.value) for name in ("a.png", "b.png", "d.png"))


def test_a_class_that_is_out_of_range_is_named_with_its_file(tmp_path):
    divided(tmp_path)
    Image.fromarray(np.full((12, 16), 7, dtype=np.uint8)).save(tmp_path / "train" / "masks" / "train2.png")
    with pytest.raises(zoo.errors.DataError, match=r"no class \(7: 192 pixels; first in .*train2\.png.*classes are 0, 1"):
        open_data(tmp_path, classes=["a", "b"])


def test_a_mask_as_jpeg_is_told_so(tmp_path):
    def draw(mask):
        return Image.fromarray(RANDOM.integers(0, 256, (*mask.shape, 3), dtype=np.uint8))

    with pytest.raises(zoo.errors.DataError, match="a mask has one color per class"):
        open_data(write(tmp_path, draw=draw))


@pytest.mark.parametrize(("made", "told"), [((), "has no folder images and no folder masks"), (("images",), "no folder masks")])
def test_another_layout_is_told(tmp_path, made, told):
    for name in made:
        (tmp_path / name).mkdir()
    with pytest.raises(zoo.errors.DataError, match=told):
        open_data(tmp_path)


def test_what_is_neither_task_nor_folder_lists_the_tasks():
    with pytest.raises(zoo.errors.DataError, match=r"Did you mean 'texture-mosaic'\? Tasks: texture-mosaic, brain-lobes"):
        open_data("texture-mosaik")


def test_the_command_line_lists_what_is_there(tmp_path, command_line, monkeypatch):
    divided(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    status, stdout, stderr = command_line("data", "check", str(tmp_path))
    assert status == 0
    with Image.open("contact-sheet.png") as sheet:
        colors = {color for _, color in sheet.convert("RGB").getcolors(2**24)}
    assert len(colors) > 10  # images, not a blank page
    assert all(part in stdout for part in ("test 2, train 2, validation 2", "12x16 (6)", "3 (6)", "Nothing is wrong."))
    (tmp_path / "train" / "masks" / "train1.png").unlink()
    status, stdout, stderr = command_line("data", "check", str(tmp_path))
    assert status == 1
    assert "train1.png: no mask has this name" in stderr


def test_the_contact_sheet_shows_each_pair_beside_its_mask(tmp_path):
    """Black images: what is not black or white on the sheet is a mask's."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number in range(3):
        drawn = np.zeros((20, 30), dtype=np.uint8)
        drawn[:, 15:] = number
        Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8)).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(drawn).save(tmp_path / "masks" / f"{number}.png")
    sheet = np.asarray(contact_sheet(scan_folder(tmp_path)))
    red, green, blue = (sheet[..., channel].astype(int) for channel in range(3))
    assert ((red > 50) & (green == 0) & (blue == 0)).any()
    assert ((green > 50) & (red == 0) & (blue == 0)).any()


def test_a_sheet_that_cannot_be_written_is_told(tmp_path, command_line):
    status, _, stderr = command_line("data", "check", str(divided(tmp_path)), "--sheet", str(tmp_path / "sheet.nonsense"))
    assert status
    assert "sheet.nonsense cannot be written" in stderr


@pytest.mark.parametrize("name", ["Val", "VALIDATION", "Valid"])
def test_the_name_of_a_part_may_be_in_capitals(tmp_path, name):
    divided(tmp_path)
    (tmp_path / "val").rename(tmp_path / name)
    data = open_data(tmp_path)
    assert {pair.image.parent.parent.name for pair in data.validation.pairs} == {name}
    assert data.notes == ()


def test_two_folders_for_one_part_are_refused(tmp_path):
    write(divided(tmp_path), ("more",), part="validation")
    with pytest.raises(zoo.errors.DataError, match="2 folders for validation: val, validation"):
        open_data(tmp_path)


def test_a_folder_of_another_name_beside_the_parts_is_noted(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    divided(tmp_path / "cells")
    (tmp_path / "cells/val").rename(tmp_path / "cells/dev")
    unused, same = open_data(tmp_path / "cells").notes
    assert "these folders contain images/ and masks/, but are not used: dev" in unused
    assert same == "validation and test use the same images, since one of the two would otherwise be empty"
    assert same in command_line("data", "check", "cells")[1].replace("\n", " ")


def test_a_share_of_0_of_an_undivided_folder_is_noted(tmp_path):
    data = open_data(write(tmp_path, [f"tile{number}" for number in range(40)]), validation=0.0)
    assert data.notes == ("validation and test use the same images, since one of the two would otherwise be empty",)


@pytest.mark.parametrize(
    "options",
    [
        {"classes": "ab"},
        {"classes": {"b": 1, "a": 0}},
        {"classes": None},
        {"classes": ["a", 1]},
        {"values": 1},
        {"ignored": 255},
        {"values": ["0", "1"]},
        {"colors": [[0, 0]]},
        {"validation": "0.1"},
        {"test": 1.5},
    ],
)
def test_an_option_of_another_kind_is_refused(tmp_path, options):
    (name,) = options
    with pytest.raises(zoo.errors.ConfigError, match=f"cannot be opened:\n.*{name}"):
        open_data(divided(tmp_path), **options)


def test_options_may_be_tuples_and_arrays(tmp_path):
    data = open_data(divided(tmp_path), classes=("a", "b"), values=np.array([1, 0]), ignored=(np.uint8(7),))
    assert data.classes == ("a", "b")
    assert data.fingerprint.reading["mask code"]["values"] == [1, 0]


def test_samples_that_are_no_data_yet_are_told_how_to_become_so(tmp_path):
    samples = open_data(divided(tmp_path / "cells")).train
    with pytest.raises(zoo.errors.DataError, match=r"zoo\.SegmentationData\(name=.*found a FolderSamples"):
        zoo.train("resnet18", "unet-basic", samples, output=tmp_path / "run")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
@pytest.mark.parametrize("kind", ["images", "masks"])
def test_what_is_no_regular_file_is_refused_unread(tmp_path, kind):
    path = write(tmp_path) / kind / "a.png"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(zoo.errors.DataError, match=rf"{kind}/a\.png: it is a named pipe"):
        open_data(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode")
def test_a_file_name_may_be_no_utf_8(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cells", [f"tile{number}" for number in range(20)])
    for kind in ("images", "masks"):
        path = os.fsencode(tmp_path / "cells" / kind)
        os.rename(path + b"/tile0.png", path + b"/caf\xe9.png")  # noqa: PTH104 - a path of bytes
    data = open_data(tmp_path / "cells")
    assert sum(len(samples) for _, samples in data.parts()) == 20
    assert data.fingerprint.digest
    assert command_line("data", "check", "cells")[0] == 0


def test_pairs_beside_the_parts_are_said_since_they_are_not_used(tmp_path):
    write(divided(tmp_path))
    (note,) = open_data(tmp_path).notes
    assert "these folders contain images/ and masks/, but are not used: the folder itself" in note


def test_the_check_says_where_training_needs_a_size(tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(divided(tmp_path / "cells"), ("larger",), part="train", size=(20, 20))
    status, stdout, _ = command_line("data", "check", "cells")
    assert status == 0
    assert "Note: images differ in size, so training needs the setting `size`" in stdout
    run = {"encoder": "resnet18", "decoder": "unet-basic", "data": "cells"}
    for content, expected in ((run, 1), (run | {"size": 12}, 0)):
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        status, _, stderr = command_line("data", "check", "run.yaml")
        assert status == expected
        assert ("The images of cells differ in size. Set size to" in stderr) is (expected == 1)


TASK_AND_FOLDER = r"hela is a built-in task, but .+hela is also a folder of images and masks\. Use \./hela for the folder\. For"


def test_a_task_and_a_folder_of_its_name_are_never_taken_for_each_other(tmp_path, monkeypatch, command_line):
    monkeypatch.chdir(tmp_path)
    divided(tmp_path / "hela")
    for source in ("hela", Path("hela")):
        with pytest.raises(zoo.errors.DataError, match=TASK_AND_FOLDER):
            open_data(source)
        with pytest.raises(zoo.errors.DataError, match=TASK_AND_FOLDER):
            zoo.train("resnet18", "unet-basic", source, output="run")
    assert open_data("./hela").source == "hela"
    run = {"encoder": "resnet18", "decoder": "unet-basic"}
    bench = {"name": "small", "encoders": ["resnet18"], "decoders": ["unet-basic"], "baseline": run}
    written = {
        "run": run | {"data": "hela"},
        "folder": run | {"data": "./hela"},
        "bench": bench,
        "quality": bench | {"quality": {"data": "hela"}},
    }
    for name, content in written.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    for arguments in (
        ("train", "resnet18", "unet-basic", "--data", "hela"),
        ("train", "run.yaml"),
        ("train", "folder.yaml", "--data", "hela"),
        ("data", "check", "run.yaml"),
        ("bench", "quality.yaml"),
        ("bench", "bench.yaml", "--quality", "hela"),
    ):
        status, _, stderr = command_line(*arguments)
        assert status == 2
        assert re.search(TASK_AND_FOLDER, " ".join(stderr.split())), arguments
    assert command_line("data", "check", "folder.yaml")[0] == 0


def test_a_folder_that_has_no_images_is_not_what_a_tasks_name_means(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texture-mosaic" / "runs").mkdir(parents=True)
    assert locate_data("texture-mosaic", tmp_path) == "texture-mosaic"


def test_a_folder_behind_a_symbolic_link_keeps_the_links_name(tmp_path):
    (tmp_path / "first").mkdir()
    (tmp_path / "current").symlink_to("first")
    assert locate_data("current", tmp_path) == str(tmp_path / "current")
    assert locate_data("current/../first", tmp_path) == str(tmp_path / "first")
    assert open_data("texture-mosaic").size


def test_a_folder_may_have_the_name_of_one_of_torchvisions_data_sets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    divided(tmp_path / "Cityscapes")
    with pytest.raises(
        zoo.errors.DataError,
        match=r"Cityscapes requires a root\. Set root=.*To open the folder Cityscapes instead, use \./Cityscapes",
    ):
        open_data("Cityscapes")
    entry = DataEntry(source="Cityscapes", root="Cityscapes").relative_to(tmp_path)
    assert (entry.source, entry.root) == ("Cityscapes", str(tmp_path / "Cityscapes"))
    assert DataEntry(source="Cityscapes").relative_to(tmp_path).source == str(tmp_path / "Cityscapes")

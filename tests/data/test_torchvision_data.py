"""torchvision's data sets, laid out in small as their publishers lay them out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import zoo

RANDOM = np.random.default_rng(0)
SIZE = (10, 14)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RANDOM.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)


def mask(path, *values):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = np.full(SIZE, values[0], dtype=np.uint8)
    for place, value in enumerate(values):
        drawn[place] = value
    Image.fromarray(drawn).save(path)


def lines(path, names):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(names) + "\n", encoding="utf-8")


TRAIN = [f"train_{number}" for number in range(10)]
TEST = ["test_0", "test_1"]


def pets(root):
    place = root / "oxford-iiit-pet"
    for part, names in (("trainval", TRAIN), ("test", TEST)):
        lines(place / "annotations" / f"{part}.txt", [f"{name} 1 1 1" for name in names])
        for name in names:
            picture(place / "images" / f"{name}.jpg")
            mask(place / "annotations" / "trimaps" / f"{name}.png", 1, 2, 3)


def voc(root):
    place = root / "VOCdevkit" / "VOC2012"
    for part, names in (("train", TRAIN), ("val", TEST)):
        lines(place / "ImageSets" / "Segmentation" / f"{part}.txt", names)
        for name in names:
            picture(place / "JPEGImages" / f"{name}.jpg")
            mask(place / "SegmentationClass" / f"{name}.png", 0, 20, 255)


def cityscapes(root):
    for part, names in (("train", TRAIN), ("val", TEST), ("test", TEST)):
        for name in names:
            picture(root / "leftImg8bit" / part / "city" / f"city_{name}_leftImg8bit.png")
            mask(root / "gtFine" / part / "city" / f"city_{name}_gtFine_labelIds.png", 7, 33, 4)


def boundaries(root):
    for part, names in (("train", TRAIN), ("val", TEST)):
        lines(root / f"{part}.txt", names)
        for name in names:
            picture(root / "img" / f"{name}.jpg")
            drawn = np.zeros(SIZE, dtype=np.uint8)
            drawn[1], drawn[2] = 20, 255
            (root / "cls").mkdir(exist_ok=True)
            savemat(root / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": drawn}})
    (root / "inst").mkdir()


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # torchvision's loader leaves files to the garbage collector
@pytest.mark.parametrize(
    ("name", "lay_out", "classes", "found"),
    [
        ("OxfordIIITPet", pets, 3, {0, 1, 2}),
        ("VOCSegmentation", voc, 21, {0, 20, 255}),
        ("Cityscapes", cityscapes, 19, {0, 18, 255}),
        ("SBDataset", boundaries, 21, {0, 20, 255}),
    ],
)
def test_a_published_data_set_is_read(tmp_path, name, lay_out, classes, found):
    lay_out(tmp_path)
    data = zoo.open_data(name, root=str(tmp_path))
    assert len(data.classes) == len(data.colors) == classes
    assert [len(samples) for _, samples in data.parts()] == [9, 1, 2]
    image, drawn = data.test[1]
    assert image.shape == (3, *SIZE)
    assert image.dtype == torch.float32
    assert drawn.dtype == torch.int64
    assert set(drawn.unique().tolist()) == found


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((0, 30), r"no class has the value 30; the classes have 0, 1, 2, .* \(255 is ignored\)"),
        ((256,), "no class has the value 256"),
    ],
)
def test_a_published_data_sets_mask_with_a_value_of_no_class_is_refused(tmp_path, values, told):
    voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/SegmentationClass/test_1.png"
    Image.fromarray(np.resize(np.array(values, dtype=np.uint16), SIZE)).save(path)
    data = zoo.open_data("VOCSegmentation", root=str(tmp_path))
    with pytest.raises(zoo.errors.DataError, match=f"VOCSegmentation, test split: the mask of image 1: {told}"):
        data.test[1]


def test_a_broken_image_of_a_published_data_set_is_an_error_that_says_so(tmp_path):
    voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/JPEGImages/test_1.jpg"
    path.write_bytes(path.read_bytes()[:300])
    data = zoo.open_data("VOCSegmentation", root=str(tmp_path))
    with pytest.raises(zoo.errors.DataError, match="VOCSegmentation, test split: image 1 or its mask cannot be read"):
        data.test[1]


@pytest.mark.parametrize("name", ["OxfordIIITPet", "VOCSegmentation", "Cityscapes", "SBDataset"])
def test_a_root_without_it_is_told(tmp_path, name):
    with pytest.raises(zoo.errors.DataError, match=rf"torchvision\.datasets\.{name} cannot read"):
        zoo.open_data(name, root=str(tmp_path))


@pytest.mark.parametrize(
    ("name", "options", "told"),
    [
        ("VOCSegmentation", {}, "Set root="),
        ("VOCSegmentation", {"rot": "x"}, r"accepts root, download; found rot\. Did you mean 'root'"),
        ("Cityscapes", {"root": "x", "download": True}, "cannot download Cityscapes"),
        ("texture-mosaic", {"root": "x"}, "accepts no options; found root"),
        ("VOCSegmentatoin", {}, "Did you mean 'VOCSegmentation'"),
    ],
)
def test_what_cannot_be_is_told(name, options, told):
    with pytest.raises(zoo.errors.DataError, match=told):
        zoo.open_data(name, **options)

"""Files that are broken, hostile or of the wrong kind: one clear error and exit status 2, and nothing else is touched."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import resource
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo

pytestmark = pytest.mark.usefixtures("one_thread")


class Code:
    """A pickle of this runs a command when it is read."""

    def __reduce__(self):
        return os.system, ("touch /tmp/zoo-was-here",)


def picture(mode="RGB", size=(40, 30), kind="PNG", **options):
    """Return an image's bytes."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels, "RGBA").convert(mode).save(file, kind, **options)
    return file.getvalue()


def animated(kind):
    frames = [Image.new("RGB", (20, 20), color) for color in ("red", "green", "blue")]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def png_claiming(width, height, depth=8):
    """Return a small PNG whose header claims this size."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def tiff_claiming(width, height):
    """Return a plain TIFF of one strip that claims this size and holds 100 bytes."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1)]
    entries += [(278, 4, height), (279, 4, width * height % 2**32)]
    table = struct.pack("<H", len(entries)) + b"".join(
        struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries
    )
    return (b"II*\0" + struct.pack("<I", 8) + table + b"\0" * 4).ljust(200, b"\0") + b"\0" * 100


def npy(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npy_claiming(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + b"\0" * 100


def archive(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


IMAGES = {
    "empty.png": (b"", "not an image"),
    "zeros.png": (b"\0" * 4000, "not an image"),
    "text.png": (b"this is no picture\n" * 50, "not an image"),
    "html.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
    "cut.png": (picture()[:700], "broken"),
    "cut.jpg": (picture(kind="JPEG", size=(300, 200))[:900], "broken"),
    "head-only.png": (picture()[:40], "not an image"),
    "wrong-magic.png": (b"\x88" + picture()[1:], "not an image"),
    "flipped-bits.png": (picture()[:60] + bytes(byte ^ 255 for byte in picture()[60:90]) + picture()[90:], "broken"),
    "huge.png": (png_claiming(200_000, 200_000), "too large to open by default"),
    "large.png": (png_claiming(12_000, 12_000), "too large to open by default"),
    "no-pixels.png": (png_claiming(0, 0), ""),
    "cut-16-bit.png": (png_claiming(50, 50, depth=16), "broken"),
    "cut-cmyk.jpg": (picture("CMYK", kind="JPEG", size=(300, 200))[:900], "broken"),
    "animated.gif": (animated("GIF"), "expected one frame; found 3"),
    "animated.png": (animated("PNG"), "expected one frame; found 3"),
    "animated.webp": (animated("WEBP"), "expected one frame; found 3"),
    "cut-frame.gif": (picture("P", kind="GIF")[:-1] + b",\0\0\0\0\x14\0\x14\0\x87\0\0\0\1\1", "broken"),
    "cut.tif": (picture(kind="TIFF")[:2000], "broken"),
    "huge.tif": (tiff_claiming(60_000, 60_000), "broken"),
    "wrong-magic.tif": (b"XX*\0" + picture(kind="TIFF")[4:], "broken"),
    "cut.npy": (npy(np.zeros((30, 40, 3), np.uint8))[:500], "not a readable .npy file"),
    "huge.npy": (npy_claiming((10**6, 10**6, 3)), "not a readable .npy file"),
    "half-a-header.npy": (b"\x93NUMPY\x01\x00\x20\x00" + b"{'descr': '|u1',".ljust(31) + b"\n", "not a readable .npy file"),
    "no-archive.npy": (b"PK\x03\x04" + b"junk" * 50, "not a readable .npy file"),
    "objects.npy": (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "not a readable .npy file"),
    "code.npy": (pickle.dumps(Code()), "not a readable .npy file"),
    "archive.npy": (archive(image=np.zeros((3, 3))), "not a readable .npy file"),
    "nan.npy": (npy(np.full((30, 40, 3), np.nan)), "not finite"),
    "text.npy": (npy(np.array([["a", "b"]])), "not numbers"),
    "flat.npy": (npy(np.zeros(40, np.uint8)), "found the shape (40,)"),
    "film.npy": (npy(np.zeros((4, 30, 40, 3), np.uint8)), "found the shape (4, 30, 40, 3)"),
    "bands.npy": (npy(np.zeros((30, 40, 9), np.uint8)), "9 channels, but the model expects 3"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    return zoo.save(zoo.build("timm:test_resnet", "unet-basic", classes=2).eval(), tmp_path_factory.mktemp("saved") / "model")


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", IMAGES)
def test_a_malformed_image_is_told_and_the_good_one_beside_it_is_predicted(name, saved, tmp_path, command_line):
    content, told = IMAGES[name]
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    (images / "good.png").write_bytes(picture())
    (images / name).write_bytes(content)
    before = contents(tmp_path)
    status, shown, errors = command_line("predict", saved, images, "-o", out, "--device", "cpu")
    assert status == 2
    assert shown == f"1 mask in {out}.\n"
    assert str(images / name) in errors
    assert told in errors
    assert "Traceback" not in errors
    after = contents(tmp_path)
    assert {path: after.pop(path) for path in before} == before
    assert list(after) == [out / "good.png"]


def test_what_only_looks_odd_is_predicted(saved, tmp_path, command_line):
    images = tmp_path / "images"
    images.mkdir()
    for name, mode, kind in (
        ("cmyk.jpg", "CMYK", "JPEG"),
        ("palette.png", "P", "PNG"),
        ("bits.png", "1", "PNG"),
        ("lab.tif", "LAB", "TIFF"),
    ):
        (images / name).write_bytes(picture(mode, kind=kind))
    Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40)).save(images / "deep.png")
    status, shown, _ = command_line("predict", saved, images, "-o", tmp_path / "out", "--device", "cpu")
    assert (status, shown) == (0, f"5 masks in {tmp_path / 'out'}.\n")


def rewritten(saved, place, change):
    """Copy a saved model with its `config.yaml` changed."""
    place.mkdir()
    for path in saved.iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    facts = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))
    changed = change(facts)
    (place / "config.yaml").write_text(changed if isinstance(changed, str) else yaml.safe_dump(facts), encoding="utf-8")


def checkpoint(content):
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def zipped(**files):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in files.items():
            written.writestr(name, content)
    return file.getvalue()


RESNET = {"pairing": {"encoder": "timm:test_resnet", "decoder": "unet-basic"}}
MODELS = {
    "code.pt": (pickle.dumps(Code()), "may contain code|is damaged"),
    "code.ckpt": (checkpoint({"state_dict": {}, "zoo": Code()}), "may contain code"),
    "module.pt": (checkpoint(torch.nn.Linear(2, 2)), "may contain code"),
    "empty.ckpt": (b"", "damaged or not a checkpoint"),
    "zeros.ckpt": (b"\0" * 5000, "may contain code|damaged"),
    "zip.ckpt": (zipped(a="text"), "damaged|may contain code"),
    "cut.ckpt": (checkpoint({"state_dict": {"a": torch.zeros(1000)}})[:2000], "damaged|may contain code"),
    "state.ckpt": (checkpoint({"state_dict": {"a": torch.zeros(2)}}), "not a checkpoint that this version"),
    "facts.ckpt": (
        checkpoint({"state_dict": {}, "zoo": {"pairing": {"encoder": 3, "decoder": []}}}),
        "not a checkpoint that this version",
    ),
    "no state.ckpt": (checkpoint({"state_dict": [1], "zoo": RESNET}), "not a checkpoint that this version"),
    "numbered.ckpt": (checkpoint({"state_dict": {1: torch.zeros(2)}, "zoo": RESNET}), "not a checkpoint that this version"),
    "list.ckpt": (checkpoint([1, 2, 3]), "not a checkpoint that this version"),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_malformed_checkpoint_is_told(name, tmp_path, command_line):
    content, told = MODELS[name]
    (tmp_path / name).write_bytes(content)
    check_refused(tmp_path / name, told, tmp_path, command_line)


CONFIGS = {
    "tags": (lambda facts: "!!python/object/apply:os.system ['touch /tmp/zoo-was-here']", "not valid YAML"),
    "no yaml": (lambda facts: "a: [1, 2", "not valid YAML"),
    "list": (lambda facts: "- 1\n- 2", "must contain keys and values"),
    "empty": (lambda facts: "", "must contain keys and values"),
    "bytes": (lambda facts: "\0\0\0", "not valid YAML|could not be read"),
    "types": (lambda facts: facts.update(weights=7, classes="road", format="one"), "classes: .*"),
    "later format": (lambda facts: facts.update(format=99), "format"),
    "outside": (lambda facts: facts.update(weights="../../etc/passwd"), "weights"),
    "pairing": (lambda facts: facts["pairing"].update(classes=-1), "at least 1; found -1"),
    "unknown encoder": (lambda facts: facts["pairing"].update(encoder="timm:resnet_of_tomorrow"), "not installed here"),
    "hash": (lambda facts: facts.update(sha256="0" * 64), "does not match the checksum in the config.yaml next to it"),
    "no weights": (lambda facts: facts.update(weights="other.safetensors"), "could not be read"),
    "fewer names": (lambda facts: facts.update(classes=["road"]), "1 classes for a model of 2 classes"),
    "more colors": (lambda facts: facts.update(colors=[[0, 0, 0]] * 3), "3 colors for a model of 2 classes"),
    "normalization": (lambda facts: facts["preprocessing"].update(mean="gray"), "preprocessing.mean"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_malformed_saved_model_is_told(name, saved, tmp_path, command_line):
    change, told = CONFIGS[name]
    rewritten(saved, tmp_path / "model", change)
    check_refused(tmp_path / "model", told, tmp_path, command_line)


@pytest.mark.parametrize("cut", [0, 7, 100, 5000], ids=lambda cut: f"{cut} bytes")
def test_weights_that_are_cut_are_told(cut, saved, tmp_path, command_line):
    rewritten(saved, tmp_path / "model", lambda facts: None)
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:cut])
    check_refused(tmp_path / "model", "truncated or altered", tmp_path, command_line)


def test_numbers_that_pytorch_has_not_are_told(saved, tmp_path, command_line):
    header = json.dumps({"a": {"dtype": "F6_E2M3", "shape": [4], "data_offsets": [0, 3]}}).encode()
    content = len(header).to_bytes(8, "little") + header + bytes(3)
    rewritten(saved, tmp_path / "model", lambda facts: facts.update(sha256=hashlib.sha256(content).hexdigest()))
    (tmp_path / "model/model.safetensors").write_bytes(content)
    check_refused(tmp_path / "model", "cannot be read as safetensors", tmp_path, command_line)


def linked_to(target):
    return lambda path: path.symlink_to(target)


NOT_REGULAR = {
    "pipe": (os.mkfifo, "is a named pipe"),
    "device": (linked_to("/dev/zero"), "is a device"),
    "loop": (lambda path: path.symlink_to(path.name), "Too many levels of symbolic links"),
    "folder": (os.mkdir, "is a folder"),
}


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_a_saved_models_file_that_is_no_regular_one_is_told(name, kind, saved, tmp_path):
    make, told = NOT_REGULAR[kind]
    rewritten(saved, tmp_path / "model", lambda facts: None)
    (tmp_path / "model" / name).unlink()
    make(tmp_path / "model" / name)
    with pytest.raises(zoo.ZooError, match=rf"{name} could not be read: .*{told}"):
        zoo.load(tmp_path / "model")


@pytest.mark.parametrize("kind", NOT_REGULAR)
@pytest.mark.parametrize(
    "arguments",
    [
        ("bench", "odd.yaml"),
        ("train", "odd.yaml"),
        ("predict", "odd.ckpt", "image.png", "-o", "out"),
        ("predict", "model", "image.png", "-o", "out", "--plugin", "odd.py"),
        ("runs", "--store", "odd.sqlite"),
    ],
    ids=["bench", "train", "model", "plugin", "store"],
)
def test_a_file_that_is_no_regular_one_is_told(arguments, kind, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(picture())
    make, told = NOT_REGULAR[kind]
    make(next(tmp_path / argument for argument in arguments if argument.startswith("odd")))
    status, shown, errors = command_line(*arguments)
    assert (status, shown) == (2, "")
    assert "odd" in errors
    assert told in errors or kind == "folder"  # a folder may be a saved model
    assert not (tmp_path / "out").exists()


OUTPUTS = {
    "predict": ("predict", "{model}", "image.png", "--output", "{}"),
    "train": ("train", "timm:test_resnet", "unet-basic", "--data", "data", "--output", "{}", "--set", "device=cpu"),
    "bench": ("bench", "run.yaml", "--output", "{}.csv"),
    "export": ("export", "{model}", "--output", "{}.pt2"),
    "new": ("new", "decoder", "mine", "--output", "{}"),
}


@pytest.mark.parametrize(
    "output", ["loop", "long" * 70, "loop/within", "image.png/within"], ids=["loop", "long", "in-loop", "in-file"]
)
@pytest.mark.parametrize("command", OUTPUTS)
def test_an_output_that_no_file_can_have_is_told(command, output, saved, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "image.png").write_bytes(picture())
    for folder, content in (("images", picture()), ("masks", picture("L"))):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for number in range(6):
            (tmp_path / "data" / folder / f"{number}.png").write_bytes(content)
    (tmp_path / "run.yaml").write_text("name: a\npairings: [{encoder: resnet18, decoder: unet-basic}]", encoding="utf-8")
    arguments = [argument.format(output, model=saved) for argument in OUTPUTS[command]]
    place = next(argument for argument in arguments if argument.startswith(output))
    if output == "loop":
        (tmp_path / place).symlink_to(place)
    elif output == "loop/within":
        (tmp_path / "loop").symlink_to("loop")
    before = contents(tmp_path)
    status, shown, errors = command_line(*arguments)
    assert (status, shown) == (2, "")
    assert errors.count("Error: ") == 1
    assert contents(tmp_path) == before


def test_a_model_is_not_saved_where_no_folder_can_be(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    model = zoo.build("timm:test_resnet", "unet-basic")
    for name in ("loop", "loop/within", "long" * 70, "null\0"):
        with pytest.raises(zoo.errors.OptionError, match="cannot be written"):
            zoo.save(model, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


@pytest.mark.parametrize("kind", NOT_REGULAR)
def test_weights_and_pictures_that_are_no_regular_files_are_told(kind, saved, tmp_path):
    make, told = NOT_REGULAR[kind]
    for name in ("odd.pth", "odd.png"):
        make(tmp_path / name)
    with pytest.raises(zoo.errors.WeightsError, match=r"odd\.pth"):
        zoo.build("resnet18", "unet-basic", weights=str(tmp_path / "odd.pth"))
    with pytest.raises(zoo.errors.DataError, match=rf"odd\.png: .*{told}"):
        zoo.Predictor(zoo.load(saved), device="cpu")(tmp_path / "odd.png")


def test_weights_that_claim_to_be_huge_are_refused_before_they_are_read(saved, tmp_path):
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**28], "data_offsets": [0, 2**30]}}).encode()
    rewritten(saved, tmp_path / "model", lambda facts: None)
    with (tmp_path / "model/model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(file.tell() + 2**30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(zoo.errors.WeightsError, match="has 268,435,456 values, but the model has"):
        zoo.load(tmp_path / "model")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB: half of what it claims


@pytest.mark.parametrize("given", ["steps=", "size= ", "size=99999999", "size=[99999999, 2]"])
def test_a_setting_without_a_value_or_beyond_any_memory_is_told(given, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("train", "timm:test_resnet", "unet-basic", "--data", "texture-mosaic", "--set", given)
    status, shown, errors = command_line(*asked)
    assert (status, shown) == (2, "")
    assert ("the value is missing" in errors) is given.strip().endswith("=")
    assert "99999999" in errors or "the value is missing" in errors
    assert list(tmp_path.iterdir()) == []


def test_control_characters_of_a_saved_models_plugins_are_not_shown(saved, tmp_path):
    def change(facts):
        for plugin in facts["plugins"].values():
            plugin.update(distribution="sly\x1b]0;title\x07", version="0\u202e")

    rewritten(saved, tmp_path / "model", change)
    with pytest.warns(UserWarning, match="was saved with") as told:
        zoo.load(tmp_path / "model")
    assert not {"\x1b", "\x07", "\u202e"} & set("".join(str(each.message) for each in told))


def test_a_configuration_that_is_huge_is_not_read(tmp_path):
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(2**36)
    with pytest.raises(zoo.errors.ConfigError, match=r"huge\.yaml has 68,719,476,736 bytes"):
        zoo.Pairing.from_yaml(tmp_path / "huge.yaml")


RUNS = {
    "tags.yaml": ("name: !!python/object/apply:os.system ['touch /tmp/zoo-was-here']", "not valid YAML"),
    "types.yaml": ("name: 3\nencoders: resnet18\nbatch: [many]", "encoders: "),
    "unknown.yaml": ("name: a\nencoder: resnet18", "encoder: unknown key"),
    "twice.yaml": ("name: a\nname: b", "is given twice"),
    "twice-in-other-words.yaml": ("name: {1: a, 0x1: b}", "is given twice"),
    "size.yaml": ("name: a\nsize: 99999999", "a side must be a whole number from 1 to 131,072|size"),
    "bomb.yaml": ("a: &a [x]\nb: &b [*a, *a]\nname: c\nencoders: *b\ndecoders: *b", "unknown key|encoders"),
    "binary.yaml": (json.dumps({"name": "a"}) + "\x00", "not valid YAML|could not be read"),
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("command", ["bench", "train"])
def test_a_malformed_configuration_is_told(command, name, tmp_path, command_line, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, told = RUNS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    before = contents(tmp_path)
    status, _, errors = command_line(command, name)
    assert status == 2
    assert name in errors
    if command == "bench":
        assert any(part in errors for part in told.split("|"))
    assert "Traceback" not in errors
    assert contents(tmp_path) == before


def check_refused(model, told, tmp_path, command_line):
    """A model that is none: told, before anything is written; what is beside it stays, and no code of it runs."""
    (tmp_path / "good.png").write_bytes(picture())
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine", encoding="utf-8")
    before = contents(tmp_path)
    status, shown, errors = command_line("predict", model, tmp_path / "good.png", "-o", tmp_path / "out", "--device", "cpu")
    assert (status, shown) == (2, "")
    assert str(model) in errors
    assert any(part.removesuffix(".*") in errors for part in told.split("|")), errors
    assert "Traceback" not in errors
    assert contents(tmp_path) == before
    assert not os.path.exists("/tmp/zoo-was-here")  # noqa: PTH110

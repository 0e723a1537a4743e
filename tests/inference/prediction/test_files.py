"""`zoo predict` and `zoo.predict_files`: a mask for each image, whole; what is broken is told, and nothing is lost."""

from __future__ import annotations

import os
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.formats.files import read_array
from zoo.inference.prediction.georeference import georeference_of

rasterio = pytest.importorskip("rasterio")

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    built = zoo.build("timm:test_resnet", "unet-basic", classes=3).eval()
    return zoo.save(built, tmp_path_factory.mktemp("saved") / "model", classes=["road", "wall", "sky"])


@pytest.fixture(scope="module")
def predictor(model):
    return zoo.Predictor(model, device="cpu", tile=64, batch=2)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


PLACE = rasterio.Affine(10, 0, 500000, 0, -10, 5000000)


def write_scene(path, bands, **options):
    """Write bands (channels, H, W) as a GeoTIFF, and return its path."""
    count, height, width = bands.shape
    facts = {"count": count, "height": height, "width": width, "dtype": bands.dtype.name} | options
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32632", transform=PLACE, **facts) as file:
        file.write(bands)
    return path


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for name, size in (("a.png", (40, 50)), ("b.jpg", (40, 50)), ("c.png", (40, 50)), ("more/d.bmp", (33, 47))):
        Image.fromarray(noise(*size, 3)).save(folder / name)
    np.save(folder / "more/large.npy", noise(100, 150, 3))
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(b"")
    return folder


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_keeps_its_shape_and_each_mask_is_what_the_predictor_gives(predictor, images, tmp_path):
    shares = {}
    found = zoo.predict_files(predictor, [images], tmp_path / "out", progress=lambda path, share: shares.update({path: share}))
    assert names(tmp_path / "out") == ["a.png", "b.png", "c.png", "more/d.png", "more/large.png"]
    assert len(found.masks) == 5
    assert found.failed == {}
    for image, mask in found.masks.items():
        with Image.open(mask) as picture:
            assert (np.array(picture) == predictor(image).mask).all()
            assert picture.getpalette()[:9] == [part for color in predictor.colors for part in color]
    assert set(shares.values()) == {1.0}
    assert len(shares) == 5


def test_probabilities_and_overlays_are_written_beside(predictor, images, tmp_path):
    out = tmp_path / "out"
    zoo.predict_files(predictor, [images / "a.png", images / "more"], out, probabilities=True, overlay=True)
    assert names(out) == sorted(
        f"{name}{end}" for name in ["a", "d", "large"] for end in ("-overlay.jpg", "-probabilities.npy", ".png")
    )
    for name, image in (("a", images / "a.png"), ("large", images / "more/large.npy")):
        kept = np.load(out / f"{name}-probabilities.npy")
        assert kept.dtype == np.float16
        assert kept == pytest.approx(predictor(image, probabilities=True).probabilities, abs=1e-3)
    with Image.open(out / "d-overlay.jpg") as overlay:
        assert overlay.size == (47, 33)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="the system reserves no space")
def test_the_space_for_probabilities_is_taken_before_they_are_computed(predictor, images, tmp_path):
    shares = []

    def look(path, share):
        drafts = [draft.stat() for draft in (tmp_path / "out").glob(".large-probabilities.*")]
        shares.extend(draft.st_blocks * 512 / draft.st_size for draft in drafts)

    np.save(images / "more/large.npy", noise(500, 500, 3))
    zoo.predict_files(predictor, [images / "more/large.npy"], tmp_path / "out", probabilities=True, progress=look)
    assert len(shares) > 1
    assert min(shares) >= 1


def test_a_broken_image_is_told_and_the_others_are_done(predictor, images, tmp_path):
    (images / "b.jpg").write_bytes((images / "b.jpg").read_bytes()[:500])
    np.save(images / "more/nan.npy", np.full((40, 50, 3), np.nan, np.float32))
    np.save(images / "more/bands.npy", noise(40, 50, 7))
    found = zoo.predict_files(predictor, [images], tmp_path / "out")
    assert [path.name for path in found.failed] == ["b.jpg", "bands.npy", "nan.npy"]
    assert "broken" in found.failed[images / "b.jpg"]
    assert "7 channels, but the model expects 3" in found.failed[images / "more/bands.npy"]
    assert "not finite" in found.failed[images / "more/nan.npy"]
    assert names(tmp_path / "out") == ["a.png", "c.png", "more/d.png", "more/large.png"]


def test_an_image_that_the_model_fails_on_is_told_and_the_others_are_done(model, images, tmp_path):
    def fail(module, given):
        if given[0].shape[-2:] == (33, 47):
            raise KeyError("p5")

    loaded = zoo.load(model)
    loaded.register_forward_pre_hook(fail)
    found = zoo.predict_files(zoo.Predictor(loaded, device="cpu", tile=64, batch=2), [images], tmp_path / "out")
    failing = images / "more/d.bmp"
    assert found.failed == {failing: f"{failing}: The model fails on images (1, 3, 33, 47): KeyError: 'p5'"}
    assert len(found.masks) == 4


def test_a_geotiffs_mask_is_in_its_place(predictor, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 70, 90, dtype=np.uint16) * 200)
    found = zoo.predict_files(predictor, [scene], tmp_path / "out")
    with rasterio.open(found.masks[scene]) as file:
        assert (file.crs.to_epsg(), file.transform, file.dtypes) == (32632, PLACE, ("uint8",))
        assert (file.read(1) == predictor(scene).mask).all()
        assert file.colormap(1)[1] == (*predictor.colors[1], 255)
    with Image.open(found.masks[scene]) as picture:  # as programs see it that know no GeoTIFF
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.array(predictor.colors)[predictor(scene).mask])


def with_gap(bands, value):
    """Return bands that have no data in a corner, and in one band of one pixel elsewhere."""
    bands = bands.copy()
    bands[:, :20, :30] = value
    bands[1, 50, 60] = value
    return bands


@pytest.mark.parametrize("options", [{}, {"compress": "deflate"}, {"compress": "deflate", "tiled": True}])
@pytest.mark.parametrize(("dtype", "nodata"), [("float32", np.nan), ("float32", -3.4e38), ("int16", -9999), ("uint8", 255)])
def test_where_a_geotiff_has_no_data_its_mask_has_none_and_the_model_sees_0(predictor, tmp_path, dtype, nodata, options):
    bands = noise(3, 70, 90, dtype=dtype) % 250
    scene = write_scene(tmp_path / "scene.tif", with_gap(bands, nodata), nodata=nodata, **options)
    seen = with_gap(bands, 0)
    if dtype == "uint8":
        seen[1, 50, 60] = 255  # bright in one band, which may be so
    expected = predictor(seen.transpose(1, 2, 0)).mask
    assert (predictor(scene).mask == expected).all()
    found = zoo.predict_files(predictor, [scene], tmp_path / "out", overlay=True)
    with rasterio.open(found.masks[scene]) as file:
        assert file.nodata == 255
        written = file.read(1)
    assert (written[:20, :30] == 255).all()
    written[:20, :30] = expected[:20, :30]
    assert (written == expected).all()


def test_where_a_geotiff_has_a_mask_of_its_own_so_has_its_mask(predictor, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 70, 90))
    valid = noise(70, 90) > 100
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(scene, "r+") as file:
        file.write_mask(valid)
    found = zoo.predict_files(predictor, [scene], tmp_path / "out")
    with rasterio.open(found.masks[scene]) as file:
        assert np.array_equal(file.read(1), np.where(valid, predictor(scene).mask, 255))


def test_a_geotiffs_opacity_of_0_is_no_data(predictor, tmp_path):
    bands = noise(4, 70, 90)
    bands[3] = 255
    bands[3, 40:, 50:] = 0
    scene = write_scene(tmp_path / "scene.tif", bands, photometric="RGB", alpha="YES")
    found = zoo.predict_files(predictor, [scene], tmp_path / "out")
    with rasterio.open(found.masks[scene]) as file:
        assert ((file.read(1) == 255) == (bands[3] == 0)).all()


def test_nodata_that_is_a_class_or_that_the_numbers_cannot_be_changes_nothing(tmp_path):
    torch.manual_seed(0)
    many = zoo.Predictor(zoo.build("timm:test_resnet", "unet-basic", classes=256), device="cpu", tile=64)
    bands = with_gap(noise(3, 70, 90), 0)
    scene = write_scene(tmp_path / "scene.tif", bands, nodata=0)
    found = zoo.predict_files(many, [scene], tmp_path / "out")
    with rasterio.open(found.masks[scene]) as file:
        assert file.nodata is None
        assert (file.read(1) == many(bands.transpose(1, 2, 0)).mask).all()
    tifffile = pytest.importorskip("tifffile")
    for text in ("nan", "-9999", "0.5", "none"):
        tifffile.imwrite(tmp_path / "image.tif", bands.transpose(1, 2, 0), extratags=[(42113, "s", 0, text, True)])
        assert (many(tmp_path / "image.tif").mask == many(bands.transpose(1, 2, 0)).mask).all()


def test_files_that_are_read_at_once_leave_the_warnings_as_they_were(images, tmp_path):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 8, 8))
    before = list(warnings.filters)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda turn: read_array(images / "a.png") if turn % 2 else georeference_of(scene), range(300)))
        assert warnings.filters == before
    finally:
        sys.setswitchinterval(interval)
        warnings.filters[:] = before


def test_without_rasterio_the_lost_place_is_told(predictor, tmp_path, monkeypatch):
    scene = write_scene(tmp_path / "scene.tif", noise(3, 32, 32))
    monkeypatch.setitem(sys.modules, "rasterio", None)
    found = zoo.predict_files(predictor, [scene], tmp_path / "out")
    assert found.masks[scene].suffix == ".png"
    assert "pip install 'segmentation-zoo[geo]'" in found.notes[0]


def test_what_is_there_already_is_kept_skipped_or_replaced_as_asked(predictor, images, tmp_path):
    out = tmp_path / "out"
    zoo.predict_files(predictor, [images / "a.png"], out)
    (out / "a.png").write_bytes(b"mine")
    with pytest.raises(zoo.errors.OptionError, match=r"These results already exist: .*a\.png\. Use.*'skip'.*'replace'"):
        zoo.predict_files(predictor, [images], out)
    assert names(out) == ["a.png"]
    found = zoo.predict_files(predictor, [images], out, existing="skip")
    assert (len(found.masks), found.num_skipped) == (4, 1)
    assert (out / "a.png").read_bytes() == b"mine"
    zoo.predict_files(predictor, [images], out, existing="replace")
    assert (out / "a.png").read_bytes() != b"mine"


def test_an_image_is_never_lost_to_a_mask(predictor, images):
    with pytest.raises(zoo.errors.OptionError, match=r"a\.png would be overwritten"):
        zoo.predict_files(predictor, [images], images, existing="replace")
    assert (images / "a.png").stat().st_size > 1000


def test_an_image_is_never_lost_to_an_overlay_or_to_probabilities(predictor, images):
    for name in ("b-overlay.jpg", "b-probabilities.npy"):
        (images / name).write_bytes(b"mine")
    (images / "a.png").unlink()
    (images / "c.png").unlink()
    for option in ("overlay", "probabilities"):
        with pytest.raises(zoo.errors.OptionError, match=f"b-{option}.* would be overwritten"):
            zoo.predict_files(predictor, [images], images, existing="replace", **{option: True})
        assert (images / f"b-{option}").with_suffix(".jpg" if option == "overlay" else ".npy").read_bytes() == b"mine"


def test_one_path_will_do_and_a_file_named_in_two_ways_is_predicted_once(predictor, images, tmp_path, monkeypatch):
    (images / "tiles.png").mkdir()
    monkeypatch.chdir(images)
    assert len(zoo.predict_files(predictor, str(images), tmp_path / "one").masks) == 5
    found = zoo.predict_files(predictor, ["a.png", images / "a.png"], tmp_path / "out")
    assert (len(found.masks), found.failed) == (1, {})


def test_two_images_of_one_name_are_refused(predictor, images, tmp_path):
    Image.fromarray(noise(40, 50, 3)).save(images / "a.jpg")
    with pytest.raises(zoo.errors.DataError, match=r"a\.jpg and .*a\.png would have the same name"):
        zoo.predict_files(predictor, [images], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_within_the_images_is_not_predicted_again(predictor, images):
    first = zoo.predict_files(predictor, [images], images / "masks")
    again = zoo.predict_files(predictor, [images], images / "masks", existing="replace")
    assert set(first.masks) == set(again.masks)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["nowhere"], "no file or folder named nowhere"),
        ([], "There is no image to predict"),
        (["."], "contains no images with a supported suffix"),
    ],
)
def test_a_path_that_has_no_image_is_told(predictor, tmp_path, monkeypatch, given, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(zoo.errors.DataError, match=told):
        zoo.predict_files(predictor, given, "out")


@pytest.mark.parametrize("name", ["..png", "...png", "..", "...", "a..png"])
def test_an_image_of_an_odd_name_has_its_mask_in_the_folder(predictor, tmp_path, name):
    (tmp_path / "in").mkdir()
    image = tmp_path / "in" / (name if name != ".." else "...x")
    Image.new("RGB", (32, 32)).save(image, "PNG")
    found = zoo.predict_files(predictor, [image], tmp_path / "out", overlay=True, probabilities=True)
    assert found.failed == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    stem = image.name.removesuffix(image.suffix)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"{stem}{end}" for end in (".png", "-overlay.jpg", "-probabilities.npy")
    }


@pytest.mark.parametrize("existing", ["error", "skip", "replace"])
@pytest.mark.parametrize("what", ["folder", "loop", "pipe"])
def test_what_no_mask_can_replace_is_told_before_anything_is_written(predictor, tmp_path, existing, what):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    place = tmp_path / "out/a.png"
    place.parent.mkdir()
    {"folder": os.mkdir, "loop": lambda path: path.symlink_to(path.name), "pipe": os.mkfifo}[what](place)
    with pytest.raises(zoo.errors.OptionError, match=r"a\.png cannot be written"):
        zoo.predict_files(predictor, [tmp_path / "b.png", tmp_path / "a.png"], tmp_path / "out", existing=existing)
    assert [path.name for path in place.parent.iterdir()] == ["a.png"]


def test_an_output_that_cannot_be_written_is_told(predictor, images, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(zoo.errors.OptionError, match="is not a folder, but the output must be a folder"):
        zoo.predict_files(predictor, [images], tmp_path / "file")
    with pytest.raises(zoo.errors.OptionError, match="cannot be written"):
        zoo.predict_files(predictor, [images], tmp_path / "file/within")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_told(predictor, images, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(zoo.errors.OptionError, match="cannot be written"):
        zoo.predict_files(predictor, [images], tmp_path / "out")


def test_the_command_line_predicts_and_says_so(model, images, tmp_path, command_line):
    out = tmp_path / "out"
    status, told, errors = command_line("predict", model, images, "-o", out, "--tile", "64", "--device", "cpu", "--overlay")
    assert (status, errors) == (0, "")
    assert told == f"5 masks in {out}.\n"
    status, told, _ = command_line("predict", model, images, "-o", out, "--overlay", "--existing", "skip", "--device", "cpu")
    assert (status, told) == (0, f"0 masks in {out}, 5 skipped, done already.\n")


def test_the_command_line_ends_with_2_where_an_image_is_broken(model, images, tmp_path, command_line):
    (images / "b.jpg").write_bytes(b"")
    status, told, errors = command_line("predict", model, images, "-o", tmp_path / "out", "--device", "cpu")
    assert status == 2
    assert told == f"4 masks in {tmp_path / 'out'}.\n"
    assert "1 image could not be predicted" in errors
    assert str(images / "b.jpg") in errors


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--tile", "big"], "--tile big: give a side length in pixels, 'auto' or 'none'"),
        (["--tile", "50"], "such as 64; found 50"),
        (["--device", "gpu"], "'gpu' cannot be used here"),
        (["--overlap", "1000"], "half of a tile"),
        (["--existing", "ask"], "ask"),
    ],
)
def test_a_wrong_option_ends_with_2(model, images, tmp_path, command_line, arguments, told):
    status, _, errors = command_line("predict", model, images, "-o", tmp_path / "out", *arguments)
    assert status == 2
    assert told in errors
    assert not (tmp_path / "out").exists()


def odd_link(folder):
    (folder / "loop.png").symlink_to("loop.png")
    return folder / "loop.png"


def odd_links(folder):
    (folder / "one.png").symlink_to("two.png")
    (folder / "two.png").symlink_to("one.png")
    return folder / "one.png"


def nothing_behind(folder):
    (folder / "gone.png").symlink_to("no-such-file.png")
    return folder / "gone.png"


def pipe(folder):
    os.mkfifo(folder / "pipe.png")
    return folder / "pipe.png"


def listening(folder):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(folder / "socket.png"))
    return folder / "socket.png"


@pytest.mark.parametrize("make", [odd_link, odd_links, nothing_behind, pipe, listening])
@pytest.mark.parametrize("by_folder", [True, False])
def test_what_is_no_file_fails_alone(make, by_folder, predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "images"
    folder.mkdir()
    Image.fromarray(noise(20, 20, 3)).save(folder / "good.png")
    odd = make(folder)
    found = zoo.predict_files(predictor, folder if by_folder else [odd, folder / "good.png"], tmp_path / "out")
    assert list(found.masks) == [folder / "good.png"]
    assert odd in found.failed
    assert str(odd) in found.failed[odd]


@pytest.mark.parametrize("tile", [64, 32])
def test_a_name_as_long_as_can_be_is_predicted_and_one_too_long_for_what_is_asked_fails_alone(model, tile, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    long, longest = folder / f"{'a' * 248}.png", folder / f"{'ä' * 125}b.png"
    for path in (long, longest, folder / "good.png"):
        Image.fromarray(noise(40, 40, 3)).save(path)
    predictor = zoo.Predictor(model, device="cpu", tile=tile, overlap=4)
    assert set(zoo.predict_files(predictor, folder, tmp_path / "out").masks) == {long, longest, folder / "good.png"}
    found = zoo.predict_files(predictor, folder, tmp_path / "more", probabilities=True, overlay=True)
    assert list(found.masks) == [folder / "good.png"]
    assert all("is too long a file name" in told for told in found.failed.values())
    assert names(tmp_path / "more") == ["good-overlay.jpg", "good-probabilities.npy", "good.png"]

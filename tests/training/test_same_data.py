"""A run is known by the content of its data: with other images or masks under the same name it does not go on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import Subset

import zoo
from zoo import SegmentationData
from zoo.data.fingerprint import fingerprint_of_samples, random_parts
from zoo.data.folders.scan import scan_folder

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Lightning's own, on import
]
OPTIONS = {"steps": 2, "batch": 2, "validations": 0}


def folder_of(place, seed=0, count=6):
    """Make a folder whose parts are fixed: images of noise, and masks of two halves."""
    random = np.random.default_rng(seed)
    for part, number in (("train", count), ("validation", 2), ("test", 2)):
        for name in ("images", "masks"):
            (place / part / name).mkdir(parents=True)
        for index in range(number):
            image = random.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            mask = np.zeros((32, 32), dtype=np.uint8)
            mask[:, random.integers(8, 24) :] = 1
            Image.fromarray(image).save(place / part / "images" / f"{index}.png")
            Image.fromarray(mask).save(place / part / "masks" / f"{index}.png")
    return place


def trained(data, output, **options):
    return zoo.train("timm:test_resnet", "unet-basic", data, output=output, **OPTIONS, **options)


def encoder_weights(path, seed):
    torch.manual_seed(seed)
    torch.save(zoo.build("timm:test_resnet", "unet-basic").encoder.state_dict(), path)
    return str(path)


def test_another_file_of_weights_of_the_same_name_is_refused(tmp_path):
    path = encoder_weights(tmp_path / "encoder.pth", 1)
    first = trained(noise(), tmp_path / "run", weights=path)
    assert trained(noise(), tmp_path / "run", weights=path) == first
    encoder_weights(tmp_path / "encoder.pth", 2)
    with pytest.raises(zoo.errors.ConfigError, match=r"other settings, which differ in files\.encoder\.pth\. Use another"):
        trained(noise(), tmp_path / "run", weights=path)


def test_another_content_of_a_plugin_file_is_refused(tmp_path, command_line, fresh_registry):
    folder_of(tmp_path / "cells")
    (tmp_path / "run.yaml").write_text(
        f"encoder: timm:test_resnet\ndecoder: sum\ndata: cells\nplugins: [sum.py]\noutput: {tmp_path / 'run'}\n"
        "steps: 1\nbatch: 2\nvalidations: 0\n",
        encoding="utf-8",
    )
    plugin = tmp_path / "sum.py"
    shutil.copy(Path(__file__).parents[2] / "docs/examples/sum_decoder.py", plugin)
    for _ in range(2):
        status, _, stderr = command_line("train", str(tmp_path / "run.yaml"))
        assert status == 0, stderr
    plugin.write_text(plugin.read_text(encoding="utf-8").replace("sum(F", "-5 * sum(F"), encoding="utf-8")
    status, _, stderr = command_line("train", str(tmp_path / "run.yaml"))
    assert status == 2
    assert "which differ in files.sum.py" in " ".join(stderr.split())


def test_another_folder_of_the_same_name_is_refused_and_what_was_trained_stays(tmp_path):
    first = trained(folder_of(tmp_path / "a/cells"), tmp_path / "run")
    kept = (tmp_path / "run/result.json").read_bytes(), (tmp_path / "run/last.ckpt").read_bytes()
    with pytest.raises(zoo.errors.ConfigError, match=r"data differs from .*: \d+ changed \(.+\)\. .* use another --output"):
        trained(folder_of(tmp_path / "b/cells", seed=1), tmp_path / "run")
    assert kept == ((tmp_path / "run/result.json").read_bytes(), (tmp_path / "run/last.ckpt").read_bytes())
    assert trained(tmp_path / "a/cells", tmp_path / "run") == first


def changed_mask(folder):
    path = folder / "train/masks/1.png"
    Image.fromarray(1 - np.asarray(Image.open(path))).save(path)


def new_pair(folder):
    for name in ("images", "masks"):
        shutil.copy(folder / "train" / name / "0.png", folder / "train" / name / "new.png")


def lost_pair(folder):
    for name in ("images", "masks"):
        (folder / "test" / name / "0.png").unlink()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (changed_mask, r"1 changed \(train/masks/1\.png\)"),
        (new_pair, r"2 new \(train/images/new\.png, train/masks/new\.png\)"),
        (lost_pair, r"2 gone \(test/images/0\.png, test/masks/0\.png\)"),
    ],
)
@pytest.mark.parametrize("is_finished", [True, False])
def test_files_that_were_changed_added_or_removed_are_named(tmp_path, change, named, is_finished):
    folder = folder_of(tmp_path / "cells")
    trained(folder, tmp_path / "run")
    if not is_finished:
        (tmp_path / "run/result.json").unlink()
    change(folder)
    with pytest.raises(zoo.errors.ConfigError, match=named):
        trained(folder, tmp_path / "run")


def test_a_copy_of_the_data_under_another_path_goes_on(tmp_path):
    first = trained(folder_of(tmp_path / "a/cells"), tmp_path / "run")
    shutil.copytree(tmp_path / "a/cells", tmp_path / "b/cells", copy_function=shutil.copyfile)
    assert trained(tmp_path / "b/cells", tmp_path / "run") == first


def test_other_shares_of_an_undivided_folder_are_other_data(tmp_path):
    folder = tmp_path / "cells"
    shutil.move(folder_of(tmp_path / "made", count=30) / "train", folder)
    trained(zoo.open_data(folder, test=0.2), tmp_path / "run")
    with pytest.raises(zoo.errors.ConfigError, match=r"data differs from .*: test differs"):
        trained(zoo.open_data(folder, test=0.3), tmp_path / "run")


def test_the_second_start_does_not_read_files_that_stayed_as_they_were(tmp_path):
    folder = folder_of(tmp_path / "cells")
    trained(folder, tmp_path / "run")
    scans = json.loads((tmp_path / "run/data.json").read_text(encoding="utf-8"))["scans"]
    for path in (folder / "train/images").iterdir():  # what is not read cannot be found to be broken
        stat = path.stat()
        path.write_bytes(b"x" * stat.st_size)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert scan_folder(folder, earlier_scans=scans).problems == ()
    assert len(scan_folder(folder).problems) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"size": [-1, 32]},
        {"size": [32]},
        {"size": "32"},
        {"channels": 3.5},
        {"low": float("nan")},
        {"high": 10**400},
        {"values": 7},
        {"values": [[0, -5]]},
        {"values": [[0]]},
        {"dtype": None},
        {"more": 1},
    ],
)
def test_a_scan_with_facts_that_cannot_be_is_repeated(tmp_path, changes):
    folder = folder_of(tmp_path / "cells")
    scans = json.loads(json.dumps(scan_folder(folder).scans))
    damaged = {name: scan | {"facts": scan["facts"] | changes} for name, scan in scans.items()}
    assert json.loads(json.dumps(scan_folder(folder, earlier_scans=damaged).scans)) == scans
    assert scan_folder(folder, earlier_scans={name: [1] for name in scans}).problems == ()


def test_a_damaged_record_of_the_data_is_reported(tmp_path):
    folder = folder_of(tmp_path / "cells")
    trained(folder, tmp_path / "run")
    (tmp_path / "run/data.json").write_text("{", encoding="utf-8")
    with pytest.raises(zoo.errors.DataError, match=r"data\.json is damaged"):
        trained(folder, tmp_path / "run")


class Noise:
    """Samples of a user's own; `is_random` draws others in each call, as an augmentation does."""

    def __init__(self, count, seed=0, *, is_random=False):
        self.count, self.seed, self.is_random = count, seed, is_random
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        generator = self.generator if self.is_random else torch.Generator().manual_seed(1000 * self.seed + index)
        return torch.rand(3, 32, 32, generator=generator), torch.randint(0, 2, (32, 32), generator=generator)


def noise(seed=0, count=6, **options):
    parts = {"train": Noise(count, seed, **options), "validation": Noise(2, 7), "test": Noise(2, 8)}
    return SegmentationData(name="noise", classes=("a", "b"), size=(32, 32), **parts)


def test_other_samples_of_a_data_set_of_ones_own_are_refused(tmp_path):
    first = trained(noise(), tmp_path / "run")
    assert trained(noise(), tmp_path / "run") == first
    with pytest.raises(
        zoo.errors.ConfigError, match=r"data differs from .*: 6 changed \(train/0, train/1, train/2 and 3 more\)"
    ):
        trained(noise(seed=1), tmp_path / "run")


def test_a_part_that_draws_its_samples_is_known_by_its_length(tmp_path):
    first = trained(noise(is_random=True), tmp_path / "run")
    assert trained(noise(is_random=True), tmp_path / "run") == first
    with pytest.raises(zoo.errors.ConfigError, match="the length of the train part differs"):
        trained(noise(is_random=True, count=7), tmp_path / "run")


class Flipped(Noise):
    """The same images each time, but turned round by chance."""

    share = 0.5

    def __getitem__(self, index):
        image, mask = Noise(self.count, self.seed)[index]
        is_flipped = float(torch.rand((), generator=self.generator)) < self.share
        return (image.flip(-1), mask.flip(-1)) if is_flipped else (image, mask)


class Cropped(Flipped):
    """Likewise."""


@pytest.mark.parametrize("count", [1, 3, 70])
@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_part_that_is_varied_by_chance_is_never_taken_for_fixed(count, share):
    for seed in range(10):
        data = replace(noise(), train=(samples := Flipped(count, seed)))
        samples.share = share
        assert random_parts(fingerprint_of_samples(data.parts())) == ["train"]


def test_a_run_on_samples_that_are_varied_by_chance_goes_on_and_says_what_is_not_known(tmp_path, caplog):
    first = trained(replace(noise(), train=Flipped(6)), tmp_path / "run")
    assert "the samples of the train split differ each time they are read" in caplog.text
    for seed in range(1, 4):
        assert trained(replace(noise(), train=Flipped(6, seed)), tmp_path / "run") == first
    with pytest.raises(zoo.errors.ConfigError, match="the class of the train part differs"):
        trained(replace(noise(), train=Cropped(6)), tmp_path / "run")
    with pytest.raises(zoo.errors.ConfigError, match=r"1 changed \(test/0\)"):
        trained(replace(noise(), train=Flipped(6), test=Noise(1, 9)), tmp_path / "run")


def test_samples_that_take_long_are_read_twice_and_not_many_times(tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.data.fingerprint.REPEAT_SECONDS", -1.0)
    data = noise()
    reads = []

    class Counted(Noise):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    first = trained(replace(data, train=Counted(6)), tmp_path / "run")
    reads.clear()
    assert trained(replace(data, train=Counted(6)), tmp_path / "run") == first
    assert sorted(reads) == sorted([*range(6)] * 2)


def test_a_test_part_that_is_varied_by_chance_is_said(tmp_path, caplog):
    trained(replace(noise(), test=Flipped(2)), tmp_path / "run")
    assert "Two scores on the test split are measured on different images" in caplog.text


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_another_selection_of_an_opened_folders_samples_is_other_data(tmp_path, part):
    data = zoo.open_data(folder_of(tmp_path / "cells"))
    halves = [replace(data, **{part: Subset(getattr(data, part), [index])}) for index in range(2)]
    first = trained(halves[0], tmp_path / "run")
    assert trained(halves[0], tmp_path / "run") == first
    with pytest.raises(zoo.errors.ConfigError, match=f"data differs from .*: 1 changed \\({part}/0\\)"):
        trained(halves[1], tmp_path / "run")


def test_an_opened_folder_with_other_facts_beside_its_samples_keeps_its_fingerprint(tmp_path):
    data = zoo.open_data(folder_of(tmp_path / "cells"))
    assert replace(data, notes=(), classes=("ground", "cell")).fingerprint == data.fingerprint

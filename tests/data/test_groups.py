"""Images of one patient or scene stay in one part: by an expression, by a CSV file, and whatever is added later."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import zoo
from zoo import open_data
from zoo.data.folders.division import divide
from zoo.data.folders.layout import PARTS, UNDIVIDED, Pair
from zoo.training.config import load_train_config

SLICES = [f"patient_{patient:02}_slice_{number:03}" for patient in range(12) for number in range(4)]


def write(folder, names, part=""):
    for kind in ("images", "masks"):
        (folder / part / kind).mkdir(parents=True, exist_ok=True)
    for name in names:
        random = np.random.default_rng(list(name.encode()))
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / part / "images" / f"{name}.png")
        mask = np.zeros((8, 8), dtype=np.uint8)
        mask[:, 4:] = 1
        Image.fromarray(mask).save(folder / part / "masks" / f"{name}.png")
    return folder


def parts_of(data):
    """Return the part of each image by its name."""
    return {pair.image.stem: part for part, samples in data.parts() for pair in samples.pairs}


def groups_in(data, expression):
    """Return the groups of each part."""
    return {part: {re.search(expression, pair.image.stem)[0] for pair in samples.pairs} for part, samples in data.parts()}


@pytest.mark.parametrize("expression", ["patient_[0-9]+", "^(.*)_slice", "^(patient)_(?P<number>[0-9]+)|x"])
def test_images_of_a_group_are_in_one_part(tmp_path, expression):
    write(tmp_path, SLICES)
    if "|x" in expression:  # the first capturing group counts: all images are one group
        with pytest.raises(zoo.errors.DataError, match=r"1 group \(patient\) cannot be divided into 3 splits. Set validation"):
            open_data(tmp_path, group=expression)
        return
    data = open_data(tmp_path, group=expression, validation=0.2, test=0.2)
    groups = groups_in(data, "patient_[0-9]+")
    assert sum(map(len, groups.values())) == 12
    assert all(groups.values())
    (note,) = data.notes
    assert f"train has {len(groups['train'])} groups ({4 * len(groups['train'])} images)" in note


def test_images_that_are_added_to_a_group_move_no_other(tmp_path):
    write(tmp_path, SLICES)
    before = parts_of(open_data(tmp_path, group="patient_[0-9]+"))
    write(tmp_path, [f"patient_{patient:02}_slice_{number:03}" for patient in (2, 7) for number in (8, 9)])
    after = parts_of(open_data(tmp_path, group="patient_[0-9]+"))
    assert {name: after[name] for name in before} == before
    assert after["patient_02_slice_009"] == before["patient_02_slice_000"]


def test_without_groups_the_name_decides_as_ever(tmp_path):
    names = [hashlib.sha256(bytes([number])).hexdigest() for number in range(30)]
    data = open_data(write(tmp_path, names), validation=0.2, test=0.2)
    assert data.notes == ()
    for name, part in parts_of(data).items():
        position = int.from_bytes(hashlib.sha256(name.encode()).digest()[:6], "big") / 2**48
        assert part == ("test" if position < 0.2 else "validation" if position < 0.4 else "train")


def test_a_csv_file_has_the_groups(tmp_path, command_line, monkeypatch):
    write(tmp_path / "scans", names := [f"{number:x}" for number in range(20, 40)])
    spellings = ("{}", "{}.png", "images/{}.png")
    spelled = [spellings[index % 3].format(name) for index, name in enumerate(names)]
    lines = ["file,patient", *(f"{name},P{index // 4}" for index, name in enumerate(spelled)), "", "gone.png,P9"]
    (tmp_path / "groups.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    text = "encoder: timm:test_resnet\ndecoder: unet-basic\ndata: {source: scans, group: groups.csv}\n"
    (tmp_path / "run.yaml").write_text(text)
    entry = load_train_config(tmp_path / "run.yaml", {}).data
    assert entry.group == str(tmp_path / "groups.csv")
    data = open_data(entry.source, **entry.options())
    parts = parts_of(data)
    assert all(len({parts[name] for name in names[start : start + 4]}) == 1 for start in range(0, 20, 4))
    assert "groups.csv has 1 line without" in data.notes[0]
    assert "without an image in the folder: gone.png" in data.notes[0]
    monkeypatch.chdir(tmp_path)
    status, stdout, _ = command_line("data", "check", "run.yaml")
    assert status == 0
    assert "gone.png" in stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("name,group\na,1\nb,2\n", r"groups.csv has no line for 1 image: images/c.png. Every image needs a group"),
        ("name,group\na,1\nb,2\nc,3\na.png,2\n", "line 5 puts a.png into the group '2', but an earlier line puts it into '1'"),
        ("a,1\nb,2\nc,3\n", "the first line must be a header; found the image a. Add a header"),
        ("name;group\na;1\n", "line 1: an image and its group are expected, separated by a comma; found 'name;group'"),
        ("name,group\na,\n", "line 2: an image and its group are expected"),
        ("", "is empty. It must have a header"),
        ("name,group\na,\xff\n".encode("latin-1"), "is not a CSV file in UTF-8"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_csv_file_that_is_wrong_is_refused(tmp_path, content, told):
    write(tmp_path / "scans", ["a", "b", "c"])
    if content is not None:
        (tmp_path / "groups.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(zoo.errors.DataError, match=told):
        open_data(tmp_path / "scans", group=str(tmp_path / "groups.csv"))


def test_images_without_a_match_are_named(tmp_path):
    write(tmp_path, ["p1_a", "p2_b", "p3_c", "other", "another"])
    with pytest.raises(
        zoo.errors.DataError, match=r"the expression 'p\[0-9\]' has no match for 2 images: .*another.png, .*other.png"
    ):
        open_data(tmp_path, group="p[0-9]")


@pytest.mark.parametrize("expression", ["(", "[a-", "*a", "(?P<n", "", "a{1,99999999999999999999}"])
def test_an_expression_that_is_none_is_explained(tmp_path, expression):
    write(tmp_path, ["a"])
    with pytest.raises(zoo.errors.ConfigError, match=r"group: .*(is not a regular expression: |is expected; found '')"):
        open_data(tmp_path, group=expression)


def test_a_group_in_two_parts_of_a_divided_folder_is_named(tmp_path):
    for part, patients in (("train", (1, 2)), ("val", (3,)), ("test", (2, 4))):
        write(tmp_path, [f"p{patient}_{part}{number}" for patient in patients for number in range(2)], part)
    with pytest.raises(
        zoo.errors.DataError, match=r"the images of 1 group are in several splits: p2 \(test, train\). Move all images"
    ):
        open_data(tmp_path, group="p[0-9]+")
    data = open_data(tmp_path, group="^.*$")
    assert "test has 4 groups (4 images)" in data.notes[0]


def test_groups_are_part_of_what_identifies_the_data(tmp_path):
    write(tmp_path, SLICES)
    first, same, other = (open_data(tmp_path, group=each) for each in ("patient_[0-9]+", "patient_..", "patient_.+"))
    assert first.fingerprint == same.fingerprint
    assert first.fingerprint.differences(other.fingerprint) == "group differs"


def test_names_are_compared_however_unicode_writes_them(tmp_path):
    write(tmp_path, ["ä1", "b1", "c1"])
    lines = "name,group\na\u0308" + "1,1\nb1,2\nc1,3\n"
    (tmp_path / "groups.csv").write_text(lines, encoding="utf-8")
    assert len(parts_of(open_data(tmp_path, group=str(tmp_path / "groups.csv")))) == 3
    assert len(parts_of(open_data(tmp_path, group="^(a\u0308|b|c)"))) == 3


NAMES = {
    "slices": SLICES,
    "tiles": [f"scene{scene}-r{row:02}_c{column:02}" for scene in "abcdefgh" for row in range(3) for column in range(3)],
    "words": [f"case {case} slice {number}" for case in range(10) for number in range(3)],
    "numbers": [f"{case:04}_{number}" for case in range(20, 30) for number in range(4)],
}


WHOLES = {"slices": "patient_[0-9]+", "tiles": "scene.", "words": "case [0-9]", "numbers": "^[0-9]+"}


@pytest.mark.parametrize("kind", NAMES)
def test_slices_in_several_parts_are_noted_with_an_expression_that_works(tmp_path, kind):
    data = open_data(write(tmp_path, NAMES[kind]))
    (note,) = data.notes
    first, other = re.search(r"Of .*, (.+)\.png is in the (?:\w+) split, and (.+)\.png is in the", note).groups()
    parts = parts_of(data)
    assert parts[first] != parts[other]
    options = yaml.safe_load("{" + re.search(r"group: '[^']*'", note)[0] + "}")
    whole = open_data(tmp_path, **options)
    (note,) = whole.notes
    assert "groups (" in note
    groups = {name: re.search(WHOLES[kind], name)[0] for name in NAMES[kind]}
    assert len(set(groups.values())) >= 8
    parts = {(groups[name], part) for name, part in parts_of(whole).items()}
    assert len(parts) == len(set(groups.values()))


def test_two_prefixes_get_an_expression_that_works(tmp_path):
    data = open_data(write(tmp_path, [f"{scene}_{number}" for scene in ("north", "south") for number in range(15)]))
    (note,) = data.notes
    assert "validation: 0" in note
    group = yaml.safe_load(re.search(r"group: '[^']*'", note)[0])
    assert len(open_data(tmp_path, validation=0, **group).train) == 15


@pytest.mark.parametrize(
    "names",
    [
        [f"img_{number:03}" for number in range(40)],
        [f"DSC{number:05}" for number in range(40)],
        [hashlib.md5(bytes([number])).hexdigest() for number in range(40)],
        [f"{hashlib.md5(bytes([number])).hexdigest()}_{number}" for number in range(40)],
        [f"{number}" for number in range(40)],
    ],
)
def test_other_names_are_not_noted(tmp_path, names):
    assert open_data(write(tmp_path, names)).notes == ()


def test_slices_in_several_parts_of_a_divided_folder_are_noted(tmp_path):
    for part, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10))):
        write(tmp_path, [f"scan{scan}_{number}" for scan in "ab" for number in numbers], part)
    (note,) = open_data(tmp_path).notes
    assert "Of scana, scana_0.png is in the train split, and scana_6.png is in the validation split" in note
    assert "Move such images" in note


def pairs_of(names):
    return [Pair(part=UNDIVIDED, image=Path(f"{index}.png"), mask=Path()) for index in range(len(names))]


@given(
    groups=st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30),
    added=st.lists(st.integers(0, 29), max_size=10),
    shares=st.tuples(st.floats(0, 0.49), st.floats(0, 0.49)),
)
def test_no_group_is_ever_in_two_parts_and_none_moves(groups, added, shares):
    validation, test = shares
    num_wanted = 1 + (validation > 0) + (test > 0)

    def divided(groups):
        pairs = pairs_of(groups)
        group_of = {pair.image: group for pair, group in zip(pairs, groups, strict=True)}
        parts = divide(pairs, validation=validation, test=test, groups=group_of)
        assert sorted(pair.image for part in PARTS for pair in parts[part]) == sorted(group_of)
        return {part: {group_of[pair.image] for pair in parts[part]} for part in PARTS}

    if len(set(groups)) < num_wanted:
        with pytest.raises(zoo.errors.DataError, match="cannot be divided into"):
            divided(groups)
        return
    before = divided(groups)
    assert sum(map(len, before.values())) == len(set(groups))
    shares_of = {"train": 1 - validation - test, "validation": validation, "test": test}
    assert all(before[part] or not share for part, share in shares_of.items())
    assert divided(groups + [groups[index % len(groups)] for index in added]) == before

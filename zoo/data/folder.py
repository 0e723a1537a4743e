"""A folder of images and masks, paired by name: looked through before it is used, so that what is wrong is known at once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.files import SUFFIXES, read_array, read_mask_array
from zoo.data.fingerprint import Fingerprint, digest_of_file
from zoo.data.masks import MaskCode
from zoo.data.segmentation_data import IGNORED, Colour, SegmentationData, pixels_of
from zoo.errors import DataError

__all__ = ["FolderReport", "look_through", "open_folder"]

PARTS = ("train", "validation", "test")
ALIASES = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}
MASK_ENDINGS = ("_mask", "_label", "_labels", "-mask", "-label")
MOST_TOLD = 20
MOST_COLOURS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    part: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What one pair is: its image's size and channels, and how often each number or colour is in its mask."""

    size: tuple[int, int]
    channels: int
    values: Mapping[int | Colour, int]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, also for JSON, whose keys are texts."""
        return {"size": list(self.size), "channels": self.channels, "values": [list(entry) for entry in self.values.items()]}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> _Facts:
        """Return the facts that `as_dict` made plain."""
        values = {tuple(value) if isinstance(value, list) else value: count for value, count in facts["values"]}
        return cls(size=tuple(facts["size"]), channels=facts["channels"], values=values)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What looking through a folder found.

    Attributes:
        folder: which.
        counts: pairs by part; one part "all" where the folder is not divided.
        sizes: how many images have each (H, W).
        channels: how many images have so many.
        values: by number or colour, its pixels in all masks.
        problems: a line each: what is broken, has no partner, or does not fit.
        pairs: those without a problem.
        looks: by each pair's image, what was found, with size, time of change and digest of its files; plain data.
    """

    folder: Path
    counts: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    channels: Mapping[int, int]
    values: Mapping[int | Colour, int]
    problems: tuple[str, ...]
    pairs: tuple[_Pair, ...] = field(repr=False)
    looks: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def check(self) -> None:
        """Raise a DataError that names every problem, if there is one."""
        if self.problems:
            more = len(self.problems) - MOST_TOLD
            lines = [*self.problems[:MOST_TOLD], *([f"... and {more} more (`zoo data check` lists all)"] if more > 0 else [])]
            raise DataError("\n".join([f"{self.folder} cannot be trained on as it is:", *(f"  {line}" for line in lines)]))


def look_through(folder: Path, *, workers: int = 8, known: Mapping[str, Any] | None = None) -> FolderReport:
    """Read every image and mask of a folder once, and say what is there.

    The folder has `images/` and `masks/`, or `train/`, `validation/` (or `val/`) and `test/` with these two in each. A
    mask has its image's name, or that and `_mask`; the endings of the files may differ.

    Args:
        folder: laid out as above.
        workers: threads that read.
        known: the `looks` of an earlier report. Files whose name, size and time of change are as they were are not read again.

    Raises:
        DataError: there is no such folder, or it is laid out otherwise.
    """
    pairs, problems = _paired(folder)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(partial(_look_at, folder=folder, known=known or {}), pairs))
    sizes: Counter[tuple[int, int]] = Counter()
    channels: Counter[int] = Counter()
    values: Counter[int | Colour] = Counter()
    sound, looks = [], {}
    for pair, look in zip(pairs, found, strict=True):
        if isinstance(look, str):
            problems.append(look)
            continue
        facts = _Facts.from_dict(look["facts"])
        looks[str(pair.image.relative_to(folder))] = look
        sound.append(pair)
        sizes[facts.size] += 1
        channels[facts.channels] += 1
        values.update(facts.values)
    if len(channels) > 1:
        (usual, _), *others = channels.most_common()
        told = ", ".join(f"{count} with {number}" for number, count in others)
        problems.append(f"images of different numbers of channels: {channels[usual]} with {usual}, {told}")
    return FolderReport(
        folder=folder,
        counts=Counter(pair.part for pair in sound),
        sizes=sizes,
        channels=channels,
        values=values,
        problems=tuple(problems),
        pairs=tuple(sound),
        looks=looks,
    )


def open_folder(
    folder: Path,
    *,
    classes: Sequence[str] = (),
    values: Sequence[int] = (),
    colours: Sequence[Colour] = (),
    ignored: Sequence[int] = (IGNORED,),
    validation: float = 0.1,
    test: float = 0.1,
    known: Mapping[str, Any] | None = None,
) -> SegmentationData:
    """Return a folder's images and masks, all of them looked through.

    Args:
        folder: laid out as `look_through` says.
        classes: their names; by default their numbers.
        values: the grey value of each class, in their order; by default 0, 1, 2, ..., or, where masks have two values, these.
        colours: the colour of each class, where masks are drawn in colours.
        ignored: grey values of pixels that are left out.
        validation: the share of an undivided folder that is for validation; chosen by name, so that it stays the same.
        test: likewise for the test.
        known: what an earlier call found (`SegmentationData.fingerprint.looks`), as `look_through` takes it.

    Raises:
        DataError: every file that is broken, has no partner or does not fit.
    """
    report = look_through(folder, known=known)
    code = _code(report, len(classes), tuple(values), tuple(colours), tuple(ignored))
    strange = [f"{value}: {count} pixels of no class" for value, count in report.values.items() if not _known(code, value)]
    if strange:
        table = ", ".join(map(str, code.colours or code.values or range(code.num_classes)))
        where = _where(report, code)
        problem = f"masks have values that are no class ({'; '.join(strange[:5])}; the first in {where}); classes are {table}"
        report = replace(report, problems=(*report.problems, problem))
    report.check()
    parts = _parts(report, validation, test)
    (channels,) = report.channels
    sizes = list(report.sizes)
    return SegmentationData(
        name=folder.name,
        classes=tuple(classes) or tuple(map(str, range(code.num_classes))),
        train=_Files(pairs=parts["train"], code=code),
        validation=_Files(pairs=parts["validation"], code=code),
        test=_Files(pairs=parts["test"], code=code),
        in_channels=channels,
        size=sizes[0] if len(sizes) == 1 else None,
        colours=code.colours,
        source=str(folder),
        fingerprint=Fingerprint(
            contents={name: digest for look in report.looks.values() for name, _, _, digest in look["files"]},
            reading={"mask code": json.loads(json.dumps(asdict(code))), "validation": validation, "test": test},
            looks=report.looks,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """Pairs of files as samples."""

    pairs: Sequence[_Pair]
    code: MaskCode

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        image = pixels_of(read_array(pair.image))
        return image, torch.from_numpy(self.code.indexes(read_mask_array(pair.mask)))


def _paired(folder: Path) -> tuple[list[_Pair], list[str]]:
    if not folder.is_dir():
        raise DataError(f"There is no folder {folder}.")
    divided = {ALIASES.get(place.name, place.name): place for place in sorted(folder.iterdir()) if place.is_dir()}
    divided = {part: place for part, place in divided.items() if part in PARTS}
    places = divided or {"all": folder}
    pairs: list[_Pair] = []
    problems: list[str] = []
    for part, place in places.items():
        missing = [name for name in ("images", "masks") if not (place / name).is_dir()]
        if missing:
            raise DataError(
                f"{place} has no folder {' and no folder '.join(missing)}. A folder of data has images/ and masks/, or train/, "
                "validation/ and test/ with these two in each; a mask has its image's name."
            )
        images, masks = _by_stem(place / "images", (), problems), _by_stem(place / "masks", MASK_ENDINGS, problems)
        if not images:
            problems.append(f"{place / 'images'}: empty; it has no file that ends in {', '.join(sorted(SUFFIXES))}")
        pairs += [_Pair(part=part, image=images[stem], mask=masks[stem]) for stem in images if stem in masks]
        problems += [f"{images[stem]}: no mask of that name" for stem in images if stem not in masks]
        problems += [f"{masks[stem]}: no image of that name" for stem in masks if stem not in images]
    if divided and "train" not in divided:
        problems.append(f"{folder}: no folder train beside {', '.join(divided)}")
    return pairs, problems


def _by_stem(place: Path, endings: Sequence[str], problems: list[str]) -> dict[str, Path]:
    """Return the files by their names without suffix and, of a mask, its ending."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(place.iterdir()):
        if path.suffix.lower() in SUFFIXES:
            stem = next((path.stem.removesuffix(ending) for ending in endings if path.stem.endswith(ending)), path.stem)
            found[stem].append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            problems.append(f"{place}: {len(paths)} files named {stem}: {', '.join(path.name for path in paths)}")
    return {stem: paths[0] for stem, paths in found.items()}


def _look_at(pair: _Pair, folder: Path, known: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return what is in a pair's files, as plain data, or what is wrong with them."""
    paths = (pair.image, pair.mask)
    try:
        stats = [path.stat() for path in paths]
        names = [str(path.relative_to(folder)) for path in paths]
        files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(names, stats, strict=True)]
        earlier = known.get(names[0])
        if earlier and [file[:3] for file in earlier["files"]] == files:
            return dict(earlier)
        facts = _facts_or_problem(pair)
        if isinstance(facts, str):
            return facts
        digests = [digest_of_file(path) for path in paths]
    except OSError as cause:
        return f"{cause.filename or pair.image}: {cause.strerror or cause}"
    return {"files": [[*file, digest] for file, digest in zip(files, digests, strict=True)], "facts": facts.as_dict()}


def _facts_or_problem(pair: _Pair) -> _Facts | str:
    try:
        image = read_array(pair.image)
        pixels = pixels_of(image)
    except DataError as problem:
        return str(problem) if str(pair.image) in str(problem) else f"{pair.image}: {problem}"
    try:
        mask = read_mask_array(pair.mask)
    except DataError as problem:
        return str(problem)
    channels, *size = pixels.shape
    if list(mask.shape[:2]) != size:
        return f"{pair.mask}: {_told_size(mask.shape)}, and its image is {_told_size(size)}"
    if mask.ndim == 2:
        numbers, counts = np.unique(mask, return_counts=True)
        values: dict[int | Colour, int] = {int(number): int(count) for number, count in zip(numbers, counts, strict=True)}
    else:
        drawn, counts = np.unique(mask.reshape(-1, mask.shape[-1]), axis=0, return_counts=True)
        if len(drawn) > MOST_COLOURS:
            return f"{pair.mask}: {len(drawn)} colours; a mask has one a class (JPEG changes them: save masks as PNG)"
        triples = [(int(red), int(green), int(blue)) for red, green, blue in drawn]
        values = {colour: int(count) for colour, count in zip(triples, counts, strict=True)}
    return _Facts(size=(size[0], size[1]), channels=channels, values=values)


def _code(
    report: FolderReport, count: int, values: tuple[int, ...], colours: tuple[Colour, ...], ignored: tuple[int, ...]
) -> MaskCode:
    """Return how the masks are to be read: as asked, else as they look."""
    if colours:
        return MaskCode(num_classes=len(colours), colours=colours, ignored=ignored)
    drawn = [value for value in report.values if not isinstance(value, int)]
    if drawn:
        report.check()
        table = ", ".join(map(str, sorted(drawn)[:MOST_COLOURS]))
        raise DataError(f"The masks of {report.folder} are drawn in colours: give colours, one a class. Found: {table}.")
    if values:
        return MaskCode(num_classes=len(values), values=values, ignored=tuple(each for each in ignored if each not in values))
    found = sorted(value for value in report.values if isinstance(value, int))
    if not count and len(found) == 2 and found[0] == 0:  # such as 0 and 255
        return MaskCode(num_classes=2, values=(found[0], found[1]), ignored=())
    highest = max((value for value in found if value not in ignored), default=0)
    return MaskCode(num_classes=count or max(2, highest + 1), ignored=ignored)


def _known(code: MaskCode, value: int | Colour) -> bool:
    if not isinstance(value, int):
        return value in code.colours or value in code.ignored_colours
    return value in (code.values or range(code.num_classes)) or value in code.ignored


def _where(report: FolderReport, code: MaskCode) -> str:
    """Return the first mask that has a value of no class."""
    for pair in report.pairs:
        try:
            code.indexes(read_mask_array(pair.mask))
        except DataError:
            return str(pair.mask)
    return str(report.folder)


def _parts(report: FolderReport, validation: float, test: float) -> dict[str, list[_Pair]]:
    """Return the pairs by part; of an undivided folder each goes where a hash of its name says."""
    parts: dict[str, list[_Pair]] = {part: [] for part in PARTS}
    for pair in report.pairs:
        part = pair.part
        if part == "all":
            number = int.from_bytes(hashlib.sha256(pair.image.stem.encode()).digest()[:6], "big") / 2**48
            part = "test" if number < test else "validation" if number < test + validation else "train"
        parts[part].append(pair)
    for part, other in (("validation", "test"), ("test", "validation")):
        parts[part] = parts[part] or parts[other]
    for part in PARTS:
        if not parts[part]:
            raise DataError(
                f"{report.folder}: no image for {part}, of {len(report.pairs)}. Divide it into train/, validation/ and test/, "
                "or raise its share."
            )
    return parts


def _told_size(size: Sequence[int]) -> str:
    return "x".join(map(str, size[:2]))

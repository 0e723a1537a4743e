"""A folder of images and masks, paired by name: looked through before it is used, so that what is wrong is known at once."""

from __future__ import annotations

import hashlib
import json
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from zoo.common.format_names import format_names
from zoo.common.regular_files import is_folder, sha256_of
from zoo.data.class_colors import Colour
from zoo.data.fingerprint import Fingerprint
from zoo.data.formats.files import SUFFIXES, is_turned, read_array
from zoo.data.image_tensors import image_to_tensor
from zoo.data.masks.masks import MaskCode, MaskValue, listed, mask_code, read_mask, values_in
from zoo.data.segmentation_data import IGNORED, SegmentationData
from zoo.data.value_ranges import range_notes
from zoo.errors import DataError

__all__ = ["FolderReport", "data_of", "look_through", "open_folder"]

PARTS = ("train", "validation", "test")
ALIASES = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}
MASK_ENDINGS = ("_mask", "_label", "_labels", "-mask", "-label")
MOST_TOLD = 20
MOST_NAMED = 5
ONE_PALETTE = (
    "Where colors tell the classes, give colours, one a class, which are then read in place of the numbers; else save all "
    "masks with one palette, or as plain numbers without one."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    part: str
    image: Path
    mask: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """What one pair is.

    Attributes:
        size, channels, dtype, low, high: of the image.
        turned: what of the pair is turned as its EXIF says: "image", "mask", both.
        values: how often each number or color is in the mask.
        colors, repeated, doubt: of the mask, as `Mask` has them.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    low: float
    high: float
    turned: Sequence[str]
    values: Mapping[MaskValue, int]
    colors: Mapping[int, Colour]
    repeated: Sequence[Colour]
    doubt: str

    def in_colors(self) -> _Facts:
        """Return the facts with the colors that the mask's numbers are shown in, in these numbers' place."""
        values: Counter[MaskValue] = Counter()
        for value, count in self.values.items():
            values[self.colors.get(value, value) if isinstance(value, int) else value] += count
        return replace(self, values=values, colors={})

    def __post_init__(self) -> None:
        counts = (*self.size, self.channels, *self.values.values())
        is_whole = all(type(count) is int and count >= 0 for count in counts)
        is_finite = all(type(end) is float and math.isfinite(end) for end in (self.low, self.high))
        if not (is_whole and is_finite and len(self.size) == 2 and isinstance(self.dtype, str)):
            raise ValueError(f"no facts of an image and its mask: {self!r:.200}")

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, also for JSON, whose keys are texts."""
        listed = {name: [list(entry) for entry in getattr(self, name).items()] for name in ("values", "colors")}
        return {**asdict(self), **listed, "size": list(self.size), "turned": list(self.turned)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> _Facts:
        """Return the facts that `as_dict` made plain."""
        values = {_color(value): count for value, count in facts["values"]}
        colors = {number: _color(color) for number, color in facts["colors"]}
        repeated = [_color(color) for color in facts["repeated"]]
        return cls(**{**facts, "size": tuple(facts["size"]), "values": values, "colors": colors, "repeated": repeated})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """What looking through a folder found.

    Attributes:
        folder: which.
        counts: pairs by part; one part "all" where the folder is not divided.
        sizes: how many images have each (H, W).
        channels: how many images have so many.
        ranges: by the type of the images' numbers, the lowest and the highest value.
        values: by number or color, its pixels in all masks.
        problems: a line each: what is broken, has no partner, or does not fit.
        notes: a line each: what is no mistake, but should be known before training.
        pairs: those without a problem.
        looks: by each pair's image, what was found, with size, time of change and digest of its files; plain data.
        facts: by each pair's image, what was found.
    """

    folder: Path
    counts: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    channels: Mapping[int, int]
    ranges: Mapping[str, tuple[float, float]]
    values: Mapping[MaskValue, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    pairs: tuple[_Pair, ...] = field(repr=False)
    looks: Mapping[str, Any] = field(repr=False, default_factory=dict)
    facts: Mapping[Path, _Facts] = field(repr=False, default_factory=dict)

    def in_colors(self) -> FolderReport:
        """Return the report with colors in the place of a palette's indexes."""
        facts = {image: each.in_colors() for image, each in self.facts.items()}
        return replace(self, facts=facts, values=sum((Counter(each.values) for each in facts.values()), Counter()))

    def check(self) -> None:
        """Raise a DataError that names every problem, if there is one."""
        if self.problems:
            raise DataError(_told_problems(self.folder, self.problems))

    def values_of(self, pairs: Iterable[_Pair]) -> Counter[MaskValue]:
        """Return by number or color its pixels in the masks of some pairs."""
        found: Counter[MaskValue] = Counter()
        for pair in pairs:
            found.update(self.facts[pair.image].values)
        return found


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
    pairs, problems, notes = _paired(folder)
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(partial(_look_at, folder=folder, known=known or {}), pairs))
    sizes: Counter[tuple[int, int]] = Counter()
    channels: Counter[int] = Counter()
    values: Counter[MaskValue] = Counter()
    ranges: dict[str, tuple[float, float]] = {}
    sound, looks, all_facts = [], {}, {}
    for pair, look in zip(pairs, found, strict=True):
        if isinstance(look, str):
            problems.append(look)
            continue
        facts = all_facts[pair.image] = _Facts.from_dict(look["facts"])
        looks[str(pair.image.relative_to(folder))] = look
        sound.append(pair)
        sizes[facts.size] += 1
        channels[facts.channels] += 1
        values.update(facts.values)
        low, high = ranges.get(facts.dtype, (facts.low, facts.high))
        ranges[facts.dtype] = min(low, facts.low), max(high, facts.high)
    if count := sum("image" in facts.turned for facts in all_facts.values()):
        notes.append(f"{count} images are turned as their EXIF says, so that their masks must show them turned")
    if count := sum(list(facts.turned) == ["mask"] for facts in all_facts.values()):
        notes.append(f"{count} masks are turned as their EXIF says, and their images are not")
    notes += _doubts(all_facts.values())
    if len(channels) > 1:
        (usual, _), *others = channels.most_common()
        told = ", ".join(f"{count} with {number}" for number, count in others)
        problems.append(f"images of different numbers of channels: {channels[usual]} with {usual}, {told}")
    return FolderReport(
        folder=folder,
        counts=Counter(pair.part for pair in sound),
        sizes=sizes,
        channels=channels,
        ranges=ranges,
        values=values,
        problems=tuple(problems),
        notes=(*notes, *range_notes(ranges)),
        pairs=tuple(sound),
        looks=looks,
        facts=all_facts,
    )


def open_folder(folder: Path, *, known: Mapping[str, Any] | None = None, **options: Any) -> SegmentationData:
    """Return a folder's images and masks, all of them looked through.

    Args:
        folder: laid out as `look_through` says.
        known: what an earlier call found (`SegmentationData.fingerprint.looks`), as `look_through` takes it.
        options: what `data_of` takes.

    Raises:
        DataError: every file that is broken, has no partner or does not fit.
    """
    return data_of(look_through(folder, known=known), **options)


def data_of(
    report: FolderReport,
    *,
    classes: Sequence[str] = (),
    values: Sequence[int] = (),
    colours: Sequence[Colour] = (),
    ignored: Sequence[MaskValue] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
) -> SegmentationData:
    """Return the images and masks of a folder that was looked through.

    Args:
        report: what `look_through` found.
        classes: their names; by default their numbers.
        values: the number of each class in the masks, in their order; by default 0, 1, 2, ..., or, where all masks together
            have two values, these.
        colours: the color of each class, where masks are drawn in colors, or a palette's colors mean the classes.
        ignored: numbers or colors of pixels that are left out; by default 255, where it is not a class.
        validation: the share of an undivided folder that is for validation; chosen by name, so that it stays the same.
        test: likewise for the test.

    Raises:
        DataError: every file that is broken, has no partner or does not fit, or what the masks' values mean is a guess.
    """
    folder = report.folder
    if not report.values:
        report.check()
    if colours:
        report = report.in_colors()
    try:
        _check_one_palette(report)
        if not values and not colours and ignored is None:
            _check_one_scale(report)
        code = mask_code(
            report.values,
            classes=tuple(classes),
            values=tuple(values),
            colours=[_color(each) for each in colours],
            ignored=None if ignored is None else [_color(each) for each in ignored],
        )
    except DataError as cause:
        raise DataError(_told_problems(folder, (*report.problems, str(cause), *_doubts(report.facts.values())))) from cause
    if strange := code.strange(report.values):
        told = "; ".join(f"{value}: {report.values[value]} pixels of no class" for value in strange[:MOST_NAMED])
        where = next(pair.mask for pair in report.pairs if code.strange(report.values_of([pair])))
        found = listed(sorted(report.values, key=lambda value: (isinstance(value, tuple), value)))
        problem = (
            f"masks have values that are no class ({told}; the first in {where}); classes are {code.table}; found are {found}. "
            "values (or colours) says which value each class has"
        )
        report = replace(report, problems=(*report.problems, problem, *_doubts(report.facts.values())))
    report.check()
    parts = _parts(report, validation, test)
    for part, pairs in parts.items():
        if not report.values_of(pairs).keys() & set(code.known):
            problem = f"{part}: every pixel of its {len(pairs)} masks is left out, so that nothing can be learned or measured"
            raise DataError(_told_problems(folder, [problem]))
    if parts["validation"] is parts["test"]:
        report = replace(report, notes=(*report.notes, "validation and test are the same images, since one of them has none"))
    (channels,) = report.channels
    sizes = list(report.sizes)
    names = tuple(classes) or tuple(map(str, range(code.num_classes)))
    return SegmentationData(
        name=folder.name,
        classes=names,
        train=_Files(pairs=parts["train"], code=code),
        validation=_Files(pairs=parts["validation"], code=code),
        test=_Files(pairs=parts["test"], code=code),
        in_channels=channels,
        size=sizes[0] if len(sizes) == 1 else None,
        ignored=code.ignored_index,
        colours=code.colours,
        source=str(folder),
        fingerprint=Fingerprint(
            contents={name: digest for look in report.looks.values() for name, _, _, digest in look["files"]},
            reading={"mask code": json.loads(json.dumps(asdict(code))), "validation": validation, "test": test},
            looks=report.looks,
        ),
        notes=(*report.notes, *_class_notes(report, code, names, parts["train"])),
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
        image = image_to_tensor(read_array(pair.image))
        return image, torch.from_numpy(self.code.indexes(read_mask(pair.mask)))


def _paired(folder: Path) -> tuple[list[_Pair], list[str], list[str]]:
    """Return the pairs, what is wrong with the others, and which files are left out."""
    if not is_folder(folder):
        raise DataError(f"There is no folder {folder}.")
    pairs: list[_Pair] = []
    problems: list[str] = []
    notes: list[str] = []
    divided = _divided(folder, problems, notes)
    places = divided or {"all": folder}
    for part, place in places.items():
        missing = [name for name in ("images", "masks") if not (place / name).is_dir()]
        if missing:
            raise DataError(
                f"{place} has no folder {' and no folder '.join(missing)}. A folder of data has images/ and masks/, or train/, "
                "validation/ and test/ with these two in each; a mask has its image's name."
            )
        images = _by_stem(place / "images", (), problems, notes)
        masks = _by_stem(place / "masks", MASK_ENDINGS, problems, notes)
        if not images:
            problems.append(f"{place / 'images'}: empty; it has no file that ends in {', '.join(sorted(SUFFIXES))}")
        pairs += [_Pair(part=part, image=images[stem], mask=masks[stem]) for stem in images if stem in masks]
        problems += [f"{images[stem]}: no mask of that name" for stem in images if stem not in masks]
        problems += [f"{masks[stem]}: no image of that name" for stem in masks if stem not in images]
    if divided and "train" not in divided:
        problems.append(f"{folder}: no folder train beside {', '.join(divided)}")
    return pairs, problems, notes


def _divided(folder: Path, problems: list[str], notes: list[str]) -> dict[str, Path]:
    """Return the folders of the parts, by part; case does not count in their names."""
    found: dict[str, list[Path]] = defaultdict(list)
    others = []
    for place in sorted(folder.iterdir()):
        name = place.name.casefold()
        if place.is_dir() and (part := ALIASES.get(name, name)) in PARTS:
            found[part].append(place)
        elif (place / "images").is_dir() and (place / "masks").is_dir():
            others.append(place.name)
    for part, places in found.items():
        if len(places) > 1:
            problems.append(f"{folder}: {len(places)} folders for {part}: {', '.join(place.name for place in places)}")
    if found and (folder / "images").is_dir() and (folder / "masks").is_dir():
        others.append("the folder itself")
    if others:
        notes.append(
            f"{folder}: not used, though images/ and masks/ are in them: {', '.join(others)}; parts are train, validation (or "
            "val) and test"
        )
    return {part: places[0] for part, places in found.items()}


def _by_stem(place: Path, endings: Sequence[str], problems: list[str], notes: list[str]) -> dict[str, Path]:
    """Return the files by their names without suffix and, of a mask, its ending; hidden ones, such as `._a.png`, are none."""
    found: dict[str, list[Path]] = defaultdict(list)
    others = []
    for path in sorted(place.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            others.append(path.name)
            continue
        name = _composed(path.stem)
        found[next((name.removesuffix(ending) for ending in endings if name.endswith(ending)), name)].append(path)
    if others:
        notes.append(
            f"{place}: {len(others)} left out, which do not end as images do or are folders: {format_names(others, MOST_NAMED)}"
        )
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
        if _is_look(earlier) and [file[:3] for file in earlier["files"]] == files:
            return dict(earlier)
        facts = _facts_or_problem(pair)
        if isinstance(facts, str):
            return facts
        digests = [sha256_of(path)[:32] for path in paths]
    except OSError as cause:
        return f"{cause.filename or pair.image}: {cause.strerror or cause}"
    return {"files": [[*file, digest] for file, digest in zip(files, digests, strict=True)], "facts": facts.as_dict()}


def _is_look(earlier: Any) -> TypeGuard[dict[str, Any]]:
    """Say whether this is what `_look_at` returned once; a damaged file's is not, nor another version's."""
    try:
        _Facts.from_dict(earlier["facts"])
        return all(len(file) == 4 and isinstance(file[-1], str) for file in earlier["files"])
    except (TypeError, ValueError, LookupError, AttributeError):
        return False


def _facts_or_problem(pair: _Pair) -> _Facts | str:
    try:
        image = read_array(pair.image)
        pixels = image_to_tensor(image)
    except DataError as problem:
        return str(problem) if str(pair.image) in str(problem) else f"{pair.image}: {problem}"
    channels, *size = pixels.shape
    try:
        mask = read_mask(pair.mask)
        if list(mask.pixels.shape[:2]) != size:
            return f"{pair.mask}: {_told_size(mask.pixels.shape)}, and its image is {_told_size(size)}"
        values = values_in(mask)
    except DataError as problem:
        return str(problem) if str(pair.mask) in str(problem) else f"{pair.mask}: {problem}"
    return _Facts(
        size=(size[0], size[1]),
        channels=channels,
        dtype=image.dtype.name,
        low=float(image.min()),
        high=float(image.max()),
        turned=[name for name, path in (("image", pair.image), ("mask", pair.mask)) if is_turned(path)],
        values=values,
        colors=mask.colors,
        repeated=sorted(mask.repeated),
        doubt=mask.doubt,
    )


def _check_one_palette(report: FolderReport) -> None:
    """Raise a DataError if masks show one number in several colors, or one color by several numbers.

    A mask without a palette shows a number as the gray of that number; no palette has to do so, and black stands for many
    numbers. A color that one palette has for several numbers tells nothing.
    """
    if not any(facts.colors for facts in report.facts.values()):
        return
    color_of: dict[int, tuple[Colour, Path]] = {}
    number_of: dict[Colour, tuple[int, Path]] = {}
    unclear: set[Colour] = set()
    for pair in report.pairs:
        colors = report.facts[pair.image].colors
        for number, color in colors.items():
            earlier, path = color_of.setdefault(number, (color, pair.mask))
            if color != earlier:
                raise DataError(
                    f"Masks differ in what they show: {number} is {earlier} in {path} and {color} in {pair.mask}. {ONE_PALETTE}"
                )
        unclear.update(report.facts[pair.image].repeated)
    for pair in report.pairs:
        facts = report.facts[pair.image]
        grays = {value: (value,) * 3 for value in facts.values if isinstance(value, int) and 0 < value < 256}
        for number, color in (facts.colors or grays).items():
            before, path = number_of.setdefault(color, (number, pair.mask))
            if number != before and color not in unclear:
                raise DataError(
                    f"Masks differ in what they show: {color} is {before} in {path} and {number} in {pair.mask}. {ONE_PALETTE}"
                )


def _doubts(facts: Iterable[_Facts]) -> list[str]:
    """Return a line for each compression that may have changed masks."""
    counts = Counter(each.doubt for each in facts if each.doubt)
    return [
        f"{count} masks are compressed by {name}, which can change values, and the files do not say whether it did: look at "
        "the values that were found"
        for name, count in counts.items()
    ]


def _check_one_scale(report: FolderReport) -> None:
    """Raise a DataError if some masks have 0 and 1, and others 0 and 255 for what seems to be the same class."""
    if report.values.keys() != {0, 1, IGNORED}:
        return
    first: dict[MaskValue, Path] = {}
    for pair in report.pairs:
        held = report.values_of([pair]).keys() & {1, IGNORED}
        if len(held) > 1:
            return
        for value in held:
            first.setdefault(value, pair.mask)
    raise DataError(
        f"Some masks have 0 and 1, such as {first[1]}, and others 0 and {IGNORED}, such as {first[IGNORED]}, but none has both "
        f"1 and {IGNORED}, which may be one class. Save all masks with the same values; or give ignored=[{IGNORED}], if these "
        "pixels are to be left out."
    )


def _class_notes(report: FolderReport, code: MaskCode, names: Sequence[str], train: Sequence[_Pair]) -> list[str]:
    """Return what of the classes should be known: how unusual values are read, and which class has no pixel."""
    notes = []
    if len(code.values) == len(report.values) == 2 and not code.ignored and code.values != (0, 1):
        notes.append(f"the masks' values {code.values[0]} and {code.values[1]} are taken for {names[0]} and {names[1]}")
    left_out = sum(report.values.get(value, 0) for value in code.ignored)
    share = left_out / sum(report.values.values())
    if share > 0.5:
        notes.append(f"{100 * share:.1f} % of all pixels are left out, whose values are {', '.join(map(str, code.ignored))}")
    for where, found in (("all masks", report.values), ("the training part", report.values_of(train))):
        missing = [f"{name} ({value})" for name, value in zip(names, code.known, strict=True) if not found.get(value)]
        if missing:
            notes.append(f"classes without a pixel in {where}: {', '.join(missing)}")
            break
    return notes


def _parts(report: FolderReport, validation: float, test: float) -> dict[str, list[_Pair]]:
    """Return the pairs by part; of an undivided folder each goes where a hash of its name says."""
    parts: dict[str, list[_Pair]] = {part: [] for part in PARTS}
    for pair in report.pairs:
        part = pair.part
        if part == "all":
            number = (
                int.from_bytes(hashlib.sha256(_composed(pair.image.stem).encode(errors="surrogateescape")).digest()[:6], "big")
                / 2**48
            )
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


def _told_problems(folder: Path, problems: Sequence[str]) -> str:
    more = len(problems) - MOST_TOLD
    lines = [*problems[:MOST_TOLD], *([f"... and {more} more (`zoo data check` lists all)"] if more > 0 else [])]
    return "\n".join([f"{folder} cannot be trained on as it is:", *(f"  {line}" for line in lines)])


def _composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC); some file systems decompose letters such as umlauts."""
    return unicodedata.normalize("NFC", name)


def _color(value: Any) -> Any:
    """Return a color, which a list may give, as a tuple; a number as it is."""
    return tuple(value) if isinstance(value, list | tuple) else value

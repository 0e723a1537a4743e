"""Open a folder of images and masks as segmentation data."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from zoo.common.format_names import format_count, format_names
from zoo.data.class_colors import Color
from zoo.data.fingerprint import Fingerprint
from zoo.data.folders.division import divide, note_on_groups, note_on_names
from zoo.data.folders.groups import find_groups
from zoo.data.folders.layout import PARTS, Pair
from zoo.data.folders.scan import FolderReport, compression_notes, folder_error, scan_folder, to_tuple
from zoo.data.formats.files import read_array
from zoo.data.image_tensors import image_to_tensor
from zoo.data.masks.consistency import check_one_palette, check_one_scale
from zoo.data.masks.masks import MaskCode, MaskValue, choose_mask_code, format_values, read_mask
from zoo.data.pixel_statistics import BandStatistics, merge_statistics
from zoo.data.scaling import choose_scaling
from zoo.data.segmentation_data import SegmentationData
from zoo.data.value_ranges import ValueRange
from zoo.errors import DataError

__all__ = ["FolderSamples", "band_statistics", "data_from_report", "open_folder"]


HOW_TO_SET = (
    "Options of the data are keyword arguments of zoo.open_data, keys under data: in a YAML file, or settings of zoo train: "
    "--set data.values=[0,255]"
)
"""The last line of an error about the meaning of mask values."""


def open_folder(folder: Path, *, earlier_scans: Mapping[str, Any] | None = None, **options: Any) -> SegmentationData:
    """Read all images and masks of a folder once, and return them as segmentation data.

    Args:
        folder: a folder with the layout that `find_pairs` describes.
        earlier_scans: the scans of an earlier call (`SegmentationData.fingerprint.scans`). Unchanged files are not read again.
        options: the options of `data_from_report`.

    Raises:
        DataError: a file is broken, an image or a mask has no partner, an image and its mask differ in size, images differ in
            their number of channels, or one of the problems occurs that `data_from_report` lists.
    """
    return data_from_report(scan_folder(folder, earlier_scans=earlier_scans), **options)


def data_from_report(
    report: FolderReport,
    *,
    classes: Sequence[str] = (),
    values: Sequence[int] = (),
    colors: Sequence[Color] = (),
    ignored: Sequence[MaskValue] | None = None,
    validation: float = 0.1,
    test: float = 0.1,
    value_range: Literal["auto"] | Sequence[float] | Sequence[Sequence[float]] = "auto",
    mean: Literal["auto"] | Sequence[float] | None = None,
    std: Literal["auto"] | Sequence[float] | None = None,
    group: str | None = None,
) -> SegmentationData:
    """Return segmentation data for a folder that `scan_folder` has read.

    Args:
        report: the result of `scan_folder`.
        classes: the class names; by default the class indexes, as text.
        values: the mask value of each class, in the order of the classes; by default 0, 1, 2, ..., or, if the masks contain
            only 0 and one other value, these two.
        colors: the color of each class, if masks are drawn in colors or the colors of a palette identify the classes.
        ignored: mask values (numbers or colors) of pixels to ignore; by default 255, if it is not a class.
        validation: the share of images for validation if the folder is not divided. The name of an image decides its split, so
            that the image stays in that split when other images are added.
        test: the share of images for the test if the folder is not divided.
        value_range: the pixel values that become 0 and 1: a pair for all bands, or one pair for each band. With "auto",
            `choose_value_range` chooses them.
        mean: the mean of each band, in the units of the pixels. With `std`, it replaces the normalization that the encoder's
            weights were trained with. "auto" measures it on the training split.
        std: the standard deviation of each band, in the same form as `mean`.
        group: which images must be in the same split, in the form that `find_groups` describes. The split of an image then
            depends on its group and not on its name.

    Raises:
        DataError: the report lists problems, or the meaning of the mask values is ambiguous. Or `value_range`, `mean` or `std`
            does not fit the images, or the images cannot be divided by `group`.
    """
    folder = report.folder
    if not report.values:
        report.check()
    if colors:
        report = report.in_colors()
    code = _choose_code(report, classes, values, colors, ignored)
    report.check()
    parts, groups, group_notes = _divide(report, validation, test, group)
    for part, pairs in parts.items():
        if not report.values_of(pairs).keys() & set(code.class_values):
            count = format_count(len(pairs), "mask")
            problem = f"{part}: every pixel of {count} is ignored; at least one must belong to a class"
            raise folder_error(folder, [problem])
    notes = [*report.notes, *group_notes]
    if parts["validation"] is parts["test"]:
        notes.append("validation and test use the same images, since one of the two would otherwise be empty")
    (channels,) = report.channels
    try:
        others = _bands_by_dtype(report, (pair for part in ("validation", "test") for pair in parts[part]))
        scaling = choose_scaling(_bands_by_dtype(report, parts["train"]), others, value_range=value_range, mean=mean, std=std)
    except DataError as cause:
        raise folder_error(folder, [str(cause)]) from cause
    notes += scaling.notes
    reading: dict[str, Any] = {"mask code": json.loads(json.dumps(asdict(code))), "validation": validation, "test": test}
    if groups:
        reading["group"] = _digest_groups(groups, folder)
    for name in ("value_range", "mean", "std"):
        if (value := getattr(scaling, name)) is not None:
            reading[name] = json.loads(json.dumps(value))
    samples = {part: FolderSamples(pairs=pairs, code=code, value_range=scaling.value_range) for part, pairs in parts.items()}
    sizes = list(report.sizes)
    names = tuple(classes) or tuple(map(str, range(code.num_classes)))
    return SegmentationData(
        name=folder.name,
        classes=names,
        **samples,
        in_channels=channels,
        size=sizes[0] if len(sizes) == 1 else None,
        ignored=code.ignored_index,
        colors=code.colors,
        value_range=scaling.value_range,
        mean=scaling.mean,
        std=scaling.std,
        source=str(folder),
        fingerprint=Fingerprint(
            contents={name: digest for scan in report.scans.values() for name, _, _, digest in scan["files"]},
            reading=reading,
            scans=report.scans,
        ),
        train_pixels=tuple(report.values_of(parts["train"])[value] for value in code.class_values),
        notes=(*notes, *_class_notes(report, code, names, parts["train"])),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderSamples:
    """The images and masks of one split, which are read from their files when they are indexed."""

    pairs: Sequence[Pair]
    code: MaskCode
    value_range: ValueRange | None

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pair = self.pairs[index]
        image = image_to_tensor(read_array(pair.image), value_range=self.value_range)
        return image, torch.from_numpy(self.code.to_indexes(read_mask(pair.mask)))


def _choose_code(
    report: FolderReport,
    classes: Sequence[str],
    values: Sequence[int],
    colors: Sequence[Color],
    ignored: Sequence[MaskValue] | None,
) -> MaskCode:
    """Return the mask value of each class, after checking that every value in the masks belongs to a class or is ignored.

    Raises:
        DataError: the meaning of the mask values is ambiguous, or a value belongs to no class and is not ignored. The message
            also lists the other problems of the folder.
    """
    # Lossy compression may be the reason for unexpected values, so errors about values also contain the notes on compression.
    doubts = compression_notes(report.facts.values())
    try:
        check_one_palette(report)
        if not values and not colors and ignored is None:
            check_one_scale(report)
        code = choose_mask_code(
            report.values,
            classes=tuple(classes),
            values=tuple(values),
            colors=[to_tuple(color) for color in colors],
            ignored=None if ignored is None else [to_tuple(value) for value in ignored],
        )
    except DataError as cause:
        raise folder_error(report.folder, (*report.problems, str(cause), *doubts, HOW_TO_SET)) from cause
    if unknown := code.find_unknown(report.values):
        counts = format_names([f"{value}: {format_count(report.values[value], 'pixel')}" for value in unknown])
        first = next(pair.mask for pair in report.pairs if code.find_unknown(report.facts[pair.image].values))
        all_values = format_values(sorted(report.values, key=lambda value: (isinstance(value, tuple), value)))
        problem = (
            f"masks have values that belong to no class ({counts}; first in {first}). The values of the classes are "
            f"{code.description}. The values in the masks are {all_values}. Set `values` (or `colors`) to the value of each "
            "class"
        )
        raise folder_error(report.folder, (*report.problems, problem, *doubts, HOW_TO_SET))
    return code


def band_statistics(report: FolderReport, pairs: Iterable[Pair]) -> dict[str, tuple[BandStatistics, ...]]:
    """For each dtype that images of these pairs have, return the statistics of each band over all images of this dtype."""
    return {dtype: merge_statistics(files) for dtype, files in _bands_by_dtype(report, pairs).items()}


def _bands_by_dtype(report: FolderReport, pairs: Iterable[Pair]) -> dict[str, list[Sequence[BandStatistics]]]:
    files: dict[str, list[Sequence[BandStatistics]]] = defaultdict(list)
    for pair in pairs:
        facts = report.facts[pair.image]
        files[facts.dtype].append(facts.bands)
    return dict(files)


def _digest_groups(groups: Mapping[Path, str], folder: Path) -> str:
    """Return a hash of the group name of each image."""
    content = sorted((image.relative_to(folder).as_posix(), group) for image, group in groups.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:32]


def _divide(
    report: FolderReport, validation: float, test: float, group: str | None
) -> tuple[dict[str, list[Pair]], dict[Path, str], list[str]]:
    """Return the pairs of each split, the group of each image ({} if `group` is None), and notes.

    If validation or test has no images, both splits get the same images.
    """
    groups: dict[Path, str] = {}
    notes: list[str] = []
    try:
        if group is not None:
            groups, notes = find_groups(group, report.pairs, report.folder)
        parts = divide(report.pairs, validation=validation, test=test, groups=groups or None)
    except DataError as cause:
        raise folder_error(report.folder, [str(cause)]) from cause
    if groups:
        notes.append(note_on_groups({part: pairs for part, pairs in parts.items() if pairs}, groups))
    elif note := note_on_names(parts, num_parts=1 + (validation > 0) + (test > 0)):
        notes.append(note)
    for part, other in (("validation", "test"), ("test", "validation")):
        parts[part] = parts[part] or parts[other]
    for part in PARTS:
        if not parts[part]:
            raise DataError(
                f"{report.folder}: of {format_count(len(report.pairs), 'image')}, none is for {part}. Divide the folder into "
                "train/, validation/ and test/, or set validation and test to other shares."
            )
    return parts, groups, notes


def _class_notes(report: FolderReport, code: MaskCode, names: Sequence[str], train: Sequence[Pair]) -> list[str]:
    """Return notes on what may be wrong with the classes.

    There is a note if two classes have mask values other than 0 and 1, if more than half of the pixels are ignored, or if a
    class has no pixels.
    """
    notes = []
    if len(code.values) == len(report.values) == 2 and not code.ignored and code.values != (0, 1):
        notes.append(f"the mask value {code.values[0]} means class {names[0]}, and {code.values[1]} means class {names[1]}")
    share = sum(report.values.get(value, 0) for value in code.ignored) / sum(report.values.values())
    if share > 0.5:
        notes.append(
            f"{100 * share:.1f} % of all pixels are ignored; their mask values are {', '.join(map(str, code.ignored))}"
        )
    for where, values in (("all masks", report.values), ("the training split", report.values_of(train))):
        missing = [f"{name} ({value})" for name, value in zip(names, code.class_values, strict=True) if not values.get(value)]
        if missing:
            notes.append(f"classes without a pixel in {where}: {', '.join(missing)}")
            break  # a class without a pixel in all masks also has none in the training split
    return notes

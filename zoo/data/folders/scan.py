"""Read every image and mask of a folder once, and report their contents and problems."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

from zoo.common.format_names import format_count
from zoo.common.regular_files import sha256_of
from zoo.data.class_colors import Color
from zoo.data.folders.layout import Pair, find_pairs
from zoo.data.formats.files import has_exif_orientation, read_array
from zoo.data.image_tensors import check_image
from zoo.data.masks.masks import MaskValue, count_values, read_mask
from zoo.data.pixel_statistics import BandStatistics, measure_pixels
from zoo.errors import DataError

__all__ = ["FolderReport", "PairFacts", "compression_notes", "folder_error", "scan_folder", "to_tuple"]

MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PairFacts:
    """What was read from the files of an image and its mask.

    Attributes:
        size, channels, dtype: the size (H, W), the number of channels and the dtype of the image.
        bands: the statistics of each channel of the image.
        reoriented: which of the two files, "image" and "mask", have an EXIF orientation that rotates or mirrors their pixels.
        values: the number of pixels of each value in the mask.
        colors, repeated, doubt: the attributes of the mask, as in `Mask`.
    """

    size: tuple[int, int]
    channels: int
    dtype: str
    bands: Sequence[BandStatistics]
    reoriented: Sequence[str]
    values: Mapping[MaskValue, int]
    colors: Mapping[int, Color]
    repeated: Sequence[Color]
    doubt: str

    def __post_init__(self) -> None:
        counts = (*self.size, self.channels, *self.values.values())
        is_whole = all(type(count) is int and count >= 0 for count in counts)
        is_image = len(self.size) == 2 and isinstance(self.dtype, str) and len(self.bands) == self.channels
        if not (is_whole and is_image and all(band.count == math.prod(self.size) for band in self.bands)):
            raise ValueError(f"not the facts of an image and its mask: {self!r:.200}")

    def in_colors(self) -> PairFacts:
        """Return a copy in which each palette index is replaced by its color."""
        values: Counter[MaskValue] = Counter()
        for value, count in self.values.items():
            values[self.colors.get(value, value) if isinstance(value, int) else value] += count
        return replace(self, values=values, colors={})

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes as JSON values. Mappings become lists of items, since JSON accepts only text as a key."""
        items = {name: [list(item) for item in getattr(self, name).items()] for name in ("values", "colors")}
        bands = [band.as_list() for band in self.bands]
        return {**asdict(self), **items, "size": list(self.size), "bands": bands, "reoriented": list(self.reoriented)}

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> PairFacts:
        """Return the `PairFacts` that `as_dict` converted to a dictionary."""
        values = {to_tuple(value): count for value, count in facts["values"]}
        colors = {number: to_tuple(color) for number, color in facts["colors"]}
        repeated = [to_tuple(color) for color in facts["repeated"]]
        bands = [BandStatistics.from_list(band) for band in facts["bands"]]
        own = {"size": tuple(facts["size"]), "bands": bands, "values": values, "colors": colors, "repeated": repeated}
        return cls(**{**facts, **own})


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderReport:
    """The result of `scan_folder`.

    Attributes:
        folder: the folder.
        counts: the number of pairs of each split. If the folder is not divided, the only split is "all".
        sizes: the number of images of each (H, W).
        channels: a mapping from a number of channels to the number of images that have it.
        ranges: the lowest and the highest pixel value of all images of each dtype.
        values: the number of pixels of each value in the masks.
        problems: a line for each file that is broken or has no partner, and for each mismatch.
        notes: lines that a user should read before training, but that are not errors.
        pairs: the pairs without a problem.
        scans: for each pair, its `PairFacts`, and its files' sizes, modification times and digests, as JSON values. The keys
            are the paths of the images relative to the folder.
        facts: the `PairFacts` of each pair (such as the size of its image and the values in its mask). The keys are the paths
            of the images.
    """

    folder: Path
    counts: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    channels: Mapping[int, int]
    ranges: Mapping[str, tuple[float, float]]
    values: Mapping[MaskValue, int]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...] = field(repr=False)
    scans: Mapping[str, Any] = field(repr=False)
    facts: Mapping[Path, PairFacts] = field(repr=False)

    def in_colors(self) -> FolderReport:
        """Return the report with each palette index replaced by its color."""
        facts = {image: each.in_colors() for image, each in self.facts.items()}
        return replace(self, facts=facts, values=_sum_values(facts.values()))

    def values_of(self, pairs: Iterable[Pair]) -> Counter[MaskValue]:
        """Return the number of pixels of each mask value in these pairs."""
        return _sum_values(self.facts[pair.image] for pair in pairs)

    def check(self) -> None:
        """Raise a DataError that lists the problems, if there are any."""
        if self.problems:
            raise folder_error(self.folder, self.problems)


def scan_folder(folder: Path, *, workers: int = 8, earlier_scans: Mapping[str, Any] | None = None) -> FolderReport:
    """Read every image and mask of a folder once, and return a report of their contents and problems.

    Args:
        folder: a folder with the layout that `find_pairs` describes.
        workers: the number of threads that read files.
        earlier_scans: the `scans` of an earlier report. A pair is not read again if the name, the size and the modification
            time of its files are unchanged.

    Raises:
        DataError: the folder does not exist, or does not have this layout.
    """
    pairs, problems, notes = find_pairs(folder)
    with ThreadPoolExecutor(workers) as pool:
        results = list(pool.map(partial(_scan_pair, folder=folder, earlier_scans=earlier_scans or {}), pairs))
    scans: dict[str, Any] = {}
    facts: dict[Path, PairFacts] = {}
    ranges: dict[str, tuple[float, float]] = {}
    for pair, scan in zip(pairs, results, strict=True):
        if isinstance(scan, str):
            problems.append(scan)
            continue
        scans[str(pair.image.relative_to(folder))] = scan
        each = facts[pair.image] = PairFacts.from_dict(scan["facts"])
        low, high = ranges.get(each.dtype, (math.inf, -math.inf))
        ranges[each.dtype] = (
            min(low, *(band.minimum for band in each.bands)),
            max(high, *(band.maximum for band in each.bands)),
        )
    channels = Counter(each.channels for each in facts.values())
    if len(channels) > 1:
        counts = ", ".join(
            f"{format_count(count, 'image')} with {format_count(number, 'channel')}" for number, count in channels.most_common()
        )
        problems.append(f"images differ in their number of channels: {counts}")
    sound = tuple(pair for pair in pairs if pair.image in facts)
    return FolderReport(
        folder=folder,
        counts=Counter(pair.part for pair in sound),
        sizes=Counter(each.size for each in facts.values()),
        channels=channels,
        ranges=ranges,
        values=_sum_values(facts.values()),
        problems=tuple(problems),
        notes=(*notes, *_orientation_notes(facts.values()), *compression_notes(facts.values())),
        pairs=sound,
        scans=scans,
        facts=facts,
    )


def compression_notes(facts: Iterable[PairFacts]) -> list[str]:
    """Return a note for each compression that may have changed the values of masks."""
    counts = Counter(each.doubt for each in facts if each.doubt)
    return [
        f"the compression of {format_count(count, 'mask')} ({name}) can change values, and the files do not record whether it "
        "did; check the values of the masks"
        for name, count in counts.items()
    ]


def folder_error(folder: Path, problems: Sequence[str]) -> DataError:
    """Return the error that lists the problems of a folder, one per line."""
    more = len(problems) - MOST_SHOWN
    lines = [*problems[:MOST_SHOWN], *([f"... and {more} more (`zoo data check` lists all)"] if more > 0 else [])]
    return DataError("\n".join([f"{folder} cannot be used for training:", *(f"  {line}" for line in lines)]))


def to_tuple(value: Any) -> Any:
    """Return a color as a tuple (JSON and YAML have lists only), and a number unchanged."""
    return tuple(value) if isinstance(value, list | tuple) else value


def _scan_pair(pair: Pair, folder: Path, earlier_scans: Mapping[str, Any]) -> dict[str, Any] | str:
    """Return a pair's `PairFacts` and data on its files as JSON values, or text that describes the problem of the pair."""
    paths = (pair.image, pair.mask)
    try:
        stats = [path.stat() for path in paths]
        names = [str(path.relative_to(folder)) for path in paths]
        files = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in zip(names, stats, strict=True)]
        earlier = earlier_scans.get(names[0])
        if _is_scan(earlier) and [file[:3] for file in earlier["files"]] == files:
            return dict(earlier)
        facts = _read_facts(pair)
        digests = [sha256_of(path)[:32] for path in paths]
    except DataError as problem:
        return str(problem)
    except OSError as cause:
        return f"{cause.filename or pair.image}: {cause.strerror or cause}"
    return {"files": [[*file, digest] for file, digest in zip(files, digests, strict=True)], "facts": facts.as_dict()}


def _is_scan(earlier: Any) -> TypeGuard[dict[str, Any]]:
    """Return whether a value has the form of a result of `_scan_pair`.

    A value from a file that is damaged or outdated may have another form.
    """
    try:
        PairFacts.from_dict(earlier["facts"])
        return all(len(file) == 4 and isinstance(file[-1], str) for file in earlier["files"])
    except (TypeError, ValueError, LookupError, AttributeError):
        return False


def _read_facts(pair: Pair) -> PairFacts:
    """Read an image and its mask, and return their `PairFacts`.

    Raises:
        DataError: a file cannot be read, or the image and the mask differ in size.
    """
    with _path_in_errors(pair.image):
        image = read_array(pair.image)
        channels, height, width = check_image(image)
        dtype, bands = image.dtype.name, measure_pixels(image)
        del image  # frees memory, since several threads read images at the same time
    with _path_in_errors(pair.mask):
        mask = read_mask(pair.mask)
        rows, columns = mask.pixels.shape[:2]
        if (rows, columns) != (height, width):
            raise DataError(f"the mask is {rows}x{columns}, but its image is {height}x{width}")
        values = count_values(mask)
    return PairFacts(
        size=(height, width),
        channels=channels,
        dtype=dtype,
        bands=bands,
        reoriented=[name for name, path in (("image", pair.image), ("mask", pair.mask)) if has_exif_orientation(path)],
        values=values,
        colors=mask.colors,
        repeated=sorted(mask.repeated),
        doubt=mask.doubt,
    )


@contextmanager
def _path_in_errors(path: Path) -> Iterator[None]:
    """Add the path of the file to every DataError that does not have it."""
    try:
        yield
    except DataError as cause:
        if str(path) in str(cause):
            raise
        raise DataError(f"{path}: {cause}") from cause


def _orientation_notes(facts: Iterable[PairFacts]) -> list[str]:
    """Return notes on the images and the masks that EXIF orientation rotates or mirrors.

    There is one note for images, and one for masks whose images are not rotated or mirrored.
    """
    counts = Counter("image" if "image" in each.reoriented else "mask" for each in facts if each.reoriented)
    texts = {
        "image": "EXIF orientation rotates or mirrors {}; the masks must match the result",
        "mask": "EXIF orientation rotates or mirrors {}, but not the corresponding images",
    }
    return [text.format(format_count(counts[name], name)) for name, text in texts.items() if counts[name]]


def _sum_values(facts: Iterable[PairFacts]) -> Counter[MaskValue]:
    """Return the number of pixels of each mask value in several masks."""
    values: Counter[MaskValue] = Counter()
    for each in facts:
        values.update(each.values)
    return values

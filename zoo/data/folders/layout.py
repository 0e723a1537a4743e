"""Find the images and the masks of a folder, and pair them by name."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.common.format_names import format_names
from zoo.common.regular_files import is_folder
from zoo.data.formats.files import SUFFIXES
from zoo.errors import DataError

__all__ = ["PARTS", "UNDIVIDED", "Pair", "find_pairs", "normalize_name"]

PARTS = ("train", "validation", "test")
UNDIVIDED = "all"
"""The split of every pair in a folder that is not divided into splits."""
ALIASES = {"val": "validation", "valid": "validation", "training": "train", "testing": "test"}
MASK_ENDINGS = ("_mask", "_label", "_labels", "-mask", "-label")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The files of an image and its mask, and the split that they belong to."""

    part: str
    image: Path
    mask: Path


def find_pairs(folder: Path) -> tuple[list[Pair], list[str], list[str]]:
    """Return the pairs of a folder, descriptions of problems with its other files, and notes on skipped files.

    The folder has `images/` and `masks/`, or it has `train/`, `validation/` (or `val/`) and `test/`, each with `images/` and
    `masks/`. The name of a mask is the name of its image, with or without an ending such as `_mask`. The suffixes of the two
    files may differ.

    Raises:
        DataError: the folder does not exist, or does not have this layout.
    """
    if not is_folder(folder):
        raise DataError(f"The folder {folder} does not exist.")
    pairs: list[Pair] = []
    problems: list[str] = []
    notes: list[str] = []
    part_folders = _find_parts(folder, problems, notes)
    for part, part_folder in (part_folders or {UNDIVIDED: folder}).items():
        missing = [name for name in ("images", "masks") if not (part_folder / name).is_dir()]
        if missing:
            raise DataError(
                f"{part_folder} has no folder {' and no folder '.join(missing)}. Expected images/ and masks/, or train/, "
                "validation/ and test/ with these two in each. A mask has the name of its image."
            )
        images = _find_files(part_folder / "images", (), problems, notes)
        masks = _find_files(part_folder / "masks", MASK_ENDINGS, problems, notes)
        if not images:
            suffixes = ", ".join(sorted(SUFFIXES))
            problems.append(f"{part_folder / 'images'}: no images with a supported suffix ({suffixes})")
        pairs += [Pair(part=part, image=images[stem], mask=masks[stem]) for stem in images if stem in masks]
        problems += [f"{images[stem]}: no mask has this name" for stem in images if stem not in masks]
        problems += [f"{masks[stem]}: no image has this name" for stem in masks if stem not in images]
    if part_folders and "train" not in part_folders:
        problems.append(f"{folder}: the folder train is missing; found {', '.join(part_folders)}")
    return pairs, problems, notes


def normalize_name(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), since some file systems decompose letters such as umlauts."""
    return unicodedata.normalize("NFC", name)


def _find_parts(folder: Path, problems: list[str], notes: list[str]) -> dict[str, Path]:
    """Return the folder of each split; {} if the folder is not divided. The case of the folders' names does not matter."""
    folders: dict[str, list[Path]] = defaultdict(list)
    unused = []
    for path in sorted(folder.iterdir()):
        name = path.name.casefold()
        if path.is_dir() and (part := ALIASES.get(name, name)) in PARTS:
            folders[part].append(path)
        elif (path / "images").is_dir() and (path / "masks").is_dir():
            unused.append(path.name)
    for part, paths in folders.items():
        if len(paths) > 1:
            problems.append(f"{folder}: {len(paths)} folders for {part}: {', '.join(path.name for path in paths)}; keep one")
    if folders and (folder / "images").is_dir() and (folder / "masks").is_dir():
        unused.append("the folder itself")
    if unused:
        notes.append(
            f"{folder}: these folders contain images/ and masks/, but are not used: {', '.join(unused)}; only train, "
            "validation (or val) and test are used"
        )
    return {part: paths[0] for part, paths in folders.items()}


def _find_files(folder: Path, endings: Sequence[str], problems: list[str], notes: list[str]) -> dict[str, Path]:
    """Return the files with the suffix of an image.

    The keys are the names of the files without the suffix and without an ending such as `_mask`.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    skipped = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):  # a hidden file, such as the `._a.png` that macOS writes next to `a.png`
            continue
        if path.suffix.lower() not in SUFFIXES or path.is_dir():
            skipped.append(path.name)
            continue
        stem = normalize_name(path.stem)
        ending = next((ending for ending in endings if stem.endswith(ending)), "")
        files[stem.removesuffix(ending)].append(path)
    if skipped:
        notes.append(
            f"{folder}: skipped, since these are folders or do not have the suffix of an image: {format_names(skipped)}"
        )
    for stem, paths in files.items():
        if len(paths) > 1:
            problems.append(f"{folder}: {len(paths)} files named {stem}: {', '.join(path.name for path in paths)}; keep one")
    return {stem: paths[0] for stem, paths in files.items()}

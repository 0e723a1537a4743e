"""Decide which images are predicted and where results go, and refuse conflicts first."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import get_args

from zoo.common.choices import Existing
from zoo.common.format_names import format_names
from zoo.common.regular_files import check_regular, is_folder
from zoo.data.formats.files import SUFFIXES
from zoo.errors import DataError, OptionError

__all__ = ["Place", "settle"]

MASKS = (".png", ".tif")
PROBABILITIES = "-probabilities.npy"
OVERLAY = "-overlay.jpg"
MOST_TOLD = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An image's file, and those of what comes of it.

    Attributes:
        image: what is predicted.
        folder: of the others.
        name: of the others, without a suffix. It is joined to one as text, since "." and ".." are names here (of `..png`).
    """

    image: Path
    folder: Path
    name: str

    def mask(self, suffix: str) -> Path:
        """Return the mask's file."""
        return self.folder / f"{self.name}{suffix}"

    @property
    def probabilities(self) -> Path:
        """Return the file of an array (classes, H, W)."""
        return self.folder / f"{self.name}{PROBABILITIES}"

    @property
    def overlay(self) -> Path:
        """Return the file of the picture with the mask over it."""
        return self.folder / f"{self.name}{OVERLAY}"

    def extras(self, *, probabilities: bool, overlay: bool) -> list[Path]:
        """Return the files that are asked for beside the mask's."""
        return [*([self.probabilities] if probabilities else []), *([self.overlay] if overlay else [])]


def settle(
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    output: Path,
    *,
    existing: Existing,
    probabilities: bool,
    overlay: bool,
) -> tuple[list[Place], int]:
    """Return what is to be predicted and where it goes, and how many were left out because they are done.

    A file keeps its name, and a folder's files keep their places in it; the folder is gone through whole, for files that end as
    images do.

    Raises:
        DataError: a path that is not there, a folder without images, or two images whose masks would have one name.
        OptionError: masks are there already and `existing` is "error", one would take an image's place, or something else than
            a file has its place.
    """
    if existing not in get_args(Existing):
        raise OptionError(f"existing is one of {', '.join(map(repr, get_args(Existing)))}; found {existing!r}.")
    if os.path.lexists(output) and not is_folder(output):
        raise OptionError(f"{output} is no folder, and the output is one. Give another, or move that away.")
    if isinstance(images, str | PathLike):
        images = [images]
    places = [place for each in images for place in _places(Path(each), output)]
    if not places:
        raise DataError("No image was given.")
    by_mask: dict[Path, dict[Path, Path]] = defaultdict(dict)
    for place in places:
        by_mask[place.mask("")][_real(place.image)] = place.image
    twice = [sorted(map(str, found.values())) for found in by_mask.values() if len(found) > 1]
    if twice:
        more = f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""
        raise DataError(f"Masks of {' and '.join(twice[0])} would have one name{more}. Give each a folder of its own.")
    places = list({(place.folder, place.name): place for place in places}.values())  # named twice, it is predicted once
    masks = {place: [place.mask(suffix) for suffix in MASKS] for place in places}
    extras = {place: place.extras(probabilities=probabilities, overlay=overlay) for place in places}
    sources = {_real(place.image): place.image for place in places}
    written = [path for place in places for path in (*masks[place], *extras[place])]
    if lost := [sources[path] for path in map(_real, written) if path in sources]:
        raise OptionError(f"{output} is where the images are: {lost[0]} would be lost to what is written. Give another folder.")
    for path in written:
        _check_free(path)
    if existing == "skip":
        done = {place for place in places if any(map(os.path.exists, masks[place])) and all(map(os.path.exists, extras[place]))}
        return [place for place in places if place not in done], len(done)
    there = list(filter(os.path.exists, written))
    if there and existing == "error":
        raise OptionError(
            f"{format_names(there, MOST_TOLD)}: there already. existing='skip' (--existing skip) leaves such images out, "
            "'replace' predicts them again."
        )
    return places, 0


def _places(given: Path, output: Path) -> Sequence[Place]:
    if is_folder(given):
        found = [path for path in sorted(given.rglob("*")) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        found = [path for path in found if not _is_hidden(path, given)]
        if _real(given) in _real(output).parents:  # what an earlier run wrote there is no image
            found = [path for path in found if not _real(path).is_relative_to(_real(output))]
        if not found:
            raise DataError(f"{given} has no image: no file that ends in {', '.join(sorted(SUFFIXES))}.")
        return [_place(path, output / path.relative_to(given).parent) for path in found]
    if not os.path.lexists(given):  # a link to nothing is an image that cannot be read
        raise DataError(f"There is no file and no folder {given}.")
    return [_place(given, output)]


def _place(image: Path, folder: Path) -> Place:
    return Place(image=image, folder=folder, name=image.name.removesuffix(image.suffix))


def _check_free(path: Path) -> None:
    """Raise an OptionError if there is something that no file can replace; a name that is too long is the image's fault."""
    if not os.path.lexists(path):
        return
    try:
        check_regular(path)
    except FileNotFoundError:  # a link to nothing
        pass
    except OSError as cause:
        raise OptionError(
            f"{path} is written to, and cannot be: {cause.strerror}. Move it away, or give another folder."
        ) from cause


def _real(path: Path) -> Path:
    """Return a path without links; unlike `Path.resolve`, of a link to itself as well."""
    return Path(os.path.realpath(path))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)

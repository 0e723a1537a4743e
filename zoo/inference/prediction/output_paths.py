"""Choose the images to predict and the paths of their results, and report conflicts before anything is written."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import get_args

from zoo.common.choices import Existing
from zoo.common.format_names import format_count, format_names
from zoo.common.regular_files import check_regular, is_folder
from zoo.data.formats.files import SUFFIXES
from zoo.errors import DataError, OptionError

__all__ = ["ImagePaths", "plan_outputs"]

MASKS = (".png", ".tif")
PROBABILITIES = "-probabilities.npy"
OVERLAY = "-overlay.jpg"
MAX_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePaths:
    """The paths of an image and of the files that are written for it.

    Attributes:
        image: the path of the image.
        folder: the folder of the written files.
        name: the name of the written files without a suffix. For an image `..png`, it is ".", to which `Path.with_suffix`
            cannot add a suffix.
    """

    image: Path
    folder: Path
    name: str

    def mask(self, suffix: str) -> Path:
        """Return the path of the mask."""
        return self.folder / f"{self.name}{suffix}"

    @property
    def probabilities(self) -> Path:
        """Return the path of the probabilities, an array (classes, H, W)."""
        return self.folder / f"{self.name}{PROBABILITIES}"

    @property
    def overlay(self) -> Path:
        """Return the path of the image with the mask drawn over it."""
        return self.folder / f"{self.name}{OVERLAY}"

    def extras(self, *, probabilities: bool, overlay: bool) -> list[Path]:
        """Return the paths of the requested files other than the mask."""
        return [*([self.probabilities] if probabilities else []), *([self.overlay] if overlay else [])]


def plan_outputs(
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    output: Path,
    *,
    existing: Existing,
    probabilities: bool,
    overlay: bool,
) -> tuple[list[ImagePaths], int]:
    """Return the paths of the images to predict and of their results, and the number of skipped images.

    A result has the name of its image, with another ending. In a folder and all its subfolders, every file with the suffix of
    an image is predicted. The output has the same subfolders.

    Raises:
        DataError: a path does not exist, a folder has no images, or the masks of two images would have the same name.
        OptionError: results exist and `existing` is "error", a result would replace an image, or something other than a
            file has the path of a result.
    """
    if existing not in get_args(Existing):
        raise OptionError(f"existing must be one of {', '.join(map(repr, get_args(Existing)))}; found {existing!r}.")
    if os.path.lexists(output) and not is_folder(output):
        raise OptionError(
            f"{output} is not a folder, but the output must be a folder. Use another path, or move the file away."
        )
    if isinstance(images, str | PathLike):
        images = [images]
    all_paths = [paths for each in images for paths in _find_images(Path(each), output)]
    if not all_paths:
        raise DataError("There is no image to predict. Pass the path of at least one image or folder.")
    by_mask: dict[Path, dict[Path, Path]] = defaultdict(dict)
    for paths in all_paths:
        by_mask[paths.mask("")][_real(paths.image)] = paths.image
    conflicts = [sorted(map(str, sources.values())) for sources in by_mask.values() if len(sources) > 1]
    if conflicts:
        others = f" ({format_count(len(conflicts) - 1, 'more conflict')})" if len(conflicts) > 1 else ""
        raise DataError(
            f"The masks of {' and '.join(conflicts[0])} would have the same name{others}. Predict these images in separate "
            "calls, each with its own output folder."
        )
    # an image that is passed twice is predicted once
    all_paths = list({(paths.folder, paths.name): paths for paths in all_paths}.values())
    masks = {paths: [paths.mask(suffix) for suffix in MASKS] for paths in all_paths}
    extras = {paths: paths.extras(probabilities=probabilities, overlay=overlay) for paths in all_paths}
    sources = {_real(paths.image): paths.image for paths in all_paths}
    written = [path for paths in all_paths for path in (*masks[paths], *extras[paths])]
    if overwritten := [sources[path] for path in map(_real, written) if path in sources]:
        raise OptionError(f"The image {overwritten[0]} would be overwritten by a result in {output}. Use another folder.")
    for path in written:
        _check_free(path)
    if existing == "skip":
        done = {
            paths for paths in all_paths if any(map(os.path.exists, masks[paths])) and all(map(os.path.exists, extras[paths]))
        }
        return [paths for paths in all_paths if paths not in done], len(done)
    present = list(filter(os.path.exists, written))
    if present and existing == "error":
        raise OptionError(
            f"These results already exist: {format_names(present, MAX_NAMES)}. Use existing='skip' "
            "(--existing skip) to skip such images, or 'replace' to predict them again."
        )
    return all_paths, 0


def _find_images(source: Path, output: Path) -> Sequence[ImagePaths]:
    if is_folder(source):
        paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        paths = [path for path in paths if not _is_hidden(path, source)]
        if _real(source) in _real(output).parents:  # results of an earlier run are not images
            paths = [path for path in paths if not _real(path).is_relative_to(_real(output))]
        if not paths:
            raise DataError(f"{source} contains no images with a supported suffix ({', '.join(sorted(SUFFIXES))}).")
        return [_paths_of(path, output / path.relative_to(source).parent) for path in paths]
    if not os.path.lexists(source):  # a broken link is reported as an image that cannot be read
        raise DataError(f"There is no file or folder named {source}.")
    return [_paths_of(source, output)]


def _paths_of(image: Path, folder: Path) -> ImagePaths:
    return ImagePaths(image=image, folder=folder, name=image.name.removesuffix(image.suffix))


def _check_free(path: Path) -> None:
    """Raise an OptionError if something that is not a regular file has the path. Names that are too long are reported later."""
    if not os.path.lexists(path):
        return
    try:
        check_regular(path)
    except FileNotFoundError:  # a broken link
        pass
    except OSError as cause:
        raise OptionError(f"{path} cannot be written: {cause.strerror}. Move it away, or use another folder.") from cause


def _real(path: Path) -> Path:
    """Return a path with its links resolved. Unlike `Path.resolve`, this accepts a link to itself."""
    return Path(os.path.realpath(path))


def _is_hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)

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

__all__ = ["ImagePaths", "plan_outputs"]

MASKS = (".png", ".tif")
PROBABILITIES = "-probabilities.npy"
OVERLAY = "-overlay.jpg"
MAX_NAMES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePaths:
    """The paths of an image and of the files that are written for it.

    Attributes:
        image: the image.
        folder: of the written files.
        name: of the written files, without a suffix. A suffix is added as text, since "." and ".." are names (of `..png`).
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


def plan_outputs(
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    output: Path,
    *,
    existing: Existing,
    probabilities: bool,
    overlay: bool,
) -> tuple[list[ImagePaths], int]:
    """Return the images to predict with the paths of their results, and how many images are skipped.

    A file keeps its name, and the files of a folder keep their subfolders. All subfolders are searched for files with an
    image's suffix.

    Raises:
        DataError: a path does not exist, a folder has no images, or two images whose masks would have one name.
        OptionError: masks exist and `existing` is "error", a mask would replace an image, or its path is taken by something
            that is not a file.
    """
    if existing not in get_args(Existing):
        raise OptionError(f"existing is one of {', '.join(map(repr, get_args(Existing)))}; found {existing!r}.")
    if os.path.lexists(output) and not is_folder(output):
        raise OptionError(
            f"{output} is not a folder, and the output goes to a folder. Give another path, or move that file away."
        )
    if isinstance(images, str | PathLike):
        images = [images]
    all_paths = [paths for each in images for paths in _find_images(Path(each), output)]
    if not all_paths:
        raise DataError("No image was given.")
    by_mask: dict[Path, dict[Path, Path]] = defaultdict(dict)
    for paths in all_paths:
        by_mask[paths.mask("")][_real(paths.image)] = paths.image
    conflicts = [sorted(map(str, sources.values())) for sources in by_mask.values() if len(sources) > 1]
    if conflicts:
        others = f" (and {len(conflicts) - 1} more)" if len(conflicts) > 1 else ""
        raise DataError(
            f"The masks of {' and '.join(conflicts[0])} would have one name{others}. Give each a folder of its own."
        )
    # an image that is named twice is predicted once
    all_paths = list({(paths.folder, paths.name): paths for paths in all_paths}.values())
    masks = {paths: [paths.mask(suffix) for suffix in MASKS] for paths in all_paths}
    extras = {paths: paths.extras(probabilities=probabilities, overlay=overlay) for paths in all_paths}
    sources = {_real(paths.image): paths.image for paths in all_paths}
    written = [path for paths in all_paths for path in (*masks[paths], *extras[paths])]
    if overwritten := [sources[path] for path in map(_real, written) if path in sources]:
        raise OptionError(f"{output} is where the images are: {overwritten[0]} would be overwritten. Give another folder.")
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
            f"{format_names(present, MAX_NAMES)}: already there. existing='skip' (--existing skip) leaves such images out, "
            "'replace' predicts them again."
        )
    return all_paths, 0


def _find_images(source: Path, output: Path) -> Sequence[ImagePaths]:
    if is_folder(source):
        paths = [path for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES and not path.is_dir()]
        paths = [path for path in paths if not _is_hidden(path, source)]
        if _real(source) in _real(output).parents:  # what an earlier run wrote there is no image
            paths = [path for path in paths if not _real(path).is_relative_to(_real(output))]
        if not paths:
            raise DataError(f"{source} has no image: no file that ends in {', '.join(sorted(SUFFIXES))}.")
        return [_paths_of(path, output / path.relative_to(source).parent) for path in paths]
    if not os.path.lexists(source):  # a link to nothing is an image that cannot be read
        raise DataError(f"There is no file and no folder {source}.")
    return [_paths_of(source, output)]


def _paths_of(image: Path, folder: Path) -> ImagePaths:
    return ImagePaths(image=image, folder=folder, name=image.name.removesuffix(image.suffix))


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

"""Many images predicted and written, one after another: a broken one is told, and the others are done."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from numpy.lib.format import open_memmap

from zoo.common.atomic_write import draft_of
from zoo.common.choices import Existing
from zoo.errors import DataError, OptionError, ZooError
from zoo.inference.prediction.georeference import INSTALL, georeference_of, is_georeferenced, write_georeferenced
from zoo.inference.prediction.output_paths import Place, settle
from zoo.inference.prediction.picture import Picture, open_picture
from zoo.inference.prediction.prediction import Prediction
from zoo.inference.prediction.predictor import Predictor

__all__ = ["FileProgress", "PredictedFiles", "predict_files", "predict_places"]

FileProgress: TypeAlias = Callable[[Path, float], None]
"""Told an image's file, and the share of it that is done, in 0 to 1."""

LARGE = 2**26
"""Pixels from which on a mask is held in a file and not in memory."""
OVERLAY_SIDE = 4096
"""Of an overlay, at most: it is for looking at."""
QUALITY = 90
"""Of an overlay's JPEG."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedFiles:
    """What became of the images that were given.

    Attributes:
        masks: by image, the file of its mask.
        failed: by image, why there is none.
        num_skipped: how many were done already, and left out.
        notes: what else the user should know.
    """

    masks: dict[Path, Path]
    failed: dict[Path, str]
    num_skipped: int = 0
    notes: tuple[str, ...] = ()


def predict_files(
    predictor: Predictor,
    images: str | PathLike[str] | Iterable[str | PathLike[str]],
    output: str | PathLike[str],
    *,
    probabilities: bool = False,
    overlay: bool = False,
    existing: Existing = "error",
    any_size: bool = False,
    progress: FileProgress | None = None,
) -> PredictedFiles:
    """Predict files and folders of images, and write a mask for each: an image with a palette, whose pixels are class indexes.

    A mask is `NAME.png`, or `NAME.tif` in the image's place on the earth where the image is a GeoTIFF and rasterio is
    installed. Each file is written whole or not at all.

    Args:
        predictor: how.
        images: a file or a folder, or several; folders are gone through whole.
        output: the folder that gets the masks; a folder's images keep their places in it.
        probabilities: write `NAME-probabilities.npy` as well: (classes, H, W), float16.
        overlay: write `NAME-overlay.jpg` as well: the image with the mask drawn over it, made smaller if it is large.
        existing: what of masks that are there already: "error" begins nothing, "skip" leaves those images out, "replace"
            predicts them again.
        any_size: read files of more pixels than Pillow opens unasked.
        progress: told each image's file and the share of it that is done.

    Raises:
        DataError: a path that is not there, no image at all, or two whose masks would have one name.
        OptionError: masks are there already, one would take an image's place, or the output cannot be written.
    """
    folder = Path(output)
    places, num_skipped = settle(images, folder, existing=existing, probabilities=probabilities, overlay=overlay)
    found = predict_places(
        predictor, places, folder, probabilities=probabilities, overlay=overlay, any_size=any_size, progress=progress
    )
    return replace(found, num_skipped=num_skipped)


def predict_places(
    predictor: Predictor,
    places: Sequence[Place],
    folder: Path,
    *,
    probabilities: bool,
    overlay: bool,
    any_size: bool,
    progress: FileProgress | None,
) -> PredictedFiles:
    """Predict images whose places `settle` gave, into its folder; arguments and errors as for `predict_files`."""
    run = _Run(predictor, probabilities=probabilities, overlay=overlay, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for place, picture in _read_ahead(places, predictor, any_size=any_size):
            run.take(place, picture)
        run.finish()
    except OSError as cause:
        raise OptionError(
            f"{cause.filename or folder} cannot be written: {cause.strerror or cause}. {len(run.masks)} of {len(places)} masks "
            "are there; existing='skip' (--existing skip) goes on with the others."
        ) from cause
    notes = (run.lost,) if run.lost else ()
    return PredictedFiles(masks=run.masks, failed=run.failed, notes=notes)


class _Run:
    """The images of one call: those of one size wait for one another, as many as a batch has."""

    def __init__(self, predictor: Predictor, *, probabilities: bool, overlay: bool, progress: FileProgress | None) -> None:
        self.masks: dict[Path, Path] = {}
        self.failed: dict[Path, str] = {}
        self.lost = ""
        self._predictor = predictor
        self._has_probabilities = probabilities
        self._has_overlay = overlay
        self._progress = progress or (lambda path, share: None)
        self._waiting: list[tuple[Place, Picture]] = []

    def take(self, place: Place, picture: Picture | ZooError) -> None:
        """Predict an image, or let it wait for others of its size."""
        if isinstance(picture, ZooError):
            self._fail(place, picture)
        elif not self._predictor.takes_whole(picture.size):
            with self._naming_of(place):
                self._in_tiles(place, picture)
        else:
            if self._waiting and self._waiting[0][1].size != picture.size:
                self.finish()
            self._waiting.append((place, picture))
            if len(self._waiting) == self._predictor.batch:
                self.finish()

    def finish(self) -> None:
        """Predict those that wait. If one of them cannot be, each is tried by itself."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            found = self._predictor.many([picture for _, picture in waiting], probabilities=self._has_probabilities)
        except ZooError as cause:
            if len(waiting) == 1:
                self._fail(waiting[0][0], cause)
                return
            for each in waiting:
                self._waiting = [each]
                self.finish()
            return
        for (place, picture), prediction in zip(waiting, found, strict=True):
            with self._naming_of(place):
                if prediction.probabilities is not None:
                    self._make_folder(place)
                    with draft_of(place.probabilities) as draft:
                        np.save(draft, prediction.probabilities.astype(np.float16))
                self._write(place, picture, prediction)

    @contextmanager
    def _naming_of(self, place: Place) -> Iterator[None]:
        """Let an image fail alone where what is written for it would have too long a name."""
        try:
            yield
        except OSError as cause:
            if cause.errno != errno.ENAMETOOLONG:
                raise
            self._fail(
                place, DataError(f"{place.image}: {Path(str(cause.filename2 or cause.filename)).name} is too long a name.")
            )

    def _in_tiles(self, place: Place, picture: Picture) -> None:
        """Predict a large image; what is large of its outcome goes to files as its rows are done."""
        self._make_folder(place)
        height, width = picture.size
        with tempfile.TemporaryFile(dir=place.folder) as file:
            mask = None
            if height * width >= LARGE:
                mask = np.memmap(file, dtype=self._predictor.mask_type, mode="w+", shape=(height, width))
                _reserve(file)
            try:
                if self._has_probabilities:
                    with draft_of(place.probabilities) as draft:
                        shape = (self._predictor.num_channels, height, width)
                        kept = open_memmap(draft, mode="w+", dtype=np.float16, shape=shape)
                        with draft.open("rb+") as made:
                            _reserve(made)
                        prediction = self._predicted(place, picture, mask, kept)
                        kept.flush()
                else:
                    prediction = self._predicted(place, picture, mask, False)
            except ZooError as cause:
                self._fail(place, cause)
                return
            self._write(place, picture, prediction)

    def _predicted(self, place: Place, picture: Picture, mask: np.ndarray | None, kept: np.ndarray | bool) -> Prediction:
        return self._predictor.of_picture(
            picture, mask=mask, probabilities=kept, progress=lambda share: self._progress(place.image, min(share, 0.99))
        )

    def _write(self, place: Place, picture: Picture, prediction: Prediction) -> None:
        self._make_folder(place)
        if self._has_overlay:
            step = -(-max(picture.size) // OVERLAY_SIDE)
            with draft_of(place.overlay) as draft:
                small = Prediction(mask=prediction.mask[::step, ::step], classes=prediction.classes, colours=prediction.colours)
                small.overlay(np.asarray(picture.array[::step, ::step])).save(draft, quality=QUALITY)
        georeference = georeference_of(place.image)
        if georeference is None and not find_spec("rasterio") and is_georeferenced(place.image):
            self.lost = f"masks of GeoTIFFs do not say where they are on the earth; for that: {INSTALL}"
        target = place.mask(".png" if georeference is None else ".tif")
        with draft_of(target) as draft:
            if georeference is None:
                prediction.picture().save(draft)
            else:
                write_georeferenced(draft, prediction.mask, prediction.colours, georeference, place.image)
        self.masks[place.image] = target
        self._progress(place.image, 1.0)

    def _make_folder(self, place: Place) -> None:
        place.folder.mkdir(parents=True, exist_ok=True)

    def _fail(self, place: Place, cause: ZooError) -> None:
        told = str(cause)
        self.failed[place.image] = told if str(place.image) in told else f"{place.image}: {told}"
        self._progress(place.image, 1.0)


def _reserve(file: IO[bytes]) -> None:
    """Take a file's space on the disk now: if the disk is full when a mapped file is written to, the process is ended (SIGBUS).

    Raises:
        OSError: there is not so much.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _read_ahead(places: Sequence[Place], predictor: Predictor, *, any_size: bool) -> Iterator[tuple[Place, Picture | ZooError]]:
    """Yield each image as it was read, or why it could not be; the next is read meanwhile."""

    def read(place: Place) -> Picture | ZooError:
        try:
            return open_picture(place.image, predictor.in_channels, any_size=any_size)
        except ZooError as cause:
            return cause
        except OSError as cause:
            return DataError(f"{place.image} could not be read: {cause.strerror or cause}.")

    with ThreadPoolExecutor(1) as pool:
        coming: deque[tuple[Place, Future[Picture | ZooError]]] = deque()
        for place in places:
            coming.append((place, pool.submit(read, place)))
            if len(coming) > predictor.batch:
                done, future = coming.popleft()
                yield done, future.result()
        for done, future in coming:
            yield done, future.result()

"""Predict the masks of many images, and write them.

If this fails for an image, report it and continue with the other images.
"""

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
from zoo.common.format_names import format_count
from zoo.errors import DataError, OptionError, ZooError
from zoo.inference.prediction.georeference import INSTALL, georeference_of, is_georeferenced, write_georeferenced
from zoo.inference.prediction.output_paths import ImagePaths, plan_outputs
from zoo.inference.prediction.picture import Picture
from zoo.inference.prediction.prediction import Prediction
from zoo.inference.prediction.predictor import Predictor

__all__ = ["FileProgress", "PredictedFiles", "predict_files", "predict_planned"]

FileProgress: TypeAlias = Callable[[Path, float], None]
"""Called with the path of an image and the share of the image that is finished, in 0 to 1."""

LARGE = 2**26
"""If an image with at least this many pixels is predicted in tiles, its mask is kept in a temporary file and not in memory."""
OVERLAY_SIDE = 4096
"""The largest side of an overlay in pixels. Overlays of larger images are reduced, since they are only for viewing."""
QUALITY = 90
"""The JPEG quality of an overlay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictedFiles:
    """The results of predicting several images.

    Attributes:
        masks: a mapping from the path of each predicted image to the path of its mask.
        failed: a mapping from the path of each image without a prediction to the reason.
        num_skipped: the number of images that were skipped because their results existed already.
        notes: further notes for the user.
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
    """Predict and write a mask for each image in files and folders.

    A mask is an image whose pixels are class indexes, with a palette of the classes' colors (16-bit gray without a palette for
    more than 256 classes). Its name is `NAME.png`, or `NAME.tif` with the image's georeference if the image is a GeoTIFF and
    rasterio is installed. Each file is written completely or not at all.

    Args:
        predictor: the predictor.
        images: the path of a file or a folder, or several paths. Subfolders are included.
        output: the folder for the masks. If `images` has subfolders, the masks are written to subfolders of the same names.
        probabilities: write `NAME-probabilities.npy` as well: (classes, H, W), float16.
        overlay: write `NAME-overlay.jpg` as well: the image with the mask drawn over it, made smaller if it is large.
        existing: what to do if results exist already. "error" raises an error before the first image is predicted. "skip" skips
            each image whose requested results all exist. "replace" predicts every image again.
        any_size: whether to read files of more pixels than Pillow's default limit.
        progress: called with the path of an image and the share of the image that is finished.

    Raises:
        DataError: a path does not exist, there is no image, or the masks of two images would have the same name.
        OptionError: results exist and `existing` is "error", a result would replace an image, or the output cannot be written.
    """
    folder = Path(output)
    all_paths, num_skipped = plan_outputs(images, folder, existing=existing, probabilities=probabilities, overlay=overlay)
    result = predict_planned(
        predictor, all_paths, folder, probabilities=probabilities, overlay=overlay, any_size=any_size, progress=progress
    )
    return replace(result, num_skipped=num_skipped)


def predict_planned(
    predictor: Predictor,
    all_paths: Sequence[ImagePaths],
    folder: Path,
    *,
    probabilities: bool,
    overlay: bool,
    any_size: bool,
    progress: FileProgress | None,
) -> PredictedFiles:
    """Predict the images that `plan_outputs` returned, and write the results. See `predict_files` for arguments and errors."""
    run = _Run(predictor, probabilities=probabilities, overlay=overlay, progress=progress)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for paths, picture in _read_ahead(all_paths, predictor, any_size=any_size):
            run.take(paths, picture)
        run.finish()
    except OSError as cause:
        raise OptionError(
            f"{cause.filename or folder} cannot be written: {cause.strerror or cause}. {len(run.masks)} of {len(all_paths)} "
            "masks were written. To predict the remaining images, use existing='skip' (--existing skip)."
        ) from cause
    notes = [run.lost] if run.lost else []
    if run.misfits:
        more = f" This may also apply to {format_count(len(run.misfits) - 1, 'other image')}." if len(run.misfits) > 1 else ""
        notes.append(f"{run.misfits[0]}.{more}")
    return PredictedFiles(masks=run.masks, failed=run.failed, notes=tuple(notes))


class _Run:
    """The state of one call of `predict_planned`: its results, and the images of one size that wait until they fill a batch."""

    def __init__(self, predictor: Predictor, *, probabilities: bool, overlay: bool, progress: FileProgress | None) -> None:
        self.masks: dict[Path, Path] = {}
        self.failed: dict[Path, str] = {}
        self.lost = ""
        self.misfits: list[str] = []
        self._predictor = predictor
        self._has_probabilities = probabilities
        self._has_overlay = overlay
        self._progress = progress or (lambda path, share: None)
        self._waiting: list[tuple[ImagePaths, Picture]] = []

    def take(self, paths: ImagePaths, picture: Picture | ZooError) -> None:
        """Predict an image, or store it until images of its size fill a batch."""
        if isinstance(picture, ZooError):
            self._fail(paths, picture)
            return
        if picture.note:
            self.misfits.append(picture.note)
        if not self._predictor.takes_whole(picture.size):
            with self._report_long_names(paths):
                self._predict_in_tiles(paths, picture)
        else:
            if self._waiting and self._waiting[0][1].size != picture.size:
                self.finish()
            self._waiting.append((paths, picture))
            if len(self._waiting) == self._predictor.batch:
                self.finish()

    def finish(self) -> None:
        """Predict the waiting images as one batch. If that fails, predict each of them separately."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        try:
            predictions = self._predictor.many([picture for _, picture in waiting], probabilities=self._has_probabilities)
        except ZooError as cause:
            if len(waiting) == 1:
                self._fail(waiting[0][0], cause)
                return
            for each in waiting:
                self._waiting = [each]
                self.finish()
            return
        for (paths, picture), prediction in zip(waiting, predictions, strict=True):
            with self._report_long_names(paths):
                if prediction.probabilities is not None:
                    self._make_folder(paths)
                    with draft_of(paths.probabilities) as draft:
                        np.save(draft, prediction.probabilities.astype(np.float16))
                self._write(paths, picture, prediction)

    @contextmanager
    def _report_long_names(self, paths: ImagePaths) -> Iterator[None]:
        """Report an image as failed, and continue with the next one, if the name of a file to write is too long."""
        try:
            yield
        except OSError as cause:
            if cause.errno != errno.ENAMETOOLONG:
                raise
            self._fail(
                paths, DataError(f"{paths.image}: {Path(str(cause.filename2 or cause.filename)).name} is too long a file name.")
            )

    def _predict_in_tiles(self, paths: ImagePaths, picture: Picture) -> None:
        """Predict an image in tiles. Large results are stored in files and not in memory."""
        self._make_folder(paths)
        height, width = picture.size
        with tempfile.TemporaryFile(dir=paths.folder) as file:
            mask = None
            if height * width >= LARGE:
                mask = np.memmap(file, dtype=self._predictor.mask_type, mode="w+", shape=(height, width))
                _reserve(file)
            try:
                if self._has_probabilities:
                    with draft_of(paths.probabilities) as draft:
                        shape = (self._predictor.num_channels, height, width)
                        kept = open_memmap(draft, mode="w+", dtype=np.float16, shape=shape)
                        with draft.open("rb+") as made:
                            _reserve(made)
                        prediction = self._predict(paths, picture, mask, kept)
                        kept.flush()
                else:
                    prediction = self._predict(paths, picture, mask, False)
            except ZooError as cause:
                self._fail(paths, cause)
                return
            self._write(paths, picture, prediction)

    def _predict(self, paths: ImagePaths, picture: Picture, mask: np.ndarray | None, kept: np.ndarray | bool) -> Prediction:
        return self._predictor.of_picture(
            picture, mask=mask, probabilities=kept, progress=lambda share: self._progress(paths.image, min(share, 0.99))
        )

    def _write(self, paths: ImagePaths, picture: Picture, prediction: Prediction) -> None:
        self._make_folder(paths)
        if self._has_overlay:
            step = -(-max(picture.size) // OVERLAY_SIDE)
            with draft_of(paths.overlay) as draft:
                small = Prediction(mask=prediction.mask[::step, ::step], classes=prediction.classes, colors=prediction.colors)
                small.overlay(np.asarray(picture.array[::step, ::step])).save(draft, quality=QUALITY)
        georeference = georeference_of(paths.image)
        if georeference is None and not find_spec("rasterio") and is_georeferenced(paths.image):
            self.lost = f"the masks of GeoTIFFs have no georeference. To write it: {INSTALL}"
        target = paths.mask(".png" if georeference is None else ".tif")
        with draft_of(target) as draft:
            if georeference is None:
                prediction.picture().save(draft)
            else:
                write_georeferenced(draft, prediction.mask, prediction.colors, georeference, paths.image)
        self.masks[paths.image] = target
        self._progress(paths.image, 1.0)

    def _make_folder(self, paths: ImagePaths) -> None:
        paths.folder.mkdir(parents=True, exist_ok=True)

    def _fail(self, paths: ImagePaths, cause: ZooError) -> None:
        reason = str(cause)
        self.failed[paths.image] = reason if str(paths.image) in reason else f"{paths.image}: {reason}"
        self._progress(paths.image, 1.0)


def _reserve(file: IO[bytes]) -> None:
    """Reserve the disk space of a file.

    Without this, the operating system would kill the process (SIGBUS) if the disk became full during a write to the
    memory-mapped file.

    Raises:
        OSError: the disk does not have enough space.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


def _read_ahead(
    all_paths: Sequence[ImagePaths], predictor: Predictor, *, any_size: bool
) -> Iterator[tuple[ImagePaths, Picture | ZooError]]:
    """Yield each image, or the error that reading it raised. Meanwhile, a thread reads the next images."""

    def read(paths: ImagePaths) -> Picture | ZooError:
        try:
            return predictor.open(paths.image, any_size=any_size)
        except ZooError as cause:
            return cause
        except OSError as cause:
            return DataError(f"{paths.image} could not be read: {cause.strerror or cause}.")

    with ThreadPoolExecutor(1) as pool:
        pending: deque[tuple[ImagePaths, Future[Picture | ZooError]]] = deque()
        for paths in all_paths:
            pending.append((paths, pool.submit(read, paths)))
            if len(pending) > predictor.batch:
                done, future = pending.popleft()
                yield done, future.result()
        for done, future in pending:
            yield done, future.result()

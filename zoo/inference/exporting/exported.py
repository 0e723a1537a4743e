"""`export`: write a model to a file for other programs, and keep the file only if its output matches the model's."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.common.choices import EXPORT_TIMEOUT, EXPORT_TOLERANCE, ModelFormat
from zoo.common.foreign_code import no_exits
from zoo.common.grid import to_text
from zoo.common.regular_files import check_regular, is_folder
from zoo.data.value_ranges import ValueRange
from zoo.errors import ExportError, InputError, OptionError
from zoo.inference.deployment.checked import describe_failure
from zoo.inference.exporting.checking import check_file, check_shapes, random_pixels
from zoo.inference.exporting.formats import FORMATS, Draft, Written, files_of, why_not_format, write
from zoo.inference.exporting.metadata import facts_of
from zoo.inference.exporting.report import Check, ExportReport, checks_table
from zoo.inference.exporting.time_limit import HandOverError, write_within
from zoo.inference.reference import why_not_comparable
from zoo.model.layers.normalization import Normalization, PixelScaling
from zoo.model.model import SegmentationModel
from zoo.registry.image_sizes import Size

__all__ = ["export"]

DEFAULT_SIZE = (256, 256)


class Normalizing(nn.Module):
    """A model with its normalization, for pixels: (N, C, H, W) -> (N, classes, H, W)."""

    def __init__(self, normalization: nn.Module, model: nn.Module) -> None:
        super().__init__()
        self.normalization = normalization
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        """Return the logits of each pixel."""
        logits: Tensor = self.model(self.normalization(image))
        return logits


@no_exits("zoo.export")
def export(
    model: SegmentationModel,
    path: str | PathLike[str],
    *,
    format: ModelFormat | None = None,
    size: Size | None = None,
    fixed: bool = False,
    normalize: bool = False,
    tolerance: float = EXPORT_TOLERANCE,
    timeout: float | None = EXPORT_TIMEOUT,
) -> ExportReport:
    """Write a model as an ONNX file, a `torch.export` program or OpenVINO's files, for any batch size, height and width.

    The exported file is run in its own runtime (such as ONNX Runtime) on image shapes other than the one used for the export,
    and is kept only if its output is close enough to the model's. If a graph for all sizes cannot be exported, or its export
    takes longer than `timeout`, the file takes a single size, and its name says so: `model-256x256.onnx`. The exported model is
    float32, with the input `image` (N, in_channels, H, W) and the output `logits` (N, classes, H, W). The file's metadata
    describe the model.

    Args:
        model: a model that `zoo.build` or `zoo.load` returned. It is not changed.
        path: the file. Missing folders are created. An existing file is replaced only after the new one has passed the
            comparison.
        format: "onnx" (.onnx), "torch-export" (.pt2) or "openvino" (.xml, with a .bin file next to it); by default, the suffix
            of `path` decides.
        size: (H, W) of a file for a single size; by default the size that the model is made for, or 256x256.
        fixed: whether to write a file for a single size even if one for all sizes could be exported.
        normalize: whether the file takes pixels and normalizes them itself, as `model.preprocessing` describes. The pixels are
            in 0 to 1. If the model has a `value_range`, they are in the units of that range instead, and the file also scales
            them. By default, the file takes normalized images, as the model does.
        tolerance: the accepted relative error max|a - b| / max|b|, where b is the model's output.
        timeout: the time limit in seconds for the export of a graph that takes any number or any size of images. Such a graph
            is exported in a separate process. With None, there is no limit, and it is exported in this process.

    Returns:
        A report of the file, its input, and how much its output differs from the model's; `print(report)` shows it.

    Raises:
        OptionError: an option has an invalid value, the file cannot be written, or a package is missing.
        ExportError: the model cannot be exported or itself returns NaN or infinity, or the file's output differs by more than
            the tolerance. Nothing was written.
        PluginError: code of the model tried to exit the program.
        InputError: the model refuses `size`.

    Example:
        >>> print(zoo.export(model, "model.onnx"))
    """
    form, path = _choose_format(path, format)
    _check_numbers(size, tolerance, timeout)
    if missing := why_not_format(form):
        raise OptionError(f"format={form!r}: {missing}")
    if not isinstance(model, SegmentationModel):
        raise OptionError(f"export needs a model that zoo.build or zoo.load returned; found a {type(model).__name__}.")
    plan = model.plan.sizes
    single_size = _single_size(model, size)
    # A file for a single size is written only on request, or if a graph for all sizes is not possible. The report states why.
    notes = ["A single size was requested."] if fixed else [f"Single size: {plan.why_closed}."] if plan.why_closed else []
    subject = _prepare(model, normalize)
    value_range = model.value_range if normalize else None
    _check_comparable(subject, model, single_size, value_range)
    # The most general graph is tried first. The draft of a file is compared with the model before it replaces an older file.
    with _folder_beside(path) as folder:
        for is_last, (draft_size, open_batch) in _sizes_to_try(single_size, is_fixed=bool(notes)):
            target = path if draft_size is None else _add_size(path, draft_size)
            draft = Draft(
                form=form,
                path=folder / target.name,
                channels=model.pairing.in_channels,
                size=draft_size,
                open_batch=open_batch,
                facts=facts_of(model, size=draft_size, open_batch=open_batch, normalizes=normalize),
                value_range=value_range,
            )
            try:
                written = _write(subject, draft, None if is_last else timeout, notes)
                checks = check_file(subject, draft, check_shapes(draft, plan.sizes.multiple, written.untried))
            except Exception as cause:  # another library's error: the next, less general graph is tried
                notes.append(f"{_describe(draft)} cannot be exported: {describe_failure(cause)}.")
                if is_last:
                    raise ExportError(f"{model.pairing}: {' '.join(notes)} {target} was not written.") from cause
                continue
            _check_tolerance(checks, tolerance, draft, target)
            num_bytes = _move_files(draft.path, target)
            return ExportReport(
                path=target,
                format=form,
                size=draft_size,
                is_batch_open=open_batch,
                normalizes=normalize,
                opset=written.opset,
                num_bytes=num_bytes,
                tolerance=float(tolerance),
                checks=checks,
                notes=tuple(notes),
                value_range=value_range,
            )
    raise AssertionError("the last size returns or raises")


def _choose_format(path: str | PathLike[str], format: ModelFormat | None) -> tuple[ModelFormat, Path]:
    path = Path(path)
    suffixes = ", ".join(f"{suffix} ({form})" for form, suffix in FORMATS.items())
    form = format or next((form for form, suffix in FORMATS.items() if path.suffix == suffix), None)
    if form is None:
        raise OptionError(f"{path}: the suffix is not that of a format. Use one of {suffixes}.")
    if form not in FORMATS:
        raise OptionError(f"format must be one of {', '.join(map(repr, FORMATS))}; found {format!r}.")
    if path.suffix != FORMATS[form]:
        raise OptionError(f"{path}: the path of a file in the format {form!r} must end in {FORMATS[form]}.")
    if is_folder(path):
        raise OptionError(f"{path} is a folder. Pass the path of a file.")
    try:
        check_regular(path)
    except FileNotFoundError:
        pass
    except OSError as cause:
        raise OptionError(f"{path} cannot be written: {cause.strerror}. Choose another path.") from cause
    return form, path


def _check_numbers(size: Size | None, tolerance: float, timeout: float | None) -> None:
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    if size is not None and not (is_pair and all(isinstance(length, int) and length >= 1 for length in size)):
        raise OptionError(f"size must be a pair (height, width) of integers of at least 1; found {size!r}.")
    given = {"tolerance": tolerance} if timeout is None else {"tolerance": tolerance, "timeout": timeout}
    for name, value in given.items():
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise OptionError(f"{name} must be a finite number above 0; found {value!r}.")


def _single_size(model: SegmentationModel, size: Size | None) -> Size:
    plan = model.plan.sizes
    if size is None:
        return plan.asked or plan.sizes.fixed or plan.sizes.holding(DEFAULT_SIZE)
    if plan.fit(*size)[0] == "refuse":
        raise InputError(f"{model.pairing.encoder} x {model.pairing.decoder} takes {plan.refusal(*size)}")
    return size[0], size[1]


def _sizes_to_try(single: Size, *, is_fixed: bool) -> Iterator[tuple[bool, tuple[Size | None, bool]]]:
    """Yield (is_last, (size, open_batch)) for each graph to try, the most general graph first. None stands for all sizes."""
    if not is_fixed:
        yield False, (None, True)
    yield False, (single, True)
    yield True, (single, False)


def _prepare(model: SegmentationModel, normalize: bool) -> nn.Module:
    """Return the module to export: a copy of the model in float32 on the CPU, without the auxiliary heads."""
    subject = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    subject.aux_heads = nn.ModuleList()
    if not normalize:
        return subject
    normalization: nn.Module = Normalization(model.preprocessing)
    if model.value_range is not None:
        normalization = nn.Sequential(PixelScaling(model.value_range), normalization)
    return Normalizing(normalization, subject)


def _check_comparable(subject: nn.Module, model: SegmentationModel, size: Size, value_range: ValueRange | None) -> None:
    """Raise an ExportError if the model's own output contains NaN or infinity, since no file could be compared with it."""
    shape = (1, model.pairing.in_channels, *size)
    image = random_pixels(shape, value_range, torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            output = subject(image)
    except Exception:  # noqa: BLE001 - the later attempts to export report the error
        return
    if reason := why_not_comparable(output):
        raise ExportError(f"{model.pairing} cannot be exported. {reason} Nothing was written.")


def _add_size(path: Path, size: Size) -> Path:
    """Add the single size that a file takes to the name of the file, and return the new path."""
    text = f"-{size[0]}x{size[1]}"
    return path if path.stem.endswith(text) else path.with_stem(path.stem + text)


def _describe(draft: Draft) -> str:
    if draft.size is None:
        return "A graph for any height and width"
    return f"A graph for {draft.size[0]}x{draft.size[1]} and {'any batch' if draft.open_batch else 'one image'}"


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Create a temporary folder on the same disk as the target file, and remove it at the end."""
    folder = path.parent / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise OptionError(f"{path} cannot be written: {cause.strerror}. Choose another path.") from cause
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(subject: nn.Module, draft: Draft, timeout: float | None, notes: list[str]) -> Written:
    if timeout is not None:
        try:
            return write_within(timeout, subject, draft)
        except HandOverError as cause:
            notes.append(f"Another process cannot load the model ({cause}), so it was exported without a time limit.")
    return write(subject, draft)


def _check_tolerance(checks: tuple[Check, ...], tolerance: float, draft: Draft, target: Path) -> None:
    if all(check.relative <= tolerance for check in checks):  # NaN is refused as well
        return
    advice = " Pass fixed=True (`--fixed`) for a file of one size." if draft.size is None else ""
    raise ExportError(
        f"The output of the exported file differs from the model's by more than the tolerance, {tolerance:g}. "
        f"{target} was not written."
        f"{advice}\n{to_text([checks_table(checks)], width=80).rstrip()}"
    )


def _move_files(draft: Path, target: Path) -> int:
    """Move the files of a draft to the target, delete leftovers of an older export, and return the size in bytes."""
    files = files_of(draft)
    num_bytes = sum(file.stat().st_size for file in files)
    before = files_of(target) if target.is_file() else []
    try:
        for file in files:
            file.replace(target.with_name(file.name))
        for file in before:
            if file.name not in {each.name for each in files}:
                file.unlink()  # the separate weights file of an older export
    except OSError as cause:
        raise OptionError(f"{target} cannot be written: {cause.strerror}. Choose another path.") from cause
    return num_bytes

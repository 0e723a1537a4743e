"""`export`: write a model as a file for other programs, and compare it with the model before it is kept."""

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
from zoo.errors import ExportError, InputError, OptionError
from zoo.inference.deployment.checked import describe_failure
from zoo.inference.exporting.checking import check_file, check_shapes
from zoo.inference.exporting.formats import FORMATS, Draft, Written, files_of, why_not_format, write
from zoo.inference.exporting.metadata import facts_of
from zoo.inference.exporting.report import Check, ExportReport, checks_table
from zoo.inference.exporting.time_limit import HandOverError, write_within
from zoo.inference.reference import why_not_comparable
from zoo.model.layers.normalization import Normalization
from zoo.model.model import SegmentationModel
from zoo.registry.image_sizes import Size

__all__ = ["export"]

DEFAULT_SIZE = (256, 256)


class Normalizing(nn.Module):
    """A model that takes pixels in 0 to 1: (N, C, H, W) -> (N, classes, H, W)."""

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
    """Write a model as an ONNX file, a `torch.export` program or OpenVINO's files, for any batch, height and width.

    The file's own runtime runs it with images of shapes that it was not exported with, and the file is kept only if its
    output is close enough to the model's. If a graph for all sizes cannot be exported, or not in time, the file takes a
    single size, and its name says so: `model-256x256.onnx`. It holds the model in float32: `image` (N, in_channels, H, W)
    in, `logits` (N, classes, H, W) out, and describes the model in its metadata.

    Args:
        model: one that `zoo.build` or `zoo.load` gave; it stays as it is.
        path: the file; a folder that is not there is made. A file that is there is replaced, whole, by one that was compared.
        format: "onnx" (.onnx), "torch-export" (.pt2) or "openvino" (.xml, with a .bin beside it); by default as the suffix
            says.
        size: (H, W) of a file for a single size; by default what the model is made for, or 256x256.
        fixed: whether to write one for a single size in any case.
        normalize: whether the file takes pixels in 0 to 1 and normalizes them itself (`model.preprocessing`). By default it
            takes what the model takes: normalized images.
        tolerance: the relative error max|a - b| / max|b| that is accepted.
        timeout: seconds that a graph with open sizes may take, in a process of its own; None for as long as it takes, in
            this process.

    Returns:
        Where it is, what it takes, and how near it is; `print(report)` shows it.

    Raises:
        OptionError: an option without such a value, a place that cannot be written to, or a package that is missing.
        ExportError: it cannot be exported, the model itself gives NaN or infinity, or the file's output differs by more than
            the tolerance; nothing was written.
        PluginError: code of the model tried to end the program.
        InputError: a `size` that the model refuses.

    Example:
        >>> print(zoo.export(model, "model.onnx"))
    """
    form, path = _choose_format(path, format)
    _check_numbers(size, tolerance, timeout)
    if missing := why_not_format(form):
        raise OptionError(f"format={form!r}: {missing}")
    if not isinstance(model, SegmentationModel):
        raise OptionError(f"export takes a model that zoo.build or zoo.load gave; found a {type(model).__name__}.")
    plan = model.plan.sizes
    single_size = _single_size(model, size)
    # A file for one size is written only on request, or where the encoder takes one size; the report says which.
    notes = ["One size was requested."] if fixed else [f"One size: {plan.why_closed}."] if plan.why_closed else []
    subject = _prepare(model, normalize)
    _check_comparable(subject, model, single_size)
    # The most open graph is tried first. Its draft is compared with the model before it replaces an older file.
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
            )
            try:
                written = _write(subject, draft, None if is_last else timeout, notes)
                checks = check_file(subject, draft, check_shapes(draft, plan.sizes.multiple, written.untried))
            except Exception as cause:  # another library's error: the next, less open graph is tried
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
            )
    raise AssertionError("the last size returns or raises")


def _choose_format(path: str | PathLike[str], format: ModelFormat | None) -> tuple[ModelFormat, Path]:
    path = Path(path)
    suffixes = ", ".join(f"{suffix} ({form})" for form, suffix in FORMATS.items())
    form = format or next((form for form, suffix in FORMATS.items() if path.suffix == suffix), None)
    if form is None:
        raise OptionError(f"{path}: the suffix names no format. Use one of {suffixes}.")
    if form not in FORMATS:
        raise OptionError(f"format is one of {', '.join(map(repr, FORMATS))}; found {format!r}.")
    if path.suffix != FORMATS[form]:
        raise OptionError(f"{path}: a file of the format {form!r} ends in {FORMATS[form]}.")
    if is_folder(path):
        raise OptionError(f"{path} is a folder. Give a file.")
    try:
        check_regular(path)
    except FileNotFoundError:
        pass
    except OSError as cause:
        raise OptionError(f"{path} cannot be written: {cause.strerror}. Give another file.") from cause
    return form, path


def _check_numbers(size: Size | None, tolerance: float, timeout: float | None) -> None:
    is_pair = isinstance(size, tuple | list) and len(size) == 2
    if size is not None and not (is_pair and all(isinstance(length, int) and length >= 1 for length in size)):
        raise OptionError(f"size is a pair (height, width) of whole numbers of at least 1; found {size!r}.")
    given = {"tolerance": tolerance} if timeout is None else {"tolerance": tolerance, "timeout": timeout}
    for name, value in given.items():
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise OptionError(f"{name} is a number above 0; found {value!r}.")


def _single_size(model: SegmentationModel, size: Size | None) -> Size:
    plan = model.plan.sizes
    if size is None:
        return plan.asked or plan.sizes.fixed or plan.sizes.holding(DEFAULT_SIZE)
    if plan.fit(*size)[0] == "refuse":
        raise InputError(f"{model.pairing.encoder} x {model.pairing.decoder} takes {plan.refusal(*size)}")
    return size[0], size[1]


def _sizes_to_try(single: Size, *, is_fixed: bool) -> Iterator[tuple[bool, tuple[Size | None, bool]]]:
    """Yield sizes and whether the batch is open, the most open first, each with whether it is the last."""
    if not is_fixed:
        yield False, (None, True)
    yield False, (single, True)
    yield True, (single, False)


def _prepare(model: SegmentationModel, normalize: bool) -> nn.Module:
    """Return what is exported: a copy, in float32 on the CPU, without what only training needs."""
    subject = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
    subject.aux_heads = nn.ModuleList()
    return Normalizing(Normalization(model.preprocessing), subject) if normalize else subject


def _check_comparable(subject: nn.Module, model: SegmentationModel, size: Size) -> None:
    """Raise if the model's own output is NaN or infinite, before a file is made that could not be compared with it."""
    image = torch.rand(1, model.pairing.in_channels, *size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.inference_mode():
            output = subject(image)
    except Exception:  # noqa: BLE001 - of each way to write it is said what the model raises
        return
    if reason := why_not_comparable(output):
        raise ExportError(f"{model.pairing} cannot be exported. {reason} Nothing was written.")


def _add_size(path: Path, size: Size) -> Path:
    """Return a file's path with the one size that it takes in its name."""
    text = f"-{size[0]}x{size[1]}"
    return path if path.stem.endswith(text) else path.with_stem(path.stem + text)


def _describe(draft: Draft) -> str:
    if draft.size is None:
        return "A graph for any height and width"
    return f"A graph for {draft.size[0]}x{draft.size[1]} and {'any batch' if draft.open_batch else 'one image'}"


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Make the folder that a file comes from, on the same disk, and remove it."""
    folder = path.parent / f".{path.name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise OptionError(f"{path} cannot be written: {cause.strerror}.") from cause
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(subject: nn.Module, draft: Draft, timeout: float | None, notes: list[str]) -> Written:
    if timeout is not None:
        try:
            return write_within(timeout, subject, draft)
        except HandOverError as cause:
            notes.append(f"No other process can read the model ({cause}), so that it was exported without a time limit.")
    return write(subject, draft)


def _check_tolerance(checks: tuple[Check, ...], tolerance: float, draft: Draft, target: Path) -> None:
    if all(check.relative <= tolerance for check in checks):  # NaN is refused as well
        return
    advice = " `--fixed` (fixed=True) makes a file for one size." if draft.size is None else ""
    raise ExportError(
        f"What was exported differs from the model by more than the tolerance, {tolerance:g}; {target} was not written."
        f"{advice}\n{to_text([checks_table(checks)], width=80).rstrip()}"
    )


def _move_files(draft: Path, target: Path) -> int:
    """Move the files of a draft to the target, remove what is left of an older one, and return their size in bytes."""
    files = files_of(draft)
    num_bytes = sum(file.stat().st_size for file in files)
    before = files_of(target) if target.is_file() else []
    try:
        for file in files:
            file.replace(target.with_name(file.name))
        for file in before:
            if file.name not in {each.name for each in files}:
                file.unlink()  # the weights of one that was larger
    except OSError as cause:
        raise OptionError(f"{target} cannot be written: {cause.strerror}.") from cause
    return num_bytes

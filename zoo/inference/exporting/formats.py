"""Write a model to a file in each format, and run the file as another program would."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from zoo.common.choices import ModelFormat
from zoo.data.value_ranges import ValueRange
from zoo.inference.exporting.tracing import Shape, trace
from zoo.inference.runtimes import Program, onnxruntime_program, openvino_program, quiet_exporter, why_not
from zoo.registry.image_sizes import Size

__all__ = ["FORMATS", "INPUT", "OUTPUT", "Draft", "Written", "files_of", "program_of", "why_not_format", "write"]

FORMATS: dict[ModelFormat, str] = dict(zip(get_args(ModelFormat), (".onnx", ".pt2", ".xml"), strict=True))
"""The file suffix of each format."""

INPUT, OUTPUT = "image", "logits"
AXES = ("batch", None, "height", "width")
FACTS = "zoo.json"
"""The name of the file with the metadata, inside a `.pt2` archive."""

_RUNTIMES: dict[ModelFormat, str] = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A file to be written.

    Attributes:
        form: one of `FORMATS`.
        path: the path of the file.
        channels: the number of channels of the images.
        size: the only H and W that the file takes; None if it takes all.
        open_batch: whether the file takes any number of images at once, or only one image.
        facts: the metadata about the model.
        value_range: for each channel, the range of the pixels that the file takes; None if the file takes pixels in 0 to 1 or
            normalized images.
    """

    form: ModelFormat
    path: Path
    channels: int
    size: Size | None
    open_batch: bool
    facts: Mapping[str, str]
    value_range: ValueRange | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of writing a draft.

    Attributes:
        opset: the ONNX opset, if the file is ONNX or was converted from ONNX; otherwise None.
        untried: shapes that violate assumptions of the exporter. The file must be checked with them.
    """

    opset: int | None
    untried: tuple[Shape, ...]


def why_not_format(form: ModelFormat) -> str | None:
    """Return the reason why a format cannot be written here, and the remedy; None if it can be."""
    return why_not(_RUNTIMES[form], "float32", torch.device("cpu")) if form in _RUNTIMES else None


def write(model: nn.Module, draft: Draft) -> Written:
    """Write a model to a file.

    Raises:
        Exception: any error that the exporters raise for a model that they do not support.
    """
    with quiet_exporter():
        program, untried = trace(model, draft.channels, size=draft.size, open_batch=draft.open_batch)
        if draft.form == "torch-export":
            torch.export.save(program, draft.path, extra_files={FACTS: json.dumps(dict(draft.facts), ensure_ascii=False)})
            return Written(opset=None, untried=untried)
        opset = _write_onnx(program, draft, draft.path) if draft.form == "onnx" else _write_openvino(program, draft)
    return Written(opset=opset, untried=untried)


def files_of(path: Path) -> list[Path]:
    """Return the files of an exported model. The last one is the main file, which refers to the weights file, if any."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else [path.with_name(f"{path.name}.data")]
    return [*(file for file in beside if file.is_file()), path]


def program_of(form: ModelFormat, path: Path) -> Program:
    """Return a function that runs an exported file: (N, C, H, W) -> (N, classes, H, W).

    The returned function raises the errors of the file's runtime.
    """
    if form == "onnx":
        return onnxruntime_program(str(path))
    if form == "openvino":
        return openvino_program(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings about PyTorch's own code
        module = torch.export.load(path).module()

    def program(image: Tensor) -> Tensor:
        with torch.no_grad():
            output: Tensor = module(image)
        return output

    return program


def _write_onnx(program: ExportedProgram, draft: Draft, path: Path) -> int:
    exported = torch.onnx.export(program, input_names=[INPUT], output_names=[OUTPUT], dynamo=True, verbose=False)
    assert exported is not None
    model = exported.model
    _name_axes(model, draft)
    model.metadata_props.update({f"zoo.{key}": value for key, value in draft.facts.items()})
    exported.save(path)  # in two files if the weights exceed ONNX's limit of 2 GiB
    return int(model.opset_imports[""])


def _name_axes(model: Any, draft: Draft) -> None:
    """Rename the variable axes to batch, height and width everywhere, since the exporter invents names."""
    (image,), (logits,) = model.graph.inputs, model.graph.outputs
    axes = zip(image.shape, AXES, strict=True)
    names = {str(axis.value): name for axis, name in axes if name and not isinstance(axis, int)}
    values = {
        id(value): value for node in model.graph.all_nodes() for value in (*node.inputs, *node.outputs) if value is not None
    }
    for value in (*values.values(), image, logits):
        if value.shape is None or value.shape.is_static():
            continue
        for index, axis in enumerate(value.shape):
            if not isinstance(axis, int) and axis.value is not None:
                value.shape[index] = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), axis.value)
    for index in (0, 2, 3):  # the logits have the image's size, which the exporter cannot infer
        logits.shape[index] = image.shape[index]


def _write_openvino(program: ExportedProgram, draft: Draft) -> int:
    import openvino

    between = draft.path.with_suffix(".onnx")
    opset = _write_onnx(program, draft, between)
    model = openvino.convert_model(between)
    for key, value in draft.facts.items():
        model.set_rt_info(value, ["zoo", key])
    openvino.save_model(model, draft.path, compress_to_fp16=False)
    for file in files_of(between):
        file.unlink()
    return opset

"""Write a model in each format, and run the file as another program would."""

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
from zoo.inference.exporting.tracing import Shape, trace
from zoo.inference.runtimes import Program, onnxruntime_program, openvino_program, quiet_exporter, why_not
from zoo.registry.image_sizes import Size

__all__ = ["FORMATS", "INPUT", "OUTPUT", "Draft", "Written", "files_of", "program_of", "why_not_format", "write"]

FORMATS: dict[ModelFormat, str] = dict(zip(get_args(ModelFormat), (".onnx", ".pt2", ".xml"), strict=True))
"""The suffix of each format's file."""

INPUT, OUTPUT = "image", "logits"
AXES = ("batch", None, "height", "width")
FACTS = "zoo.json"
"""The file within a `.pt2` that holds the facts."""

_RUNTIMES: dict[ModelFormat, str] = {"onnx": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A file to be written.

    Attributes:
        form: one of `FORMATS`.
        path: of the file.
        channels: of the images.
        size: the only H and W that it takes; None for all.
        open_batch: whether it takes any number of images, or one.
        facts: the metadata about the model.
    """

    form: ModelFormat
    path: Path
    channels: int
    size: Size | None
    open_batch: bool
    facts: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """The result of writing a draft.

    Attributes:
        opset: of ONNX, if the file is ONNX or was made from it.
        untried: shapes that violate the graph's assumptions, so that it must be run with them.
    """

    opset: int | None
    untried: tuple[Shape, ...]


def why_not_format(form: ModelFormat) -> str | None:
    """Return why a format cannot be written here, and what to do; None where it can."""
    return why_not(_RUNTIMES[form], "float32", torch.device("cpu")) if form in _RUNTIMES else None


def write(model: nn.Module, draft: Draft) -> Written:
    """Write a model as a file.

    Raises:
        Exception: whatever the exporters raise for a model that they cannot read or write.
    """
    with quiet_exporter():
        program, untried = trace(model, draft.channels, size=draft.size, open_batch=draft.open_batch)
        if draft.form == "torch-export":
            torch.export.save(program, draft.path, extra_files={FACTS: json.dumps(dict(draft.facts), ensure_ascii=False)})
            return Written(opset=None, untried=untried)
        opset = _write_onnx(program, draft, draft.path) if draft.form == "onnx" else _write_openvino(program, draft)
    return Written(opset=opset, untried=untried)


def files_of(path: Path) -> list[Path]:
    """Return a written model's files, the one that names the others last."""
    beside = [path.with_suffix(".bin")] if path.suffix == ".xml" else [path.with_name(f"{path.name}.data")]
    return [*(file for file in beside if file.is_file()), path]


def program_of(form: ModelFormat, path: Path) -> Program:
    """Return a function that runs a file: (N, C, H, W) -> (N, classes, H, W). It raises what the runtime raises."""
    if form == "onnx":
        return onnxruntime_program(str(path))
    if form == "openvino":
        return openvino_program(str(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own
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
    exported.save(path)  # in two files where the weights take more than ONNX's 2 GiB
    return int(model.opset_imports[""])


def _name_axes(model: Any, draft: Draft) -> None:
    """Give open axes their names everywhere; the exporter made up names."""
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
    for index in (0, 2, 3):  # cropped to the image's size, which the exporter cannot know
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

"""Build a U-Net on models of other libraries that are passed as plain modules: `python benchmarks/modules.py`.

The modules are every classifier of torchvision, the smallest classifier of each of timm's families, every backbone type of
transformers in its default configuration, and the first encoder of each of smp's families. All have random weights and are
passed to `zoo.build(module, "unet-basic")`. A module works if

- the model predicts finite logits for a random image of 225x301, or of the size that the module requires;
- the model's encoder keeps every parameter on which the module's last feature map, or its last sequence of tokens, depends. The
  script does not use zoo's search to find this map: it takes the last submodule output that has two spatial axes, or more than
  one token;
- the model's logits depend on every parameter of its encoder, so the encoder has no layers after the last map.

If zoo refuses a module, the module's row shows the error. If zoo accepts a module, but one of these conditions is not met, the
module counts as failed.

    pip install transformers          # optional; without transformers, a message says that its rows are left out
    python benchmarks/modules.py      # continues if interrupted
    python benchmarks/modules.py --only torchvision 'timm:vit*'
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo.model.probing.measurement import leaves, named_tensors

OPEN_SIZE = (225, 301)
REFERENCE_SIZE = (256, 320)
OWN_SIZES = (*((side, side) for side in (224, 256, 384, 299, 448, 518, 336, 160, 240, 288, 192)), (256, 192))
FIELDS = ("module", "outcome", "image_size", "parameters", "in_encoder", "strides", "seconds", "reason")
ROOT = Path(__file__).resolve().parents[1]

Row = dict[str, Any]
Maker = Callable[[], nn.Module]


def main() -> None:
    """Try the modules that have no row yet, print the summary, and write the rows and the summary to files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="GLOB", help="modules to try, such as torchvision or 'timm:vit*' (all)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "results/modules.csv",
        help="the CSV file to which each row is written when it is measured",
    )
    asked = parser.parse_args()
    makers = {name: make for name, make in list_modules() if any(fnmatch(name, f"{glob}*") for glob in asked.only)}
    rows = try_all(makers, asked.output)
    text = format_summary([rows[name] for name in makers])
    asked.output.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def list_modules() -> Iterator[tuple[str, Maker]]:
    """Yield the name of each module and a function that builds it."""
    yield from torchvision_classifiers()
    yield from timm_classifiers()
    yield from transformers_backbones()
    yield from smp_encoders()


def torchvision_classifiers() -> Iterator[tuple[str, Maker]]:
    """Yield all of torchvision's classifiers."""
    from torchvision import models

    for name in models.list_models(module=models):
        # the initialization of these two uses scipy and takes a minute
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        yield f"torchvision:{name}", partial(models.get_model, name, weights=None, **options)


def timm_classifiers() -> Iterator[tuple[str, Maker]]:
    """Yield the smallest classifier of each of timm's families, according to the committed coverage table."""
    import timm

    smallest: dict[str, tuple[int, str]] = {}
    with (ROOT / f"benchmarks/results/coverage-timm-{timm.__version__}.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found = int(row["parameters"] or sys.maxsize), row["architecture"]
            smallest[row["family"]] = min(smallest.get(row["family"], found), found)
    for name in sorted(name for _, name in smallest.values()):
        yield f"timm:{name}", partial(timm.create_model, name)


def transformers_backbones() -> Iterator[tuple[str, Maker]]:
    """Yield every backbone type of transformers in its default configuration."""
    if find_spec("transformers") is None:
        print(
            "transformers is not installed, so its backbones are left out. Install it with: pip install transformers",
            file=sys.stderr,
        )
        return
    from transformers import AutoBackbone
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING_NAMES

    def make(name: str) -> nn.Module:
        made = CONFIG_MAPPING[name](**({"backbone": "resnet18"} if name == "timm_backbone" else {}))
        # the copy has lists instead of tuples, like a configuration that is read from a file
        read = type(made).from_dict(json.loads(made.to_json_string(use_diff=False)))
        module: nn.Module = AutoBackbone.from_config(read)
        return module

    for name in MODEL_FOR_BACKBONE_MAPPING_NAMES:
        yield f"transformers:{name}", partial(make, name)


def smp_encoders() -> Iterator[tuple[str, Maker]]:
    """Yield the first encoder of each of smp's families."""
    from segmentation_models_pytorch.encoders import encoders, get_encoder

    firsts = {str(entry["encoder"]): name for name, entry in reversed(encoders.items())}
    for name in sorted(firsts.values()):
        yield f"smp:{name}", partial(get_encoder, name, weights=None)


def try_all(makers: dict[str, Maker], place: Path) -> dict[str, Row]:
    """Return the row of each module. A module with a row for the installed versions in the file `place` is not tried again."""
    place.parent.mkdir(parents=True, exist_ok=True)
    rows: dict[str, Row] = {}
    if place.exists():
        with place.open(newline="", encoding="utf-8") as file:
            rows = {row["module"]: row for row in csv.DictReader(file) if row.pop("versions") == format_versions()}
    with place.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, (*FIELDS, "versions"))
        if not file.tell():
            writer.writeheader()
        for name, make in makers.items():
            if name not in rows:
                rows[name] = try_module(name, make)
                writer.writerow({**rows[name], "versions": format_versions()})
                file.flush()
                print(*(f"{rows[name][field]}" for field in FIELDS), sep="  ", file=sys.stderr)
                gc.collect()
    return rows


def format_versions() -> str:
    """Return, as text, the versions of the libraries on which the rows depend."""
    names = ("torch", "torchvision", "timm", "transformers", "segmentation-models-pytorch", "segmentation-zoo")
    return ", ".join(f"{name} {version(name)}" for name in names if name != "transformers" or find_spec("transformers"))


def try_module(name: str, make: Maker) -> Row:
    """Try to build a model from a module, and return the module's row of the table (see `FIELDS`)."""
    row: Row = {**dict.fromkeys(FIELDS, ""), "module": name}
    began = time.perf_counter()
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = make().eval()
            size, needed = find_reference(module)
    except Exception as error:  # noqa: BLE001 - every failure is a row
        return {**row, "outcome": "not run", "reason": format_error(error)}
    row["parameters"] = sum(parameter.numel() for parameter in module.parameters())
    row["image_size"] = "any" if size == REFERENCE_SIZE else f"{size[0]}x{size[1]}"
    is_open = size == REFERENCE_SIZE
    try:
        model = zoo.build(module, "unet-basic", image_size=None if is_open else size)
    except zoo.ZooError as error:
        row |= {"outcome": "refused", "reason": format_error(error)}
    except Exception as error:  # noqa: BLE001 - every failure is a row
        row |= {"outcome": "fails", "reason": format_error(error)}
    else:
        row |= judge(model.eval(), OPEN_SIZE if is_open else size, needed)
    return {**row, "seconds": round(time.perf_counter() - began, 1)}


def find_reference(module: nn.Module) -> tuple[tuple[int, int], dict[int, str]]:
    """Return an image size that a module accepts, and the parameters on which the module's last map or last tokens depend.

    The parameters are a mapping from their `id` to their names.
    """
    for size in (REFERENCE_SIZE, *OWN_SIZES):
        found: list[Tensor] = []
        handles = [submodule.register_forward_hook(make_hook(found)) for submodule in module.modules()]
        try:
            module(torch.rand(2, 3, *size))
        except Exception:  # noqa: BLE001 - the module does not accept this size
            continue
        finally:
            for handle in handles:
                handle.remove()
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        return size, {key: names[key] for key in {id(leaf) for leaf in leaves(found[-1:])} if key in names}
    raise RuntimeError(f"{type(module).__name__} accepts none of the tried image sizes")


def make_hook(found: list[Tensor]) -> Callable[..., None]:
    """Return a hook that appends an output to `found` if it is a map, or a sequence of tokens, of a batch of two images."""

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        for _key, tensor in named_tensors(output):
            axes = tensor.shape[1:]
            is_map = len(axes) == 3 and min(axes) > 1
            is_tokens = len(axes) == 2 and min(axes) > 1
            if tensor.shape[:1] == (2,) and tensor.is_floating_point() and (is_map or is_tokens):
                found.append(tensor)

    return keep


def judge(model: zoo.SegmentationModel, size: tuple[int, int], needed: dict[int, str]) -> Row:
    """Check the conditions in this module's docstring for a model, and return the result as fields of its row."""
    encoder = dict(model.encoder.named_parameters())
    kept = {id(parameter) for parameter in encoder.values()}
    strides = {route.source.stride for route in model.plan.routes if not route.is_image}
    row: Row = {
        "in_encoder": sum(parameter.numel() for parameter in encoder.values()),
        "strides": " ".join(f"{stride:g}" for stride in sorted(strides)),
    }
    try:
        logits = model(torch.rand(1, 3, *size))
    except Exception as error:  # noqa: BLE001 - every failure is a row
        return {**row, "outcome": "fails", "reason": format_error(error)}
    followed = {id(leaf) for leaf in leaves([logits])}
    lost = [name for key, name in needed.items() if key not in kept]
    idle = [name for name, parameter in encoder.items() if parameter.requires_grad and id(parameter) not in followed]
    reasons = []
    if tuple(logits.shape) != (1, 1, *size) or not logits.isfinite().all():
        reasons.append(f"logits of shape {tuple(logits.shape)}, finite: {bool(logits.isfinite().all())}")
    if lost:
        reasons.append(f"leaves out {len(lost)} parameters that its last map depends on, such as {lost[0]}")
    if idle:
        reasons.append(f"has {len(idle)} parameters that nothing depends on, such as {idle[0]}")
    return {**row, "outcome": "fails" if reasons else "works", "reason": "; ".join(reasons)}


def format_error(error: Exception) -> str:
    """Return an error as text on one line, for the table."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def format_summary(rows: list[Row]) -> str:
    """Return the summary as Markdown: the numbers of modules for each library, and a row for each module."""
    libraries = list(dict.fromkeys(row["module"].partition(":")[0] for row in rows))
    outcomes = ("works", "refused", "fails", "not run")
    made = [row for row in rows if row["outcome"] != "not run"]
    works = sum(row["outcome"] == "works" for row in rows)
    lines = [
        f"# Other libraries' modules x unet-basic: {works} of {len(made)} work",
        "",
        f"Measured with {format_versions()}:",
        "",
    ]
    lines += [
        "`python benchmarks/modules.py`.",
        "",
        f"| library | {' | '.join(outcomes)} |",
        f"| --- |{' ---: |' * len(outcomes)}",
    ]
    for library in libraries:
        counts = [sum(row["module"].startswith(f"{library}:") and row["outcome"] == each for row in rows) for each in outcomes]
        lines.append(f"| {library} | {' | '.join(map(str, counts))} |")
    lines += ["", "| module | outcome | image size | parameters | in the encoder | strides | reason |"]
    lines.append("| --- | --- | --- | ---: | ---: | --- | --- |")
    for row in rows:
        cells = [
            str(row[field]) for field in ("module", "outcome", "image_size", "parameters", "in_encoder", "strides", "reason")
        ]
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()

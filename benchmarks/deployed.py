"""Check that `zoo.deploy` preserves the output of every decoder with ten encoder families: `python benchmarks/deployed.py`.

Each pairing has random weights and random batch norm statistics. It is deployed for eager PyTorch with an example image of
64x96. The output of the deployed model is compared with the original's output at 64x96, 65x97 and 127x64. If an encoder accepts
only one size, the example and the compared images have that size. The table shows the largest relative error, max|a - b| /
max|b|. The exit status is 1 if an error is above 1e-4, if the original model had to run instead of the deployed one, or if the
model could not be captured as a graph.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

import zoo
from zoo.common.rendering import table_row
from zoo.inference.reference import relative_error

ENCODERS = (
    "resnet18",
    "timm:convnext_atto",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:regnety_002",
    "timm:densenet121",
    "timm:vgg11_bn",
    "timm:repvgg_a0",
    "timm:pvt_v2_b0",
    "timm:vit_tiny_patch16_224",
)
SIZES = ((64, 96), (65, 97), (127, 64))
FIXED = {"timm:vit_tiny_patch16_224": ((224, 224),)}
TOLERANCE = 1e-4


def settled(model: nn.Module) -> nn.Module:
    """Return the model in eval mode with random batch norm statistics.

    With its initial statistics, a batch norm would be the identity.
    """
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 1.5)
    return model.eval()


def outcome(encoder: str, decoder: str) -> tuple[str, bool]:
    """Return the table cell of a pairing, and whether its deployed model preserves the output.

    If the encoder and the decoder cannot be paired, this does not count as a failure.
    """
    sizes = FIXED.get(encoder, SIZES)
    torch.manual_seed(0)
    try:
        model = settled(zoo.build(encoder, decoder, classes=2, image_size=sizes[0]))
    except zoo.errors.NegotiationError:
        return "no pairing", True
    deployed = zoo.deploy(model, example=torch.randn(1, 3, *sizes[0]), runtime="eager")
    if deployed.report.unread is not None:
        return f"not read: {deployed.report.unread}", False
    ways = [each for each in deployed.report.candidates if each.precision == "float32"]
    if refused := [each.refused for each in ways if each.error is None]:
        return f"refused: {refused[0]}", False
    errors = []
    for size in sizes:
        image = torch.randn(1, 3, *size)
        with torch.no_grad():
            errors.append(relative_error(deployed(image), model(image)))
    if deployed.fallbacks:
        return f"the original model runs at {', '.join(map(str, deployed.fallbacks))}", False
    return f"{max(errors):.0e}", max(errors) < TOLERANCE


def main() -> None:
    """Print the table row by row, and write it to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--decoders", nargs="+", default=list(zoo.list_decoders()))
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the plugins' libraries
    names = [encoder.removeprefix("timm:") for encoder in asked.encoders]
    lines = [table_row(("decoder", *names)), table_row(("---", *("---:" for _ in names)))]
    print("\n".join(lines), flush=True)
    failed = 0
    for decoder in asked.decoders:
        cells = [outcome(encoder, decoder) for encoder in asked.encoders]
        failed += sum(not holds for _, holds in cells)
        lines.append(table_row((decoder, *(cell for cell, _ in cells))))
        print(lines[-1], flush=True)
    count = len(asked.encoders) * len(asked.decoders)
    lines += ["", f"{count - failed} of {count} pairings hold {TOLERANCE:.0e} at {', '.join(f'{h}x{w}' for h, w in SIZES)}."]
    print("\n".join(lines[-2:]))
    if asked.output:
        asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

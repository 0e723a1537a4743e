"""Export encoders of many kinds and every decoder, and check the files: `python benchmarks/exports.py --output FILE`.

Each pairing has random weights and random batch norm statistics. `zoo.export` exports it for any batch, height and width. If
that is not possible, it exports the pairing for one size only. ONNX Runtime or PyTorch then runs the exported file. A cell of
the table shows the largest relative error, max|a - b| / max|b|, over all shapes that were tried, and the time of the export in
seconds, including its checks. If a file accepts only one size, its cell names the size, and the reason is listed below the
tables. The exit status is 1 if a pairing cannot be exported at all.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from deployed import settled

import zoo
from zoo.common.rendering import table_row
from zoo.inference.exporting import FORMATS

ENCODERS = (
    "resnet18",
    "timm:convnext_atto",
    "timm:efficientnet_b0",
    "timm:mobilenetv3_small_100",
    "timm:regnety_002",
    "timm:densenet121",
    "timm:pvt_v2_b0",
    "timm:mobilevit_xxs",
    "timm:vit_tiny_patch16_224",
    "timm:swin_tiny_patch4_window7_224",
    "timm:coatnet_pico_rw_224",
)
WITH_ALL = ("resnet18", "timm:vit_tiny_patch16_224")
FORMS = ("onnx", "torch-export")


def outcome(encoder: str, decoder: str, form: str, timeout: float) -> tuple[str, str | None]:
    """Return the table cell of a pairing, and the reason if the file accepts only one size or the export failed."""
    torch.manual_seed(0)
    model = settled(zoo.build(encoder, decoder, classes=2))
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            report = zoo.export(model, Path(folder) / f"model{FORMATS[form]}", timeout=timeout)
        except zoo.errors.ExportError as cause:
            return "not exported", str(cause)
    seconds = time.perf_counter() - began
    error = max(check.relative for check in report.checks)
    size = "" if report.size is None else f", {report.size[0]}x{report.size[1]} only"
    return f"{error:.0e}, {seconds:.0f} s{size}", " ".join(report.notes) or None


def main() -> None:
    """Print the tables row by row, and write them to the output file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="*", default=ENCODERS, help="encoders to export with unet-basic, in both formats")
    parser.add_argument("--with-all", nargs="*", default=WITH_ALL, help="encoders to export with every decoder, as ONNX")
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the plugins' libraries
    lines: list[str] = []
    reasons: list[str] = []
    failed = 0

    def row(*cells: str) -> None:
        lines.append(table_row(cells))
        print(lines[-1], flush=True)

    def cell(encoder: str, decoder: str, form: str) -> str:
        nonlocal failed
        text, why = outcome(encoder, decoder, form, asked.timeout)
        failed += text == "not exported"
        if why:
            reasons.append(f"- {encoder} x {decoder}, {form}: {why}")
        return text

    row("with `unet-basic`", *FORMS)
    row("---", *("---:" for _ in FORMS))
    for encoder in asked.encoders:
        row(encoder, *(cell(encoder, "unet-basic", form) for form in FORMS))
    lines.append("")
    row("as ONNX", *asked.with_all)
    row("---", *("---:" for _ in asked.with_all))
    for decoder in zoo.list_decoders() if asked.with_all else ():
        row(decoder, *(cell(encoder, decoder, "onnx") for encoder in asked.with_all))
    lines += ["", *reasons]
    print("\n".join(reasons))
    if asked.output:
        threads = torch.get_num_threads()
        head = (
            f"`python benchmarks/exports.py`: error and seconds of `zoo.export`, {threads} thread, torch {torch.__version__}."
        )
        asked.output.write_text("\n".join([head, "", *lines]).rstrip() + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

"""The compatibility matrix as a terminal, a Markdown page, a spreadsheet or a program reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.compatibility.cells import CLASSES, Cell, CompatibilityMatrix
from zoo.rendering import FULL_WIDTH, csv_text, escaped, json_text, plain_text, table_row

__all__ = ["render", "terminal_view"]

CORNER = "encoder"


def render(matrix: CompatibilityMatrix, form: str) -> str:
    """Return the matrix as "table", "markdown", "csv" or "json"."""
    renderers: dict[str, Callable[[CompatibilityMatrix], str]] = {
        "table": _text,
        "markdown": _markdown,
        "csv": _csv,
        "json": _json,
    }
    return renderers[form](matrix)


def terminal_view(matrix: CompatibilityMatrix, width: int) -> RenderableType:
    """Return the matrix for a terminal of this width: encoders as rows, decoders as columns, reasons below.

    Where the decoders do not fit side by side, they are shown in several tables.
    """
    cells = {(cell.encoder, cell.decoder): cell for cell in matrix.cells}
    tables = []
    for decoders in _shares(matrix, width):
        table = Table(box=box.SIMPLE_HEAD, header_style="bold")
        for heading in (CORNER, *decoders):
            table.add_column(Text(heading), overflow="fold")
        for encoder in matrix.encoders:
            row = [cells[encoder, decoder] for decoder in decoders]
            table.add_row(Text(encoder), *(Text(str(cell), style="" if cell.is_ok else "red") for cell in row))
        tables.append(table)
    return Group(Text(_title(matrix), style="bold"), *tables, *map(Text, _notes(matrix)))


def _shares(matrix: CompatibilityMatrix, width: int) -> Iterator[list[str]]:
    """Yield the decoders in groups that fit side by side."""
    widths = {decoder: len(decoder) for decoder in matrix.decoders}
    for cell in matrix.cells:
        widths[cell.decoder] = max(widths[cell.decoder], len(str(cell)))
    margin = 3  # padding on both sides, and the line between two columns
    first = 2 + max(len(name) for name in (CORNER, *matrix.encoders)) + margin
    share: list[str] = []
    taken = first
    for decoder, needed in widths.items():
        if share and taken + needed + margin > width:
            yield share
            share, taken = [], first
        share.append(decoder)
        taken += needed + margin
    yield share


def _text(matrix: CompatibilityMatrix) -> str:
    return plain_text(terminal_view(matrix, FULL_WIDTH))


def _markdown(matrix: CompatibilityMatrix) -> str:
    cells = {(cell.encoder, cell.decoder): cell for cell in matrix.cells}
    lines = [f"**{escaped(_title(matrix))}**", "", table_row(map(escaped, (CORNER, *matrix.decoders)))]
    lines.append(table_row("---" for _ in (CORNER, *matrix.decoders)))
    for encoder in matrix.encoders:
        row = (str(cells[encoder, decoder]) for decoder in matrix.decoders)
        lines.append(table_row(map(escaped, (encoder, *row))))
    return "\n".join([*lines, "", *(f"- {escaped(note)}" for note in _notes(matrix))]) + "\n"


def _csv(matrix: CompatibilityMatrix) -> str:
    records = [
        {**_record(cell), "maps": " ".join(cell.maps), "adapters": cell.inserted, "error": cell.reason} for cell in matrix.cells
    ]
    return csv_text(records)


def _json(matrix: CompatibilityMatrix) -> str:
    facts = {"versions": dict(matrix.versions), "classes": CLASSES, "cells": [_record(cell) for cell in matrix.cells]}
    return json_text(facts, indent=2) + "\n"


def _record(cell: Cell) -> dict[str, Any]:
    """Return a cell as flat data; missing values are None."""
    height, width = cell.image_size or (None, None)
    return {
        "encoder": cell.encoder,
        "decoder": cell.decoder,
        "ok": cell.is_ok,
        "maps": list(cell.maps),
        "adapters": [str(adapter) for adapter in cell.adapters],
        "adapter_parameters": cell.adapter_parameters,
        "parameters": cell.parameters,
        "height": height,
        "width": width,
        "error_class": cell.error_class,
        "error": cell.error,
    }


def _title(matrix: CompatibilityMatrix) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in matrix.versions.items() if version != "-")
    return f"{len(matrix.encoders)} encoder(s) x {len(matrix.decoders)} decoder(s): {versions}"


def _notes(matrix: CompatibilityMatrix) -> list[str]:
    working = sum(cell.is_ok for cell in matrix.cells)
    notes = [f"FAILED {cell.encoder} x {cell.decoder}: {cell.reason}" for cell in matrix.cells if not cell.is_ok]
    notes.append(
        f"{working} of {len(matrix.cells)} pairings work: built for {CLASSES} classes and run on one image, on the meta "
        "device (with numbers where a model asks for them)."
    )
    if any(cell.adapters for cell in matrix.cells):
        notes.append("+ = the parameters of the adapters that the plan inserts; `zoo explain ENCODER DECODER` says why.")
    return notes

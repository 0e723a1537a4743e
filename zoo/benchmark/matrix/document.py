"""Convert the compatibility matrix to a document, which is shown as text or exported as CSV or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo.benchmark.matrix.cells import CLASSES, Cell
from zoo.common.grid import Document, Grid, GridRow, Heading, Line

__all__ = ["decoders_of", "document", "encoders_of"]


def encoders_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the encoders' ids, in the order of the rows."""
    return tuple(dict.fromkeys(cell.encoder for cell in cells))


def decoders_of(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Return the decoders' ids, in the order of the columns."""
    return tuple(dict.fromkeys(cell.decoder for cell in cells))


def document(cells: Sequence[Cell], versions: Mapping[str, str]) -> Document:
    """Return the matrix as a document: encoders as rows, decoders as columns, and the reasons for failures below."""
    decoders = decoders_of(cells)
    by_ids = {(cell.encoder, cell.decoder): cell for cell in cells}
    rows = ((encoder, [by_ids[encoder, decoder] for decoder in decoders]) for encoder in encoders_of(cells))
    return Document(
        parts=(
            Line(text=_title(cells, versions), kind="title", style="bold"),
            Grid(
                headings=tuple(Heading(text=text) for text in ("encoder", *decoders)),
                sections=(tuple(_row(encoder, row) for encoder, row in rows),),
                is_split=True,
            ),
            *(Line(text=note, kind="item") for note in _notes(cells)),
        ),
        records=lambda: [_flat(cell) for cell in cells],
        facts=lambda: {"versions": dict(versions), "classes": CLASSES, "cells": [_record(cell) for cell in cells]},
    )


def _row(encoder: str, cells: Sequence[Cell]) -> GridRow:
    return GridRow(cells=(encoder, *map(str, cells)), styles=("", *("" if cell.is_ok else "red" for cell in cells)))


def _flat(cell: Cell) -> dict[str, Any]:
    return _record(cell) | {"maps": " ".join(cell.maps), "adapters": cell.inserted, "error": cell.reason}


def _record(cell: Cell) -> dict[str, Any]:
    """Return a cell as a dictionary for JSON; missing values are None."""
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


def _title(cells: Sequence[Cell], versions: Mapping[str, str]) -> str:
    installed = ", ".join(f"{name} {version}" for name, version in versions.items() if version != "-")
    return f"{len(encoders_of(cells))} encoder(s) x {len(decoders_of(cells))} decoder(s): {installed}"


def _notes(cells: Sequence[Cell]) -> list[str]:
    working = sum(cell.is_ok for cell in cells)
    notes = [f"FAILED {cell.encoder} x {cell.decoder}: {cell.reason}" for cell in cells if not cell.is_ok]
    notes.append(
        f"{working} of {len(cells)} pairings work. Each was built for {CLASSES} classes and run on one image, on the meta "
        "device, or on the CPU if the model's code reads values of tensors."
    )
    if any(cell.adapters for cell in cells):
        notes.append("+ = the number of parameters of the inserted adapters. `zoo explain ENCODER DECODER` explains them.")
    return notes

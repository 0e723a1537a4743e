"""Export results as CSV, JSON or Parquet: every value of every row, or the raw samples. Torch-free."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

from zoo.benchmark.store.store import Store
from zoo.benchmark.table.document import document, records
from zoo.benchmark.table.table import Table
from zoo.common.rendering import csv_text, json_text
from zoo.errors import OptionError, StoreError

__all__ = ["exported_rows", "exported_samples"]

TEXTS = ("encoder", "decoder", "quality_data", "stopped", "licenses", "flags", "failure", "error", "plan", "trainings")
WHOLE = (
    "smaller_batch",
    "quality_seeds",
    *(f"parameters{part}" for part in ("", "_encoder", "_adapters", "_decoder", "_head")),
)
"""The columns of text (`TEXTS`) and of whole numbers (`WHOLE`) that may be empty. In Parquet, an empty column has the type text
if it is in `TEXTS`, the type of whole numbers if it is in `WHOLE`, and a floating-point type otherwise."""


def exported_rows(table: Table, form: str) -> bytes:
    """Return the bytes of the table in the format "csv", "json" or "parquet". Text is encoded in UTF-8.

    In JSON and Parquet, each row also has the plan and the training results. JSON has further keys for the runs with their
    configurations and environments, the A/A checks and the device's best rates. Parquet has the same data in the metadata of
    its schema, as JSON under the key `zoo`.

    Raises:
        OptionError: for Parquet, pyarrow is not installed.
    """
    if form == "csv":
        return csv_text(records(table)).encode()
    whole = document(table).render("json")
    if form == "json":
        return whole.encode()
    facts = json.loads(whole)
    rows = [row | {name: _to_text(row[name]) for name in ("plan", "trainings")} for row in facts.pop("rows")]
    return _parquet(rows, facts)


def exported_samples(store: Store, runs: Sequence[int], form: str) -> bytes:
    """Return the raw samples of some runs as bytes in the format "csv", "json" or "parquet".

    There is one record for each trial and round. The `key` of a record is the key of the trial, as in the table. Controls
    (copies of baselines), which the table does not show, are included; their `role` is "control". Times are in seconds per
    call.

    Raises:
        StoreError: the runs have no samples.
        OptionError: for Parquet, pyarrow is not installed.
    """
    samples = [sample for run in runs for sample in _samples(store, run)]
    if not samples:
        raise StoreError(
            f"There are no samples in run {', '.join(map(str, runs))} of {store.path} yet. `zoo bench` measures them."
        )
    if form == "csv":
        return csv_text(samples).encode()
    return (json_text(samples, indent=1) + "\n").encode() if form == "json" else _parquet(samples, {})


def _samples(store: Store, run: int) -> Iterator[dict[str, Any]]:
    trials = {stored.key: stored.trial for stored in store.trials(run)}
    for group in store.groups(run):
        for key in group.trials:
            for turn, timing in sorted(group.samples.get(key, {}).items()):
                yield {
                    "run": run,
                    "key": key,
                    "pairing": str(trials[key]),
                    "role": trials[key].role,
                    "group": group.number,
                    "round": turn,
                    "seconds": timing.seconds,
                    "busy_seconds": timing.busy_seconds,
                }


def _to_text(facts: Any) -> str | None:
    return json_text(facts) if facts else None


def _parquet(rows: Sequence[dict[str, Any]], facts: dict[str, Any]) -> bytes:
    try:
        arrow, parquet = import_module("pyarrow"), import_module("pyarrow.parquet")
    except ImportError as cause:
        raise OptionError(
            "Writing Parquet requires pyarrow, which is not installed: pip install 'segmentation-zoo[parquet]'. "
            "CSV and JSON do not require it."
        ) from cause
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    arrays = {name: arrow.array(values, getattr(arrow, _kind(name, values))()) for name, values in columns.items()}
    table = arrow.table(arrays)
    buffer = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"zoo": json_text(facts)}) if facts else table, buffer)
    return buffer.getvalue()


def _kind(name: str, values: Sequence[Any]) -> str:
    """Return the name of the pyarrow type of a column. An empty column gets the type that it would have with values."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {bool}:
        return "bool_"
    if kinds == {int} or (not kinds and name in WHOLE):
        return "int64"
    return "string" if str in kinds or (not kinds and name in TEXTS) else "float64"

"""Show a plan as a table with a row for each level: source map, channels, stride, adapters and reason. Torch-free."""

from __future__ import annotations

from itertools import groupby

from zoo.common.grid import Grid, GridRow, Heading, Line, Part
from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.pyramid import FeatureMap

__all__ = ["plan_parts"]

HEADINGS = (
    Heading(text="level", is_number=True),
    Heading(text="source map"),
    Heading(text="channels", is_number=True),
    Heading(text="stride", is_number=True),
    Heading(text="adapter", can_wrap=True),
    Heading(text="reason", can_wrap=True),
)


def plan_parts(plan: Plan, pairing: Pairing) -> tuple[Part, ...]:
    """Return a title, a table with the used and the unused maps, and lines about the whole plan."""
    rows = []
    for level, route in enumerate(plan.routes, start=1):
        adapters = "; ".join(map(str, route.adapters)) or "none"
        if route.output.stride != route.source.stride:
            adapters += f", to stride {route.output.stride:g}"
        rows.append(GridRow(cells=(str(level), route.source.name, *_facts(route.source), adapters, route.reason)))
    # Dozens of a transformer's maps may share a stride. Neighboring maps that are unused for the same reason get one row.
    for (channels, stride, reason), group in groupby(plan.unused, key=lambda unused: (*_facts(unused.source), unused.reason)):
        names = [unused.source.name for unused in group]
        name = names[0] if len(names) == 1 else f"{len(names)} maps from {names[0]} to {names[-1]}"
        rows.append(GridRow(cells=("-", name, channels, stride, "not used", reason), style="dim"))
    lines = (
        f"Adapters add {plan.adapter_parameters:,} parameters.",
        *plan.notes,
        f"Image size: {plan.sizes.note}",
        f"Encoder weights: {pairing.encoder_weights}",
    )
    title = Line(text=str(pairing), kind="title", style="bold")
    return title, Grid(headings=HEADINGS, sections=(tuple(rows),)), *(Line(text=line) for line in lines)


def _facts(source: FeatureMap) -> tuple[str, str]:
    return f"{source.channels}", f"{source.stride:g}"

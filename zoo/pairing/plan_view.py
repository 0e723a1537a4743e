"""Show a plan to a person: per level the source map, channels, stride, adapter and reason. Torch-free."""

from __future__ import annotations

from itertools import groupby

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.pairing.pairing import Pairing
from zoo.pairing.plan import Plan
from zoo.registry.pyramid import FeatureMap

__all__ = ["plan_view"]


def plan_view(plan: Plan, pairing: Pairing) -> RenderableType:
    """Return the plan as something rich can print."""
    table = Table(title=Text(str(pairing)), title_justify="left", title_style="bold", header_style="bold")
    for heading in ("level", "source map", "channels", "stride", "adapter", "reason"):
        table.add_column(heading, justify="right" if heading in ("level", "channels", "stride") else "left", overflow="fold")
    for level, route in enumerate(plan.routes, start=1):
        adapters = "; ".join(map(str, route.adapters)) or "none"
        if route.output.stride != route.source.stride:
            adapters += f", to stride {route.output.stride:g}"
        table.add_row(*map(Text, (str(level), route.source.name, *_facts(route.source), adapters, route.reason)))
    for (channels, stride, reason), alike in groupby(plan.unused, key=lambda entry: (*_facts(entry.source), entry.reason)):
        names = [entry.source.name for entry in alike]
        name = names[0] if len(names) == 1 else f"{len(names)} maps from {names[0]} to {names[-1]}"
        table.add_row(*map(Text, ("-", name, channels, stride, "not used", reason)), style="dim")
    lines = [
        f"Adapters add {plan.adapter_parameters:,} parameters.",
        *plan.notes,
        f"Image size: {plan.sizes.note}",
        f"Encoder weights: {pairing.encoder_weights}",
    ]
    return Group(table, *map(Text, lines))


def _facts(source: FeatureMap) -> tuple[str, str]:
    return f"{source.channels}", f"{source.stride:g}"

"""What a plan says to a person: per level the source map, channels, stride, adapter and reason. Torch-free."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.negotiation import Plan
from zoo.pairing import Pairing
from zoo.planning import make_pairing, resolve

__all__ = ["explain", "plan_view"]


def explain(encoder: str, decoder: str, **options: Any) -> str:
    """Return, as text to print, which feature map goes where, what is put between, and why.

    Args:
        encoder: an encoder's id.
        decoder: a decoder's id.
        options: as for `zoo.build`.

    Raises:
        ZooError: as `zoo.build` does before it builds.
    """
    pairing = make_pairing(encoder, decoder, options)
    console = Console(file=io.StringIO(), width=120, color_system=None)
    with console.capture() as captured:
        console.print(plan_view(resolve(pairing).plan, pairing))
    return captured.get().rstrip()


def plan_view(plan: Plan, pairing: Pairing) -> RenderableType:
    """Return the plan as something rich can print."""
    table = Table(title=Text(str(pairing)), title_justify="left", title_style="bold", header_style="bold")
    for heading in ("level", "source map", "channels", "stride", "adapter", "reason"):
        table.add_column(heading, justify="right" if heading in ("level", "channels", "stride") else "left", overflow="fold")
    for level, route in enumerate(plan.routes, start=1):
        adapters = "; ".join(map(str, route.adapters)) or "none"
        facts = (
            str(level),
            route.source.name,
            f"{route.source.channels}",
            f"{route.source.stride:g}",
            adapters,
            route.reason,
        )
        table.add_row(*map(Text, facts))
    for entry in plan.unused:
        facts = (
            "-",
            entry.source.name,
            f"{entry.source.channels}",
            f"{entry.source.stride:g}",
            "not used",
            entry.reason,
        )
        table.add_row(*map(Text, facts), style="dim")
    lines = [f"Adapters add {plan.adapter_parameters:,} parameters.", size_note(plan, pairing.size_policy)]
    return Group(table, *map(Text, lines))


def size_note(plan: Plan, size_policy: str) -> str:
    """Return what happens to an image whose height or width is no multiple of the coarsest stride."""
    multiple = plan.size_multiple
    done = {"resize": "resized up (bilinear), and the logits resized back", "error": "refused"}
    what = done.get(size_policy, "padded right and bottom with zeros, and the logits cropped")
    return f"Image size: where H or W is no multiple of {multiple}, the image is {what} (size_policy={size_policy!r})."

"""What a plan says to a person: per level the source map, channels, stride, adapter and reason. Torch-free."""

from __future__ import annotations

from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from zoo.errors import OptionError
from zoo.pairing import Pairing
from zoo.plan import Plan
from zoo.planning import EncoderLike, asked, resolve
from zoo.pyramid import FeatureMap
from zoo.rendering import plain_text

__all__ = ["explain", "plan_view"]


def explain(encoder: EncoderLike | Pairing, decoder: str | None = None, **options: Any) -> str:
    """Return, as text to print, which feature map goes where, what is put between, and why.

    Of a deployed model (`zoo.deploy`), given alone: what each pass did and saved, and what was tried to run it.

    Args:
        encoder: an encoder's id, or any `nn.Module`, which is then probed; or a pairing or a deployed model, alone.
        decoder: a decoder's id.
        options: as for `zoo.build`.

    Raises:
        OptionError: no decoder, and no deployed model.
        ZooError: as `zoo.build` does before it builds.
    """
    if decoder is None and not isinstance(encoder, Pairing):
        report = getattr(encoder, "report", None)  # a deployed model's, which this torch-free module cannot name
        if report is None:
            raise OptionError(
                "explain takes an encoder and a decoder, a pairing, or a model that zoo.deploy made; "
                f"found {type(encoder).__name__} alone."
            )
        return str(report)
    pairing, entry = asked(encoder, decoder, options)
    return plain_text(plan_view(resolve(pairing, entry).plan, pairing), width=120).rstrip()


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

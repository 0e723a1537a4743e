"""The command `zoo show`: show what is known about an encoder or a decoder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.cli.answers import show_parts
from zoo.cli.application import app
from zoo.cli.console import PluginOption, complete_id, load_plugins

__all__ = ["weights_license"]


@app.command()
def show(
    id: Annotated[
        str, typer.Argument(help="The id of an encoder or a decoder.", show_default=False, autocompletion=complete_id)
    ],
    plugin: PluginOption = None,
) -> None:
    """Show what is known about an encoder or a decoder: source, license, options, an encoder's maps, a decoder's needs."""
    load_plugins(plugin)
    from zoo.common.grid import Grid, GridRow, Heading
    from zoo.registry.registry import default_registry
    from zoo.registry.specs import EncoderSpec

    entry: Any = default_registry().either(id)
    spec = entry.spec
    facts = {
        "full id": entry.full_id,
        "kind": entry.kind,
        "plugin": f"{entry.plugin} ({entry.distribution} {entry.version})",
        "source": spec.source or "not stated",
        "license": spec.license or "not stated",
    }
    if isinstance(spec, EncoderSpec):
        facts["weights"] = ", ".join(("None", *map(repr, spec.weights), "the path of a file"))
        facts["weights' license"] = weights_license(spec)
        if spec.tags:
            facts["tags"] = ", ".join(spec.tags)
        facts["feature maps"] = "\n".join(map(str, entry.pyramid({})))
        facts["image sizes"] = str(entry.sizes({}))
        if strides := entry.output_strides({}):
            facts["output strides"] = f"{', '.join(map(str, strides))} (option output_stride)"
    else:
        facts["needs"] = str(entry.needs({}))
    if spec.options is None:
        facts["options"] = "not declared; the factory checks them when the model is built"
    else:
        options = (f"{option.name} = {option.default!r}: {option.summary}" for option in spec.options)
        facts["options"] = "\n".join(options) or "none"
    rows = tuple(GridRow(cells=cells, styles=("bold", "")) for cells in facts.items())
    show_parts(Grid(headings=(Heading(text="id"), Heading(text=entry.id, can_wrap=True)), sections=(rows,)))


def weights_license(spec: Any) -> str:
    """Return the license of an encoder's weights as text. If there are several licenses, name the weights of each."""
    if not getattr(spec, "weights", ()):
        return "no weights"
    names: dict[str, list[str]] = {}
    for name in spec.tags or spec.weights:
        names.setdefault(spec.license_of_weights(name) or "not known", []).append(name)
    if len(names) == 1:
        return next(iter(names))
    return "; ".join(f"{license}: {', '.join(weights)}" for license, weights in names.items())

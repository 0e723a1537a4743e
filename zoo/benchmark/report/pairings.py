"""Describe each pairing for the report: its code, plan, parameters and licenses. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from zoo.benchmark.table.rows import Row
from zoo.pairing.plan import Adapter
from zoo.pairing.size_plan import SizePlan
from zoo.registry.image_sizes import ImageSizes

__all__ = ["describe_pairings"]


def describe_pairings(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the models (pairings and reference models) of these rows as JSON-serializable data.

    A route is the way from a map of the encoder to an input of the decoder. Thousands of pairings share routes and plans. So
    each route and each plan is stored once, and is referred to by its index:

    - `pairings`: one entry for each model, including the reference models. An entry's `variants` are the distinct combinations
      of plan and parameters in the rows of this model; usually, there is only one.
    - `pairing`: for each row, the index of its model in `pairings`.
    - `plans`: every distinct plan, with the indices of its routes.
    - `routes`: every distinct route: source, channels, stride, adapters, decoder input, reason.
    """
    pairings: dict[tuple[str, str], dict[str, Any]] = {}
    plans: dict[str, int] = {}
    routes: dict[str, int] = {}
    for index, row in enumerate(rows):
        new = {"name": row.name, "code": row.code, "encoder": row.encoder, "decoder": row.decoder, "licenses": [], "flags": []}
        pairing = pairings.setdefault((row.name, row.code), {**new, "variants": {}})
        pairing["licenses"] = list(dict.fromkeys([*pairing["licenses"], *filter(None, [row.licenses])]))
        pairing["flags"] = list(dict.fromkeys([*pairing["flags"], *row.flags]))
        if row.plan is None and row.parameters is None:
            continue
        facts = {"plan": None, "parameters": row.parameters, "parts": dict(row.parts) if row.parts else None}
        if row.plan is not None:
            plan = _describe_plan(row.plan)
            plan["routes"] = [_index_of(route, routes) for route in plan["routes"]]
            facts["plan"] = _index_of(plan, plans)
        pairing["variants"].setdefault(json.dumps(facts), {**facts, "rows": []})["rows"].append(index)
    indices = {key: index for index, key in enumerate(pairings)}
    return {
        "pairings": [{**pairing, "variants": list(pairing["variants"].values())} for pairing in pairings.values()],
        "pairing": [indices[row.name, row.code] for row in rows],
        "plans": [json.loads(plan) for plan in plans],
        "routes": [json.loads(route) for route in routes],
    }


def _index_of(facts: Any, known: dict[str, int]) -> int:
    """Return the index of these data in `known`. If `known` does not contain them, add them."""
    return known.setdefault(json.dumps(facts), len(known))


def _describe_plan(stored: Mapping[str, Any]) -> dict[str, Any]:
    # JSON has lists where these classes have tuples
    sizes = stored["sizes"] | {"sizes": ImageSizes(**_with_tuples(stored["sizes"]["sizes"]))}
    return {
        "routes": [_describe_route(route) for route in stored["routes"]],
        "unused": _describe_unused(stored["unused"]),
        "sizes": SizePlan(**_with_tuples(sizes)).note,
        "options": ", ".join(f"{name}={value!r}" for name, value in stored["encoder_options"].items()),
        "added": stored["adapter_parameters"],
        "notes": list(stored["notes"]),
    }


def _with_tuples(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}


def _describe_route(route: Mapping[str, Any]) -> list[str]:
    source, output = route["source"], route["output"]
    adapters = "; ".join(str(Adapter(**facts)) for facts in route["adapters"]) or "none"
    decoder_input = f"{output['channels']} at stride {output['stride']:g}"
    return [source["name"], str(source["channels"]), f"{source['stride']:g}", adapters, decoder_input, route["reason"]]


def _describe_unused(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return lines about the encoder's unused maps. Consecutive maps that differ only in name share one line."""
    lines = []
    groups = groupby(entries, key=lambda entry: (entry["source"]["channels"], entry["source"]["stride"], entry["reason"]))
    for (channels, stride, reason), group in groups:
        names = [entry["source"]["name"] for entry in group]
        name = names[0] if len(names) == 1 else f"{len(names)} maps from {names[0]} to {names[-1]}"
        lines.append([name, str(channels), f"{stride:g}", reason])
    return lines

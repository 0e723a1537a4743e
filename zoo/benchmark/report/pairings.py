"""What the page says of each pairing: its code, plan, parameters and licences, what is alike told once. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from zoo.benchmark.table.rows import Row
from zoo.pairing.plan import Adapter
from zoo.pairing.size_plan import SizePlan
from zoo.registry.image_sizes import ImageSizes

__all__ = ["PairingFacts", "plan_facts"]


class PairingFacts:
    """The pairings of some rows as plain data, in the rows' order.

    Thousands of pairings share routes and plans, so each is kept once and named by its place.

    Attributes:
        pairings: one entry a pairing or reference, with `variants`: what differs between its rows, mostly one.
        places: for each row, its pairing's place.
        plans: every distinct plan, its routes by their place in `routes`.
        routes: every distinct route: source, channels, stride, adapters, what the decoder gets, why.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.pairings: list[dict[str, Any]] = []
        self.places: list[int] = []
        self.plans: list[dict[str, Any]] = []
        self.routes: list[list[str]] = []
        self._seen: dict[str, int] = {}
        known: dict[tuple[str, str], int] = {}
        for index, row in enumerate(rows):
            place = known.setdefault((row.name, row.code), len(known))
            if place == len(self.pairings):
                self.pairings.append(_pairing(row))
            self.places.append(place)
            self._add(self.pairings[place], row, index)

    def _add(self, pairing: dict[str, Any], row: Row, index: int) -> None:
        if row.licences and row.licences not in pairing["licences"]:
            pairing["licences"].append(row.licences)
        pairing["flags"] = list(dict.fromkeys([*pairing["flags"], *row.flags]))
        if row.plan is None and row.parameters is None:
            return
        parts = dict(row.parts) if row.parts else None
        plan = None if row.plan is None else self._plan(row.plan)
        for variant in pairing["variants"]:
            if (variant["plan"], variant["parameters"], variant["parts"]) == (plan, row.parameters, parts):
                variant["rows"].append(index)
                return
        pairing["variants"].append({"plan": plan, "parameters": row.parameters, "parts": parts, "rows": [index]})

    def _plan(self, stored: Mapping[str, Any]) -> int:
        facts = plan_facts(stored)
        facts["routes"] = [self._place("route", route, self.routes) for route in facts["routes"]]
        return self._place("plan", facts, self.plans)

    def _place(self, kind: str, facts: Any, kept: list[Any]) -> int:
        place = self._seen.setdefault(f"{kind} {json.dumps(facts)}", len(kept))
        if place == len(kept):
            kept.append(facts)
        return place


def plan_facts(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a stored plan says to a person."""
    return {
        "routes": [_route(route) for route in stored["routes"]],
        "unused": _unused(stored["unused"]),
        "sizes": _size_plan(stored["sizes"]).note,
        "options": ", ".join(f"{name}={value!r}" for name, value in stored["encoder_options"].items()),
        "added": stored["adapter_parameters"],
        "notes": list(stored["notes"]),
    }


def _pairing(row: Row) -> dict[str, Any]:
    facts = {"name": row.name, "code": row.code, "encoder": row.encoder, "decoder": row.decoder}
    return {**facts, "licences": [], "flags": [], "variants": []}


def _route(route: Mapping[str, Any]) -> list[str]:
    source, output = route["source"], route["output"]
    adapters = "; ".join(str(Adapter(**facts)) for facts in route["adapters"]) or "none"
    gets = f"{output['channels']} at stride {output['stride']:g}"
    return [source["name"], str(source["channels"]), f"{source['stride']:g}", adapters, gets, route["reason"]]


def _unused(entries: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the maps left out, as `zoo explain` does: neighbours that are alike in one line."""
    found = []
    alike = groupby(entries, key=lambda entry: (entry["source"]["channels"], entry["source"]["stride"], entry["reason"]))
    for (channels, stride, reason), group in alike:
        names = [entry["source"]["name"] for entry in group]
        name = names[0] if len(names) == 1 else f"{len(names)} maps from {names[0]} to {names[-1]}"
        found.append([name, str(channels), f"{stride:g}", reason])
    return found


def _size_plan(facts: Mapping[str, Any]) -> SizePlan:
    sizes = ImageSizes(**{**facts["sizes"], "fixed": _pair(facts["sizes"]["fixed"])})
    return SizePlan(policy=facts["policy"], sizes=sizes, image_size=_pair(facts["image_size"]), asked=_pair(facts["asked"]))


def _pair(size: Sequence[int] | None) -> tuple[int, int] | None:
    return None if size is None else (size[0], size[1])

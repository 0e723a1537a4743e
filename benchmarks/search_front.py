"""Does `zoo search` find the fastest pairings? `python benchmarks/search_front.py POOL SEARCH`.

POOL is a store with runs of many pairings, such as results/atlas.sqlite. SEARCH is the folder of a finished search without data
on the same machine, for images of the same size. A pairing of the pool beats the answer if it is faster than every pairing of
the answer that has at least its FLOPs (or its prior score), each with a margin. The script prints how many pairings of the pool
meet the limit of the search, and those that beat the answer.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import closing
from pathlib import Path

from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import table_of
from zoo.search.request import parse_limits, value_of


def main() -> None:
    """Print the pairings of the pool that beat the answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="A store with the pool.")
    parser.add_argument("search", type=Path, help="The folder of the search.")
    parser.add_argument("--store", type=Path, default=Path("results/zoo.sqlite"), help="The store of the search.")
    parser.add_argument("--margin", type=float, default=0.05)
    asked = parser.parse_args()
    state = json.loads((asked.search / "search.json").read_text(encoding="utf-8"))
    identity = state["identity"]
    limit, prior = max_latency(identity["limits"]), identity["prior"]
    with closing(Store(asked.store, must_exist=True)) as store:
        (final,) = (stage["run"] for stage in state["stages"] if stage["kind"] == "final")
        answer = [row for row in table_of(store, final).rows if row.latency and row.latency.high <= limit]
    with closing(Store(asked.pool, must_exist=True)) as store:
        rows = [row for run in store.runs() for row in table_of(store, run.id).rows]
    size = (identity["height"], identity["width"], identity["batch"])
    pool = [row for row in rows if row.latency and row.encoder and (row.height, row.width, row.batch) == size]
    within = [row for row in pool if row.latency and row.latency.high <= limit]
    print(f"{len(answer)} pairings in the answer; {len(within)} of the {len(pool)} pairings of the pool meet the limit")
    beating = [row for row in within if beats(row, answer, prior, 1 + asked.margin)]
    for row in beating:
        assert row.latency is not None
        print(f"  {row.name}: {row.latency.format(1e3, 1)} ms, {(row.flops or 0) / 1e9:.2f} GFLOPs")
    print(f"{len(beating)} beat the answer by more than {asked.margin:.0%}")


def max_latency(limits: list[str]) -> float:
    """Return the limit of the latency in seconds; infinity if there is none."""
    texts = [text.partition(" ")[2] for text in limits if text.startswith("--max-latency ")]
    return min((value_of(each) for text in texts for each in parse_limits({"max_latency": text})), default=math.inf)


def beats(row: Row, answer: list[Row], prior: dict[str, float], margin: float) -> bool:
    """Return whether a row is faster than every row of the answer with at least its score, with a margin for both."""

    def score(each: Row) -> float:
        return prior.get(each.encoder, -math.inf) if prior else float(each.flops or 0)

    assert row.latency is not None
    as_good = [each for each in answer if score(each) * margin >= score(row)]
    return all(each.latency is None or each.latency.median > row.latency.median * margin for each in as_good)


if __name__ == "__main__":
    main()

"""Does `zoo search` find the fastest pairings? `python benchmarks/search_front.py POOL SEARCH`.

POOL is a store with runs of many pairings, such as results/atlas.sqlite. SEARCH is the folder of a finished search without data
for images of the same size. The speed of a machine changes from hour to hour, so the script measures all of these in one run:
the pairings of the search's answer, and those of the pool that may meet its limit of latency.

A pairing of the pool beats the answer if it is faster than every pairing of the answer that has at least its FLOPs (or its
prior score), each with a margin. The script prints how many pairings of the pool meet the limit, and which beat the answer.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import closing
from pathlib import Path

import zoo
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.rows import Row
from zoo.benchmark.table.table import table_of
from zoo.search.request import parse_limits, value_of

SLACK = 1.25
"""How much longer than the limit a pairing of the pool may have taken when the pool was measured."""


def main() -> None:
    """Measure the pairings, and print those of the pool that beat the answer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="A store with the pool.")
    parser.add_argument("search", type=Path, help="The folder of the search.")
    parser.add_argument("--store", type=Path, default=Path("results/zoo.sqlite"), help="The store of the search.")
    parser.add_argument("--margin", type=float, default=0.05)
    parser.add_argument("--rounds", type=int, default=20)
    asked = parser.parse_args()
    state = json.loads((asked.search / "search.json").read_text(encoding="utf-8"))
    identity = state["identity"]
    limit, prior = max_latency(identity["limits"]), identity["prior"]
    with closing(Store(asked.store, must_exist=True)) as store:
        (final,) = (stage["run"] for stage in state["stages"] if stage["kind"] == "final")
        shown = [row for row in table_of(store, final).rows if row.latency and row.latency.high <= limit]
    with closing(Store(asked.pool, must_exist=True)) as store:
        rows = [row for run in store.runs() for row in table_of(store, run.id).rows]
    size = (identity["height"], identity["width"], identity["batch"])
    pool = [row for row in rows if row.latency and row.encoder and (row.height, row.width, row.batch) == size]
    near = [row for row in pool if row.latency and row.latency.median <= SLACK * limit]
    pairings = list(dict.fromkeys((row.encoder, row.decoder) for row in (*shown, *near)))
    config = {
        "name": "the answer of a search, and a pool",
        "pairings": [{"encoder": encoder, "decoder": decoder} for encoder, decoder in pairings],
        "modes": ["inference"],
        "size": [[identity["height"], identity["width"]]],
        "batch": [identity["batch"]],
        "rounds": asked.rounds,
    }
    measured = zoo.bench(zoo.BenchConfig.model_validate(config), store=asked.store).rows
    meeting = [row for row in measured if row.latency and row.latency.median <= limit]
    in_answer, in_pool = ({(row.encoder, row.decoder) for row in rows} for rows in (shown, near))
    answer = [row for row in meeting if (row.encoder, row.decoder) in in_answer]
    within = [row for row in meeting if (row.encoder, row.decoder) in in_pool]
    print(f"{len(answer)} of {len(shown)} pairings of the answer and {len(within)} of {len(pool)} of the pool meet the limit")
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

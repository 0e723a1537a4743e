"""Write index.json, which has the entry that `describe` measures for every architecture of the installed timm.

Run this script for each new version of timm: `python -m zoo_timm.make_index`. It takes about an hour on two cores, and
downloads nothing. It also rewrites licenses.json. An interrupted run continues from a partial file next to the index.
"""

from __future__ import annotations

import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import timm
import torch

from zoo_timm import licenses
from zoo_timm.describe import describe

INDEX = Path(__file__).with_name("index.json")
PARTIAL = INDEX.with_suffix(".partial.jsonl")
PROCESSES = 2
CHUNK = 200
"""The number of architectures after which the pool of processes is replaced, so that its memory stays bounded."""


def main() -> None:
    """Write index.json next to this file, one architecture per line."""
    found = {}
    if PARTIAL.exists():
        found = dict(json.loads(line) for line in PARTIAL.read_text(encoding="utf-8").splitlines())
    left = [name for name in timm.list_models() if name not in found]
    failed = {}
    with PARTIAL.open("a", encoding="utf-8") as partial:
        for start in range(0, len(left), CHUNK):
            with ProcessPoolExecutor(PROCESSES, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
                jobs = {pool.submit(describe, name): name for name in left[start : start + CHUNK]}
                for job in as_completed(jobs):
                    name = jobs[job]
                    if error := job.exception():
                        failed[name] = error
                        continue
                    found[name] = job.result()
                    partial.write(json.dumps([name, found[name]]) + "\n")
                    partial.flush()
    if failed:
        raise SystemExit("\n".join(f"{name}: {type(error).__name__}: {error}" for name, error in failed.items()))
    INDEX.write_text(_index(found), encoding="utf-8")
    licenses.write()
    PARTIAL.unlink()


def _index(found: dict[str, Any]) -> str:
    tags: dict[str, list[str]] = {}
    for name in timm.list_pretrained():
        architecture, _, tag = name.partition(".")
        tags.setdefault(architecture, []).append(tag)
    entries = {name: {**entry, "tags": tags[name]} if tags.get(name) else entry for name, entry in sorted(found.items())}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
    return f'{{"timm": {json.dumps(timm.__version__)},\n"architectures": {{\n{lines}\n}}}}\n'


if __name__ == "__main__":
    main()

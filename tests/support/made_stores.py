"""Stores made by hand for the tests of what reads them: real trials, made-up samples, nothing measured."""

from __future__ import annotations

import random

from zoo.benchmark.config import BenchConfig
from zoo.benchmark.messages import Failure, Round, Sample, StaticCost
from zoo.benchmark.trial import make_trials

ENVIRONMENT = {
    "device": "cpu",
    "device_name": "Abacus 3000",
    "processor": "Abacus 3000",
    "cores": 2,
    "memory_gib": 7.5,
    "driver": "",
    "threads": 2,
    "system": "Linux x86_64",
    "python": "3.12.1",
    "versions": {"segmentation-zoo": "0.1.0", "torch": "2.9.0"},
    "commit": "abc",
}
BASIC, BILINEAR = "resnet18 x unet-basic", "resnet18 x unet-bilinear"
PEER = {"name": "peer", "factory": "torch.nn:Identity"}
SECONDS = {"peer": 0.010, BASIC: 0.020, BILINEAR: 0.030}
"""What a call takes unless a test says otherwise."""
COSTS = {
    "peer": StaticCost(parameters=1_000_000, flops=10**9, live_bytes=50 * 2**20),
    BASIC: StaticCost(parameters=14_000_000, flops=4 * 10**9, live_bytes=200 * 2**20),
    BILINEAR: StaticCost(parameters=12_000_000, flops=3 * 10**9, live_bytes=100 * 2**20),
}


def add_run(
    store,
    *,
    seconds=SECONDS,
    costs=COSTS,
    drift=1.0,
    noise=0.002,
    rounds=20,
    done=None,
    failed=None,
    unmeasured=(),
    control=1.0,
    environment=ENVIRONMENT,
    finish=True,
    name="made",
    data_digest=None,
    **config,
):
    """Store a run whose samples are these seconds, times the machine's drift, and a little noise; return its number.

    The noise is random, and the same every time.

    Args:
        failed: errors by trial's name; `done`: how many rounds there are, where the run stopped before its end.
        data_digest: of what was trained on.
        control: how much longer the baseline takes the second time it is measured in a round.
    """
    facts = {"encoders": ["resnet18"], "decoders": ["unet-basic", "unet-bilinear"], "baseline": PEER}
    facts |= {"modes": ["inference"], "size": [64], "rounds": rounds, "name": name, **config}
    wanted = BenchConfig.model_validate({key: value for key, value in facts.items() if value is not None})
    trials = make_trials(wanted)
    content = {"data_digest": data_digest} if data_digest else {}
    run = store.start_run(name, wanted.model_dump(mode="json") | content, environment, trials).id
    environment_id = store.environment_id(run, environment)
    for trial in trials:
        if str(trial) in costs and trial.role != "control":
            store.add_cost(run, trial.key, costs[str(trial)])
        if str(trial) in (failed or {}):
            store.add_failure(run, Failure(trial=trial.key, kind="error", error=failed[str(trial)]))
    blocks = {}
    for trial in trials:
        blocks.setdefault(trial.block, []).append(trial)
    store.add_groups(run, [[trial.key for trial in block] for block in blocks.values()])

    def taken(trial, chance):
        twice = control if trial.role == "control" else 1.0
        return seconds[str(trial)] * trial.batch * drift * (1 + noise * chance.uniform(-1, 1)) * twice

    for number, block in enumerate(blocks.values()):
        chance = random.Random(f"{name} {drift} {number}")
        alive = [trial for trial in block if str(trial) not in (failed or {}) and str(trial) not in unmeasured]
        for turn in range(rounds if done is None else done):
            samples = [
                Sample(trial=trial.key, slot=slot, calls=3, seconds=(took := taken(trial, chance)), busy_seconds=took * 1.5)
                for slot, trial in enumerate(alive)
            ]
            store.add_round(run, number, environment_id, Round(number=turn, samples=tuple(samples), conditions={}))
        if finish:
            store.stop_group(run, number, environment_id, "fixed")
    if finish:
        store.finish_run(run)
    return run

"""Decoders that raise, eat all memory, never end or take their process with them: each is a row, and the rest is measured."""

from __future__ import annotations

from contextlib import closing, contextmanager
from textwrap import dedent

import pytest
import torch
import yaml
from executors import WithoutRates
from torch import nn

import zoo
from zoo.benchmark.config import load_config
from zoo.benchmark.running.group_pass import IN_PROCESS
from zoo.benchmark.running.local import LocalProcesses
from zoo.benchmark.running.progress import ConsoleWatcher
from zoo.benchmark.running.sweep import run_sweep
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of

ROUNDS = 20
PLUGIN = """
    import ctypes
    import os
    import time

    from torch import nn

    import zoo

    class TinyEncoder(nn.Module):
        def __init__(self, maps, in_channels, weights):
            super().__init__()
            self.fine = nn.Conv2d(in_channels, 8, 2, stride=2)

        def forward(self, x):
            return [self.fine(x)]

    zoo.register_encoder("tiny", TinyEncoder, pyramid=[zoo.plugin.FeatureMap(name="map2", channels=8, stride=2)])

    class Finest(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            self.meet(features[0])
            return features[0]

        def meet(self, x):
            pass

    @zoo.register_decoder("sound")
    class Sound(Finest):
        pass

    @zoo.register_decoder("raises")
    class Raises(Finest):
        def meet(self, x):
            raise ValueError("no way forward")

    @zoo.register_decoder("eats")
    class Eats(Finest):
        def meet(self, x):
            hoard = []
            while True:
                hoard.append(bytearray(10**8))

    @zoo.register_decoder("sleeps")
    class Sleeps(Finest):
        def meet(self, x):
            while x.device.type == "cpu":
                time.sleep(1)

    @zoo.register_decoder("crashes")
    class Crashes(Finest):
        def meet(self, x):
            if x.device.type == "cpu":
                ctypes.string_at(0)

    @zoo.register_decoder("leaves")
    class Leaves(Finest):
        def meet(self, x):
            if x.device.type == "cpu":
                print("out of here")
                os._exit(7)

    @zoo.register_decoder("leaves-quietly")
    class LeavesQuietly(Finest):
        def meet(self, x):
            os._exit(0)

    @zoo.register_decoder("leaks")
    class Leaks(Finest):
        hoard = []

        def meet(self, x):
            if x.device.type == "cpu":
                self.hoard.append(bytearray(12 * 10**7))

    @zoo.register_decoder("needs-much")
    class NeedsMuch(Finest):
        def meet(self, x):
            if x.device.type == "cpu":
                held = bytearray(len(x) * 2 * 10**8)
                time.sleep(0.2)
                del held
"""


pytestmark = pytest.mark.usefixtures("one_thread", "fresh_registry")


@pytest.fixture
def run(tmp_path):
    """Return a function that measures decoders with a tiny encoder, and gives the table's rows by decoder."""
    (tmp_path / "plugin.py").write_text(dedent(PLUGIN), encoding="utf-8")

    def measure(*decoders, **facts):
        shared = {"name": "hostile", "plugins": ["plugin.py"], "encoders": ["tiny"], "decoders": list(decoders)}
        shared |= {"modes": ["inference"], "size": [32], "device": "cpu", "rounds": ROUNDS, "warmup": 1}
        path = tmp_path / "run.yaml"
        path.write_text(yaml.safe_dump(shared | {"step_limit": 8.0, "memory_limit": 2.0} | facts), encoding="utf-8")
        with closing(Store(tmp_path / "store.sqlite")) as store, ConsoleWatcher() as watcher:
            run = run_sweep(load_config(path), store, watcher, processes_without_rates)
            return {row.decoder: row for row in table_of(store, run.id).rows}

    return measure


@contextmanager
def processes_without_rates(limits, preload):
    with LocalProcesses(limits, preload) as processes:
        yield WithoutRates(processes)


def test_whatever_a_decoder_does_is_its_row_and_the_others_are_measured(run):
    decoders = ("sound", "raises", "eats", "sleeps", "crashes", "leaves", "leaves-quietly", "unet-basic")
    rows = run(*decoders, memory_limit=1.2)  # some machines take seconds for a GiB of new memory
    assert {name: row.failure for name, row in rows.items()} == {
        "sound": None,
        "raises": "error",
        "eats": "out of memory",
        "sleeps": "hang",
        "crashes": "crash",
        "leaves": "crash",
        "leaves-quietly": "crash",
        "unet-basic": None,
    }
    assert [rows[name].rounds for name in ("sound", "unet-basic")] == [ROUNDS, ROUNDS]
    assert rows["raises"].error == "ValueError: no way forward"
    assert all(part in rows["eats"].error for part in ("OutOfMemoryError", "1.2 GiB", "memory_limit"))
    assert all(part in rows["sleeps"].error for part in ("HangError", "after 8 s", "step_limit"))
    assert "SIGSEGV" in rows["crashes"].error
    assert "status 7" in rows["leaves"].error
    assert "status 0" in rows["leaves-quietly"].error


@pytest.mark.slow
def test_one_that_grows_beside_others_until_memory_is_gone_is_found_and_the_others_are_measured(run):
    rows = run("sound", "leaks", "unet-basic")
    assert rows["leaks"].failure == "out of memory"
    assert [(rows[name].error, rows[name].rounds >= ROUNDS) for name in ("sound", "unet-basic")] == [(None, True)] * 2


@pytest.mark.slow
def test_it_is_found_where_there_is_no_baseline_left_either(run):
    broken = {"name": "broken", "factory": "plugin:nothing_of_that_name"}
    rows = run("sound", "leaks", "unet-basic", baseline=broken)
    assert rows["leaks"].failure == "out of memory"
    assert [(rows[name].error, rows[name].rounds >= ROUNDS) for name in ("sound", "unet-basic")] == [(None, True)] * 2


def test_after_a_batch_that_does_not_fit_the_largest_half_that_does_stands_in_columns_of_its_own(run):
    rows = run("sound", "needs-much", batch=[8], memory_limit=1.5)
    failed = rows["needs-much"]
    assert (failed.failure, failed.batch, failed.latency, failed.ratio) == ("out of memory", 8, None, None)
    assert failed.smaller.batch == 4
    assert failed.smaller.images_per_second > 0
    assert (rows["sound"].smaller, rows["sound"].rounds) == (None, ROUNDS)


@pytest.mark.slow
def test_what_only_this_process_can_make_is_measured_in_it_and_its_row_says_so(run):
    @zoo.register_decoder("of-a-notebook")
    class OfANotebook(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return torch.relu(features[0])

    rows = run("of-a-notebook", "sound")
    assert [(row.error, row.rounds) for row in rows.values()] == [(None, ROUNDS)] * 2
    assert all(IN_PROCESS in row.flags for row in rows.values())  # they share a group
    assert rows["of-a-notebook"].rss_bytes is None
    assert not any(IN_PROCESS in row.flags for row in run("sound", "unet-basic").values())

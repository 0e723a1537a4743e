"""`zoo.bench`: every pairing measured side by side, failures as rows, raw samples in the store."""

from __future__ import annotations

import math
import sqlite3
from collections import defaultdict
from contextlib import closing, nullcontext
from textwrap import dedent

import pytest
import torch
import yaml
from executors import WithoutRates

import zoo
from zoo.benchmark import BenchConfig, bench
from zoo.benchmark.config import load_config
from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.messages import Activity, ColdStart, Failure
from zoo.benchmark.rounds import rounds_plan
from zoo.benchmark.running.local import Limits, LocalProcesses
from zoo.benchmark.running.progress import ConsoleWatcher
from zoo.benchmark.running.sweep import run_sweep
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of
from zoo.benchmark.trial import make_trials
from zoo.common.statistics import estimate_median, estimate_ratio
from zoo.registry.registry import default_registry

ROUNDS = 20
BASELINE = {"name": "conv", "factory": "torch.nn:Conv2d", "options": {"in_channels": 3, "out_channels": 1, "kernel_size": 1}}
TUTORIAL = """
    import torch
    from torch import nn

    import zoo

    class BasicDecoder(nn.Module):
        def __init__(self, in_channels_list, out_channels):
            super().__init__()
            self.up1 = nn.ConvTranspose2d(in_channels_list[-1], out_channels, 2, stride=2)
            self.conv1 = nn.Conv2d(out_channels + in_channels_list[-2], out_channels, 3, padding=1)
            self.up2 = nn.ConvTranspose2d(out_channels, out_channels, 2, stride=2)
            self.conv2 = nn.Conv2d(out_channels + in_channels_list[-3], out_channels, 3, padding=1)

        def forward(self, x1, x2, x3, x4, x5, x6):
            x = self.conv1(torch.cat([self.up1(x6), x5], dim=1))
            return self.conv2(torch.cat([self.up2(x), x4], dim=1))

    zoo.register_decoder("basic", zoo.from_channels(BasicDecoder, out_channels=32))
"""
TINY = """
    import time

    from torch import nn

    import zoo

    class TinyEncoder(nn.Module):
        def __init__(self, maps, in_channels, weights):
            super().__init__()
            self.fine = nn.Conv2d(in_channels, 8, 2, stride=2)
            self.coarse = nn.Conv2d(8, 8, 2, stride=2)

        def forward(self, x):
            fine = self.fine(x)
            return [fine, self.coarse(fine)]

    PYRAMID = [zoo.plugin.FeatureMap(name=f"map{stride}", channels=8, stride=stride) for stride in (2, 4)]
    zoo.register_encoder("tiny", TinyEncoder, pyramid=PYRAMID)

    class Finest(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride
            self.calls = 0

        def forward(self, features):
            self.check(features[0])
            return features[0]

    @zoo.register_decoder("never-built")
    class NeverBuilt(Finest):
        def __init__(self, pyramid):
            raise OSError("no blueprint")

    @zoo.register_decoder("never-runs")
    class NeverRuns(Finest):
        def check(self, x):
            raise ValueError("no way forward")

    @zoo.register_decoder("never-trains")
    class NeverTrains(Finest):
        def check(self, x):
            if self.training:
                raise ArithmeticError("no gradient\\nin sight")

    @zoo.register_decoder("fickle")
    class Fickle(Finest):
        def forward(self, features):
            self.calls += 1
            return features[0] * self.calls

    @zoo.register_decoder("tires")
    class Tires(Finest):
        def check(self, x):
            if x.device.type == "cpu":
                self.calls += 1
                time.sleep(0.015)
            if self.calls == 9:
                raise TimeoutError("the ninth call")
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def processes():
    """One process for all the runs of this file to fork: importing takes longer than measuring them."""
    with LocalProcesses(Limits(step_seconds=300), ["zoo_unet.decoders"]) as executor:
        yield executor


@pytest.fixture
def run(tmp_path, fresh_registry, processes):
    """Return a function that measures a small configuration, and gives the table."""

    (tmp_path / "tiny.py").write_text(dedent(TINY), encoding="utf-8")

    def measure(store="store.sqlite", *, has_rates=False, **facts):
        executor = processes if has_rates else WithoutRates(processes)
        return measured(tmp_path, tmp_path / store, executor, **facts)

    return measure


def measured(folder, store, processes, **facts):
    shared = {
        "name": "small",
        "plugins": ["tiny.py"],
        "modes": ["inference"],
        "size": [32],
        "device": "cpu",
        "rounds": ROUNDS,
        "warmup": 1,
    }
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(shared | facts), encoding="utf-8")
    with closing(Store(store)) as opened, ConsoleWatcher() as watcher:
        run = run_sweep(load_config(path), opened, watcher, lambda limits, preload: nullcontext(processes))
        return table_of(opened, run.id)


def pairing(decoder, encoder="tiny"):
    return {"encoder": encoder, "decoder": decoder}


def samples(store):
    """Return what the sample table holds, in the order in which it came."""
    asked = """
        SELECT sample.run, json_extract(facts, '$.mode'), coalesce(json_extract(facts, '$.subject.reference'),
               json_extract(facts, '$.subject.decoder')), round, slot, calls, seconds
        FROM sample JOIN trial ON trial.run = sample.run AND trial.key = sample.trial
        WHERE json_extract(facts, '$.role') <> 'control' ORDER BY sample.rowid
    """
    with closing(sqlite3.connect(store)) as database:
        return database.execute(asked).fetchall()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def table(folder, one_thread, processes):
    """One run with sound pairings and all that can go wrong, measured once for many tests."""
    (folder / "tiny.py").write_text(dedent(TINY), encoding="utf-8")
    decoders = ["unet-basic", "unet-bilinear", "never-built", "never-runs", "never-trains", "tires", "absent"]
    default_registry.cache_clear()
    yield measured(
        folder,
        folder / "store.sqlite",
        processes,
        plugins=["tiny.py"],
        pairings=[*map(pairing, decoders), pairing("unet-basic", encoder="resnt18")],
        baseline=BASELINE,
        modes=["inference", "training"],
        size=[64],
    )
    default_registry.cache_clear()


@pytest.fixture
def row(table):
    """Return a function that gives the one row of a mode whose name holds a text."""

    def only(mode, text):
        (found,) = (row for row in table.rows if row.mode == mode and text in row.name)
        return found

    return only


MODES = pytest.mark.parametrize("mode", ["inference", "training"])
SOUND = ("conv", "tiny x unet-basic", "tiny x unet-bilinear")


def test_there_is_a_row_for_every_trial_the_baseline_first_in_each_mode(table):
    assert [row.mode for row in table.rows] == ["inference"] * 9 + ["training"] * 9
    assert [index for index, row in enumerate(table.rows) if row.is_baseline] == [0, 9]
    assert [row.name for row in table.rows[:9]] == [row.name for row in table.rows[9:]]


@MODES
@pytest.mark.parametrize("text", SOUND)
def test_a_sound_row_has_every_fact(row, mode, text):
    found = row(mode, text)
    assert found.error is None
    assert found.rounds == ROUNDS
    assert (found.batch, found.height, found.width, found.device, found.dtype) == (1, 64, 64, "cpu", "float32")
    assert (found.memory_format, found.runtime, found.stopped) == ("contiguous", "eager", "fixed")
    assert 0 < found.latency.low <= found.p90
    assert 0 < found.busy.low <= found.busy.median
    assert 0 < found.efficiency < 1.5
    assert min(found.build_seconds, found.first_seconds) > 0
    assert found.rss_bytes >= 0
    assert 0 < found.latency.low <= found.latency.median <= found.latency.high
    assert found.images_per_second == pytest.approx(1 / found.latency.median)
    assert found.ratio.low <= found.ratio.median <= found.ratio.high
    assert min(found.peak_bytes, found.parameters, found.flops) > 0


@MODES
def test_the_baseline_is_compared_with_itself_and_what_does_far_more_is_slower(row, mode):
    baseline = row(mode, "conv").ratio
    assert (baseline.low, baseline.median, baseline.high) == (1, 1, 1)
    assert row(mode, "tiny x unet-basic").ratio.low > 1


def test_ratios_and_medians_follow_from_the_raw_samples(table, folder, row):
    seconds = defaultdict(dict)
    for _, mode, name, number, _, _, value in samples(folder / "store.sqlite"):
        seconds[mode, name][number] = value
    mine, base = seconds["training", "unet-bilinear"], seconds["training", "conv"]
    found = row("training", "unet-bilinear")
    assert found.latency == estimate_median([mine[number] for number in range(ROUNDS)])
    assert found.ratio == estimate_ratio([mine[n] for n in range(ROUNDS)], [base[n] for n in range(ROUNDS)])


def test_training_holds_more_memory_than_inference_for_the_same_parameters_and_flops(row):
    inference, training = (row(mode, "tiny x unet-basic") for mode in ("inference", "training"))
    assert training.peak_bytes > 1.5 * inference.peak_bytes
    assert (training.parameters, training.flops) == (inference.parameters, inference.flops)


@pytest.mark.parametrize(
    ("mode", "text", "told"),
    [
        ("inference", "never-built", ["PluginError", "no blueprint"]),
        ("training", "never-built", ["PluginError", "no blueprint"]),
        ("inference", "never-runs", ["ValueError", "no way forward"]),
        ("training", "never-runs", ["ValueError", "no way forward"]),
        ("training", "never-trains", ["ArithmeticError", "no gradient\nin sight"]),
        ("inference", "absent", ["UnknownIdError", "No decoder named 'absent'"]),
        ("training", "resnt18", ["UnknownIdError", "resnet18"]),
        ("inference", "tires", ["TimeoutError", "the ninth call"]),
    ],
)
def test_what_failed_is_a_row_with_its_error(row, mode, text, told):
    found = row(mode, text)
    assert all(part in found.error for part in told)
    assert (found.latency, found.ratio, found.images_per_second) == (None, None, None)


def test_what_fails_in_training_alone_is_measured_in_inference(row):
    found = row("inference", "never-trains")
    assert (found.error, found.rounds) == (None, ROUNDS)


def test_the_store_has_as_many_raw_samples_as_rounds(table, folder):
    counts = defaultdict(list)
    for run, mode, name, number, *_, seconds in samples(folder / "store.sqlite"):
        assert run == table.run.id
        assert seconds > 0
        counts[mode, name].append(number)
    for mode in ("inference", "training"):
        for name in ("conv", "unet-basic", "unet-bilinear"):
            assert counts[mode, name] == list(range(ROUNDS))
        assert not {"never-built", "never-runs", "absent"} & {name for kept, name in counts if kept == mode}


def test_trials_are_interleaved_round_by_round_in_an_order_that_changes(table, folder):
    orders = defaultdict(list)
    previous = {}
    for _, mode, name, number, slot, *_ in samples(folder / "store.sqlite"):
        assert number >= previous.get(mode, 0)
        previous[mode] = number
        orders[mode, number].append((slot, name))
    for mode in ("inference", "training"):
        sequences = [tuple(name for _, name in sorted(orders[mode, number])) for number in range(ROUNDS)]
        assert len(set(sequences)) > ROUNDS // 2
        assert len({sequence[0] for sequence in sequences}) > 1


def test_what_fails_halfway_keeps_its_samples_and_the_rest_goes_on(row, folder):
    failed = row("inference", "tires")
    assert failed.rounds == 6
    assert "TimeoutError" in failed.error
    kept = [number for _, mode, name, number, *_ in samples(folder / "store.sqlite") if (mode, name) == ("inference", "tires")]
    assert kept == list(range(6))


def test_a_decoder_as_tutorials_write_it_is_a_row_and_builds_with_any_number_of_classes(run, tmp_path):
    (tmp_path / "tutorial.py").write_text(dedent(TUTORIAL), encoding="utf-8")
    table = run(plugins=["tutorial.py"], encoders=["resnet18"], decoders=["basic"])
    assert [(row.name, row.rounds, row.error) for row in table.rows] == [("resnet18 x basic", ROUNDS, None)]
    model = zoo.build("resnet18", "basic", classes=19)
    assert model(torch.rand(2, 3, 225, 301)).shape == (2, 19, 225, 301)
    last_layer = 19 * (32 + 1) - (32 + 1)
    assert table.rows[0].parameters == sum(parameter.numel() for parameter in model.parameters()) - last_layer


@pytest.mark.slow
def test_the_order_follows_the_seed(run, tmp_path):
    facts = {"pairings": [pairing("unet-basic"), pairing("unet-bilinear"), pairing("unet-attention")]}
    orders = []
    for number, seed in enumerate((1, 1, 2)):
        run(f"{number}.sqlite", seed=seed, **facts)
        orders.append([(name, turn, slot) for _, _, name, turn, slot, *_ in samples(tmp_path / f"{number}.sqlite")])
    assert orders[0] == orders[1] != orders[2]


def test_a_run_that_is_complete_is_followed_by_another(run, tmp_path):
    first, second = (run(pairings=[pairing("unet-basic")]) for _ in range(2))
    assert first.run.id != second.run.id
    assert first.run.finished is not None
    counts = [kept[0] for kept in samples(tmp_path / "store.sqlite")]
    assert [counts.count(table.run.id) for table in (first, second)] == [ROUNDS, ROUNDS]


@pytest.mark.slow
def test_trials_of_other_batches_sizes_and_dtypes_are_compared_with_the_baseline_of_their_own(run):
    table = run(pairings=[pairing("unet-basic")], baseline=BASELINE, batch=[1, 2], size=[32, [32, 64]], dtype=["bfloat16"])
    assert [(row.batch, row.height, row.width, row.dtype, row.is_baseline) for row in table.rows] == [
        (batch, 32, width, "bfloat16", is_baseline) for width in (32, 64) for batch in (1, 2) for is_baseline in (True, False)
    ]
    assert all(row.ratio and row.rounds == ROUNDS for row in table.rows)


@pytest.mark.slow
def test_memory_formats_share_a_block_and_rules_leave_combinations_out(run):
    table = run(
        pairings=[pairing("unet-basic"), pairing("unet-bilinear")],
        baseline=BASELINE,
        memory_format=["contiguous", "channels_last"],
        size=[32, 64],
        exclude=[{"decoder": "unet-bil*", "memory_format": "channels_last"}, {"size": 64, "memory_format": "channels_last"}],
    )
    found = [(row.height, row.name.removeprefix("tiny x "), row.memory_format, row.is_baseline) for row in table.rows]
    assert found == [
        (32, "conv", "contiguous", True),
        (32, "unet-basic", "contiguous", False),
        (32, "unet-bilinear", "contiguous", False),
        (32, "conv", "channels_last", False),
        (32, "unet-basic", "channels_last", False),
        (64, "conv", "contiguous", True),
        (64, "unet-basic", "contiguous", False),
        (64, "unet-bilinear", "contiguous", False),
    ]
    assert all(row.error is None and row.ratio for row in table.rows)


@pytest.mark.slow
def test_a_pairing_may_be_the_baseline_and_stand_under_a_second_name(run):
    same = pairing("unet-basic") | {"name": "the same again"}
    table = run(pairings=[same, pairing("unet-basic")], baseline=pairing("unet-basic"))
    assert [(row.name, row.is_baseline, row.rounds) for row in table.rows] == [
        ("tiny x unet-basic", True, ROUNDS),
        ("the same again", False, ROUNDS),
    ]
    (check,) = table.checks
    assert check.ratio.low <= check.ratio.median <= check.ratio.high
    assert check.names == ("the same again",)


def test_a_large_block_is_measured_in_groups_that_each_hold_the_baseline(run):
    table = run(pairings=[pairing("unet-basic"), pairing("unet-bilinear"), pairing("unet-attention")], group_size=1)
    assert [row.rounds for row in table.rows] == [2 * ROUNDS, ROUNDS, ROUNDS]
    assert [check.names for check in table.checks] == [("tiny x unet-bilinear",), ("tiny x unet-attention",)]


@pytest.mark.slow
def test_rounds_end_when_every_ratio_is_known_or_the_most_are_done_or_the_time_is_spent(run):
    def stopped(**facts):
        return {(row.stopped, row.rounds) for row in run(pairings=[pairing("unet-basic")], baseline=BASELINE, **facts).rows}

    ((reason, rounds),) = stopped(rounds={"min": 20, "max": 160, "target": 0.99})
    assert reason == "precise"
    assert rounds < 160  # 20 on a quiet machine
    assert stopped(rounds={"min": 20, "max": 21, "target": 0.000001}) == {("limit", 21)}
    assert stopped(rounds={"min": 20, "max": 160, "target": 0.000001}, budget=0.001) == {("budget", 20)}


@pytest.mark.slow
def test_a_compiled_model_is_a_row_beside_the_eager_one_and_its_first_call_takes_longer(run):
    table = run(pairings=[pairing("unet-basic")], runtime=["eager", "compile"])
    eager, compiled = table.rows
    assert [(row.error, row.rounds, row.runtime) for row in table.rows] == [(None, ROUNDS, "eager"), (None, ROUNDS, "compile")]
    assert compiled.first_seconds > eager.first_seconds
    assert (compiled.flops, compiled.parameters) == (eager.flops, eager.parameters)


@pytest.mark.slow
def test_a_deployed_model_is_a_row_beside_the_eager_one(run):
    table = run(pairings=[pairing("unet-basic")], runtime=["eager", "deploy"], dtype=["float32", "bfloat16"])
    assert [(row.error, row.rounds, row.dtype, row.runtime) for row in table.rows] == [
        (None, ROUNDS, dtype, runtime) for dtype in ("float32", "bfloat16") for runtime in ("eager", "deploy")
    ]
    eager, deployed = table.rows[:2]
    assert deployed.first_seconds > eager.first_seconds
    assert (deployed.flops, deployed.parameters, deployed.is_baseline) == (eager.flops, eager.parameters, False)


@pytest.mark.slow
def test_every_runtime_of_the_cpu_is_a_row(run):
    runtimes = [
        "eager",
        "compile",
        "onnxruntime",
        "openvino",
        "deploy",
        "deploy-compile",
        "deploy-onnxruntime",
        "deploy-openvino",
    ]
    table = run(pairings=[pairing("unet-basic")], runtime=runtimes)
    assert [(row.error, row.rounds, row.runtime) for row in table.rows] == [(None, ROUNDS, runtime) for runtime in runtimes]


def test_a_runtime_whose_output_is_another_is_an_error_and_not_a_time(run):
    eager, deployed = run(pairings=[pairing("fickle")], runtime=["eager", "deploy"]).rows
    assert eager.rounds == ROUNDS
    assert "The output differs from the model's by" in deployed.error
    assert deployed.latency is None


def test_a_runtime_of_another_device_is_refused_before_anything_is_measured(run):
    with pytest.raises(
        zoo.errors.ConfigError, match="'deploy-cudagraphs' cannot be used here: it is used on cuda devices only"
    ):
        run(pairings=[pairing("unet-basic")], runtime=["eager", "deploy-cudagraphs"])


@pytest.mark.slow
def test_without_a_baseline_the_first_pairing_is_one_and_with_a_broken_one_there_are_no_ratios(run):
    without = run(pairings=[pairing("unet-basic"), pairing("unet-bilinear")])
    assert [(row.is_baseline, row.ratio.median == 1) for row in without.rows] == [(True, True), (False, False)]
    broken = run(pairings=[pairing("unet-basic")], baseline=BASELINE | {"factory": "torch.nn:NoSuchThing"})
    assert [row.ratio for row in broken.rows] == [None, None]
    assert "NoSuchThing" in broken.rows[0].error
    assert broken.rows[1].rounds == ROUNDS
    assert not math.isnan(broken.rows[1].latency.median)
    assert broken.checks == ()


@pytest.mark.slow
def test_a_configuration_in_memory_will_do_and_random_input_and_several_classes(tmp_path, fresh_registry):
    (tmp_path / "tiny.py").write_text(dedent(TINY), encoding="utf-8")
    facts = {"name": "memory", "plugins": [str(tmp_path / "tiny.py")], "pairings": [pairing("unet-basic")]}
    config = BenchConfig.model_validate(facts | {"size": [32], "device": "cpu", "input": "random", "classes": 4, "rounds": 20})
    table = bench(config, store=tmp_path / "store.sqlite")
    assert [(row.mode, row.rounds, row.error) for row in table.rows] == [("inference", 20, None), ("training", 20, None)]


def test_the_table_says_where_it_was_measured(table):
    environment = table.run.environment
    assert environment["device"] == "cpu"
    assert environment["threads"] == torch.get_num_threads()
    assert environment["versions"]["torch"] == torch.__version__
    assert {"segmentation-zoo", "timm", "torchvision", "segmentation-models-pytorch"} <= environment["versions"].keys()
    assert environment["processor"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is such a device")
def test_a_device_that_is_not_there_is_told_before_anything_is_measured(run):
    with pytest.raises(zoo.errors.ConfigError, match="'cuda'") as caught:
        run(pairings=[pairing("unet-basic")], device="cuda")
    assert "'cpu'" in str(caught.value)


@pytest.mark.parametrize("device", ["toaster", "meta", ""])
def test_a_device_on_which_nothing_can_be_measured_is_told(run, device):
    with pytest.raises(zoo.errors.ConfigError, match="device") as caught:
        run(pairings=[pairing("unet-basic")], device=device)
    assert "'auto'" in str(caught.value)


@pytest.mark.parametrize(("source", "told"), [(None, "does not exist"), ("1 / 0", "ZeroDivisionError"), ("def", "SyntaxError")])
def test_a_plugin_file_that_cannot_be_used_is_told_before_anything_is_measured(run, tmp_path, source, told):
    if source is not None:
        (tmp_path / "mine.py").write_text(source, encoding="utf-8")
    with pytest.raises(zoo.errors.PluginError, match=told) as caught:
        run(plugins=["mine.py"], pairings=[pairing("unet-basic")])
    assert str(tmp_path / "mine.py") in str(caught.value)


def test_plugin_files_of_one_name_in_two_folders_do_not_replace_each_other(run, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(dedent(TUTORIAL), encoding="utf-8")
    with pytest.raises(zoo.errors.RegistrationError, match="'basic' is registered already"):
        run(plugins=["a/mine.py", "b/mine.py"], pairings=[pairing("basic", encoder="resnet18")])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.accelerator.is_available(), reason="there is no accelerator")
def test_an_accelerator_has_its_own_counters_of_time_and_memory(run):
    facts = {"device": "auto", "dtype": ["float32", "bfloat16"], "size": [64]}
    table = run(pairings=[pairing("unet-basic")], baseline=BASELINE, has_rates=True, **facts)
    for row in table.rows:
        assert (row.error, row.rounds) == (None, ROUNDS)
        assert row.device == torch.accelerator.current_accelerator().type
        assert row.busy.median > 0
        assert row.allocated_bytes > 0
        assert row.first_seconds > 0
        assert row.efficiency > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("call", [1, 9])
def test_a_kernel_that_breaks_the_device_is_its_row_and_the_others_are_measured_in_a_new_process(run, tmp_path, call):
    """Out of bounds is an assertion in the kernel, after which every call of the same process fails."""
    source = f"""
        import torch
        from torch import nn

        import zoo

        @zoo.register_decoder("breaks")
        class Breaks(nn.Module):
            def __init__(self, pyramid):
                super().__init__()
                self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride
                self.calls = 0

            def forward(self, features):
                x = features[0]
                self.calls += x.is_cuda
                index = torch.full((1,), 10**6 * (self.calls == {call}), device=x.device)
                return x + x.flatten().index_select(0, index)
    """
    (tmp_path / "breaks.py").write_text(dedent(source), encoding="utf-8")
    shared = {"plugins": ["tiny.py", "breaks.py"], "baseline": BASELINE, "device": "cuda"}
    table = run(pairings=[pairing("breaks"), pairing("unet-basic")], **shared)
    base, broken, other = table.rows
    assert (base.error, base.rounds, other.error, other.rounds) == (None, ROUNDS, None, ROUNDS)
    assert broken.failure == "error"
    assert "CUDA" in broken.error


@pytest.mark.parametrize("kind", ["file", "folder", "option"])
def test_an_interrupted_run_goes_on_only_with_the_same_weights(tmp_path, fresh_registry, kind):
    def interrupt(limits, preload):
        raise KeyboardInterrupt

    place = tmp_path / ("weights" if kind == "folder" else "weights.pth")
    file = place / "model.safetensors" if kind == "folder" else place
    file.parent.mkdir(exist_ok=True)
    pairing = {"encoder": "resnet18", "decoder": "unet-basic"}
    pairing |= {"encoder_options": {"checkpoint": str(place)}} if kind == "option" else {"weights": str(place)}
    config = BenchConfig.model_validate({"name": "a", "pairings": [pairing], "device": "cpu"})
    for content in (b"one", b"one", b"two"):
        file.write_bytes(content)
        with closing(Store(tmp_path / "zoo.sqlite")) as store, pytest.raises(KeyboardInterrupt):
            run_sweep(config, store, ConsoleWatcher(), interrupt)
    with closing(Store(tmp_path / "zoo.sqlite", must_exist=True)) as store:
        assert [run.id for run in store.runs()] == [1, 2]


def test_a_group_measures_the_cold_starts_that_are_missing_before_its_rounds(tmp_path, fresh_registry):
    """On an accelerator each group is one process, which measures time and memory of its trials."""
    small = pairing("unet-basic", "resnet18") | {"levels": 2}
    config = BenchConfig(name="small", pairings=[small], modes=["inference"], size=[32])
    base, control = make_trials(config)
    plan = rounds_plan(config.model_copy(update={"rounds": ROUNDS}))
    job = Job(kind="rounds", device="cpu", trials=(base, control), baseline=base.key, cold_starts=(base.key,), plan=plan)
    messages = [message for message in Job.from_dict(job.as_dict()).messages() if not isinstance(message, Activity)]
    alone, *rounds, stopped = messages
    assert isinstance(alone, ColdStart)
    assert (alone.trial, alone.batch) == (base.key, 1)
    assert min(alone.build_seconds, alone.first_seconds, alone.seconds) > 0
    assert [round.number for round in rounds] == list(range(ROUNDS))
    assert {sample.trial for sample in rounds[-1].samples} == {base.key, control.key}
    assert stopped.reason == "fixed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_job_for_a_device_that_a_fork_cannot_open_is_done_by_the_process_itself(processes):
    facts = {"name": "small", "pairings": [pairing("unet-basic")], "baseline": BASELINE}
    trial, *_ = make_trials(BenchConfig(**facts, modes=["inference"], size=[32]))
    jobs = [Job(kind="cold start", device=device, trials=(trial,)) for device in ("cuda", "cpu")]
    outcomes = [(job.device, message) for job, message in processes.run(jobs) if not isinstance(message, Activity)]
    (first, refused), (second, done) = outcomes
    assert (first, second) == ("cuda", "cpu")
    assert isinstance(refused, Failure)
    assert isinstance(done, ColdStart)

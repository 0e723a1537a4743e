"""`zoo bench --quality`: every pairing trained alike, several times, and what the table says of that."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, redirect_stderr, redirect_stdout
from dataclasses import replace
from textwrap import dedent

import numpy as np
import pytest
import yaml
from made_stores import add_run
from PIL import Image
from pydantic import ValidationError
from report_tables import failed, quality, row

import zoo
from zoo.benchmark import BenchConfig, load_config
from zoo.benchmark.analysis.compare import compare
from zoo.benchmark.analysis.selection import sort_rows
from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.messages import Activity, Failure
from zoo.benchmark.quality import QualityEntry
from zoo.benchmark.running.progress import ConsoleWatcher
from zoo.benchmark.running.sweep import run_sweep
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.document import document, records
from zoo.benchmark.table.table import table_of
from zoo.benchmark.trial import make_trials, subject_key
from zoo.cli import main
from zoo.common.statistics import estimate_difference
from zoo.registry.plugin_files import load_plugin_file
from zoo.registry.registry import default_registry

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PLUGIN = """
    from torch import nn

    import zoo

    class TinyEncoder(nn.Module):
        def __init__(self, maps, in_channels, weights):
            super().__init__()
            self.fine = nn.Sequential(nn.Conv2d(in_channels, 8, 3, stride=2, padding=1), nn.ReLU())

        def forward(self, x):
            return [self.fine(x)]

    zoo.register_encoder("tiny", TinyEncoder, pyramid=[zoo.plugin.FeatureMap(name="fine", channels=8, stride=2)])

    @zoo.register_decoder("as-it-is")
    class AsItIs(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return features[0]

    @zoo.register_decoder("never-trains")
    class NeverTrains(AsItIs):
        def forward(self, features):
            if self.training:
                raise ArithmeticError("no gradient\\nin sight")
            return features[0]
"""
CONV = {"name": "conv", "factory": "torch.nn:Conv2d", "options": {"in_channels": 3, "out_channels": 2, "kernel_size": 1}}
RUN = {
    "name": "small",
    "plugins": ["tiny.py"],
    "pairings": [{"encoder": "tiny", "decoder": name} for name in ("as-it-is", "never-trains")],
    "baseline": CONV,
    "modes": ["inference"],
    "batch": [1, 2],
    "size": [32],
    "device": "cpu",
    "rounds": 20,
    "warmup": 1,
    "quality": {"data": "squares", "budget": 40, "seeds": 2, "batch": 4, "learning_rate": 0.1},
}


def made(folder, **changes):
    """Write a plugin, a folder of bright squares on dark ground, and a configuration; return the configuration's path."""
    (folder / "tiny.py").write_text(dedent(PLUGIN), encoding="utf-8")
    random = np.random.default_rng(0)
    for part, count in (("train", 8), ("validation", 1), ("test", 4)):
        for number in range(count):
            mask = np.zeros((32, 32), dtype=np.uint8)
            top, left = random.integers(0, 18, 2)
            mask[top : top + 14, left : left + 14] = 1
            image = (random.integers(0, 60, (32, 32, 3)) + 150 * mask[..., None]).astype(np.uint8)
            for kind, array in (("images", image), ("masks", mask)):
                place = folder / "squares" / part / kind
                place.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(place / f"{number}.png")
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({**RUN, **changes}), encoding="utf-8")
    return path


def started(path, store, *arguments):
    """Start `zoo bench` in a process of its own, which heeds an interrupt even where what started the tests does not."""
    return subprocess.Popen(
        [sys.executable, "-m", "zoo", "bench", path, "--store", store, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def done(path, store, *arguments):
    process = started(path, store, *arguments)
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.fixture(scope="module")
def finished(tmp_path_factory, one_thread):
    """Return the store of a run of the command line, and what it printed."""
    folder = tmp_path_factory.mktemp("finished")
    path, store = made(folder), folder / "store.sqlite"
    out, err = io.StringIO(), io.StringIO()
    default_registry.cache_clear()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["zoo", "bench", str(path), "--store", str(store)])
        with pytest.raises(SystemExit) as stop:
            main()
    default_registry.cache_clear()
    assert not stop.value.code, err.getvalue()
    return store, out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def table(finished):
    with closing(Store(finished[0])) as store:
        return table_of(store, 1)


def named(table, name):
    return [row for row in table.rows if name in row.name]


def test_every_row_of_a_model_has_its_quality_over_the_seeds(table):
    for name in ("conv", "as-it-is"):
        small, large = named(table, name)
        assert small.batch != large.batch
        assert small.quality == large.quality
        assert small.quality.seeds == (0, 1)
        assert small.quality.steps == (40, 40)
        assert small.quality.classes == ("0", "1")
        assert small.miou == pytest.approx(sum(small.quality.miou) / 2)
        assert 0.7 < small.miou <= 1  # brightness tells all
        assert small.quality.deviation == pytest.approx(abs(np.diff(small.quality.miou)[0]) / 2**0.5)


def test_the_difference_to_the_baseline_has_its_interval(table):
    (row, _), (base, _) = named(table, "as-it-is"), named(table, "conv")
    differences = [own - other for own, other in zip(row.quality.miou, base.quality.miou, strict=True)]
    alone = estimate_difference(differences)
    assert row.quality_difference == replace(alone, p_value=row.quality_difference.p_value)
    assert row.quality_difference.p_value >= alone.p_value
    assert base.quality_difference.mean == 0


def store_qualities(store, *scores):
    """Store a run of a baseline and other models with these scores, a seed each, and return its table."""
    run = add_run(store, quality={"data": {"source": "texture-mosaic"}, "budget": 9, "seeds": len(scores[0])})
    keys = [subject_key(stored.trial.subject) for stored in store.trials(run) if stored.trial.role != "control"]
    for key, of_model in zip(keys, scores, strict=True):
        for seed, miou in enumerate(of_model):
            store.add_quality(run, key, seed, {"scores": {"miou": miou, "iou": [miou]}, "classes": ["a"], "steps": 9})
    return table_of(store, run)


def test_differences_are_corrected_for_the_number_of_models(tmp_path):
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        found = store_qualities(store, [0.5, 0.5, 0.5], [0.58, 0.62, 0.60], [0.5, 0.5, 0.5])
    differences = [row.quality_difference for row in found.rows]
    alone = estimate_difference([0.08, 0.12, 0.10])
    assert differences[1].p_value == pytest.approx(2 * alone.p_value)
    assert not differences[1].is_tie
    assert differences[2].is_tie


@pytest.mark.parametrize(
    ("seeds", "words"),
    [
        (1, "With a single seed, no difference in mIoU can be told from chance"),
        (3, "With 3 seeds, only differences in mIoU of about 0.06 or more can be told from chance"),
        (5, ""),
    ],
)
def test_with_few_seeds_the_table_says_how_large_a_difference_must_be(tmp_path, seeds, words):
    scores = [
        [0.5] * seeds,
        [0.5 + 0.02 * (seed % 3) for seed in range(seeds)],
        [0.5 + 0.02 * (-seed % 3) for seed in range(seeds)],
    ]
    with closing(Store(tmp_path / "zoo.sqlite")) as store:
        text = " ".join(str(store_qualities(store, *scores)).split())
    assert words in text
    assert ("from chance" in text) is bool(words)


def test_a_model_that_cannot_be_trained_keeps_its_speed_and_says_so(table, finished):
    found, _ = named(table, "never-trains")
    assert found.error is None
    assert found.latency
    assert found.miou is None
    assert any("training with seed 1 failed: PluginError: tiny x never-trains" in flag for flag in found.flags)
    assert "FAILED training tiny x never-trains with seed 0: " in finished[2]
    assert finished[2].endswith("1 of 3 pairings failed.\n")


def test_a_model_has_failed_if_each_of_its_trainings_has():
    none = replace(quality(0.5), seeds=(), miou=(), iou=(), steps=(), seconds=())
    assert row(quality=replace(none, failures={0: "NaN", 1: "NaN"})).has_failed
    assert not row(quality=none).has_failed  # not trained yet
    assert not row(quality=replace(quality(0.5), failures={1: "NaN"})).has_failed
    assert not row().has_failed
    assert failed().has_failed


def test_the_look_up_and_the_majority_class_stand_below(table, finished):
    floors = {floor.name: floor.miou for floor in table.floors}
    assert floors["color look-up"] > 0.7
    assert floors["majority class"] < 0.5
    for form in ("table", "markdown"):
        lines = document(table).render(form).splitlines()
        below, *_ = [place for place, line in enumerate(lines) if "color look-up" in line]
        assert f"{floors['majority class']:.3f}" in lines[below + 1]
        assert [name for name in ("conv", "as-it-is", "never-trains") if name not in " ".join(lines[:below])] == []
    assert "majority class" in finished[1]


def test_the_table_says_what_was_trained_on_what_and_for_how_long(table):
    text = str(document(table)).replace("\n", " ")
    assert "mIoU on the test split of squares: 40 steps of batch 4, 2 seeds" in text


def test_programs_read_every_training_with_its_classes(table):
    facts = json.loads(document(table).render("json"))["rows"]
    (row, _) = [each for each in facts if each["pairing"] == "conv"]
    assert [each["seed"] for each in row["trainings"]] == [0, 1]
    assert set(row["trainings"][0]["iou"]) == {"0", "1"}
    assert row["quality"] == pytest.approx(named(table, "conv")[0].miou)
    assert row["majority_class_miou"] < 0.5
    (failed, _) = [each for each in facts if "never-trains" in each["pairing"]]
    assert "ArithmeticError" in failed["trainings"][0]["error"]
    assert len({tuple(record) for record in records(table)}) == 1


def test_rows_are_sorted_by_quality_the_unknown_last(table):
    names = [row.name for row in sort_rows(table.rows, "-quality")]
    assert all("never-trains" in name for name in names[-2:])


def run_on(store, source, digest):
    """Add a run whose models were trained on some data; return its number."""
    run = add_run(store, quality={"data": source, "budget": 300}, data_digest=digest)
    result = {"steps": 300, "seconds": 1.0, "classes": ["a", "b"], "scores": {"miou": 0.5, "iou": [0.4, 0.6]}}
    for trial in store.trials(run):
        if trial.trial.role != "control":
            store.add_quality(run, subject_key(trial.trial.subject), 0, result)
    return run


DIFFERENT = "WARNING: these runs trained on different data"


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        (("/a/cells", "11" * 16), ("/b/cells", "22" * 16), {"/a/cells", "/b/cells"}),
        (("/a/cells", "11" * 16), ("/a/cells", "22" * 16), {"/a/cells (111111111111)", "/a/cells (222222222222)"}),
        (("/a/cells", "11" * 16), ("hela", "22" * 16), {"cells", "hela"}),
        (("/a/cells", "11" * 16), ("/b/cells", "11" * 16), {"cells"}),
    ],
)
def test_runs_on_different_data_of_one_name_are_told_apart(tmp_path, command_line, one, other, names):
    path = tmp_path / "store.sqlite"
    with closing(Store(path)) as store:
        for source, digest in (one, other):
            run_on(store, source, digest)
        table = table_of(store, 1, 2)
        found = " ".join(str(compare(store, 1, 2)).split())
    assert {row.data for row in table.rows} == names
    assert {record["quality_data"] for record in records(table)} == names
    assert ("data trained on" in found) is (len(names) > 1)
    for command in ("table", "recommend"):
        status, stdout, _ = command_line(command, "1", "2", "--store", path, "--format", "markdown")
        assert status == 0
        assert (DIFFERENT in stdout) is (len(names) > 1)
        assert [name for name in names if name not in stdout] == []
    assert ("| data |" in document(table).render("markdown")) is (len(names) > 1)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_comes_to_the_same(finished, tmp_path):
    path, store = made(tmp_path), tmp_path / "store.sqlite"

    def trained(place=store):
        with closing(sqlite3.connect(f"file:{place}?mode=ro", uri=True, timeout=60)) as database:
            asked = "SELECT subject, seed, json_extract(result, '$.scores.miou') FROM quality ORDER BY subject, seed"
            return database.execute(asked).fetchall()

    process = started(path, store)
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if len(trained()) > 2:  # beside the two floors
                break
        except sqlite3.OperationalError:
            pass
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert 2 < len(trained()) < 8
    status, _, err = done(path, store)
    assert status == 0, err
    assert "Resuming run 1" in err
    assert trained() == trained(finished[0])


def test_a_run_on_masks_that_were_corrected_since_is_another_run(tmp_path, fresh_registry):
    """Each of these runs is cut off before anything is measured, which leaves it to be resumed."""
    path, store = made(tmp_path), tmp_path / "store.sqlite"

    class CutOffError(Exception):
        pass

    def cut_off(limits, preload):
        raise CutOffError

    def number_of_runs():
        with closing(Store(store)) as opened, ConsoleWatcher() as watcher, pytest.raises(CutOffError):
            run_sweep(load_config(path), opened, watcher, cut_off)
        with closing(Store(store)) as opened:
            return len(opened.runs())

    assert [number_of_runs(), number_of_runs()] == [1, 1]
    mask = tmp_path / "squares/train/masks/0.png"
    Image.fromarray(1 - np.asarray(Image.open(mask))).save(mask)
    assert number_of_runs() == 2


def test_a_training_whose_data_have_changed_since_the_run_began_fails(tmp_path, fresh_registry):
    config = load_config(made(tmp_path))
    load_plugin_file(tmp_path / "tiny.py")
    trial = next(trial for trial in make_trials(config) if trial.role == "candidate")
    job = Job(kind="train", device="cpu", trials=(trial,), quality=config.quality, data="of other data")
    (message,) = [each for each in job.messages() if not isinstance(each, Activity)]
    assert isinstance(message, Failure)
    assert "squares has changed since the run began" in message.error


@pytest.mark.slow
def test_the_command_line_measures_quality_of_any_configuration(tmp_path):
    path = made(tmp_path, batch=[1], pairings=[{"encoder": "tiny", "decoder": "as-it-is"}])
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain.pop("quality")
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    store = tmp_path / "store.sqlite"
    arguments = ("--quality", str(tmp_path / "squares"), "--budget", "0.01 min", "--seeds", "1")
    status, out, err = done(path, store, *arguments, "--format", "json")
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert [len(row["trainings"]) for row in rows] == [1, 1]
    assert all(row["trainings"][0]["steps"] > 1 for row in rows)
    assert all(row["quality_difference_low"] is None for row in rows)
    with closing(Store(store)) as opened:
        told = document(table_of(opened, 1)).render("table").replace("\n", " ")
    assert "0.01 min of training each" in told
    assert "(1 seed)" in told


@pytest.mark.slow
def test_a_decoder_of_this_process_alone_is_trained_in_it(tmp_path, fresh_registry):
    from torch import nn

    @zoo.register_decoder("own")
    class Own(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return features[0]

    path = made(tmp_path, batch=[1], pairings=[{"encoder": "tiny", "decoder": "own"}])
    table = zoo.bench(path, store=tmp_path / "store.sqlite")
    assert named(table, "own")[0].quality.seeds == (0, 1)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"classes": 5}, "classes is 5, but squares has 2. Leave classes out"),
        ({"in_channels": 1}, "in_channels is 1, but squares has 3"),
        ({"quality": {"data": "nowhere"}}, "nowhere is not a folder, a task or a data set of torchvision"),
        ({"quality": {"data": "squares", "budget": 0}}, "a number of steps, such as 300, or of minutes"),
        ({"quality": {"data": "squares", "budget": "2 hours"}}, "a number of steps, such as 300, or of minutes"),
        ({"quality": {"data": "squares", "epochs": 3}}, "has no key epochs; set quality.budget"),
        ({"quality": {"data": "squares", "learning_rat": 1.0}}, "Did you mean 'learning_rate'"),
        ({"quality": {"budget": 3}}, "quality.data: this key is required"),
        ({"quality": {"data": {"source": "squares", "clases": ["a"]}}}, "Did you mean 'classes'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_measured(tmp_path, fresh_registry, changes, told):
    path = made(tmp_path, **changes)
    with pytest.raises(zoo.ZooError) as raised:
        zoo.bench(path, store=tmp_path / "store.sqlite")
    assert told in str(raised.value)
    with closing(Store(tmp_path / "store.sqlite")) as store:
        assert store.runs() == []


def test_broken_data_is_named_before_anything_is_measured(tmp_path, fresh_registry):
    path = made(tmp_path)
    broken = tmp_path / "squares" / "train" / "images" / "3.png"
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(zoo.errors.DataError, match=r"3\.png"):
        zoo.bench(path, store=tmp_path / "store.sqlite")


def test_a_budget_without_data_is_told(tmp_path, command_line):
    path = made(tmp_path)
    plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    plain.pop("quality")
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    status, _, stderr = command_line("bench", path, "--store", tmp_path / "store.sqlite", "--budget", "300")
    assert status
    assert "--quality TASK" in stderr


def test_few_seeds_tell_little():
    difference = estimate_difference([0.01, 0.02, 0.03])
    assert difference.mean == pytest.approx(0.02)
    assert difference.high - difference.mean == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-4)
    assert difference.is_tie
    assert not estimate_difference([0.20, 0.21, 0.22]).is_tie
    assert estimate_difference([0.5]).is_tie  # one seed tells nothing
    assert not estimate_difference([-0.20, -0.21, -0.22]).is_tie
    assert estimate_difference([0.008, 0.0081, 0.0082]).is_tie  # too small to matter


def test_a_quality_is_told_with_its_spread():
    assert quality(0.8, 0.9).format() == "0.850 ±0.071"
    assert quality(0.8).format() == "0.800 (1 seed)"


def test_a_configurations_quality_is_the_same_after_a_store_had_it():
    config = BenchConfig(**{**RUN, "quality": {"data": {"source": "x", "colors": [[0, 0, 0], [9, 9, 9]]}, "size": [32, 48]}})
    assert BenchConfig.model_validate(config.model_dump(mode="json")).quality == config.quality


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore")
def test_quality_is_measured_on_a_gpu(tmp_path):
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    path, store = made(tmp_path, device="cuda", batch=[1]), tmp_path / "store.sqlite"
    status, _, err = done(path, store)
    assert status == 0, err
    with closing(Store(store)) as opened:
        found = table_of(opened, 1)
    assert [row.device for row in found.rows] == ["cuda"] * 3
    assert named(found, "as-it-is")[0].miou > 0.7


def test_the_report_says_what_was_trained_and_what_is_to_be_beaten(table):
    from zoo.benchmark.report.page import render_page

    page = render_page(table, plotly="")
    assert "squares, 40 steps of batch 4, 2 seeds" in page
    assert all(f"{floor.name} {floor.miou:.3f}" in page for floor in table.floors)


def test_a_run_that_is_still_training_says_how_often_it_has(finished, tmp_path, command_line):
    import shutil

    copied = tmp_path / "store.sqlite"
    shutil.copy(finished[0], copied)
    with closing(sqlite3.connect(copied)) as database, database:
        database.execute("UPDATE run SET finished = NULL")
        database.execute("DELETE FROM quality WHERE seed = 1")
    status, stdout, _ = command_line("runs", "--store", copied)
    assert status == 0
    assert "all rounds, 3 trainings" in " ".join(stdout.split())


def test_the_settings_of_training_are_those_of_quality():
    options = {
        "loss": {"focal": 1, "dice": 0.5},
        "class_weights": "auto",
        "trainer": {"accumulate_grad_batches": 2},
        "callbacks": ["lightning.pytorch.callbacks.EMAWeightAveraging"],
    }
    entry = QualityEntry(data="texture-mosaic", **options)
    settings = entry.settings(steps=5, seed=3, device="cpu")
    assert (settings.loss, settings.class_weights, settings.accumulation) == (options["loss"], "auto", 2)
    assert [each.class_path for each in settings.callbacks] == options["callbacks"]
    with pytest.raises(ValidationError, match="has no key init_from"):
        QualityEntry(data="texture-mosaic", init_from="model")


def test_a_stop_beyond_the_budget_is_an_error():
    entry = QualityEntry.model_validate({"data": {"source": "hela"}, "stop_after": 101})
    with pytest.raises(zoo.errors.ConfigError, match="stop_after is 101, but the budget is 100 steps"):
        entry.with_budget()

"""A search estimates all pairings, measures the promising ones, trains candidates, and goes on after an interruption."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import table_of
from zoo.search import search as search_module
from zoo.search import stage_runner, stages
from zoo.search.stage_runner import StageRunner

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.filterwarnings("ignore::DeprecationWarning")]

ENCODERS = ("resnet18", "timm:test_resnet", "timm:test_convnext")
PAIRINGS = {"encoders": ENCODERS, "decoders": ("unet-basic", "unet-bilinear"), "size": 32, "device": "cpu"}
NO_LIMITS = {"decoders": ("unet-basic",)}


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    """Measure no pairing in more rounds than needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_runner, "FINAL_ROUNDS", 20)
        patch.setattr(stages, "SEEDS", 2)
        yield


@pytest.fixture
def place(calibrated, tmp_path, monkeypatch):
    """A folder with a store of its own, and with a file for the counts."""
    shutil.copy(calibrated, tmp_path / "zoo.sqlite")
    monkeypatch.setattr(search_module, "default_cache", lambda: tmp_path / "counts.sqlite")
    return tmp_path


@pytest.fixture(scope="module")
def finished(calibrated, tmp_path_factory):
    """A folder with a finished search, and its result."""
    place = tmp_path_factory.mktemp("finished")
    shutil.copy(calibrated, place / "zoo.sqlite")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_module, "default_cache", lambda: place / "counts.sqlite")
        return place, search(place, max_latency="1s", max_parameters="5M")


@pytest.fixture
def images(tmp_path):
    """A folder of images of noise, in which bright pixels are one class."""
    draw = np.random.default_rng(0)
    for part, count in (("train", 6), ("validation", 3), ("test", 3)):
        for name in ("images", "masks"):
            (tmp_path / "data" / part / name).mkdir(parents=True)
        for index in range(count):
            coarse = draw.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            image = np.kron(coarse, np.ones((8, 8, 1), dtype=np.uint8))
            Image.fromarray(image).save(tmp_path / "data" / part / "images" / f"{index}.png")
            Image.fromarray((image[..., 0] > 127).astype(np.uint8)).save(tmp_path / "data" / part / "masks" / f"{index}.png")
    return tmp_path / "data"


def search(place, **changes):
    options = {"output": place / "search", "store": place / "zoo.sqlite", "minutes": 5, **PAIRINGS, **changes}
    return zoo.search_pairings(**options)


def select(place, query):
    with closing(sqlite3.connect(place / "zoo.sqlite")) as database:
        return database.execute(query).fetchall()


def test_the_answer_has_measured_pairings_within_the_limits_and_the_code_of_the_best(finished):
    _, result = finished
    assert result.rows
    assert all(row.latency.high <= 1 and row.parameters <= 5e6 for row in result.rows)
    assert all(row.rounds >= 20 and row.peak_bytes for row in result.rows)
    assert [row.flops for row in result.rows] == sorted((row.flops for row in result.rows), reverse=True)
    assert result.considered["total"] == 6
    assert result.considered["dropped"] == {"they exceed --max-parameters": 2}  # both pairings of resnet18
    text = str(result)
    assert result.best.code in text
    assert "6 pairings were considered. 4 of them may meet the limits" in text
    assert "Quality was not measured" in text
    assert "resnet18 x" not in text


def test_a_pairing_unlike_all_timed_ones_is_measured_and_the_answer_says_that_its_time_was_guessed(place, finished):
    result = search(place, encoders=("timm:test_resnet",), decoders=("unet-basic",), size=256)
    assert [row.name for row in result.rows] == ["timm:test_resnet x unet-basic"]
    said = "Unlike all pairings that the calibration timed: 1 candidate."
    assert said in " ".join(str(result).split())
    assert "Unlike all" not in str(finished[1])


def test_the_pairings_that_are_measured_precisely_are_the_fastest_for_their_flops(finished):
    place, result = finished
    with closing(Store(place / "zoo.sqlite")) as store:
        runs = [table_of(store, run.id).rows for run in store.runs()[1:-1]]
    rough = {row.name: row for rows in runs for row in rows if row.latency and row.parameters <= 5e6}
    final = [rough[row.name] for row in result.table.rows]
    for row in rough.values():
        assert any(each.flops >= row.flops and each.latency.median <= row.latency.median for each in final)


def test_the_same_search_again_shows_the_same_answer_and_measures_nothing(finished, capsys):
    place, result = finished
    runs = select(place, "SELECT count(*) FROM run")
    capsys.readouterr()
    assert str(search(place, minutes=9, max_latency="1s", max_parameters="5M")) == str(result)
    assert "is finished, and its answer is shown" in " ".join(capsys.readouterr().err.split())
    assert select(place, "SELECT count(*) FROM run") == runs


@pytest.mark.parametrize("passes", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_an_interrupted_search_goes_on_and_measures_nothing_twice(place, monkeypatch, passes):
    run_passes, done = StageRunner._run_passes, []

    def interrupt(self, stage, session):
        if len(done) == passes:
            done.append("interrupted")
            raise KeyboardInterrupt
        done.append(stage.kind)
        run_passes(self, stage, session)

    monkeypatch.setattr(StageRunner, "_run_passes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(place, **NO_LIMITS)
    result = search(place, **NO_LIMITS)
    assert result.rows
    assert done == (["interrupted", "measure", "final"] if passes == 0 else ["measure", "interrupted", "final"])
    assert select(place, "SELECT count(*) - count(finished) FROM run") == [(0,)]
    twice = "SELECT run, trial, round FROM sample GROUP BY run, trial, round HAVING count(*) > 1"
    assert select(place, twice) == []


@pytest.mark.slow
def test_a_prior_ranks_the_pairings_and_leaves_out_encoders_without_a_score(place, capsys):
    (place / "prior.csv").write_text("timm:test_resnet,70\ntimm:test_convnext,60\nnothing,1\n", encoding="utf-8")
    result = search(place, prior=place / "prior.csv")
    assert "these ids are not used, since each names no encoder or several: nothing" in " ".join(
        capsys.readouterr().err.split()
    )
    assert result.best.encoder == "timm:test_resnet"
    assert {row.encoder for row in result.rows} <= {"timm:test_resnet", "timm:test_convnext"}
    assert result.considered["dropped"] == {"their encoders have no prior score": 2}
    assert "best prior score" in str(result)


def test_with_data_the_best_is_trained_to_the_end_and_saved(place, images):
    result = search(place, data=images, weights="random", steps=9, **NO_LIMITS)
    assert result.considered["candidates"] == 3
    assert result.trained == ((3, 3), (9, 1))
    assert all(row.quality.seeds == (0, 1) for row in result.rows)
    model = zoo.load(result.model)
    assert (model.pairing.encoder, model.pairing.decoder) == (result.best.encoder, result.best.decoder)
    assert not (place / "search/training").exists()
    assert "3 for 3 steps, 1 for 9 steps" in str(result)


@pytest.mark.slow
def test_training_that_was_interrupted_goes_on_where_it_stopped(place, images, monkeypatch):
    options = {"data": images, "weights": "random", "steps": 9, **NO_LIMITS}
    whole = search(place, output=place / "whole", **options)
    run_passes = StageRunner._run_passes

    def interrupt(self, stage, session):
        run_passes(self, stage, session)
        if stage.kind == "train":
            monkeypatch.setattr(StageRunner, "_run_passes", run_passes)
            raise KeyboardInterrupt

    monkeypatch.setattr(StageRunner, "_run_passes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        search(place, **options)
    result = search(place, **options)
    assert result.trained == ((3, 3), (9, 1))
    common = result.validation.keys() & whole.validation.keys()
    assert {key: result.validation[key] for key in common} == {key: whole.validation[key] for key in common}


@pytest.mark.slow
def test_five_kills_at_random_moments_lose_nothing_and_do_nothing_twice(place, images):
    script = """
import sys
from zoo.search import cost_model, search, stage_runner
cost_model.MIN_MODELS, cost_model.FOLDS, stage_runner.FINAL_ROUNDS = 6, 3, 20
search.default_cache = lambda: __import__("pathlib").Path("counts.sqlite")
from zoo.cli import main
main()
"""
    encoders = [word for encoder in ENCODERS for word in ("--encoders", encoder)]
    command = [sys.executable, "-c", script, "search", "--data", images, *encoders, "--decoders", "unet-basic"]
    options = ["--weights", "random", "--steps", "60", "--minutes", "30", "--device", "cpu", "--store", "zoo.sqlite"]
    moments, kills = random.Random(1), 0
    while kills < 5:
        process = subprocess.Popen(
            list(map(str, [*command, *options])),
            cwd=place,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            process.communicate(timeout=moments.uniform(8, 20))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=60)
            kills += 1
    assert kills >= 3, "the search ended too early"
    done = subprocess.run(
        list(map(str, [*command, *options])),
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "3 for 20 steps, 1 for 60 steps" in " ".join(done.stdout.split())
    assert select(place, "SELECT count(*) - count(finished) FROM run") == [(0,)]
    assert select(place, "SELECT count(*) FROM run") == [(4,)]  # the calibration, and three stages
    twice = "SELECT run, trial, round FROM sample GROUP BY run, trial, round HAVING count(*) > 1"
    assert select(place, twice) == []
    assert select(place, "SELECT count(*) FROM quality WHERE failure IS NOT NULL") == [(0,)]
    (model,) = place.glob("search-*/model")
    assert zoo.load(model).pairing.decoder == "unet-basic"


def test_encoders_whose_weights_are_not_on_this_machine_are_left_out_and_the_error_says_so(place, images):
    words = "2 were dropped because their pretrained weights are not on this machine"
    with pytest.raises(zoo.errors.OptionError, match=words):
        search(place, data=images, encoders=("timm:test_byobnet",))


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"max_latency": "1us"}, "OptionError", r"exceed --max-latency.* The nearest to --max-latency is .*, with at least"),
        ({"max_memory": "1kB"}, "OptionError", "The nearest to --max-memory is"),
        ({"license": "Zlib"}, "OptionError", "6 were dropped because their licenses are not Zlib"),
        ({"encoders": ("timm:none*",)}, "UnknownIdError", "No encoder matches"),
        ({"decoders": ("none*",)}, "UnknownIdError", "No decoder matches"),
        ({"data": "nothing-like-it"}, "ZooError", "nothing-like-it"),
        ({"minutes": -1}, "OptionError", "--minutes must be"),
    ],
)
def test_wrong_requests_are_errors_and_measure_nothing(place, changes, error, words):
    with pytest.raises(getattr(zoo.errors, error), match=words):
        search(place, **changes)
    assert not (place / "search").exists()
    assert select(place, "SELECT count(*) FROM run") == [(1,)]


def test_an_empty_folder_of_data_is_an_error(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(zoo.errors.ZooError, match="empty"):
        search(place, data=tmp_path / "empty")


def test_a_device_without_a_calibration_is_an_error(place):
    with closing(sqlite3.connect(place / "zoo.sqlite")) as database, database:
        database.execute("UPDATE run SET name = 'another'")
    with pytest.raises(
        zoo.errors.StoreError, match=r"has no calibration of .*Run `zoo calibrate --device cpu --store .*zoo.sqlite`"
    ):
        search(place)
    assert not (place / "search").exists()


def test_a_store_that_does_not_exist_is_an_error_that_names_the_command_to_create_it(tmp_path):
    with pytest.raises(zoo.errors.StoreError, match=r"`zoo calibrate --device cpu --store .*creates it, with a calibration"):
        search(tmp_path)
    assert not list(tmp_path.iterdir())


def test_if_the_best_trained_pairing_misses_a_limit_it_is_saved_and_the_answer_says_so(place, images, monkeypatch):
    monkeypatch.setattr(search_module, "filter_rows", lambda rows, limits: [])  # as if the precise times exceeded the limit
    result = search(place, data=images, weights="random", steps=3, max_latency="2s", encoders=ENCODERS[1:2], **NO_LIMITS)
    assert result.best is None
    assert zoo.load(result.model).pairing.encoder == ENCODERS[1]
    assert "None of the precisely measured pairings meets all limits" in str(result)
    assert "trained, but misses a limit" in str(result)


def test_a_folder_of_another_search_or_of_other_files_is_refused(finished, tmp_path):
    place = tmp_path / "place"
    shutil.copytree(finished[0], place)
    with pytest.raises(zoo.errors.ConfigError, match="a search with other settings, which differ in batch"):
        search(place, batch=2)
    (place / "mine").mkdir()
    (place / "mine/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match="is not empty, but does not contain a search"):
        search(place, output=place / "mine")
    (place / "search/search.json").write_text("{", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match="is damaged"):
        search(place)


def test_the_command_prints_the_answer(finished, command_line):
    place, result = finished
    options = ["--size", "32", "--device", "cpu", "--minutes", "5", "--max-latency", "1s", "--max-parameters", "5M"]
    options += [word for encoder in ENCODERS for word in ("--encoders", encoder)]
    options += ["--decoders", "unet-basic", "--decoders", "unet-bilinear"]
    options += ["--output", place / "search", "--store", place / "zoo.sqlite"]
    status, out, err = command_line("search", *options)
    assert status == 0
    assert "is finished, and its answer is shown" in " ".join(err.split())
    assert result.best.code in out
    status, out, _ = command_line("search", *options, "--format", "json")
    facts = json.loads(out)
    assert facts["considered"]["total"] == 6
    assert [pick["pairing"] for pick in facts["pairings"]] == [row.name for row in result.rows]
    assert "most FLOPs" in facts["pairings"][0]["remark"]
    assert facts["pairings"][0]["score"] == result.best.flops
    assert (facts["model"], facts["folder"]) == (None, str(place / "search"))

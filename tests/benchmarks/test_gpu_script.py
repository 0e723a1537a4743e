"""`benchmarks/gpu.sh`: parts with time limits, kept as they are done; it works where there is no accelerator too."""

import importlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from zoo.benchmark.config import load_config
from zoo.benchmark.trial import make_trials

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/gpu.sh"
MOST_FILES = 8
CONFIGS = sorted((ROOT / "configs").glob("gpu-*.yaml"))


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return importlib.import_module("gpu")


@pytest.fixture
def call(gpu, tmp_path):
    """Return a function that does parts in one call, and gives the folder's outcomes."""

    def do(*parts, seconds=60.0):
        results = gpu.Results(tmp_path / "results")
        scratch = tmp_path / "scratch"
        scratch.mkdir(exist_ok=True)
        gpu.Call(results, deadline=time.monotonic() + seconds, is_tiny=False, scratch=scratch).run(parts)
        return json.loads((tmp_path / "results/parts.json").read_text(encoding="utf-8"))

    return do


def part_of(gpu, *steps, **facts):
    return gpu.Part(**{"name": "part", "seconds": 60, "steps": steps, **facts})


def step_of(gpu, code, name="step", seconds=30):
    return gpu.Step(name=name, seconds=seconds, arguments=("-c", code))


@pytest.mark.slow
def test_all_parts_are_done_on_the_cpu_with_tiny_settings_and_a_kill_in_between_and_none_twice(tmp_path):
    """The environment's own packages stand for the bare machine's; the folder of wheels has nothing to add."""
    results, wheels = tmp_path / "results", tmp_path / "wheels"
    wheels.mkdir()
    command = ["bash", SCRIPT, "--tiny", "--wheels", wheels, "--results", results, "--python", sys.executable]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith("-- deployed and compiled: deployed"):
                break
        time.sleep(6)  # the run has begun by now
        os.kill(process.pid, signal.SIGKILL)
    first = json.loads((results / "parts.json").read_text(encoding="utf-8"))
    assert list(first) == ["smoke", "table"]
    assert len(list(results.iterdir())) <= MOST_FILES
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    second = json.loads((results / "parts.json").read_text(encoding="utf-8"))
    assert {part: second[part] for part in first} == first
    assert {step["outcome"] for steps in second.values() for step in steps.values()} == {"done"}
    assert len(list(results.iterdir())) <= MOST_FILES
    with closing(sqlite3.connect(results / "zoo.sqlite")) as store:
        runs = store.execute("SELECT name, finished IS NOT NULL FROM run").fetchall()
        samples = store.execute("SELECT count(*) FROM sample GROUP BY run, trial").fetchall()
    names = [yaml.safe_load(config.read_text(encoding="utf-8"))["name"] for config in CONFIGS]
    assert sorted(runs) == sorted((name, 1) for name in names)
    assert set(samples) == {(20,)}
    parts = (results / "gpu-parts-cpu.md").read_text(encoding="utf-8")
    assert "| smoke | every function once | done |" in parts
    assert "| cudagraphs | skipped: requires a CUDA device |" in parts
    tables = (results / "pairings-cpu.md").read_text(encoding="utf-8")
    assert [name for name in names if f"**{name}: " not in tables] == []


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
@pytest.mark.parametrize("has_gpu", [True, False])
def test_each_configuration_is_valid_and_measures_what_the_machine_has(gpu, tmp_path, config, has_gpu):
    target = tmp_path / "run.yaml"
    gpu.write_config(config, target, is_tiny=False, has_gpu=has_gpu)
    trials = make_trials(load_config(target))
    assert trials[0].role == "baseline"
    assert has_gpu or not any("cudagraphs" in trial.runtime for trial in trials)


def test_the_table_has_what_was_promised(gpu):
    trials = make_trials(load_config(ROOT / "configs/gpu-table.yaml"))
    candidates = {str(trial) for trial in trials if trial.role == "candidate" and trial.runtime == "eager"}
    assert candidates == {f"resnet18 x unet-{kind}" for kind in ("basic", "bilinear", "attention")}
    for fact, values in {
        "mode": {"inference", "training"},
        "batch": {1, 8},
        "height": {256, 512},
        "dtype": {"float32", "bfloat16"},
        "runtime": {"eager", "cudagraphs"},
    }.items():
        assert {getattr(trial, fact) for trial in trials} == values


def test_a_step_that_fails_is_kept_and_ends_nothing_and_is_done_again_only_when_its_part_is_named(gpu, call, tmp_path):
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    part = part_of(gpu, step_of(gpu, f"{count}; raise OSError('no such kernel')", "bad"), step_of(gpu, "print('good')", "good"))
    found = call(part)["part"]
    assert (found["bad"]["outcome"], found["good"]["outcome"]) == ("failed", "done")
    assert "OSError: no such kernel" in found["bad"]["printed"][-1]
    call(part)
    assert (tmp_path / "count").read_text() == "x"
    gpu.Results(tmp_path / "results").forget_failures("part")
    call(part)
    assert (tmp_path / "count").read_text() == "xx"


def test_a_step_beyond_its_own_limit_has_failed_and_one_that_the_calls_end_cut_off_goes_on_later(gpu, call, monkeypatch):
    sleeps = "import time; time.sleep(60)"
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.5)  # what is started in the background ignores an interrupt
    assert call(part_of(gpu, step_of(gpu, sleeps, seconds=1)))["part"]["step"]["outcome"] == "failed"
    cut = part_of(gpu, step_of(gpu, sleeps, seconds=100), name="cut", seconds=100)
    monkeypatch.setattr(gpu, "LEAST_SECONDS", 1)
    assert call(cut, seconds=3)["cut"]["step"]["outcome"] == "cut off"
    again = part_of(gpu, step_of(gpu, "print('at last')", seconds=100), name="cut", seconds=100)
    assert call(again)["cut"]["step"]["outcome"] == "done"


def test_a_part_whose_packages_are_missing_is_left_out_and_says_which(gpu, call, capsys):
    part = part_of(gpu, step_of(gpu, "print(1)"), needs={"no_such_module": "no-such-distribution"})
    call(part, part_of(gpu, step_of(gpu, "print(2)"), name="other"))
    assert "part: left out, because no-such-distribution is neither installed nor among the wheels" in capsys.readouterr().out


def test_what_is_printed_says_how_long_a_part_took_and_what_is_left(gpu, call, capsys):
    call(part_of(gpu, step_of(gpu, "print('forty-two')")), part_of(gpu, step_of(gpu, "print(2)"), name="other"))
    lines = capsys.readouterr().out.splitlines()
    assert "done in 0 s; forty-two" in lines[1]
    assert lines[2].startswith("== part: 1 done in 0 s (limit 60 s). ")
    assert lines[2].endswith("s left for: other.")


def test_the_script_says_how_to_make_the_folder_of_wheels_when_there_is_none(tmp_path):
    done = subprocess.run([SCRIPT, "--wheels", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "make wheels" in done.stderr


def test_the_script_refuses_an_unknown_argument_and_names_those_it_takes():
    done = subprocess.run([SCRIPT, "--fast", "yes"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--wheels DIR" in done.stderr


def test_an_unknown_part_is_refused_with_those_that_there_are(tmp_path):
    command = [sys.executable, ROOT / "benchmarks/gpu.py", "--results", tmp_path / "results", "--parts", "speed"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown part: 'speed'. The parts are: smoke, table," in done.stderr
    assert not (tmp_path / "results").exists()

"""`zoo bench --ray`: the same rows from a real Ray cluster of two nodes, whatever fails, hangs, or is killed there."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing, suppress
from dataclasses import replace
from textwrap import dedent

import psutil
import pytest

from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.running.ray.connect import ray_executor
from zoo.benchmark.running.ray.placement import divide_resources, find_differences, fit_job, split_job
from zoo.benchmark.trial import Reference, Trial, digest
from zoo.errors import ZooError

ROUNDS, LONG = 20, 150
PLUGIN = """
    import os
    import signal
    import time

    from torch import nn

    import zoo

    class Finest(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            if features[0].device.type == "cpu":
                self.misbehave()
            return features[0]

    @zoo.register_decoder("raises")
    class Raises(Finest):
        def misbehave(self):
            raise ValueError("no way forward")

    @zoo.register_decoder("hangs")
    class Hangs(Finest):
        def misbehave(self):
            time.sleep(600)

    @zoo.register_decoder("trains-never")
    class TrainsNever(Finest):
        def misbehave(self):
            if self.training:
                raise ValueError("no way forward")

    @zoo.register_decoder("dies")
    class Dies(Finest):
        def misbehave(self):
            os.kill(os.getpid(), signal.SIGKILL)
"""
SHARED = """
baseline: {name: conv, factory: "torch.nn:Conv2d", options: {in_channels: 3, out_channels: 1, kernel_size: 1}}
size: [64]
device: cpu
"""
MIXED = f"""
name: mixed
plugins: [plugin.py]
pairings:
  - {{encoder: resnet18, decoder: unet-basic, levels: 2}}
  - {{encoder: resnet18, decoder: unet-bilinear, levels: 2}}
  - {{encoder: resnet18, decoder: raises, levels: 2}}
  - {{encoder: resnet18, decoder: hangs, levels: 2}}
  - {{encoder: resnet18, decoder: dies, levels: 2}}
modes: [inference]
batch: [1, 2]
exclude: [{{decoder: [hangs, dies], batch: 2}}]
step_limit: 30
rounds: {ROUNDS}
{SHARED}
"""
PLAIN = f"""
name: plain
pairings:
  - {{encoder: resnet18, decoder: unet-basic, levels: 2}}
  - {{encoder: resnet18, decoder: unet-bilinear, levels: 2}}
modes: [inference]
batch: [1, 2]
rounds: {LONG}
{SHARED}
"""
TRAINED = """
name: trained
plugins: [plugin.py]
pairings:
  - {encoder: resnet18, decoder: unet-basic, levels: 2}
  - {encoder: resnet18, decoder: trains-never, levels: 2}
baseline: {name: conv, factory: "torch.nn:Conv2d", options: {in_channels: 3, out_channels: 3, kernel_size: 1}}
modes: [inference]
size: [32]
device: cpu
rounds: 20
quality: {data: texture-mosaic, budget: 3, seeds: 2, batch: 2, size: 32}
"""
CLUSTER = """
    import sys

    from ray.cluster_utils import Cluster

    quick = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=small | {"include_dashboard": False, "_system_config": quick})
    nodes = [cluster.add_node(**small)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "kill":
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()
"""


def start_process(command, **environment):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(
        command, **pipes, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, preexec_fn=_heed_interrupts
    )


def _heed_interrupts():
    """Let an interrupt end the process, although a shell that runs the tests in the background has them ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start_bench(folder, config, ray=None, **environment):
    """Start a run of a configuration; return its process, and its store, which has a name of its own here and on Ray."""
    (folder / "plugin.py").write_text(dedent(PLUGIN), encoding="utf-8")
    (folder / "run.yaml").write_text(config, encoding="utf-8")
    store = folder / ("local.sqlite" if ray is None else "ray.sqlite")
    command = [sys.executable, "-m", "zoo", "bench", folder / "run.yaml", "--store", store]
    return start_process(command + (["--ray", ray] if ray else []), **environment), store


def finish(process):
    """Wait for a run's end, and return its status and its whole output, in one line."""
    out, err = process.communicate(timeout=300)
    return process.returncode, " ".join((out + err).split())


def select(store, query):
    try:
        with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True, timeout=60)) as database:
            return database.execute(query).fetchall()
    except sqlite3.OperationalError:  # not made yet
        return []


def wait_until(condition, process):
    deadline = time.monotonic() + 300
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()


def remaining(processes):
    """Return the processes that still run, after up to 20 s for them to end."""
    deadline = time.monotonic() + 20
    while processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    return processes()


class Cluster:
    """Two nodes of one CPU each, in processes of their own; `kill` ends the second as if its machine had lost power."""

    def __init__(self, folder):
        environment = {"RAY_TMPDIR": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        self.folder = str(folder)
        self.process = subprocess.Popen(
            [sys.executable, "-c", dedent(CLUSTER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | environment,
            text=True,
        )
        self.address = self.process.stdout.readline().strip()
        assert self.address

    def kill(self):
        self.process.stdin.write("kill\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == "done"

    def jobs(self):
        """Return the processes on its nodes that measure, or are about to."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if "zoo.common.child_worker" in process.cmdline() and process.environ().get("RAY_TMPDIR") == self.folder:
                    found.append(process)
        return found

    def close(self):
        self.process.communicate(timeout=60)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray")
    folder = tempfile.mkdtemp(prefix="zr", dir="/tmp")  # a socket's path may have a hundred characters, no more
    started = Cluster(folder)
    yield started
    started.close()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cluster")


@pytest.fixture(scope="module")
def mixed(cluster, folder):
    """The stores of one configuration with all that can go wrong, measured here and on the cluster, and the output there."""
    here, local = start_bench(folder, MIXED)
    assert finish(here)[0] == 0
    there, remote = start_bench(folder, MIXED, cluster.address)
    status, output = finish(there)
    assert status == 0, output
    return local, remote, output


def count_rounds(store):
    return select(
        store,
        "SELECT trial.key, count(round), count(DISTINCT round), min(round), max(round) FROM trial LEFT JOIN sample "
        "ON sample.run = trial.run AND sample.trial = trial.key GROUP BY trial.run, trial.key ORDER BY trial.key",
    )


@pytest.mark.slow
def test_every_row_of_the_cluster_is_a_row_of_the_local_run_with_as_many_rounds(mixed):
    local, remote, _ = mixed
    assert count_rounds(local) == count_rounds(remote)
    assert {tuple(counts) for _, *counts in count_rounds(remote)} == {(ROUNDS, ROUNDS, 0, ROUNDS - 1), (0, 0, None, None)}
    for query in (
        "SELECT key, position, facts, cost, cold_start IS NULL FROM trial ORDER BY key",
        "SELECT trial, round, slot FROM sample ORDER BY 1, 2",
        "SELECT number, trials, stopped FROM trial_group ORDER BY number",
    ):
        assert select(local, query) == select(remote, query)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("decoder", "failure", "error"),
    [
        ("raises", "error", "ValueError: no way forward"),
        ("hangs", "hang", "HangError: 'first call' did not end after 30 s (step_limit)."),
        ("dies", "crash", "CrashError: its process died of SIGKILL during 'first call'."),
    ],
)
def test_what_fails_on_the_cluster_fails_as_here(mixed, decoder, failure, error):
    asked = f"SELECT failure, error FROM trial WHERE json_extract(facts, '$.subject.decoder') = '{decoder}' ORDER BY key"
    local, remote = (select(store, asked) for store in mixed[:2])
    assert local == remote
    assert set(remote) == {(failure, error)}


@pytest.mark.slow
def test_both_nodes_measure_and_what_was_measured_has_its_place(mixed):
    _, remote, output = mixed
    assert output.count("1 at a time") == 2
    assert select(remote, "SELECT count(*) FROM trial_group") == [(2,)]
    assert select(remote, "SELECT count(DISTINCT environment), count(DISTINCT trial_group) FROM round") == [(1, 2)]
    assert select(remote, "SELECT count(DISTINCT dtype) FROM rate") == [(1,)]


@pytest.mark.slow
def test_what_is_trained_on_the_cluster_has_the_scores_of_a_local_run(cluster, tmp_path):
    asked = "SELECT subject, seed, json_extract(result, '$.scores.miou'), error FROM quality ORDER BY subject, seed"
    found = []
    for ray in (None, cluster.address):
        process, store = start_bench(tmp_path, TRAINED, ray)
        status, output = finish(process)
        assert status == 0, output
        found.append(select(store, asked))
    assert found[0] == found[1]
    assert len(found[0]) == 2 + 3 * 2  # the two floors, and three models with two seeds
    assert sum("ValueError: no way forward" in (error or "") for *_, error in found[0]) == 2


@pytest.mark.slow
def test_other_versions_are_reported_before_anything_is_measured(cluster, tmp_path):
    info = tmp_path / "site" / "zoo_extra-1.5.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zoo-extra\nVersion: 1.5\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[zoo]\nextra = zoo_extra\n", encoding="utf-8")
    path = os.pathsep.join([str(info.parent), os.environ.get("PYTHONPATH", "")])
    process, store = start_bench(tmp_path, PLAIN, cluster.address, PYTHONPATH=path)
    status, output = finish(process)
    assert status == 2
    assert "Traceback" not in output
    assert output.count("zoo-extra: 1.5 here, not installed there") == 2
    assert "Install the same versions there as here" in output
    assert select(store, "SELECT count(*) FROM trial WHERE cost IS NOT NULL OR cold_start IS NOT NULL") == [(0,)]


@pytest.mark.slow
def test_an_interrupt_and_a_lost_node_cost_nothing_that_was_measured(cluster, tmp_path):
    process, store = start_bench(tmp_path, PLAIN, cluster.address)
    wait_until(lambda: len(select(store, "SELECT * FROM round")) > 10, process)
    process.send_signal(signal.SIGINT)
    status, output = finish(process)
    assert status == 130, output
    assert "The measurements so far are kept" in output
    assert not remaining(cluster.jobs)
    everything = "SELECT rowid, * FROM sample ORDER BY rowid"
    before = select(store, everything)
    assert before

    process, _ = start_bench(tmp_path, PLAIN, cluster.address)
    begun = dict(select(store, "SELECT trial_group, count(*) FROM round GROUP BY trial_group"))
    added = "SELECT trial_group, count(*) FROM round GROUP BY trial_group"
    wait_until(lambda: sum(count > begun.get(group, 0) + 2 for group, count in select(store, added)) == 2, process)
    cluster.kill()
    status, output = finish(process)
    assert status == 0, output
    assert "Resuming run 1" in output
    assert "Lost during" in output

    assert not remaining(cluster.jobs)
    assert select(store, everything)[: len(before)] == before
    assert {tuple(counts) for _, *counts in count_rounds(store)} == {(LONG, LONG, 0, LONG - 1)}
    assert select(store, "SELECT count(*), count(finished) FROM run") == [(1, 1)]
    assert select(store, "SELECT failure FROM trial WHERE failure IS NOT NULL") == []
    assert select(store, "PRAGMA integrity_check") == [("ok",)]


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZooError, match=r"pip install 'segmentation-zoo\[ray\]'$"):
        ray_executor("auto")


@pytest.mark.slow
def test_an_address_at_which_no_cluster_answers_is_reported_at_once(tmp_path):
    pytest.importorskip("ray")
    status, output = finish(start_bench(tmp_path, PLAIN, "127.0.0.1:1")[0])
    assert status == 2
    assert "--ray 127.0.0.1:1 found no Ray cluster that can be used: [Errno 111] Connection refused" in output
    assert "ray start --head" in output


HERE = {"versions": {"segmentation-zoo": "0.1.0", "timm": "1.0.31", "torch": "2.9.1"}, "commit": "abc"}


@pytest.mark.parametrize(
    ("changed", "differences"),
    [
        ({}, []),
        ({"commit": ""}, []),
        ({"commit": "abd"}, ["segmentation-zoo's commit: abc here, abd there"]),
        ({"versions": HERE["versions"] | {"timm": "1.0.30"}}, ["timm: 1.0.31 here, 1.0.30 there"]),
        ({"versions": HERE["versions"] | {"zoo-more": "1.0"}}, ["zoo-more: not installed here, 1.0 there"]),
        (
            {"versions": {"segmentation-zoo": "0.1.0", "torch": "2.9.1+cpu"}},
            ["timm: 1.0.31 here, not installed there", "torch: 2.9.1 here, 2.9.1+cpu there"],
        ),
    ],
)
def test_what_is_installed_otherwise_is_named_with_both_versions(changed, differences):
    assert find_differences(HERE, HERE | changed) == differences


@pytest.mark.parametrize(
    ("resources", "device", "shares"),
    [
        ({"CPU": 16.0}, "cpu", [{"num_cpus": 16, "num_gpus": 0}]),
        ({"CPU": 16.0, "GPU": 4.0}, "cpu", [{"num_cpus": 16, "num_gpus": 0}]),
        ({"CPU": 16.0, "GPU": 4.0}, "cuda", 4 * [{"num_cpus": 4, "num_gpus": 1}]),
        ({"CPU": 2.0, "GPU": 4.0}, "cuda", 4 * [{"num_cpus": 0, "num_gpus": 1}]),
        ({"CPU": 16.0}, "cuda", []),
        ({"memory": 1.0}, "cpu", []),
    ],
)
def test_on_the_cpu_a_job_has_a_whole_machine_and_else_a_gpu_of_its_own(resources, device, shares):
    assert divide_resources(resources, device) == shares


def trial(**facts):
    subject = Reference(name="conv", factory="torch.nn:Conv2d", options={})
    shared = {
        "mode": "inference",
        "height": 8,
        "width": 8,
        "dtype": "float32",
        "input": "random",
        "classes": 1,
        "in_channels": 3,
    }
    return Trial(subject=subject, **shared, **facts)


ENVIRONMENT = {"threads": 6}
DONE = Job(
    kind="rounds",
    device="cuda:1",
    trials=(trial(batch=1),),
    group=3,
    taken={"a": [1.0]},
    first=1,
    spent=2.0,
    environment=digest(ENVIRONMENT),
)


def test_rounds_continue_where_they_were_measured_and_start_over_elsewhere():
    assert fit_job(DONE, ENVIRONMENT) == replace(DONE, device="cuda", threads=6)
    other = {"threads": 4}
    restarted = replace(DONE, device="cuda", threads=4, taken={}, first=0, spent=0.0, environment=digest(other), rates=True)
    assert fit_job(DONE, other) == restarted


def test_only_the_static_pass_is_divided_among_machines():
    job = Job(kind="count", device="cpu", trials=tuple(trial(batch=batch) for batch in range(1, 6)))
    parts = split_job(job, 2)
    assert [[each.batch for each in part.trials] for part in parts] == [[1, 3, 5], [2, 4]]
    assert len(split_job(job, 9)) == 5
    assert split_job(job, 1) == [job]
    assert split_job(replace(job, kind="rounds"), 2) == [replace(job, kind="rounds")]

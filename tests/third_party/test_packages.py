"""Whole distributions of other people, good and broken, installed by pip into an environment of their own."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LISTING = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks/listing.py")))

FINE = ["zoo_good", "zoo_slow_import"]
FINE_DECODERS = ["good:sum", "slow-import:late"]
REASONS = {
    "zoo_import_error": "No module named 'no_such_library_at_all'",
    "zoo_misspelt_hook": "zoo_decodrs",
    "zoo_clash": "it provides 'good:sum', but zoo-good 1.0 (module zoo_good) has a different spec for this id",
    "zoo_own_clash": "it provides 'unet:unet-basic', but segmentation-zoo",
    "zoo_half": "half of it is all there is",
    "zoo_no_hook": "the module zoo_no_hook implements no hook",
    "zoo_wrong_spec": "its hook must yield zoo.plugin.DecoderSpec entries, found 'my-decoder'",
    "zoo_from_the_future": "made for plugin API 99, but this version of zoo has 1; upgrade segmentation-zoo",
}
"""Each broken distribution, and what is told of it."""

CONFIG = """
name: third-party
encoders: [resnet18]
decoders: [unet-basic, "good:sum"]
modes: [inference]
size: [64]
device: cpu
rounds: 20
"""

BUILD = """
import torch, zoo
model = zoo.build("resnet18", "unet-basic", classes=3)
print(type(model.decoder).__module__, tuple(model.eval()(torch.rand(1, 3, 64, 96)).shape))
"""

IDS_IN_PROCESSES = """
import json
import multiprocessing

import torch

import zoo


class Ids(torch.utils.data.Dataset):
    def __len__(self):
        return 2

    def __getitem__(self, index):
        return ids(index)


def ids(_):
    return [*zoo.list_encoders(), *zoo.list_decoders()]


if __name__ == "__main__":
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        in_pool = pool.map(ids, range(2))
    loader = torch.utils.data.DataLoader(Ids(), batch_size=None, num_workers=2, multiprocessing_context="spawn")
    print(json.dumps({"parent": ids(0), "pool": in_pool, "workers": list(loader)}))
"""

LOADED = """
import json, sys, zoo
ids = zoo.list_decoders()
print(json.dumps({"ids": ids, "modules": sorted(sys.modules)}))
"""


class Environment:
    """A virtual environment that sees the packages of the one that runs the tests."""

    def __init__(self, folder):
        self.site = LISTING.site_of(folder)
        self.python = LISTING.make_environment(folder)

    def run(self, *arguments, cwd, **variables):
        """Run its interpreter; returns exit status, stdout and stderr."""
        environment = {**LISTING.environment(), "COLUMNS": "200", **variables}
        command = [self.python, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=500, check=False)

    def zoo(self, *arguments, cwd, **variables):
        """Run the command line in it."""
        return self.run("-m", "zoo", *arguments, cwd=cwd, **variables)

    def install(self, *folders, cwd):
        """Install source trees as a user does, from what is here alone."""
        done = self.run("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", *folders, cwd=cwd)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Return a function that makes an environment with some of the distributions that lie beside this file."""

    def made(*names):
        folder = tmp_path_factory.mktemp("environment")
        environment = Environment(folder)
        if names:
            environment.install(*(HERE / name for name in names), cwd=folder)
        return environment

    return made


@pytest.fixture(scope="module")
def bare(make):
    return make()


@pytest.fixture(scope="module")
def good(make):
    return make(*FINE)


@pytest.fixture(scope="module")
def mixed(make):
    """Every distribution, good and broken, but the one that takes zoo-good's id."""
    return make(*FINE, *(name for name in REASONS if name != "zoo_clash"))


@pytest.fixture(scope="module")
def crowded(make):
    return make(*FINE, *REASONS)


def lines(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def loaded(environment, cwd, **variables):
    done = environment.run("-c", LOADED, cwd=cwd, **variables)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found["ids"], found["modules"]


def test_broken_distributions_change_nothing_of_what_is_listed_and_are_hinted_at_on_stderr(bare, mixed, tmp_path):
    own = lines(bare.zoo("list", "decoders", cwd=tmp_path))
    done = mixed.zoo("list", "decoders", cwd=tmp_path)
    assert lines(done) == sorted([*own, *FINE_DECODERS])
    assert done.stderr == f"({len(REASONS) - 1} plugin(s) could not be loaded; `zoo plugins` says why.)\n"
    encoders = lines(bare.zoo("list", "encoders", cwd=tmp_path))
    assert lines(mixed.zoo("list", "encoders", cwd=tmp_path)) == sorted([*encoders, "good:steps"])


@pytest.mark.parametrize("which", ["bare", "mixed", "crowded"])
def test_the_projects_own_pairing_is_built_whatever_is_installed_beside_it(which, request, tmp_path):
    done = request.getfixturevalue(which).run("-W", "error", "-c", BUILD, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "zoo_unet.decoders (1, 3, 64, 96)\n"


def test_a_benchmark_runs_with_broken_distributions_beside_it(mixed, tmp_path):
    (tmp_path / "run.yaml").write_text(CONFIG, encoding="utf-8")
    done = mixed.zoo("bench", "run.yaml", "--format", "json", cwd=tmp_path)
    rows = json.loads("\n".join(lines(done)))["rows"]
    assert [(row["pairing"], row["error"]) for row in rows] == [("resnet18 x unet-basic", None), ("resnet18 x good:sum", None)]


def test_plugins_tells_of_each_distribution_what_is_wrong_with_it(crowded, tmp_path):
    done = crowded.zoo("plugins", cwd=tmp_path)
    told = lines(done)
    prose = " ".join(done.stdout.split())
    for name, reason in REASONS.items():
        assert any(name.replace("_", "-") in line and "failed" in line for line in told), name
        (error,) = re.findall(rf"module {name}\) raised (.*?)(?:Repair or uninstall|Uninstall )", prose)
        assert reason in error
    own = [line for line in told if "segmentation-zoo" in line and "raised" not in line]  # errors may name it, too
    assert own
    assert all("ok" in line for line in own)
    assert any("zoo-slow-import" in line and "ok" in line for line in told)
    assert "Traceback" not in done.stderr


def test_plugins_check_exits_with_status_1_for_each_broken_distribution_and_0_without(good, crowded, tmp_path):
    assert good.zoo("plugins", "--check", cwd=tmp_path).returncode == 0
    assert crowded.zoo("plugins", "--check", cwd=tmp_path).returncode == 1
    broken = [name for name in REASONS if name != "zoo_clash"]
    for name in broken:
        one = {"ZOO_PLUGINS": name.replace("_", "-")}
        assert crowded.zoo("plugins", "--check", cwd=tmp_path, **one).returncode == 1, name
    assert crowded.zoo("plugins", "--check", cwd=tmp_path, ZOO_PLUGINS="").returncode == 0


def test_of_two_distributions_with_one_id_neither_is_taken_until_one_is_switched_off(crowded, tmp_path):
    assert "good:sum" not in lines(crowded.zoo("list", "decoders", cwd=tmp_path))
    done = crowded.zoo("explain", "resnet18", "good:sum", cwd=tmp_path)
    assert done.returncode == 2
    assert "zoo-good" in done.stderr
    assert "zoo-clash" in done.stderr
    for off, left in (("zoo-clash", "zoo_good"), ("zoo-good", "zoo_clash")):
        ids, modules = loaded(crowded, tmp_path, ZOO_DISABLE_PLUGINS=off)
        assert "good:sum" in ids
        assert left in modules


@pytest.mark.parametrize(
    ("id", "off", "owner"), [("good:sum", "zoo-clash", "zoo-good 1.0"), ("unet:unet-basic", "", "segmentation-zoo")]
)
def test_show_finds_a_decoder_whose_plugin_has_an_unusable_namesake(crowded, tmp_path, id, off, owner):
    shown = lines(crowded.zoo("show", id, cwd=tmp_path, ZOO_DISABLE_PLUGINS=off))
    assert any(owner in line for line in shown)


def test_the_allow_list_acts_before_anything_foreign_is_imported(crowded, bare, tmp_path):
    own, _ = loaded(bare, tmp_path)
    foreign = {*FINE, *REASONS}
    ids, modules = loaded(crowded, tmp_path, ZOO_PLUGINS="")
    assert (ids, foreign & set(modules)) == (own, set())
    ids, modules = loaded(crowded, tmp_path, ZOO_PLUGINS="zoo-good")
    assert (ids, foreign & set(modules)) == (sorted([*own, "good:sum"]), {"zoo_good"})
    ids, modules = loaded(crowded, tmp_path, ZOO_PLUGINS="zoo-good,slow-import")
    assert (ids, foreign & set(modules)) == (sorted([*own, *FINE_DECODERS]), set(FINE))


def test_what_is_switched_off_is_not_imported_and_shown_as_such(good, bare, tmp_path):
    own, _ = loaded(bare, tmp_path)
    ids, modules = loaded(good, tmp_path)
    assert (ids, "zoo_slow_import" in modules) == (sorted([*own, *FINE_DECODERS]), True)
    for name in ("slow-import", "zoo-slow-import"):
        ids, modules = loaded(good, tmp_path, ZOO_DISABLE_PLUGINS=name)
        assert (ids, "zoo_slow_import" in modules) == (sorted([*own, "good:sum"]), False)
    told = lines(good.zoo("plugins", cwd=tmp_path, ZOO_DISABLE_PLUGINS="slow-import"))
    assert any("zoo-slow-import" in line and "disabled" in line for line in told)


def test_spawned_processes_see_what_the_parent_sees(mixed, tmp_path):
    script = tmp_path / "ids.py"
    script.write_text(IDS_IN_PROCESSES, encoding="utf-8")
    done = mixed.run(script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert {"good:sum", "good:steps", "unet-basic", "resnet18"} <= set(seen["parent"])
    assert seen["pool"] == [seen["parent"]] * 2
    assert seen["workers"] == [seen["parent"]] * 2


@pytest.mark.parametrize(
    ("kind", "name", "pairing"),
    [("decoder", "my-fpn", ("timm:convnext_atto", "my-fpn")), ("encoder", "my-enc", ("my-enc", "unet-basic"))],
)
def test_what_zoo_new_writes_installs_passes_its_tests_and_builds(make, tmp_path, kind, name, pairing):
    environment = make()
    assert lines(environment.zoo("new", kind, name, cwd=tmp_path))
    environment.install(f"./{name}", cwd=tmp_path)
    tested = environment.run("-m", "pytest", "-W", "error", "-p", "no:cacheprovider", name, cwd=tmp_path)
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert f"{name}:{name}" in lines(environment.zoo("list", f"{kind}s", cwd=tmp_path))
    assert environment.zoo("plugins", "--check", cwd=tmp_path).returncode == 0
    code = f"import torch, zoo; print(tuple(zoo.build(*{pairing}, classes=2).eval()(torch.rand(1, 3, 65, 97)).shape))"
    assert lines(environment.run("-W", "error", "-c", code, cwd=tmp_path)) == ["(1, 2, 65, 97)"]
    again = environment.zoo("new", kind, name, "--output", "again", cwd=tmp_path)
    assert again.returncode == 2
    assert f"{name}:{name}" in again.stderr
    assert not (tmp_path / "again").exists()


def test_fifty_light_plugins_are_all_listed_without_torch(make, tmp_path):
    environment = make()
    ids = LISTING.write_plugins(environment.site, 50)
    listed, modules = loaded(environment, tmp_path)
    assert set(ids) <= set(listed)
    assert not {"torch", "timm", "torchvision", "segmentation_models_pytorch"} & set(modules)
    assert set(ids) <= set(lines(environment.zoo("list", "decoders", cwd=tmp_path)))


@pytest.mark.skipif(os.name == "nt", reason="Windows does not count the processor time of child processes")
def test_the_script_that_measures_listing_prints_both_figures():
    command = ["benchmarks/listing.py", "--rounds", "1", "--plugins", "3"]
    done = subprocess.run([LISTING.sys.executable, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["0", "3"]

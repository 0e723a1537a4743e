"""`zoo new`: what it writes is whole and right, and what it refuses leaves nothing behind."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from zoo.cli.new.distribution import write_distribution

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
BOTH = {".gitignore", "README.md", "pyproject.toml", "src/my_one/__init__.py", "tests/test_my_one.py"}
FILES = {
    "decoder": BOTH | {"src/my_one/decoder.py"},
    "encoder": BOTH | {"src/my_one/encoder.py", "src/my_one/weights.py"},
}

pytestmark = pytest.mark.usefixtures("fresh_registry")
each_kind = pytest.mark.parametrize("kind", ["decoder", "encoder"])


@pytest.fixture
def cli(command_line, monkeypatch, tmp_path):
    """Return a function that runs a command line in an empty folder: its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    return command_line


@pytest.fixture
def written(install, tmp_path, monkeypatch):
    """Return a function that writes a distribution and makes it importable and announced, as its own pyproject.toml says."""
    modules = []

    def write(kind, name):
        folder = tmp_path / name
        write_distribution(kind, name, folder)
        (plugin,) = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["entry-points"]["zoo"].items()
        monkeypatch.syspath_prepend(folder / "src")
        install(name, {"zoo": dict([plugin])}, {})
        modules.append(plugin[1])
        return folder

    yield write
    for module in [name for name in sys.modules if name.partition(".")[0] in modules]:
        del sys.modules[module]


def files_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@each_kind
def test_it_writes_a_whole_distribution_and_says_what_to_do_next(cli, tmp_path, kind):
    status, out, err = cli("new", kind, "my-one")
    assert (status, files_in(tmp_path / "my-one")) == (0, FILES[kind])
    assert set(out.splitlines()) == {str(Path("my-one", path)) for path in FILES[kind]}
    assert 'pip install "./my-one[test]"' in err


def test_it_writes_to_the_folder_that_output_names_new_or_empty(cli, tmp_path):
    assert cli("new", "decoder", "my-one", "--output", "deep/er")[0] == 0
    (tmp_path / "empty").mkdir()
    assert cli("new", "encoder", "my-one", "-o", tmp_path / "empty")[0] == 0
    assert files_in(tmp_path / "deep/er") == FILES["decoder"]
    assert files_in(tmp_path / "empty") == FILES["encoder"]


@each_kind
def test_no_placeholder_is_left_and_every_python_file_parses(tmp_path, kind):
    for path in write_distribution(kind, "my-one", tmp_path / "one"):
        text = path.read_text(encoding="utf-8")
        assert "{{" not in text
        assert "}}" not in text
        assert text.endswith("\n")
        if path.suffix == ".py":
            assert ast.get_docstring(ast.parse(text))


def ruff(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."], cwd=folder, capture_output=True, text=True
    )


@each_kind
@pytest.mark.parametrize("name", ["my-one", "x", "some-name"])
def test_what_is_written_passes_ruff(tmp_path, kind, name):
    write_distribution(kind, name, tmp_path / "one")
    rules = "E,F,W,I,N,UP,B,A,C4,PTH,RET,SIM,PT,PERF,RUF"
    for command in (["check", "--select", rules, "--ignore", "N812"], ["format", "--check"]):
        done = ruff(tmp_path / "one", *command)
        assert done.returncode == 0, done.stdout


@each_kind
def test_a_long_name_costs_no_more_than_long_lines(tmp_path, kind):
    write_distribution(kind, "a-name-of-quite-some-length-2", tmp_path / "one")
    done = ruff(tmp_path / "one", "check")
    assert done.returncode == 0, done.stdout


@each_kind
def test_the_metadata_says_what_is_so(tmp_path, kind):
    write_distribution(kind, "my-one", tmp_path / "one")
    metadata = tomllib.loads((tmp_path / "one/pyproject.toml").read_text(encoding="utf-8"))
    project = metadata["project"]
    assert project["name"] == "my-one"
    assert project["license"] == "Apache-2.0"
    assert project["entry-points"] == {"zoo": {"my-one": "my_one"}}
    assert project["optional-dependencies"] == {"test": ["segmentation-zoo[testing]"]}
    assert "testing" in PROJECT["project"]["optional-dependencies"]
    assert project["requires-python"] == PROJECT["project"]["requires-python"]
    assert metadata["build-system"] == PROJECT["build-system"]


@each_kind
def test_it_depends_on_what_its_code_imports_and_on_no_older_version_than_zoo_does(tmp_path, kind):
    written = write_distribution(kind, "my-one", tmp_path / "one")
    project = tomllib.loads((tmp_path / "one/pyproject.toml").read_text(encoding="utf-8"))["project"]
    own, *others = project["dependencies"]
    assert own == f"segmentation-zoo>={zoo.__version__.partition('+')[0]}"
    stated = [line.partition(" ")[0] for line in PROJECT["project"]["dependencies"]]
    assert [line for line in others if line not in stated] == []
    code = "\n".join(path.read_text(encoding="utf-8") for path in written if path.parent.name == "my_one")
    imported = set(re.findall(r"^(?:from|import) (\w+)", code, re.MULTILINE)) - sys.stdlib_module_names - {"my_one", "zoo"}
    assert imported == {line.partition(">=")[0] for line in others}


@each_kind
def test_its_hook_is_light_and_tells_source_license_options_and_api(tmp_path, written, kind):
    folder = written(kind, "my-one")
    code = (
        "import sys, my_one\n"
        "(spec,) = [*getattr(my_one, 'zoo_encoders', list)(), *getattr(my_one, 'zoo_decoders', list)()]\n"
        "print(spec.name, spec.license, bool(spec.source), len(spec.options), my_one.zoo_api, 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["my-one", "Apache-2.0", "True", "1", str(zoo.plugin.API_VERSION), "False"]


def test_a_written_decoder_is_listed_and_builds_with_any_encoder(written):
    written("decoder", "my-fpn")
    assert "my-fpn:my-fpn" in zoo.list_decoders()
    model = zoo.build("timm:convnext_atto", "my-fpn", classes=3, decoder_options={"width": 16}).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 3, 65, 97)).shape == (1, 3, 65, 97)
    assert type(model.decoder).__name__ == "MyFpnDecoder"
    with pytest.raises(zoo.errors.OptionError, match="width must be a whole number"):
        zoo.build("resnet18", "my-fpn", decoder_options={"width": 0})


def test_a_written_encoder_is_listed_and_builds_just_the_stages_that_are_needed(written):
    written("encoder", "my-enc")
    assert "my-enc:my-enc" in zoo.list_encoders()
    model = zoo.build("my-enc", "unet-basic", levels=2, in_channels=1, encoder_options={"width": 8}).eval()
    with torch.inference_mode():
        assert model(torch.rand(1, 1, 65, 97)).shape[-2:] == (65, 97)
    assert list(model.encoder.stages) == ["stage1", "stage2"]
    assert [entry.channels for entry in model.plan.pyramid] == [8, 16]


def test_a_written_encoder_loads_only_weights_that_fit(written, tmp_path):
    written("encoder", "my-enc")
    make = import_module("my_enc.encoder").MyEncEncoder
    whole = make(maps=("stage1", "stage5"), width=4).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    torch.save([whole], tmp_path / "code.pth")
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    image = torch.rand(1, 3, 32, 32)
    for suffix in ("pth", "safetensors"):
        part = make(maps=("stage1",), width=4, weights=str(tmp_path / f"whole.{suffix}")).eval()
        torch.testing.assert_close(part(image)[0], whole(image)[0])
    for name, told in {
        "absent.pth": "is not a file",
        "code.pth": "could not be read",
        "other.pth": r"missing: stages\.stage1\.0\.weight, .* and \d+ more; unexpected: head\.weight",
        "list.pth": "contains no state dict",
    }.items():
        with pytest.raises(zoo.errors.WeightsError, match=told):
            zoo.build("my-enc", "unet-basic", encoder_options={"width": 4}, weights=str(tmp_path / name))
    with pytest.raises(zoo.errors.WeightsError, match="of another shape"):
        make(maps=("stage1",), width=8, weights=str(tmp_path / "whole.pth"))


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("unet-basic", "taken by unet-basic"),
        ("resnet18", "taken by resnet18"),
        ("resnet50", "taken by.*timm:resnet50"),
        ("timm", "taken by plugin 'timm'"),
        ("local", "taken by zoo itself, for the ids that begin with 'local:'"),
        ("module", "taken by zoo itself"),
        ("torch", "'torch', which is a module that is installed already"),
        ("json", "'json', which is a module"),
        ("class", "'class', which is a Python keyword"),
        ("My-Fpn", "lower case letters.*such as 'my-fpn'; found 'My-Fpn'"),
        ("my_fpn", "found 'my_fpn'"),
        ("my--fpn", "found 'my--fpn'"),
        ("2fpn", "begin with a letter"),
        ("../fpn", "found '../fpn'"),
        ("", "found ''"),
    ],
)
@each_kind
def test_a_name_that_is_taken_or_will_not_do_is_refused(cli, tmp_path, kind, name, told):
    status, out, err = cli("new", kind, name, "--output", "here")
    assert (status, out) == (2, "")
    assert re.search(told, err)
    assert err.count("Error") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_an_installed_plugin_has_is_refused(cli, written, tmp_path):
    written("decoder", "my-one")
    status, _, err = cli("new", "encoder", "my-one", "--output", "here")
    assert status == 2
    assert "taken by my-one:my-one" in err
    assert not (tmp_path / "here").exists()


def test_a_folder_that_is_not_empty_is_refused_and_left_as_it_was(cli, tmp_path):
    (tmp_path / "my-one").mkdir()
    (tmp_path / "my-one/notes.txt").write_text("mine", encoding="utf-8")
    status, out, err = cli("new", "decoder", "my-one")
    assert (status, out) == (2, "")
    assert "contains notes.txt. Choose a new or empty folder with --output." in err
    assert files_in(tmp_path) == {"my-one/notes.txt"}


@pytest.mark.parametrize(
    ("output", "told"), [("file", "is a file"), ("file/below", "Not a directory"), ("file/far/below", "Not a dir")]
)
def test_a_file_in_the_folders_place_is_refused(cli, tmp_path, output, told):
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    status, _, err = cli("new", "decoder", "my-one", "--output", output)
    assert status == 2
    assert told in err
    assert (tmp_path / "file").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("existed", [True, False])
def test_a_disk_that_is_full_halfway_leaves_nothing(tmp_path, existed):
    """A file larger than the limit cannot be written: what was written before it is taken away again."""
    if existed:
        (tmp_path / "new").mkdir()
    code = (
        "import resource, signal, pathlib, zoo.cli.new.distribution as scaffold\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))\n"
        f"scaffold.write_distribution('decoder', 'my-one', pathlib.Path({str(tmp_path)!r}, 'new', 'deep')"
        f"{'.parent' if existed else ''})"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "OptionError: The decoder 'my-one' cannot be written" in done.stderr
    assert [path.name for path in tmp_path.rglob("*")] == (["new"] if existed else [])


def test_the_files_that_are_written_ship_as_templates_that_no_tool_takes_for_code():
    folder = ROOT / "zoo/cli/new/templates"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".template"}


def test_writing_imports_no_torch(tmp_path):
    code = "import sys, zoo.cli\ntry: zoo.cli.main()\nfinally: print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "new", "encoder", "my-one"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "False")

"""What a user installs holds all that runs, and its metadata says what is true."""

import runpy
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_wheel_holds_the_core_the_plugins_and_their_data_and_nothing_else(tmp_path):
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        tmp_path,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "zoo/py.typed",
        "zoo/benchmark/measuring/chelsea.jpg",
        "zoo_timm/index.json",
        "zoo_timm/licenses.json",
        "zoo_smp/index.json",
        "zoo_unet/decoders.py",
    ):
        assert needed in names
    templates = {path.relative_to(ROOT).as_posix() for path in (ROOT / "zoo/cli/new/templates").rglob("*.template")}
    assert templates
    assert templates <= set(names)
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {
        "zoo",
        "zoo_resnet18",
        "zoo_smp",
        "zoo_timm",
        "zoo_unet",
    }


def test_every_requirement_has_a_lower_bound_and_none_is_pinned():
    extras, groups = PROJECT["project"]["optional-dependencies"].values(), PROJECT["dependency-groups"].values()
    listed = [*PROJECT["project"]["dependencies"], *(line for lines in (*extras, *groups) for line in lines)]
    requirements = [line for line in listed if isinstance(line, str)]
    assert len(requirements) > 50
    assert [line for line in requirements if ">=" not in line or "==" in line] == []


def test_each_canonical_id_is_a_spec_of_the_module_that_is_announced_for_it():
    """The entry points spare loading other plugins; a bare name that its module does not have would resolve to nothing."""
    for point in entry_points(group="zoo.canonical"):
        module = point.load()
        hooks = [getattr(module, name) for name in ("zoo_encoders", "zoo_decoders") if hasattr(module, name)]
        assert point.name in [spec.name for hook in hooks for spec in hook()]


def test_no_folder_of_plugins_bears_the_name_of_a_library():
    for folder in (ROOT / "plugins").iterdir():
        assert folder.name.startswith("zoo_")


def test_the_published_readme_leads_to_the_repository_once_it_has_a_url():
    hook = runpy.run_path(str(ROOT / "hatch_build.py"))
    text = "[Guide](docs/a.md#part) ![plot](docs/b.png) [zoo](https://example.org) [below](#x)"
    assert hook["with_absolute_links"](text, "") == text
    assert hook["with_absolute_links"](text, "https://example.org/zoo") == (
        "[Guide](https://example.org/zoo/blob/main/docs/a.md#part) ![plot](https://example.org/zoo/raw/main/docs/b.png) "
        "[zoo](https://example.org) [below](#x)"
    )


@pytest.mark.slow
def test_the_distributions_can_be_built_and_published(tmp_path):
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    files = sorted(tmp_path.iterdir())
    assert [path.suffix for path in files] == [".whl", ".gz"]
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True, capture_output=True)

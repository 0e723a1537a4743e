"""The public face: what it exports, what it does not import, and the exception tree."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo import errors

PROMISED = (
    "FeatureMap Needs EncoderSpec DecoderSpec Option Pairing SegmentationModel ZooError bench build channels explain "
    "from_channels hookimpl list_decoders list_encoders negotiate register_decoder register_encoder __version__"
)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def typed_imports():
    tree = ast.parse(Path(zoo.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imports = {
        alias.asname or alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    annotated = {node.target.id for node in block.body if isinstance(node, ast.AnnAssign)}
    return imports, annotated


@pytest.mark.parametrize("name", zoo.__all__)
def test_every_name_in_all_can_be_used(name):
    assert getattr(zoo, name) is not None


@pytest.mark.parametrize("name", PROMISED.split())
def test_what_the_documentation_promises_is_public(name):
    assert name in zoo.__all__


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_public(name):
    assert name in zoo.__all__
    assert getattr(zoo, name) is getattr(errors, name)


def test_dir_shows_just_the_public_names_each_once():
    assert dir(zoo) == sorted(zoo.__all__)
    assert len(set(zoo.__all__)) == len(zoo.__all__)


def test_what_a_type_checker_sees_is_what_is_there():
    imports, annotated = typed_imports()
    assert {*imports, *annotated} == set(zoo.__all__)
    for name, module in imports.items():
        home = importlib.import_module(module)
        assert getattr(zoo, name) is getattr(home, name)
        assert name in home.__all__


def test_a_name_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(AttributeError, match=r"no attribute 'buidl'.*\bbuild\b"):
        _ = zoo.buidl


def test_listing_and_negotiating_import_no_deep_learning_library():
    loaded = run(
        "import sys, zoo\n"
        "assert zoo.list_encoders('resnet18') and zoo.list_decoders()\n"
        "zoo.negotiate('resnet18', 'unet-basic'), zoo.explain('timm:resnet18', 'unet-basic'), zoo.channels('resnet18')\n"
        "print(*sys.modules)"
    )
    assert "zoo_timm" in loaded
    assert not {"torch", "timm", "torchvision", "segmentation_models_pytorch"} & set(loaded)


def test_the_projects_own_pairing_is_built_without_loading_other_plugins():
    loaded = run("import sys, zoo\nzoo.build('resnet18', 'unet-basic')\nprint(*sys.modules)")
    assert {"torch", "zoo_resnet18.encoder", "zoo_unet.decoders"} <= set(loaded)
    assert not {"timm", "segmentation_models_pytorch", "zoo_timm", "zoo_smp"} & set(loaded)
    assert not {"typer", "rich", "pydantic", "scipy", "onnx", "tensorboard"} & set(loaded)


def test_the_exception_tree_is_as_drawn():
    drawn = re.findall(r"^[├└]── (\w+)(?:.*\(also a (\w+)\))?", errors.__doc__, flags=re.MULTILINE)
    assert {name for name, _ in drawn} == set(errors.__all__) - {"ZooError"}
    for name, other in drawn:
        bases = [base.__name__ for base in getattr(errors, name).__bases__]
        assert bases == ["ZooError", other] if other else bases == ["ZooError"]
    assert errors.ZooError.__bases__ == (Exception,)

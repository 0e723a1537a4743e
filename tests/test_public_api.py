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
    "Needs Pairing SegmentationModel ZooError bench build channels explain from_channels from_smp list_decoders list_encoders "
    "load negotiate register_decoder register_encoder save train __version__"
)
FOR_PLUGINS = (
    "DecoderSpec EncoderSpec FeatureMap ImageSizes MatchedWeights Option Pyramid UpsampledConv2d run_checkpointed hookimpl "
    "match_weights pad_map resize_map"
)
FACES = pytest.mark.parametrize("face", [zoo, zoo.plugin], ids=["zoo", "zoo.plugin"])


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@FACES
def test_every_public_name_can_be_used_and_is_its_modules_own(face):
    tree = ast.parse(Path(face.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = {node.names[0].name: node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert {*imports} == {*face.__all__} - {"__version__"}
    for name, module in imports.items():
        if module != "zoo":
            assert name in importlib.import_module(module).__all__
            assert getattr(face, name) is getattr(importlib.import_module(module), name)


def test_what_the_documentation_promises_is_public():
    assert set(PROMISED.split()) <= {*zoo.__all__}
    assert set(FOR_PLUGINS.split()) <= {*zoo.plugin.__all__}
    assert {*zoo.__all__}.isdisjoint(zoo.plugin.__all__)


@FACES
def test_dir_shows_just_the_public_names_each_once(face):
    assert sorted(dir(face)) == sorted(face.__all__)
    assert len(set(face.__all__)) == len(face.__all__)


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

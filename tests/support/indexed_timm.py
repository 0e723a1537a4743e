"""Skip tests of what the installed timm lacks, if it is not the version that zoo's index describes.

Whether timm lacks an architecture is asked of timm. So a test is not skipped if zoo refuses what timm can serve. With the
version of the index, nothing is skipped.
"""

from __future__ import annotations

import json
from importlib.resources import files

import pytest
import timm

from zoo_timm.creating import create_model

VERSION = json.loads(files("zoo_timm").joinpath("index.json").read_text(encoding="utf-8"))["timm"]
IS_INSTALLED = timm.__version__ == VERSION

needs_indexed_timm = pytest.mark.skipif(
    not IS_INSTALLED, reason=f"the index is of timm {VERSION}; the architectures of timm {timm.__version__} differ"
)


def skip_if_lacking(architecture):
    """Skip the test if the installed timm lacks the architecture, or cannot return its maps or remove the other layers."""
    if IS_INSTALLED:
        return
    if not timm.is_model(architecture):
        pytest.skip(f"timm {timm.__version__} has no {architecture}")
    network = create_model(architecture, {"num_classes": 0})
    if not (hasattr(network, "forward_intermediates") and hasattr(network, "prune_intermediate_layers")):
        pytest.skip(f"{architecture} of timm {timm.__version__} does not return its maps")
    try:
        network.prune_intermediate_layers([0], prune_norm=True)
    except AssertionError as refusal:  # efficientvit_b0 of timm 1.0.20
        pytest.skip(f"timm {timm.__version__} cannot prune {architecture}: {refusal}")

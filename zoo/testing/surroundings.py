"""Preserve the state of the process around a check, seed random generators, and import optional libraries."""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from zoo.errors import ZooError

__all__ = ["import_library", "make_generator", "preserve_surroundings", "seed"]


@contextmanager
def preserve_surroundings() -> Iterator[None]:
    """Set a known state of the process for the `with` block, and restore the previous state afterwards.

    The random states of Python, NumPy and torch (on the CPU), the default dtype and device, the gradient mode and the warning
    filters are set and restored. The number of threads is only restored.
    """
    numpy: Any = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.device("cpu"))
        warnings.simplefilter("ignore")  # users see these warnings when they build the model
        torch.set_default_dtype(torch.float32)
        seed(0)
        try:
            yield
        finally:
            random.setstate(python_state)
            if numpy is not None:
                numpy.random.set_state(numpy_state)
            torch.set_rng_state(torch_state)
            torch.set_default_dtype(dtype)
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)


def seed(number: int) -> None:
    """Seed every generator that a module's initialization may draw from."""
    random.seed(number)
    torch.default_generator.manual_seed(number)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(number)


def make_generator(number: int) -> torch.Generator:
    """Return a new generator with this seed, so that inputs do not depend on other random numbers."""
    return torch.Generator().manual_seed(number)


def import_library(library: str) -> Any:
    """Import and return a library that only the conformance kit requires.

    Raises:
        ZooError: the library is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as cause:
        raise ZooError(
            f"zoo.testing requires {library}, which is not installed ({cause}). Install it: "
            'pip install "segmentation-zoo[testing]"'
        ) from cause

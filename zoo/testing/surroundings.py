"""What a check leaves as it found it: random states, default dtype, threads, warnings; and libraries it may lack."""

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
    """Run a check from a known state, and put back whatever the code under test changes of the process's own."""
    numpy: Any = sys.modules.get("numpy")
    python_state = random.getstate()
    numpy_state = None if numpy is None else numpy.random.get_state()
    torch_state, dtype, threads = torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(torch.device("cpu"))
        warnings.simplefilter("ignore")  # whoever builds the model in earnest is warned
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
    """Return a generator of one's own, so that inputs do not depend on what else was drawn."""
    return torch.Generator().manual_seed(number)


def import_library(library: str) -> Any:
    """Import a library that only the kit needs.

    Raises:
        ZooError: it is not installed.
    """
    try:
        return importlib.import_module(library)
    except ImportError as cause:
        raise ZooError(
            f'zoo.testing needs {library}, which is not installed: pip install "segmentation-zoo[testing]" ({cause}).'
        ) from cause

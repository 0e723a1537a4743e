"""The versions of the libraries that results of encoders and decoders depend on. Torch-free."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from zoo.registry.discovery import OWN_DISTRIBUTION

__all__ = ["NOT_INSTALLED", "library_versions"]

LIBRARIES = ("torch", "torchvision", "timm", "segmentation-models-pytorch", OWN_DISTRIBUTION)
NOT_INSTALLED = "-"


def library_versions() -> dict[str, str]:
    """Return a mapping from the names of zoo, torch and the libraries of models to their versions, or `NOT_INSTALLED`."""
    return {name: _version(name) for name in LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return NOT_INSTALLED

"""The versions of the libraries that results of encoders and decoders depend on. Torch-free."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from zoo.registry.discovery import OWN_DISTRIBUTION

__all__ = ["library_versions"]

LIBRARIES = (OWN_DISTRIBUTION, "torch", "torchvision", "timm", "segmentation-models-pytorch")


def library_versions() -> dict[str, str]:
    """Return a mapping from the names of zoo, torch and the libraries of models to their versions; "-" if not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "-"

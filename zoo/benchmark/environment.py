"""The environment of a measurement: device, processor, threads, versions, commit. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import FiniteFloat

__all__ = ["Environment", "format_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The facts that a measurement depends on beside the trial's own.

    Attributes:
        device: its type, such as "cpu".
        device_name: of the processor or accelerator.
        memory_gib: of the accelerator, else of the machine.
        driver: of an NVIDIA or AMD accelerator; "" for others.
        versions: by distribution.
        commit: of the checkout, with a hash of its changes; "" outside a checkout.
    """

    device: str
    device_name: str
    processor: str
    cores: int
    memory_gib: FiniteFloat
    driver: str
    threads: int
    system: str
    python: str
    versions: Mapping[str, str]
    commit: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def format_device(environment: Mapping[str, Any]) -> str:
    """Return the device's name and type, with the threads on the CPU."""
    threads = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']} ({environment['device']}{threads})"

"""The environment of a measurement: device, processor, threads, versions, commit. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import FiniteFloat

__all__ = ["Environment", "format_device"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The machine and the software that a measurement ran on.

    Attributes:
        device: the type of the device, such as "cpu".
        device_name: the name of the accelerator; for the CPU, or an accelerator without a name, the name of the processor.
        memory_gib: the accelerator's memory in GiB. For the CPU, or if the accelerator does not report its memory, this is the
            memory of the machine.
        driver: the versions of the driver and CUDA for an NVIDIA accelerator, the version of ROCm for an AMD accelerator, and
            "" for other devices.
        threads: the number of CPU threads that PyTorch uses.
        versions: a mapping from the names of distributions (zoo, its requirements and the plugins) to their versions.
        commit: the commit of zoo's git checkout, with a hash of uncommitted changes to the code; "" if zoo does not run from a
            checkout.
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
        """Return the environment as a JSON-serializable dictionary."""
        return asdict(self)


def format_device(environment: Mapping[str, Any]) -> str:
    """Return the device's name and type; for the CPU, also the number of threads."""
    threads = f", {environment['threads']} threads" if environment["device"] == "cpu" else ""
    return f"{environment['device_name']} ({environment['device']}{threads})"

"""Where a run takes place: device, processor, threads, versions, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

import psutil
import torch

import zoo
from zoo.registry.discovery import OWN_DISTRIBUTION
from zoo.registry.registry import default_registry

__all__ = ["Environment", "code_version", "describe_environment"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The facts that a measurement depends on beside the trial's own."""

    device: str
    device_name: str
    processor: str
    cores: int
    memory_gib: float
    driver: str
    threads: int
    system: str
    python: str
    versions: tuple[tuple[str, str], ...]
    commit: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"versions": dict(self.versions)}


def describe_environment(device: torch.device) -> Environment:
    """Return the facts of this process and machine."""
    processor = _processor()
    named = None if device.type == "cpu" else getattr(torch.get_device_module(device), "get_device_name", None)
    name = named(device) if named else processor  # Apple's MPS has no name of its own
    return Environment(
        device=device.type,
        device_name=name,
        processor=processor,
        cores=os.cpu_count() or 1,
        memory_gib=round(_memory_bytes(device) / 2**30, 1),
        driver=_driver(device),
        threads=torch.get_num_threads(),
        system=platform.platform(),
        python=platform.python_version(),
        versions=_versions(),
        commit=code_version(),
    )


def _memory_bytes(device: torch.device) -> int:
    """Return how much memory the accelerator has, else the machine."""
    told = None if device.type == "cpu" else getattr(torch.get_device_module(device), "get_device_properties", None)
    properties = told(device) if told else None
    return int(getattr(properties, "total_memory", 0) or psutil.virtual_memory().total)


def _driver(device: torch.device) -> str:
    """Return what drives an NVIDIA or AMD accelerator; "" for others, which torch does not tell of."""
    if device.type != "cuda":
        return ""
    runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        told = subprocess.run(asked, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return runtime
    return f"{told[0]}, {runtime}" if told else runtime


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        return match.group(1).strip()
    if platform.system() == "Darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if asked.stdout.strip():
            return asked.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def _versions() -> tuple[tuple[str, str], ...]:
    """Return the versions of this distribution, what it requires, and the distributions that bring plugins."""
    required = [
        re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires(OWN_DISTRIBUTION) or () if "extra ==" not in line
    ]
    found = {plugin.distribution: plugin.version for plugin in default_registry().found}
    for name in {OWN_DISTRIBUTION, *required}:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    found["torch"] = torch.__version__
    return tuple(sorted(found.items()))


CHECKOUT = Path(zoo.__file__).parents[1]


def code_version(root: Path = CHECKOUT) -> str:
    """Return the checkout's commit, with a hash of what differs from it in the code; empty outside a checkout."""
    if not (root / ".git").exists():
        return ""
    code = ("--", "zoo", "plugins")
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD").strip()
        changes = _git(root, "diff", "HEAD", *code)
        untracked = _git(root, "ls-files", "--others", "--exclude-standard", *code).splitlines()
    except (OSError, subprocess.CalledProcessError):
        return ""
    if not changes and not untracked:
        return commit
    hashed = hashlib.sha256(changes.encode())
    for name in untracked:
        hashed.update(name.encode() + (root / name).read_bytes())
    return f"{commit}+{hashed.hexdigest()[:8]}"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout

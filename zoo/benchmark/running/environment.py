"""Read the environment of this process: device, processor, threads, versions, commit."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import psutil
import torch

import zoo
from zoo.benchmark.environment import Environment
from zoo.registry.discovery import OWN_DISTRIBUTION
from zoo.registry.registry import default_registry

__all__ = ["code_version", "describe_environment"]


def describe_environment(device: torch.device) -> Environment:
    """Return the environment of this process: its device, machine, settings and versions."""
    processor = _processor()
    read_name = None if device.type == "cpu" else getattr(torch.get_device_module(device), "get_device_name", None)
    return Environment(
        device=device.type,
        device_name=read_name(device) if read_name else processor,  # Apple's MPS reports no name
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
    """Return the size of the device's memory in bytes.

    If the device is the CPU or does not report this size, return the size of the machine's main memory.
    """
    read = None if device.type == "cpu" else getattr(torch.get_device_module(device), "get_device_properties", None)
    properties = read(device) if read else None
    return int(getattr(properties, "total_memory", 0) or psutil.virtual_memory().total)


def _driver(device: torch.device) -> str:
    """Return the version of the NVIDIA driver, if it can be read, followed by the version of CUDA or ROCm.

    If the device uses neither CUDA nor ROCm, return "", because torch reports no version for it.
    """
    if device.type != "cuda":
        return ""
    runtime = f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}"
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        versions = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return runtime
    return f"{versions[0]}, {runtime}" if versions else runtime


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file() and (match := re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE)):
        return match.group(1).strip()
    if platform.system() == "Darwin":
        done = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False)
        if done.stdout.strip():
            return done.stdout.strip()
    return platform.processor() or platform.machine() or "unknown processor"


def _versions() -> dict[str, str]:
    """Return the versions of zoo's distribution, of its requirements, and of the distributions that provide plugins."""
    required = [
        re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in requires(OWN_DISTRIBUTION) or () if "extra ==" not in line
    ]
    versions = {plugin.distribution: plugin.version for plugin in default_registry().found}
    for name in {OWN_DISTRIBUTION, *required}:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    versions["torch"] = torch.__version__
    return dict(sorted(versions.items()))


CHECKOUT = Path(zoo.__file__).parents[1]


def code_version(root: Path = CHECKOUT) -> str:
    """Return the commit of the Git checkout in `root`; "" if there is no checkout or git fails.

    If there are uncommitted changes in the folders `zoo` or `plugins`, "+" and a hash of these changes follow the commit.
    """
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

"""What Ray runs on another machine: it tells what is installed there, and does jobs in that machine's own fresh processes.

Neither torch nor a device is touched by Ray's process itself: both are left to processes that know nothing of Ray.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.benchmark.running.local import Limits

__all__ = ["Seat", "describe"]

DESCRIBE = """
import json, sys
from zoo.benchmark.running.environment import describe_environment
from zoo.common.devices import choose_device
print(json.dumps(describe_environment(choose_device(sys.argv[1])).as_dict()))
"""


def describe(device: str) -> dict[str, Any]:
    """Return this machine's environment as plain data.

    Raises:
        ZooError: it has no such device, or what the benchmark needs cannot be imported there.
    """
    _shed_ray()
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    command = [sys.executable, "-P", "-c", DESCRIBE, device]
    told = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False)
    if told.returncode:
        raise ZooError((told.stderr.strip().splitlines() or [f"its Python ended with status {told.returncode}"])[-1])
    environment: dict[str, Any] = json.loads(told.stdout.splitlines()[-1])
    return environment


class Seat:
    """A Ray actor: does one job after the other on its machine, in fresh processes that import what they need once.

    Args:
        limits: of each process.
        preload: modules that the processes import first.
    """

    def __init__(self, limits: Limits, preload: Sequence[str]) -> None:
        from zoo.benchmark.running.local import LocalProcesses

        self._processes = LocalProcesses(limits, preload)

    def measure(self, job: Mapping[str, Any], files: Sequence[tuple[str, bytes]]) -> Iterator[dict[str, Any]]:
        """Yield the messages of a job as plain data.

        Args:
            job: as plain data.
            files: names and contents of the plugin files, in the job's order: their paths are those of the machine that asked.
        """
        from zoo.benchmark.measuring.jobs import Job
        from zoo.benchmark.messages import message_to

        _shed_ray()
        with tempfile.TemporaryDirectory(prefix="zoo-plugins-") as folder:
            paths = [Path(folder, str(number), name) for number, (name, _) in enumerate(files)]
            for path, (_, content) in zip(paths, files, strict=True):
                path.parent.mkdir()
                path.write_bytes(content)
            here = replace(Job.from_dict(job), plugins=tuple(map(str, paths)))
            for _, message in self._processes.run([here]):
                yield message_to(message)


def _shed_ray() -> None:
    """Give what this process starts the machine's own threads, import path and priority in place of those of Ray's workers.

    Ray sets the threads to what it calls CPUs, imports its own copies of some libraries, and is nice to other processes. To
    be less nice than one was is root's right alone; elsewhere `RAY_worker_niceness=0 ray start` does it.
    """
    if "OMP_NUM_THREADS" not in psutil.Process().environ():
        os.environ.pop("OMP_NUM_THREADS", None)
    own = Path(ray.__file__).parent
    sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(own)]
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)

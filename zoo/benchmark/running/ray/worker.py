"""The code that Ray runs on the machines of a cluster: it describes a machine, and does jobs there in fresh processes."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

from zoo.benchmark.running.ray.placement import find_differences
from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.benchmark.measuring.jobs import Job
    from zoo.benchmark.messages import Message
    from zoo.benchmark.running.local import Limits

__all__ = ["Worker", "describe_machine"]


def describe_machine(device: str, requester: Mapping[str, Any]) -> dict[str, Any]:
    """Return this machine's environment as a dictionary, after comparing its versions with those in `requester`.

    `requester` is the environment of the process that runs the benchmark.

    Raises:
        ZooError: this machine has no such device, or its installed versions differ from those in `requester`.
    """
    _undo_ray_settings()
    # imported only now, since torch reads these settings when it is imported
    from zoo.benchmark.running.environment import describe_environment
    from zoo.common.devices import choose_device

    environment = describe_environment(choose_device(device)).as_dict()
    if differences := find_differences(requester, environment):
        lines = "".join(f"\n  {line}" for line in differences)
        raise ZooError(
            f"its installed versions differ, so its results could not be compared:{lines}\nInstall the same versions there as "
            "here, or remove the machine from the cluster (run `ray stop` on it)."
        )
    return environment


class Worker:
    """A Ray actor that does jobs one after the other, each in a fresh process, so that Ray's own process opens no device."""

    def __init__(self, limits: Limits, preload: Sequence[str]) -> None:
        from zoo.benchmark.running.local import LocalProcesses

        self._processes = LocalProcesses(limits, preload)

    def measure(self, job: Job, plugin_files: Sequence[tuple[str, bytes]]) -> Iterator[Message]:
        """Do a job and yield its messages. First, write the plugin files (pairs of name and content) to this machine."""
        _undo_ray_settings()
        with tempfile.TemporaryDirectory(prefix="zoo-plugins-") as folder:
            paths = [Path(folder, str(number), name) for number, (name, _) in enumerate(plugin_files)]
            for path, (_, content) in zip(paths, plugin_files, strict=True):
                path.parent.mkdir()
                path.write_bytes(content)
            for _, message in self._processes.run([replace(job, plugins=tuple(map(str, paths)))]):
                yield message


def _undo_ray_settings() -> None:
    """Restore the machine's own number of threads, import path and priority, for this process and its child processes.

    Ray sets as many threads as it has reserved CPUs, puts its own copies of some libraries first on the import path, and lowers
    the priority of its workers. Only root can raise the priority again. Other users must start Ray with
    `RAY_worker_niceness=0 ray start`, so that Ray does not lower the priority.
    """
    if "OMP_NUM_THREADS" not in psutil.Process().environ():
        os.environ.pop("OMP_NUM_THREADS", None)
    ray_folder = Path(ray.__file__).parent
    sys.path[:] = [entry for entry in sys.path if not Path(entry).is_relative_to(ray_folder)]
    with suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)

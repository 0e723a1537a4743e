"""Connect to a Ray cluster, to measure on its machines instead of in processes of this machine, and disconnect again."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.benchmark.running.local import Executor, Limits
    from zoo.benchmark.running.sweep import ExecutorFactory

__all__ = ["ray_executor"]

CONNECT_SECONDS = 10.0


def ray_executor(address: str, say: Callable[[str], None] = lambda line: None) -> ExecutorFactory:
    """Return a function that creates an executor, which runs the jobs of a run on all machines of a Ray cluster.

    Each machine, or each GPU, runs one timed job at a time.

    Args:
        address: "auto" for the cluster that this machine belongs to or that `RAY_ADDRESS` names; otherwise the HOST:PORT of a
            cluster. If the process is already connected to Ray, that connection is used.
        say: called with each line for the user: which machines are used, and which are refused or lost.

    Raises:
        ZooError: Ray is not installed, or `address` begins with a protocol ("ray://"). When the run begins, the returned
            function raises a ZooError if the cluster cannot be reached, and the executor raises one if no machine can be used.
    """
    try:
        import ray
    except ImportError as cause:
        raise ZooError(
            f"Measuring through Ray (--ray {address}) requires ray, which cannot be imported here: {cause}. Install it: "
            "pip install 'segmentation-zoo[ray]'"
        ) from cause
    if "://" in address:
        raise ZooError(
            f"--ray {address}: Ray's client protocol does not stream results. Run the command with --ray auto on a machine of "
            "the cluster. `ray start --address=HOST:PORT` adds this machine to the cluster; with --num-cpus=0, nothing is "
            "measured on it."
        )

    @contextmanager
    def connect(limits: Limits, preload: Sequence[str]) -> Iterator[Executor]:
        from zoo.benchmark.running.ray.scheduler import RayExecutor

        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(address)
        executor = RayExecutor(limits, preload, say)
        try:
            yield executor
        finally:
            executor.close()
            if is_ours:
                ray.shutdown()

    return connect


def _connect(requested: str) -> None:
    import ray
    from ray._private.services import canonicalize_bootstrap_address  # no public function does this
    from ray.exceptions import RayError

    try:
        address = canonicalize_bootstrap_address(requested)
        if address is None:  # without an address, `ray.init` would start a new cluster on this machine
            raise ConnectionError("none runs on this machine")
        # `ray.init` tries for two minutes; a plain connection shows at once whether anything answers
        host, _, port = address.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError, RayError) as cause:
        reason = str(cause.__cause__ or cause).strip().splitlines()[0].rstrip(".")
        raise ZooError(
            f"--ray {requested} found no Ray cluster that can be used: {reason}. Start a cluster with `ray start --head`, add "
            "each further machine with `ray start --address=HOST:PORT`, and run this command on one of these machines."
        ) from cause

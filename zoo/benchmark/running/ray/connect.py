"""A Ray cluster in place of this machine's own processes: finding it, connecting to it, and leaving it again."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoo.errors import ZooError

if TYPE_CHECKING:
    from zoo.benchmark.running.local import Executor, Limits
    from zoo.benchmark.running.sweep import ExecutorFactory

__all__ = ["ray_executor"]

START = (
    "Start one with `ray start --head`, and add each further machine to it with `ray start --address=HOST:PORT`; run this "
    "command on one of them"
)
TRY_SECONDS = 10.0


def ray_executor(address: str, say: Callable[[str], None] = lambda line: None) -> ExecutorFactory:
    """Return what does a run's jobs on every machine of a Ray cluster, one timed job a machine or a GPU at a time.

    Args:
        address: "auto" for the cluster that this machine belongs to, or that `RAY_ADDRESS` names; else its HOST:PORT. A process
            that is connected to Ray already stays with that connection.
        say: told what a person should know: which machines there are, who comes, goes and is lost.

    Raises:
        ZooError: Ray is not installed. Later, when the run begins: the cluster cannot be reached, no machine of it can
            measure, or one has other versions installed.
    """
    try:
        import ray  # noqa: F401
    except ImportError as cause:
        raise ZooError(
            f"Measuring through Ray (--ray {address}) needs ray, which cannot be imported here: {cause}. Install it: "
            "pip install 'segmentation-zoo[ray]'"
        ) from cause
    if "://" in address:
        raise ZooError(
            f"--ray {address}: Ray's client protocol does not stream results. Run the command on a machine of the cluster, "
            "with --ray auto. `ray start --address=HOST:PORT` makes this machine one; with --num-cpus=0 it measures nothing."
        )

    @contextmanager
    def connected(limits: Limits, preload: Sequence[str]) -> Iterator[Executor]:
        import ray

        from zoo.benchmark.running.ray.scheduler import RayTasks

        is_ours = not ray.is_initialized()
        if is_ours:
            _connect(address)
        tasks = RayTasks(limits, preload, say)
        try:
            yield tasks
        finally:
            tasks.close()
            if is_ours:
                ray.shutdown()

    return connected


def _connect(asked: str) -> None:
    """Connect to a cluster.

    None is started where none runs: with Ray 2.60 that writes a token into the user's home, which every later cluster then asks
    for, and whoever asks for a cluster and gets one machine should know.

    Raises:
        ZooError: there is none of that address, or it cannot be used.
    """
    import ray

    address = (os.environ.get("RAY_ADDRESS") or _last_started()) if asked == "auto" else asked
    if address is None:
        raise ZooError(f"--ray auto found no Ray cluster that runs on this machine. {START}, or measure without --ray.")
    try:
        _try(address)  # Ray itself tries for two minutes
        with _unset("RAY_ADDRESS"):  # it would win over what is given
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as cause:
        told = f"{cause} {cause.__cause__ or ''}"
        if "AuthToken" in told:
            raise ZooError(
                f"The Ray cluster at {address!r} asks for a token. `RAY_AUTH_MODE=token zoo bench ...` gives the one that Ray "
                "keeps for this user; see https://docs.ray.io/en/latest/ray-security/token-auth.html."
            ) from cause
        raise ZooError(
            f"There is no Ray cluster to be used at {address!r}: {told.splitlines()[0].strip()}. {START}."
        ) from cause


def _last_started() -> str | None:
    """Return the address of the cluster that this machine belongs to; None where none answers."""
    from ray._private.services import canonicalize_bootstrap_address  # there is no public way to ask

    try:
        address = canonicalize_bootstrap_address("auto")
        if address is not None:
            _try(address)
    except (OSError, ValueError):
        return None
    return address


def _try(address: str) -> None:
    """Open and close a connection.

    Raises:
        OSError: nobody answers.
        ValueError: this is no address.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is written HOST:PORT")
    socket.create_connection((host.strip("[]"), int(port)), timeout=TRY_SECONDS).close()


@contextmanager
def _unset(name: str) -> Iterator[None]:
    """Do without an environment variable for a while."""
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before

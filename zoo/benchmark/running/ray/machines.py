"""Who is in a Ray cluster: the machines that can measure, as they come and go, each checked before it is given anything."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.ray.actor import describe
from zoo.benchmark.running.ray.node import Node, Share, differences, share_of
from zoo.benchmark.trial import digest
from zoo.errors import ZooError
from zoo.registry.discovery import OWN_DISTRIBUTION

__all__ = ["Roster", "first_line", "ray_options"]

LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
REST_SECONDS = 20.0
"""So long a machine that lost a job is given no other: Ray takes about as long to find out that a machine is gone."""


class Roster:
    """The machines that have a seat for the device.

    Raises:
        ZooError: there is none, or one has other versions installed than this machine.
    """

    def __init__(self, device: str, say: Callable[[str], None]) -> None:
        self._device = device
        self._say = say
        self._environment = describe_environment(torch.device(device)).as_dict()
        self._describe = ray.remote(max_calls=1, max_retries=0)(describe)
        self._known: dict[str, Node] = {}
        self._asked: dict[ray.ObjectRef[Any], tuple[str, str, Share]] = {}
        self._unfit: set[str] = set()
        self._resting: dict[str, float] = {}
        self._next_look = 0.0
        self._meet()

    @property
    def place(self) -> str:
        """The identity of this machine's own environment."""
        return digest(self._environment)

    @property
    def seats(self) -> int:
        """How many jobs they can do at a time."""
        return sum(node.share.count for node in self._known.values())

    def __iter__(self) -> Iterator[Node]:
        return iter(list(self._known.values()))

    def free(self, busy: Iterable[Node]) -> list[Node]:
        """Return a node for each seat that can be given now."""
        taken = Counter(node.id for node in busy)
        now = time.monotonic()
        awake = [node for node in self if self._resting.get(node.id, now) <= now]
        return [node for node in awake for _ in range(node.share.count - taken[node.id])]

    def rest(self, node: Node) -> None:
        """Give a node nothing for a while."""
        self._resting[node.id] = time.monotonic() + REST_SECONDS

    def look(self) -> None:
        """Find out, now and then, who has come and who has gone.

        Raises:
            ZooError: nobody is left.
        """
        if time.monotonic() < self._next_look:
            return
        self._ask()
        for wrong in self._hear(timeout=0):
            self._say(f"{wrong}\nNothing is measured there.")
        if not self._known and not self._asked:
            raise ZooError(
                "No machine is left in the Ray cluster to measure on. What was measured is kept: start the machines again "
                "(`ray start --address=HOST:PORT`), and the same command goes on from there."
            )

    def _meet(self) -> None:
        """Wait until every machine of the cluster has said what it is."""
        self._ask()
        if not self._asked:
            found = ", ".join(_told(facts) for facts in _alive().values()) or "none"
            wanted = "GPU" if self._device != "cpu" else "CPU"
            raise ZooError(
                f"Measuring on {self._device!r} needs a machine with a {wanted} in the Ray cluster; found: {found}. "
                f"Start one with `ray start --address=HOST:PORT --num-{wanted.lower()}s=N`."
            )
        wrong = self._hear(timeout=PATIENCE_SECONDS)
        if self._asked:
            late = ", ".join(name for _, name, _ in self._asked.values())
            self._say(f"Waiting for {late}: their CPUs or GPUs may be in the hands of another's Ray tasks.")
        while self._asked:
            wrong += self._hear(timeout=PATIENCE_SECONDS)
        if wrong:
            raise ZooError("\n".join(wrong))
        for node in self:
            self._say(f"Measuring on {node.name}, {node.share.count} at a time.")

    def _ask(self) -> None:
        """Look who is there, and ask newcomers what they are."""
        self._next_look = time.monotonic() + LOOK_SECONDS
        alive = _alive()
        for id in self._known.keys() - alive.keys():
            self._say(f"{self._known.pop(id).name} has left the Ray cluster.")
        met = {*self._known, *self._unfit, *(id for id, _, _ in self._asked.values())}
        for id in sorted(alive.keys() - met):
            share = share_of(alive[id]["Resources"], self._device)
            if share.count:
                asked = self._describe.options(**ray_options(id, 0, share.gpus)).remote(self._device)
                self._asked[asked] = (id, _name(alive[id]), share)

    def _hear(self, timeout: float) -> list[str]:
        """Take in the answers that have come, and return what is wrong with those who gave them."""
        wrong = []
        ready = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=timeout)[0] if self._asked else []
        for answer in ready:
            id, name, share = self._asked.pop(answer)
            try:
                node = Node(id=id, name=name, share=share, environment=ray.get(answer))
            except RayTaskError as cause:
                reason = str(getattr(cause, "cause", cause)).strip().splitlines()[-1]
                fix = f"Install the same there as here: pip install 'segmentation-zoo[ray]=={self._own_version}'."
                wrong.append(f"{name} in the Ray cluster cannot measure: {reason}\n{fix}")
                self._unfit.add(id)
                continue
            except RayError as cause:  # it is gone again, or its Ray is broken
                self._say(f"{name} in the Ray cluster did not answer: {first_line(cause)}")
                self._unfit.add(id)
                continue
            if told := differences(self._environment, node.environment):
                wrong.append(_told_differences(name, told))
                self._unfit.add(id)
            else:
                self._known[id] = node
        return wrong

    @property
    def _own_version(self) -> str:
        return str(self._environment["versions"][OWN_DISTRIBUTION])


def _told_differences(name: str, differences: list[str]) -> str:
    lines = "".join(f"\n  {line}" for line in differences)
    return (
        f"{name} in the Ray cluster has other versions installed than this machine, so that what is measured there could not "
        f"be compared:{lines}\nInstall the same there as here, or take it out of the cluster (`ray stop` on it)."
    )


def ray_options(id: str, cpus: int, gpus: int) -> dict[str, Any]:
    """Return what Ray is told of a task or an actor that is to be on one machine, and nowhere else."""
    affinity = NodeAffinitySchedulingStrategy(node_id=id, soft=False)
    return {"num_cpus": cpus, "num_gpus": gpus, "scheduling_strategy": affinity}


def _alive() -> dict[str, dict[str, Any]]:
    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes  # has no annotations of its own
    return {facts["NodeID"]: facts for facts in nodes() if facts["Alive"]}


def _name(facts: Mapping[str, Any]) -> str:
    return f"{facts['NodeManagerHostname']} ({facts['NodeManagerAddress']}, node {facts['NodeID'][:8]})"


def _told(facts: Mapping[str, Any]) -> str:
    resources = facts["Resources"]
    return f"{_name(facts)} with {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def first_line(cause: BaseException) -> str:
    """Return what went wrong in one line; Ray says much more."""
    return f"{type(cause).__name__}: {cause}".splitlines()[0].partition(". ")[0].rstrip(".")

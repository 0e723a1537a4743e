"""The benchmark: measure pairings side by side, store the results, and show them as one table."""

from __future__ import annotations

from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.benchmark.config import BenchConfig, load_config
from zoo.common.choices import DEFAULT_STORE

if TYPE_CHECKING:
    from zoo.benchmark.table.table import Table

__all__ = ["BenchConfig", "bench", "load_config"]


def bench(
    config: str | PathLike[str] | BenchConfig, *, store: str | PathLike[str] = DEFAULT_STORE, ray: str | None = None
) -> Table:
    """Measure every pairing of a configuration side by side, and return the table of results.

    If a run with the same configuration, machine and software was interrupted, it is resumed.

    Args:
        config: the path of a YAML file, or the configuration itself.
        store: the SQLite file that each result is written to as soon as it is measured; created if it does not exist.
        ray: the address of the Ray cluster to measure on, or "auto" for the cluster that this machine belongs to (see
            `docs/guides/many-machines.md`). By default, the pairings are measured on this machine.

    Returns:
        The table. `print(table)` shows it, and `table.rows` contains its values. A pairing that failed has a row,
        too, which contains the error message.

    Raises:
        ConfigError: the configuration is wrong.
        ZooError: a plugin file, the store or the Ray cluster cannot be used.

    Example:
        >>> print(zoo.bench("configs/resnet18.yaml"))
    """
    from zoo.benchmark.running.local import LocalProcesses
    from zoo.benchmark.running.progress import ConsoleWatcher
    from zoo.benchmark.running.ray.connect import ray_executor
    from zoo.benchmark.running.sweep import run_sweep
    from zoo.benchmark.store.store import Store
    from zoo.benchmark.table.table import table_of

    wanted = config if isinstance(config, BenchConfig) else load_config(Path(config))
    with ConsoleWatcher() as watcher:
        make_executor = LocalProcesses if ray is None else ray_executor(ray, watcher.say)
        with closing(Store(Path(store))) as opened:
            run = run_sweep(wanted, opened, watcher, make_executor)
            return table_of(opened, run.id)

"""Fixtures for every test: a registry of one's own, and real distributions for it to discover."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
from textwrap import dedent

import pytest
from hypothesis import settings

from zoo.registry.registry import default_registry

settings.register_profile("zoo", deadline=None, derandomize=True, database=None)
settings.load_profile("zoo")


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """Import the tests and what they test without looking for garbage, which took a fifth of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        gc.set_threshold(10_000, 10, 10)


@pytest.fixture(scope="module", autouse=True)
def only_what_is_new_may_be_garbage():
    """Keep what is imported by now from being visited by each garbage collection, which took an eighth of the time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def one_thread():
    """Small operations on several threads take ten times as long where other processes want the cores too."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def heeds_interrupts():
    """A process that was started in the background ignores Ctrl-C; within a test it raises KeyboardInterrupt."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def fresh_registry():
    """What a test registers or installs is gone after it."""
    default_registry.cache_clear()
    yield
    default_registry.cache_clear()


@pytest.fixture
def install(tmp_path, monkeypatch, fresh_registry):
    """Return a function that installs a distribution: entry points by group, and the source of each module."""
    site = tmp_path / "site-packages"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    installed = set()

    def put(distribution, entry_points, modules, *, metadata=True):
        info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        if metadata:
            info.joinpath("METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        lines = []
        for group, entries in entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {module}" for name, module in entries.items())]
        info.joinpath("entry_points.txt").write_text("\n".join(lines))
        for module, source in modules.items():
            site.joinpath(f"{module}.py").write_text(dedent(source))
            installed.add(module)
        importlib.invalidate_caches()
        default_registry.cache_clear()

    yield put
    for module in installed:
        sys.modules.pop(module, None)


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Return a function that runs `zoo` with some arguments: its exit status, stdout and stderr."""
    from zoo.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["zoo", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return (stop.value.code or 0, *capsys.readouterr())

    return run

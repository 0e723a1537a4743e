"""The imports of the core: no circles, and none that a linter cannot see."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import zoo

CORE = Path(zoo.__file__).parent


def test_no_two_modules_import_each_other_in_a_loop_even_within_functions():
    graph = grimp.build_graph("zoo", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError, with the modules of one loop


def test_no_module_of_the_core_is_imported_by_its_name_as_text():
    hidden = [path for path in CORE.rglob("*.py") if 'import_module("zoo' in path.read_text(encoding="utf-8")]
    assert hidden == []

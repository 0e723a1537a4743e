"""The imports of the core: no circles, and none that a linter cannot see."""

from __future__ import annotations

from graphlib import TopologicalSorter
from pathlib import Path

import grimp

import zoo

CORE = Path(zoo.__file__).parent


def test_no_two_modules_import_each_other_in_a_loop_even_within_functions():
    graph = grimp.build_graph("zoo", cache_dir=None)

    def imported_by(module):
        """Return the imported modules and, for each, the packages that Python imports before it."""
        found = set(graph.find_modules_directly_imported_by(module))
        packages = {".".join(parts[:i]) for parts in (each.split(".") for each in found) for i in range(1, len(parts))}
        return found | {package for package in packages if not f"{module}.".startswith(f"{package}.")}

    imports = {module: imported_by(module) for module in graph.modules}
    assert len(imports) > 100
    TopologicalSorter(imports).prepare()  # raises CycleError, with the modules of one loop


def test_no_module_of_the_core_is_imported_by_its_name_as_text():
    hidden = [path for path in CORE.rglob("*.py") if 'import_module("zoo' in path.read_text(encoding="utf-8")]
    assert hidden == []

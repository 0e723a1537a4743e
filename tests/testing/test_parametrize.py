"""`parametrize_with_checks` in pytest runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import zoo
from zoo.testing import parametrize_with_checks

HEAD = """
    import zoo
    from planted_decoders import FAULTY, Sum, register
    from zoo.testing import parametrize_with_checks
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, fresh_registry, one_thread):
    """Return a function that runs pytest on some code, within the pytest that runs: its exit status and what it prints."""
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def run(code, *arguments):
        file = tmp_path / "test_it.py"
        file.write_text(dedent(HEAD) + dedent(code), encoding="utf-8")
        plugins = [word for name in ("cacheprovider", "faulthandler", "xdist") for word in ("-p", f"no:{name}")]
        surroundings = ["--rootdir", str(tmp_path), "--import-mode=importlib", "--capture=no"]
        status = pytest.main([*plugins, *surroundings, *arguments, str(file)])
        del sys.modules["test_it"]
        return status, capsys.readouterr().out

    return run


def test_each_check_is_a_test_with_a_readable_id(run):
    code, output = run(
        """
        id = register(Sum)

        @parametrize_with_checks(["unet-basic", id])
        def test_conformance(check):
            check()
        """,
        "-v",
        "-k",
        "eval_is_deterministic or make_head_gives_classes",
    )
    assert code == 0, output
    assert "test_conformance[unet-basic-eval_is_deterministic] PASSED" in output
    assert "test_conformance[local:Sum-eval_is_deterministic] PASSED" in output
    assert "test_conformance[local:Sum-make_head_gives_classes] SKIPPED" in output
    assert "compiles" not in output


def test_an_expected_failure_is_a_strict_xfail(run):
    code, output = run(
        """
        id = register(FAULTY["IgnoresASkipSum"])
        reasons = {(id, "every_map_matters"): "known", "batch_is_kept": "it is not"}

        @parametrize_with_checks([id], expected_failures=reasons)
        def test_conformance(check):
            check()
        """,
        "-v",
        "-k",
        "every_map_matters or batch_is_kept",
    )
    assert code == 1, output
    assert "1 failed, 22 deselected, 1 xfailed" in output
    assert "every_map_matters] XFAIL" in output
    assert "batch_is_kept] FAILED" in output
    assert "[XPASS(strict)] it is not" in output


def test_a_failure_shows_the_error_of_that_check_alone(run):
    code, output = run(
        """
        id = register(FAULTY["WrongOutStrideSum"])

        @parametrize_with_checks([id])
        def test_conformance(check):
            check()
        """,
        "-k",
        "out_stride_is_as_declared",
    )
    assert code == 1
    assert "ConformanceError: The decoder local:WrongOutStrideSum fails 1 of 1 checks." in output
    assert "what to do: set self.out_stride" in output


def checks_of(mark):
    return [parameter.values[0] for parameter in mark.args[1]]


@pytest.mark.usefixtures("fresh_registry")
def test_an_id_of_both_kinds_is_checked_as_both():
    zoo.register_decoder("twofold", object)
    zoo.register_encoder("twofold", object, pyramid=[zoo.plugin.FeatureMap(name="x", channels=1, stride=2)])
    mark = parametrize_with_checks(["local:twofold"])
    assert {check.kind for check in checks_of(mark)} == {"encoder", "decoder"}
    ids = [parameter.id for parameter in mark.args[1]]
    assert len(set(ids)) == len(ids)
    assert "local:twofold-decoder-eval_is_deterministic" in ids


def test_compiling_is_a_test_where_it_is_asked_for():
    names = [check.name for check in checks_of(parametrize_with_checks(["resnet18"], compile=True))]
    assert "compiles" in names
    assert "compiles" not in [check.name for check in checks_of(parametrize_with_checks(["resnet18"]))]


@pytest.mark.parametrize(
    ("ids", "expected_failures", "error", "message"),
    [
        ([], None, zoo.errors.OptionError, "no ids"),
        ("resnet18", None, zoo.errors.OptionError, r"Write \['resnet18'\]"),
        (["resnet18", "resnet18"], None, zoo.errors.OptionError, "an id twice: resnet18"),
        (["resnet81"], None, zoo.errors.UnknownIdError, "resnet18"),
        (["resnet18"], {"no_such_check": "why"}, zoo.errors.OptionError, "'no_such_check', which is not a check of resnet18"),
        (["resnet18"], {("unet-basic", "exports"): "why"}, zoo.errors.OptionError, "which is not a check of resnet18"),
        (["resnet18"], {"compiles": "why"}, zoo.errors.OptionError, "which is not a check"),
        (["resnet18"], {"exports": ""}, zoo.errors.OptionError, "must be the reason"),
    ],
)
def test_what_cannot_be_meant_is_refused(ids, expected_failures, error, message):
    with pytest.raises(error, match=message):
        parametrize_with_checks(ids, expected_failures=expected_failures)


@pytest.mark.parametrize("missing", ["hypothesis", "pytest"])
def test_a_missing_library_is_named_with_what_installs_it(monkeypatch, missing):
    told = rf'zoo\.testing requires {missing}, which is not installed .* pip install "segmentation-zoo\[testing\]"'
    with monkeypatch.context() as without:
        without.setitem(sys.modules, missing, None)
        with pytest.raises(zoo.ZooError, match=told):
            parametrize_with_checks(["resnet18"])


def test_the_kit_itself_imports_neither_pytest_nor_hypothesis():
    code = "import sys, zoo.testing; print({'pytest', 'hypothesis'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"

"""What the documents show is what runs."""

import re
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import zoo
from zoo.cli.new.distribution import write_distribution

ROOT = Path(__file__).parents[1]
README = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks/readme.py")))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(document: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "docs/guides/coming-from-smp.md",
        pytest.param("docs/guides/deploy.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/export.md", marks=pytest.mark.slow),
        "docs/explanation/pairing.md",
        pytest.param("docs/reference/plugins.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/predict.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/train.md", marks=pytest.mark.slow),
        pytest.param("docs/guides/write-a-decoder.md", marks=pytest.mark.slow),
    ],
)
@pytest.mark.usefixtures("fresh_registry")
def test_every_python_snippet_of_a_document_runs_from_top_to_bottom(name, tmp_path, monkeypatch, capsys):
    snippets = blocks(ROOT / name, "python")
    assert snippets
    script = tmp_path / "document.py"
    script.write_text("\n".join(snippets), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    shown = re.findall(
        r"^print\(.*\)\s+# (torch\.Size\(\[[\d, ]+\]\)|\d+ checks ran on \S+, all passed)", script.read_text(), re.MULTILINE
    )
    assert [said for said in shown if said not in printed] == []


@pytest.mark.parametrize("example", ["basic_decoder.py", "sum_decoder.py"])
def test_the_tutorial_shows_the_example_files_as_they_are(example):
    code = (ROOT / "docs/examples" / example).read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    assert any(code.strip() in block for block in blocks(ROOT / "docs/guides/write-a-decoder.md", "python"))


def test_the_tutorial_shows_the_configuration_that_the_repository_holds():
    (shown,) = blocks(ROOT / "docs/guides/write-a-decoder.md", "yaml")
    assert yaml.safe_load(shown) == yaml.safe_load((ROOT / "configs/tutorial.yaml").read_text(encoding="utf-8"))


def test_the_tutorials_package_is_what_zoo_new_writes(tmp_path):
    write_distribution("decoder", "my-fpn", tmp_path / "my-fpn")
    hooks = (tmp_path / "my-fpn/src/my_fpn/__init__.py").read_text(encoding="utf-8").split('"""\n\n', 1)[1]
    shown = next(block for block in blocks(ROOT / "docs/guides/write-a-decoder.md", "python") if "@zoo.plugin.hookimpl" in block)
    assert shown.strip() == hooks.removeprefix("from __future__ import annotations\n\n").strip()
    (entry_point,) = blocks(ROOT / "docs/guides/write-a-decoder.md", "toml")
    assert entry_point.strip() in (tmp_path / "my-fpn/pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_of_a_document_leads_somewhere(document):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists()]
    assert not missing


def test_the_architecture_page_names_every_package_in_at_most_120_lines():
    page = (ROOT / "docs/contributing/architecture.md").read_text(encoding="utf-8")
    packages = [path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "zoo").rglob("__init__.py")]
    assert len(packages) > 20
    unnamed = [name for name in packages if f"`{name}/`" not in page and f"`{name.rpartition('/')[2]}/`" not in page]
    assert unnamed == ["zoo"]
    assert len(page.splitlines()) <= 120


def test_the_configuration_that_the_benchmarks_page_shows_is_valid_and_names_every_key(tmp_path):
    from zoo.benchmark import load_config
    from zoo.benchmark.config import BenchConfig

    page = ROOT / "docs/guides/benchmark.md"
    (shown,) = blocks(page, "yaml")
    (tmp_path / "shown.yaml").write_text(shown, encoding="utf-8")
    assert len(load_config(tmp_path / "shown.yaml").all_pairings()) == 7
    text = page.read_text(encoding="utf-8")
    assert [key for key in BenchConfig.model_fields if f"`{key}`" not in text and f"`{key}:" not in text] == []


def test_the_tables_page_names_every_column():
    from zoo.benchmark.table.columns import COLUMNS

    page = (ROOT / "docs/explanation/reading-the-table.md").read_text(encoding="utf-8")
    plain = ("run", "pairing", "mode", "batch", "size", "device", "dtype", "format", "runtime", "quality")
    assert [column.name for column in COLUMNS if f"`{column.name}`" not in page and column.name not in plain] == []


@pytest.mark.parametrize("config", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_every_configuration_of_the_repository_is_valid(config):
    from zoo.benchmark import load_config

    assert load_config(config).all_pairings()


def test_the_readme_names_every_decoder_of_the_project():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in zoo.list_decoders("unet:*") if f"`{name}`" not in readme] == []


def test_the_pages_tables_are_the_measured_ones():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert README.with_tables(text, ROOT) == text, f"{page.name}: run python benchmarks/readme.py"


def test_the_gpus_table_stands_first_in_the_readme_once_it_is_measured_and_nothing_before(tmp_path):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    results = tmp_path / "benchmarks/results"
    results.mkdir(parents=True)
    (results / "resnet18-cpu.md").write_text("**of a CPU**\n\n| a |\n\n- a note\n", encoding="utf-8")
    without = README.with_tables(text, tmp_path)
    assert "<!-- table: benchmarks/results/resnet18-gpu.md -->\n<!-- /table -->" in without
    assert "a note" not in without
    (results / "resnet18-gpu.md").write_text("**of a GPU**\n\n| a |\n\n- another note\n\n**more**\n", encoding="utf-8")
    shown = README.with_tables(text, tmp_path)
    assert 0 < shown.index("**of a GPU**") < shown.index("**more**") < shown.index("**of a CPU**")
    assert "another note" not in shown

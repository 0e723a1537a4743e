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


WRITTEN = ("reference/cli.md", "reference/yaml.md")  # by `make docs`
SLOW = (
    "guides/deploy.md",
    "guides/export.md",
    "guides/predict.md",
    "guides/train.md",
    "guides/write-a-decoder.md",
    "reference/plugins.md",
)


def snippet_pages():
    pages = [
        page for page in DOCUMENTS if blocks(page, "python") and page.name != "from-table-to-service.md"
    ]  # test_way.py runs that
    names = [page.relative_to(ROOT).as_posix() for page in pages]
    return [pytest.param(name, marks=[pytest.mark.slow] * name.endswith(SLOW)) for name in names]


@pytest.mark.parametrize("name", snippet_pages())
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # Lightning's, of a function that PyTorch renames
@pytest.mark.usefixtures("fresh_registry")
def test_every_python_snippet_of_a_document_runs_from_top_to_bottom(name, tmp_path, monkeypatch, capsys):
    snippets = blocks(ROOT / name, "python")
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
    shown = next(
        block for block in blocks(ROOT / "docs/guides/write-a-decoder.md", "python") if "@zoo.plugin.hookimpl" in block
    )
    assert shown.strip() == hooks.removeprefix("from __future__ import annotations\n\n").strip()
    (entry_point,) = blocks(ROOT / "docs/guides/write-a-decoder.md", "toml")
    assert entry_point.strip() in (tmp_path / "my-fpn/pyproject.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_of_a_document_leads_somewhere(document):
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (document.parent / target).exists() and not target.endswith(WRITTEN)]
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
    from zoo.training.config import load_train_config

    if "quality" not in (keys := yaml.safe_load(config.read_text(encoding="utf-8"))) and "data" in keys:
        assert load_train_config(config, {}).data.source
    else:
        assert load_config(config).all_pairings()


def test_the_readme_fits_on_a_few_screens():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 90


def test_the_reference_shows_every_public_name():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md"))
    names = [name for name in zoo.__all__ if name not in ("errors", "plugin", "ZooError") and not name.startswith("_")]
    assert len(names) > 30
    assert [name for name in names if f"::: zoo.{name}\n" not in pages] == []
    assert [name for name in zoo.plugin.__all__ if name not in pages] == []


def test_the_page_of_yaml_explains_every_key(tmp_path):
    reference = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/write_reference.py")))
    unexplained = [line for line in reference.yaml_page().splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert unexplained == []


def test_the_page_of_commands_cuts_off_no_summary():
    reference = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts/write_reference.py")))
    summaries = re.findall(r"^\* `[a-z]\S*`: (.*)$", reference.cli_page(), re.MULTILINE)
    assert len(summaries) > 15
    assert [summary for summary in summaries if not summary.endswith(".") or summary.endswith("...")] == []


def test_every_page_is_in_the_sites_navigation_and_leads_to_pages_of_the_site_alone():
    config = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    pages = [*(ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f'"{page.relative_to(ROOT / "docs").as_posix()}"' not in config] == []
    targets = [
        (page, target)
        for page in pages
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).resolve().is_relative_to(ROOT / "docs")
    ]
    assert targets == []


def test_the_pages_tables_are_the_measured_ones():
    for page in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert README.with_tables(text, ROOT) == text, f"{page.name}: run python benchmarks/readme.py"


def test_a_table_is_shown_once_it_is_measured_and_without_its_notes(tmp_path):
    page = "before\n<!-- table: results/x.md -->\nold\n<!-- /table -->\nafter"
    empty = "before\n<!-- table: results/x.md -->\n<!-- /table -->\nafter"
    assert README.with_tables(page, tmp_path) == empty
    (tmp_path / "results").mkdir()
    (tmp_path / "results/x.md").write_text("**of a GPU**\n\n| a |\n\n- a note\n\n**more**\n", encoding="utf-8")
    shown = README.with_tables(page, tmp_path)
    assert shown == "before\n<!-- table: results/x.md -->\n**of a GPU**\n\n| a |\n\n**more**\n<!-- /table -->\nafter"

"""What a resumed run must share with the one that was interrupted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from zoo.benchmark.running.environment import code_version

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path):
    for name in ("zoo/core.py", "plugins/one.py", "README.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("first\n", encoding="utf-8")
    git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "first"]):
        subprocess.run([*git, *command], check=True)
    return tmp_path


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="these files are no checkout")
def test_the_version_of_the_code_that_runs_is_its_checkouts_commit():
    done = subprocess.run(["git", "-C", ROOT, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
    assert code_version().partition("+")[0] == done.stdout.strip()


def test_a_clean_checkout_is_its_commit_and_no_checkout_has_none(checkout, tmp_path_factory):
    assert len(code_version(checkout)) == 12
    assert code_version(tmp_path_factory.mktemp("installed")) == ""


@pytest.mark.parametrize("name", ["README.md", "results.sqlite-wal", "notes.py"])
def test_what_is_not_the_code_does_not_keep_a_run_from_being_resumed(checkout, name):
    before = code_version(checkout)
    (checkout / name).write_text("second\n", encoding="utf-8")
    assert code_version(checkout) == before


@pytest.mark.parametrize("name", ["zoo/core.py", "plugins/one.py", "plugins/new.py"])
def test_each_change_of_the_code_makes_another_version(checkout, name):
    versions = [code_version(checkout)]
    for content in ("second\n", "third\n"):
        (checkout / name).write_text(content, encoding="utf-8")
        versions.append(code_version(checkout))
    assert len(set(versions)) == 3

"""Run the parts of `benchmarks/gpu.sh` with time limits, most important first, and save each step's outcome in a folder.

A part (see `gpu_parts.py`) consists of steps, and each step is one process. The outcome of a step is written to `parts.json` as
soon as the step ends. The store of the benchmark runs is in the same folder. So a second call with that folder repeats no
finished step, and continues unfinished benchmark runs. After each part, the script prints the time that the part took and the
time that is left.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_parts import PARTS, ROOT, Part, Step, needed_by_part

if TYPE_CHECKING:
    from zoo.benchmark.table.table import Table

LEAST_SECONDS = 15
"""A step is not started if less time than this is left, since imports would take most of that time."""
GRACE_SECONDS = 8
"""A process that reached a time limit is interrupted. If it does not end by itself within this time, it is killed."""
KEPT_LINES = 25
"""If a step fails, this many of the last lines that it printed are stored."""
README_ROWS = (("batch=1", "size=256", "dtype=float32"), ("batch=8", "size=512", "dtype=bfloat16"))
"""The conditions that select the rows for the README from the results of configs/gpu-table.yaml.

The first group has the conditions of the README's CPU table. The second has conditions that are typical for training.
"""
TINY_RUN = {
    "encoders": [],
    "decoders": [],
    "pairings": [{"encoder": "resnet18", "decoder": "unet-basic", "levels": 2}],
    "batch": [2],
    "size": [64],
    "dtype": ["float32"],
    "modes": ["inference"],
    "rounds": 20,
}
TINY_BASELINE = {
    "name": "conv",
    "factory": "torch.nn:Conv2d",
    "options": {"in_channels": 3, "out_channels": 1, "kernel_size": 1},
}


class Results:
    """The folder with the outcome of each step and with the benchmark store. A later call continues from these."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "zoo.sqlite"
        self._file = folder / "parts.json"
        folder.mkdir(parents=True, exist_ok=True)
        self.outcomes: dict[str, dict[str, dict[str, Any]]] = {}
        if self._file.exists():
            try:
                self.outcomes = json.loads(self._file.read_text(encoding="utf-8"))
            except ValueError as cause:
                raise SystemExit(
                    f"gpu.py: {self._file} is damaged ({cause}). Restore the file, or move it away to start over."
                ) from cause

    def find(self, part: Part, step: Step) -> dict[str, Any] | None:
        """Return the outcome of a step; None if the step was not started."""
        return self.outcomes.get(part.name, {}).get(step.name)

    def is_left(self, part: Part, step: Step) -> bool:
        """Return whether a step must still run: it was not started, or it was cut off.

        There are time limits for the step, for its part (a group of steps), and for the whole call of the script. A benchmark
        run counts as cut off if any of these limits ends it. Any other step counts as failed if it reaches its own limit, and
        as cut off if another limit ends it first.
        """
        found = self.find(part, step)
        return found is None or found["outcome"] == "cut off"

    def keep(self, part: Part, step: Step, outcome: dict[str, Any]) -> None:
        """Store the outcome of a step, with the seconds of earlier attempts added. The file is replaced in one operation."""
        before = self.find(part, step) or {}
        outcome["seconds"] = round(outcome["seconds"] + before.get("seconds", 0), 1)
        self.outcomes.setdefault(part.name, {})[step.name] = outcome
        self._write()

    def forget_failures(self, part: str) -> None:
        """Delete the failed outcomes of a part, so that its failed steps run again."""
        steps = self.outcomes.get(part, {})
        self.outcomes[part] = {name: step for name, step in steps.items() if step["outcome"] != "failed"}
        self._write()

    def _write(self) -> None:
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(self.outcomes, indent=1) + "\n", encoding="utf-8")
        draft.replace(self._file)


class Call:
    """One call of the script, with its deadline and its results."""

    def __init__(self, results: Results, *, deadline: float, is_tiny: bool, scratch: Path) -> None:
        import torch

        self.results = results
        self.deadline = deadline
        self.is_tiny = is_tiny
        self.scratch = scratch
        self.has_gpu = torch.accelerator.is_available()

    @property
    def left(self) -> float:
        """The seconds until the call must end."""
        return self.deadline - time.monotonic()

    def run(self, parts: Sequence[Part]) -> None:
        """Run the remaining steps of the parts until the call's deadline, and write the reports after each part."""
        for index, part in enumerate(parts):
            began = time.monotonic()
            outcome = self._run_part(part)
            later = [each.name for each in parts[index + 1 :] if any(self._steps_left(each))]
            print(
                f"== {part.name}: {outcome} in {time.monotonic() - began:.0f} s (limit {part.seconds:.0f} s). "
                f"{max(0, self.left):.0f} s left for: {', '.join(later) or 'nothing more'}.",
                flush=True,
            )
            write_reports(self.results, self.has_gpu)

    def _steps_left(self, part: Part) -> Iterator[Step]:
        for step in part.steps:
            if (not self.is_tiny or step.tiny is not None) and self.results.is_left(part, step):
                yield step

    def _run_part(self, part: Part) -> str:
        steps = list(self._steps_left(part))
        if not steps:
            return "nothing left to do"
        missing = [name for module, name in (part.needs or {}).items() if find_spec(module) is None]
        if missing:
            return f"left out, because {', '.join(missing)} is neither installed nor among the wheels,"
        end = time.monotonic() + part.seconds
        counts: dict[str, int] = {}
        for step in steps:
            seconds = min(step.seconds, end - time.monotonic(), self.left)
            if seconds < min(LEAST_SECONDS, step.seconds):
                counts["not begun"] = counts.get("not begun", 0) + 1
                continue
            print(f"-- {part.name}: {step.name} (at most {seconds:.0f} s)", flush=True)
            outcome = self._run_step(step, seconds)
            self.results.keep(part, step, outcome)
            counts[outcome["outcome"]] = counts.get(outcome["outcome"], 0) + 1
            print(f"   {outcome['outcome']} in {outcome['seconds']:.0f} s; {outcome['last']}", flush=True)
        return ", ".join(f"{number} {name}" for name, number in counts.items())

    def _run_step(self, step: Step, seconds: float) -> dict[str, Any]:
        """Run a step in a process for at most `seconds`, and return the outcome of the step."""
        output = self.scratch / "output.md"
        output.unlink(missing_ok=True)
        began = time.monotonic()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as printed:
            process = subprocess.Popen(
                [sys.executable, *(part.replace("{output}", str(output)) for part in self._arguments(step))],
                cwd=ROOT,
                stdout=printed,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
            status = _wait(process, seconds)
            printed.seek(0)
            lines = [line.rstrip() for line in printed.read().splitlines() if line.strip()]
        ended = "done" if status == 0 else "failed"
        if status is None:
            is_own_limit = seconds >= step.seconds and not step.config
            ended = "failed" if is_own_limit else "cut off"
            lines.append(f"it did not end within {seconds:.0f} s")
        shares = [line for line in lines if line.startswith("Measured calls took")]
        kept = lines if ended == "failed" else []
        return {
            "outcome": ended,
            "seconds": time.monotonic() - began,
            "last": (shares or lines or ["it printed nothing"])[-1],
            "printed": kept[-KEPT_LINES:],
            "output": output.read_text(encoding="utf-8") if output.exists() else "",
        }

    def _arguments(self, step: Step) -> Sequence[str]:
        if not step.config:
            return step.tiny if self.is_tiny and step.tiny is not None else step.arguments
        config = self.scratch / step.config
        write_config(ROOT / "configs" / step.config, config, is_tiny=self.is_tiny, has_gpu=self.has_gpu)
        result = self.scratch / "table.json"
        return ("-m", "zoo", "bench", str(config), "--store", str(self.results.store), "--output", str(result))


def write_config(source: Path, target: Path, *, is_tiny: bool, has_gpu: bool) -> None:
    """Write a benchmark's configuration for this machine.

    If `is_tiny`, the settings are for a quick test. Without a GPU, the configuration has no CUDA graphs.
    """
    import yaml

    facts = yaml.safe_load(source.read_text(encoding="utf-8"))
    if is_tiny:
        facts |= TINY_RUN
        if "quality" in facts:
            facts["quality"] |= {"budget": 2, "seeds": 1, "batch": 2}
        else:
            facts["baseline"] = TINY_BASELINE
    if not has_gpu:
        facts["runtime"] = [name for name in facts.get("runtime", ["eager"]) if "cudagraphs" not in name]
    target.write_text(yaml.safe_dump(facts, sort_keys=False), encoding="utf-8")


def _end_with_parent() -> None:
    """Make the kernel kill this process when its parent process ends for any reason."""
    kill_me = 1  # PR_SET_PDEATHSIG
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(kill_me, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    """Wait for a process, and return its exit status. After `seconds`, stop it and all its child processes, and return None."""
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    for sent, wait in ((signal.SIGINT, GRACE_SECONDS), (signal.SIGKILL, GRACE_SECONDS)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.wait(wait)
            break
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return None


def write_reports(results: Results, has_gpu: bool) -> None:
    """Write the reports: the rows for the README, all tables, the comparison with other libraries, and each step's outcome."""
    from zoo.benchmark.analysis.conditions import filter_rows, parse_conditions
    from zoo.benchmark.analysis.selection import select_rows
    from zoo.benchmark.table.document import document

    ending = "gpu" if has_gpu else "cpu"
    tables = _tables(results.store)
    whole = tables.get("resnet18")
    shown = [select_rows(whole, filter_rows(whole.rows, parse_conditions(texts))) for texts in README_ROWS] if whole else []
    reports = {
        f"resnet18-{ending}.md": "\n\n".join(document(table).render("markdown") for table in shown if table.rows),
        f"pairings-{ending}.md": "\n\n".join(document(table).render("markdown") for table in tables.values()),
        f"peers-{ending}.md": "\n\n".join(step["output"] for step in results.outcomes.get("peers", {}).values()),
        f"gpu-parts-{ending}.md": _told_parts(results),
    }
    for name, text in reports.items():
        if text.strip():
            (results.folder / name).write_text(text.strip() + "\n", encoding="utf-8")


def _tables(store: Path) -> dict[str, Table]:
    """Return a mapping from the name of each configuration to the table of its latest run that has measurements."""
    from zoo.benchmark.store.store import Store
    from zoo.benchmark.table.table import table_of

    if not store.exists():
        return {}
    with closing(Store(store)) as opened:
        latest = {run.name: run.id for run in opened.runs() if any(group.rounds for group in opened.groups(run.id))}
        return {name: table_of(opened, run) for name, run in latest.items()}


def _told_parts(results: Results) -> str:
    lines = ["| part | step | outcome | seconds | last line |", "| --- | --- | --- | ---: | --- |"]
    details = []
    for part in PARTS:
        for step in part.steps:
            found = results.find(part, step)
            if found is None:
                lines.append(f"| {part.name} | {step.name} | not begun | | |")
                continue
            last = re.sub(r"[|\x00-\x1f]", " ", found["last"])[:200]
            lines.append(f"| {part.name} | {step.name} | {found['outcome']} | {found['seconds']:.0f} | {last} |")
            title = f"## {part.name}: {step.name}"
            if found["output"] and part.name != "peers":
                details += ["", title, "", found["output"].strip()]
            if found["printed"]:
                details += ["", f"{title}, the last lines of what it printed", "", "```", *found["printed"], "```"]
    return "\n".join([*lines, *details])


def main() -> None:
    """Run the requested parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="the folder for the results; a later call continues from it")
    parser.add_argument("--seconds", type=float, default=540, help="the time limit of the call (540)")
    parser.add_argument(
        "--spent", type=float, default=0, help="the part of these seconds that was used before this process started"
    )
    parser.add_argument("--parts", default="", help="comma-separated names of the parts to run; their failed steps run again")
    parser.add_argument("--tiny", action="store_true", help="use tiny settings, to try the script")
    parser.add_argument("--remove", type=Path, help="a folder to remove at the end")
    parser.add_argument("--list-needs", action="store_true", help="print the distributions that some parts need, and exit")
    asked = parser.parse_args()
    if asked.list_needs:
        print("\n".join(dict.fromkeys(name for names in needed_by_part().values() for name in names)))
        return
    if asked.results is None:
        parser.error("--results DIR is missing: give the folder for the results")
    names = [name.strip() for name in asked.parts.split(",") if name.strip()]
    known = [part.name for part in PARTS]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"unknown part: {', '.join(map(repr, unknown))}. The parts are: {', '.join(known)}")
    results = Results(asked.results.resolve())
    for name in names:
        results.forget_failures(name)
    began = time.monotonic() - asked.spent
    with tempfile.TemporaryDirectory() as scratch:
        call = Call(results, deadline=began + asked.seconds, is_tiny=asked.tiny, scratch=Path(scratch))
        print(f"Environment ready after {asked.spent:.0f} s; {call.left:.0f} s left.", flush=True)
        call.run([part for part in PARTS if not names or part.name in names])
    if asked.remove:
        shutil.rmtree(asked.remove, ignore_errors=True)


if __name__ == "__main__":
    main()

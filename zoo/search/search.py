"""Search for the best pairing: from the request to the result."""

from __future__ import annotations

import shutil
import statistics
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.benchmark.analysis.conditions import filter_rows
from zoo.benchmark.analysis.facts import FACTS
from zoo.benchmark.analysis.recommend import LIMITS
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.progress import Watcher
from zoo.benchmark.running.sweep import ExecutorFactory
from zoo.benchmark.store.store import Store
from zoo.benchmark.table.table import Table
from zoo.benchmark.trial import digest, subject_key
from zoo.common.devices import choose_device
from zoo.common.json_cache import JsonCache
from zoo.common.json_files import as_json
from zoo.common.regular_files import sha256_of
from zoo.errors import OptionError
from zoo.search.calibration import find_calibration
from zoo.search.candidates import CandidateFinder, Considered
from zoo.search.counting import PairingCounter, default_cache
from zoo.search.request import SearchRequest, find_entries
from zoo.search.result import SearchResult, rank
from zoo.search.search_folder import SearchFolder
from zoo.search.stages import Searcher

__all__ = ["search"]

COUNTING_SHARES = (0.4, 0.6, 0.7)
"""The shares of the time after which nothing further is counted for now. After each, the promising candidates are measured."""


def search(
    request: SearchRequest,
    store: Store,
    watcher: Watcher,
    output: Path | None,
    make_executor: ExecutorFactory,
    *,
    data: str = "",
    cache: Path | None = None,
) -> SearchResult:
    """Search for the best pairing, or go on with an interrupted search.

    Args:
        request: what to look for.
        store: the results store, which must contain a calibration of the device.
        watcher: shows the progress.
        output: the folder of the search; None for a folder next to the store, whose name follows from the request.
        make_executor: as for `zoo.benchmark.running.sweep.run_sweep`.
        data: the digest of the data; "" without data.
        cache: the file in which the counts of encoders and decoders are kept; None for a file in the user's cache folder.

    Raises:
        ZooError: the device has no calibration, a pattern matches no id, no pairing meets the limits, or the folder contains
            another search.
    """
    request = replace(request, device=str(choose_device(request.device)))
    find_entries("encoder", request.encoders)
    find_entries("decoder", request.decoders)
    calibration = find_calibration(store, device=request.device)
    try:
        plugins = {path: sha256_of(Path(path)) for path in request.plugins}
    except OSError as cause:
        raise OptionError(f"--plugin {cause.filename} cannot be read: {cause.strerror}.") from cause
    environment = describe_environment(choose_device(request.device)).as_dict()
    identity = {
        **request.as_dict(),
        "plugins": plugins,
        "data": data,
        "store": str(store.path.absolute()),
        "calibration": [calibration.run.id, calibration.run.started],
        "environment": environment,
    }
    folder = SearchFolder(output or store.path.parent / f"search-{digest(as_json(identity))[:8]}", identity)
    searcher = Searcher(request, store, watcher, folder, make_executor)
    if not folder.state.is_finished:
        searcher.resume()
        if searcher.final() is None:
            with closing(JsonCache(cache or default_cache(), watcher.say)) as counts:
                finder = CandidateFinder(request, calibration.model, PairingCounter(counts), watcher)
                for share in COUNTING_SHARES:
                    considered = finder.find(searcher.deadline(share))
                    if not considered.candidates and not folder.state.stages:
                        if considered.uncounted and share != COUNTING_SHARES[-1]:
                            continue
                        folder.discard()
                        raise OptionError(_explain_nothing(considered))
                    folder.state.considered |= {
                        "total": considered.total,
                        "candidates": len(considered.candidates),
                        "uncounted": considered.uncounted,
                        "dropped": considered.dropped,
                    }
                    searcher.measure(considered.candidates)
                    if request.quality or not considered.uncounted:
                        break
            searcher.finish(considered.candidates)
    table = searcher.final()
    assert table is not None
    result = _result(request, store, folder, searcher, table)
    if not folder.state.is_finished:
        if request.quality:
            _save_best(result, folder, store, watcher)
        folder.state.is_finished = True
        folder.save()
    shutil.rmtree(folder.training, ignore_errors=True)
    return result


def _explain_nothing(considered: Considered) -> str:
    """Return why no pairing is a candidate, and which limits the nearest pairings would meet."""
    dropped = sorted(considered.dropped.items(), key=lambda each: -each[1])
    reasons = "; ".join(f"{count:,} were dropped because {reason}" for reason, count in dropped)
    text = f"None of the {considered.total:,} pairings may meet the limits: {reasons}."
    for limit, (value, pairing) in considered.nearest.items():
        fact = FACTS[LIMITS[limit][0]]
        text += f" The nearest to --{limit.replace('_', '-')} is {pairing}, with at least {fact.format(float(f'{value:.3g}'))}."
    return text


def _result(request: SearchRequest, store: Store, folder: SearchFolder, searcher: Searcher, table: Table) -> SearchResult:
    rows = filter_rows([row for row in table.rows if row.failure is None and row.latency], request.limits)
    if request.quality:
        scores = _validation_scores(store, table.runs[0].id)
    else:
        scores = {row.key: request.prior[row.encoder] if request.prior else float(row.flops or 0) for row in rows}
    stages = [stage for stage in folder.state.stages if stage.kind != "measure" and stage.run is not None]
    trainings = [_trainings(store, stage.run) for stage in stages if request.quality and stage.run is not None]
    considered = folder.state.considered
    return SearchResult(
        request=request,
        table=table,
        rows=rank(rows, scores),
        validation=scores if request.quality else {},
        considered=considered,
        measured=sum(row.latency is not None for row in searcher.rough_rows()),
        trained=tuple(
            (stage.config["quality"]["stop_after"], sum(training.is_done for training in of_stage))
            for stage, of_stage in zip(stages, trainings, strict=False)
        ),
        failures=tuple(f"{each.name}: {each.error}" for of_stage in trainings for each in of_stage if each.error),
        untrained=sum(not training.is_done and not training.error for training in trainings[0]) if trainings else 0,
        model=folder.model if request.quality else None,
        folder=folder.path,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Training:
    """The training of a candidate in a stage: whether it succeeded with any seed and, if not, its error."""

    name: str
    is_done: bool
    error: str


def _trainings(store: Store, run: int) -> list[_Training]:
    qualities = store.qualities(run)
    found = []
    for stored in store.trials(run):
        if stored.trial.role == "control":
            continue
        results = list(qualities.get(subject_key(stored.trial.subject), {}).values())
        is_done = any(each.result for each in results)
        errors = [stored.error, *(each.error for each in results)]
        error = "" if is_done else next((error.splitlines()[0] for error in errors if error), "")
        found.append(_Training(name=str(stored.trial), is_done=is_done, error=error))
    return found


def _validation_scores(store: Store, run: int) -> dict[str, float]:
    """Return a mapping from the keys of the trials of a run to the mIoU on the validation images.

    It is the mean over the seeds with which all models were trained.
    """
    qualities = store.qualities(run)
    scores: dict[str, dict[int, float]] = {}
    for stored in store.trials(run):
        of_seeds = qualities.get(subject_key(stored.trial.subject), {})
        found = {seed: each.result.validation for seed, each in of_seeds.items() if each.result}
        known = {seed: score for seed, score in found.items() if score is not None}
        if known and stored.trial.role != "control":
            scores[stored.key] = known
    shared = set.intersection(*map(set, scores.values())) if scores else set()
    return {key: statistics.fmean(known[seed] for seed in shared or known) for key, known in scores.items()}


def _save_best(result: SearchResult, folder: SearchFolder, store: Store, watcher: Watcher) -> None:
    """Save the best trained model: of its seeds, the one with the highest mIoU on the validation images."""
    from zoo.checkpoints.loading import load
    from zoo.checkpoints.saving import save

    if result.best is None:
        return
    run = result.table.runs[0].id
    subject = subject_key(next(stored.trial.subject for stored in store.trials(run) if stored.key == result.best.key))
    results = {seed: each.result for seed, each in store.qualities(run)[subject].items() if each.result}
    seed = max(results, key=lambda seed: results[seed].validation or 0.0)
    checkpoint = folder.training / f"{subject}-{seed}" / "last.ckpt"
    if not checkpoint.exists():
        watcher.say(f"The best model is not saved here, since {checkpoint} is missing. Was it trained on another machine?")
        return
    validation, test = results[seed].validation, results[seed].scores.miou
    save(load(checkpoint), folder.model, metrics={"validation mIoU": validation, "test mIoU": test, "seed": seed})

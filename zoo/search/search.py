"""Search for the best pairing: from the request to the result."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from zoo.benchmark.analysis.conditions import filter_rows
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.kept_executor import KeptExecutor
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
from zoo.search.calibration import Calibration, find_calibration
from zoo.search.candidates import CandidateFinder
from zoo.search.counting.counter import PairingCounter, default_cache
from zoo.search.explanations import explain_nothing
from zoo.search.request import SearchRequest, find_entries
from zoo.search.result import SearchResult, rank
from zoo.search.search_folder import SearchFolder
from zoo.search.stage_runner import StageRunner
from zoo.search.stages import Searcher
from zoo.search.trainings import mean_scores, read_trainings

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
) -> SearchResult:
    """Search for the best pairing, or go on with an interrupted search.

    Args:
        request: what to look for.
        store: the results store, which must contain a calibration of the device.
        watcher: shows the progress.
        output: the folder of the search; None for a folder next to the store, whose name follows from the request.
        make_executor: as for `zoo.benchmark.running.sweep.run_sweep`.
        data: the digest of the data; "" without data.

    Raises:
        ZooError: the device has no calibration, a pattern matches no id, no pairing meets the limits, or the folder contains
            another search.
    """
    device = choose_device(request.device)
    request = replace(request, device=str(device))
    find_entries("encoder", request.encoders)
    find_entries("decoder", request.decoders)
    calibration = find_calibration(store, device=request.device)
    try:
        plugins = {path: sha256_of(Path(path)) for path in request.plugins}
    except OSError as cause:
        raise OptionError(f"--plugin {cause.filename} cannot be read: {cause.strerror}.") from cause
    environment = describe_environment(device).as_dict()
    identity = {
        **request.as_dict(),
        "plugins": plugins,
        "data": data,
        "store": str(store.path.absolute()),
        "calibration": [calibration.run.id, calibration.run.started],
        "environment": environment,
    }
    folder = SearchFolder(output or store.path.parent / f"search-{digest(as_json(identity))[:8]}", identity)
    with KeptExecutor(make_executor) as kept:
        runner = StageRunner(request, store, watcher, folder, kept)
        searcher = Searcher(request, store, folder, runner)
        if folder.state.is_finished:
            watcher.say(
                f"The search in {folder.path} is finished, and its answer is shown. To search again, name another --output."
            )
        else:
            _run_stages(request, calibration, watcher, folder, runner, searcher)
    table = searcher.final()
    assert table is not None
    result = _result(request, store, folder, searcher, table)
    if not folder.state.is_finished:
        if request.quality:
            _save_best(result, folder, store, watcher)
        folder.state.is_finished = True
        folder.save()
    shutil.rmtree(folder.training, ignore_errors=True)
    return replace(result, model=folder.model if folder.model.exists() else None)


def _run_stages(
    request: SearchRequest,
    calibration: Calibration,
    watcher: Watcher,
    folder: SearchFolder,
    runner: StageRunner,
    searcher: Searcher,
) -> None:
    """Count, measure and train until the last stage is done."""
    runner.resume()
    if searcher.final() is not None:
        return
    with closing(JsonCache(default_cache(), watcher.say)) as counts:
        finder = CandidateFinder(request, calibration.model, PairingCounter(counts), watcher)
        for share in COUNTING_SHARES:
            considered = finder.find(runner.deadline(share))
            if not considered.candidates and not folder.state.stages:
                if considered.uncounted and share != COUNTING_SHARES[-1]:
                    continue
                folder.discard()
                raise OptionError(explain_nothing(considered))
            folder.state.considered |= {
                "total": considered.total,
                "candidates": len(considered.candidates),
                "guessed": sum(each.is_guessed for each in considered.candidates),
                "dropped": considered.dropped,
                "uncountable": considered.uncountable,
            }
            searcher.measure(considered.candidates)
            if request.quality or not considered.uncounted:
                break
    searcher.finish(considered.candidates)


def _result(request: SearchRequest, store: Store, folder: SearchFolder, searcher: Searcher, table: Table) -> SearchResult:
    rows = filter_rows([row for row in table.rows if row.failure is None and row.latency], request.limits)
    stages = [(stage, stage.run) for stage in folder.state.stages if stage.kind != "measure" and stage.run is not None]
    trainings = [(stage, read_trainings(store, run)) for stage, run in stages if request.quality]
    if trainings:
        scores = mean_scores(trainings[-1][1])
    else:
        scores = {row.key: request.score(row.encoder, row.flops or 0) for row in rows}
    first = trainings[0][1] if trainings else []
    return SearchResult(
        request=request,
        table=table,
        rows=rank(rows, scores),
        validation=scores if trainings else {},
        considered=folder.state.considered,
        measured=sum(row.latency is not None for row in searcher.rough_rows()),
        trained=tuple(
            (stage.config["quality"]["stop_after"], sum(bool(each.validation) for each in of_stage))
            for stage, of_stage in trainings
        ),
        unmeasured=tuple(
            f"{row.name}: {row.error}" for row in (*searcher.rough_rows(), *table.rows) if row.failure and row.error
        ),
        failures=tuple(f"{each.name}: {each.error}" for _, of_stage in trainings for each in of_stage if each.error),
        untrained=sum(not each.validation and not each.error for each in first),
        model=None,
        folder=folder.path,
    )


def _save_best(result: SearchResult, folder: SearchFolder, store: Store, watcher: Watcher) -> None:
    """Save the best trained model: of its seeds, the one with the highest mIoU on the validation images."""
    from zoo.checkpoints.loading import load
    from zoo.checkpoints.saving import save

    if result.saved is None or result.saved.quality is None:
        return
    best = next(each for each in read_trainings(store, result.table.runs[0].id) if each.key == result.saved.key)
    seed = max(best.validation, key=best.validation.__getitem__)
    checkpoint = folder.training / f"{subject_key(best.pairing)}-{seed}" / "last.ckpt"
    if not checkpoint.exists():
        watcher.say(f"The best model is not saved here, since {checkpoint} is missing. Was it trained on another machine?")
        return
    test = dict(zip(result.saved.quality.seeds, result.saved.quality.miou, strict=True))[seed]
    save(load(checkpoint), folder.model, metrics={"validation mIoU": best.validation[seed], "test mIoU": test, "seed": seed})

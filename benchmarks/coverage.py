"""Build and run every timm architecture with many decoders, and smp's own models for comparison. Write a CSV file.

    python benchmarks/coverage.py                        # all of timm with the three U-Nets: about an hour on two cores
    python benchmarks/coverage.py --decoders smp         # all of timm with smp's twelve decoders: about as long
    python benchmarks/coverage.py --encoders 'convnext*' # some architectures

Each pairing is built on the meta device, which computes shapes without values. If an architecture needs the values, it is built
on the CPU, in a separate process. Each pairing runs at the architecture's own image size. It also runs at 225x301, for which it
is built again with `image_size=(225, 301)` if necessary. A pairing passes if it returns one logit map of the image's size. To
save time, decoders that use the same feature maps share one encoder.

For comparison, smp's own models are built and run in the same way, at two sizes: the architecture's own size, rounded up to a
multiple of 32; and 225x301. By default, smp.Unet runs with every architecture.

With `--decoders smp`, all twelve of smp's models run, but only with the first architecture of each timm family. To save time,
all of zoo's pairings still run at the architecture's own size, but only those of these first architectures also run at 225x301.

An interrupted run continues where it stopped: the rows of an architecture are saved in results/ as soon as they are measured.
Rows are measured again if the versions of the libraries or zoo's code have changed.
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import json
import subprocess
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

ODD = (225, 301)
SMP = {
    "unet": "Unet", "unetplusplus": "UnetPlusPlus", "manet": "MAnet", "linknet": "Linknet", "fpn": "FPN", "pspnet": "PSPNet",
    "pan": "PAN", "deeplabv3": "DeepLabV3", "deeplabv3plus": "DeepLabV3Plus", "upernet": "UPerNet", "segformer": "Segformer",
    "dpt": "DPT",
}  # fmt: skip
SETS = {
    "unet": (("unet-basic", "unet-bilinear", "unet-attention"), ("Unet",)),
    "smp": (tuple(f"smp:{name}" for name in SMP), tuple(SMP.values())),
}
"""For each value of `--decoders`: zoo's decoders, and the models of smp that run for comparison."""
CHUNK = 120
"""The number of architectures after which the pool of processes is replaced, so that its memory stays bounded."""
FIELDS = (
    "architecture", "family", "decoder", "size", "ok", "device", "image_size_given", "size_policy", "encoder_sees", "maps",
    "strides", "adapters", "adapter_parameters", "parameters", "error",
)  # fmt: skip
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
KEPT = ROOT / "results"

Size = tuple[int, int]
Row = dict[str, Any]


def main() -> None:
    """Measure the missing rows and print the summary.

    The rows and the summary are also written to files if all of timm was requested, or if `--output` was passed.
    """
    arguments = _arguments()
    if arguments.one:
        json.dump(list(_rows_of(arguments.one, arguments.decoders, arguments.device)), sys.stdout)
        return
    import timm

    everything = timm.list_models()
    names = [name for name in everything if any(fnmatch(name, glob) for glob in arguments.encoders)]
    rows = _measured_rows(names, arguments.decoders, arguments.processes)
    summary = _summary(rows, names, arguments.decoders)
    output: Path | None = arguments.output
    if output is None and names == everything:
        stem = "coverage" if arguments.decoders == "unet" else f"coverage-{arguments.decoders}"
        output = RESULTS / f"{stem}-timm-{timm.__version__}.csv"
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        _write(output, rows)
        output.with_suffix(".md").write_text(summary, encoding="utf-8")
    print(summary)


def _measured_rows(names: list[str], decoders: str, processes: int) -> list[Row]:
    """Return all rows of these architectures. Rows of an earlier, interrupted run are read from a file instead of measured."""
    kept = KEPT / f"coverage-{decoders}-{_stamp()}.csv"
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = _read(kept, decoders)
    left = [name for name in names if name not in done]
    start = time.perf_counter()
    with kept.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        for first in range(0, len(left), CHUNK):
            with ProcessPoolExecutor(processes, get_context("spawn"), _one_thread) as pool:
                jobs = {pool.submit(_measured, name, decoders): name for name in left[first : first + CHUNK]}
                for job in as_completed(jobs):
                    done[jobs[job]] = job.result()
                    writer.writerows(job.result())
                    file.flush()
            measured = min(first + CHUNK, len(left))
            print(f"{measured} of {len(left)} in {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return [row for name in names for row in done[name]]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", default=["*"], metavar="GLOB", help="architectures of timm to run (all)")
    parser.add_argument(
        "--decoders", choices=SETS, default="unet", help="the set of decoders, and of smp's models for comparison"
    )
    parser.add_argument(
        "--output", type=Path, help="a CSV file (for all of timm, by default benchmarks/results/coverage-timm-VERSION.csv)"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="meta", help=argparse.SUPPRESS)
    return parser.parse_args()


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _measured(name: str, decoders: str) -> list[Row]:
    """Return the rows of an architecture.

    If the meta device cannot run all of its models, they all run again on the CPU, in a separate process.
    """
    rows = list(_rows_of(name, decoders, "meta"))
    if any("meta tensor" in row["error"] for row in rows):
        command = [sys.executable, __file__, "--one", name, "--decoders", decoders, "--device", "cpu"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return json.loads(answer.stdout)  # type: ignore[no-any-return]
        rows = [{**row, "error": f"{row['error']}; on the CPU: exit status {answer.returncode}"} for row in rows]
    return rows


def _rows_of(name: str, decoders: str, device: str) -> Iterator[Row]:
    """Yield a row for each model and image size: first for the pairings with zoo's decoders, then for smp's models."""
    import timm

    warnings.simplefilter("ignore")
    _share_encoders()
    own: Size = tuple(timm.get_pretrained_cfg(name).input_size[1:])
    sizes = (own, ODD) if decoders == "unet" or _is_first_of_family(name) else (own,)
    facts = {"architecture": name, "family": _family(name), "device": device}
    for decoder in SETS[decoders][0]:
        model: Any = None
        for size in sizes:
            row: Row = {**dict.fromkeys(FIELDS, ""), **facts, "decoder": decoder, "size": _text(size)}
            try:
                model, more = _paired(name, decoder, size, None if size == own else model, device, own)
                row |= more
            except Exception as error:  # noqa: BLE001 - every failure is a row
                row |= {"ok": 0, "error": _error(error)}
            yield row
    for peer in _peers(name, decoders):
        model = None
        for size in (tuple(-(-length // 32) * 32 for length in own), ODD):
            row = {**dict.fromkeys(FIELDS, ""), **facts, "decoder": f"smp.{peer}", "size": _text(size), "size_policy": "none"}
            try:
                model = model or _peer(peer, name, device)
                row |= _run_peer(model, size, device)
            except Exception as error:  # noqa: BLE001 - every failure is a row
                row |= {"ok": 0, "error": _error(error)}
            yield row


def _share_encoders() -> None:
    """Save time: on the meta device, all decoders that use the same maps share one encoder, which runs once per image size."""
    import torch

    import zoo_timm.encoder

    _spare_initial_values()
    real = getattr(zoo_timm.encoder.TimmEncoder, "real", zoo_timm.encoder.TimmEncoder)
    made = functools.lru_cache(maxsize=12)(functools.partial(_Shared, real))

    def shared(**wanted: Any) -> Any:
        return made(**wanted).encoder if torch.get_default_device().type == "meta" else real(**wanted)

    shared.real = real  # type: ignore[attr-defined]
    zoo_timm.encoder.TimmEncoder = shared  # type: ignore[assignment, misc]


def _spare_initial_values() -> None:
    """Skip timm's truncated normal initialization of meta tensors, which have no values. It would take most of the time."""
    import timm.layers.weight_init as init

    draw = getattr(init._trunc_normal_, "draw", init._trunc_normal_)

    def spared(tensor: Any, *args: Any) -> Any:
        return tensor if tensor.is_meta else draw(tensor, *args)

    spared.draw = draw  # type: ignore[attr-defined]
    init._trunc_normal_ = spared


class _Shared:
    """Builds an encoder that runs only once for each shape of the image, and then returns the same maps again."""

    def __init__(self, factory: Any, **wanted: Any) -> None:
        self.encoder = factory(**wanted)
        forward, given = self.encoder.forward, {}

        def remembered(image: Any) -> Any:
            if image.shape not in given:
                given[image.shape] = forward(image)
            return given[image.shape]

        self.encoder.forward = remembered


def _family(name: str) -> str:
    import timm

    return timm.model_entrypoint(name).__module__.rpartition(".")[2]


def _peers(name: str, decoders: str) -> tuple[str, ...]:
    """Return the models of smp that run with an architecture.

    If the set `decoders` has several models of smp, these run only with the first architecture of each family.
    """
    peers = SETS[decoders][1]
    return peers if len(peers) == 1 or _is_first_of_family(name) else ()


@functools.cache
def _firsts() -> dict[str, str]:
    import timm

    return {_family(name): name for name in reversed(timm.list_models())}


def _is_first_of_family(name: str) -> bool:
    return _firsts()[_family(name)] == name


def _paired(name: str, decoder: str, size: Size, model: Any, device: str, own: Size) -> tuple[Any, Row]:
    """Run a pairing at a size, and return its model and its results.

    `model` is the same pairing, built for another size, or None. It is used again, unless the encoder must be built for each
    size.
    """
    import torch

    import zoo

    given = None if size == own else size
    plan = zoo.negotiate(f"timm:{name}", decoder, image_size=given)
    if model is None or plan.sizes.image_size is not None:
        with torch.device(device):
            model = zoo.build(f"timm:{name}", decoder, image_size=given).eval()
    shapes: list[tuple[int, ...]] = []
    hook = model.encoder.register_forward_hook(lambda *call: shapes.extend(tuple(tensor.shape[-2:]) for tensor in call[-1]))
    with torch.no_grad():
        logits = model(torch.zeros(1, 3, *size, device=device))
    hook.remove()
    policy, sees = plan.sizes.fit(*size)
    kinds = Counter(adapter.kind for adapter in plan.adapters)
    return model, {
        "ok": int(tuple(logits.shape) == (1, 1, *size)),
        "image_size_given": "" if plan.sizes.image_size is None else _text(plan.sizes.image_size),
        "size_policy": policy,
        "encoder_sees": _text(sees),
        "maps": " ".join(plan.maps),
        "strides": " ".join(f"{sees[0] / height:.4g}" for height, _ in dict.fromkeys(shapes)),
        "adapters": " ".join(f"{kind}:{count}" for kind, count in sorted(kinds.items())),
        "adapter_parameters": plan.adapter_parameters,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "error": "" if tuple(logits.shape) == (1, 1, *size) else f"logits of shape {tuple(logits.shape)}",
    }


def _peer(peer: str, name: str, device: str) -> Any:
    import segmentation_models_pytorch as smp
    import torch

    with torch.device(device):
        return getattr(smp, peer)(f"tu-{name}", encoder_weights=None).eval()


def _run_peer(model: Any, size: Size, device: str) -> Row:
    import torch

    with torch.no_grad():
        shape = tuple(model(torch.zeros(1, 3, *size, device=device)).shape)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "ok": int(shape == (1, 1, *size)),
        "parameters": parameters,
        "error": "" if shape[2:] == size else f"logits {shape}",
    }


def _versions() -> str:
    return ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "segmentation-models-pytorch"))


def _stamp() -> str:
    """Return a short hash of what the rows depend on: the installed versions and the project's code."""
    digest = hashlib.sha256(_versions().encode())
    packages = (
        "zoo/api.py",
        "zoo/registry/*.py",
        "zoo/pairing/*.py",
        "zoo/model/**/*.py",
        "plugins/zoo_*/*.py",
        "plugins/zoo_*/*.json",
    )
    for path in sorted({Path(__file__), *(path for glob in packages for path in ROOT.glob(glob))}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _read(kept: Path, decoders: str) -> dict[str, list[Row]]:
    """Return a mapping from architectures to their rows in an earlier run.

    An architecture whose rows are incomplete is left out, and its rows are removed from the file.
    """
    found: dict[str, list[Row]] = {}
    if kept.exists():
        with kept.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found.setdefault(row["architecture"], []).append(row)
    found = {
        name: rows for name, rows in found.items() if len(rows) == _num_rows(name, decoders) and None not in rows[-1].values()
    }
    _write(kept, [row for rows in found.values() for row in rows])
    return found


def _num_rows(name: str, decoders: str) -> int:
    sizes = 2 if decoders == "unet" or _is_first_of_family(name) else 1
    return sizes * len(SETS[decoders][0]) + 2 * len(_peers(name, decoders))


def _write(output: Path, rows: list[Row]) -> None:
    with output.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


def _summary(rows: list[Row], names: list[str], decoders: str) -> str:
    ids, peers = SETS[decoders]
    ours = [row for row in rows if row["decoder"] in ids]
    lines = [f"# Coverage of timm: {len(names)} architectures", "", f"Measured with {_versions()}.", ""]
    lines += ["| decoder | own size | 225x301 | both |", "| --- | --- | --- | --- |"]
    for decoder in (*ids, *(f"smp.{peer}" for peer in peers)):
        of_decoder = [row for row in rows if row["decoder"] == decoder]
        run = {at: {row["architecture"] for row in of_decoder if _at(row) == at} for at in "oh"}
        passed = {at: {row["architecture"] for row in of_decoder if _at(row) == at and _ok(row)} for at in "oh"}
        counts = {"o": (passed["o"], run["o"]), "h": (passed["h"], run["h"])}
        counts["both"] = (passed["o"] & passed["h"], run["o"] & run["h"])
        lines.append(f"| {decoder} | " + " | ".join(f"{len(good)} of {len(all_)}" for good, all_ in counts.values()) + " |")
    for what, among in (("the project's", ours), ("smp's own", [row for row in rows if row["decoder"] not in ids])):
        at_own = [row for row in among if _at(row) == "o"]
        passing = sum(map(_ok, at_own))
        lines += ["", f"At own size, {what}: {passing} of {len(at_own)} pairs ({passing / max(1, len(at_own)):.1%})."]
    lines += [
        "",
        "Passed: one logit map of exactly the image's size. At 225x301 the project's models are built with "
        "`image_size=(225, 301)`, an option that smp's do not have. smp's own size is rounded up to a multiple of 32."
        + (" smp's own models, and 225x301, were run with the first architecture of each family." if len(peers) > 1 else ""),
        "",
    ]
    failed = [row for row in ours if not _ok(row)]
    lines += [f"## Failed: {len(failed)} of {len(ours)}", ""]
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in failed:
        reasons.setdefault((row["decoder"], _reason(row)), []).append(f"{row['architecture']} at {row['size']}")
    lines += [f"- {decoder} ({len(where)}): {reason}: {', '.join(where)}" for (decoder, reason), where in reasons.items()]
    lines += ["" if failed else "None.", "", "## Image sizes at 225x301", ""]
    families = {row["family"] for row in ours}
    for policy in ("as is", "pad", "resize"):
        of_policy = [row for row in ours if row["size_policy"] == policy and _at(row) == "h"]
        architectures = {row["architecture"] for row in of_policy}
        lines.append(f"- {policy}: {len(architectures)} architectures of {len({row['family'] for row in of_policy})} families")
    resized = {row["architecture"]: row for row in ours if row["size_policy"] == "resize"}
    shown = {row["family"] for row in resized.values()}
    lines += ["", f"Resized, because timm makes them for one size only ({len(shown)} of {len(families)} families):", ""]
    lines += [f"- {name} ({row['family']}): made for {row['encoder_sees']}" for name, row in sorted(resized.items())] or [
        "- none"
    ]
    for decoder in ids if len(peers) > 1 else ids[:1]:
        of_decoder = [row for row in ours if row["decoder"] == decoder and _at(row) == "o" and _ok(row)]
        lines += ["", f"## Adapters ({decoder}, own size)", ""]
        adapters = Counter(row["adapters"] or "none" for row in of_decoder)
        lines += [f"- {kinds}: {count} architectures" for kinds, count in adapters.most_common()]
    return "\n".join(lines) + "\n"


def _reason(row: Row) -> str:
    """Return why a row failed: the whole error, or only the problem that it states if it is a NegotiationError."""
    _, found, problem = row["error"].partition("Problem: ")
    return problem.rstrip(".") if found else row["error"]


def _at(row: Row) -> str:
    """Return "h" if the row was measured at 225x301, and "o" if it was measured at the architecture's own size."""
    return "h" if row["size"] == _text(ODD) else "o"


def _ok(row: Row) -> bool:
    return str(row["ok"]) == "1"


def _text(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _error(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 400 else f"{text[:100]} ... {text[-300:]}"


if __name__ == "__main__":
    main()

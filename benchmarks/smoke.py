"""Call once every function that the benchmark uses on an accelerator: `python benchmarks/smoke.py`.

Each check prints its outcome when it is done. If a check raises an exception, the script prints the traceback and continues
with the other checks, but its exit status is 1. Without a CUDA device, a check that requires one reports that it was skipped.
"""

from __future__ import annotations

import argparse
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import zoo
from zoo.benchmark.config import BenchConfig
from zoo.benchmark.measuring.clock import time_calls
from zoo.benchmark.measuring.jobs import Job
from zoo.benchmark.measuring.memory import allocated_bytes, available_bytes, peak_allocated_bytes, reset_peaks
from zoo.benchmark.measuring.steps import make_step
from zoo.benchmark.messages import ColdStart, Failure
from zoo.benchmark.running.environment import describe_environment
from zoo.benchmark.running.local import Limits, LocalProcesses
from zoo.benchmark.trial import Trial, make_trials
from zoo.common.devices import choose_device, is_usable
from zoo.inference.reference import relative_error
from zoo.inference.runtimes import original_program, recorded_program

SIZE = 64


def environment(device: torch.device) -> str:
    """Describe the environment, as the benchmark does for each run."""
    facts = describe_environment(device)
    return f"{facts.device_name}, {facts.memory_gib:g} GiB, {facts.driver or 'no driver'}, torch {torch.__version__}"


def worker(device: torch.device) -> str:
    """Run a job in a process of its own, forked if the device allows it."""
    job = Job(kind="cold start", device=str(device), trials=(_trial(),))
    with LocalProcesses(Limits(step_seconds=60)) as executor:
        (message,) = [each for _, each in executor.run([job, job]) if isinstance(each, ColdStart | Failure)][-1:]
        is_forked = executor.is_warm
    if isinstance(message, Failure):
        raise RuntimeError(message.error)
    return f"{'forked' if is_forked else 'a new process for each job'}, first call {message.first_seconds:.2f} s"


def events(device: torch.device) -> str:
    """Time a few calls, both with the clock and with the device's timing events (on a CPU: with CPU time)."""
    timing = time_calls(_step(device), 3, device)
    if timing.busy_seconds is None:
        raise RuntimeError("the device's events report no time")
    return f"{1e3 * timing.seconds:.2f} ms by the clock, {1e3 * timing.busy_seconds:.2f} ms busy"


def memory(device: torch.device) -> str:
    """Read the allocator's counters before and after a step."""
    reset_peaks(device)
    held = allocated_bytes(device)
    _step(device)()
    peak = peak_allocated_bytes(device)
    free = f"{available_bytes(device) / 2**30:.1f} GiB available"
    if held is None or peak is None:
        return f"{free}; the allocator reports no counters"
    if peak <= held:
        raise RuntimeError(f"the peak is {peak} bytes, but {held} bytes were allocated before")
    return f"{free}, peak {(peak - held) / 2**20:.1f} MiB"


def autocast(device: torch.device) -> str:
    """Run inference in bfloat16."""
    return _error_of(device, original_program(_model(device), "bfloat16"))


def training(device: torch.device) -> str:
    """Run a training step (forward, loss, backward, AdamW) in float32 and in bfloat16."""
    losses = [float(_step(device, mode="training", dtype=dtype)()) for dtype in ("float32", "bfloat16")]
    return f"losses {losses[0]:.3f} and {losses[1]:.3f}"


def cudagraphs(device: torch.device) -> str:
    """Record a model's kernels as a CUDA graph, and replay it."""
    if device.type != "cuda":
        return "skipped: requires a CUDA device"
    model, image = _model(device), _image(device)
    return ", ".join(_error_of(device, recorded_program(model, image, precision)) for precision in ("float32", "bfloat16"))


def ddp(device: torch.device) -> str:
    """Run a model in DistributedDataParallel with one process."""
    import torch.distributed as dist

    backend = "nccl" if device.type == "cuda" else "gloo"
    with TemporaryDirectory() as folder:
        dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=0, world_size=1)
        try:
            wrapped = nn.parallel.DistributedDataParallel(_model(device).train(), device_ids=[0] if backend == "nccl" else None)
            wrapped(_image(device)).square().mean().backward()
        finally:
            dist.destroy_process_group()
    return backend


def compiled(device: torch.device) -> str:
    """Compile a small module with `torch.compile`."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()).to(device).eval()
    image = _image(device)
    with torch.no_grad():
        error = relative_error(torch.compile(model, dynamic=False)(image), model(image))
    if error > 1e-2:
        raise RuntimeError(f"the compiled module differs by {error:.1e}")
    return f"error {error:.1e}"


def usable(device: torch.device) -> str:
    """Check that the device still computes after all other checks."""
    if not is_usable(device):
        raise RuntimeError("the device no longer computes")
    return "yes"


CHECKS: tuple[Callable[[torch.device], str], ...] = (
    environment,
    worker,
    events,
    memory,
    autocast,
    training,
    cudagraphs,
    ddp,
    compiled,
    usable,
)


def _trial(mode: str = "inference", dtype: str = "float32") -> Trial:
    config = BenchConfig(
        name="smoke",
        pairings=[{"encoder": "resnet18", "decoder": "unet-basic"}],  # type: ignore[list-item]
        modes=[mode],  # type: ignore[list-item]
        dtype=[dtype],  # type: ignore[list-item]
        size=[SIZE],
    )
    return make_trials(config)[0]


def _step(device: torch.device, mode: str = "inference", dtype: str = "float32") -> Callable[[], Tensor]:
    return make_step(_model(device), _trial(mode, dtype), device)


def _model(device: torch.device) -> nn.Module:
    torch.manual_seed(0)
    return zoo.build("resnet18", "unet-basic").to(device).eval()


def _image(device: torch.device) -> Tensor:
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).to(device)


def _error_of(device: torch.device, program: Callable[[Tensor], Tensor]) -> str:
    image = _image(device)
    error = relative_error(program(image), original_program(_model(device))(image))
    if error > 0.5:
        raise RuntimeError(f"the output differs by {error:.1e}")
    return f"error {error:.1e}"


def main() -> int:
    """Run the checks and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # warnings of the compiler
    device = choose_device(asked.device)
    lines = ["| check | outcome | seconds |", "| --- | --- | ---: |"]
    print("\n".join(lines), flush=True)
    has_failed = False
    for check in CHECKS:
        began = time.perf_counter()
        try:
            outcome = check(device)
        except Exception as cause:  # noqa: BLE001 - a traceback is a result, and the other checks continue
            has_failed = True
            outcome = f"FAILED: {type(cause).__name__}: {' '.join(str(cause).split())[:300]}"
            traceback.print_exc()
        lines.append(f"| {check.__name__} | {outcome} | {time.perf_counter() - began:.1f} |")
        print(lines[-1], flush=True)
        if asked.output:  # after each check, so that this output is not lost if the next check crashes
            asked.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(has_failed)


if __name__ == "__main__":
    raise SystemExit(main())

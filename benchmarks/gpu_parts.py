"""Define the parts that `benchmarks/gpu.py` runs. Each part has steps, a time limit and the packages that it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PARTS", "ROOT", "Part", "Step", "needed_by_part"]

ROOT = Path(__file__).resolve().parents[1]
DEPLOY_TESTS = "tests/inference/deployment/test_deploy.py"
BENCHMARKS = ROOT / "benchmarks"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a part, which runs as one process.

    Attributes:
        arguments: the arguments of `python`. "{output}" stands for the path of a file. What the step writes to this
            file is stored.
        seconds: the time limit of the step.
        config: the name of the configuration file if the step is a benchmark run; "" for other steps. A benchmark run that
            reaches its time limit continues in a later call of the script. Any other step that reaches it counts as failed.
        tiny: the arguments for `--tiny`, a quick test on any machine; None if that test leaves the step out. A benchmark run
            has no arguments, and is included if this is an empty tuple.
    """

    name: str
    seconds: float
    arguments: tuple[str, ...] = ()
    config: str = ""
    tiny: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """A group of steps.

    Attributes:
        seconds: the time limit of all steps together.
        needs: a mapping from the names of modules that the steps need to the distributions that contain the modules.
    """

    name: str
    seconds: float
    steps: tuple[Step, ...]
    needs: Mapping[str, str] | None = None


def bench(name: str, seconds: float, config: str) -> Step:
    """Return the step that runs `zoo bench` with a configuration."""
    return Step(name=name, seconds=seconds, config=config, tiny=())


def script(name: str, seconds: float, *arguments: str, tiny: Sequence[str] | None = None) -> Step:
    """Return the step that runs a script of this folder and stores the script's output file."""
    end = ("--output", "{output}")
    path = str(BENCHMARKS / arguments[0])
    return Step(
        name=name,
        seconds=seconds,
        arguments=(path, *arguments[1:], *end),
        tiny=None if tiny is None else (path, *tiny, *end),
    )


def gpu_tests(name: str, seconds: float, *arguments: str, is_tiny: bool = False) -> Step:
    """Return the step that runs tests marked `gpu`."""
    command = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", "-m", "gpu", *arguments)
    return Step(name=name, seconds=seconds, arguments=command, tiny=command if is_tiny else None)


PYTEST = {"pytest": "pytest", "hypothesis": "hypothesis"}
LIGHTNING = {"lightning": "lightning", "torchmetrics": "torchmetrics"}
PEERS = ("peers.py", "--coarse", "0.2", "--rounds", "21")

PARTS = (
    Part(name="smoke", seconds=45, steps=(script("every function once", 45, "smoke.py", tiny=[]),)),
    Part(name="table", seconds=240, steps=(bench("resnet18", 240, "gpu-table.yaml"),)),
    Part(
        name="deployed and compiled",
        seconds=210,
        steps=(bench("deployed", 110, "gpu-deployed.yaml"), bench("compiled", 100, "gpu-compiled.yaml")),
    ),
    Part(
        name="tests",
        seconds=300,
        needs=PYTEST,
        steps=(
            script("tf32", 45, "tf32.py", tiny=["--decoders", "unet-basic"]),
            gpu_tests(
                "deploy, known to fail",
                60,
                DEPLOY_TESTS,
                "-k",
                "as_near_to_float32",
                is_tiny=True,
            ),
            gpu_tests("sweep", 60, "tests/benchmark/running/test_sweep.py"),
            gpu_tests("deploy, others", 90, DEPLOY_TESTS, "-k", "not as_near_to_float32"),
            gpu_tests("rates", 30, "tests/benchmark/measuring/test_rates.py"),
            gpu_tests("prediction", 40, "tests/inference/prediction/test_predictor.py"),
        ),
    ),
    Part(
        name="tests of training",
        seconds=150,
        needs=PYTEST | LIGHTNING,
        steps=(
            gpu_tests("quality", 90, "tests/benchmark/test_quality.py"),
            gpu_tests("training", 120, "tests/training/test_gpu.py"),
        ),
    ),
    Part(
        name="peers",
        seconds=240,
        steps=(
            script(
                "inference, batch 1, 256x256",
                120,
                *PEERS,
                *("--modes", "inference", "--sizes", "256", "--batches", "1"),
                tiny=[*("--modes", "inference", "--sizes", "64", "--batches", "1", "--rounds", "3", "--runtimes")],
            ),
            script("training, batch 8, 512x512", 120, *PEERS, *("--modes", "training", "--sizes", "512", "--batches", "8")),
            script("inference, batch 8, 512x512", 120, *PEERS, *("--modes", "inference", "--sizes", "512", "--batches", "8")),
        ),
    ),
    Part(
        name="families and decoders",
        seconds=180,
        steps=(bench("families", 110, "gpu-families.yaml"), bench("decoders", 70, "gpu-decoders.yaml")),
    ),
    Part(
        name="quality",
        seconds=120,
        needs=LIGHTNING | {"skimage": "scikit-image"},
        steps=(bench("quality", 120, "gpu-quality.yaml"),),
    ),
)


def needed_by_part() -> dict[str, tuple[str, ...]]:
    """Return the distributions that each part needs besides those of the project. The most important part comes first."""
    return {part.name: tuple(part.needs.values()) for part in PARTS if part.needs}

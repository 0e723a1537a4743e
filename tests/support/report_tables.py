"""Tables made by hand for the tests of the report: few rows or thousands, failures, ties, names that were made to break it."""

from __future__ import annotations

import random
from dataclasses import replace

from zoo.benchmark.quality import Quality
from zoo.benchmark.store.records import StoredRun
from zoo.benchmark.table.rows import Check, Row
from zoo.benchmark.table.table import Table
from zoo.common.statistics import Estimate
from zoo.pairing.plan import Adapter, Plan, Route, Unused
from zoo.pairing.size_plan import SizePlan
from zoo.registry.image_sizes import ImageSizes
from zoo.registry.pyramid import FeatureMap

HOSTILE = (
    "</script><script>window.hacked = 1; document.title = 'hacked'</script><b>bold</b> & \"quoted\" \u2028 %{x} <img src=x>"
)
ERROR = 'ValueError: sizes <b>differ</b>\n  File "decoder.py", line 3\n</pre><script>window.hacked = 1</script>'
DEVICE = "Some Processor 9000 <fast>"


def estimate(median, spread=0.03):
    return Estimate(median=median, low=median * (1 - spread), high=median * (1 + spread))


def row(name="resnet18 x unet-basic", **facts):
    """Return a row that was measured, with what a test minds changed."""
    encoder, _, decoder = name.partition(" x ")
    usual = {
        "run": 1,
        "key": name,
        "name": name,
        "encoder": encoder if decoder else "",
        "decoder": decoder,
        "code": f"zoo.build({encoder!r}, {decoder!r})" if decoder else "",
        "mode": "inference",
        "batch": 1,
        "height": 256,
        "width": 256,
        "device": "cpu",
        "device_name": DEVICE,
        "dtype": "float32",
        "memory_format": "contiguous",
        "runtime": "eager",
        "role": "candidate",
        "latency": estimate(0.06),
        "p90": 0.07,
        "busy": estimate(0.11),
        "ratio": estimate(0.9),
        "busy_ratio": estimate(0.92),
        "rounds": 40,
        "stopped": "precise",
        "live_bytes": 75 * 2**20,
        "allocated_bytes": None,
        "rss_bytes": 90 * 2**20,
        "parameters": 14_241_281,
        "parts": {"encoder": 11_176_512, "adapters": 0, "decoder": 3_064_752, "head": 17},
        "flops": 9_600_000_000,
        "flops_per_second": 1.6e11,
        "efficiency": 0.4,
        "build_seconds": 0.13,
        "first_seconds": 0.04,
        "smaller": None,
        "plan": plan(encoder, decoder).as_dict() if decoder else None,
        "failure": None,
        "error": None,
        "flags": (),
        "licenses": "BSD-3-Clause, Apache-2.0" if decoder else "",
    }
    return Row(**{**usual, **facts})


def failed(name="broken x unet-basic", failure="error", error=ERROR, **facts):
    """Return a row whose model raised: nothing was measured."""
    nothing = dict.fromkeys(
        ("latency", "p90", "busy", "ratio", "busy_ratio", "efficiency", "stopped", "rss_bytes", "build_seconds")
    )
    return row(name, failure=failure, error=error, rounds=0, **{**nothing, **facts})


def baseline(name="smp.Unet(resnet18)", **facts):
    return row(name, role="baseline", **{"ratio": estimate(1, 0), "busy_ratio": estimate(1, 0), **facts})


def plan(encoder="resnet18", decoder="unet-basic"):
    """Return a plan with an adapter, a map left out and a note."""
    fine, coarse = (
        FeatureMap(name=name, channels=channels, stride=stride)
        for name, channels, stride in (("stem", 64, 2), ("last", 512, 32))
    )
    wider = FeatureMap(name="last", channels=256, stride=32)
    adapter = Adapter(kind="project", in_channels=512, out_channels=256)
    return Plan(
        encoder=encoder,
        decoder=decoder,
        routes=(
            Route(source=fine, output=fine, reason="the only map at stride 2"),
            Route(source=coarse, output=wider, adapters=(adapter,), reason="the decoder takes 256 channels"),
        ),
        unused=(Unused(source=FeatureMap(name="pool", channels=64, stride=4), reason="the decoder takes no stride 4"),),
        sizes=SizePlan(sizes=ImageSizes(multiple=32), asked=(256, 256)),
        notes=(f"{decoder} ends at stride 2.",),
    )


def run(number=1, name="resnet18", **facts):
    environment = {
        "device": "cpu",
        "device_name": DEVICE,
        "processor": DEVICE,
        "cores": 8,
        "memory_gib": 31.3,
        "driver": "",
        "threads": 4,
        "system": "Linux-6.1-x86_64",
        "python": "3.11.7",
        "versions": {"segmentation-zoo": "0.1.0", "timm": "1.0.31", "torch": "2.14.1+cpu"},
        "commit": "c959298c0323",
    }
    config = {"name": name, "modes": ["inference"], "batch": [1], "size": [256, [225, 301]], "dtype": ["float32"]}
    config |= {
        "memory_format": ["contiguous"],
        "runtime": ["eager"],
        "input": "image",
        "rounds": {"min": 20, "max": 160, "target": 0.02},
    }
    usual = {"started": "2026-11-25T19:28:40+00:00", "finished": "2026-11-25T20:02:10+00:00"}
    return StoredRun(**{"id": number, "name": name, "config": config, "environment": environment, **usual, **facts})


def quality(miou, *others):
    """Return what training came to: these scores, a seed each."""
    scores = (miou, *others)
    return Quality(
        data="texture-mosaic",
        classes=("brick", "grass"),
        seeds=tuple(range(len(scores))),
        miou=scores,
        iou=tuple((score, score) for score in scores),
        steps=(100,) * len(scores),
        seconds=(30.0,) * len(scores),
        failures={},
        wanted=len(scores),
    )


def table(*rows, checks=(), runs=(), rates=None):
    return Table(
        runs=tuple(runs) or (run(),),
        rows=tuple(rows),
        checks=tuple(checks),
        rates={"float32": "341 GFLOP/s (3x3 convolution 64x128x128)"} if rates is None else rates,
        store="results/zoo.sqlite",
    )


def three():
    """Return the smallest table worth reading: a baseline, something faster, a tie."""
    return table(
        baseline(latency=estimate(0.0699), parameters=14_330_000, live_bytes=79 * 2**20),
        row("resnet18 x unet-basic", latency=estimate(0.0612), ratio=estimate(0.87)),
        row("resnet18 x unet-attention", latency=estimate(0.0688), ratio=estimate(0.99), parameters=14_510_000),
    )


def check(block, median=1.0, spread=0.01, names=()):
    return Check(block=block, ratio=estimate(median, spread), names=tuple(names))


def eventful():
    """Return a table in which everything happened that can."""
    rows = []
    for mode, slower in (("inference", 1), ("training", 3.2)):
        for batch in (1, 8):
            facts = {"mode": mode, "batch": batch}
            scale = slower * batch**0.8
            rows += [
                baseline(latency=estimate(0.07 * scale), live_bytes=int(52e6 * scale), quality=quality(0.712), **facts),
                row(
                    latency=estimate(0.061 * scale),
                    ratio=estimate(0.87),
                    live_bytes=int(60e6 * scale),
                    quality=quality(0.705),
                    **facts,
                ),
                row(
                    "resnet18 x unet-attention",
                    latency=estimate(0.0693 * scale),
                    ratio=estimate(0.99),
                    live_bytes=int(77e6 * scale),
                    parameters=14_510_000,
                    quality=quality(0.731),
                    **facts,
                ),
                row(
                    "timm:convnext_tiny x smp:unetplusplus",
                    latency=estimate(0.19 * scale),
                    ratio=estimate(2.7),
                    live_bytes=int(160e6 * scale),
                    parameters=41_000_000,
                    flags=("3 of 40 samples are outliers", "other processes took 14 % of the processor"),
                    quality=quality(0.778),
                    licenses="Apache-2.0, MIT",
                    **facts,
                ),
                row(
                    "timm:mobilenetv3_small_100 x smp:fpn",
                    latency=estimate(0.021 * scale),
                    ratio=estimate(0.3),
                    live_bytes=int(71e6 * scale),
                    parameters=2_400_000,
                    quality=quality(0.64),
                    **facts,
                ),
                row(
                    f"timm:vit x {HOSTILE}",
                    latency=estimate(0.12 * scale),
                    ratio=estimate(1.7),
                    live_bytes=int(120e6 * scale),
                    parameters=23_000_000,
                    quality=None,
                    **facts,
                ),
            ]
    rows.append(failed(mode="training", batch=8))
    rows.append(
        failed(
            "timm:vit_large x unet-basic",
            "out of memory",
            "OutOfMemoryError: tried to allocate 3.1 GiB",
            mode="training",
            batch=8,
        )
    )
    off = check(rows[6].block, 1.05, 0.02, ["resnet18 x unet-basic", "resnet18 x unet-attention"])
    return table(*rows, checks=[check(rows[0].block), off])


def large(size=5000):
    """Return a table of thousands of rows: many encoders with twelve decoders in four blocks, each fortieth failed."""
    draw = random.Random(0)
    rows = []
    while len(rows) < size:
        encoder = f"timm:{draw.choice(['convnext', 'resnet', 'vit', 'swin', 'efficientnet'])}_{len(rows) // 48:03d}_patch4.in1k"
        parameters = draw.lognormvariate(17, 1)
        for decoder in (f"smp:decoder{number}" for number in range(12)):
            for mode in ("inference", "training"):
                for batch in (1, 8):
                    latency = parameters * 2e-9 * batch * (3 if mode == "training" else 1) * draw.lognormvariate(0, 0.3)
                    facts = {"mode": mode, "batch": batch, "parameters": int(parameters * (1 + len(decoder) / 100))}
                    facts |= {
                        "latency": estimate(latency),
                        "ratio": estimate(draw.lognormvariate(0, 0.5)),
                        "live_bytes": int(parameters * 4 * batch),
                    }
                    name = f"{encoder} x {decoder}"
                    rows.append(
                        failed(name, **facts | {"latency": None, "ratio": None}) if len(rows) % 40 == 39 else row(name, **facts)
                    )
    rows[size:] = []
    rows.sort(key=lambda each: (each.mode, each.batch))
    first: dict = {}
    for index, each in enumerate(rows):
        if each.block not in first:
            first[each.block] = index
            rows[index] = replace(each, role="baseline", ratio=estimate(1, 0))
    return table(*rows)

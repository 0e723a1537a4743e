"""Estimate the latency and the memory of one pairing from its counted operations."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.benchmark.environment import format_device
from zoo.errors import PluginError, ZooError
from zoo.pairing.pairing import Pairing
from zoo.search.calibration import Calibration
from zoo.search.cost_model import Interval
from zoo.search.counting.counter import PairingCounter

__all__ = ["CostEstimate", "estimate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostEstimate:
    """What a pairing costs in inference, as estimated without running it.

    Attributes:
        pairing: the pairing.
        height: the height of the images in pixels.
        width: the width of the images in pixels.
        batch: the number of images per call.
        device: the device that the calibration was measured on, as text.
        latency: the seconds of a call, with a 90 % interval; None if the pairing is unlike all that the calibration timed.
        reason: why there is no latency; "" if there is one.
        peak_bytes: the peak size of all live tensors: weights, image and activations. It is counted, and an allocator may need
            more.
        parameters: the number of parameters.
        flops: the FLOPs of a call. A multiply-add counts as two.
    """

    pairing: Pairing
    height: int
    width: int
    batch: int
    device: str
    latency: Interval | None
    reason: str
    peak_bytes: int
    parameters: int
    flops: int

    def __str__(self) -> str:
        setting = f"{self.pairing}, batch {self.batch}, {self.height}x{self.width}, {self.device}"
        latency = f"latency not estimated: {self.reason}"
        if self.latency:
            median, low, high = (1e3 * value for value in (self.latency.seconds, self.latency.low, self.latency.high))
            latency = f"latency about {median:.1f} ms (90 % interval {low:.1f} to {high:.1f} ms)"
        counted = f"{self.peak_bytes / 2**20:.0f} MiB, {self.parameters / 1e6:.2f} M parameters, {self.flops / 1e9:.2f} GFLOPs"
        return f"{setting}: {latency}, {counted} (estimated)"


def estimate(pairing: Pairing, calibration: Calibration, *, height: int, width: int, batch: int) -> CostEstimate:
    """Return the estimated cost of a pairing on the device of a calibration, in float32.

    Raises:
        PluginError: the model cannot be run on the meta device.
        ZooError: the pairing cannot be built.
    """
    try:
        cost = PairingCounter().count(pairing, height=height, width=width, batch=batch)
    except ZooError:
        raise
    except Exception as cause:  # a plugin's model may raise anything
        raise PluginError(
            f"{pairing} cannot be run on the meta device, so its operations cannot be counted: "
            f"{type(cause).__name__}: {cause}. Measure it with `zoo bench` instead."
        ) from cause
    prediction = calibration.model.predict(cost.operations)
    return CostEstimate(
        pairing=pairing,
        height=height,
        width=width,
        batch=batch,
        device=format_device(calibration.run.environment),
        latency=None if prediction.difference else calibration.model.interval(prediction),
        reason=prediction.difference,
        peak_bytes=cost.peak_bytes,
        parameters=cost.parameters,
        flops=cost.flops,
    )

"""Find the pairing to use: calibrate a device, and estimate what pairings cost on it."""

from __future__ import annotations

from contextlib import closing
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from zoo.api import find_pairing
from zoo.common.choices import DEFAULT_STORE
from zoo.common.signatures import show_options_of
from zoo.errors import OptionError
from zoo.pairing.pairing import Pairing
from zoo.pairing.pairing_fields import PairingOptions

if TYPE_CHECKING:
    from zoo.search.calibration import Calibration
    from zoo.search.estimate import CostEstimate

__all__ = ["calibrate", "estimate_cost"]


def calibrate(*, device: str = "auto", store: str | PathLike[str] = DEFAULT_STORE) -> Calibration:
    """Time a small, varied set of pairings on a device, so that `estimate_cost` can estimate the times of all others.

    This takes a few minutes. The times are stored as a run with the name "zoo calibrate". An interrupted calibration is
    resumed.

    Args:
        device: "auto" (an accelerator if there is one, otherwise the CPU) or the name of a torch device.
        store: the SQLite file of the results; created if it does not exist.

    Raises:
        ZooError: the device or the store cannot be used, or too few pairings can be timed.
    """
    from zoo.benchmark.running.progress import ConsoleWatcher
    from zoo.benchmark.store.store import Store
    from zoo.search.calibration import calibrate as run

    with ConsoleWatcher() as watcher, closing(Store(Path(store))) as opened:
        return run(opened, watcher, device=device)


@show_options_of(Pairing)
def estimate_cost(
    encoder: str | Pairing,
    decoder: str | None = None,
    *,
    size: int | tuple[int, int] = 256,
    batch: int = 1,
    device: str = "auto",
    store: str | PathLike[str] = DEFAULT_STORE,
    **options: Unpack[PairingOptions],
) -> CostEstimate:
    """Estimate the latency and the memory of a pairing in inference in float32, without running it.

    The pairing's operations are counted on the meta device. The latency follows from the cost model that `zoo.calibrate` fitted
    to the times of other pairings on this device.

    Args:
        encoder: an encoder's id, or a whole pairing (then without `decoder` and options).
        decoder: a decoder's id.
        size: the side length of a square image, or (H, W), in pixels.
        batch: the number of images per call.
        device: as in `calibrate`.
        store: the SQLite file with the calibration.
        options: options of the pairing, as in `zoo.build`.

    Raises:
        StoreError: the store does not exist, or has no calibration of this device.
        OptionError: `size` or `batch` is not valid.
        ZooError: the pairing cannot be built, or cannot be run on the meta device.

    Example:
        >>> zoo.calibrate()
        >>> print(zoo.estimate_cost("timm:convnext_tiny", "unet-basic", size=512))
    """
    from zoo.benchmark.store.store import Store
    from zoo.search.calibration import find_calibration
    from zoo.search.estimate import estimate

    pairing, entry = find_pairing(encoder, decoder, options)
    if entry is not None:
        raise OptionError("estimate_cost takes the id of an encoder, and no module. zoo.register_encoder gives a module an id.")
    sides = (size, size) if isinstance(size, int) else size
    if not all(type(each) is int and each >= 1 for each in (*sides, batch)) or len(sides) != 2:
        raise OptionError(f"estimate_cost: size and batch must be whole numbers of at least 1; found {size!r} and {batch!r}.")
    with closing(Store(Path(store), must_exist=True)) as opened:
        calibration = find_calibration(opened, device=device)
    return estimate(pairing, calibration, height=sides[0], width=sides[1], batch=batch)

"""Read what may disturb a measurement: other processes, virtual machines, pressure, changes of frequency, and throttling."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import psutil

__all__ = ["Conditions", "Reading", "conditions_between", "describe_noise"]

OTHERS_LIMIT = 0.10
"""A measurement is noisy if other processes used more than this share of all cores' time."""

STEAL_LIMIT = 0.02
"""A measurement is noisy if the hypervisor gave more than this share of all cores' time to other virtual machines.

The hypervisor takes whole time slices, so even a small share matters."""

PRESSURE_LIMIT = 0.25
"""A measurement is noisy if some task waited for a processor for more than this share of the time.

The threads of the measured process count, too, and also wait now and then. Therefore, the limit is high."""

FREQUENCY_LIMIT = 0.10
"""A measurement is noisy if the frequency varied by more than this share of its median."""

CORES_READ = 8
"""The largest number of cores whose frequency and throttling are read. These cores are spread evenly over all cores.

Reading a hundred cores would take milliseconds, much longer than reading all other counters."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""The kinds of CPU time that count as work.

`user` includes the time of guest virtual machines. On Windows, `system` includes interrupts."""

CPU_FOLDER = "/sys/devices/system/cpu"
PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The counters of the machine at one moment. A counter that cannot be read on this machine is None.

    Attributes:
        clock: the time of `time.perf_counter`, in seconds.
        own: CPU seconds of this process, with all its threads but without its child processes.
        busy: CPU seconds in which the cores worked, and did not idle or wait for disks. The kernel counts in 10 ms ticks.
        total: CPU seconds of all cores: busy, idle, waiting for a disk, or stolen (see `steal`).
        steal: CPU seconds that the hypervisor gave to other virtual machines.
        pressure: seconds in which some task waited for a processor (Linux's pressure stall information).
        load: the load average of the last minute.
        frequency: the mean of the cores' current frequencies, in MHz.
        throttled: how many times, since the machine started, the cores were slowed down because of heat.
    """

    clock: float
    own: float
    busy: float | None
    total: float | None
    steal: float | None
    pressure: float | None
    load: float | None
    frequency: float | None
    throttled: float | None

    @classmethod
    def now(cls) -> Reading:
        """Read the counters. This takes about a tenth of a millisecond and never raises an exception."""
        cores = _cores_read()
        load, frequency, throttled, pressure = _load(), _frequency(cores), _throttled(cores), _pressure()
        busy, total, steal = _processor_times()  # last, so that they are read just before the time of this process
        return cls(
            clock=time.perf_counter(),
            own=time.process_time(),
            busy=busy,
            total=total,
            steal=steal,
            pressure=pressure,
            load=load,
            frequency=frequency,
            throttled=throttled,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of the machine between two readings. A value that cannot be read is None.

    Attributes:
        load: the load average of the last minute, at the second reading.
        others: the share of all cores' time that other processes used, 0 to 1. Child processes count as other processes.
        steal: the share of all cores' time that the hypervisor gave to other virtual machines, 0 to 1.
        pressure: the share of the elapsed time in which some task, perhaps of this process, waited for a processor, 0 to 1.
        frequency: the mean of the frequencies at the two readings, in MHz.
        throttled: how many times, between the readings, the cores were slowed down because of heat.
    """

    load: float | None
    others: float | None
    steal: float | None
    pressure: float | None
    frequency: float | None
    throttled: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return the attributes as a dictionary from names to values."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def conditions_between(before: Reading, after: Reading) -> Conditions:
    """Return the conditions between one reading and a later one.

    The total time of all cores is the kernel's count, and not the number of cores times the elapsed time. So the numerator
    and the denominator of a share come from the same source, even in a container that sees the counters of its host. If
    this total does not advance, `others` and `steal` are None.
    """
    total = _increase(before.total, after.total)
    busy = _increase(before.busy, after.busy)
    throttled = _increase(before.throttled, after.throttled)
    frequencies = [reading.frequency for reading in (before, after) if reading.frequency is not None]
    return Conditions(
        load=after.load,
        # The difference can be negative, because the ticks are coarse, and because the counters of a container may leave this
        # process out. A negative difference gives the share 0.
        others=_share(None if busy is None else busy - (after.own - before.own), total),
        steal=_share(_increase(before.steal, after.steal), total),
        pressure=_share(_increase(before.pressure, after.pressure), after.clock - before.clock),
        frequency=fmean(frequencies) if frequencies else None,
        throttled=None if throttled is None else max(0.0, throttled),  # the sum decreases when a core is taken offline
    )


def describe_noise(conditions: Sequence[Conditions]) -> tuple[str, ...]:
    """Return the reasons why the measurement of these rounds is noisy, one short sentence each; empty if it is not noisy.

    The shares are averaged over the rounds. The kernel counts in ticks of 10 ms, so the share of a short round is zero or
    much too large, and the median of such shares would be zero whatever other processes do. If the rounds are about equally
    long, the mean is the share of all rounds together. The mean also shows a burst of activity that affected only a few rounds.
    """
    reasons = []
    others = _mean([each.others for each in conditions])
    steal = _mean([each.steal for each in conditions])
    pressure = _mean([each.pressure for each in conditions])
    if others > OTHERS_LIMIT:
        reasons.append(f"other processes took {100 * others:.0f} % of the processor")
    if steal > STEAL_LIMIT:
        reasons.append(f"the hypervisor gave {100 * steal:.0f} % of the processor to other virtual machines")
    if pressure > PRESSURE_LIMIT:
        reasons.append(f"some task waited for the processor {100 * pressure:.0f} % of the time")
    if throttled := sum(each.throttled or 0 for each in conditions):
        reasons.append(f"the processor was slowed down by heat {_times(throttled)}")
    frequencies = [each.frequency for each in conditions if each.frequency is not None]
    if frequencies and max(frequencies) - min(frequencies) > FREQUENCY_LIMIT * median(frequencies):
        reasons.append(f"the processor's frequency varied from {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
    return tuple(reasons)


def _increase(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or whole is None or whole <= 0 else min(1.0, max(0.0, part / whole))


def _mean(shares: Sequence[float | None]) -> float:
    """Return the mean of the known shares, 0 if none is known."""
    known = [share for share in shares if share is not None]
    return fmean(known) if known else 0.0


def _times(number: float) -> str:
    return "once" if number == 1 else f"{number:.0f} times"


def _processor_times() -> tuple[float | None, float | None, float | None]:
    """Return the busy, total and stolen CPU seconds of all cores; None for a value that cannot be read."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, TypeError, ValueError):  # /proc/stat is missing, or not in Linux's format
        return None, None, None
    busy = sum(getattr(times, name, 0.0) for name in BUSY)
    steal = getattr(times, "steal", None)
    return busy, busy + times.idle + getattr(times, "iowait", 0.0) + (steal or 0.0), steal


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has no load average
        return None


def _pressure() -> float | None:
    match = re.search(rb"^some .*total=(\d+)", _content("/proc/pressure/cpu"), re.MULTILINE)
    return int(match.group(1)) / 1e6 if match else None


def _cores_read() -> list[int]:
    count = os.cpu_count() or 1
    return sorted({index * count // CORES_READ for index in range(CORES_READ)})


def _frequency(cores: Sequence[int]) -> float | None:
    kilohertz = [_content(f"{CPU_FOLDER}/cpu{core}/cpufreq/scaling_cur_freq").strip() for core in cores]
    frequencies = [int(value) / 1000 for value in kilohertz if value.isdigit()]
    if not frequencies:  # as on most virtual machines. The first page of /proc/cpuinfo lists only a few cores
        megahertz = re.findall(rb"^cpu MHz\s*:\s*(\d+\.?\d*)\n", _content("/proc/cpuinfo"), re.MULTILINE)
        frequencies = [float(value) for value in megahertz]
    return fmean(frequencies) if frequencies else None


def _throttled(cores: Sequence[int]) -> float | None:
    counts = [_content(f"{CPU_FOLDER}/cpu{core}/thermal_throttle/core_throttle_count").strip() for core in cores]
    known = [int(count) for count in counts if count.isdigit()]
    return float(sum(known)) if known else None


def _content(path: str) -> bytes:
    """Return the first page of a kernel file; empty if it cannot be read. This is four times as fast as `Path.read_bytes`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, PAGE)
    except OSError:  # the file for pressure information exists, but the kernel collects no such information
        return b""
    finally:
        os.close(file)

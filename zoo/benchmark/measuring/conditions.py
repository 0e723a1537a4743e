"""Read how quiet the machine is during a measurement: other processes, steal, pressure, frequency, throttling."""

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
"""A measurement is noisy if other processes used more than this share of the processor."""

STEAL_LIMIT = 0.02
"""Or if the hypervisor took more than this share; it takes whole time slices, so that a small share matters."""

PRESSURE_LIMIT = 0.25
"""Or if some task waited for a processor for more than this share of the time; our own threads wait now and then too."""

FREQUENCY_LIMIT = 0.10
"""Or if the frequency moved by more than this share of its median."""

CORES_READ = 8
"""The number of cores, evenly spread, whose frequency and throttling are read: a hundred would take milliseconds."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""The kinds of time in which a core works for this machine: guests are in user, and Windows' interrupts in system, already."""

CPU_FOLDER = "/sys/devices/system/cpu"
PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The machine's counters at one moment; None for those that cannot be read here.

    Attributes:
        clock: `time.perf_counter`, seconds.
        own: CPU seconds of this process, all its threads and none of its children.
        busy: CPU seconds that all cores worked, neither idle nor waiting for a disk; the kernel counts in 10 ms ticks.
        total: CPU seconds of all cores, busy, idle or stolen.
        steal: CPU seconds that the hypervisor gave to others.
        pressure: seconds in which some task waited for a processor (Linux's pressure stall information).
        load: the load average of the last minute.
        frequency: mean of the cores' present frequencies, MHz.
        throttled: how often the cores were slowed for heat since the machine started.
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
        """Read the counters, in about a tenth of a millisecond; never raises."""
        cores = _cores_read()
        load, frequency, throttled, pressure = _load(), _frequency(cores), _throttled(cores), _pressure()
        busy, total, steal = _processor_times()  # last, so that it is read beside our own
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
    """The machine's state between two readings; None for what cannot be read.

    Attributes:
        load: the load average of the last minute, at the end.
        others: share of all cores' time that other processes used, 0 to 1; our own child processes are others.
        steal: share of all cores' time that the hypervisor gave to others, 0 to 1.
        pressure: share of the elapsed time in which some task, perhaps ours, waited for a processor, 0 to 1.
        frequency: mean of the readings' frequencies, MHz.
        throttled: how often the cores were slowed for heat in between.
    """

    load: float | None
    others: float | None
    steal: float | None
    pressure: float | None
    frequency: float | None
    throttled: float | None

    def as_dict(self) -> dict[str, float | None]:
        """Return plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def conditions_between(before: Reading, after: Reading) -> Conditions:
    """Return the conditions from one reading to a later one.

    The time of all cores is the kernel's count between the readings, not cores times elapsed time: both parts of a share then
    come from one source, also in a container that sees the host's counters. Where these stand still, the shares are None.
    """
    total = _increase(before.total, after.total)
    busy = _increase(before.busy, after.busy)
    throttled = _increase(before.throttled, after.throttled)
    frequencies = [reading.frequency for reading in (before, after) if reading.frequency is not None]
    return Conditions(
        load=after.load,
        # below 0 where ticks are coarse, or a container's counters leave this process out: then no other process worked
        others=_share(None if busy is None else busy - (after.own - before.own), total),
        steal=_share(_increase(before.steal, after.steal), total),
        pressure=_share(_increase(before.pressure, after.pressure), after.clock - before.clock),
        frequency=fmean(frequencies) if frequencies else None,
        throttled=None if throttled is None else max(0.0, throttled),  # a core taken offline takes its count along
    )


def describe_noise(conditions: Sequence[Conditions]) -> tuple[str, ...]:
    """Return the reasons why a measurement of these rounds is noisy, a short sentence each.

    Shares are averaged over the rounds: the kernel counts in ticks of 10 ms, so that the share of a short round is zero or
    much too large, and the median of such shares would be zero whatever other processes do. The mean is the share of all
    rounds together, if they are about equally long, and it shows a burst that hit few rounds.
    """
    reasons = []
    others = _mean([each.others for each in conditions])
    steal = _mean([each.steal for each in conditions])
    pressure = _mean([each.pressure for each in conditions])
    if others > OTHERS_LIMIT:
        reasons.append(f"other processes took {100 * others:.0f} % of the processor")
    if steal > STEAL_LIMIT:
        reasons.append(f"the hypervisor gave {100 * steal:.0f} % of the processor to others")
    if pressure > PRESSURE_LIMIT:
        reasons.append(f"some task waited for the processor {100 * pressure:.0f} % of the time")
    if throttled := sum(each.throttled or 0 for each in conditions):
        reasons.append(f"the processor was slowed for heat {_times(throttled)}")
    frequencies = [each.frequency for each in conditions if each.frequency is not None]
    if frequencies and max(frequencies) - min(frequencies) > FREQUENCY_LIMIT * median(frequencies):
        reasons.append(f"the processor's frequency moved from {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
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
    """Return busy, total and stolen CPU seconds."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, TypeError, ValueError):  # no /proc/stat, or not the one of Linux
        return None, None, None
    busy = sum(getattr(times, name, 0.0) for name in BUSY)
    steal = getattr(times, "steal", None)
    return busy, busy + times.idle + getattr(times, "iowait", 0.0) + (steal or 0.0), steal


def _load() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):  # Windows has none
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
    if not frequencies:  # most virtual machines; the first page has a few cores
        megahertz = re.findall(rb"^cpu MHz\s*:\s*(\d+\.?\d*)\n", _content("/proc/cpuinfo"), re.MULTILINE)
        frequencies = [float(value) for value in megahertz]
    return fmean(frequencies) if frequencies else None


def _throttled(cores: Sequence[int]) -> float | None:
    counts = [_content(f"{CPU_FOLDER}/cpu{core}/thermal_throttle/core_throttle_count").strip() for core in cores]
    known = [int(count) for count in counts if count.isdigit()]
    return float(sum(known)) if known else None


def _content(path: str) -> bytes:
    """Return a kernel file's first page, empty if it cannot be read; four times as fast as `Path.read_bytes`."""
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(file, PAGE)
    except OSError:  # pressure that is compiled in but switched off
        return b""
    finally:
        os.close(file)

"""How quiet the machine was while something was measured: other processes, steal, pressure, frequency, throttling."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

import psutil

__all__ = ["Conditions", "Reading", "conditions_between", "noise_of"]

OTHERS_LIMIT = 0.10
"""More than this share of the processor in other processes' hands marks a measurement as noisy."""

STEAL_LIMIT = 0.02
"""More than this share taken by the hypervisor does; it strikes in whole time slices, so little of it is felt."""

PRESSURE_LIMIT = 0.25
"""More than this share of the time with some task waiting for a processor does; our own threads wait now and then too."""

FREQUENCY_LIMIT = 0.10
"""A frequency that moved by more than this share of its median does."""

CORES_READ = 8
"""So many cores, evenly spread, tell the frequency and the throttling: reading each of a hundred takes milliseconds."""

BUSY = ("user", "nice", "system", "irq", "softirq")
"""The kinds of time in which a core works for this machine: guests are in user, and Windows' interrupts in system, already."""

CPU_FOLDER = "/sys/devices/system/cpu"
PAGE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The machine's counters at one moment; None for what cannot be read here.

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
    """What the machine was like between two readings; None for what it does not tell.

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

    All cores' time is what the kernel counted between the readings, not cores times elapsed: both parts of a share then come
    from one source, also in a container that sees the host's counters. Where these stand still, nothing is told.
    """
    total = _increase(before.total, after.total)
    busy = _increase(before.busy, after.busy)
    throttled = _increase(before.throttled, after.throttled)
    frequencies = [reading.frequency for reading in (before, after) if reading.frequency is not None]
    return Conditions(
        load=after.load,
        # ticks are coarse, and a container's counters may leave us out: less busy than ourselves is no one else
        others=_share(None if busy is None else busy - (after.own - before.own), total),
        steal=_share(_increase(before.steal, after.steal), total),
        pressure=_share(_increase(before.pressure, after.pressure), after.clock - before.clock),
        frequency=fmean(frequencies) if frequencies else None,
        throttled=None if throttled is None else max(0.0, throttled),  # a core taken offline takes its count along
    )


def noise_of(conditions: Sequence[Conditions]) -> tuple[str, ...]:
    """Return what marks a measurement of these rounds as noisy, a short sentence each; empty if nothing does.

    Shares are averaged over the rounds, not their median taken. The kernel counts in ticks of 10 ms, so that of a short
    round a share is zero or much too large, and the median of such would be zero whatever the others do; the mean is what
    the counters of all rounds together tell, if these are about equally long. It also shows a burst that hit few rounds.
    """
    found = []
    others = _mean([entry.others for entry in conditions])
    steal = _mean([entry.steal for entry in conditions])
    pressure = _mean([entry.pressure for entry in conditions])
    if others > OTHERS_LIMIT:
        found.append(f"other processes took {100 * others:.0f} % of the processor")
    if steal > STEAL_LIMIT:
        found.append(f"the hypervisor gave {100 * steal:.0f} % of the processor to others")
    if pressure > PRESSURE_LIMIT:
        found.append(f"some task waited for the processor {100 * pressure:.0f} % of the time")
    if throttled := sum(entry.throttled or 0 for entry in conditions):
        found.append(f"the processor was slowed for heat {_times(throttled)}")
    frequencies = [entry.frequency for entry in conditions if entry.frequency is not None]
    if frequencies and max(frequencies) - min(frequencies) > FREQUENCY_LIMIT * median(frequencies):
        found.append(f"the processor's frequency moved from {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
    return tuple(found)


def _increase(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or whole is None or whole <= 0 else min(1.0, max(0.0, part / whole))


def _mean(shares: Sequence[float | None]) -> float:
    """Return the mean of those that are known, 0 if none is."""
    known = [share for share in shares if share is not None]
    return fmean(known) if known else 0.0


def _times(number: float) -> str:
    return "once" if number == 1 else f"{number:.0f} times"


def _processor_times() -> tuple[float | None, float | None, float | None]:
    """Return busy, total and stolen CPU seconds."""
    try:
        times = psutil.cpu_times()
    except (OSError, RuntimeError, TypeError, ValueError):  # no /proc/stat, or one that is no Linux's
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
    found = re.search(rb"^some .*total=(\d+)", _content("/proc/pressure/cpu"), re.MULTILINE)
    return int(found.group(1)) / 1e6 if found else None


def _cores_read() -> list[int]:
    count = os.cpu_count() or 1
    return sorted({index * count // CORES_READ for index in range(CORES_READ)})


def _frequency(cores: Sequence[int]) -> float | None:
    kilohertz = [_content(f"{CPU_FOLDER}/cpu{core}/cpufreq/scaling_cur_freq").strip() for core in cores]
    frequencies = [int(value) / 1000 for value in kilohertz if value.isdigit()]
    if not frequencies:  # most virtual machines; the page that is read has the first few cores
        found = re.findall(rb"^cpu MHz\s*:\s*(\d+\.?\d*)\n", _content("/proc/cpuinfo"), re.MULTILINE)
        frequencies = [float(value) for value in found]
    return fmean(frequencies) if frequencies else None


def _throttled(cores: Sequence[int]) -> float | None:
    counts = [_content(f"{CPU_FOLDER}/cpu{core}/thermal_throttle/core_throttle_count").strip() for core in cores]
    known = [int(count) for count in counts if count.isdigit()]
    return float(sum(known)) if known else None


def _content(path: str) -> bytes:
    """Return a kernel file's first page, empty if it cannot be read; a quarter of what `Path.read_bytes` takes."""
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

"""What the machine was like during a measurement, and what of it is called noise."""

from __future__ import annotations

import dataclasses

import pytest

from zoo.benchmark.measuring.conditions import Conditions, Reading, conditions_between, describe_noise

UNKNOWN = dict.fromkeys(("busy", "total", "steal", "pressure", "load", "frequency", "throttled"))


def reading(**facts):
    """A reading of a machine with four cores that has run for 100 seconds, half busy."""
    known = {"busy": 200.0, "total": 400.0, "steal": 0.0, "pressure": 5.0, "load": 2.0, "frequency": 2000.0, "throttled": 7.0}
    return Reading(**{"clock": 100.0, "own": 10.0, **known, **facts})


def round_of(**facts):
    return Conditions(**{**dict.fromkeys(Conditions.__dataclass_fields__), **facts})


def test_between_two_readings_each_share_is_of_what_passed():
    after = reading(
        clock=110.0, own=25.0, busy=223.0, total=440.0, steal=1.0, pressure=7.5, load=3.0, frequency=3000.0, throttled=9.0
    )
    assert conditions_between(reading(), after) == Conditions(
        load=3.0, others=8 / 40, steal=1 / 40, pressure=0.25, frequency=2500.0, throttled=2.0
    )


def test_our_own_time_is_nobody_elses():
    assert conditions_between(reading(), reading(clock=101.0, own=14.0, busy=204.0, total=404.0)).others == 0.0


def test_a_machine_less_busy_than_ourselves_has_no_others():
    assert conditions_between(reading(), reading(clock=101.0, own=14.0, busy=203.0, total=404.0)).others == 0.0


def test_shares_stay_within_one_however_coarse_the_ticks():
    found = conditions_between(reading(), reading(clock=100.1, busy=200.5, total=400.4, steal=0.5, pressure=5.2))
    assert (found.others, found.steal, found.pressure) == (1.0, 1.0, 1.0)


def test_counters_that_go_back_count_as_nothing():
    found = conditions_between(reading(steal=3.0), reading(clock=101.0, total=404.0, steal=2.0, pressure=4.0, throttled=3.0))
    assert (found.steal, found.pressure, found.throttled) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("blind", ["before", "after", "both"])
def test_what_a_reading_lacks_is_unknown(blind):
    before = reading(**(UNKNOWN if blind != "after" else {}))
    after = reading(**{"clock": 101.0, "total": 404.0, **(UNKNOWN if blind != "before" else {})})
    found = conditions_between(before, after)
    assert (found.others, found.steal, found.pressure, found.throttled) == (None, None, None, None)
    assert found.frequency == (None if blind == "both" else 2000.0)


def test_counters_that_stand_still_tell_nothing():
    found = conditions_between(reading(), reading(own=11.0))
    assert (found.others, found.steal, found.pressure) == (None, None, None)


def test_conditions_become_plain_data():
    assert round_of(load=1.5, throttled=2.0).as_dict() == {
        "load": 1.5,
        "others": None,
        "steal": None,
        "pressure": None,
        "frequency": None,
        "throttled": 2.0,
    }


def test_this_machine_can_be_read_and_its_conditions_lie_within_their_ranges():
    before = Reading.now()
    sum(number * number for number in range(300_000))
    after = Reading.now()
    assert after.clock > before.clock
    assert after.own > before.own
    found = conditions_between(before, after)
    assert all(share is None or 0 <= share <= 1 for share in (found.others, found.steal, found.pressure))
    assert all(value is None or value >= 0 for value in (found.load, found.throttled))
    assert found.frequency is None or 10 < found.frequency < 20_000
    for field in dataclasses.fields(Reading):
        assert isinstance(getattr(after, field.name), float | None)


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"others": 0.31}, "other processes took 31 % of the processor"),
        ({"steal": 0.05}, "the hypervisor gave 5 % of the processor to other virtual machines"),
        ({"pressure": 0.4}, "some task waited for the processor 40 % of the time"),
        ({"throttled": 2.0}, "the processor was slowed down by heat 6 times"),
    ],
)
def test_noise_is_told_in_a_sentence(facts, told):
    assert describe_noise([round_of(**facts)] * 3) == (told,)


def test_a_single_throttling_is_noise():
    assert describe_noise([round_of(throttled=0.0), round_of(throttled=1.0)]) == ("the processor was slowed down by heat once",)


def test_what_stays_within_the_limits_is_quiet_however_high_the_load():
    rounds = [
        round_of(load=9.0, others=0.1, steal=0.02, pressure=0.25, frequency=value, throttled=0.0) for value in (2000, 2200)
    ]
    assert describe_noise(rounds) == ()


@pytest.mark.parametrize("conditions", [[], [round_of()], [round_of(), round_of()]])
def test_what_is_unknown_is_no_noise(conditions):
    assert describe_noise(conditions) == ()


def test_a_share_is_averaged_so_that_coarse_ticks_neither_hide_nor_feign_others():
    hidden = [round_of(others=share) for share in (0.0, 0.0, 0.5, 0.0, 0.5, 0.0)]
    feigned = [round_of(others=share) for share in (0.0, 0.0, 0.5, 0.0, 0.0, 0.0)]
    assert describe_noise(hidden) == ("other processes took 17 % of the processor",)
    assert describe_noise(feigned) == ()


def test_a_round_that_tells_nothing_is_left_out_of_the_average():
    assert describe_noise([round_of(others=0.2), round_of(), round_of()]) == ("other processes took 20 % of the processor",)


def test_a_frequency_that_moved_is_noise():
    rounds = [round_of(frequency=value) for value in (3500.0, 3400.0, None, 2900.0, 3500.0)]
    assert describe_noise(rounds) == ("the processor's frequency varied from 2900 to 3500 MHz",)


def test_everything_is_told_at_once():
    first = round_of(load=3.0, others=0.5, steal=0.1, pressure=0.9, frequency=1000.0, throttled=1.0)
    assert len(describe_noise([first, dataclasses.replace(first, frequency=2000.0)])) == 5

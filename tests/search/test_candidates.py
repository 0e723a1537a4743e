"""All pairings are considered: they become candidates, or the reason why they do not is counted."""

from __future__ import annotations

import time
from contextlib import closing

import pytest
import torch

import zoo
from zoo.benchmark.store.store import Store
from zoo.common.json_cache import JsonCache
from zoo.registry.plugin_files import load_plugin_file
from zoo.search.calibration import find_calibration
from zoo.search.candidates import CandidateFinder
from zoo.search.counting import missing
from zoo.search.counting.counter import PairingCounter
from zoo.search.request import SearchRequest, parse_limits

pytestmark = pytest.mark.usefixtures("one_thread")

ENCODERS = ("resnet18", "timm:test_resnet", "timm:test_convnext", "timm:test_vit")


PLUGIN = """
import torch
import zoo

class Mine(torch.nn.Module):
    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

    def forward(self, features):
        return features[0]

zoo.register_decoder("mine", Mine)
"""


class Silent:
    """A watcher that shows nothing."""

    def begin(self, total):
        pass

    def advance(self, what, count=1):
        pass

    def say(self, line):
        pass

    log = say


@pytest.fixture(scope="module")
def make_finder(calibrated):
    """Return a function that makes the finder of a request."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with closing(Store(calibrated)) as store:
        model = find_calibration(store, device="cpu").model
    torch.set_num_threads(threads)

    def make(counter=None, limits=(), **options):
        options = {
            "encoders": ENCODERS,
            "decoders": ("unet-*",),
            "height": 64,
            "width": 64,
            "prior": {},
            "minutes": 1,
        } | options
        request = SearchRequest(limits=parse_limits(dict(limits)), **options)
        return CandidateFinder(request, model, counter or PairingCounter(), Silent())

    return make


@pytest.fixture(scope="module")
def find(make_finder):
    """Return a function that finds the candidates of a request."""
    return lambda counter=None, deadline=float("inf"), **options: make_finder(counter, **options).find(deadline)


def ids(found):
    return {(each.pairing.encoder, each.pairing.decoder) for each in found.candidates}


def test_each_pairing_is_a_candidate_or_dropped_for_a_reason(find):
    found = find(limits={"max_parameters": "3M", "max_latency": "1s"})
    assert found.total == 12
    assert len(found.candidates) + sum(found.dropped.values()) == 12
    assert found.dropped["they exceed --max-parameters"] >= 3  # those of resnet18
    assert all(each.parameters <= 3e6 and each.latency.low <= 1 for each in found.candidates)
    parameters, pairing = found.nearest["max_parameters"]
    model = zoo.build(pairing.encoder, pairing.decoder)
    assert 3e6 < parameters <= sum(each.numel() for each in model.parameters())


def test_a_candidate_has_the_cost_that_is_estimated_for_its_pairing(find, calibrated):
    (found,) = find(encoders=("timm:test_resnet",), decoders=("unet-basic",)).candidates
    alone = zoo.estimate_cost("timm:test_resnet", "unet-basic", size=64, device="cpu", store=calibrated)
    assert (found.parameters, found.peak_bytes, found.flops) == (alone.parameters, alone.peak_bytes, alone.flops)
    for end in ("seconds", "low", "high"):
        assert getattr(found.latency, end) == pytest.approx(getattr(alone.latency, end))


def test_a_pairing_unlike_all_timed_ones_is_a_candidate_with_a_rough_guess_of_its_time(find, calibrated):
    chosen = {"encoders": ("timm:test_resnet",), "decoders": ("unet-basic",)}
    (rough,) = find(**chosen, height=1024, width=1024).candidates
    (sure,) = find(**chosen).candidates
    assert zoo.estimate_cost("timm:test_resnet", "unet-basic", size=1024, device="cpu", store=calibrated).latency is None
    assert (rough.is_guessed, sure.is_guessed) == (True, False)
    assert rough.latency.high / rough.latency.low >= 9 * (sure.latency.high / sure.latency.low)


def test_the_prior_score_or_else_the_flops_are_the_score(find):
    assert all(each.score == each.flops for each in find().candidates)
    found = find(prior={"timm:test_resnet": 70.0})
    assert {each.score for each in found.candidates} == {70.0}
    assert found.dropped["their encoders have no prior score"] == 9


def test_an_encoder_with_a_tag_has_the_prior_score_of_its_architecture(find):
    found = find(encoders=("timm:test_resnet.r160_in1k",), prior={"timm:test_resnet": 70.0})
    assert {(each.pairing.encoder, each.score) for each in found.candidates} == {("timm:test_resnet.r160_in1k", 70.0)}


def test_a_finder_goes_on_with_what_there_was_no_time_for(make_finder):
    finder = make_finder()
    assert finder.find(time.monotonic() - 1).uncounted == 12
    found = finder.find()
    assert found.uncounted == 0
    assert found == make_finder().find()


def test_after_the_deadline_nothing_is_counted_but_kept_counts_are_used(find, tmp_path):
    with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
        before = find(PairingCounter(cache), decoders=("unet-basic",))
    with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
        found = find(PairingCounter(cache), deadline=time.monotonic() - 1)
    assert ids(found) == ids(before)
    assert found.uncounted == found.dropped["there was no time to count them"] >= 4


@pytest.mark.slow
def test_many_counts_are_done_in_processes_of_their_own_and_are_the_same(find, tmp_path, monkeypatch):
    alone = find()
    monkeypatch.setattr(missing, "MANY", 1)
    with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
        counter = PairingCounter(cache)
        monkeypatch.setattr(counter, "find", lambda key, count, is_lasting: counter._parts[key])  # nothing is counted here
        found = find(counter)
    assert found == alone


@pytest.mark.usefixtures("fresh_registry")
def test_a_model_that_fails_is_dropped_and_the_others_stay(find, tmp_path, monkeypatch):
    class Failing(torch.nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            raise RuntimeError("no")

    zoo.register_decoder("failing", Failing)
    zoo.register_decoder("coarse", Failing, needs=zoo.Needs(min_levels=99))
    found = find(decoders=("unet-basic", "failing", "coarse"), encoders=("timm:test_resnet", "timm:test_vit"))
    assert {decoder for _, decoder in ids(found)} <= {"unet-basic"}
    assert found.dropped["they cannot be counted on the meta device"] == 2
    assert "timm:test_resnet x local:failing: The factory of local:failing raised RuntimeError: no" in found.uncountable
    assert found.dropped["the decoder cannot take the encoder's maps"] == 2


@pytest.mark.usefixtures("fresh_registry")
def test_encoders_are_counted_in_other_processes_also_for_a_decoder_of_a_plugin_file(find, tmp_path, monkeypatch):
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN, encoding="utf-8")
    monkeypatch.setattr(missing, "MANY", 1)
    with closing(JsonCache(tmp_path / "counts.sqlite", print)) as cache:
        counter = PairingCounter(cache)
        monkeypatch.setattr(counter, "find", lambda key, count, is_lasting: counter._parts[key])  # nothing is counted here
        load_plugin_file(plugin)
        found = find(counter, encoders=("timm:test_resnet",), decoders=("mine",), plugins=(str(plugin),))
    assert ids(found) == {("timm:test_resnet", "local:mine")}
    assert found.candidates[0].parameters > 0


def test_a_decoder_that_a_script_registered_is_not_counted_after_the_deadline(find, fresh_registry):
    zoo.register_decoder("mine", torch.nn.Identity)
    found = find(decoders=("mine",), deadline=time.monotonic() - 1)
    assert found.uncounted == 4

"""Plugins found through entry points of real distributions, each isolated from the others."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
import threading
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from torch import nn

import zoo
from zoo.benchmark.running.environment import describe_environment
from zoo.registry.discovery import find_plugins, load_plugins
from zoo.registry.plugin_files import load_plugin_file
from zoo.registry.registry import default_registry

GOOD = """
    import zoo

    @zoo.plugin.hookimpl
    def zoo_encoders():
        yield zoo.plugin.EncoderSpec(
            name="tiny", factory="good_parts:Tiny", pyramid=(zoo.plugin.FeatureMap(name="a", channels=4, stride=2),)
        )

    @zoo.plugin.hookimpl
    def zoo_decoders():
        yield zoo.plugin.DecoderSpec(name="sum", factory="good_parts:Sum", needs=zoo.Needs(channels=8))
"""
GOOD_PARTS = """
    import torch.nn.functional as F
    from torch import nn

    class Tiny(nn.Module):
        def __init__(self, *, maps, in_channels, weights):
            super().__init__()
            self.conv = nn.Conv2d(in_channels, 4, 3, stride=2, padding=1)

        def forward(self, image):
            return [self.conv(image)]

    class Sum(nn.Module):
        def __init__(self, pyramid):
            super().__init__()
            self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

        def forward(self, features):
            return sum(F.interpolate(x, size=features[0].shape[-2:]) for x in features)
"""
TAKEOVER = """
    import zoo

    @zoo.plugin.hookimpl
    def zoo_takeovers():
        return {given}
"""
HOOK = """
    import zoo

    @zoo.plugin.hookimpl
    def {hook}():
        yield zoo.plugin.DecoderSpec(name="first", factory="a:B")
        {then}
"""
BROKEN = {
    "raises on import": ("raise ValueError('not today')", ValueError, "not today"),
    "exits on import": ("raise SystemExit('leaving')", SystemExit, "leaving"),
    "skips a test on import": (
        "import pytest\npytest.importorskip('no_such_module_at_all')",
        BaseException,
        "no_such_module_at_all",
    ),
    "is canceled on import": ("import asyncio\nraise asyncio.CancelledError('no task')", asyncio.CancelledError, "no task"),
    "interrupts itself on import": ("raise KeyboardInterrupt('mine')", KeyboardInterrupt, "mine"),
    "leaves a generator on import": ("raise GeneratorExit", GeneratorExit, "GeneratorExit"),
    "raises what is no Exception": (
        "class Panic(BaseException): pass\nraise Panic('of Rust')",
        BaseException,
        "Panic: of Rust",
    ),
    "raises what has no text": (
        "class Mute(Exception):\n    def __str__(self): raise KeyError('text')\nraise Mute",
        Exception,
        "Mute: .its text raised KeyError",
    ),
    "interrupts itself in its hook": (HOOK.format(hook="zoo_decoders", then="raise KeyboardInterrupt"), KeyboardInterrupt, ""),
    "cannot be parsed": ("def broken(:", SyntaxError, "SyntaxError"),
    "needs what is not installed": ("import no_such_module_at_all", ModuleNotFoundError, "no_such_module_at_all"),
    "yields another type": (
        HOOK.format(hook="zoo_decoders", then="yield 'text'"),
        zoo.errors.RegistrationError,
        "DecoderSpec.*'text'",
    ),
    "yields a decoder as an encoder": (HOOK.format(hook="zoo_encoders", then=""), zoo.errors.RegistrationError, "EncoderSpec"),
    "yields one name twice": (
        HOOK.format(hook="zoo_decoders", then="yield zoo.plugin.DecoderSpec(name='first', factory='other:B')"),
        zoo.errors.RegistrationError,
        "two different specs under the name 'first'",
    ),
    "takes over without a path": (
        HOOK.format(hook="zoo_decoders", then="")
        + "\n    @zoo.plugin.hookimpl\n    def zoo_takeovers():\n        return {'lib': 'no path'}\n",
        zoo.errors.RegistrationError,
        "zoo_takeovers must map library names to 'package.module:name'.*'no path'",
    ),
    "takes over with a list": (
        HOOK.format(hook="zoo_decoders", then="")
        + "\n    @zoo.plugin.hookimpl\n    def zoo_takeovers():\n        return ['a:b']\n",
        zoo.errors.RegistrationError,
        r"zoo_takeovers must map.*\['a:b'\]",
    ),
    "yields one and raises": (HOOK.format(hook="zoo_decoders", then="raise KeyError('late')"), KeyError, "late"),
    "misspells its hook": (HOOK.format(hook="zoo_decodrs", then=""), Exception, "zoo_decodrs"),
    "takes an argument that the hook has not": (
        "import zoo\n@zoo.plugin.hookimpl\ndef zoo_decoders(pattern): return []",
        Exception,
        "pattern",
    ),
    "has no hook": ("import zoo\ndef zoo_decoders(): return []", zoo.errors.RegistrationError, "implements no hook.*hookimpl"),
    "yields a spec that is wrong": (
        HOOK.format(hook="zoo_decoders", then="yield zoo.plugin.DecoderSpec(name='two words', factory='a:B')"),
        zoo.errors.RegistrationError,
        "two words",
    ),
}


@pytest.fixture
def good(install):
    install("good-dist", {"zoo": {"good": "good_hooks"}}, {"good_hooks": GOOD, "good_parts": GOOD_PARTS})


@pytest.fixture(params=BROKEN.values(), ids=BROKEN.keys())
def broken(request, install):
    source, cause, found = request.param
    install("broken-dist", {"zoo": {"broken": "broken_hooks"}}, {"broken_hooks": source})
    return cause, found


def test_the_projects_own_plugins_are_found_sorted_and_not_imported(good):
    names = [plugin.name for plugin in find_plugins()[0]]
    assert names == sorted(names)
    assert set(names) >= {"good", "timm", "torchvision", "unet"}
    assert {plugin.name for plugin in find_plugins()[0] if plugin.is_own} >= {"timm", "torchvision", "unet"}
    assert "good_hooks" not in sys.modules


def test_every_own_plugin_loads():
    own = [record for record in default_registry().records() if record.found.is_own]
    assert all(record.encoders or record.decoders for record in own)


def test_an_installed_plugin_is_listed_and_builds_with_the_projects_own(good):
    assert "good:sum" in zoo.list_decoders()
    assert "good:tiny" in zoo.list_encoders()
    assert "good_parts" not in sys.modules
    model = zoo.build("resnet18", "good:sum")
    assert type(model.decoder).__module__ == "good_parts"
    assert [route.output.channels for route in model.plan.routes] == [8] * 5
    assert type(zoo.build("tiny", "sum").encoder).__name__ == "Tiny"


def test_a_plugin_record_says_where_it_comes_from(good):
    [record] = [record for record in default_registry().records() if record.found.name == "good"]
    assert (record.found.distribution, record.found.version, record.found.module) == ("good-dist", "1.0", "good_hooks")
    assert not record.found.is_own
    assert record.error is None


def test_a_broken_plugin_is_one_record_with_its_error_and_leaves_nothing(broken):
    cause, found = broken
    [record] = default_registry().broken()
    assert record.found.name == "broken"
    assert (record.encoders, record.decoders) == ((), ())
    assert isinstance(record.error.__cause__, cause)
    with pytest.raises(zoo.errors.PluginError, match=f"'broken' \\(broken-dist 1.0, module broken_hooks\\)(?s:.)*{found}"):
        raise record.error


def test_a_broken_plugin_harms_no_other(broken):
    assert not any(name.startswith("broken:") for name in zoo.list_encoders() + zoo.list_decoders())
    assert "timm:resnet18" in zoo.list_encoders("resnet18")
    assert zoo.build("resnet18", "unet-basic", levels=2).plan.maps == ("stem", "layer1")


def test_asking_for_what_a_broken_plugin_has_raises_its_error_each_time(broken):
    cause, _ = broken
    for _ in range(2):
        with pytest.raises(zoo.errors.PluginError, match="'broken'") as caught:
            zoo.build("resnet18", "broken:first")
        assert isinstance(caught.value.__cause__, cause)


def test_an_unknown_name_mentions_the_plugins_that_could_not_be_loaded(broken):
    with pytest.raises(zoo.errors.UnknownIdError, match=r"1 installed plugin\(s\) could not be loaded.*`zoo plugins`"):
        zoo.build("resnet18", "first")


def test_a_broken_plugin_does_not_hide_another_of_the_same_entry_point_name(install):
    install("broken-dist", {"zoo": {"torchvision": "broken_hooks"}}, {"broken_hooks": "raise ValueError('not today')"})
    assert zoo.negotiate("torchvision:resnet18", "unet-basic").maps[0] == "stem"
    with pytest.raises(zoo.errors.PluginError, match="not today"):
        zoo.negotiate("torchvision:resnet19", "unet-basic")


def test_an_installation_without_metadata_harms_nothing(install):
    install("halfgone-dist", {"zoo": {"halfgone": "halfgone_hooks"}}, {}, metadata=False)
    assert zoo.negotiate("resnet18", "unet-basic").maps[0] == "stem"
    assert "timm:resnet18" in zoo.list_encoders("resnet18")


def test_only_this_distribution_says_what_is_canonical(install):
    install("greedy-dist", {"zoo.canonical": {"resnet18": "greedy_hooks", "mine": "greedy_hooks"}}, {})
    assert find_plugins()[1] == {
        "resnet18": "zoo_resnet18",
        "unet-attention": "zoo_unet",
        "unet-basic": "zoo_unet",
        "unet-bilinear": "zoo_unet",
    }


@pytest.mark.parametrize("name", ["local", "module", "a:b"])
def test_a_plugin_whose_name_no_id_can_have_is_a_record_with_its_error(install, name):
    install(
        "odd",
        {"zoo": {name: "odd_name"}},
        {"odd_name": "import zoo\n\n@zoo.plugin.hookimpl\ndef zoo_decoders():\n    return []\n"},
    )
    (record,) = [record for record in load_plugins(find_plugins()[0]) if record.found.distribution == "odd"]
    assert "a plugin's name must have no colon and must not be 'local'" in str(record.error)


@pytest.fixture
def two(install, monkeypatch):
    """Two foreign plugins, and a function that sets an environment variable for a fresh registry."""
    for name in ("red", "blue"):
        source = HOOK.format(hook="zoo_decoders", then="").replace('"first"', f'"{name}-decoder"')
        install(f"{name}-dist", {"zoo": {name: f"{name}_hooks"}}, {f"{name}_hooks": f"print('hello')\n{dedent(source)}"})

    def set_to(variable, value):
        monkeypatch.setenv(variable, value)
        default_registry.cache_clear()

    return set_to


def foreign():
    return [name for name in zoo.list_decoders() if "red" in name or "blue" in name]


@pytest.mark.parametrize(
    ("variable", "value", "left"),
    [
        ("ZOO_PLUGINS", "", []),
        ("ZOO_PLUGINS", "red", ["red:red-decoder"]),
        ("ZOO_PLUGINS", " blue-dist , no-such", ["blue:blue-decoder"]),
        ("ZOO_DISABLE_PLUGINS", "", ["blue:blue-decoder", "red:red-decoder"]),
        ("ZOO_DISABLE_PLUGINS", "red-dist", ["blue:blue-decoder"]),
        ("ZOO_DISABLE_PLUGINS", "red,blue", []),
    ],
)
def test_the_environment_says_which_plugins_are_imported(two, variable, value, left):
    two(variable, value)
    assert foreign() == left
    assert [name for name in ("red", "blue") if f"{name}_hooks" in sys.modules] == [
        name for name in ("red", "blue") if f"{name}:{name}-decoder" in left
    ]
    assert zoo.negotiate("resnet18", "unet-basic").maps[0] == "stem"


def test_asking_for_a_plugin_that_is_switched_off_says_by_what(two):
    two("ZOO_PLUGINS", "blue")
    with pytest.raises(zoo.errors.PluginError, match=r"'red:red-decoder' was requested.*red-dist.*switched off.*ZOO_PLUGINS"):
        zoo.negotiate("resnet18", "red:red-decoder")
    with pytest.raises(zoo.errors.UnknownIdError, match=r"1 installed plugin\(s\) are switched off"):
        zoo.negotiate("resnet18", "red-decoder")


def test_the_projects_own_plugins_can_be_switched_off_by_name(two):
    two("ZOO_DISABLE_PLUGINS", "unet")
    with pytest.raises(zoo.errors.PluginError, match=r"'unet-basic' was requested.*ZOO_DISABLE_PLUGINS"):
        zoo.negotiate("resnet18", "unet-basic")
    assert "resnet18" in zoo.list_encoders()


def test_what_a_plugin_prints_on_import_goes_to_stderr(two, capsys):
    zoo.list_decoders()
    assert capsys.readouterr() == ("", "hello\nhello\n")


@pytest.mark.parametrize(
    ("stated", "found"),
    [("99", "made for plugin API 99, but this version of zoo has 1; upgrade segmentation-zoo"), ("'2'", "found '2'")],
)
def test_a_plugin_made_for_a_later_api_is_refused_even_if_it_has_hooks_of_that_one(install, stated, found):
    source = f"zoo_api = {stated}\n{dedent(HOOK.format(hook='zoo_losses', then=''))}"
    install("later-dist", {"zoo": {"later": "later_hooks"}}, {"later_hooks": source})
    (record,) = default_registry().broken()
    assert found in str(record.error)


@pytest.mark.parametrize("stated", ["", "zoo_api = 1"])
def test_a_plugin_made_for_this_api_or_an_earlier_one_works(install, monkeypatch, stated):
    monkeypatch.setattr("zoo.registry.discovery.API_VERSION", 2)
    source = f"{stated}\n{dedent(HOOK.format(hook='zoo_decoders', then=''))}"
    install("older-dist", {"zoo": {"older": "older_hooks"}}, {"older_hooks": source})
    assert "older:first" in zoo.list_decoders()


def test_the_users_own_interrupt_of_an_import_is_no_plugins_fault(install, heeds_interrupts):
    source = "import _thread, time\n_thread.interrupt_main()\ntime.sleep(30)"
    install("slow-dist", {"zoo": {"slow": "slow_hooks"}}, {"slow_hooks": source})
    with pytest.raises(KeyboardInterrupt):
        default_registry().records()


def test_an_import_that_takes_long_is_named(install, monkeypatch, capsys):
    monkeypatch.setattr("zoo.common.foreign_code.PATIENCE", 0.05)
    install("slow-dist", {"zoo": {"slow": "slow_hooks"}}, {"slow_hooks": "import time\ntime.sleep(0.5)"})
    default_registry().records()
    told = capsys.readouterr().err
    assert "Importing plugin 'slow' (slow-dist 1.0, module slow_hooks) has been running for 0.05 s" in told
    assert "ZOO_DISABLE_PLUGINS=slow" in told


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("needs", "The needs function of slow:first"),
        ("import", "Importing the factory 'slow_parts:Sum' of slow:first"),
        ("factory", "The factory of slow:first"),
        ("head", "make_head of slow:first"),
        ("file", "The plugin file "),
    ],
)
def test_any_code_of_a_plugin_that_takes_long_is_named(install, monkeypatch, capsys, tmp_path, where, told):
    def wait(at):
        return "time.sleep(0.3)" if at == where else "pass"

    hooks = f"""
        import time, zoo

        def needs(**options):
            {wait("needs")}
            return zoo.Needs()

        @zoo.plugin.hookimpl
        def zoo_decoders():
            yield zoo.plugin.DecoderSpec(name="first", factory="slow_parts:Sum", needs=needs)
    """
    parts = f"""
        import time
        from torch import nn

        {wait("import")}

        class Sum(nn.Module):
            def __init__(self, pyramid):
                super().__init__()
                {wait("factory")}
                self.out_channels, self.out_stride = 4, 1

            def make_head(self, classes):
                {wait("head")}
                return nn.Identity()
    """
    install("slow-dist", {"zoo": {"slow": "slow_hooks"}}, {"slow_hooks": hooks, "slow_parts": parts})
    default_registry().records()
    monkeypatch.setattr("zoo.common.foreign_code.PATIENCE", 0.1)
    if where == "file":
        (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.3)", encoding="utf-8")
        load_plugin_file(tmp_path / "slow.py")
    else:
        zoo.build("timm:test_resnet", "slow:first")
    named = capsys.readouterr().err
    assert f"{told}" in named
    assert "has been running for 0.1 s and may never end" in named


def put_pipe(path):
    path.unlink()
    os.mkfifo(path)


def put_loop(path):
    path.unlink()
    path.symlink_to(path.name)


def put_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("broken", ["METADATA", "entry_points.txt"])
@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (put_pipe, "it is a named pipe, not a regular file"),
        (put_loop, "Too many levels of symbolic links"),
        (put_folder, "it is a folder, not a regular file"),
        (lambda path: path.write_text("[zoo]\nno equals sign", encoding="utf-8"), ""),
    ],
    ids=["pipe", "loop", "folder", "malformed"],
)
def test_a_distribution_whose_files_cannot_be_read_harms_no_other(good, install, tmp_path, capsys, broken, spoil, told):
    install("odd-dist", {"zoo": {"odd": "odd_hooks"}}, {"odd_hooks": GOOD.replace('"sum"', '"odd-sum"')})
    spoil(tmp_path / "site-packages/odd_dist-1.0.dist-info" / broken)
    default_registry.cache_clear()
    assert "good:sum" in zoo.list_decoders()
    assert zoo.negotiate("resnet18", "unet-basic").maps[0] == "stem"
    found = [record.found for record in default_registry().records() if record.found.name == "odd"]
    assert [(plugin.distribution, plugin.version) for plugin in found] == [("odd-dist", "1.0")] * (broken == "METADATA")
    assert dict(describe_environment(torch.device("cpu")).versions).get("odd-dist", "1.0") == "1.0"
    warned = f"no plugin of odd-dist is available: its entry_points.txt cannot be read: {told}"
    assert (warned in capsys.readouterr().err) is (broken == "entry_points.txt")


@pytest.mark.parametrize("broken", ["METADATA", "entry_points.txt"])
def test_a_distribution_whose_files_are_no_utf_8_harms_no_other(good, install, tmp_path, capsys, broken):
    install("latin-dist", {"zoo": {"latin": "latin_hooks"}}, {"latin_hooks": GOOD.replace('"sum"', '"latin-sum"')})
    path = tmp_path / "site-packages/latin_dist-1.0.dist-info" / broken
    path.write_bytes(path.read_bytes() + "\nSummary: für alle\n".encode("latin-1"))
    default_registry.cache_clear()
    assert "good:sum" in zoo.list_decoders()
    assert zoo.negotiate("resnet18", "unet-basic").maps[0] == "stem"
    found = [record.found for record in default_registry().records() if record.found.name == "latin"]
    assert [(plugin.distribution, plugin.version) for plugin in found] == [("latin-dist", "1.0")] * (broken == "METADATA")
    told = "no plugin of latin-dist is available: its entry_points.txt cannot be read: 'utf-8' codec"
    assert (told in capsys.readouterr().err) is (broken == "entry_points.txt")


@pytest.mark.parametrize(
    "source",
    ["raise KeyboardInterrupt('mine')", "import asyncio\nraise asyncio.CancelledError('mine')", "raise SystemExit('mine')"],
)
def test_whatever_a_plugin_file_raises_is_its_error(fresh_registry, tmp_path, source):
    path = tmp_path / "odd.py"
    path.write_text(source, encoding="utf-8")
    with pytest.raises(zoo.errors.PluginError, match=r"The plugin file .*odd\.py raised \w+: mine"):
        load_plugin_file(path)


@pytest.mark.parametrize("where", ["needs", "factory", "import"])
def test_whatever_a_plugins_function_raises_is_its_error_and_ends_no_command(install, command_line, where):
    parts = {
        "needs": "def made(pyramid): ...\ndef needs(**options): raise SystemExit(0)",
        "factory": "import zoo\ndef made(pyramid): raise KeyboardInterrupt\ndef needs(**options): return zoo.Needs()",
        "import": "raise SystemExit(0)",
    }[where]
    hooks = """
        import zoo

        def needs(**options):
            import odd_parts
            return odd_parts.needs(**options)

        @zoo.plugin.hookimpl
        def zoo_decoders():
            yield zoo.plugin.DecoderSpec(name="odd", factory="odd_parts:made", needs=needs)
    """
    install("odd-dist", {"zoo": {"odd": "odd_hooks"}}, {"odd_hooks": hooks, "odd_parts": parts})
    with pytest.raises(zoo.errors.PluginError, match="odd:odd"):
        zoo.build("resnet18", "odd:odd")
    if where != "factory":
        status, shown, errors = command_line("explain", "resnet18", "odd:odd")
        assert (status, shown) == (2, "")
        assert "raised SystemExit: 0" in errors


class Printing(nn.Module):
    """A decoder that prints, and asks its stream for a descriptor, as progress bars do."""

    before = staticmethod(lambda: None)

    def __init__(self, pyramid):
        super().__init__()
        self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride
        sys.stdout.write("made\n")
        with contextlib.suppress(OSError, AttributeError):
            sys.stdout.fileno()
        self.before()

    def forward(self, features):
        return features[0]


@pytest.mark.usefixtures("fresh_registry")
def test_what_a_plugin_prints_arrives_on_a_stream_that_can_do_no_more_than_write(monkeypatch):
    written = []

    class Writes:
        write = staticmethod(written.append)

    zoo.register_decoder("printing", Printing)
    monkeypatch.setattr("sys.stdout", Writes())
    zoo.build("timm:test_resnet", "printing")
    assert "".join(written) == "made\n"


@pytest.mark.usefixtures("fresh_registry")
def test_a_build_in_another_thread_leaves_the_programs_streams_alone():
    begun, go_on = threading.Event(), threading.Event()

    class Waiting(Printing):
        def before(self):
            begun.set()
            go_on.wait(timeout=60)

    zoo.register_decoder("waiting", Waiting)
    thread = threading.Thread(target=lambda: zoo.build("timm:test_resnet", "waiting"))
    thread.start()
    assert begun.wait(timeout=60)
    with contextlib.redirect_stdout(io.StringIO()) as captured:
        go_on.set()
        thread.join()
        sys.stdout.write("still captured\n")
    assert captured.getvalue() == "still captured\n"


@pytest.mark.usefixtures("fresh_registry")
def test_a_plugin_that_asks_its_stream_for_a_descriptor_leaves_no_file_open(capfd):
    zoo.register_decoder("printing", Printing)
    zoo.build("timm:test_resnet", "printing")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        zoo.build("timm:test_resnet", "printing")
    assert len(list(Path("/proc/self/fd").iterdir())) <= before

"""Registering encoders and decoders at run time: by call, by decorator, from a file."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import zoo
from zoo.registry.plugin_files import load_plugin_file
from zoo.registry.registry import default_registry

pytestmark = pytest.mark.usefixtures("fresh_registry", "one_thread")

MAPS = (zoo.plugin.FeatureMap(name="fine", channels=4, stride=2), zoo.plugin.FeatureMap(name="coarse", channels=8, stride=4))


class Sum(nn.Module):
    needs = zoo.Needs(channels=8)

    def __init__(self, pyramid, *, scale=1.0):
        super().__init__()
        self.scale = scale
        self.out_channels, self.out_stride = pyramid[0].channels, pyramid[0].stride

    def forward(self, features):
        return self.scale * sum(F.interpolate(x, size=features[0].shape[-2:]) for x in features)


class Tiny(nn.Module):
    def __init__(self, *, maps, in_channels, weights, width=4):
        super().__init__()
        self.maps = maps
        self.fine = nn.Conv2d(in_channels, width, 3, stride=2, padding=1)
        self.coarse = nn.Conv2d(width, 8, 3, stride=2, padding=1)

    def forward(self, image):
        fine = self.fine(image)
        given = {"fine": fine, "coarse": self.coarse(fine)}
        return [given[name] for name in self.maps]


CELL = """
@zoo.register_decoder("cell")
class Cell(Sum):
    edition = {edition}
"""


def run_cell(edition, module="__main__"):
    exec(CELL.format(edition=edition), {"__name__": module, "zoo": zoo, "Sum": Sum})


def built_with(decoder, **options):
    with torch.device("meta"):
        return zoo.build("resnet18", decoder, **options)


def test_a_decoder_class_is_registered_by_a_call():
    assert zoo.register_decoder("sum", Sum) is Sum
    assert "local:sum" in zoo.list_decoders()
    assert type(zoo.build("resnet18", "sum").decoder) is Sum
    assert type(built_with("local:sum").decoder) is Sum


def test_a_decoder_class_is_registered_by_a_decorator():
    @zoo.register_decoder("sum", needs=zoo.Needs(strides=(8, 16)))
    class Other(Sum):
        pass

    assert isinstance(Other, type)
    model = built_with("sum")
    assert type(model.decoder) is Other
    assert model.plan.maps == ("layer2", "layer3")


def test_a_function_that_makes_the_module_is_registered_too():
    @zoo.register_decoder("double")
    def double(pyramid):
        return Sum(pyramid, scale=2.0)

    assert built_with("double").decoder.scale == 2.0
    assert built_with("double").plan.adapter_parameters == 0


def test_needs_are_the_class_attribute_unless_given():
    zoo.register_decoder("by-class", Sum)
    zoo.register_decoder("by-argument", Sum, needs=zoo.Needs(channels=16))
    zoo.register_decoder("by-function", Sum, needs=lambda scale=1.0: zoo.Needs(channels=int(scale)))
    assert {entry.channels for entry in zoo.negotiate("resnet18", "by-class").pyramid} == {8}
    assert {entry.channels for entry in zoo.negotiate("resnet18", "by-argument").pyramid} == {16}
    assert {entry.channels for entry in zoo.negotiate("resnet18", "by-function", decoder_options={"scale": 5.0}).pyramid} == {5}


@pytest.mark.parametrize("encoder", ["resnet18", "timm:resnet18"])
def test_a_decoder_written_in_a_script_builds_with_any_encoder(encoder):
    zoo.register_decoder("sum", Sum)
    with torch.device("meta"):
        assert zoo.build(encoder, "sum", classes=5)(torch.rand(2, 3, 225, 301)).shape == (2, 5, 225, 301)


def test_an_encoder_is_registered_by_a_call_and_builds():
    assert zoo.register_encoder("tiny", Tiny, pyramid=list(MAPS)) is Tiny
    assert "local:tiny" in zoo.list_encoders()
    assert zoo.channels("tiny") == [4, 8]
    model = zoo.build("tiny", "unet-basic", in_channels=5, classes=2)
    assert model(torch.rand(2, 5, 33, 47)).shape == (2, 2, 33, 47)


def test_an_encoder_is_registered_by_a_decorator_and_told_which_maps_to_give():
    @zoo.register_encoder(
        "tiny", pyramid=lambda width=4: (zoo.plugin.FeatureMap(name="fine", channels=width, stride=2), MAPS[1])
    )
    class Other(Tiny):
        pass

    zoo.register_decoder("sum", Sum)
    model = zoo.build("tiny", "sum", levels=1, encoder_options={"width": 6})
    assert type(model.encoder) is Other
    assert model.encoder.maps == ("fine",)
    assert model.encoder.fine.out_channels == 6
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)


def test_a_notebook_cell_may_run_twice_and_the_second_counts():
    run_cell(1)
    run_cell(2)
    assert built_with("cell").decoder.edition == 2


def test_a_different_class_under_a_taken_name_is_refused_unless_it_replaces():
    zoo.register_decoder("sum", Sum)
    with pytest.raises(zoo.errors.RegistrationError, match=r"'sum' is registered already.*Sum.*Tiny.*replace=True"):
        zoo.register_decoder("sum", Tiny)
    assert type(built_with("sum").decoder) is Sum
    zoo.register_decoder("sum", Sum2, replace=True)
    assert type(built_with("sum").decoder) is Sum2


class Sum2(Sum):
    pass


def test_a_class_of_the_same_name_from_another_module_is_a_different_one():
    run_cell(1, module="one")
    with pytest.raises(zoo.errors.RegistrationError, match=r"one:Cell.*two:Cell"):
        run_cell(2, module="two")


def test_another_lambda_is_a_different_factory():
    zoo.register_decoder("sum", lambda pyramid: Sum(pyramid))
    with pytest.raises(zoo.errors.RegistrationError, match="registered already"):
        zoo.register_decoder("sum", lambda pyramid: Sum(pyramid, scale=2.0))


def test_an_encoder_and_a_decoder_may_share_a_name():
    zoo.register_decoder("tiny", Sum)
    zoo.register_encoder("tiny", Tiny, pyramid=MAPS)
    assert zoo.negotiate("tiny", "tiny").maps == ("fine", "coarse")


@pytest.mark.parametrize("name", ["resnet18", "unet-basic"])
@pytest.mark.parametrize("replace", [False, True])
def test_the_projects_own_names_are_refused(name, replace):
    with pytest.raises(zoo.errors.RegistrationError, match=f"'{name}' is one of zoo's own ids.*another name"):
        zoo.register_decoder(name, Sum, replace=replace)
    with pytest.raises(zoo.errors.RegistrationError, match=f"'{name}' is one of zoo's own ids.*another name"):
        zoo.register_encoder(name, Tiny, pyramid=MAPS, replace=replace)


def test_a_name_that_a_plugin_has_is_ambiguous_bare_and_works_in_full():
    zoo.register_encoder("convnext_tiny", Tiny, pyramid=MAPS)
    assert zoo.channels("local:convnext_tiny") == [4, 8]
    with pytest.raises(zoo.errors.AmbiguousIdError, match="local:convnext_tiny, timm:convnext_tiny"):
        zoo.channels("convnext_tiny")


def test_wrong_arguments_of_a_registration_are_named():
    with pytest.raises(zoo.errors.RegistrationError, match=r"first argument must be a string, the name.*found <class"):
        zoo.register_decoder(Sum)
    with pytest.raises(zoo.errors.RegistrationError, match="'two words'"):
        zoo.register_decoder("two words", Sum)
    with pytest.raises(zoo.errors.RegistrationError, match=r"`needs` must be a zoo\.Needs.*found 3"):
        zoo.register_decoder("sum", Sum, needs=3)
    with pytest.raises(zoo.errors.RegistrationError, match=r"a factory must be .*found 7"):
        zoo.register_decoder("sum", 7)
    with pytest.raises(zoo.errors.RegistrationError, match=r"'tiny'.*at least one feature map"):
        zoo.register_encoder("tiny", Tiny, pyramid=())
    with pytest.raises(zoo.errors.RegistrationError, match=r"'tiny'.*5"):
        zoo.register_encoder("tiny", Tiny, pyramid=5)
    with pytest.raises(
        zoo.errors.RegistrationError, match=r"'tiny': sizes must be a zoo\.plugin\.ImageSizes or a function, found 224"
    ):
        zoo.register_encoder("tiny", Tiny, pyramid=MAPS, sizes=224)
    assert not zoo.list_decoders("local:*")
    assert not zoo.list_encoders("local:*")


def test_the_sizes_that_an_encoder_takes_reach_the_plan():
    zoo.register_encoder("tiny", Tiny, pyramid=MAPS, sizes=zoo.plugin.ImageSizes(multiple=6))
    assert zoo.negotiate("tiny", "unet-basic").sizes.sizes == zoo.plugin.ImageSizes(multiple=12)
    assert zoo.negotiate("tiny", "unet-basic", size_policy="resize").sizes.policy == "resize"


def test_the_sizes_may_be_a_function_of_the_encoders_options():
    def sizes(width=4):
        return zoo.plugin.ImageSizes(fixed=(width, width))

    zoo.register_encoder("tiny", Tiny, pyramid=lambda width=4: MAPS, sizes=sizes)
    assert zoo.negotiate("tiny", "unet-basic").sizes.sizes.fixed == (4, 4)
    assert zoo.negotiate("tiny", "unet-basic", encoder_options={"width": 6}).sizes.sizes.fixed == (6, 6)


def test_the_output_strides_reach_the_spec():
    zoo.register_encoder("tiny", Tiny, pyramid=lambda output_stride=4: MAPS, output_strides=[2, 4])
    assert default_registry().encoder("tiny").spec.output_strides == (2, 4)
    zoo.register_encoder(
        "by-function", Tiny, pyramid=lambda width=4, output_stride=4: MAPS, output_strides=lambda width=4: (width,)
    )
    spec = default_registry().encoder("by-function").spec
    assert (spec.output_strides_for({}), spec.output_strides_for({"width": 2})) == ((4,), (2,))


def test_the_stride_that_a_decoder_ends_at_reaches_the_spec():
    zoo.register_decoder("sum", Sum, out_stride=4)
    assert default_registry().decoder("sum").spec.out_stride == 4
    assert "stride 4 and are resized" in " ".join(zoo.explain("resnet18", "sum").split())


def test_output_strides_without_a_pyramid_for_each_are_refused():
    with pytest.raises(zoo.errors.RegistrationError, match="output_strides"):
        zoo.register_encoder("tiny", Tiny, pyramid=MAPS, output_strides=(2,))


def failing(pyramid):
    raise KeyError("inside the factory")


def failing_head(pyramid):
    def make_head(classes):
        raise KeyError("inside the head")

    decoder = Sum(pyramid)
    decoder.make_head = make_head
    return decoder


def no_attribute(name):
    def factory(pyramid):
        decoder = Sum(pyramid)
        delattr(decoder, name)
        return decoder

    return factory


@pytest.mark.parametrize(("factory", "inside"), [(failing, "inside the factory"), (failing_head, "inside the head")])
def test_what_a_plugins_code_raises_is_the_plugins_error_with_its_cause(factory, inside):
    zoo.register_decoder("failing", factory, needs=zoo.Needs(channels=8))
    with pytest.raises(zoo.errors.PluginError, match=f"local:failing.*KeyError.*{inside}") as caught:
        built_with("failing")
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_encoder_that_raises_is_told_from_one_that_is_not_found():
    def missing(**_):
        raise LookupError("no such file")

    zoo.register_encoder("missing", missing, pyramid=MAPS)
    with pytest.raises(zoo.errors.PluginError, match=r"local:missing raised LookupError: no such file") as caught:
        zoo.build("missing", "unet-basic")
    assert isinstance(caught.value.__cause__, LookupError)


def test_a_needs_function_that_raises_is_the_plugins_error():
    def needs():
        raise KeyError("which?")

    zoo.register_decoder("sum", Sum, needs=needs)
    with pytest.raises(zoo.errors.PluginError, match="needs function of local:sum raised KeyError") as caught:
        zoo.negotiate("resnet18", "sum")
    assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize("what", ["sizes", "output_strides", "pyramid"])
def test_a_function_of_the_encoders_options_that_raises_is_the_plugins_error(what):
    def raising(**_):
        raise KeyError("which?")

    zoo.register_encoder("tiny", Tiny, **{"pyramid": lambda **_: MAPS, "output_strides": (2,), what: raising})
    zoo.register_decoder("sum", Sum, needs=zoo.Needs(channels=8, output_stride=2))
    with pytest.raises(zoo.errors.PluginError, match=rf"{what} function of local:tiny raised KeyError: 'which\?'") as caught:
        zoo.negotiate("tiny", "sum")
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_function_of_the_sizes_that_gives_something_else_is_told_so():
    zoo.register_encoder("tiny", Tiny, pyramid=MAPS, sizes=lambda: 224)
    with pytest.raises(
        zoo.errors.RegistrationError, match=r"'tiny': its sizes function must return a zoo\.plugin\.ImageSizes, found 224"
    ):
        zoo.negotiate("tiny", "unet-basic")


@pytest.mark.parametrize("factory", ["no_such_module:Decoder", "zoo_unet.decoders:NoSuchDecoder"])
def test_a_factory_that_cannot_be_imported_is_named_when_it_is_built(factory):
    zoo.register_decoder("lazy", factory)
    assert zoo.negotiate("resnet18", "lazy")
    with pytest.raises(zoo.errors.PluginError, match=f"Importing the factory '{factory}' of local:lazy raised") as caught:
        built_with("lazy")
    assert isinstance(caught.value.__cause__, ImportError | AttributeError)


def test_a_factory_that_makes_no_module_is_refused():
    zoo.register_decoder("text", lambda pyramid: "a text")
    with pytest.raises(zoo.errors.PluginError, match=r"local:text must return a torch\.nn\.Module; found 'a text'"):
        built_with("text")


@pytest.mark.parametrize("name", ["out_channels", "out_stride"])
def test_a_decoder_that_does_not_say_what_it_gives_is_told_to(name):
    zoo.register_decoder("silent", no_attribute(name), needs=zoo.Needs(channels=8))
    with pytest.raises(zoo.errors.PluginError, match=rf"local:silent must set self\.{name} in its __init__ .*; found None"):
        built_with("silent")


def test_a_decoder_may_make_its_own_head():
    class Headed(Sum):
        def make_head(self, classes):
            return nn.Sequential(nn.ReLU(), nn.Conv2d(self.out_channels, classes, 3, padding=1))

    class Headless(Sum):
        def make_head(self, classes):
            return None

    zoo.register_decoder("headed", Headed)
    zoo.register_decoder("headless", Headless)
    model = zoo.build("resnet18", "headed", classes=4)
    assert isinstance(model.head, nn.Sequential)
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 4, 32, 32)
    with pytest.raises(zoo.errors.PluginError, match=r"make_head.*local:headless must return an nn\.Module; found None"):
        built_with("headless")


class Lazy(nn.Module):
    def __init__(self, pyramid):
        super().__init__()
        self.norm = nn.LazyBatchNorm2d()
        self.out_channels, self.out_stride = 8, 2

    def forward(self, features):
        return self.norm(features[0])


class LazyHead(Sum):
    def make_head(self, classes):
        return nn.LazyConv2d(classes, 1)


@pytest.mark.parametrize(
    ("decoder", "told"),
    [
        (Lazy, r"The factory of local:lazy created lazy layers.*: norm\.weight.* with explicit sizes"),
        (zoo.from_channels(Lazy), r"The factory of local:lazy created lazy layers.*: module\.norm\.weight"),
        (LazyHead, r"make_head of the decoder local:lazy created lazy layers.*: weight"),
    ],
)
def test_lazy_layers_are_refused_when_a_model_is_built(decoder, told):
    zoo.register_decoder("lazy", decoder)
    with pytest.raises(zoo.errors.PluginError, match=told):
        zoo.build("resnet18", "lazy")


@pytest.mark.parametrize("out_channels", [8.5, 8.0, True, "8"])
def test_a_number_of_channels_that_is_not_whole_is_refused(out_channels):
    class Odd(Sum):
        def __init__(self, pyramid):
            super().__init__(pyramid)
            self.out_channels = out_channels

    zoo.register_decoder("odd", Odd)
    with pytest.raises(zoo.errors.PluginError, match=r"must set self\.out_channels .*out_channels must be an int"):
        zoo.build("resnet18", "odd")


class Logits(nn.Module):
    """Makes the logits itself, and declares nothing else."""

    makes_logits = True

    def __init__(self, pyramid, *, classes, width=8):
        super().__init__()
        self.project = nn.Conv2d(pyramid[0].channels, width, 1)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, features):
        return self.classify(self.project(features[0]).relu())


def test_a_decoder_that_makes_the_logits_gets_the_classes_and_no_head():
    zoo.register_decoder("own", Logits)
    zoo.register_decoder("told", lambda pyramid, classes: Logits(pyramid, classes=classes), makes_logits=True)
    for name in ("own", "told"):
        model = zoo.build("resnet18", name, classes=7)
        assert type(model.head) is nn.Identity
        assert model(torch.rand(2, 3, 65, 97)).shape == (2, 7, 65, 97)
    for options in ({"classes": 3}, {"clases": 3}):
        with pytest.raises(
            zoo.errors.OptionError, match=r"'clas+es' is not an option of|no option 'clases'. Its options: width"
        ):
            zoo.build("resnet18", "own", decoder_options=options)


def test_nothing_is_guessed_from_a_keywords_name():
    zoo.register_decoder("silent", Logits, makes_logits=False)
    with pytest.raises(zoo.errors.PluginError, match=r"local:silent raised TypeError.*'classes'"):
        zoo.build("resnet18", "silent", classes=7)
    zoo.register_decoder("sum", Sum, makes_logits=True)
    with pytest.raises(zoo.errors.PluginError, match=r"local:sum raised TypeError.*'classes'"):
        zoo.build("resnet18", "sum", classes=7)


def test_a_decoder_whose_logits_are_not_one_for_each_class_is_named():
    class Three(Logits):
        def __init__(self, pyramid, *, classes):
            super().__init__(pyramid, classes=3)

    zoo.register_decoder("three", Three)
    with pytest.raises(zoo.errors.PluginError, match=r"The decoder three must return one .*\(2, 7, h, w\); found .*\(2, 3, "):
        zoo.build("resnet18", "three", classes=7)(torch.rand(2, 3, 64, 64))


def test_a_decoder_that_makes_the_logits_has_no_head_of_its_own():
    class Both(Logits):
        def make_head(self, classes):
            return nn.Identity()

    zoo.register_decoder("both", Both)
    with pytest.raises(zoo.errors.PluginError, match=r"The decoder local:both declares makes_logits and also has make_head"):
        zoo.build("resnet18", "both", classes=7)
    with pytest.raises(zoo.errors.RegistrationError, match=r"makes_logits must be True or False, found 'yes'"):
        zoo.register_decoder("text", Sum, makes_logits="yes")


def test_a_model_whose_decoder_makes_the_logits_is_saved_and_loaded(tmp_path):
    zoo.register_decoder("own", Logits)
    model = zoo.build("resnet18", "own", classes=7).eval()
    image = torch.rand(1, 3, 65, 97)
    assert torch.equal(zoo.load(zoo.save(model, tmp_path / "saved")).eval()(image), model(image))


def test_a_value_that_is_not_among_an_options_choices_is_refused_before_anything_is_built():
    scale = zoo.plugin.Option(name="scale", default=1.0, summary="of the sum", choices=(1.0, 2.0))
    zoo.register_decoder("scaled", Sum, options=[scale])
    assert zoo.build("resnet18", "scaled", decoder_options={"scale": 2.0}).decoder.scale == 2
    for function in (zoo.build, zoo.explain, zoo.negotiate):
        with pytest.raises(zoo.errors.OptionError, match=r"local:scaled: scale must be one of 1\.0, 2\.0; found 3"):
            function("resnet18", "scaled", decoder_options={"scale": 3})
    with pytest.raises(zoo.errors.RegistrationError, match=r"Option 'scale': the default 3 is not among its choices"):
        zoo.plugin.Option(name="scale", default=3, summary="of the sum", choices=(1.0, 2.0))
    with pytest.raises(zoo.errors.RegistrationError, match=r"Option 'scale': choices must be a tuple; found 'ab'"):
        zoo.plugin.Option(name="scale", default="a", summary="of the sum", choices="ab")


def test_an_unknown_option_names_those_that_there_are():
    zoo.register_decoder("sum", Sum)
    with pytest.raises(zoo.errors.OptionError, match=r"local:sum has no option 'scaling'\. Its options: scale"):
        built_with("sum", decoder_options={"scaling": 2.0})
    with pytest.raises(zoo.errors.OptionError, match=r"resnet18 has no option 'depth'\. Its options: none"):
        built_with("sum", encoder_options={"depth": 2})
    zoo.register_decoder("told", Sum, options=[zoo.plugin.Option(name="scale", default=1.0, summary="a factor")])
    with pytest.raises(zoo.errors.OptionError, match=r"no option 'scael'\. Did you mean 'scale'\? Its options: scale"):
        zoo.negotiate("resnet18", "told", decoder_options={"scael": 2.0})


@pytest.mark.parametrize("encoder", ["resnet18", "timm:resnet18"])
@pytest.mark.parametrize("name", ["in_channels", "weights", "maps"])
def test_what_build_itself_gives_an_encoder_is_no_option(encoder, name):
    with pytest.raises(zoo.errors.OptionError, match=f"'{name}'"):
        zoo.build(encoder, "unet-basic", encoder_options={name: None})


def test_what_build_is_given_is_never_changed():
    def greedy(pyramid, **options):
        options["nested"] = None
        options.clear()
        return Sum(pyramid)

    zoo.register_decoder("greedy", greedy, needs=zoo.Needs(channels=8))
    options = {"channels": [64, 32], "nested": {"a": [1, 2]}}
    given = copy.deepcopy(options)
    first = built_with("greedy", decoder_options=options)
    second = built_with("greedy", decoder_options=options)
    assert options == given
    assert first.pairing == second.pairing == zoo.Pairing("resnet18", "greedy", decoder_options=given)


def test_registry_entries_do_not_change_when_models_are_built():
    zoo.register_decoder("sum", Sum, options=[zoo.plugin.Option(name="scale", default=1.0, summary="a factor")])
    registry = default_registry()
    entries = [registry.encoder("resnet18"), registry.decoder("unet-basic"), registry.decoder("sum")]
    before = [repr(entry) for entry in entries]
    built_with("sum", classes=3, in_channels=4, levels=2, decoder_options={"scale": 2.0})
    built_with("unet-basic", levels=3, decoder_options={"norm": "group"})
    after = [registry.encoder("resnet18"), registry.decoder("unet-basic"), registry.decoder("sum")]
    assert [repr(entry) for entry in after] == before
    assert built_with("sum").decoder.scale == 1.0


def write_plugin(path, *lines):
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["import zoo", *lines]))
    return path


def test_a_plugin_file_registers_what_it_holds_and_may_run_twice(tmp_path):
    path = write_plugin(tmp_path / "mine.py", "@zoo.register_decoder('mine')", "def mine(pyramid): ...")
    load_plugin_file(path)
    load_plugin_file(path)
    assert zoo.list_decoders("local:*") == ["local:mine"]


def test_files_of_one_name_in_two_folders_are_different_plugins(tmp_path):
    lines = ("@zoo.register_decoder('mine')", "def mine(pyramid): ...")
    load_plugin_file(write_plugin(tmp_path / "one" / "mine.py", *lines))
    with pytest.raises(zoo.errors.RegistrationError, match="'mine' is registered already"):
        load_plugin_file(write_plugin(tmp_path / "two" / "mine.py", *lines))


@pytest.mark.parametrize("line", ["raise ValueError('oh no')", "raise SystemExit('oh no')", "oh no"])
def test_a_plugin_file_that_fails_is_named_with_the_cause(tmp_path, line):
    path = write_plugin(tmp_path / "mine.py", line)
    with pytest.raises(zoo.errors.PluginError, match=r"plugin file .*mine\.py raised") as caught:
        load_plugin_file(path)
    assert isinstance(caught.value.__cause__, ValueError | SystemExit | SyntaxError)


def test_a_plugin_file_that_registers_wrongly_keeps_its_own_error(tmp_path):
    path = write_plugin(tmp_path / "mine.py", "zoo.register_decoder('resnet18', 'a:b')")
    with pytest.raises(zoo.errors.RegistrationError, match="one of zoo's own ids"):
        load_plugin_file(path)


def test_a_plugin_file_that_is_missing_or_no_python_file_is_named(tmp_path):
    with pytest.raises(zoo.errors.PluginError, match=r"absent\.py does not exist"):
        load_plugin_file(tmp_path / "absent.py")
    with pytest.raises(zoo.errors.PluginError, match=str(tmp_path)):
        load_plugin_file(tmp_path)
    with pytest.raises(zoo.errors.PluginError, match=r"must end in \.py"):
        load_plugin_file(write_plugin(tmp_path / "mine.txt"))


def test_a_plugin_file_that_raises_leaves_nothing_registered(tmp_path):
    path = tmp_path / "half.py"
    path.write_text("import zoo\nzoo.register_decoder('half', 'package.module:name')\nraise ValueError('later')\n")
    with pytest.raises(zoo.errors.PluginError, match=r"half\.py raised ValueError: later"):
        load_plugin_file(path)
    assert "local:half" not in zoo.list_decoders()


def test_one_name_of_weights_need_not_be_in_a_tuple():
    maps = [zoo.plugin.FeatureMap(name="a", channels=1, stride=2)]
    zoo.register_encoder("named", "package.module:name", pyramid=maps, weights="mine")
    assert default_registry().encoder("named").spec.weights == ("mine",)


SCRIPT = """
import torch.nn.functional as F
from torch import nn

import zoo


@zoo.register_decoder("mine")
class Mine(nn.Module):
    def __init__(self, pyramid):
        super().__init__()
        self.projections = nn.ModuleList(nn.Conv2d(entry.channels, 8, 1) for entry in pyramid)
        self.out_channels, self.out_stride = 8, pyramid[0].stride

    def forward(self, features):
        maps = [project(x) for project, x in zip(self.projections, features, strict=True)]
        return sum(F.interpolate(x, size=maps[0].shape[-2:]) for x in maps)


pairings = [{"encoder": "resnet18", "decoder": decoder, "levels": 2} for decoder in ("mine", "unet-basic")]
config = zoo.BenchConfig(name="mine", pairings=pairings, modes=["inference"], size=[32], rounds=20, device="cpu")
rows = zoo.bench(config, store="store.sqlite").rows
print([(row.name, row.error, row.rounds) for row in rows])
"""
MEASURED = "[('resnet18 x mine (levels=2)', None, 20), ('resnet18 x unet-basic (levels=2)', None, 20)]"


@pytest.mark.parametrize("how", [pytest.param("script", marks=pytest.mark.slow), "notebook"])
def test_a_decoder_of_a_script_or_of_a_notebooks_main_is_a_row_of_a_benchmark(how, tmp_path):
    """A notebook's `__main__` has no file, as that of `python -` has none."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    command, given = ([sys.executable, path], None) if how == "script" else ([sys.executable, "-"], SCRIPT)
    done = subprocess.run(command, input=given, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.strip().splitlines()[-1] == MEASURED


SHARED = [
    {"source": 3},
    {"license": ["MIT"]},
    {"options": ("width",)},
    {"constants": [1]},
    {"constants": {1: 2}},
]


@pytest.mark.parametrize("wrong", [*SHARED, {"weights": (3,)}, {"tags": (None,)}], ids=str)
def test_an_encoder_spec_with_a_value_of_another_type_is_refused(wrong):
    (name,) = wrong
    maps = (zoo.plugin.FeatureMap(name="a", channels=4, stride=2),)
    with pytest.raises(zoo.errors.RegistrationError, match=f"'mine': .*{name}"):
        zoo.plugin.EncoderSpec(**{"name": "mine", "factory": "a:B", "pyramid": maps} | wrong)


@pytest.mark.parametrize("wrong", [*SHARED, {"upsamples_learned": "yes"}, {"makes_logits": 1}], ids=str)
def test_a_decoder_spec_with_a_value_of_another_type_is_refused(wrong):
    (name,) = wrong
    with pytest.raises(zoo.errors.RegistrationError, match=f"'mine': {name}"):
        zoo.plugin.DecoderSpec(**{"name": "mine", "factory": "a:B"} | wrong)


def test_an_option_whose_name_is_no_text_is_refused():
    with pytest.raises(zoo.errors.RegistrationError, match="name and summary must be text; found 3"):
        zoo.plugin.Option(name=3, default=1, summary="")

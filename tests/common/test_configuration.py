"""What YAML's values are read as, and which of them are refused."""

from __future__ import annotations

import datetime
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import zoo
from zoo.common.configuration import read_mapping, read_value, written

RUN = "name: a\nencoders: [resnet18]\ndecoders: [unet-basic]\n"
HOSTILE = {
    "a date that does not exist": "value: !!timestamp 2026-02-30",
    "a number that is none": "value: !!int abc",
    "a float that is none": "value: !!float abc",
    "a boolean that is none": "value: !!bool abc",
    "a mapping that is none": "value: !!map abc",
    "bytes": "value: !!binary abc",
    "a set": "value: !!set {a, b}",
    "5,000 digits": f"value: {'7' * 5000}",
    "5,000 hexadecimal digits": f"value: 0x{'f' * 5000}",
    "more than 64 bits": "value: 9223372036854775808",
    "a float beyond all floats": "value: 1e999",
    "deep brackets": f"value: {'[' * 5000}{']' * 5000}",
    "deep braces": f"value: {'{a: ' * 200}1{'}' * 200}",
    "deep dashes": "value:\n" + "- " * 3000 + "1",
    "aliases of aliases": "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)),
    "merged aliases of aliases": "a: &a {x: 1, y: 2}\n"
    + "".join(
        f"{new}: &{new} {{l: *{old}, r: [*{old}, *{old}]}}\n" for old, new in zip("abcdefghijkl", "bcdefghijklm", strict=True)
    ),
    "long text repeated": f"a: &a {'x' * 5000}\nb: [{', '.join(['*a'] * 100)}]",
    "an alias of itself": "a: &a [*a]",
    "half a character": 'value: "\\ud800"',
    "a merge of a number": "<<: 3",
    "an unknown alias": "value: *nothing",
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("3E5", 3e5),
        ("-2e+1", -20.0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-1.", -1.0),
        ("1.5e3", 1500.0),
        (".inf", float("inf")),
        ("12", 12),
        ("+12", 12),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        ("true", True),
        ("~", None),
        ("", None),
        ("[96, 128]", [96, 128]),
        ("[no, yes]", ["no", "yes"]),
        ("dice", "dice"),
        ("12e5abc0", "12e5abc0"),  # the beginning of a hash
        ("1e", "1e"),
        ("e5", "e5"),
        ("a: [", "a: ["),
        ("2026-02-30", "2026-02-30"),
        ("2026-02-03", "2026-02-03"),
        ('"1e-3"', "1e-3"),
    ],
)
def test_a_value_is_read_as_a_person_means_it(text, value):
    found = read_value(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["no", "on", "Yes", "010", "1_000", "1:30", "0b11"])
def test_what_yaml_1_1_reads_differently_is_text_and_no_option(text, tmp_path):
    assert read_value(text) == text
    path = tmp_path / "pairing.yaml"
    path.write_text(f"encoder: resnet18\ndecoder: unet-basic\ndecoder_options: {{norm: [{text}]}}", encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError, match=f"{text} without quotes"):
        zoo.Pairing.from_yaml(path)
    path.write_text(path.read_text(encoding="utf-8").replace(f"[{text}]", f'["{text}"]'), encoding="utf-8")
    assert zoo.Pairing.from_yaml(path).decoder_options == {"norm": (text,)}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_value_that_cannot_be_used_is_one_error_at_once(content, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(content, encoding="utf-8")
    began = time.perf_counter()
    with pytest.raises(zoo.errors.ConfigError, match=r"a\.yaml is not valid YAML") as caught:
        read_mapping(path)
    assert time.perf_counter() - began < 5
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a: 1\nb: !!int 99x", "'99x' is not a valid int (line 2, column 4)"),
        ("a: 1\nb: [2", "while parsing a flow sequence, expected ',' or ']', but got '<stream end>' (line 2, column 6)"),
        ("a: \0", "unacceptable character #x0000: special characters are not allowed at position 3"),
    ],
)
def test_an_error_in_a_file_states_the_line_and_the_column(content, problem, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(zoo.errors.ConfigError) as caught:
        read_mapping(path)
    assert str(caught.value) == f"{path} is not valid YAML: {problem}."


@pytest.mark.parametrize("command", ["bench", "train"])
@pytest.mark.parametrize("value", ["2026-02-30", "!!int abc", "7" * 5000, "1e999"])
def test_no_value_of_a_file_ends_in_a_traceback(command, value, tmp_path, command_line):
    path = tmp_path / "a.yaml"
    path.write_text(f"{RUN}batches: {value}\nsteps: {value}\n", encoding="utf-8")
    status, shown, errors = command_line(command, path)
    assert (status, shown) == (2, "")
    assert "a.yaml" in errors
    assert len(errors) < 3000


@pytest.mark.parametrize(
    "value", ["2026-02-30", "!!int abc", "7" * 5000, "0x" + "f" * 5000, "[" * 3000 + "]" * 3000, "1e999", "no"]
)
def test_no_value_of_a_command_line_ends_in_a_traceback(value, command_line):
    status, _, errors = command_line("train", "resnet18", "unet-basic", "--data", "texture-mosaic", "--set", f"steps={value}")
    assert status == 2
    assert errors.count("Error: ") == 1
    assert "Traceback" not in errors
    for option in ("--encoder-option", "--decoder-option"):
        status, _, errors = command_line("explain", "resnet18", "unet-basic", option, f"norm={value}")
        assert (status, errors == "") in ((0, True), (2, False))
        assert len(errors) < 3000


def test_options_of_the_command_line_are_read_as_those_of_a_file(command_line):
    status, shown, _ = command_line(
        "explain", "timm:test_vit", "unet-basic", "--encoder-option", "drop_path_rate=1e-1", "--image-size", "160x160"
    )
    assert status == 0
    assert '"drop_path_rate": 0.1' in shown


def test_an_alias_that_repeats_little_is_read(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: [*a, *a]", encoding="utf-8")
    assert read_mapping(path)["b"] == {"x": 4, "y": [2, 3]}


def test_a_date_is_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(f"name: {datetime.date(2026, 2, 3)}", encoding="utf-8")
    assert read_mapping(path) == {"name": "2026-02-03"}


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs", "Cc"])),
        st.sampled_from(
            ["no", "010", "1_000", "1:30", "1e3", "0o17", ".5", "~", "2026-02-30", "<<", "=", "0x1", ".inf", "null"]
        ),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False),
        st.booleans(),
        st.none(),
    )
)
def test_what_is_written_is_read_as_the_same(tmp_path_factory, value):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(written({"value": value}), encoding="utf-8", newline="")
    found = read_mapping(path)["value"]
    assert found == value
    assert type(found) is type(value)

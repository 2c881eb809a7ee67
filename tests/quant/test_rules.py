import pytest

from kdjax.quant import Rule, choose, static
from kdjax.types import BadInput

NAMES = ["stem/kernel", "block/conv/kernel", "block/conv/kernel#2", "head/kernel"]
INT4, TERNARY = Rule(weights="int4"), Rule(weights="ternary")


def test_the_first_pattern_that_matches_the_whole_name_decides():
    rules = {"block/.*kernel": INT4, "block": TERNARY, ".*kernel": TERNARY, ".*": Rule()}
    with pytest.raises(BadInput, match=r"rules\['block'\]: matches no layer"):
        choose(rules, NAMES)
    del rules["block"]
    assert choose(rules, NAMES) == {
        "stem/kernel": TERNARY,
        "block/conv/kernel": INT4,
        "block/conv/kernel#2": Rule(),
        "head/kernel": TERNARY,
    }


def test_none_leaves_in_float_and_hides_from_later_patterns():
    found = choose({"stem.*": None, ".*#2": None, ".*": INT4}, NAMES)
    assert found == {"block/conv/kernel": INT4, "head/kernel": INT4}


def test_float_layers_stay_in_float_and_their_pattern_counts_as_used():
    found = choose({"head.*": INT4, ".*": Rule()}, NAMES, float_layers=["head/kernel"])
    assert list(found) == NAMES[:3]  # in the order of the layers
    assert set(found.values()) == {Rule()}


def test_what_no_pattern_matches_stays_in_float():
    assert choose({"head/.*": INT4}, NAMES) == {"head/kernel": INT4}


@pytest.mark.parametrize(
    ("rules", "float_layers", "line"),
    [
        ({"(": None, ".*": INT4}, (), r"a.rules['(']: no regular expression: "),
        ({".*": INT4, "[z-a]": INT4}, (), "a.rules['[z-a]']: no regular expression: bad character"),
        (
            {"kernel": INT4},
            (),
            "a.rules['kernel']: matches no layer that an earlier pattern left; ",
        ),
        ({".*": INT4, "head.*": None}, (), "a.rules['head.*']: matches no layer that an earlier"),
        ({".*": None}, (), "a.rules: nothing is left to quantize"),
        ({".*": INT4}, NAMES, "a.rules: nothing is left to quantize"),
        ({}, (), "a.rules: nothing is left to quantize"),
    ],
)
def test_bad_rules_are_one_line(rules, float_layers, line):
    with pytest.raises(BadInput) as caught:
        choose(rules, NAMES, float_layers=float_layers, field="a.rules")
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_the_line_names_some_layers():
    with pytest.raises(
        BadInput, match=r"are stem/kernel, block/conv/kernel, block/conv/kernel#2, "
    ):
        choose({"nothing": INT4}, NAMES)
    with pytest.raises(BadInput, match=r"the layers are a, b$"):
        choose({"nothing": INT4}, ["a", "b"])


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (Rule(), "int8"),
        (Rule("int4", None, "mse"), "int4 weights mse"),
        (Rule(activations="dynamic"), "int8 dynamic"),
        (Rule("binary"), "binary"),
    ],
)
def test_a_rule_has_a_name(rule, name):
    assert rule.name == name


def test_only_ranges_found_once_are_static():
    rules = {"a": Rule(), "b": Rule(activations="dynamic"), "c": Rule(activations=None)}
    assert static(rules) == ["a"]

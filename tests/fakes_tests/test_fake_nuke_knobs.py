"""Knobs: types, enums, animation, expressions, flags."""

from __future__ import annotations

import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.curves import parse_curve
from tests.fakes.nuke.errors import REFUSED, NukeError
from tests.fakes.nuke.expressions import evaluate, parse


@pytest.mark.parametrize(
    ("knob", "value"),
    [
        ("gain", "1"), ("gain", True), ("gain", None), ("baked", 1.0), ("baked", True), ("show", "true"),
        ("show", 1.0), ("result", 3), ("status", None), ("mode", 1.0), ("mode", None),
    ],
)  # fmt: skip
def test_a_value_of_another_type_raises(nuke: FakeNuke, knob: str, value: object) -> None:
    with pytest.raises(TypeError, match=knob):
        nuke.createNode("Small")[knob].setValue(value)


def test_enums_take_items_and_indices_only(nuke: FakeNuke) -> None:
    mode = nuke.createNode("Small")["mode"]
    assert (mode.value(), mode.getValue(), mode.values()) == ("one word", 0, ["one word", "two"])
    mode.setValue(1)
    assert (mode.value(), mode.toScript()) == ("two", "two")
    mode.setValue("one word")
    assert mode.getValue() == 0
    for wrong in ("three", 2, -1):
        with pytest.raises((NukeError, TypeError)):
            mode.setValue(wrong)
    assert mode.value() == "one word"


def test_a_backslash_in_a_path_is_refused(nuke: FakeNuke) -> None:
    with pytest.raises(NukeError, match="backslash"):
        nuke.createNode("Small")["result"].setValue("C:\\a.exr")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("curve K x1001 1 x1011 0", {1000: 1, 1001: 1, 1010: 1, 1010.5: 1, 1011: 0, 2000: 0}),
        ("curve x1 0 x11 1", {0: 0, 1: 0, 6: 0.5, 11: 1, 12: 1}),
        ("curve x1 0 4 8", {1: 0, 2: 4, 2.5: 6, 3: 8}),
        ("curve x1 0 K x3 4 x5 8", {2: 2, 4: 4, 5: 8}),
    ],
)
def test_curves_step_or_are_linear(text: str, values: dict[float, float]) -> None:
    curve = parse_curve(text)
    assert {frame: curve.at(frame) for frame in values} == values
    assert parse_curve(curve.script()) == curve


@pytest.mark.parametrize("text", ["curve x1 0 s0 x2 1", "curve C x1 0", "curve x5 1 x3 2"])
def test_other_curves_are_refused(text: str) -> None:
    with pytest.raises(NukeError):
        parse_curve(text)


def test_an_animated_knob_says_so_and_keeps_its_script(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    baked = node["baked"]
    assert not baked.isAnimated()
    baked.fromScript("{curve K x1001 1 x1011 0}")
    assert baked.isAnimated()
    assert not baked.hasExpression()
    assert [baked.valueAt(frame) for frame in (1000, 1001, 1010, 1011)] == [1, 1, 1, 0]
    assert baked.getValueAt(1001) == 1.0
    assert baked.toScript() == "{curve K x1001 1 x1011 0}"
    assert baked.toScript(True) == "{{curve K x1001 1 x1011 0}}"
    nuke.frame(1005)
    baked.setValue(0)
    assert [baked.valueAt(frame) for frame in (1004, 1005, 1011)] == [1, 0, 0]
    assert baked.toScript() == "{curve K x1001 1 x1005 0 x1011 0}"
    nuke.frame(1004)
    baked.clearAnimated()
    assert (baked.toScript(), baked.isAnimated()) == ("1", False)


def test_expressions_follow_frames_and_other_knobs(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    inner = node.node("Gain")
    node["baked"].fromScript("{curve x1 1 x11 11}")
    node["gain"].setExpression("baked*2 + (frame>=5 ? 100 : 0)")
    assert [inner["value"].valueAt(frame) for frame in (1, 4, 5)] == [2, 8, 110]
    inner["value"].fromScript("{parent.baked(frame+1)}")
    assert inner["value"].valueAt(3) == 4
    assert node["gain"].hasExpression()
    assert node["gain"].toScript() == "{baked*2 + (frame>=5 ? 100 : 0)}"
    with pytest.raises(NukeError, match="follows an expression"):
        node["gain"].setValue(2.0)
    node["gain"].clearAnimated()
    node["gain"].setValue(2.0)
    assert node["gain"].toScript() == "2"


def test_gui_and_enums_in_expressions(nuke: FakeNuke, gui: FakeNuke) -> None:
    for fake, wanted in ((nuke, 1), (gui, 0)):
        node = fake.createNode("Small")
        node["mode"].setValue("two")
        node["gain"].setExpression("show && (mode==1 && !$gui || baked)")
        assert node["gain"].value() == wanted


@pytest.mark.parametrize(
    "text", ["nothing", "parent.gone", "gain.x", "$terminal", "sin(1)", "gain +", "1 2", "gain @ 2", "min(1)", "status"]
)
def test_expressions_that_mean_nothing_are_refused(nuke: FakeNuke, text: str) -> None:
    node = nuke.createNode("Small")

    def ask() -> None:
        node["gain"].setExpression(text)
        node["gain"].value()

    with pytest.raises(NukeError):
        ask()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7), ("(1+2)*3", 9), ("2-3-4", -5), ("12/4/3", 1), ("7%4", 3), ("-2*-3", 6), ("!0+!5", 1),
        ("1<2==1", 1), ("1||0&&0", 1), ("0?1:2?3:4", 3), ("min(3,1,2)", 1), ("max(1,2)", 2), ("pow(2,10)", 1024),
        ("abs(0-3)", 3), ("clamp(7)", 1), ("clamp(7,0,5)", 5), ("1e2+.5", 100.5), ("3!=3", 0), ("2>=2", 1),
        ("floor(2.7)", 2),
    ],
)  # fmt: skip
def test_operators_bind_as_in_c(text: str, value: float) -> None:
    assert evaluate(parse(text), lambda name, frame: 0.0) == pytest.approx(value)


def test_values_of_other_knobs_stand_in_text(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    write = node.node("Out")
    write["file"].setValue("[value parent.result].%V.####.exr")
    node["result"].setValue("/a/[value mode]")
    node["mode"].setValue("two")
    assert write["file"].value() == "[value parent.result].%V.####.exr"
    assert write["file"].evaluate(12) == "/a/two.main.0012.exr"
    node["result"].setValue("[python nuke.frame()]")
    with pytest.raises(NukeError, match="Tcl would evaluate"):
        write["file"].evaluate(12)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [("a.####.exr", "a.0007.exr"), ("a.%04d.exr", "a.0007.exr"), ("a.%d.exr", "a.7.exr"), ("a.#.exr", "a.7.exr")],
)
def test_frames_in_names(nuke: FakeNuke, pattern: str, name: str) -> None:
    node = nuke.createNode("Small")
    node["result"].setValue(pattern)
    assert node["result"].evaluate(7) == name


def test_text_keeps_every_character_through_its_script(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    for text in ("a b", 'say "x" [y] $z {', "two\nlines", ""):
        node["status"].setValue(text)
        script = node["status"].toScript()
        node["status"].setValue("other")
        node["status"].fromScript(script)
        assert node["status"].value() == text


def test_what_a_panel_shows(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    assert (node["gain"].label(), node["gain"].tooltip(), node["gain"].Class()) == (
        "gain",
        "Times this.",
        "Double_Knob",
    )
    assert not node["status"].enabled()
    node["status"].setEnabled(True)
    node["gain"].setVisible(False)
    assert (node["status"].enabled(), node["gain"].visible()) == (True, False)
    assert node["gain"].node() is node


def test_unknown_names_cannot_be_swallowed(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    for asked in (lambda: nuke.render, lambda: node.sample, lambda: node["gain"].setSingleValue, lambda: nuke.env["x"]):
        with pytest.raises(NukeError) as refused:
            asked()
        assert not isinstance(refused.value, Exception)
    assert len(REFUSED) == 4
    with pytest.raises(NameError):
        node["gone"]
    assert node.knob("gone") is None


def test_keys_are_set_at_frames(nuke: FakeNuke) -> None:
    gain = nuke.createNode("Small")["gain"]
    with pytest.raises(NukeError, match="setAnimated"):
        gain.setValueAt(2.0, 5)
    nuke.frame(3)
    gain.setAnimated()
    gain.setValueAt(3.0, 5)
    assert [gain.valueAt(frame) for frame in (3, 4, 5, 9)] == [1, 2, 3, 3]
    assert gain.toScript() == "{curve x3 1 x5 3}"
    for knob in ("mode", "result"):
        with pytest.raises(NukeError, match="cannot be animated"):
            nuke.toNode("Small1")[knob].setAnimated()


def test_knobs_of_four_values(nuke: FakeNuke) -> None:
    colour = nuke.createNode("Multiply")["value"]
    assert colour.value() == 1
    colour.setValue([1.0, 2.0, 3, 4])
    assert (colour.value(), colour.toScript(), colour.toScript(True)) == ([1, 2, 3, 4], "1 2 3 4", "{1 2 3 4}")
    colour.fromScript("1 {frame} {curve x1 5} 0.5")
    assert colour.valueAt(9) == [1, 9, 5, 0.5]
    assert nuke.load_text(nuke.script_text().partition("}")[2])[0]["value"].toScript() == colour.toScript()
    colour.clearAnimated()
    assert colour.toScript() == "1 1 5 0.5"
    with pytest.raises(TypeError, match="4 values"):
        colour.setValue([1.0, 2.0])


def test_paths_in_expressions(nuke: FakeNuke) -> None:
    nuke.load_text("Constant {\n inputs 0\n name C\n first 4\n}\nSmall {\n inputs 1\n name S\n}")
    node = nuke.toNode("S")
    for text, value in (
        ("C.first", 4), ("Gain.mix", 1), ("this.show", 1), ("root.last_frame", 100), ("parent.first_frame", 1),
    ):  # fmt: skip
        node["gain"].setExpression(text)
        assert node["gain"].value() == value, text
    node.node("Gain")["value"].fromScript("{parent.parent.first_frame+5}")
    assert node.node("Gain")["value"].value() == 6
    for wrong in ("Gone.first", "parent.parent.first_frame", "C.gone"):
        node["gain"].setExpression(wrong)
        with pytest.raises(NukeError):
            node["gain"].value()


def test_only_enums_have_items_and_only_text_evaluates(nuke: FakeNuke) -> None:
    node = nuke.createNode("Small")
    with pytest.raises(NukeError, match="no values"):
        node["gain"].values()
    with pytest.raises(NukeError, match="no evaluate"):
        node["gain"].evaluate()
    with pytest.raises(NukeError, match="takes no expression"):
        node["result"].setExpression("1")
    assert (node["status"].visible(), node["press"].Class()) == (True, "PyScript_Knob")

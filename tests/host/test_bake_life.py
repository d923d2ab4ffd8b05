"""What artists do to a node and its script between bakes: none of it loses a result, overwrites one or raises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.fakes.nuke.api import FakeNuke
from tests.fakes.nuke.nodes import Node
from tests.host.conftest import (
    FIRST,
    MAKERS,
    exposed,
    files,
    hdrfuse,
    press,
    results,
    rgba_of,
    save,
    sdr2hdr,
    settle,
    txt2hdr,
)


@pytest.fixture
def baked(gui: FakeNuke, tmp_path: Path) -> Node:
    """An SDR2HDR with frame 1001 baked, in a saved script."""
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    save(gui, tmp_path)
    return node


def shows_result(nuke: FakeNuke, node: Node, frame: int = FIRST) -> bool:
    return bool(rgba_of(nuke, node, frame)[..., :3].max() > 1.5)


def test_a_new_node_has_an_id_and_a_seed_and_a_saved_one_a_place(gui: FakeNuke, tmp_path: Path) -> None:
    nodes = [make(gui) for make in MAKERS.values()]
    for node in nodes:
        assert len(node["bake_id"].value()) == 12
        assert node["seed"].value() >= 0
        assert node["colourspace"].value() == "lin_rec709_scene"
        assert node["result_path"].value() == ""
    assert len({node["bake_id"].value() for node in nodes}) == 3
    save(gui, tmp_path)
    settle(gui)
    for node in nodes:
        assert node["result_path"].value().startswith(f"{tmp_path}/hdrgen_cache/{node['bake_id'].value()}/")
    assert not (tmp_path / "hdrgen_cache").exists()


def test_reloading_shows_what_was_baked(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    before = rgba_of(gui, baked, FIRST)
    gui.scriptOpen(str(tmp_path / "shot_v001.nk"))
    settle(gui)
    node = gui.toNode("SDR2HDR1")
    plate = gui.plate(lambda frame: exposed(0.0, frame), "Plate1")
    node.setInput(0, plate)
    settle(gui)
    np.testing.assert_array_equal(rgba_of(gui, node, FIRST), before)
    assert not gui.root().modified() or node["result_path"].value()


def test_opening_a_baked_script_does_not_change_it(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    del baked
    gui.scriptOpen(str(tmp_path / "shot_v001.nk"))
    settle(gui)
    assert not gui.root().modified()
    node = gui.toNode("SDR2HDR1")
    press(gui, node, "refresh")
    assert not gui.root().modified()


def test_changing_a_knob_points_elsewhere_and_back(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    first = baked["result_path"].value()
    baked["clip_threshold"].setValue(240)
    settle(gui)
    second = baked["result_path"].value()
    assert second != first
    assert not shows_result(gui, baked)
    press(gui, baked, "bake")
    assert shows_result(gui, baked)
    kept = files(tmp_path / "hdrgen_cache")
    assert len(kept) == 2
    baked["clip_threshold"].setValue(250)
    settle(gui)
    assert baked["result_path"].value() == first
    assert shows_result(gui, baked)
    assert files(tmp_path / "hdrgen_cache") == kept


def test_an_animated_knob_is_baked_frame_by_frame(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    constant = node["result_path"].value()
    node["ev3"].fromScript("{curve x1001 2 x1002 3}")
    settle(gui)
    assert node["result_path"].value() != constant
    node["range"].setValue("1001-1002")
    press(gui, node, "bake_range")
    assert gui.messages == []
    assert results(tmp_path / "hdrgen_cache") == ["out.1001.exr", "out.1002.exr"]


def test_a_copy_shares_the_bake_until_it_is_baked_itself(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    first = baked["bake_id"].value()
    for node in gui.allNodes():
        node.setSelected(node is baked)
    gui.nodeCopy("%clipboard%")
    baked.setSelected(False)
    copy = gui.nodePaste("%clipboard%")
    copy.setInput(0, gui.plate(lambda frame: exposed(-1.0, frame), "Plate2"))
    settle(gui)
    assert copy.name() == "SDR2HDR2"
    assert copy["bake_id"].value() == first
    assert shows_result(gui, copy)
    kept = files(tmp_path / "hdrgen_cache")
    press(gui, copy, "bake")
    assert gui.messages == []
    assert copy["bake_id"].value() != first
    assert baked["bake_id"].value() == first
    now = files(tmp_path / "hdrgen_cache")
    assert {name: now[name] for name in kept} == kept
    assert len(now) == 2


def test_a_new_version_never_touches_what_the_old_one_reads(
    gui: FakeNuke, tmp_path: Path, baked: Node, start_nuke: Callable[..., FakeNuke]
) -> None:
    kept = files(tmp_path / "hdrgen_cache")
    old = baked["result_path"].value()
    save(gui, tmp_path, "shot_v002.nk")
    baked.setInput(0, gui.plate(lambda frame: exposed(-0.5, frame), "Graded"))
    press(gui, baked, "bake")
    assert gui.messages == []
    assert baked["take"].value() == 1
    assert baked["result_path"].value() != old
    now = files(tmp_path / "hdrgen_cache")
    assert {name: now[name] for name in kept} == kept
    assert len(now) == 2
    save(gui, tmp_path, "shot_v002.nk")

    nuke = start_nuke(gui=True)
    nuke.scriptOpen(str(tmp_path / "shot_v001.nk"))
    assert nuke.toNode("SDR2HDR1")["result_path"].value() == old


def test_a_new_take_carries_the_frames_that_are_not_baked_anew(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    node["range"].setValue("1001-1003")
    press(gui, node, "bake_range")
    before = {frame: rgba_of(gui, node, frame) for frame in (1001, 1002, 1003)}
    node.setInput(0, gui.plate(lambda frame: exposed(-1.0, frame), "Graded"))
    settle(gui)
    gui.frame(1002)
    press(gui, node, "bake")
    assert gui.messages == []
    assert node["take"].value() == 1
    np.testing.assert_array_equal(rgba_of(gui, node, 1001)[..., :3], before[1001][..., :3])
    np.testing.assert_array_equal(rgba_of(gui, node, 1003)[..., :3], before[1003][..., :3])
    assert not np.array_equal(rgba_of(gui, node, 1002)[..., :3], before[1002][..., :3])
    node.setInput(0, gui.toNode("Plate1"))
    press(gui, node, "bake")  # as it was before: nothing is sent, and the first take is not lost
    assert node["status"].value() == "nothing to bake, 1 frame found"


def test_stale_frames_are_the_missing_ones_until_something_upstream_changes(gui: FakeNuke, tmp_path: Path) -> None:
    node = sdr2hdr(gui)
    grade = gui.createNode("Multiply", inpanel=False)
    grade.setInput(0, gui.toNode("Plate1"))
    node.setInput(0, grade)
    save(gui, tmp_path)
    press(gui, node, "bake")
    node["range"].setValue("1001-1003")
    gui.executed.clear()
    press(gui, node, "bake_stale")
    assert sorted({frame for _, frame, _ in gui.executed}) == [1002, 1003]
    press(gui, node, "bake_stale")
    assert node["status"].value() == "nothing is stale"
    grade["value"].setValue(0.5)
    press(gui, node, "refresh")
    assert "upstream has changed" in node["status"].value()
    gui.executed.clear()
    press(gui, node, "bake_stale")
    assert sorted({frame for _, frame, _ in gui.executed}) == [1001, 1002, 1003]
    press(gui, node, "refresh")
    assert node["status"].value() == ""


def test_renaming_keeps_the_bake(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    path = baked["result_path"].value()
    baked.setName("Sky")
    settle(gui)
    assert baked["result_path"].value() == path
    press(gui, baked, "bake")
    assert baked["status"].value() == "nothing to bake, 1 frame found"


def test_undoing_a_delete_brings_the_bake_back(gui: FakeNuke, baked: Node) -> None:
    before = rgba_of(gui, baked, FIRST)
    gui.delete(baked)
    node = gui.undo_delete()
    settle(gui)
    np.testing.assert_array_equal(rgba_of(gui, node, FIRST), before)


def test_a_bake_leaves_undo_proxy_and_the_writes_as_they_were(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    gui.root()["proxy"].setValue(True)
    press(gui, node, "bake")
    assert gui.messages == []
    assert gui.root()["proxy"].value() is True
    for number in range(1, 8):
        write = node.node(f"HDRGenIn{number}")
        assert (write["disable"].value(), write["file"].value()) == (True, "")
    gui.root()["proxy"].setValue(False)
    assert rgba_of(gui, node, FIRST).shape == (24, 32, 4)
    save(gui, tmp_path)
    before = list(gui.Undo._entries)
    press(gui, node, "bake")
    assert not gui.root().modified()
    assert list(gui.Undo._entries) == before


def test_deleting_the_node_while_it_is_baked_ends_the_bake_and_keeps_what_is_done(
    gui: FakeNuke, tmp_path: Path
) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    node["range"].setValue("1001-1008")
    node["bake_range"].execute()
    gui.run_events(lambda: len(gui.executed) >= 7)
    gui.delete(node)
    settle(gui)
    assert [line for line in gui.messages if "was deleted while it was baked" in line] == gui.messages
    kept = results(tmp_path / "hdrgen_cache")
    assert len(kept) < 8
    assert all(name.endswith(".exr") and name.startswith("out.") for name in kept)


def test_copy_to_group_keeps_working(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui)
    save(gui, tmp_path)
    press(gui, node, "bake")
    before = rgba_of(gui, node, FIRST)
    press(gui, node, "copy_to_group")
    (group,) = gui.allNodes("Group")
    np.testing.assert_array_equal(rgba_of(gui, group, FIRST), before)
    gui.frame(1002)
    press(gui, group, "bake")
    assert gui.messages == []
    assert shows_result(gui, group, 1002)
    group["reference"].setValue("1")
    press(gui, group, "bake")
    assert gui.messages == []
    np.testing.assert_array_equal(rgba_of(gui, node, FIRST), before)
    script = save(gui, tmp_path)
    gui.scriptOpen(str(script))
    settle(gui)
    assert gui.toNode(group_name := "Group1") is not None, group_name


def test_a_node_inside_a_group(gui: FakeNuke, tmp_path: Path) -> None:
    outer = gui.createNode("Group", inpanel=False)
    outer.setName("Precomp")
    outer.begin()
    try:
        node = txt2hdr(gui)
        output = gui.createNode("Output", inpanel=False)
        output.setInput(0, node)
    finally:
        outer.end()
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    assert node.fullName() == "Precomp.Txt2HDR1"
    assert shows_result(gui, outer)


def test_make_read_is_a_plain_read_of_the_same_pixels(gui: FakeNuke, tmp_path: Path) -> None:
    node = txt2hdr(gui, still=False)
    save(gui, tmp_path)
    node["range"].setValue("1001-1002")
    press(gui, node, "bake_range")
    press(gui, node, "make_read")
    (read,) = gui.allNodes("Read")
    assert (read["first"].value(), read["last"].value(), read["raw"].value()) == (1001, 1002, True)
    np.testing.assert_array_equal(rgba_of(gui, read, 1002)[..., :3], rgba_of(gui, node, 1002)[..., :3])


def test_live_controls_bake_nothing_and_keep_the_plate_bit_for_bit(gui: FakeNuke, tmp_path: Path, baked: Node) -> None:
    path, kept = baked["result_path"].value(), files(tmp_path / "hdrgen_cache")
    result, plate = rgba_of(gui, baked, FIRST), exposed(0.0)
    unclipped = (plate[..., :3] < 0.9).all(axis=2)
    assert not np.array_equal(result[unclipped], plate[unclipped])
    baked["preserve_plate"].setValue(True)
    settle(gui)
    kept_plate = rgba_of(gui, baked, FIRST)
    np.testing.assert_array_equal(kept_plate[unclipped], plate[unclipped])
    assert kept_plate[..., :3].max() > 1.5
    for name, value in (("gain", 2.0), ("use_ceiling", True), ("ceiling", 4.0), ("mix", 0.5)):
        baked[name].setValue(value)
        settle(gui)
        changed = rgba_of(gui, baked, FIRST)
        np.testing.assert_array_equal(changed[unclipped], plate[unclipped])
    assert baked["result_path"].value() == path
    assert files(tmp_path / "hdrgen_cache") == kept
    assert len(gui.executed) == 1


def test_a_still_holds_for_all_time(gui: FakeNuke, tmp_path: Path) -> None:
    node = hdrfuse(gui, still=True)
    save(gui, tmp_path)
    gui.frame(1004)
    press(gui, node, "bake")
    assert results(tmp_path / "hdrgen_cache") == ["out.1004.exr"]
    np.testing.assert_array_equal(rgba_of(gui, node, 1001), rgba_of(gui, node, 1009))
    assert shows_result(gui, node, 1009)


def test_exposures_from_frames_of_one_read(gui: FakeNuke, tmp_path: Path) -> None:
    plate = gui.plate(lambda frame: exposed((-2.0, 0.0, 2.0)[int(frame) % 3]), "Bracket")
    node = gui.createNode("HDRFuse", inpanel=False)
    node.setInput(0, plate)
    for name, value in (("source", "frames"), ("pack", "merge")):
        node[name].setValue(value)
    save(gui, tmp_path)
    gui.frame(1002)  # 1002 is a multiple of three: the dark one
    press(gui, node, "bake")
    assert gui.messages == []
    assert sorted(frame for _, frame, _ in gui.executed) == [1002, 1003, 1004]
    fused, reference = rgba_of(gui, node, 1002), exposed(0.0)
    well = ((reference[..., :3] > 0.05) & (reference[..., :3] < 0.9)).all(axis=2)
    np.testing.assert_allclose(fused[well], reference[well], rtol=0.02)
    node["preserve_plate"].setValue(True)
    np.testing.assert_array_equal(rgba_of(gui, node, 1002)[well], reference[well])


def test_variations_of_a_prompt_are_baked_together_and_chosen_without_a_bake(gui: FakeNuke, tmp_path: Path) -> None:
    node = txt2hdr(gui)
    node["count"].setValue(3)
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    assert len(results(tmp_path / "hdrgen_cache")) == 3
    pictures = []
    for number in (1, 2, 3):
        node["variation"].setValue(number)
        settle(gui)
        pictures.append(rgba_of(gui, node, FIRST))
    assert shows_result(gui, node)
    assert not np.array_equal(pictures[0], pictures[1])


def test_stereo_is_baked_for_each_view(gui: FakeNuke, tmp_path: Path) -> None:
    gui.root()["views"].setValue("left #ff0000\nright #00ff00")
    node = sdr2hdr(gui)
    save(gui, tmp_path)
    press(gui, node, "bake")
    assert gui.messages == []
    assert sorted(results(tmp_path / "hdrgen_cache")) == ["out.left.1001.exr", "out.right.1001.exr"]
    assert shows_result(gui, node)


def test_the_main_thread_touches_no_socket_and_answers(gui: FakeNuke, tmp_path: Path) -> None:
    import socket
    import threading

    real, main = socket.socket.connect, threading.get_ident()

    def connect(own: socket.socket, address: object) -> None:
        assert threading.get_ident() != main
        real(own, address)  # type: ignore[arg-type]

    node = sdr2hdr(gui)
    save(gui, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect)
        node["range"].setValue("1001-1004")
        press(gui, node, "bake_range")
        press(gui, node, "free_gpu")
        press(gui, node, "troubleshoot")
    assert [line for line in gui.messages if "sidecar: version" in line] == gui.messages
    assert len(results(tmp_path / "hdrgen_cache")) == 4

"""What Nuke calls when a node of ours is made or changed, when a script is saved and when something is rendered.

It owns when knobs are brought up to date. Nothing here asks a sidecar, and nothing on a farm changes a node.
"""

from __future__ import annotations

from typing import Dict, List

import nuke

from nuke_hdrgen.bake.gizmos import EXPOSURES_MAXIMUM, gizmo_of
from nuke_hdrgen.host import checks, nodes, pointing

ALSO_POINTING = ("cache_root", "bake_id", "still", "still_frame", "inputChange")
ENABLED_WHEN: Dict[str, str] = {"ceiling": "use_ceiling", "still_frame": "still"}


def register() -> None:
    """Have Nuke call us; once, at start, in every mode."""
    nuke.addBeforeRender(before_render)
    nuke.addBeforeFrameRender(before_frame_render)
    nuke.addOnScriptSave(on_script_save)


def on_create() -> None:
    """A node of ours was made, loaded, pasted or undeleted: with a GUI it gets what it lacks and shows what is baked.

    A path that was saved with it is not doubted: at this moment the node's inputs may not be connected yet.
    """
    if nuke.GUI:
        _bring_up_to_date(nuke.thisNode())


def knob_changed() -> None:
    """A knob of ours was changed: point at the results of the new settings, where they may be already."""
    if not nuke.GUI:
        return
    node, name = nuke.thisNode(), nuke.thisKnob().name()
    gizmo = gizmo_of(node.knobs())
    if gizmo is None:
        return
    if name in gizmo.baked or name in ALSO_POINTING:
        pointing.refresh(node)
    if name in {"showPanel", "exposures", "source", *ENABLED_WHEN.values()}:
        _enable(node)


def on_script_save() -> None:
    """Before a script is saved: a node without a cache root gets one beside it, so that a farm finds its bakes."""
    for node in nodes.our_nodes():
        if nuke.GUI and not nodes.text(node, "cache_root"):
            _bring_up_to_date(node)


def before_render() -> None:
    """Before a Write renders: settings that no bake was made for would read nothing, so they are told at once."""
    write = nuke.thisNode()
    if not checks.is_ours(write):
        checks.check_settings(write)


def before_frame_render() -> None:
    """Before a Write renders a frame: its bakes have to be there."""
    write = nuke.thisNode()
    if not checks.is_ours(write):
        checks.check_frame(write, int(nuke.frame()), nuke.thisView())


def _bring_up_to_date(node: nuke.Node) -> None:
    gizmo = gizmo_of(node.knobs())
    if gizmo is not None:
        nodes.fill(node, gizmo)
        pointing.look(node, nodes.text(node, "result_path") or pointing.point(node))
        _enable(node)


def _enable(node: nuke.Node) -> None:
    """Grey out what has no effect."""
    effects = {name: nodes.flag(node, by) for name, by in ENABLED_WHEN.items() if name in node.knobs()}
    if "exposures" in node.knobs():
        count, frames = nodes.whole(node, "exposures"), nodes.text(node, "source") == "frames"
        numbers: List[int] = list(range(1, EXPOSURES_MAXIMUM + 1))
        effects.update({f"ev{number}": number <= count for number in numbers})
        effects.update({f"offset{number}": frames and number <= count for number in numbers})
    for name, effective in effects.items():
        node[name].setEnabled(effective)

"""A bake planned: everything that is read from a node before work begins, so that later changes cannot mix in.

It owns the checks that need no sidecar and no rendering. It must not know threads, sockets or files. Main thread only.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field
from typing import Dict, Mapping, Optional, Sequence, Tuple

import nuke

from nuke_hdrgen.bake.gizmos import Gizmo
from nuke_hdrgen.bake.paths import frame_path, result_pattern
from nuke_hdrgen.bake.plan import Task, task_at
from nuke_hdrgen.bake.shots import Shot
from nuke_hdrgen.host import nodes
from nuke_hdrgen.host.colour import stated_space
from nuke_hdrgen.wire.errors import BadInput, BadParameter
from nuke_hdrgen.wire.messages import Colourspace, Open, PackInfo

PROVENANCE_VARIABLE = "HDRGEN_PROVENANCE"
PROVENANCES = ("full", "digest")


@dataclass(frozen=True)
class Piece:
    """One result to make, and the knob scripts in which it differs from the node as it is (its variation)."""

    task: Task
    changed: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Order:
    """One bake of one node. `shot` is what it is a part of, None frame by frame. `pattern` says where a piece of a
    take lies.
    """

    node: nuke.Node
    gizmo: Gizmo
    name: str
    pieces: Tuple[Piece, ...]
    scripts: Mapping[str, str]
    cache_root: str
    bake_id: str
    take: int
    views: Tuple[str, ...]
    space: Colourspace
    pack: str
    quality: str
    provenance: str
    shot: Optional[Shot]
    may_change_take: bool

    def pattern(self, piece: Piece, take: int) -> str:
        """The sequence that a piece is a frame of."""
        scripts = {**self.scripts, **piece.changed, "take": str(take)}
        return result_pattern(self.cache_root, self.bake_id, scripts, len(self.views))

    def path(self, piece: Piece, take: int) -> str:
        """The file of a piece, with forward slashes."""
        return frame_path(self.pattern(piece, take), piece.task.frame, piece.task.view)


def plan_bake(node: nuke.Node, frames: Sequence[int], *, may_change_take: bool = True) -> Order:
    """Plan a bake of these frames in every view, after giving the node what it lacks.

    `may_change_take` says whether the node's knobs will outlive this Nuke or be rendered by it. Raises BadInput and
    BadParameter for whatever cannot be baked, before anything is rendered.
    """
    gizmo = nodes.gizmo_at(node)
    if nuke.env.get("assist"):
        raise BadInput("Nuke Assist cannot render; bake in Nuke, or with `nuke -t bake.py`")
    nodes.check_range(gizmo, node)
    nodes.fill(node, gizmo)
    if not nodes.text(node, "cache_root"):
        raise BadInput("save the script first, or name a folder in cache_root: bakes are kept beside the script")
    views, connected = tuple(nuke.views()), nodes.connected(node, gizmo)
    for number in connected:
        _check_format(node, number)
    pieces = tuple(
        Piece(task_at(gizmo, {**nodes.values_at(node, gizmo, frame), **variation}, connected, frame, view, name), said)
        for frame in frames
        for variation, said in _variations(node, gizmo)
        for view in views
        for name in (node.fullName(),)
    )
    order = Order(
        node=node,
        gizmo=gizmo,
        name=node.fullName(),
        pieces=pieces,
        scripts=nodes.scripts_of(node, gizmo),
        cache_root=nodes.text(node, "cache_root"),
        bake_id=nodes.text(node, "bake_id"),
        take=nodes.whole(node, "take"),
        views=views,
        space=stated_space(nodes.text(node, "colourspace"), nodes.text(node, "chromaticities")),
        pack=nodes.text(node, "pack"),
        quality=nodes.text(node, "quality"),
        provenance=_provenance(),
        shot=nodes.shot_of(node, gizmo),
        may_change_take=may_change_take,
    )
    order.path(pieces[0], order.take)  # refuses a bad bake id or cache root
    return order


def open_request(order: Order, piece: Piece, pack: PackInfo) -> Open:
    """The wire's request for one piece."""
    return Open(
        id=uuid.uuid4().hex,
        operation=order.gizmo.operation,
        frames=len(piece.task.sources),
        output=order.space,
        pack=pack.name,
        parameters=piece.task.parameters,
        seed=piece.task.seed,
        quality=order.quality,
        aovs=True,
        provenance=order.provenance,
        attributes={"gizmo": order.gizmo.name, "frame": piece.task.frame, "view": piece.task.view},
    )


def _variations(node: nuke.Node, gizmo: Gizmo) -> Tuple[Tuple[Dict[str, int], Dict[str, str]], ...]:
    if gizmo.operation != "txt2hdr":
        return (({}, {}),)
    numbers = range(1, nodes.whole(node, "count") + 1)
    return tuple(({"variation": number}, {"variation": str(number)}) for number in numbers)


def _check_format(node: nuke.Node, number: int) -> None:
    source = node.input(number - 1)
    assert source is not None
    try:
        size = source.format()
    except RuntimeError:  # what is wrong upstream is told when it is rendered
        return
    if size.width() < 1 or size.height() < 1:
        raise BadInput(
            f"input {number} of {node.fullName()} is {size.width()}x{size.height()} pixels; give it a format"
        )


def _provenance() -> str:
    chosen = os.environ.get(PROVENANCE_VARIABLE, "") or PROVENANCES[0]
    if chosen not in PROVENANCES:
        raise BadParameter(
            f"${PROVENANCE_VARIABLE}={chosen} leaves a bake without the key that tells it is still right; use digest"
        )
    return chosen

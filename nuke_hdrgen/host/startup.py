"""What init.py and menu.py have Nuke do at its start: callbacks in every mode, menus with a GUI.

It owns the menu's entries. It must not ask a sidecar.
"""

from __future__ import annotations

import threading

import nuke

from nuke_hdrgen.bake.gizmos import GIZMOS
from nuke_hdrgen.host import callbacks, sidecar
from nuke_hdrgen.host.main_thread import GuiThread
from nuke_hdrgen.wire.errors import HDRGenError

MENU = "HDRGen"


def start() -> None:
    """Every mode."""
    callbacks.register()


def start_gui() -> None:
    """With a GUI: the gizmos in the Nodes menu, the sidecar in the menu bar.

    A new Txt2HDR does not take what is selected as its start picture.
    """
    toolbar = nuke.menu("Nodes").addMenu(MENU)
    for gizmo in GIZMOS:
        alone = "" if gizmo.has_plate else "[node.setSelected(False) for node in nuke.selectedNodes()]; "
        toolbar.addCommand(gizmo.name, f"{alone}nuke.createNode('{gizmo.name}')", icon=f"{gizmo.name}.png")
    nuke.menu("Nuke").addMenu(MENU).addCommand("Start sidecar", start_sidecar)


def start_sidecar() -> None:
    """Start the shared sidecar, or find that it runs; says which in a message."""

    def work() -> None:
        try:
            with sidecar.open_shared() as connection:
                welcome = connection.welcome
            assert welcome is not None
            line = f"The sidecar runs: version {welcome.package}, pid {welcome.pid}."
        except HDRGenError as error:
            line = error.message
        GuiThread().post(lambda: nuke.message(line))

    threading.Thread(target=work, name="hdrgen start", daemon=True).start()

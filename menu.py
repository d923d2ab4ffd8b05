"""Run by Nuke at start with a GUI: adds the HDRGen menu. It must never stop Nuke starting."""

import logging

try:
    import nuke

    nuke.menu("Nodes").addMenu("HDRGen").addCommand("HDRFuse", "nuke.createNode('HDRFuse')")
except Exception as error:  # noqa: BLE001  # a process's top: Nuke starts without our menu rather than not at all
    logging.getLogger("nuke_hdrgen").warning("the HDRGen menu is not available: %s", error)

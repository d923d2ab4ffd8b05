"""Run by Nuke at start with a GUI: adds the HDRGen menus and panel. It must never stop Nuke starting."""

import logging

try:
    import nuke_hdrgen.host.startup as hdrgen_startup

    hdrgen_startup.start_gui()
    import nuke_hdrgen.ui.dock as hdrgen_dock

    hdrgen_dock.register()
except Exception as error:  # noqa: BLE001  # a process's top: Nuke starts without our menu rather than not at all
    logging.getLogger("nuke_hdrgen").warning("the HDRGen menu is not available: %s", error)

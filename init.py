"""Run by Nuke at start in every mode: puts the gizmos on the plugin path. It must never stop Nuke starting."""

import logging

try:
    import nuke

    nuke.pluginAddPath("./gizmos")
    nuke.pluginAddPath("./gizmos/icons")
    import nuke_hdrgen.host.startup as hdrgen_startup

    hdrgen_startup.start()
except Exception as error:  # noqa: BLE001  # a process's top: Nuke starts without our gizmos rather than not at all
    logging.getLogger("nuke_hdrgen").warning("the HDRGen gizmos are not available: %s", error)

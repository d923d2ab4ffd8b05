"""Makes the panel known to Nuke, so that it docks in any pane.

It owns the panel's name, its id (which saved layouts hold, so that it never changes) and the expression by which Nuke
makes it. It must not know widgets: Qt is imported when the panel is first opened, not when Nuke starts.
"""

from __future__ import annotations

import importlib
from typing import Any

PANEL_NAME = "HDRGen"
PANEL_ID = "nuke_hdrgen.panel"
# Nuke evaluates this text in a namespace of its own, in which nothing of ours is imported.
PANEL_EXPRESSION = "__import__('nuke_hdrgen.ui.panel', fromlist=['HealthPanel']).HealthPanel"


def register() -> None:
    """Add the panel to Nuke's Windows > Custom menu and to its saved layouts. Raises ImportError outside Nuke's GUI."""
    panels: Any = importlib.import_module("nukescripts.panels")
    panels.registerWidgetAsPanel(PANEL_EXPRESSION, PANEL_NAME, PANEL_ID)

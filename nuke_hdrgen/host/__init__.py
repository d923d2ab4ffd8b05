"""The only folder that imports nuke."""

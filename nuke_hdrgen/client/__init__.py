"""Finds, starts and talks to a sidecar over a blocking socket; it must not know Nuke."""

"""`hdrgen evaluate`: scores results against references by the protocol."""

from __future__ import annotations

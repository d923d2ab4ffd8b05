"""Curves, OCIO, primaries, gain maps and sanitising; any array namespace, no torch."""

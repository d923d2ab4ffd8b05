"""Thin doors to other hosts; each an optional extra."""

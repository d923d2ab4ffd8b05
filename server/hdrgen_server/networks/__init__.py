"""Torch building blocks that more than one system uses."""

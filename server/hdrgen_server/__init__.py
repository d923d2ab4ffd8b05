"""The sidecar: gateway, workers, systems, packs, colour, images and the command line."""

__version__ = "0.1.0"

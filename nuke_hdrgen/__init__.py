"""What lives inside Nuke. Standard library only, Python 3.9 syntax; it must not know the sidecar's packages."""

__version__ = "0.1.0"

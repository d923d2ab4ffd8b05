"""Data sets, degradations, camera simulation and the one training loop."""

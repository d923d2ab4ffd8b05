"""Pure planning of a bake: parameters, stale frames, keys and result paths; no I/O."""

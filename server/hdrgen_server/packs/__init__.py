"""Torch-free: manifests, registry, verification and the licence gate; embedded/ holds the small weights."""

"""The inverse of Reinhard's photographic tone curve: no weights, no torch."""

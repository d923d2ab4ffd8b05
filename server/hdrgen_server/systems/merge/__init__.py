"""The plain weighted merge of a bracket: no weights, no alignment, no torch."""

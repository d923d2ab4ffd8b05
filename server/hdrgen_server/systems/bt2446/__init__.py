"""The inverse tone mappings of Report ITU-R BT.2446-1: no weights, no torch."""

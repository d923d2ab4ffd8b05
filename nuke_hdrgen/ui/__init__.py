"""The only folder that imports Qt."""

"""Farm jobs as Open Job Description bundles, for the farm's own manager. Needs the `farm` extra."""

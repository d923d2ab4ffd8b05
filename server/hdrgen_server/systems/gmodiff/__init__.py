"""GMODiff (Hu et al. 2025): exposure brackets to HDR by gain-map regression and one-step refinement."""

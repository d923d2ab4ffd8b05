"""Stage two of GMODiff: one step of a latent diffusion model refines the regressed gain map (Eq. 6 to 10)."""

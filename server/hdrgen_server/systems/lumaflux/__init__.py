"""LumaFlux: SDR to HDR by a frozen diffusion transformer that small physical and perceptual modules steer."""

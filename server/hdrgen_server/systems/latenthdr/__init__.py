"""LatentHDR: one latent of a scene, a head that turns it into any exposure, and the stack merged to light."""

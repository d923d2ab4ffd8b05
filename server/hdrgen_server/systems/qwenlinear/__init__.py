"""Txt2HDR by Qwen-Image in linear light: a VAE of two heads, and a transformer widened to its latents."""

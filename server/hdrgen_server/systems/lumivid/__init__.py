"""LumiVid: SDR shots to HDR by a video diffusion transformer on log codes."""

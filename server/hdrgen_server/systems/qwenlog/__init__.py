"""Txt2HDR by Qwen-Image on log codes: a prompt becomes an encoded picture, a camera's curve turns it into light."""

"""A small, strict Nuke for tests: `FakeNuke` goes into sys.modules as `nuke`; what it does not know, it refuses.

It owns the few parts of Nuke that nuke_hdrgen uses, and is never kinder than Nuke. It must not know nuke_hdrgen. Only
`pixels`, `pixel_nodes` and `exr_files` need numpy and OpenEXR; they are imported at the first pixel.
"""

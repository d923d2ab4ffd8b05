"""A small, strict Nuke for tests: `FakeNuke` goes into sys.modules as `nuke`; what it does not know, it refuses.

It owns the few parts of Nuke that nuke_hdrgen uses, and is never kinder than Nuke: where Nuke's manner is not known, it
takes the one that is harder to live with. It must not know nuke_hdrgen. Only `pixels`, `pixel_nodes` and `exr_files`
need numpy and OpenEXR; they are imported at the first pixel, and not at all for a `FlatPlate`.

    fake = FakeNuke(gui=True)
    for name, module in fake.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    fake.start([folder])                         # NUKE_PATH: init.py, and with a GUI menu.py
    node = fake.createNode("HDRFuse")
    node.setInput(0, fake.plate(picture))
    node["bake"].execute()                       # a button
    fake.run_events(until=lambda: finished())    # Nuke's event loop, in the thread that made the fake
    fake.pixels(node, 1001).rgba()

`errors.REFUSED` lists every refusal, those in worker threads too: a test that expects none asserts that it is empty.
`nuke` in `tests/fakes/bin` is the command line: `-t`, `-x`, `-X`, `-F`, and `--gui FILE.py` for tests.
"""

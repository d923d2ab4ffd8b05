"""`hdrgen packs add` with checkpoints that have to be converted first."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_user import Run, photograph

from hdrgen_server.image.exr import read_exr_frame
from hdrgen_server.systems.gmodiff.config import CONFIGS
from hdrgen_server.systems.gmodiff.released import LISTS, refiner_shapes, regressor_shapes, released_layout


def halves(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> OrderedDict[str, torch.Tensor]:
    """Small random values in half floats: a full-size checkpoint in half the room."""
    generator = torch.Generator().manual_seed(seed)
    return OrderedDict((name, 0.02 * torch.randn(shape, generator=generator).half()) for name, shape in shapes.items())


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.mark}",)


def test_what_cannot_be_added(hdrgen: Run, alone: Path) -> None:
    torch.save({"state_dict": Evil(alone / "owned")}, alone / "dareg.pth")
    status, out, err = hdrgen("packs", "add", "dareg.pth")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "system, which is no tensor" in err
    torch.save({"state_dict": {"intro_0.weight": torch.ones(64, 3, 3, 3)}}, alone / "dareg.pth")
    status, _, err = hdrgen("packs", "add", "dareg.pth")
    assert status == 2
    assert "state_dict: intro_0.weight has shape (64, 3, 3, 3), not (64, 6, 3, 3)" in err
    status, _, err = hdrgen("packs", "add", "dareg.pth", "--link")
    assert (status, "leave --link out" in err) == (2, True)
    (alone / "pack").mkdir()
    (alone / "pack" / "pack.toml").touch()
    status, _, err = hdrgen("packs", "add", "pack", "--base", "sd21")
    assert (status, "leave --base out" in err) == (2, True)
    for name, words in (("none.pth", "does not exist"), ("note.txt", "is no checkpoint")):
        (alone / "note.txt").touch()
        status, _, err = hdrgen("packs", "add", name)
        assert (status, words in err) == (2, True)
    assert not (alone / "owned").exists()
    assert "gmodiff-released" not in hdrgen("packs", "list")[1]


@pytest.mark.full
@pytest.mark.usefixtures("sidecar_ends")
def test_checkpoints_of_the_published_size_become_a_pack_that_runs(hdrgen: Run, alone: Path) -> None:
    layout = released_layout()
    (alone / "weights").mkdir()
    torch.save(
        {"epoch": 1, "state_dict": halves(regressor_shapes(CONFIGS["released"]))}, alone / "weights" / "dareg.pth"
    )
    state: dict[str, object] = {entry: halves(shapes) for entry, shapes in refiner_shapes(layout).items()}
    state |= {name: [] for name in LISTS} | {f"rank_{network}": 16 for network in ("unet", "vae", "vae_c")}
    torch.save(state, alone / "weights" / "gmodiff.pkl")
    status, _, err = hdrgen("packs", "add", "weights")
    assert (status, "name it with --base" in err) == (2, True)
    base = alone / "sd21"
    for part in ("unet", "vae"):
        (base / part).mkdir(parents=True)
        (base / part / "config.json").write_text("{}")
        (base / part / "diffusion_pytorch_model.safetensors").write_bytes(b"weights of " + part.encode())
    status, out, err = hdrgen("packs", "add", "weights", "--base", base, "--json")
    assert status == 0, err
    pack = Path(json.loads(out)["path"])
    assert (pack / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == b"weights of unet"
    assert not any(path.is_symlink() for path in pack.rglob("*"))
    assert sorted(path.name for path in (pack / "lora").iterdir()) == [
        "condition.safetensors", "unet.safetensors", "vae.safetensors",
    ]  # fmt: skip
    assert [Path(name).name for name in json.loads(out)["converted"]] == ["dareg.pth", "gmodiff.pkl"]
    assert hdrgen("packs", "verify", "gmodiff-released")[0] == 0
    status, shown, _ = hdrgen("packs", "show", "gmodiff-released")
    assert "none stated by its authors" in shown
    assert "sha256" in shown

    names = [photograph(alone / f"{name}.png", v, (64, 48)) for name, v in (("a", 0.3), ("b", 0.6), ("c", 0.9))]
    fuse = ("hdrfuse", *names, "--ev=-2,0,2", "-o", "out.exr", "--pack", "gmodiff-released")
    status, _, err = hdrgen(*fuse)
    assert status == 4
    assert "hdrgen packs accept gmodiff-released" in err
    assert hdrgen("packs", "accept", "gmodiff-released")[0] == 0
    status, _, err = hdrgen(*fuse)
    assert status == 0, err
    result = read_exr_frame(alone / "out.exr").rgb
    assert np.isfinite(result).all()
    assert result.std() > 0.001

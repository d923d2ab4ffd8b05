"""A pack may state other memory than its system: larger weights of the same system are admitted by it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hdrgen_server.packs.descriptors import load_descriptor
from hdrgen_server.packs.manifest import parse_pack
from nuke_hdrgen.wire.errors import BadInput

MANIFEST = 'format = 1\nname = "big"\nsystem = "gmodiff"\nlicence = "Apache-2.0"\n'


def test_a_pack_s_own_memory_is_predicted(tmp_path: Path) -> None:
    pack = parse_pack(f"{MANIFEST}\n[memory]\nfixed_mib = 9000\nper_megapixel_mib = 60.5\n".encode(), tmp_path)
    assert pack.descriptor.predict_mib({}, (1000, 1000), 3) == 9000 + 3 * 60.5
    plain = parse_pack(MANIFEST.encode(), tmp_path)
    assert plain.descriptor is load_descriptor("gmodiff")


@pytest.mark.parametrize("line", ["fixed = 1", "fixed_mib = -1", 'fixed_mib = "much"', "fixed_mib = true"])
def test_a_wrong_table_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(BadInput, match=r"\[memory\] takes fixed_mib and per_megapixel_mib"):
        parse_pack(f"{MANIFEST}\n[memory]\n{line}\n".encode(), tmp_path)

"""Combines the coverage data of a test run and holds each room to its gate; `make test` runs it.

It owns the table of gates. A room without code yet is left out. Exits 1 when a room is below its gate.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import CoverageException, NoSource

ROOT = Path(__file__).resolve().parent.parent
SERVER = "server/hdrgen_server"

# Percent of lines and branches, by folder.
GATES: dict[str, float] = {
    "nuke_hdrgen/wire": 100.0,
    "nuke_hdrgen/client": 95.0,
    "nuke_hdrgen/bake": 95.0,
    f"{SERVER}/gateway": 95.0,
    f"{SERVER}/colour": 95.0,
    f"{SERVER}/image": 95.0,
    f"{SERVER}/systems": 80.0,
    f"{SERVER}/training": 80.0,
}


@dataclass(frozen=True)
class Room:
    """What a folder's tests covered, in lines and branches."""

    folder: str
    gate: float
    total: int
    covered: int

    @property
    def percent(self) -> float:
        """Covered lines and branches in percent."""
        return 100.0 * self.covered / self.total

    @property
    def passes(self) -> bool:
        """Whether the room is at its gate or above."""
        return self.percent >= self.gate


def measure(coverage: Coverage, folder: str, gate: float) -> Room | None:
    """One room's coverage; None when it holds no statements. A file that no test imported counts as
    uncovered.
    """
    total = covered = 0
    for path in sorted((ROOT / folder).rglob("*.py")):
        try:
            numbers = coverage._analyze(str(path)).numbers
        except NoSource as error:
            raise SystemExit(f"{path} is gone since the test run: {error}") from error
        total += numbers.n_statements + numbers.n_branches
        covered += numbers.n_executed + numbers.n_executed_branches
    return Room(folder, gate, total, covered) if total else None


def main() -> int:
    """Print the table and return the exit status."""
    coverage = Coverage(config_file=str(ROOT / "pyproject.toml"), data_file=str(ROOT / ".coverage"))
    try:
        if list(ROOT.glob(".coverage.*")):
            coverage.combine([str(ROOT)])
            coverage.save()
        coverage.load()
    except CoverageException as error:
        print(f"no coverage data ({error}); run `make test`")
        return 1
    if not coverage.get_data().measured_files():
        print("no coverage data; run `make test`")
        return 1
    found = [measure(coverage, folder, gate) for folder, gate in GATES.items()]
    rooms = [room for room in found if room is not None]
    for room in rooms:
        mark = "" if room.passes else "  below its gate"
        print(f"{room.folder:<36} {room.percent:6.1f} %  gate {room.gate:5.1f} %{mark}")
    return 0 if all(room.passes for room in rooms) else 1


if __name__ == "__main__":
    sys.exit(main())

"""Combines the coverage data of a test run and holds each room to its gate; `make test` runs it.

It owns the table of gates. A room without code yet is left out. Exits 1 when a room is below its gate.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from coverage import Coverage
from coverage.exceptions import CoverageException

ROOT = Path(__file__).resolve().parent.parent
SERVER = "server/hdrgen_server"

# Percent of lines and branches, by folder. The gateway runs in child processes: `make coverage-gateway` holds its gate.
GATES: dict[str, float] = {
    "nuke_hdrgen/wire": 100.0,
    "nuke_hdrgen/client": 95.0,
    "nuke_hdrgen/bake": 95.0,
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


def rooms_of(files: dict[str, dict[str, int]]) -> list[Room]:
    """Each gated folder's sums over the report's files; a folder without statements is left out."""
    rooms: list[Room] = []
    for folder, gate in GATES.items():
        sums = [numbers for path, numbers in files.items() if path.startswith(f"{folder}/")]
        total = sum(n["num_statements"] + n["num_branches"] for n in sums)
        covered = sum(n["covered_lines"] + n["covered_branches"] for n in sums)
        if total:
            rooms.append(Room(folder, gate, total, covered))
    return rooms


def report(data_file: Path) -> dict[str, dict[str, int]]:
    """Path from the repository's root -> numbers of statements and branches. Raises CoverageException."""
    coverage = Coverage(config_file=str(ROOT / "pyproject.toml"), data_file=str(data_file))
    parts = list(data_file.parent.glob(f"{data_file.name}.*"))
    if parts:
        coverage.combine([str(part) for part in parts])
        coverage.save()
    coverage.load()
    with tempfile.TemporaryDirectory() as folder:
        outfile = Path(folder) / "coverage.json"
        coverage.json_report(outfile=str(outfile))
        files = json.loads(outfile.read_text(encoding="utf-8"))["files"]
    return {Path(ROOT, path).relative_to(ROOT).as_posix(): entry["summary"] for path, entry in files.items()}


def main() -> int:
    """Write the table and return the exit status."""
    try:
        rooms = rooms_of(report(ROOT / ".coverage"))
    except CoverageException as error:
        sys.stdout.write(f"no coverage data ({error}); run `make test`\n")
        return 1
    for room in rooms:
        mark = "" if room.passes else "  below its gate"
        sys.stdout.write(f"{room.folder:<36} {room.percent:6.1f} %  gate {room.gate:5.1f} %{mark}\n")
    return 0 if rooms and all(room.passes for room in rooms) else 1


if __name__ == "__main__":
    sys.exit(main())

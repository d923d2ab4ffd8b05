"""What the gateway counts, and its Prometheus text file.

It owns counters, recent errors and the file's format (through prometheus_client, imported when the file is first
written). It must not know sockets or jobs.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import HDRGenError

RECENT = 16
FILE_NAME = "metrics.prom"


@dataclass(frozen=True)
class _Noted:
    at: float
    code: str
    message: str


class Metrics:
    """Counters by name, since the start; job outcomes by code; the last errors that were the sidecar's own."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._job_seconds = 0.0
        self._recent: deque[_Noted] = deque(maxlen=RECENT)

    def add(self, name: str, amount: float) -> None:
        """Raise a counter."""
        self._counts[name] += amount  # type: ignore[assignment]  # Counter adds floats as well

    def job_ended(self, outcome: str, seconds: float) -> None:
        """A job ended: `done` or an error's code, this many seconds after it was opened."""
        self._outcomes[outcome] += 1
        self._job_seconds += seconds

    def note_error(self, error: HDRGenError, now: float) -> None:
        """Remember a failure for health."""
        self._recent.append(_Noted(now, error.code, error.message))

    def recent_errors(self, now: float) -> tuple[m.ErrorInfo, ...]:
        """The last failures, the newest last."""
        return tuple(m.ErrorInfo(max(0.0, now - n.at), n.code, n.message) for n in self._recent)

    def counters(self, gauges: Mapping[str, float]) -> dict[str, float]:
        """Everything as flat numbers, for health."""
        jobs = {f"jobs_{outcome}": float(n) for outcome, n in sorted(self._outcomes.items())}
        return {**{k: float(v) for k, v in sorted(self._counts.items())}, **jobs, **gauges}

    def write_file(self, folder: Path, gauges: Mapping[str, float]) -> None:
        """Write `metrics.prom` in the runtime folder, for a textfile collector; there is no HTTP port."""
        from prometheus_client import CollectorRegistry, write_to_textfile

        registry = CollectorRegistry()
        registry.register(_Collector(self, gauges))
        write_to_textfile(str(folder / FILE_NAME), registry)

    def families(self, gauges: Mapping[str, float]) -> Iterator[Any]:
        """The metrics as prometheus_client families."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily

        for name, value in sorted(self._counts.items()):
            yield CounterMetricFamily(f"hdrgen_{name}", f"{name} since the start", value=value)
        jobs = CounterMetricFamily("hdrgen_jobs", "ended jobs by outcome", labels=["outcome"])
        for outcome, count in sorted(self._outcomes.items()):
            jobs.add_metric([outcome], count)
        yield jobs
        total = sum(self._outcomes.values())
        yield SummaryMetricFamily(
            "hdrgen_job_seconds", "seconds from open to end", count_value=total, sum_value=self._job_seconds
        )
        for name, value in sorted(gauges.items()):
            yield GaugeMetricFamily(f"hdrgen_{name}", name.replace("_", " "), value=value)


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Mapping[str, float]) -> None:
        self._metrics, self._gauges = metrics, gauges

    def collect(self) -> Iterator[Any]:
        """What prometheus_client asks a collector for."""
        yield from self._metrics.families(self._gauges)

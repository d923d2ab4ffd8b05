"""Whether a job may be opened, and whether a frame fits it: checked before anything is allocated.

Pure: it owns the checks and their one-line answers. It must not know sockets, slots or workers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hdrgen_server.packs.manifest import Pack
from hdrgen_server.packs.registry import Registry
from nuke_hdrgen.wire import messages as m
from nuke_hdrgen.wire.errors import BadInput, BadParameter, InvalidMessage, OutOfMemory

ECHO = "echo"
PROVENANCES = ("full", "digest", "none")


def admit(request: m.Open, registry: Registry, require_licence: Callable[[Pack], None]) -> Pack:
    """The pack of a job, its licence, operation, number of frames and parameters checked.

    Raises UnknownPack, LicenceNotAccepted, BadParameter or BadInput, each saying what is allowed.
    """
    pack = registry.get(request.pack) if request.pack else registry.default_for(request.operation, request.quality)
    descriptor = pack.descriptor
    if request.operation not in descriptor.operations:
        others = ", ".join(p.name for p in registry.all() if request.operation in p.descriptor.operations)
        instead = f"name one of {others}" if others else "name another pack"
        does = ", ".join(descriptor.operations)
        raise BadParameter(f"pack {pack.name} does {does}, not {request.operation!r}; {instead}")
    require_licence(pack)
    low, high = descriptor.frames_minimum, descriptor.frames_maximum
    if request.frames < low or (high is not None and request.frames > high):
        allowed = f"{low}" if low == high else f"{low} to {high}" if high is not None else f"at least {low}"
        raise BadInput(f"{pack.name} takes {allowed} frames a job, got {request.frames}")
    descriptor.made_size(descriptor.resolve(request.parameters))
    return pack


def with_site_provenance(request: m.Open, site: str) -> m.Open:
    """The request with no more provenance in its results' headers than the site's settings allow."""
    strictest = max(request.provenance, site, key=PROVENANCES.index)
    return request if strictest == request.provenance else replace(request, provenance=strictest)


def check_frame(frame: m.Frame, expected_index: int, request: m.Open, pack: Pack) -> None:
    """Check a frame's header against its job before its body is received.

    Raises InvalidMessage (out of order) or BadInput (a size the system does not take).
    """
    if frame.index != expected_index:
        raise InvalidMessage(f"frame {frame.index} came where {expected_index} was due; send frames in order")
    if expected_index >= request.frames:
        raise InvalidMessage(f"job {request.id!r} announced {request.frames} frames and sent more")
    if len(frame.shape) < 2:
        return
    height, width = frame.shape[:2]
    sizes = pack.descriptor.sizes
    if min(height, width) < sizes.minimum or max(height, width) > sizes.maximum:
        raise BadInput(
            f"{pack.name} takes frames of {sizes.minimum} to {sizes.maximum} pixels a side, got {width} x {height}"
        )


def needed_mib(frame: m.Frame | None, request: m.Open, pack: Pack) -> float:
    """Predicted peak memory of the job on the device, in MiB; 0 when neither its first frame nor its parameters say a
    size.
    """
    size = (frame.shape[1], frame.shape[0]) if frame is not None and len(frame.shape) >= 2 else None
    return pack.descriptor.predict_mib(request.parameters, size, request.frames)


def check_memory(needed: float, total_mib: float | None, pack: Pack) -> None:
    """Raises OutOfMemory when the job could not fit even an empty device."""
    if total_mib is not None and needed > total_mib:
        raise OutOfMemory(
            f"{pack.name} needs about {needed:.0f} MiB for this job, the device has {total_mib:.0f} MiB; "
            "use a smaller frame or a smaller pack",
            needed_mib=needed,
            free_mib=total_mib,
        )

"""What an Ultra HDR file says about its gain map: XMP of Adobe's `hdrgm` namespace, and the binary of ISO 21496-1.

It owns both spellings of one `LogGain` and their strict reading. It must not know JPEG or pixels. Sources: Android,
"Ultra HDR Image Format v1.1" (XMP, container directory); ISO 21496-1:2025, annex C (the binary).
"""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from typing import cast
from xml.etree import ElementTree as ET

from hdrgen_server.colour.log_gain import NEUTRAL, UNIT, LogGain, Triple
from nuke_hdrgen.wire.errors import BadInput, BadParameter

HDRGM = "http://ns.adobe.com/hdr-gain-map/1.0/"
RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
CONTAINER = "http://ns.google.com/photos/1.0/container/"
ITEM = "http://ns.google.com/photos/1.0/container/item/"
VERSION = "1.0"
MOST_NODES = 4096

# Field of LogGain, name in the `hdrgm` namespace, value where a file leaves it out (None: it must be there).
XMP_FIELDS: tuple[tuple[str, str, float | None], ...] = (
    ("low", "GainMapMin", 0.0),
    ("high", "GainMapMax", None),
    ("gamma", "Gamma", 1.0),
    ("base_offset", "OffsetSDR", 1.0 / 64.0),
    ("hdr_offset", "OffsetHDR", 1.0 / 64.0),
    ("headroom_low", "HDRCapacityMin", 0.0),
    ("headroom_high", "HDRCapacityMax", None),
)
SINGLE_FIELDS = ("headroom_low", "headroom_high")
# The fields of each channel in the binary, in order; all but gamma are signed.
ISO_CHANNEL = ("low", "high", "gamma", "base_offset", "hdr_offset")
MULTI_CHANNEL, BASE_SPACE, HDR_BASE, ONE_DENOMINATOR = 0x80, 0x40, 0x04, 0x08
ISO_VERSIONS = b"\0\0\0\0"


def primary_xmp(map_bytes: int) -> bytes:
    """The XMP of the primary picture: the directory that names the gain map and its length in bytes."""
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:hdrgm="{HDRGM}" xmlns:Container="{CONTAINER}" xmlns:Item="{ITEM}" hdrgm:Version="{VERSION}">'
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="Primary" '
        'Item:Mime="image/jpeg"/></rdf:li><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap" '
        f'Item:Mime="image/jpeg" Item:Length="{map_bytes}"/></rdf:li></rdf:Seq></Container:Directory>'
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    ).encode()


def map_xmp(gain: LogGain) -> bytes:
    """The XMP of the gain map; a list of three only where the channels differ."""
    single, lists = [f'hdrgm:Version="{VERSION}"', 'hdrgm:BaseRenditionIsHDR="False"'], list[str]()
    for field, name, _ in XMP_FIELDS:
        value = getattr(gain, field)
        values: tuple[float, ...] = (value,) if field in SINGLE_FIELDS else value
        if len(set(values)) == 1:
            single.append(f'hdrgm:{name}="{values[0]!r}"')
        else:
            items = "".join(f"<rdf:li>{one!r}</rdf:li>" for one in values)
            lists.append(f"<hdrgm:{name}><rdf:Seq>{items}</rdf:Seq></hdrgm:{name}>")
    return (
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{RDF}"><rdf:Description rdf:about="" '
        f'xmlns:hdrgm="{HDRGM}" {" ".join(single)}>{"".join(lists)}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


def read_xmp(packet: bytes, where: str) -> LogGain | None:
    """The gain of an XMP packet; None where it holds none. Raises BadInput for XML or numbers that cannot be read."""
    root = _parse(packet, where)
    found: dict[str, tuple[float, ...]] = {}
    version = base_is_hdr = ""
    for node in root.iter(f"{{{RDF}}}Description"):
        given = {name: [text] for name, text in node.attrib.items()}
        given |= {
            child.tag: [li.text or "" for li in child.iter(f"{{{RDF}}}li")] or [child.text or ""] for child in node
        }
        version = next(iter(given.get(f"{{{HDRGM}}}Version", [version])))
        base_is_hdr = next(iter(given.get(f"{{{HDRGM}}}BaseRenditionIsHDR", [base_is_hdr])))
        for field, name, _ in XMP_FIELDS:
            if f"{{{HDRGM}}}{name}" in given:
                found[field] = _numbers(given[f"{{{HDRGM}}}{name}"], name, where)
    if "high" not in found:
        return None
    if version != VERSION or base_is_hdr.strip().lower() not in {"", "false"}:
        raise BadInput(
            f"{where} has a gain map of version {version!r} over a base that is HDR: {base_is_hdr or 'False'}; "
            f"version {VERSION} over an SDR base can be read"
        )
    values: dict[str, Triple | float] = {}
    for field, name, default in XMP_FIELDS:
        if field not in found and default is None:
            raise BadInput(f"the gain map of {where} has no hdrgm:{name}; export it again")
        numbers = found.get(field, (default or 0.0,))
        if len(numbers) not in ({1} if field in SINGLE_FIELDS else {1, 3}):
            raise BadInput(f"hdrgm:{name} of {where} holds {len(numbers)} numbers; export it again")
        values[field] = numbers[0] if field in SINGLE_FIELDS else cast("Triple", (numbers * 3)[:3])
    return _checked(values, where)


def iso_bytes(gain: LogGain) -> bytes:
    """The binary metadata, every number a fraction with the denominator 2**20, the map applied in the base's space."""
    same = all(len(set(getattr(gain, field))) == 1 for field in ISO_CHANNEL)
    parts = [ISO_VERSIONS, bytes([BASE_SPACE | (0 if same else MULTI_CHANNEL)])]
    parts += [_fraction(gain.headroom_low), _fraction(gain.headroom_high)]
    for channel in range(1 if same else 3):
        parts += [_fraction(getattr(gain, field)[channel]) for field in ISO_CHANNEL]
    return b"".join(parts)


def read_iso(payload: bytes, where: str) -> tuple[LogGain, bool] | None:
    """The gain of the binary metadata and whether it is applied in the base's own primaries; None for the four bytes
    that a primary picture has. Raises BadInput when it cannot be read.
    """
    if payload[:2] != ISO_VERSIONS[:2]:
        raise BadInput(f"the ISO 21496-1 metadata of {where} need a newer reader; export it with version 0")
    if len(payload) == len(ISO_VERSIONS):
        return None
    flags = payload[4] if len(payload) > len(ISO_VERSIONS) else 0
    if flags & HDR_BASE:
        raise BadInput(f"the base of {where} is the HDR picture; export it with an SDR base")
    channels = 3 if flags & MULTI_CHANNEL else 1
    numbers = 2 + channels * len(ISO_CHANNEL)
    shared = bool(flags & ONE_DENOMINATOR)
    words = numbers + 1 if shared else 2 * numbers
    if len(payload) < 5 + 4 * words:
        raise BadInput(f"the ISO 21496-1 metadata of {where} are truncated; export it again")
    tops: list[float] = []
    for index in range(numbers):
        at = 5 + 4 * (index + 1 if shared else 2 * index)
        unsigned = index < 2 or ISO_CHANNEL[(index - 2) % len(ISO_CHANNEL)] == "gamma"
        (top,) = struct.unpack_from(">I" if unsigned else ">i", payload, at)
        (bottom,) = struct.unpack_from(">I", payload, 5 if shared else at + 4)
        if bottom == 0:
            raise BadInput(f"the ISO 21496-1 metadata of {where} divide by zero; export it again")
        tops.append(top / bottom)
    values: dict[str, Triple | float] = {"headroom_low": tops[0], "headroom_high": tops[1]}
    for index, field in enumerate(ISO_CHANNEL):
        each = tuple(tops[2 + channel * len(ISO_CHANNEL) + index] for channel in range(channels))
        values[field] = cast("Triple", (each * 3)[:3])
    return _checked(values, where), bool(flags & BASE_SPACE)


def _fraction(value: float) -> bytes:
    whole = Fraction(value) / Fraction(UNIT)
    if whole.denominator != 1 or abs(whole) >= 1 << 31:
        raise BadParameter(f"the gain map's number {value!r} is no multiple of 2**-20; fit the map first")
    return struct.pack(">iI", int(whole), round(1 / UNIT))


def _parse(packet: bytes, where: str) -> ET.Element:
    try:
        text = packet.decode("utf-8").strip("\0\ufeff \r\n\t")
    except UnicodeDecodeError as error:
        raise BadInput(f"the XMP of {where} is not UTF-8; export it again") from error
    if "<!" in text:  # a document type could make a small packet unfold into a large one
        raise BadInput(f"the XMP of {where} declares a document type; export it again")
    try:
        root = ET.fromstring(text)  # noqa: S314 - no document type, and 64 KiB at most
    except (ET.ParseError, ValueError) as error:
        raise BadInput(f"the XMP of {where} is no XML; export it again") from error
    if sum(1 for _ in root.iter()) > MOST_NODES:
        raise BadInput(f"the XMP of {where} has over {MOST_NODES} nodes; export it again")
    return root


def _numbers(texts: list[str], name: str, where: str) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in texts)
    except ValueError as error:
        raise BadInput(f"hdrgm:{name} of {where} is no number: {texts[0][:40]!r}; export it again") from error


def _checked(values: dict[str, Triple | float], where: str) -> LogGain:
    try:
        return replace(LogGain(NEUTRAL, NEUTRAL), **values)  # pyright: ignore[reportArgumentType]
    except BadParameter as error:
        raise BadInput(f"{where}: {error.message}; export it again") from error

"""A message and its body as a `.safetensors` file, to look at a capture with common tools.

It owns the layout of that file (u64 header length, JSON header, bytes; the safetensors format, which pads its header
with spaces to 8 bytes). Raw bodies become F16 or F32 tensors, others plain U8; the message stands in `__metadata__`.
It must not know sockets.
"""

from __future__ import annotations

import json
import struct
from typing import List

from nuke_hdrgen.wire.codec import Buffer
from nuke_hdrgen.wire.messages import Message, Picture
from nuke_hdrgen.wire.rules import plain

_DTYPES = {"f16": "F16", "f32": "F32"}


def to_safetensors(message: Message, body: Buffer = b"") -> List[Buffer]:
    """The file as buffers to be written in order. A hello's token is left out."""
    fields = {name: value for name, value in plain(message).items() if name not in message.SECRET}
    header = {"__metadata__": {"type": message.NAME, "message": json.dumps(fields, sort_keys=True)}}
    length = memoryview(body).nbytes
    if length:
        dtype, shape = "U8", [length]
        if isinstance(message, Picture) and message.format in _DTYPES:
            dtype, shape = _DTYPES[message.format], list(message.shape)
        tensor = {"dtype": dtype, "shape": shape, "data_offsets": [0, length]}
        text = json.dumps({**header, "body": tensor})
    else:
        text = json.dumps(header)
    encoded = text.encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)
    return [struct.pack("<Q", len(encoded)) + encoded, body]

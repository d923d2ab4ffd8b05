"""Every failure that a user or a peer can meet, with its stable code and the exit status of the command line.

HDRGenError
├── UsageError               the request is wrong; correct it and ask again        (exit 2)
│   ├── BadInput             a file or frame cannot be used
│   ├── BadParameter         a parameter is unknown, of the wrong type or out of range
│   ├── UnknownPack          no such pack here
│   ├── UnknownColourspace   the config has no such space, role or id
│   └── StorageError         a file or folder cannot be written
├── ProtocolError            the peer sent what the protocol does not allow        (exit 2)
│   ├── InvalidMessage       malformed, out of order, or of the wrong type
│   ├── TooLarge             over a limit; refused before allocation
│   ├── Truncated            the stream ended inside a message
│   └── VersionMismatch      another major version
├── AlreadyRunning           another server holds the address                      (exit 3)
├── Refused                  not allowed                                           (exit 4)
│   ├── LicenceNotAccepted   the pack's licence has not been accepted here
│   └── PermissionRefused    wrong user, token or owner
├── ServerFault              the sidecar could not do it; often worth trying again (exit 5)
│   ├── NoServer             nothing answers at the address
│   ├── ServerTimeout        the server fell silent
│   ├── Busy                 the queue is full; `retry_after_s` says when to come back
│   ├── WorkerDied           the worker process ended during the job, twice
│   ├── WorkerHung           the worker fell silent and was ended
│   ├── OutOfMemory          needed more than was free, on the last rung of the memory ladder
│   └── OperatorFailed       the system raised; the server's log has the rest
└── Cancelled                the user cancelled                                    (exit 130)

It owns names, codes and texts. It must not know sockets, files or Nuke.
"""

from __future__ import annotations

from typing import Any, Dict, Iterator, Type


class HDRGenError(Exception):
    """A failure with a stable `code`, a one-line message that says what to do, and JSON-able `details`."""

    code = "error"
    exit_status = 1

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details: Dict[str, Any] = details


class UsageError(HDRGenError):
    """The request is wrong: correct it and ask again."""

    code = "usage"
    exit_status = 2


class BadInput(UsageError):
    """A file or frame cannot be used."""

    code = "bad_input"


class BadParameter(UsageError):
    """A parameter is unknown, of the wrong type or out of range."""

    code = "bad_parameter"


class UnknownPack(UsageError):
    """No pack of that name is installed."""

    code = "unknown_pack"


class UnknownColourspace(UsageError):
    """The config has no such colourspace, role or interop id."""

    code = "unknown_colourspace"


class StorageError(UsageError):
    """A file or folder cannot be written: full, read-only or missing."""

    code = "storage"


class ProtocolError(HDRGenError):
    """The peer sent what the protocol does not allow."""

    code = "protocol"
    exit_status = 2


class InvalidMessage(ProtocolError):
    """A message is malformed, out of order, or of the wrong type."""

    code = "invalid_message"


class TooLarge(ProtocolError):
    """A message is over a limit; it was refused before allocation."""

    code = "too_large"


class Truncated(ProtocolError):
    """The stream ended inside a message."""

    code = "truncated"


class VersionMismatch(ProtocolError):
    """The peer speaks another major version."""

    code = "version_mismatch"


class AlreadyRunning(HDRGenError):
    """Another server holds the address."""

    code = "already_running"
    exit_status = 3


class Refused(HDRGenError):
    """The request is not allowed."""

    code = "refused"
    exit_status = 4


class LicenceNotAccepted(Refused):
    """The pack's licence has not been accepted here."""

    code = "licence_not_accepted"


class PermissionRefused(Refused):
    """Wrong user, token or owner."""

    code = "permission"


class ServerFault(HDRGenError):
    """The sidecar could not do it."""

    code = "server"
    exit_status = 5


class NoServer(ServerFault):
    """Nothing answers at the address."""

    code = "no_server"


class ServerTimeout(ServerFault):
    """The server fell silent."""

    code = "timeout"


class Busy(ServerFault):
    """The queue is full; `details["retry_after_s"]` says when to come back."""

    code = "busy"


class WorkerDied(ServerFault):
    """The worker process ended during the job, twice."""

    code = "worker_died"


class WorkerHung(ServerFault):
    """The worker fell silent and was ended."""

    code = "worker_hung"


class OutOfMemory(ServerFault):
    """The job needed more memory than was free; `details` has `needed_mib` and `free_mib`."""

    code = "out_of_memory"


class OperatorFailed(ServerFault):
    """The system raised; the server's log has the rest."""

    code = "operator_failed"


class Cancelled(HDRGenError):
    """The user cancelled the job."""

    code = "cancelled"
    exit_status = 130


def _tree(cls: Type[HDRGenError]) -> Iterator[Type[HDRGenError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _tree(child)


CODES: Dict[str, Type[HDRGenError]] = {cls.code: cls for cls in _tree(HDRGenError)}


def from_code(code: str, message: str, details: Dict[str, Any]) -> HDRGenError:
    """The exception for a wire code; a code from a newer peer becomes a plain HDRGenError."""
    error = CODES.get(code, HDRGenError)(message)
    error.details = dict(details)
    return error

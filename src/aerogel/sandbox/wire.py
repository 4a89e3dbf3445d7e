"""Messages between the main process and the helper: a length, JSON, and descriptors passed along.

Standard library only: both sides import it. A frame is 4 bytes little endian, then that many bytes of ASCII JSON
(strings that are not UTF-8 travel as lone surrogates); descriptors ride on the frame's first byte.
"""

from __future__ import annotations

import array
import json
import socket
import struct
from collections.abc import Sequence
from typing import Any

from aerogel.errors import AerogelError

__all__ = ["error_from", "error_to", "receive", "send"]

_MAX_FDS = 64
_MAX_BYTES = 256 << 20


def send(sock: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Sends one message; the descriptors stay open here. Raises OSError when the other side is gone."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    frame = struct.pack("<I", len(body)) + body
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sent = sock.sendmsg([frame], ancillary, socket.MSG_NOSIGNAL)
    if sent < len(frame):
        sock.sendall(memoryview(frame)[sent:], socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and its descriptors (close-on-exec, the caller's), or None at the end."""
    fds = array.array("i")
    size = socket.CMSG_LEN(_MAX_FDS * fds.itemsize)
    try:
        head, ancillary, _, _ = sock.recvmsg(4, size, socket.MSG_WAITALL | socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return None
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    if len(head) < 4:
        return None
    (length,) = struct.unpack("<I", head)
    if length > _MAX_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    body = bytearray(length)
    at = 0
    while at < length:
        got = sock.recv_into(memoryview(body)[at:])
        if not got:
            return None
        at += got
    message: dict[str, Any] = json.loads(body)
    return message, list(fds)


def error_to(error: AerogelError) -> dict[str, Any]:
    """An error as a message part; its span is the main process's business."""
    return {
        "message": error.message,
        "code": error.code,
        "hints": list(error.hints),
        "detail": error.detail,
        "exit_status": error.exit_status,
        "temporary": error.temporary,
    }


def error_from(part: dict[str, Any]) -> AerogelError:
    """The error that `error_to` wrote."""
    return AerogelError(
        part["message"],
        code=part["code"],
        hints=part["hints"],
        detail=part["detail"],
        exit_status=part["exit_status"],
        temporary=part["temporary"],
    )

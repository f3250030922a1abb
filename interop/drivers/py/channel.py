"""/interop/chan/1: messages, each with its length in front as an unsigned varint, on a stream per direction.

That is a channel of Peerage.
"""

import hashlib
import random

import trio

import streams

CHANNEL = "/interop/chan/1"

# Message lengths, over and over: those at which the length in front grows, an empty one, and one of several packets.
LENGTHS = [1, 127, 128, 0, 300, 16_383, 16_384, 70_000]
MAX_MESSAGE = 1 << 20


class Inbox:
    """What came from each peer and was not taken yet."""

    def __init__(self):
        self._queues = {}
        self._news = trio.Event()

    def push(self, peer, message):
        self._queues.setdefault(peer, []).append(message)
        self._news.set()
        self._news = trio.Event()

    async def take(self, peer, messages):
        """Waits until a peer has sent so many messages, and takes them out."""
        queue = self._queues.setdefault(peer, [])
        while len(queue) < messages:
            await self._news.wait()
        taken, queue[:] = queue[:messages], queue[messages:]
        return {**tally(taken), "left": len(queue)}


async def serve(stream, inbox):
    """Takes in what a peer sends until it ends its side. Nothing is sent back."""
    peer, held = stream.muxed_conn.peer_id, b""
    while data := await streams.read_some(stream):
        held += data
        while (cut := first_message(held)) is not None:
            message, held = cut
            inbox.push(peer, message)
    if held:
        raise EOFError(f"the stream ended with {len(held)} bytes of a message")
    await stream.close()


async def send(stream, count):
    """Sends so many random messages and ends our side; the peer must end its own without a byte."""
    messages = [random.randbytes(LENGTHS[index % len(LENGTHS)]) for index in range(count)]
    for message in messages:
        await stream.write(frame(message))
    await stream.close_write()
    await streams.expect_end(stream)
    return {**tally(messages), "left": 0}


def first_message(data):
    """The first whole message of these bytes, and what lies behind it; None when more are needed."""
    length = 0
    for at, byte in enumerate(data):
        length |= (byte & 0x7F) << (7 * at)
        if length > MAX_MESSAGE or at > 3:
            raise ValueError(f"a message of {length} bytes or more was announced")
        if byte < 0x80:
            end = at + 1 + length
            return (data[at + 1 : end], data[end:]) if end <= len(data) else None
    return None


def tally(messages):
    digest = hashlib.sha256(b"".join(map(frame, messages)))
    return {"messages": len(messages), "bytes": sum(map(len, messages)), "sha256": digest.hexdigest()}


def frame(message):
    prefix, length = [], len(message)
    while length >= 0x80:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([*prefix, length]) + message

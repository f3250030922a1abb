"""What the driver does on plain streams: echo and perf, both sides of each."""

import random
import struct
import sys

from libp2p.network.stream.exceptions import StreamEOF
import trio

ECHO = "/interop/echo/1"
PERF = "/perf/1.0.0"

CHUNK = 64 * 1024


def log(text):
    print(text, file=sys.stderr, flush=True)


async def read_some(stream, most=CHUNK):
    """The next bytes of a stream, or none at its end."""
    try:
        return await stream.read(most)
    except StreamEOF:
        return b""


async def read_exactly(stream, size):
    data = bytearray()
    while len(data) < size:
        some = await read_some(stream, size - len(data))
        if not some:
            raise EOFError(f"the stream ended after {len(data)} of {size} bytes")
        data += some
    return bytes(data)


async def using(stream, work, *arguments):
    """Works on a stream and closes it, or resets it after a failure."""
    try:
        result = await work(stream, *arguments)
    except BaseException:
        with trio.CancelScope(shield=True), trio.move_on_after(1):
            await stream.reset()
        raise
    await stream.close()
    return result


async def serve_echo(stream):
    """Echoes what comes, while it comes, until the end of the stream; then finishes."""
    while data := await read_some(stream):
        await stream.write(data)
    await stream.close()


async def echo(stream, size):
    """Sends random bytes and reads their echo at the same time; the echo must be the same bytes, and then end."""
    seed = random.randbytes(16)

    async def send():
        for chunk in random_chunks(seed, size):
            await stream.write(chunk)
        await stream.close_write()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        for chunk in random_chunks(seed, size):
            if await read_exactly(stream, len(chunk)) != chunk:
                raise ValueError("the bytes differ from what was sent")
        await expect_end(stream)


async def serve_perf(stream):
    """Reads how many bytes are wanted, drains the upload to its end, sends them, and finishes."""
    (wanted,) = struct.unpack(">Q", await read_exactly(stream, 8))
    while await read_some(stream):
        pass
    await send_zeros(stream, wanted)
    await stream.close()


async def perf(stream, upload, download):
    """Asks for `download` bytes, sends `upload` bytes, finishes, and counts what comes back."""
    await stream.write(struct.pack(">Q", download))
    await send_zeros(stream, upload)
    await stream.close_write()
    for size in sizes(download):
        await read_exactly(stream, size)
    await expect_end(stream)


async def finish(stream):
    """Ends a stream that carried nothing, and waits a moment for the other side to do so too."""
    await stream.close_write()
    with trio.move_on_after(1):
        while await read_some(stream):
            pass


async def expect_end(stream):
    if await read_some(stream):
        raise ValueError("more bytes came than were asked for")


async def send_zeros(stream, size):
    for length in sizes(size):
        await stream.write(bytes(length))


def random_chunks(seed, size):
    """The same bytes for the same seed."""
    source = random.Random(seed)
    return (source.randbytes(length) for length in sizes(size))


def sizes(total):
    """The lengths of the chunks that make up `total` bytes."""
    return (min(CHUNK, total - start) for start in range(0, total, CHUNK))

"""The commands of the contract, each from its JSON to its JSON answer."""

import time

from libp2p.host.exceptions import StreamFailure
from libp2p.identity.identify_push.identify_push import push_identify_to_peers
from multiaddr import Multiaddr
import trio

import channel
from failure import Failure
from node import explain, peer_of
import streams

PUSHED = "/interop/pushed/1"


async def answer(node, command):
    """Carries out one command within its time and makes its answer."""
    number = command.get("id")
    millis = command.get("timeout_ms", 10_000)
    try:
        with trio.fail_after(millis / 1000):
            return {"id": number, "ok": await carry_out(node, command)}
    except trio.TooSlowError:
        return {"id": number, "error": f"timeout after {millis} ms"}
    except Exception as error:
        return {"id": number, "error": explain(error)}


async def carry_out(node, command):
    do = command.get("do")
    if do is None:
        raise Failure('no command: "do" is missing')
    if do not in COMMANDS:
        raise Failure(f"unknown command {do}")
    return await COMMANDS[do](node, command)


async def dial(node, command):
    address = Multiaddr(field(command, "addr", str))
    peer = address.get_peer_id()
    if peer is None:
        raise Failure("the address does not end in /p2p/ID")
    await node.dial(peer_of(peer), address)
    return {"peer": peer}


async def ping(node, command):
    peer = connected_peer(node, command)
    # The library measures in whole milliseconds.
    trips = await node.pings.ping(peer, command.get("count", 3))
    return {"rtt_us": [1000 * trip for trip in trips]}


async def identify(node, command):
    return await node.known(connected_peer(node, command))


async def identified(node, command):
    protocol = field(command, "protocol", str)
    known = await node.known(connected_peer(node, command), lambda known: protocol in known["protocols"])
    return {"protocols": known["protocols"]}


async def push(node, command):
    node.serve(PUSHED, streams.serve_echo)
    await push_identify_to_peers(node.host)
    return {"protocol": PUSHED}


async def echo(node, command):
    size = field(command, "bytes", int)
    started = time.monotonic()
    stream = await node.host.new_stream(connected_peer(node, command), [field(command, "protocol", str)])
    await streams.using(stream, streams.echo, size)
    return {"bytes": size, "ms": round((time.monotonic() - started) * 1000)}


async def channel_send(node, command):
    count = field(command, "messages", int)
    stream = await node.host.new_stream(connected_peer(node, command), [field(command, "protocol", str)])
    return await streams.using(stream, channel.send, count)


async def channel_take(node, command):
    return await node.inbox.take(peer_of(field(command, "peer", str)), field(command, "messages", int))


async def open_stream(node, command):
    try:
        stream = await node.host.new_stream(connected_peer(node, command), [field(command, "protocol", str)])
    except StreamFailure as failure:
        # The library says in words only whether the peer refused or something broke.
        cause = str(failure.__cause__)
        if "not supported" not in cause:
            raise
        return {"refused": True, "detail": cause}
    await streams.using(stream, streams.finish)
    return {"refused": False}


async def perf(node, command):
    upload, download = field(command, "upload", int), field(command, "download", int)
    started = time.monotonic()
    stream = await node.host.new_stream(connected_peer(node, command), [streams.PERF])
    await streams.using(stream, streams.perf, upload, download)
    return {"uploaded": upload, "downloaded": download, "ms": round((time.monotonic() - started) * 1000)}


async def peers(node, command):
    return {"peers": node.peers()}


async def disconnect(node, command):
    await node.disconnect(connected_peer(node, command))
    return {}


async def kad_known(node, command):
    await kad_of(node).known(peer_of(field(command, "peer", str)))
    return {}


async def kad_find(node, command):
    return await kad_of(node).find(peer_of(field(command, "peer", str)))


async def kad_put(node, command):
    await kad_of(node).put(field(command, "key", str), bytes.fromhex(field(command, "value", str)))
    return {}


async def kad_get(node, command):
    value = await kad_of(node).get(field(command, "key", str))
    return {"value": value.hex()}


async def kad_provide(node, command):
    await kad_of(node).provide(field(command, "key", str))
    return {}


async def kad_providers(node, command):
    return {"providers": await kad_of(node).providers(field(command, "key", str))}


COMMANDS = {
    "dial": dial, "ping": ping, "identify": identify, "identified": identified, "push": push, "echo": echo,
    "open": open_stream, "perf": perf, "peers": peers, "disconnect": disconnect,
    "channel_send": channel_send, "channel_take": channel_take,
    "kad_known": kad_known, "kad_find": kad_find, "kad_put": kad_put, "kad_get": kad_get,
    "kad_provide": kad_provide, "kad_providers": kad_providers,
}


def field(command, name, kind):
    value = command.get(name)
    if not isinstance(value, kind):
        raise Failure(f'"{name}" is missing')
    return value


def kad_of(node):
    if node.kad is None:
        raise Failure("this driver was started without --kad")
    return node.kad


def connected_peer(node, command):
    peer = peer_of(field(command, "peer", str))
    node.connected(peer)
    return peer

"""The host, what identify has told of its peers, and who is connected."""

from contextlib import AsyncExitStack, asynccontextmanager

from libp2p import new_host
from libp2p.abc import INotifee
from libp2p.crypto import ed25519, rsa, secp256k1
from libp2p.crypto.pb.crypto_pb2 import KeyType, PublicKey
from libp2p.host import basic_host
from libp2p.host.ping import PingService
from libp2p.identity.identify_push import identify_push
from libp2p.network.config import RetryConfig
from libp2p.peer.id import ID
from libp2p.tools.anyio_service import background_trio_service
from libp2p.transport.quic.config import QUICTransportConfig
from multiaddr import Multiaddr
import trio

import channel
from failure import Failure
import kad
import repairs
import streams

# The library's ECDSA keys are not encoded as libp2p wants them.
KEYS = {
    "ed25519": ed25519.create_new_key_pair,
    "secp256k1": secp256k1.create_new_key_pair,
    "rsa": rsa.create_new_key_pair,
}


@asynccontextmanager
async def start(key, mode, say):
    """Runs a host that listens on a free port of the loopback address and serves the contract's protocols, and the DHT
    unless its mode is None."""
    repairs.keep_last_bytes()
    host = new_host(
        key_pair=key,
        enable_quic=True,
        enable_tcp=False,
        enable_mDNS=False,
        enable_upnp=False,
        bootstrap=None,
        disable_identify_address_discovery=True,
        # The library drops bytes, silently, that come while its buffer of a stream is full (stock: 2 MiB).
        quic_transport_opt=QUICTransportConfig(MAX_STREAM_RECEIVE_BUFFER=1 << 30),
    )
    driver = Node(host, say)
    async with host.run([Multiaddr("/ip4/127.0.0.1/udp/0/quic-v1")]):
        # It dials peers that it has heard of, to have enough connections: not here.
        await host.get_network().auto_connector.stop()
        host.get_network().retry_config = RetryConfig(max_retries=0)
        driver.serve(streams.ECHO, streams.serve_echo)
        driver.serve(streams.PERF, streams.serve_perf)
        driver.serve(channel.CHANNEL, lambda stream: channel.serve(stream, driver.inbox))
        async with AsyncExitStack() as running:
            if mode is not None:
                dht = kad.service(host, mode)
                await running.enter_async_context(background_trio_service(dht))
                driver.kad = kad.Kad(dht)
            yield driver


class Node:
    def __init__(self, host, say):
        self.host = host
        self.peer = str(host.get_id())
        self.pings = PingService(host)
        self._say = say
        self.inbox = channel.Inbox()
        # None in a node that was started without.
        self.kad = None
        self._connections = {}
        self._identified = {}
        self._changed = trio.Event()
        host.get_network().register_notifee(Watcher(self))
        self._listen_to_identify()

    @property
    def address(self):
        return str(self.host.get_addrs()[0])

    def serve(self, protocol, handle):
        async def serve_one(stream):
            try:
                await handle(stream)
            except Exception as error:
                streams.log(f"{protocol}: {error!r}")
                await stream.reset()

        self.host.set_stream_handler(protocol, serve_one)

    def peers(self):
        return [str(peer) for peer in self._connections]

    def connected(self, peer):
        if peer not in self._connections:
            raise Failure(f"not connected to {peer}")

    async def dial(self, peer, address):
        """Dials this address only, and at once: forgets older ones and the wait after a failed dial."""
        if peer in self._connections:
            return
        network = self.host.get_network()
        try:
            network.peerstore.clear_addrs(peer)
        except Exception:
            pass  # a peer never heard of
        network._negative_peer_cache.evict(str(peer))
        network.peerstore.add_addr(peer, address, 120)
        try:
            await network.dial_peer(peer)
        except Exception as error:
            raise Failure(explain(error)) from error
        await self.until(lambda: peer in self._connections)

    async def disconnect(self, peer):
        await self.host.disconnect(peer)
        await self.until(lambda: peer not in self._connections)

    async def until(self, true):
        while not true():
            await self._changed.wait()

    async def known(self, peer, enough=lambda known: True):
        """Waits until identify has told of the peer what `enough` asks for."""

        def ready():
            self.connected(peer)
            return peer in self._identified and enough(self._identified[peer])

        await self.until(ready)
        return self._identified[peer]

    async def shut_down(self):
        """Closes every connection and the host, and lets the last packets out."""
        with trio.move_on_after(5):
            for peer in list(self._connections):
                await self.host.disconnect(peer)
            await self.host.close()
        await trio.sleep(0.1)

    def on_connected(self, peer, connection):
        connections = self._connections.setdefault(peer, set())
        connections.add(id(connection))
        if len(connections) == 1:
            self._say({"event": "connected", "peer": str(peer)})
        self._wake()

    def on_disconnected(self, peer, connection):
        connections = self._connections.get(peer, set())
        connections.discard(id(connection))
        if connections or peer not in self._connections:
            return
        del self._connections[peer]
        self._identified.pop(peer, None)
        # Otherwise the library takes the peer for identified when it comes back, and does not ask again.
        self.host.get_peerstore().clear_protocol_data(peer)
        self._say({"event": "disconnected", "peer": str(peer)})
        self._wake()

    def _listen_to_identify(self):
        """Keeps what identify and pushes say: the library stores only a part of it."""
        store = basic_host.update_peerstore_from_identify

        async def store_and_keep(peerstore, peer, message):
            await store(peerstore, peer, message)
            self._identified[peer] = merge(self._identified.get(peer), message)
            self._wake()

        basic_host.update_peerstore_from_identify = store_and_keep
        identify_push.update_peerstore_from_identify = store_and_keep

    def _wake(self):
        self._changed.set()
        self._changed = trio.Event()


class Watcher(INotifee):
    """Tells the node of connections that come and go."""

    def __init__(self, node):
        self._node = node

    async def connected(self, network, conn):
        self._node.on_connected(conn.muxed_conn.peer_id, conn)

    async def disconnected(self, network, conn):
        self._node.on_disconnected(conn.muxed_conn.peer_id, conn)

    async def opened_stream(self, network, stream):
        pass

    async def closed_stream(self, network, stream):
        pass

    async def listen(self, network, multiaddr):
        pass

    async def listen_close(self, network, multiaddr):
        pass


def merge(known, message):
    """What is known of a peer after an identify message; a push leaves out what has not changed."""
    known = dict(known or dict.fromkeys(
        ("agent", "protocol_version", "protocols", "listen", "observed", "public_key_type")
    ))
    if message.HasField("agent_version"):
        known["agent"] = message.agent_version
    if message.HasField("protocol_version"):
        known["protocol_version"] = message.protocol_version
    if message.observed_addr:
        known["observed"] = text_of(message.observed_addr)
    if message.HasField("public_key"):
        known["public_key_type"] = KeyType.Name(PublicKey.FromString(message.public_key).key_type).lower()
    if message.protocols or known["protocols"] is None:
        known["protocols"] = list(message.protocols)
    if message.listen_addrs or known["listen"] is None:
        known["listen"] = [text_of(address) for address in message.listen_addrs]
    return known


def text_of(address):
    try:
        return str(Multiaddr(address))
    except Exception:
        return f"not a multiaddr: {address.hex()}"


def explain(error):
    """An error with its causes, which the library wraps several times, mostly repeating them."""
    text = ""
    while error is not None:
        said = str(error) or type(error).__name__
        if said not in text:
            text += f": {said}" if text else said
        inner = getattr(error, "errors", None) or getattr(error, "exceptions", None)
        error = error.__cause__ or (inner[0] if inner else None)
    return text


def peer_of(text):
    return ID.from_string(text)

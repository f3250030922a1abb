"""The DHT: what the library's kad_dht is told to do, and what came of it."""

from libp2p.kad_dht.common import PROTOCOL_ID
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import Validator
import trio

from failure import Failure

# The library's name of the protocol is fixed.
PROTOCOL = str(PROTOCOL_ID)
MODES = {"client": DHTMode.CLIENT, "server": DHTMode.SERVER}
# Values of the contract lie under keys that begin with it, between slashes.
NAMESPACE = "interop"
# How often something that reports no change is looked at.
LOOK_AGAIN = 0.02


class AnyValue(Validator):
    """The validator of the contract's namespace: a value is not empty, and the first one stays."""

    def validate(self, key, value):
        if not value:
            raise ValueError("an empty value")

    def select(self, key, values):
        return 0


def service(host, mode):
    """The service, for a host that is a client or a server of the DHT."""
    dht = KadDHT(host, MODES[mode], strict_validation=True)
    dht.register_validator(NAMESPACE, AnyValue())
    return dht


class Kad:
    """The DHT behind the contract's commands."""

    def __init__(self, dht):
        self._dht = dht

    async def known(self, peer):
        """Has the routing table hold a peer: the library itself admits only those that ask, and those that it hears of.

        It refuses one of which identify has said that it serves no DHT.
        """
        while not await self._dht.add_peer(peer):
            await trio.sleep(LOOK_AGAIN)

    async def find(self, peer):
        found = await self._dht.find_peer(peer)
        if found is None:
            raise Failure(f"{peer} was not found")
        return contact(found)

    async def put(self, key, value):
        # Where it was stored is only logged.
        await self._dht.put_value(key, value)

    async def get(self, key):
        value = await self._dht.get_value(key)
        if value is None:
            raise Failure("no value was found")
        return value

    async def provide(self, key):
        if not await self._dht.provide(key):
            raise Failure("no peer was told")

    async def providers(self, key):
        return [contact(provider) for provider in await self._dht.find_providers(key)]


def contact(info):
    return {"peer": str(info.peer_id), "addrs": [str(address) for address in info.addrs]}

"""Interop driver: a py-libp2p node on quic-v1 that obeys JSON commands on standard input.

The contract that it keeps, the same for every driver, is in ../README.md.

Build: ./build.sh (needs Python 3.10 or newer with venv). Run: ./run.sh [--key ed25519|secp256k1|rsa]
[--kad client|server --kad-protocol /ipfs/kad/1.0.0].
Logs go to standard error; LIBP2P_DEBUG chooses how much.

QUIC (aioquic), multistream, identify with push, ping, and the DHT are the library's own. Its check of certificates accepts what
it should refuse, so it is no judge of TLS identity. Ours are /interop/echo/1 and /perf/1.0.0 in streams.py, and
/interop/chan/1 in channel.py.
"""

import argparse
import json
import os
import sys

import trio

import commands
import kad
import node

# The py-libp2p release in requirements.txt.
VERSION = "0.8.1"


class Output:
    """Standard output, kept for the contract: whatever the library prints goes to standard error."""

    def __init__(self):
        self._file = os.fdopen(os.dup(1), "w", buffering=1)
        os.dup2(2, 1)

    def say(self, line):
        self._file.write(json.dumps(line) + "\n")


async def obey(host, say):
    """Reads commands until the end of input or quit, and runs them side by side."""

    async def run(command):
        say(await commands.answer(host, command))

    async with trio.open_nursery() as nursery:
        # The reading thread is left behind at the end: the process does not wait for its last line.
        while line := await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
            if not line.strip():
                continue
            try:
                command = json.loads(line)
                if not isinstance(command, dict):
                    raise ValueError("no object")
            except ValueError as error:
                say({"id": None, "error": f"not a command: {error}"})
                continue
            if command.get("do") == "quit":
                if command.get("id") is not None:
                    say({"id": command["id"], "ok": {}})
                break
            nursery.start_soon(run, command)
        nursery.cancel_scope.cancel()


async def main():
    parser = argparse.ArgumentParser(description="Interop driver for py-libp2p; see ../README.md")
    parser.add_argument("--key", choices=sorted(node.KEYS), default="ed25519", help="type of the host key")
    parser.add_argument("--kad", choices=sorted(kad.MODES), help="what the node is in the DHT; stock: nothing")
    parser.add_argument("--kad-protocol", default="/interop/kad/1.0.0", help="the DHT's protocol")
    options = parser.parse_args()
    if options.kad and options.kad_protocol != kad.PROTOCOL:
        parser.error(f"the library's DHT speaks {kad.PROTOCOL} and nothing else")
    key = node.KEYS[options.key]()
    say = Output().say
    async with node.start(key, options.kad, say) as host:
        say({
            "event": "listening", "addr": host.address, "peer": host.peer,
            "implementation": "py-libp2p", "version": VERSION,
        })
        await obey(host, say)
        await host.shut_down()
        # The library's background tasks are of no more use, and some of them take long to end.
        os._exit(0)


if __name__ == "__main__":
    trio.run(main)

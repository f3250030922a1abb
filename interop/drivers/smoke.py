#!/usr/bin/env python3
"""Runs the interop drivers against each other: every command of the contract, in both directions.

    python3 smoke.py rust go            both directions of one pair
    python3 smoke.py rust go js py      every pair, each with itself too, and a table at the end
    python3 smoke.py rust:rsa go        one of them with an RSA host key

Build the drivers first (DRIVER/build.sh). Standard library only. Prints PASS, FAIL or N/A with a reason for each
cell and exits 1 when one failed. N/A is what a driver itself answers with "unsupported: ...".
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import secrets
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
ECHO = "/interop/echo/1"
PUSHED = "/interop/pushed/1"
CHANNEL = "/interop/chan/1"
MIB = 1 << 20
# The DHT's protocol: py knows no other than libp2p's own.
KAD, LIBP2P_KAD = "/interop/kad/1.0.0", "/ipfs/kad/1.0.0"
# The ID of an Ed25519 key that nobody here holds.
STRANGER = "12D3KooWFGRuNE3C1WSEEPxCTLKsUt9dedimPHrPWBFs6j8UGtz1"


class Refusal(Exception):
    """The driver answered a command with an error."""


class Driver:
    """One driver process, named NAME or NAME:KEY; its answers and events are collected by a thread."""

    def __init__(self, name, *arguments):
        self.name = name
        name, _, key = name.partition(":")
        self.key = key or "ed25519"
        self.log = tempfile.NamedTemporaryFile("w+", prefix=f"driver-{name}-", suffix=".log")
        command = [str(HERE / name / "run.sh"), "--key", self.key, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True, bufsize=1
        )
        self.news = threading.Condition()
        self.answers, self.events, self.ended = {}, [], False
        self.ids = itertools.count(1)
        threading.Thread(target=self._read, daemon=True).start()
        listening = self.event("listening", timeout=60)
        self.address, self.peer = listening["addr"], listening["peer"]

    def _read(self):
        for line in self.process.stdout:
            with self.news:
                try:
                    message = json.loads(line)
                except ValueError:
                    message = {"event": "garbage", "line": line.rstrip()}
                if "event" in message:
                    self.events.append(message)
                else:
                    self.answers[message["id"]] = message
                self.news.notify_all()
        with self.news:
            self.ended = True
            self.news.notify_all()

    def _wait(self, look, timeout, what):
        with self.news:
            self.news.wait_for(lambda: look() is not None or self.ended, timeout)
            found = look()
        if found is None:
            state = "ended" if self.ended else f"silent for {timeout} s"
            raise Refusal(f"{self.name} {state} while waiting for {what}")
        return found

    def event(self, kind, peer=None, timeout=10):
        """Waits for an event, and takes it out of the list."""

        def look():
            for event in self.events:
                if event["event"] == kind and peer in (None, event.get("peer")):
                    return event

        found = self._wait(look, timeout, f"the event {kind}")
        self.events.remove(found)
        return found

    def send(self, command):
        command = {"id": next(self.ids), **command}
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return command["id"]

    def answer(self, number, timeout=15):
        answer = self._wait(lambda: self.answers.get(number), timeout, f"answer {number}")
        if "error" in answer:
            raise Refusal(answer["error"])
        return answer["ok"]

    def do(self, do, **fields):
        return self.answer(self.send({"do": do, **fields}), fields.get("timeout_ms", 10_000) / 1000 + 5)

    def quit(self):
        self.process.stdin.close()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return "killed: it did not exit after the end of its input"

    def end(self, logs):
        """Kills what has not ended, and prints the log if that is wished."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.log.seek(0)
        log = self.log.read()
        if logs and log:
            print(f"--- log of {self.name}\n{log}---", flush=True)


def require(condition, complaint):
    if not condition:
        raise Refusal(complaint)


def refused(work):
    """The error that `work` must end in."""
    try:
        answer = work()
    except Refusal as refusal:
        require("timeout" not in str(refusal).lower(), f"timed out instead of refusing: {refusal}")
        return str(refusal)
    raise Refusal(f"not refused: {answer}")


def wrong_peer(a, b):
    address = b.address.rsplit("/", 1)[0] + "/" + STRANGER
    refused(lambda: a.do("dial", addr=address))
    peers = a.do("peers")["peers"]
    require(peers == [], f"refused, yet connected to {peers}")
    # A dialler that compares after the handshake was connected for a moment, as the listener sees it.
    time.sleep(0.5)
    deadline = time.monotonic() + 8
    while (peers := b.do("peers")["peers"]) and time.monotonic() < deadline:
        time.sleep(0.1)
    require(peers == [], f"the listener still holds {peers}")


def dial(a, b):
    for one in (a, b):
        with one.news:
            one.events.clear()
    require(a.do("dial", addr=b.address) == {"peer": b.peer}, "another peer was named")
    a.event("connected", b.peer)
    b.event("connected", a.peer)
    require(a.do("peers") == {"peers": [b.peer]}, "dialler: not among the peers")
    require(b.do("peers") == {"peers": [a.peer]}, "listener: not among the peers")


def ping(a, b):
    trips = a.do("ping", peer=b.peer, count=3)["rtt_us"]
    require(len(trips) == 3 and all(0 <= trip < 5_000_000 for trip in trips), f"round trips {trips}")


def identify(a, b):
    info = a.do("identify", peer=b.peer)
    require("/ipfs/ping/1.0.0" in info["protocols"], f"no ping among {info['protocols']}")
    require(ECHO in info["protocols"], f"no echo among {info['protocols']}")
    require(info["agent"], "no agent")
    require(info["public_key_type"] in (None, b.key), f"key type {info['public_key_type']}")
    listen = b.address.split("/p2p/")[0]
    require(any(address.split("/p2p/")[0] == listen for address in info["listen"]), f"listen {info['listen']}")
    observed = a.address.split("/p2p/")[0]
    return None if (info["observed"] or "").split("/p2p/")[0] == observed else f"observed {info['observed']}"


def push(a, b):
    a.do("push")
    b.do("identified", peer=a.peer, protocol=PUSHED)
    b.do("echo", peer=a.peer, protocol=PUSHED, bytes=100)


def echo(a, b, sizes=(0, 1, 100_000, MIB)):
    for size in sizes:
        answer = a.do("echo", peer=b.peer, protocol=ECHO, bytes=size)
        require(answer["bytes"] == size, f"{answer['bytes']} of {size} bytes")


def echoes(a, b):
    """Streams side by side, in both directions."""
    waiting = [
        (one, one.send({"do": "echo", "peer": other.peer, "protocol": ECHO, "bytes": 50_000}))
        for _ in range(16)
        for one, other in ((a, b), (b, a))
    ]
    for one, number in waiting:
        one.answer(number)


def channel(a, b, messages=40):
    """Messages arrive as they were sent, in their order, and no more than those."""
    waiting = b.send({"do": "channel_take", "peer": a.peer, "messages": messages})
    sent = a.do("channel_send", peer=b.peer, protocol=CHANNEL, messages=messages)
    came = b.answer(waiting)
    require(sent["messages"] == messages and sent["bytes"] > 0, f"{sent}")
    require(came == sent, f"sent {sent}, came {came}")
    left = b.do("channel_take", peer=a.peer, messages=0)["left"]
    require(left == 0, f"{left} messages more than were sent")


def unknown_protocol(a, b):
    answer = a.do("open", peer=b.peer, protocol="/interop/none/1")
    require(answer["refused"] is True, f"not refused: {answer}")
    require(a.do("open", peer=b.peer, protocol=ECHO) == {"refused": False}, "a protocol that is served was refused")


def perf(a, b):
    for upload, download in ((0, 0), (1, 100_000), (MIB, MIB)):
        answer = a.do("perf", peer=b.peer, upload=upload, download=download)
        require((answer["uploaded"], answer["downloaded"]) == (upload, download), f"{answer}")


def manners(a, b):
    require("unknown" in refused(lambda: a.do("dance")), "the error does not say that the command is unknown")
    refused(lambda: a.do("ping", peer=STRANGER))
    refused(lambda: a.do("ping"))
    refused(lambda: a.do("dial", addr="nonsense"))
    require(len(a.do("peers")["peers"]) == 1, "the connection is gone")


def disconnect(a, b):
    a.do("disconnect", peer=b.peer)
    a.event("disconnected", b.peer)
    b.event("disconnected", a.peer)
    require(a.do("peers") == b.do("peers") == {"peers": []}, "still among the peers")


def dial_again(a, b):
    dial(a, b)
    echo(a, b, (1000,))


def leave(a, b):
    """The end of input closes the connection, which the other side is told of."""
    code = a.quit()
    require(code == 0, f"exit {code}")
    b.event("disconnected", a.peer)
    code = b.quit()
    require(code == 0, f"listener: exit {code}")


class Kad:
    """The DHT: a listener that serves it, and clients of the dialler's kind. Nothing but the listener can know what they ask for.

    A publisher stores at the listener and stays, as a client that nobody can ask; another client asks the listener.
    """

    def __init__(self, dialler, listener):
        kinds = {name.split(":")[0] for name in (dialler, listener)}
        self.protocol = LIBP2P_KAD if "py" in kinds else KAD
        self.names, self.drivers = (dialler, listener), []

    def start(self):
        self.listener = self._start(self.names[1], "server")
        self.publisher = self._member("client")
        self.client = self._member("client")

    def _start(self, name, mode):
        driver = Driver(name, "--kad", mode, "--kad-protocol", self.protocol)
        self.drivers.append(driver)
        return driver

    def _member(self, mode):
        """A node of the dialler's kind that is connected to the listener and knows it as a server."""
        member = self._start(self.names[0], mode)
        member.do("dial", addr=self.listener.address)
        member.do("kad_known", peer=self.listener.peer)
        return member

    def value(self):
        key, value = f"/interop/any/{secrets.token_hex(8)}", secrets.token_hex(300)
        self.publisher.do("kad_put", key=key, value=value)
        came = self.client.do("kad_get", key=key)
        require(came == {"value": value}, f"another value came: {came}")
        refused(lambda: self.client.do("kad_get", key=key + "-not"))

    def providers(self):
        key = "1220" + hashlib.sha256(secrets.token_bytes(8)).hexdigest()
        self.publisher.do("kad_provide", key=key)
        # It has no answer: the listener may have it a moment later.
        deadline = time.monotonic() + 5
        while not (found := self.client.do("kad_providers", key=key)["providers"]) and time.monotonic() < deadline:
            time.sleep(0.1)
        require(len(found) == 1, f"one provider, but {found} came")
        self._is(found[0], self.publisher)

    def find(self):
        target = self._member("server")
        self.listener.do("kad_known", peer=target.peer)
        self._is(self.client.do("kad_find", peer=target.peer), target)

    @staticmethod
    def _is(contact, driver):
        require(contact["peer"] == driver.peer, f"{driver.peer}, but {contact} came")
        address = driver.address.split("/p2p/")[0]
        require(any(a.split("/p2p/")[0] == address for a in contact["addrs"]), f"no {address} in {contact}")

    def leave(self):
        for driver in reversed(self.drivers):
            code = driver.quit()
            require(code == 0, f"{driver.name}: exit {code}")


# Name of the row, and what is run with the members of a DHT.
KAD_ROWS = [
    ("kad start", Kad.start),
    ("kad value", Kad.value),
    ("kad providers", Kad.providers),
    ("kad find", Kad.find),
    ("kad leave", Kad.leave),
]

# Name of the row, and what is run with the dialler first and the listener second.
ROWS = [
    ("wrong peer", wrong_peer),
    ("dial", dial),
    ("ping", ping),
    ("ping back", lambda a, b: ping(b, a)),
    ("identify", identify),
    ("identify back", lambda a, b: identify(b, a)),
    ("echo", echo),
    ("echo back", lambda a, b: echo(b, a)),
    ("32 echoes", echoes),
    ("channel", channel),
    ("channel back", lambda a, b: channel(b, a)),
    ("unknown protocol", unknown_protocol),
    ("unknown back", lambda a, b: unknown_protocol(b, a)),
    ("push", push),
    ("push back", lambda a, b: push(b, a)),
    ("perf", perf),
    ("perf back", lambda a, b: perf(b, a)),
    ("manners", manners),
    ("disconnect", disconnect),
    ("dial again", dial_again),
    ("leave", leave),
]


def run_row(dialler, listener, row, check):
    """Runs one check: its verdict, and a note."""
    started = time.monotonic()
    try:
        note = check()
        verdict = "PASS"
    except Refusal as refusal:
        note = str(refusal)
        verdict = "N/A" if note.startswith("unsupported:") else "FAIL"
    except Exception as error:  # a driver that died, a field that is not there
        note, verdict = f"{type(error).__name__}: {error}", "FAIL"
    print(f"{verdict:4} {dialler} -> {listener}  {row:16} {time.monotonic() - started:5.2f} s"
          f"{'  ' + note if note else ''}", flush=True)
    return verdict, note


def run_pair(dialler, listener, logs):
    """One dialler against one listener: yields (row, verdict, note)."""
    a, b = Driver(dialler), Driver(listener)
    try:
        for row, check in ROWS:
            verdict, note = run_row(dialler, listener, row, lambda: check(a, b))
            yield row, verdict, note
            if row == "dial" and verdict != "PASS":
                return
        for driver in (a, b):
            garbage = [event["line"] for event in driver.events if event["event"] == "garbage"]
            if garbage:
                print(f"FAIL {driver.name} printed what is not JSON: {garbage[:3]}")
                yield "output", "FAIL", garbage[0]
    finally:
        for driver in (a, b):
            driver.end(logs)


def run_kad(dialler, listener, logs):
    """The DHT of one listener and members of the dialler's kind: yields (row, verdict, note)."""
    kad = Kad(dialler, listener)
    try:
        for row, check in KAD_ROWS:
            verdict, note = run_row(dialler, listener, row, lambda: check(kad))
            yield row, verdict, note
            if row == "kad start" and verdict != "PASS":
                return
    finally:
        for driver in kad.drivers:
            driver.end(logs)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("drivers", nargs="+", metavar="DRIVER[:KEY]")
    parser.add_argument("--logs", action="store_true", help="print what the drivers wrote to standard error")
    parser.add_argument("--kad", action="store_true", help="the rows of the DHT alone")
    arguments = parser.parse_args()
    names = arguments.drivers
    pairs = [tuple(names), tuple(reversed(names))] if len(names) == 2 else list(itertools.product(names, names))

    table = {}
    for pair in dict.fromkeys(pairs):
        rows = [] if arguments.kad else list(run_pair(*pair, arguments.logs))
        table[pair] = rows + list(run_kad(*pair, arguments.logs))

    counts = {"PASS": 0, "FAIL": 0, "N/A": 0}
    print()
    for (dialler, listener), cells in table.items():
        failed = [f"{row}: {note}" for row, verdict, note in cells if verdict != "PASS"]
        for _, verdict, _ in cells:
            counts[verdict] += 1
        print(f"{dialler} -> {listener}: {sum(c[1] == 'PASS' for c in cells)} of {len(cells)}"
              + "".join(f"\n    {line}" for line in failed))
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['N/A']} not applicable")
    return 1 if counts["FAIL"] else 0


if __name__ == "__main__":
    sys.exit(main())

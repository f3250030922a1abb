// The node, and what identify has told of its peers.

import { quic } from '@chainsafe/libp2p-quic'
import { publicKeyFromProtobuf } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { createLibp2p } from 'libp2p'
import { CHANNEL, Inbox, serveChannel } from './channel.js'
import { ECHO, PERF, serve, serveEcho, servePerf } from './streams.js'

// Starts a node that listens on a free port of the loopback address and serves the contract's protocols, with services
// of the library beside those that it always has.
export async function startNode (privateKey, services, say) {
  const libp2p = await createLibp2p({
    privateKey,
    addresses: { listen: ['/ip4/127.0.0.1/udp/0/quic-v1'] },
    // Patient on slow machines; the windows, stream limits and keep-alive stay as they are.
    transports: [quic({ handshakeTimeout: 10_000, maxIdleTimeout: 30_000, ipv6: false })],
    services: {
      identify: identify(),
      identifyPush: identifyPush(),
      // A finished ping counts until the other side has ended its stream too: the stock limit of one stream would make
      // three pings in a row fail now and then.
      ping: ping({ maxOutboundStreams: 16 }),
      ...services
    },
    // Five inbound connections a second per address is no limit for a machine that talks to itself.
    connectionManager: { inboundConnectionThreshold: Infinity },
    // It pings every 10 s by itself, would get in the way of the command, and aborts connections on a slow machine.
    connectionMonitor: { enabled: false }
  })
  const node = new Node(libp2p)
  await serve(libp2p, ECHO, serveEcho)
  await serve(libp2p, PERF, servePerf)
  await serve(libp2p, CHANNEL, (stream, peer) => serveChannel(stream, peer, node.inbox))

  libp2p.addEventListener('peer:connect', ({ detail: peer }) => {
    say({ event: 'connected', peer: peer.toString() })
  })
  libp2p.addEventListener('peer:disconnect', ({ detail: peer }) => {
    node.forget(peer)
    say({ event: 'disconnected', peer: peer.toString() })
  })
  libp2p.addEventListener('peer:identify', ({ detail: said }) => node.learn(said))
  return node
}

class Node {
  constructor (libp2p) {
    this.libp2p = libp2p
    this.identified = new Map()
    this.inbox = new Inbox()
    this.changed = new EventTarget()
  }

  // Keeps what identify or a push said; a push leaves out what has not changed.
  learn (said) {
    const peer = said.peerId.toString()
    const known = this.identified.get(peer) ?? {}
    this.identified.set(peer, {
      agent: said.agentVersion ?? known.agent ?? null,
      protocol_version: said.protocolVersion ?? known.protocol_version ?? null,
      protocols: said.protocols.length > 0 ? said.protocols : known.protocols ?? [],
      listen: said.listenAddrs.length > 0 ? said.listenAddrs.map(String) : known.listen ?? [],
      observed: said.observedAddr?.toString() ?? known.observed ?? null,
      public_key_type: said.publicKey == null
        ? known.public_key_type ?? null
        : publicKeyFromProtobuf(said.publicKey).type.toLowerCase()
    })
    this.changed.dispatchEvent(new Event('change'))
  }

  forget (peer) {
    if (this.libp2p.getConnections(peer).length > 0) return
    this.identified.delete(peer.toString())
    this.changed.dispatchEvent(new Event('change'))
  }

  // Waits until identify has told of the peer what `enough` asks for.
  async known (peer, enough, signal) {
    for (;;) {
      const known = this.identified.get(peer.toString())
      if (known !== undefined && enough(known)) return known
      this.connection(peer)
      await new Promise((resolve, reject) => {
        this.changed.addEventListener('change', resolve, { once: true })
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      })
    }
  }

  // A connection with the peer; the library would dial when there is none.
  connection (peer) {
    const [connection] = this.libp2p.getConnections(peer)
    if (connection === undefined) throw new Error(`not connected to ${peer}`)
    return connection
  }

  // Closes every connection and lets the last packets out.
  async shutDown () {
    const done = (async () => {
      await Promise.allSettled(this.libp2p.getPeers().map(peer => this.libp2p.hangUp(peer)))
      await this.libp2p.stop()
    })()
    await Promise.race([done, new Promise(resolve => setTimeout(resolve, 5000))])
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}

// The commands of the contract, each from its JSON to its JSON answer.

import { multiaddr } from '@multiformats/multiaddr'
import { sendMessages } from './channel.js'
import { number, peerOf, text } from './fields.js'
import { KAD_COMMANDS } from './kad.js'
import { echo, MANY_STREAMS, PERF, perf, readable, serve, serveEcho } from './streams.js'

const PUSHED = '/interop/pushed/1'

// Carries out one command within its time and makes its answer.
export async function answer (node, command) {
  const id = command.id ?? null
  const millis = command.timeout_ms ?? 10_000
  const controller = new AbortController()
  const late = new Error(`timeout after ${millis} ms`)
  const timer = setTimeout(() => controller.abort(late), millis)
  const out = new Promise((resolve, reject) => {
    controller.signal.addEventListener('abort', () => reject(late), { once: true })
  })
  out.catch(() => {})
  try {
    if (typeof command.do !== 'string') throw new Error('no command: "do" is missing')
    if (!Object.hasOwn(COMMANDS, command.do)) throw new Error(`unknown command ${command.do}`)
    return { id, ok: await Promise.race([COMMANDS[command.do](node, command, controller.signal), out]) }
  } catch (error) {
    return { id, error: controller.signal.aborted ? late.message : explain(error) }
  } finally {
    clearTimeout(timer)
  }
}

const COMMANDS = {
  ...KAD_COMMANDS,

  async dial ({ libp2p }, command, signal) {
    const address = multiaddr(text(command, 'addr'))
    if (!address.getComponents().some(({ name }) => name === 'p2p')) throw new Error('the address does not end in /p2p/ID')
    const connection = await libp2p.dial(address, { signal })
    return { peer: connection.remotePeer.toString() }
  },

  async ping (node, command, signal) {
    const peer = peerOf(command)
    const trips = []
    for (let made = 0; made < (command.count ?? 3); made++) {
      node.connection(peer)
      // The library measures in whole milliseconds.
      trips.push(1000 * await node.libp2p.services.ping.ping(peer, { signal }))
    }
    return { rtt_us: trips }
  },

  async identify (node, command, signal) {
    return await node.known(peerOf(command), () => true, signal)
  },

  async identified (node, command, signal) {
    const protocol = text(command, 'protocol')
    const { protocols } = await node.known(peerOf(command), known => known.protocols.includes(protocol), signal)
    return { protocols }
  },

  async push ({ libp2p }) {
    // The library pushes by itself, up to a second after the set of protocols has changed.
    if (!libp2p.getProtocols().includes(PUSHED)) await serve(libp2p, PUSHED, serveEcho)
    else await libp2p.services.identifyPush.push()
    return { protocol: PUSHED }
  },

  async echo (node, command, signal) {
    const bytes = number(command, 'bytes')
    const started = performance.now()
    await withStream(node, peerOf(command), text(command, 'protocol'), signal, stream => echo(stream, bytes))
    return { bytes, ms: Math.round(performance.now() - started) }
  },

  async channel_send (node, command, signal) {
    let sent
    await withStream(node, peerOf(command), text(command, 'protocol'), signal, async stream => {
      sent = await sendMessages(stream, number(command, 'messages'))
    })
    return sent
  },

  async channel_take (node, command, signal) {
    return await node.inbox.take(peerOf(command), number(command, 'messages'), signal)
  },

  async open (node, command, signal) {
    try {
      await withStream(node, peerOf(command), text(command, 'protocol'), signal, async stream => {
        // The peer's end comes after ours; one that keeps its side open has agreed all the same.
        await stream.close()
        const ended = (async () => { for await (const _ of readable(stream)); })()
        await Promise.race([ended.catch(() => {}), new Promise(resolve => setTimeout(resolve, 1000))])
        if (stream.status === 'open') stream.abort(new Error('opened only to see whether it would be'))
      })
      return { refused: false }
    } catch (error) {
      if (error.name !== 'UnsupportedProtocolError') throw error
      return { refused: true, detail: error.message }
    }
  },

  async perf (node, command, signal) {
    const [upload, download] = [number(command, 'upload'), number(command, 'download')]
    const started = performance.now()
    await withStream(node, peerOf(command), PERF, signal, stream => perf(stream, upload, download))
    return { uploaded: upload, downloaded: download, ms: Math.round(performance.now() - started) }
  },

  async peers ({ libp2p }) {
    return { peers: libp2p.getPeers().map(String) }
  },

  async disconnect (node, command, signal) {
    const peer = peerOf(command)
    node.connection(peer)
    await node.libp2p.hangUp(peer, { signal })
    return {}
  }
}

// Opens a stream and works on it; a stream whose work fails, or takes too long, is reset.
async function withStream (node, peer, protocol, signal, work) {
  const stream = await node.connection(peer).newStream(protocol, { signal, maxOutboundStreams: MANY_STREAMS })
  const stop = () => stream.abort(signal.reason)
  signal.addEventListener('abort', stop, { once: true })
  try {
    await work(stream)
  } catch (error) {
    stream.abort(error)
    throw error
  } finally {
    signal.removeEventListener('abort', stop)
  }
}

// The library wraps the causes of a failed dial in one error.
function explain (error) {
  const causes = error.errors?.map(explain) ?? []
  return [error.message || error.name || String(error), ...causes].join(': ')
}

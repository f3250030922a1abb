// The DHT: what the library's kad-dht is told to do, and what came of it.

import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { CID } from 'multiformats/cid'
import { code as raw } from 'multiformats/codecs/raw'
import { decode } from 'multiformats/hashes/digest'
import { peerOf, text } from './fields.js'

// Values of the contract lie under keys that begin with it, between slashes.
const NAMESPACE = 'interop'
// How often the routing table, which tells of no changes to the outside, is looked at.
const LOOK_AGAIN = 20

export const MODES = ['client', 'server']

// The service, for a node that is a client or a server of the DHT under a protocol's whole name.
export function kadService (mode, protocol) {
  return kadDHT({
    protocol,
    clientMode: mode === 'client',
    // Stock: addresses of private networks and loopback are neither told nor believed.
    peerInfoMapper: passthroughMapper,
    // Stock: the first look-up waits until one for the node itself has run, a second after the start.
    allowQueryWithZeroPeers: true,
    validators: {
      [NAMESPACE]: (key, value) => {
        if (value.byteLength === 0) throw new Error('an empty value')
      }
    },
    selectors: { [NAMESPACE]: () => 0 }
  })
}

export const KAD_COMMANDS = {
  // Waits until the routing table holds the peer.
  async kad_known (node, command, signal) {
    const peer = peerOf(command)
    const { routingTable } = service(node)
    while (await routingTable.find(peer) === undefined) {
      signal.throwIfAborted()
      await new Promise(resolve => setTimeout(resolve, LOOK_AGAIN))
    }
    return {}
  },

  async kad_find (node, command, signal) {
    const peer = peerOf(command)
    for await (const event of service(node).findPeer(peer, { signal })) {
      if (event.name === 'FINAL_PEER') return contact(event.peer)
    }
    throw new Error(`${peer} was not found`)
  },

  async kad_put (node, command, signal) {
    const key = new TextEncoder().encode(text(command, 'key'))
    await told(service(node).put(key, Buffer.from(text(command, 'value'), 'hex'), { signal }), 'PUT_VALUE')
    return {}
  },

  async kad_get (node, command, signal) {
    const key = new TextEncoder().encode(text(command, 'key'))
    for await (const event of service(node).get(key, { signal })) {
      if (event.name === 'VALUE') return { value: Buffer.from(event.value).toString('hex') }
    }
    throw new Error('no value was found')
  },

  async kad_provide (node, command, signal) {
    await told(service(node).provide(multihash(command), { signal }), 'ADD_PROVIDER')
    return {}
  },

  async kad_providers (node, command, signal) {
    const providers = new Map()
    for await (const event of service(node).findProviders(multihash(command), { signal })) {
      if (event.name !== 'PROVIDER') continue
      for (const provider of event.providers) providers.set(provider.id.toString(), contact(provider))
    }
    return { providers: [...providers.values()] }
  }
}

function service ({ libp2p }) {
  if (libp2p.services.kad === undefined) throw new Error('this driver was started without --kad')
  return libp2p.services.kad
}

// Lets a store run to its end; an error unless some peer was told.
async function told (events, message) {
  let peers = 0
  const failures = []
  for await (const event of events) {
    if (event.name === 'PEER_RESPONSE' && event.messageName === message) peers++
    if (event.name === 'QUERY_ERROR') failures.push(event.error)
  }
  if (peers === 0) throw new AggregateError(failures, `no peer was told by ${message}`)
}

function contact ({ id, multiaddrs }) {
  return { peer: id.toString(), addrs: multiaddrs.map(String) }
}

// The command's key as the library wants it, which sends the multihash alone.
function multihash (command) {
  return CID.createV1(raw, decode(Buffer.from(text(command, 'key'), 'hex')))
}

// Interop driver: a js-libp2p node on quic-v1 that obeys JSON commands on standard input.
//
// The contract that it keeps, the same for every driver, is in ../README.md.
//
// Build: ./build.sh (needs npm and any Node, which install Node 22). Run: ./run.sh [--key ed25519|secp256k1|rsa]
// [--kad client|server [--kad-protocol NAME]].
// Logs go to standard error; DEBUG='libp2p:*' chooses how much.
//
// Peerage is judged by the library's own multistream, identify with push, ping, and DHT. QUIC and TLS lie in a native
// addon that is quinn and Rust's libp2p-tls. Ours are /interop/echo/1 and /perf/1.0.0 in streams.js, and
// /interop/chan/1 in channel.js.

import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { answer } from './commands.js'
import { kadService, MODES } from './kad.js'
import { startNode } from './node.js'

// The js-libp2p release in package.json.
const VERSION = '3.3.11'

// The library makes ECDSA keys, but no peer ID of one.
const KEYS = { ed25519: 'Ed25519', secp256k1: 'secp256k1', rsa: 'RSA' }

export function say (line) {
  process.stdout.write(JSON.stringify(line) + '\n')
}

function options () {
  try {
    const { values } = parseArgs({
      options: {
        key: { type: 'string', default: 'ed25519' },
        kad: { type: 'string' },
        'kad-protocol': { type: 'string', default: '/interop/kad/1.0.0' }
      }
    })
    if (!Object.hasOwn(KEYS, values.key)) throw new Error(`no key type: ${values.key}`)
    if (values.kad !== undefined && !MODES.includes(values.kad)) throw new Error(`no mode: ${values.kad}`)
    return values
  } catch (error) {
    console.error(`${error.message}\nusage: driver [--key ed25519|secp256k1|rsa] [--kad client|server [--kad-protocol NAME]]`)
    process.exit(2)
  }
}

const { key, kad, 'kad-protocol': protocol } = options()
const services = kad === undefined ? {} : { kad: kadService(kad, protocol) }
const node = await startNode(await generateKeyPair(KEYS[key]), services, say)
say({
  event: 'listening',
  addr: node.libp2p.getMultiaddrs()[0].toString(),
  peer: node.libp2p.peerId.toString(),
  implementation: 'js-libp2p',
  version: VERSION
})

// From here on a failure inside the library must not end the driver.
process.on('unhandledRejection', error => console.error('unhandled:', error))
process.on('uncaughtException', error => console.error('uncaught:', error))

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim() === '') continue
  let command
  try {
    command = JSON.parse(line)
  } catch (error) {
    say({ id: null, error: `not JSON: ${error.message}` })
    continue
  }
  if (command?.do === 'quit') {
    if (command.id != null) say({ id: command.id, ok: {} })
    break
  }
  // Commands run side by side, so that a slow one holds up no other.
  answer(node, command ?? {}).then(say)
}

await node.shutDown()
process.exit(0)

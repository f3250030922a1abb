// What the driver does on plain streams: echo and perf, both sides of each.

import { createCipheriv, randomBytes } from 'node:crypto'

export const ECHO = '/interop/echo/1'
export const PERF = '/perf/1.0.0'
// The library allows 32 inbound and 64 outbound streams per protocol and connection; these protocols are the test's own.
export const MANY_STREAMS = 1024

const CHUNK = 64 * 1024

// Serves a protocol from now on.
export async function serve (libp2p, protocol, handle) {
  const options = { maxInboundStreams: MANY_STREAMS, maxOutboundStreams: MANY_STREAMS }
  await libp2p.handle(protocol, async (stream, connection) => {
    try {
      await handle(stream, connection.remotePeer)
    } catch (error) {
      console.error(`${protocol}: ${error}`)
      stream.abort(error)
    }
  }, options)
}

// The bytes of a stream until its end; throws when it was reset.
//
// The library's own iterator waits for an end that may have come before it began, when the peer sends its last bytes
// together with the negotiation.
export async function * readable (stream) {
  const chunks = []
  let failed
  let wake = () => {}
  const on = {
    message: event => { chunks.push(event.data.subarray()); wake() },
    end: () => wake(),
    remoteCloseWrite: () => wake(),
    close: event => { failed = event.error; wake() }
  }
  for (const [name, listener] of Object.entries(on)) stream.addEventListener(name, listener)
  const ended = () => stream.status !== 'open' ||
    (stream.remoteWriteStatus === 'closed' && stream.readBufferLength === 0)
  try {
    for (;;) {
      while (chunks.length > 0) yield chunks.shift()
      if (failed !== undefined) throw failed
      if (ended()) return
      await new Promise(resolve => { wake = resolve })
    }
  } finally {
    for (const [name, listener] of Object.entries(on)) stream.removeEventListener(name, listener)
  }
}

export async function send (stream, bytes) {
  if (!stream.send(bytes)) await stream.onDrain()
}

// Echoes what comes, while it comes, until the end of the stream; then finishes.
export async function serveEcho (stream) {
  for await (const chunk of readable(stream)) await send(stream, chunk)
  await stream.close()
}

// Sends random bytes and reads their echo at the same time; the echo must be the same bytes, and then end.
export async function echo (stream, size) {
  const seed = randomBytes(16)
  const sending = (async () => {
    for (const chunk of randomChunks(seed, size)) await send(stream, chunk)
    await stream.close()
  })()
  sending.catch(() => {}) // told below, unless reading fails first
  await compare(readable(stream), randomChunks(seed, size))
  await sending
}

async function compare (got, expected) {
  let ours = Buffer.alloc(0)
  for await (let theirs of got) {
    while (theirs.byteLength > 0) {
      if (ours.byteLength === 0) {
        const next = expected.next()
        if (next.done) throw new Error('more bytes came than were sent')
        ours = next.value
      }
      const length = Math.min(ours.byteLength, theirs.byteLength)
      if (ours.subarray(0, length).compare(theirs.subarray(0, length)) !== 0) {
        throw new Error('the bytes differ from what was sent')
      }
      ours = ours.subarray(length)
      theirs = theirs.subarray(length)
    }
  }
  if (ours.byteLength > 0 || !expected.next().done) throw new Error('the echo ended early')
}

// Reads how many bytes are wanted, drains the upload to its end, sends them, and finishes.
export async function servePerf (stream) {
  let head = Buffer.alloc(0)
  for await (const chunk of readable(stream)) {
    if (head.byteLength < 8) head = Buffer.concat([head, chunk])
  }
  if (head.byteLength < 8) throw new Error('the stream ended before the number of bytes wanted')
  await sendZeros(stream, Number(head.readBigUInt64BE(0)))
  await stream.close()
}

// Asks for `download` bytes, sends `upload` bytes, finishes, and counts what comes back.
export async function perf (stream, upload, download) {
  const wanted = Buffer.alloc(8)
  wanted.writeBigUInt64BE(BigInt(download))
  await send(stream, wanted)
  await sendZeros(stream, upload)
  await stream.close()
  let came = 0
  for await (const chunk of readable(stream)) came += chunk.byteLength
  if (came !== download) throw new Error(`${came} bytes came instead of ${download}`)
}

async function sendZeros (stream, size) {
  for (const length of lengths(size)) await send(stream, Buffer.alloc(length))
}

// The same bytes for the same seed.
function * randomChunks (seed, size) {
  const cipher = createCipheriv('aes-128-ctr', seed, Buffer.alloc(16))
  for (const length of lengths(size)) yield cipher.update(Buffer.alloc(length))
}

function * lengths (size) {
  for (let left = size; left > 0; left -= CHUNK) yield Math.min(left, CHUNK)
}

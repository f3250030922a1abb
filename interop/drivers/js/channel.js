// /interop/chan/1: messages, each with its length in front as an unsigned varint, on a stream per direction. That is a channel of Peerage.

import { createHash, randomBytes } from 'node:crypto'
import { readable, send } from './streams.js'

export const CHANNEL = '/interop/chan/1'

// Message lengths, over and over: those at which the length in front grows, an empty one, and one of several packets.
const LENGTHS = [1, 127, 128, 0, 300, 16_383, 16_384, 70_000]
const MAX_MESSAGE = 1 << 20

// What came from each peer and was not taken yet.
export class Inbox {
  #queues = new Map()
  #news = new EventTarget()

  push (peer, message) {
    this.#queue(peer).push(message)
    this.#news.dispatchEvent(new Event('news'))
  }

  // Waits until a peer has sent so many messages, and takes them out.
  async take (peer, messages, signal) {
    const queue = this.#queue(peer)
    while (queue.length < messages) {
      signal.throwIfAborted()
      await new Promise((resolve, reject) => {
        this.#news.addEventListener('news', resolve, { once: true })
        signal.addEventListener('abort', () => reject(signal.reason), { once: true })
      })
    }
    const taken = queue.splice(0, messages)
    return { ...tally(taken), left: queue.length }
  }

  #queue (peer) {
    const key = peer.toString()
    if (!this.#queues.has(key)) this.#queues.set(key, [])
    return this.#queues.get(key)
  }
}

// Takes in what a peer sends until it ends its side. Nothing is sent back.
export async function serveChannel (stream, peer, inbox) {
  let held = Buffer.alloc(0)
  for await (const chunk of readable(stream)) {
    held = Buffer.concat([held, chunk])
    for (let cut; (cut = firstMessage(held)) !== undefined; held = cut.rest) inbox.push(peer, cut.message)
  }
  if (held.byteLength > 0) throw new Error(`the stream ended with ${held.byteLength} bytes of a message`)
  await stream.close()
}

// Sends so many random messages and ends our side; the peer must end its own without a byte.
export async function sendMessages (stream, count) {
  const messages = Array.from({ length: count }, (_, index) => randomBytes(LENGTHS[index % LENGTHS.length]))
  for (const message of messages) await send(stream, frame(message))
  await stream.close()
  let more = 0
  for await (const chunk of readable(stream)) more += chunk.byteLength
  if (more > 0) throw new Error(`${more} bytes came back on the stream of a channel`)
  return { ...tally(messages), left: 0 }
}

// The first whole message of these bytes, and what lies behind it.
function firstMessage (bytes) {
  let length = 0
  let at = 0
  for (;;) {
    if (at === bytes.byteLength) return
    length += (bytes[at] & 0x7f) * 2 ** (7 * at)
    if (length > MAX_MESSAGE || at > 3) throw new Error(`a message of ${length} bytes or more was announced`)
    if (bytes[at++] < 0x80) break
  }
  if (bytes.byteLength < at + length) return
  return { message: bytes.subarray(at, at + length), rest: bytes.subarray(at + length) }
}

function tally (messages) {
  const digest = createHash('sha256')
  for (const message of messages) digest.update(frame(message))
  const bytes = messages.reduce((sum, message) => sum + message.byteLength, 0)
  return { messages: messages.length, bytes, sha256: digest.digest('hex') }
}

function frame (message) {
  const prefix = []
  let length = message.byteLength
  for (; length >= 0x80; length >>>= 7) prefix.push((length & 0x7f) | 0x80)
  return Buffer.concat([Buffer.from([...prefix, length]), message])
}

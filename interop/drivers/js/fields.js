// The fields of a command.

import { peerIdFromString } from '@libp2p/peer-id'

export function text (command, field) {
  if (typeof command[field] !== 'string') throw new Error(`"${field}" is missing`)
  return command[field]
}

export function number (command, field) {
  if (!Number.isSafeInteger(command[field])) throw new Error(`"${field}" is missing`)
  return command[field]
}

export function peerOf (command) {
  return peerIdFromString(text(command, 'peer'))
}

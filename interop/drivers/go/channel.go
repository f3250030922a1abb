package main

import (
	"bufio"
	"context"
	cryptorand "crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
)

const (
	channelProtocol = "/interop/chan/1"
	maxMessage      = 1 << 20
)

// messageLengths are used over and over: those at which the length in front grows, an empty one, and one of several packets.
var messageLengths = []int{1, 127, 128, 0, 300, 16383, 16384, 70000}

// tally is messages in their order: how many, and what they were.
type tally struct {
	messages, bytes, left int
	digest                hash.Hash
}

func (t *tally) add(message []byte) {
	t.messages++
	t.bytes += len(message)
	t.digest.Write(frame(message))
}

func (t *tally) object() object {
	sum := hex.EncodeToString(t.digest.Sum(nil))
	return object{"messages": t.messages, "bytes": t.bytes, "sha256": sum, "left": t.left}
}

// serveChannel takes in what a peer sends until it ends its side. Nothing is sent back.
func (n *node) serveChannel(stream network.Stream) {
	reader, from := bufio.NewReader(stream), stream.Conn().RemotePeer()
	for {
		message, err := readMessage(reader)
		if err == io.EOF {
			_ = stream.Close()
			return
		}
		if err != nil {
			_ = stream.Reset()
			return
		}
		n.update(func() { n.inbox[from] = append(n.inbox[from], message) })
	}
}

func readMessage(reader *bufio.Reader) ([]byte, error) {
	length, err := binary.ReadUvarint(reader)
	if err != nil {
		return nil, err
	}
	if length > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes was announced", length)
	}
	message := make([]byte, length)
	if _, err := io.ReadFull(reader, message); err != nil {
		return nil, errors.Join(io.ErrUnexpectedEOF, err)
	}
	return message, nil
}

// channelTake waits until a peer has sent so many messages, and takes them out.
func (n *node) channelTake(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Messages == nil {
		return nil, missing("messages")
	}
	wanted := *c.Messages
	for {
		n.mu.Lock()
		queue, changed := n.inbox[id], n.changed
		if len(queue) >= wanted {
			n.inbox[id] = queue[wanted:]
		}
		n.mu.Unlock()
		if len(queue) >= wanted {
			taken := tally{digest: sha256.New(), left: len(queue) - wanted}
			for _, message := range queue[:wanted] {
				taken.add(message)
			}
			return taken.object(), nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// channelSend sends so many random messages and ends our side; the peer must end its own without a byte.
func (n *node) channelSend(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Messages == nil || c.Protocol == nil {
		return nil, missing("messages or protocol")
	}
	sent := tally{digest: sha256.New()}
	err := n.withStream(ctx, id, *c.Protocol, func(stream network.Stream) error {
		for i := range *c.Messages {
			message := make([]byte, messageLengths[i%len(messageLengths)])
			_, _ = cryptorand.Read(message) // never fails
			sent.add(message)
			if _, err := stream.Write(frame(message)); err != nil {
				return fmt.Errorf("while sending: %w", err)
			}
		}
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		if err := expectEnd(stream); err != nil {
			return fmt.Errorf("after the last message: %w", err)
		}
		return nil
	})
	return sent.object(), err
}

// frame is a message with its length in front.
func frame(message []byte) []byte {
	return append(binary.AppendUvarint(nil, uint64(len(message))), message...)
}

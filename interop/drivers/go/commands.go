package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multistream"
)

const pushedProtocol = protocol.ID("/interop/pushed/1")

// command is one line of input.
type command struct {
	ID        any     `json:"id"`
	Do        string  `json:"do"`
	TimeoutMS *int64  `json:"timeout_ms"`
	Addr      *string `json:"addr"`
	Peer      *string `json:"peer"`
	Protocol  *string `json:"protocol"`
	Count     *int    `json:"count"`
	Bytes     *uint64 `json:"bytes"`
	Messages  *int    `json:"messages"`
	Upload    *uint64 `json:"upload"`
	Download  *uint64 `json:"download"`
	Key       *string `json:"key"`
	Value     *string `json:"value"`
}

// answer carries out one command within its time and makes its answer.
func (n *node) answer(c command) object {
	millis := or(c.TimeoutMS, 10_000)
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(millis)*time.Millisecond)
	defer cancel()
	carryOut := n.kad
	if !strings.HasPrefix(c.Do, "kad_") {
		// Only dial may dial, and look-ups: without this, opening a stream to a peer that has gone would look for it again.
		ctx = network.WithNoDial(ctx, "drivers dial only when told to")
		carryOut = n.carryOut
	}
	ok, err := carryOut(ctx, c)
	switch {
	case err != nil && ctx.Err() != nil:
		return object{"id": c.ID, "error": fmt.Sprintf("timeout after %d ms", millis)}
	case err != nil:
		return object{"id": c.ID, "error": err.Error()}
	}
	return object{"id": c.ID, "ok": ok}
}

func (n *node) carryOut(ctx context.Context, c command) (object, error) {
	switch c.Do {
	case "dial":
		return n.dial(c)
	case "push":
		// The library pushes by itself when the set of protocols changes.
		n.host.SetStreamHandler(pushedProtocol, serve(serveEcho))
		return object{"protocol": pushedProtocol}, nil
	case "peers":
		return object{"peers": n.peers()}, nil
	case "":
		return nil, errors.New(`no command: "do" is missing`)
	}
	work, known := map[string]func(context.Context, peer.ID, command) (object, error){
		"ping": n.ping, "identify": n.identify, "identified": n.namesProtocol, "echo": n.echo,
		"open": n.open, "perf": n.perf, "disconnect": n.disconnect,
		"channel_send": n.channelSend, "channel_take": n.channelTake,
	}[c.Do]
	if !known {
		return nil, fmt.Errorf("unknown command %s", c.Do)
	}
	id, err := peerOf(c)
	if err != nil {
		return nil, err
	}
	if err := n.connected(id); err != nil {
		return nil, err
	}
	return work(ctx, id, c)
}

func (n *node) dial(c command) (object, error) {
	if c.Addr == nil {
		return nil, missing("addr")
	}
	address, err := multiaddr.NewMultiaddr(*c.Addr)
	if err != nil {
		return nil, err
	}
	info, err := peer.AddrInfoFromP2pAddr(address)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(or(c.TimeoutMS, 10_000))*time.Millisecond)
	defer cancel()
	if n.connected(info.ID) != nil {
		// This address only, and at once: forget older addresses and the wait after a failed dial.
		n.host.Peerstore().ClearAddrs(info.ID)
		n.host.Network().(*swarm.Swarm).Backoff().Clear(info.ID)
	}
	// Connect waits until identify has ended, as go-libp2p does before a first stream.
	if err := n.host.Connect(ctx, *info); err != nil {
		return nil, err
	}
	return object{"peer": info.ID.String()}, nil
}

func (n *node) ping(ctx context.Context, id peer.ID, c command) (object, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	trips := []int64{}
	results := ping.Ping(ctx, n.host, id)
	for len(trips) < or(c.Count, 3) {
		result, open := <-results
		switch {
		case !open:
			return nil, errors.New("the pings ended early")
		case result.Error != nil:
			return nil, result.Error
		}
		trips = append(trips, result.RTT.Microseconds())
	}
	return object{"rtt_us": trips}, nil
}

func (n *node) identify(ctx context.Context, id peer.ID, _ command) (object, error) {
	info, err := n.await(ctx, id, func(event.EvtPeerIdentificationCompleted) bool { return true })
	if err != nil {
		return nil, err
	}
	listen := []string{}
	for _, address := range info.ListenAddrs {
		listen = append(listen, address.String())
	}
	var observed any
	if info.ObservedAddr != nil {
		observed = info.ObservedAddr.String()
	}
	return object{
		"agent": info.AgentVersion, "protocol_version": info.ProtocolVersion,
		"protocols": sorted(info.Protocols), "listen": listen,
		"observed": observed, "public_key_type": n.publicKeyType(id),
	}, nil
}

func (n *node) namesProtocol(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Protocol == nil {
		return nil, missing("protocol")
	}
	info, err := n.await(ctx, id, func(info event.EvtPeerIdentificationCompleted) bool {
		return slices.Contains(info.Protocols, protocol.ID(*c.Protocol))
	})
	if err != nil {
		return nil, err
	}
	return object{"protocols": sorted(info.Protocols)}, nil
}

func (n *node) echo(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Protocol == nil || c.Bytes == nil {
		return nil, missing("protocol or bytes")
	}
	started := time.Now()
	err := n.withStream(ctx, id, *c.Protocol, func(stream network.Stream) error { return echo(stream, *c.Bytes) })
	if err != nil {
		return nil, err
	}
	return object{"bytes": *c.Bytes, "ms": time.Since(started).Milliseconds()}, nil
}

func (n *node) open(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Protocol == nil {
		return nil, missing("protocol")
	}
	err := n.withStream(ctx, id, *c.Protocol, func(stream network.Stream) error {
		// A protocol that identify named is negotiated lazily: only a read tells what the peer said. An end of our side
		// makes the peer end its own, so nothing is left open; a peer that stays silent has agreed all the same.
		if err := stream.CloseWrite(); err != nil {
			return err
		}
		_ = stream.SetReadDeadline(time.Now().Add(time.Second))
		_, err := io.Copy(io.Discard, stream)
		var slow interface{ Timeout() bool }
		if errors.As(err, &slow) && slow.Timeout() {
			return nil
		}
		return err
	})
	var refused multistream.ErrNotSupported[protocol.ID]
	switch {
	case errors.As(err, &refused):
		return object{"refused": true, "detail": refused.Error()}, nil
	case err != nil:
		return nil, err
	}
	return object{"refused": false}, nil
}

func (n *node) perf(ctx context.Context, id peer.ID, c command) (object, error) {
	if c.Upload == nil || c.Download == nil {
		return nil, missing("upload or download")
	}
	started := time.Now()
	err := n.withStream(ctx, id, perfProtocol, func(stream network.Stream) error {
		return perf(stream, *c.Upload, *c.Download)
	})
	if err != nil {
		return nil, err
	}
	return object{"uploaded": *c.Upload, "downloaded": *c.Download, "ms": time.Since(started).Milliseconds()}, nil
}

func (n *node) disconnect(ctx context.Context, id peer.ID, _ command) (object, error) {
	return object{}, n.host.Network().ClosePeer(id)
}

// withStream opens a stream, works on it within the context's time, and closes it, or resets it after an error.
func (n *node) withStream(ctx context.Context, id peer.ID, name string, work func(network.Stream) error) error {
	stream, err := n.host.NewStream(ctx, id, protocol.ID(name))
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = stream.Reset() })
	defer stop()
	if err := work(stream); err != nil {
		_ = stream.Reset()
		return err
	}
	return stream.Close()
}

func (n *node) connected(id peer.ID) error {
	if n.host.Network().Connectedness(id) != network.Connected {
		return fmt.Errorf("not connected to %s", id)
	}
	return nil
}

func (n *node) peers() []string {
	peers := []string{}
	for _, id := range n.host.Network().Peers() {
		peers = append(peers, id.String())
	}
	return peers
}

func sorted(protocols []protocol.ID) []protocol.ID {
	return slices.Sorted(slices.Values(protocols))
}

func missing(field string) error {
	return fmt.Errorf("%s is missing", field)
}

// or is the value that the command gave, or else the default.
func or[T any](given *T, otherwise T) T {
	if given == nil {
		return otherwise
	}
	return *given
}

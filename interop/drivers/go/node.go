package main

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/host/eventbus"
	"github.com/libp2p/go-libp2p/p2p/transport/quic"
)

// node is the host, and what its event bus has told so far.
type node struct {
	host    host.Host
	address string
	events  event.Subscription
	// dht is nil in a node that was started without.
	dht *dht.IpfsDHT

	mu sync.Mutex
	// changed is closed, and made anew, whenever one of those below changes.
	changed    chan struct{}
	identified map[peer.ID]event.EvtPeerIdentificationCompleted
	failed     map[peer.ID]error
	// inbox holds what came on /interop/chan/1 and was not taken yet.
	inbox map[peer.ID][][]byte
}

// startNode starts a host that listens on a free port of the loopback address and serves the contract's protocols, and the DHT if
// kadMode is not empty.
func startNode(key crypto.PrivKey, kadMode, kadProtocol string) (*node, error) {
	h, err := libp2p.New(
		libp2p.Identity(key),
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/udp/0/quic-v1"),
		libp2p.UserAgent("go-libp2p/"+version),
		// Nothing that looks for peers or addresses: no relay, no AutoNAT (a node told that it is reachable does not
		// ask), no guessing of addresses from what peers observe. mDNS, port mapping and hole punching are off unless asked for.
		libp2p.DisableRelay(),
		libp2p.ForceReachabilityPublic(),
		libp2p.DisableIdentifyAddressDiscovery(),
		libp2p.DisableMetrics(),
	)
	if err != nil {
		return nil, err
	}
	events, err := h.EventBus().Subscribe([]any{
		new(event.EvtPeerConnectednessChanged),
		new(event.EvtPeerIdentificationCompleted), // after a push too
		new(event.EvtPeerIdentificationFailed),
	}, eventbus.BufSize(1024))
	if err != nil {
		return nil, err
	}
	n := &node{
		host:       h,
		address:    h.Addrs()[0].String() + "/p2p/" + h.ID().String(),
		events:     events,
		changed:    make(chan struct{}),
		identified: make(map[peer.ID]event.EvtPeerIdentificationCompleted),
		failed:     make(map[peer.ID]error),
		inbox:      make(map[peer.ID][][]byte),
	}
	h.SetStreamHandler(echoProtocol, serve(serveEcho))
	h.SetStreamHandler(perfProtocol, serve(servePerf))
	h.SetStreamHandler(channelProtocol, n.serveChannel)
	go n.follow()
	if kadMode != "" {
		if n.dht, err = startKad(h, kadMode, kadProtocol); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// follow reads the event bus until the host closes.
func (n *node) follow() {
	for happened := range n.events.Out() {
		switch e := happened.(type) {
		case event.EvtPeerConnectednessChanged:
			if e.Connectedness == network.Connected {
				say(object{"event": "connected", "peer": e.Peer.String()})
				continue
			}
			n.update(func() {
				// The bus may be late: what is known from a newer connection stays.
				if known, ok := n.identified[e.Peer]; ok && known.Conn.IsClosed() {
					delete(n.identified, e.Peer)
				}
				delete(n.failed, e.Peer)
			})
			say(object{"event": "disconnected", "peer": e.Peer.String()})
		case event.EvtPeerIdentificationCompleted:
			n.update(func() {
				n.identified[e.Peer] = e
				delete(n.failed, e.Peer)
			})
		case event.EvtPeerIdentificationFailed:
			n.update(func() { n.failed[e.Peer] = e.Reason })
		}
	}
}

func (n *node) update(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
	close(n.changed)
	n.changed = make(chan struct{})
}

// await waits until identify has told of a peer what enough asks for.
func (n *node) await(
	ctx context.Context, id peer.ID, enough func(event.EvtPeerIdentificationCompleted) bool,
) (event.EvtPeerIdentificationCompleted, error) {
	for {
		n.mu.Lock()
		known, ok := n.identified[id]
		failed, changed := n.failed[id], n.changed
		n.mu.Unlock()
		if ok && enough(known) {
			return known, nil
		}
		if !ok && failed != nil {
			return known, failed
		}
		if err := n.connected(id); err != nil {
			return known, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return known, ctx.Err()
		}
	}
}

// shutDown closes every connection and the host, which flushes the closes.
func (n *node) shutDown() {
	for _, id := range n.host.Network().Peers() {
		_ = n.host.Network().ClosePeer(id)
	}
	if n.dht != nil {
		_ = n.dht.Close()
	}
	_ = n.host.Close()
}

// publicKeyType is the type of the key that the peer proved in the handshake, or nil.
func (n *node) publicKeyType(id peer.ID) any {
	key := n.host.Peerstore().PubKey(id)
	if key == nil {
		return nil
	}
	return strings.ToLower(key.Type().String())
}

// serve wraps a handler: the stream is closed when it went well and reset otherwise.
func serve(handle func(io.ReadWriter) error) network.StreamHandler {
	return func(stream network.Stream) {
		if handle(stream) != nil {
			_ = stream.Reset()
			return
		}
		_ = stream.Close()
	}
}

package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multihash"
)

// kadNamespace is where values of the contract lie: their keys begin with it, between slashes.
const kadNamespace = "interop"

// lookAgain is how often the routing table, which tells of no changes to the outside, is looked at.
const lookAgain = 20 * time.Millisecond

// anyValue is the validator of the contract's namespace: a value is not empty, and the first one stays.
type anyValue struct{}

func (anyValue) Validate(_ string, value []byte) error {
	if len(value) == 0 {
		return errors.New("an empty value")
	}
	return nil
}

func (anyValue) Select(string, [][]byte) (int, error) { return 0, nil }

// startKad makes the host a client or a server of the DHT under a protocol's whole name.
func startKad(h host.Host, mode, name string) (*dht.IpfsDHT, error) {
	modes := map[string]dht.ModeOpt{"client": dht.ModeClient, "server": dht.ModeServer}
	number, known := modes[mode]
	if !known {
		return nil, fmt.Errorf("%q is no mode: client or server", mode)
	}
	return dht.New(context.Background(), h,
		dht.Mode(number),
		// Any prefix but /ipfs, which allows no namespaces of one's own; the name on the wire is the other one's.
		dht.ProtocolPrefix("/"+kadNamespace),
		dht.V1ProtocolOverride(protocol.ID(name)),
		dht.NamespacedValidator(kadNamespace, anyValue{}),
		// No look-ups that nobody asked for.
		dht.DisableAutoRefresh(),
	)
}

// kad carries out the commands of the DHT. It may dial peers that it hears of.
func (n *node) kad(ctx context.Context, c command) (object, error) {
	if n.dht == nil {
		return nil, errors.New("this driver was started without --kad")
	}
	switch c.Do {
	case "kad_known":
		return n.kadKnown(ctx, c)
	case "kad_find":
		return n.kadFind(ctx, c)
	case "kad_put":
		return n.kadPut(ctx, c)
	case "kad_get":
		return n.kadGet(ctx, c)
	case "kad_provide":
		key, err := multihashOf(c)
		if err != nil {
			return nil, err
		}
		return object{}, n.dht.Provide(ctx, key, true)
	case "kad_providers":
		return n.kadProviders(ctx, c)
	}
	return nil, fmt.Errorf("unknown command %s", c.Do)
}

// kadKnown waits until the routing table holds a peer.
func (n *node) kadKnown(ctx context.Context, c command) (object, error) {
	id, err := peerOf(c)
	if err != nil {
		return nil, err
	}
	for n.dht.RoutingTable().Find(id) == "" {
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return object{}, nil
}

func (n *node) kadFind(ctx context.Context, c command) (object, error) {
	id, err := peerOf(c)
	if err != nil {
		return nil, err
	}
	found, err := n.dht.FindPeer(ctx, id)
	if err != nil {
		return nil, err
	}
	return contact(found), nil
}

func (n *node) kadPut(ctx context.Context, c command) (object, error) {
	if c.Key == nil || c.Value == nil {
		return nil, missing("key or value")
	}
	value, err := hex.DecodeString(*c.Value)
	if err != nil {
		return nil, err
	}
	return object{}, n.dht.PutValue(ctx, *c.Key, value)
}

func (n *node) kadGet(ctx context.Context, c command) (object, error) {
	if c.Key == nil {
		return nil, missing("key")
	}
	value, err := n.dht.GetValue(ctx, *c.Key)
	if err != nil {
		return nil, err
	}
	return object{"value": hex.EncodeToString(value)}, nil
}

func (n *node) kadProviders(ctx context.Context, c command) (object, error) {
	key, err := multihashOf(c)
	if err != nil {
		return nil, err
	}
	found, err := n.dht.FindProviders(ctx, key)
	if err != nil {
		return nil, err
	}
	providers := []object{}
	for _, provider := range found {
		providers = append(providers, contact(provider))
	}
	return object{"providers": providers}, nil
}

func contact(info peer.AddrInfo) object {
	addrs := []string{}
	for _, address := range info.Addrs {
		addrs = append(addrs, address.String())
	}
	return object{"peer": info.ID.String(), "addrs": addrs}
}

func peerOf(c command) (peer.ID, error) {
	if c.Peer == nil {
		return "", missing("peer")
	}
	return peer.Decode(*c.Peer)
}

// multihashOf is the command's key as the library wants it, which sends the multihash alone.
func multihashOf(c command) (cid.Cid, error) {
	if c.Key == nil {
		return cid.Undef, missing("key")
	}
	hash, err := multihash.FromHexString(*c.Key)
	if err != nil {
		return cid.Undef, err
	}
	return cid.NewCidV1(cid.Raw, hash), nil
}

// Interop driver: a go-libp2p node on quic-v1 that obeys JSON commands on standard input.
//
// The contract that it keeps, the same for every driver, is in ../README.md.
//
// Build: ./build.sh (needs Go 1.25.7 or newer). Run: ./run.sh [--key ed25519|secp256k1|ecdsa|rsa]
// [--kad client|server [--kad-protocol NAME]].
// Logs go to standard error; GOLOG_LOG_LEVEL chooses how much.
//
// Everything that Peerage is judged by is the library's own: QUIC, TLS, multistream, identify with push, ping, and the
// DHT of go-libp2p-kad-dht.
// Ours are /interop/echo/1 and /perf/1.0.0 in streams.go, and /interop/chan/1 in channel.go.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
)

// version is the go-libp2p release in go.mod.
const version = "0.48.0"

type object = map[string]any

var output sync.Mutex

// say prints one line of the contract.
func say(line object) {
	text, err := json.Marshal(line)
	if err != nil {
		panic(err) // maps of strings, numbers and lists always encode
	}
	output.Lock()
	defer output.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func main() {
	kind := flag.String("key", "ed25519", "type of the host key: ed25519, secp256k1, ecdsa or rsa")
	mode := flag.String("kad", "", "what the node is in the DHT: client or server")
	name := flag.String("kad-protocol", "/interop/kad/1.0.0", "the DHT's protocol")
	flag.Parse()
	key, err := makeKey(*kind)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	node, err := startNode(key, *mode, *name)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	say(object{
		"event": "listening", "addr": node.address, "peer": node.host.ID().String(),
		"implementation": "go-libp2p", "version": version,
	})
	obey(node)
	node.shutDown()
}

// obey reads commands until the end of input or quit, and runs them side by side.
func obey(node *node) {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var command command
		if err := json.Unmarshal(lines.Bytes(), &command); err != nil {
			say(object{"id": command.ID, "error": "not a command: " + err.Error()})
			continue
		}
		if command.Do == "quit" {
			if command.ID != nil {
				say(object{"id": command.ID, "ok": object{}})
			}
			return
		}
		go say(node.answer(command))
	}
}

func makeKey(kind string) (crypto.PrivKey, error) {
	kinds := map[string]int{
		"ed25519": crypto.Ed25519, "secp256k1": crypto.Secp256k1, "ecdsa": crypto.ECDSA, "rsa": crypto.RSA,
	}
	number, known := kinds[kind]
	if !known {
		return nil, fmt.Errorf("unknown key type %s", kind)
	}
	key, _, err := crypto.GenerateKeyPair(number, 2048) // the size matters to RSA only
	return key, err
}

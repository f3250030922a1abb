module interop-driver-go

go 1.25

require github.com/libp2p/go-libp2p v0.48.0

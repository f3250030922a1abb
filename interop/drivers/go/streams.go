package main

import (
	"bytes"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/libp2p/go-libp2p/core/network"
)

const (
	echoProtocol = "/interop/echo/1"
	perfProtocol = "/perf/1.0.0"
	chunk        = 64 * 1024
)

// serveEcho sends back what it reads, while it reads, until the end of the stream.
func serveEcho(stream io.ReadWriter) error {
	_, err := io.Copy(stream, stream)
	return err
}

// echo sends random bytes and reads their echo at the same time; the echo must be the same bytes, and then end.
func echo(stream network.Stream, size uint64) error {
	var seed [32]byte
	_, _ = cryptorand.Read(seed[:]) // never fails
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(stream, randomBytes(seed, size))
		sent <- errors.Join(err, stream.CloseWrite())
	}()
	read := compare(stream, randomBytes(seed, size))
	if read != nil {
		_ = stream.Reset() // frees the sender
		return errors.Join(fmt.Errorf("while reading the echo: %w", read), <-sent)
	}
	return <-sent
}

// compare reads both to their ends, which must be the same bytes.
func compare(got, expected io.Reader) error {
	ours, theirs := make([]byte, chunk), make([]byte, chunk)
	for {
		length, err := io.ReadFull(expected, ours)
		if err == io.EOF {
			return expectEnd(got)
		}
		if _, err := io.ReadFull(got, theirs[:length]); err != nil {
			return err
		}
		if !bytes.Equal(ours[:length], theirs[:length]) {
			return errors.New("the bytes differ from what was sent")
		}
	}
}

// servePerf reads how many bytes are wanted, drains the upload to its end, and sends them.
func servePerf(stream io.ReadWriter) error {
	var wanted uint64
	if err := binary.Read(stream, binary.BigEndian, &wanted); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return err
	}
	return sendZeros(stream, wanted)
}

// perf asks for download bytes, sends upload bytes, finishes, and counts what comes back.
func perf(stream network.Stream, upload, download uint64) error {
	if err := binary.Write(stream, binary.BigEndian, download); err != nil {
		return err
	}
	if err := sendZeros(stream, upload); err != nil {
		return fmt.Errorf("while uploading: %w", err)
	}
	if err := stream.CloseWrite(); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, stream, int64(download)); err != nil {
		return fmt.Errorf("while downloading: %w", err)
	}
	return expectEnd(stream)
}

func sendZeros(to io.Writer, size uint64) error {
	zeros := make([]byte, chunk)
	for size > 0 {
		length := min(size, chunk)
		if _, err := to.Write(zeros[:length]); err != nil {
			return err
		}
		size -= length
	}
	return nil
}

func expectEnd(stream io.Reader) error {
	switch length, err := stream.Read(make([]byte, 1)); {
	case length > 0:
		return errors.New("more bytes came than were asked for")
	case err != io.EOF:
		return err
	}
	return nil
}

func randomBytes(seed [32]byte, size uint64) io.Reader {
	return io.LimitReader(rand.NewChaCha8(seed), int64(size))
}

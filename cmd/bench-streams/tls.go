//go:build linux

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// closer is viewers that are open.
type closer interface{ close() }

// opener is how streams of the shape are opened.
func (b *bench) opener(sh shape) func(address string, requests []request) (closer, error) {
	if sh.tls > 0 {
		return func(address string, requests []request) (closer, error) {
			return openTLSViewers(address, requests, sh.tls)
		}
	}
	return func(address string, requests []request) (closer, error) {
		v, err := openViewers(address, requests)
		if err != nil {
			return nil, err
		}
		return v, nil
	}
}

// tlsViewers are streams over HTTP/2 with TLS, some over each connection.
type tlsViewers struct {
	transports []*http.Transport
	cancel     func()
	reading    sync.WaitGroup
}

func openTLSViewers(address string, requests []request, shared int) (_ closer, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	v := &tlsViewers{cancel: cancel}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	for i, one := range requests {
		if i%shared == 0 {
			v.transports = append(v.transports, &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}})
		}
		transport := v.transports[i/shared]
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+one.path, nil)
		if err != nil {
			return nil, err
		}
		r.Header.Set("Authorization", "Bearer "+one.token)
		response, err := transport.RoundTrip(r)
		if err != nil {
			return nil, err
		}
		var text []byte
		for buffer := make([]byte, 4096); !bytes.Contains(text, []byte("\ndata: ")); {
			n, err := response.Body.Read(buffer)
			if err != nil {
				return nil, fmt.Errorf("read stream: %w", err)
			}
			text = append(text, buffer[:n]...)
		}
		v.reading.Go(func() { io.Copy(io.Discard, response.Body) })
	}
	return v, nil
}

func (v *tlsViewers) close() {
	v.cancel()
	v.reading.Wait()
	for _, t := range v.transports {
		t.CloseIdleConnections()
	}
}

// writeCertificate makes a self-signed certificate for 127.0.0.1, in a file with its key.
func writeCertificate(dir string) (file string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return "", err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "certificate.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	return file, os.WriteFile(file, text, 0o600)
}

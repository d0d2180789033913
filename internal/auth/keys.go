package auth

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// Secret is the key of HS256: 32 bytes or more (RFC 7518, section 3.2).
type Secret []byte

func (Secret) algorithms() []string { return []string{"HS256"} }

func (Secret) change() bool { return false }

func (s Secret) key(context.Context, *jwt.Token) (any, error) { return []byte(s), nil }

// Secrets are any of several, while one takes the place of another.
type Secrets []Secret

func (Secrets) algorithms() []string { return Secret{}.algorithms() }

func (Secrets) change() bool { return false }

func (s Secrets) key(context.Context, *jwt.Token) (any, error) {
	var keys jwt.VerificationKeySet
	for _, one := range s {
		keys.Keys = append(keys.Keys, []byte(one))
	}
	return keys, nil
}

// SecretFiles are secrets that may be replaced while we run: those that the function returns count.
type SecretFiles func() Secrets

func (SecretFiles) algorithms() []string { return Secret{}.algorithms() }

func (SecretFiles) change() bool { return true }

func (f SecretFiles) key(ctx context.Context, token *jwt.Token) (any, error) {
	return f().key(ctx, token)
}

// PublicKey is one key of RS256, ES256 or EdDSA.
type PublicKey struct {
	algorithm string
	public    any
}

func (k PublicKey) algorithms() []string { return []string{k.algorithm} }

func (PublicKey) change() bool { return false }

func (k PublicKey) key(context.Context, *jwt.Token) (any, error) { return k.public, nil }

// PublicKeyFile is a public key that may be replaced while we run: the one that the function returns counts.
type PublicKeyFile func() PublicKey

func (f PublicKeyFile) algorithms() []string { return f().algorithms() }

func (PublicKeyFile) change() bool { return true }

func (f PublicKeyFile) key(ctx context.Context, token *jwt.Token) (any, error) {
	return f().key(ctx, token)
}

// leastRSA is what RFC 7518, section 3.3, asks of an RSA key, in bits.
const leastRSA = 2048

// ParsePublicKey reads a public key, or a certificate that holds one, from PEM.
func ParsePublicKey(text []byte) (PublicKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return PublicKey{}, errors.New("there is no PEM in it")
	}
	var public any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			public = certificate.PublicKey
		}
	default:
		return PublicKey{}, fmt.Errorf("it holds a %s, not a PUBLIC KEY (openssl pkey -in private.pem -pubout makes one)", block.Type)
	}
	if err != nil {
		return PublicKey{}, err
	}
	return newPublicKey(public)
}

// newPublicKey says what a key is for, or what is wrong with it.
func newPublicKey(public any) (PublicKey, error) {
	switch key := public.(type) {
	case *rsa.PublicKey:
		if bits := key.N.BitLen(); bits < leastRSA {
			return PublicKey{}, fmt.Errorf("its RSA key has %d bits, and RS256 asks for %d", bits, leastRSA)
		}
		return PublicKey{"RS256", key}, nil
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return PublicKey{}, fmt.Errorf("its key is of curve %s, and ES256 asks for P-256", key.Curve.Params().Name)
		}
		return PublicKey{"ES256", key}, nil
	case ed25519.PublicKey:
		return PublicKey{"EdDSA", key}, nil
	}
	return PublicKey{}, errors.New("its key is neither RSA, nor ECDSA, nor Ed25519")
}

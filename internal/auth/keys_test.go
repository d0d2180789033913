package auth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// pair is a key and the algorithm it is for.
type pair struct {
	method  jwt.SigningMethod
	private crypto.Signer
}

func pairs(t testing.TB) map[string]pair {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]pair{"RS256": {jwt.SigningMethodRS256, r}, "ES256": {jwt.SigningMethodES256, e}, "EdDSA": {jwt.SigningMethodEdDSA, d}}
}

func publicPEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// sign makes a token of Ada's for an hour, with the key's id if it has one.
func sign(t testing.TB, method jwt.SigningMethod, key any, id string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, jwt.MapClaims{"sub": account, "exp": time.Now().Add(time.Hour).Unix()})
	if id != "" {
		token.Header["kid"] = id
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestPublicKeysFromPEM(t *testing.T) {
	all := pairs(t)
	for name, p := range all {
		public := publicPEM(t, p.private)
		key, err := ParsePublicKey(public)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tokens := JWT{Keys: key, Claim: "sub"}
		if v, err := tokens.Authenticate(request("Authorization", "Bearer "+sign(t, p.method, p.private, ""))); err != nil || v.Account != account {
			t.Errorf("%s: viewer %+v, %v", name, v, err)
		}
		for other, q := range all {
			if other != name {
				refuses(t, tokens, name+" is given "+other, sign(t, q.method, q.private, ""))
			}
		}
		// The public key is no secret: a server that takes it for the key of HS256 lets everybody in.
		refuses(t, tokens, name+" as the secret of HS256", sign(t, jwt.SigningMethodHS256, public, ""))
		refuses(t, tokens, name+" and none", sign(t, jwt.SigningMethodNone, jwt.UnsafeAllowNoneSignatureType, ""))
	}
	refuses(t, JWT{Keys: mustParse(t, publicPEM(t, all["RS256"].private)), Claim: "sub"}, "RS512", sign(t, jwt.SigningMethodRS512, all["RS256"].private, ""))
	refuses(t, JWT{Keys: mustParse(t, publicPEM(t, all["RS256"].private)), Claim: "sub"}, "PS256", sign(t, jwt.SigningMethodPS256, all["RS256"].private, ""))
}

func mustParse(t testing.TB, text []byte) PublicKey {
	t.Helper()
	key, err := ParsePublicKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func refuses(t *testing.T, tokens JWT, what, token string) {
	t.Helper()
	if v, err := tokens.Authenticate(request("Authorization", "Bearer "+token)); !errors.Is(err, ErrInvalid) {
		t.Errorf("%s: viewer %+v, %v", what, v, err)
	}
}

func TestPublicKeyFromCertificate(t *testing.T) {
	key := pairs(t)["ES256"].private
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	mustParse(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestKeysThatAreNone(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string][]byte{
		"no PEM":    []byte("garbage"),
		"-pubout":   pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}),
		"P-256":     publicPEM(t, p384),
		"1024 bits": publicPEM(t, short),
		"asn1":      pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
	} {
		if _, err := ParsePublicKey(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %s", err, want)
		}
	}
}

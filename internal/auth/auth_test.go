package auth

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const account = "00000000-0000-4000-8000-00000000000a"

var tokens = JWT{Keys: Secret("a secret of at least thirty-two bytes"), Cookie: "session", Claim: "sub"}

func request(headers ...string) *http.Request {
	r := &http.Request{Header: http.Header{}}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func TestHeaderGoesBeforeCookie(t *testing.T) {
	token, err := tokens.Mint(account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		request *http.Request
		want    error
	}{
		"header":                     {request("Authorization", "Bearer "+token), nil},
		"header, odd spelling":       {request("Authorization", "bearer  "+token+" "), nil},
		"cookie":                     {request("Cookie", "a=b; session="+token), nil},
		"bad header and good cookie": {request("Authorization", "Bearer x", "Cookie", "session="+token), ErrInvalid},
		"nothing":                    {request(), ErrMissing},
		"bearer of nothing":          {request("Authorization", "Bearer"), ErrMissing},
		"bearer of nothing, cookie":  {request("Authorization", "Bearer ", "Cookie", "session="+token), nil},
		"a proxy's password":         {request("Authorization", "Basic eDp5", "Cookie", "session="+token), nil},
		"another cookie":             {request("Cookie", "sid="+token), ErrMissing},
		"empty cookie":               {request("Cookie", "session="), ErrMissing},
	} {
		v, err := tokens.Authenticate(tt.request)
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", name, err, tt.want)
		}
		if tt.want == nil && (v.Account != account || v.Anyone || v.Expires.Before(time.Now())) {
			t.Errorf("%s: viewer %+v", name, v)
		}
	}
}

// What ordinary browsers, proxies and frameworks send.
func TestOneOfSeveralTokensIsEnough(t *testing.T) {
	token, err := tokens.Mint(account, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	many := strings.Repeat("session=x; ", maxTokens)
	for name, tt := range map[string]struct {
		header http.Header
		want   error
	}{
		"the second cookie of the name":  {http.Header{"Cookie": {"session=old; session=" + token}}, nil},
		"the first":                      {http.Header{"Cookie": {"session=" + token + "; session=old"}}, nil},
		"in a second header":             {http.Header{"Cookie": {"session=old", "session=" + token}}, nil},
		"in quotes":                      {http.Header{"Cookie": {`session="` + token + `"`}}, nil},
		"neither":                        {http.Header{"Cookie": {"session=old; session=older"}}, ErrInvalid},
		"after more than are tried":      {http.Header{"Cookie": {many + "session=" + token}}, ErrInvalid},
		"a bearer token after a basic":   {http.Header{"Authorization": {"Basic eDp5", "Bearer " + token}}, nil},
		"a bearer token before a basic":  {http.Header{"Authorization": {"Bearer " + token, "Basic eDp5"}}, nil},
		"the second bearer token":        {http.Header{"Authorization": {"Bearer old", "Bearer " + token}}, nil},
		"a basic one only, and a cookie": {http.Header{"Authorization": {"Basic eDp5"}, "Cookie": {"session=" + token}}, nil},
	} {
		if v, err := tokens.Authenticate(&http.Request{Header: tt.header}); !errors.Is(err, tt.want) || err == nil && v.Account != account {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestClaims(t *testing.T) {
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	for name, tt := range map[string]struct {
		claims  jwt.MapClaims
		account string // "" is refused
	}{
		"a number":                {jwt.MapClaims{"sub": 42}, "42"},
		"a number of many digits": {jwt.MapClaims{"sub": json.Number("9007199254740993")}, "9007199254740993"},
		"a fraction":              {jwt.MapClaims{"sub": 4.2}, ""},
		"an exponent":             {jwt.MapClaims{"sub": json.Number("4e2")}, ""},
		"a list":                  {jwt.MapClaims{"sub": []string{"42"}}, ""},
		"an empty string":         {jwt.MapClaims{"sub": ""}, ""},
		"nbf half a minute ahead": {jwt.MapClaims{"sub": "a", "nbf": at(30 * time.Second)}, "a"},
		"nbf two minutes ahead":   {jwt.MapClaims{"sub": "a", "nbf": at(2 * time.Minute)}, ""},
		"iat half a minute ahead": {jwt.MapClaims{"sub": "a", "iat": at(30 * time.Second)}, "a"},
		"iat two minutes ahead":   {jwt.MapClaims{"sub": "a", "iat": at(2 * time.Minute)}, ""},
		"exp a second ago":        {jwt.MapClaims{"sub": "a", "exp": at(-time.Second)}, ""},
		"exp with a fraction":     {jwt.MapClaims{"sub": "a", "exp": float64(at(time.Hour)) + 0.5}, "a"},
	} {
		if tt.claims["exp"] == nil {
			tt.claims["exp"] = at(time.Hour)
		}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, tt.claims).SignedString([]byte(tokens.Keys.(Secret)))
		if err != nil {
			t.Fatal(err)
		}
		v, err := tokens.Authenticate(request("Authorization", "Bearer "+token))
		if v.Account != tt.account || (err == nil) != (tt.account != "") {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}

func TestSecretThatIsBeingReplaced(t *testing.T) {
	present, previous, other := Secret(strings.Repeat("n", 32)), Secret(strings.Repeat("o", 32)), Secret(strings.Repeat("x", 32))
	both := JWT{Keys: Secrets{present, previous}, Cookie: "session", Claim: "sub"}
	for key, want := range map[string]bool{string(present): true, string(previous): true, string(other): false} {
		token, err := JWT{Keys: Secret(key), Claim: "sub"}.Mint(account, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := both.Authenticate(request("Authorization", "Bearer "+token)); (err == nil) != want {
			t.Errorf("secret %s...: %v", key[:1], err)
		}
	}
}

func TestIssuerAudienceAndClaim(t *testing.T) {
	strict := JWT{Keys: tokens.Keys, Cookie: "session", Claim: "account", Issuer: "app", Audience: "jobs"}
	for want, minter := range map[bool]JWT{true: strict, false: tokens} {
		token, err := minter.Mint(account, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := strict.Authenticate(request("Authorization", "Bearer "+token)); (err == nil && v.Account == account) != want {
			t.Errorf("viewer %+v, %v", v, err)
		}
	}
}

func TestOwns(t *testing.T) {
	for name, tt := range map[string]struct {
		viewer Viewer
		owner  string
		want   bool
	}{
		"owner":               {Viewer{Account: account}, account, true},
		"another":             {Viewer{Account: "x"}, account, false},
		"nobody's job":        {Viewer{Account: account}, "", false},
		"nobody's, by nobody": {Viewer{}, "", false},
		"anyone":              {Viewer{Anyone: true}, "", true},
	} {
		if got := tt.viewer.Owns(tt.owner); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func FuzzCredentials(f *testing.F) {
	// The same in every process that fuzzes.
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": account, "exp": 4102444800}).SignedString([]byte(tokens.Keys.(Secret)))
	if err != nil {
		f.Fatal(err)
	}
	header, payload, _ := strings.Cut(token, ".")
	f.Add("Bearer "+token, "")
	f.Add("", "session="+token)
	f.Add("Bearer eyJhbGciOiJub25lIn0."+payload, "x")
	f.Add("Bearer "+header+"..", "session=a.b.c")
	f.Fuzz(func(t *testing.T, authorization, cookie string) {
		v, err := tokens.Authenticate(request("Authorization", authorization, "Cookie", cookie))
		genuine := strings.Contains(authorization, token) || strings.Contains(cookie, token)
		if err == nil && (!genuine || v.Account != account) {
			t.Errorf("%q, %q make viewer %+v", authorization, cookie, v)
		}
		if err != nil && !errors.Is(err, ErrMissing) && !errors.Is(err, ErrInvalid) {
			t.Errorf("error %v is of no kind", err)
		}
	})
}

// The operator's log says why a token was refused, and never the token.
func TestRefusalsSayWhy(t *testing.T) {
	mint := func(claims jwt.MapClaims, secret string) string {
		t.Helper()
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
		token.Header["kid"] = "key-7"
		text, err := token.SignedString([]byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	const secret = "a secret of at least thirty-two bytes"
	j := JWT{Keys: Secret(secret), Claim: "sub", Issuer: "app", Audience: "jobs"}
	for name, c := range map[string]struct {
		exp, nbf                 time.Duration // from now
		issuer, audience, secret string
		want                     string
	}{
		"expired":       {-12 * time.Second, 0, "app", "jobs", secret, "token is expired: 12s ago"},
		"not yet valid": {15 * time.Minute, 5 * time.Minute, "app", "jobs", secret, "nbf is 5m0s ahead"},
		"audience":      {15 * time.Minute, 0, "app", "mail", secret, `aud is "mail", and not "jobs"`},
		"issuer":        {15 * time.Minute, 0, "other", "jobs", secret, `iss is "other", and not "app"`},
		"signature":     {15 * time.Minute, 0, "app", "jobs", "another secret of thirty-two bytes", `alg "HS256", kid "key-7"`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := httptest.NewRequest(http.MethodGet, "/", nil)
				now := time.Now()
				token := mint(jwt.MapClaims{"exp": now.Add(c.exp).Unix(), "nbf": now.Add(c.nbf).Unix(), "iss": c.issuer, "aud": c.audience, "sub": "ada"}, c.secret)
				r.Header.Set("Authorization", "Bearer "+token)
				_, err := j.Authenticate(r)
				if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("it says %q, and not %q", err, c.want)
				}
				for part := range strings.SplitSeq(token, ".") {
					if strings.Contains(err.Error(), part) {
						t.Errorf("it shows the token: %q", err)
					}
				}
			})
		})
	}
}

package bus

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// sealHead begins a payload that the functions of the database have sealed: {"seal":"<32 digits>",<the rest of the body>.
const (
	sealHead   = `{"seal":"`
	sealDigits = 32
	sealTail   = `",`
)

// sealed tells whether a notification comes from the functions of the database, as jobprogress.seal makes it: whoever
// may connect may notify anything, and hear what others notify and send it again, but not from the same backend.
func sealed(key []byte, n *pgconn.Notification) bool {
	rest, ok := strings.CutPrefix(n.Payload, sealHead)
	if !ok || len(key) == 0 || len(rest) < sealDigits+len(sealTail) || rest[sealDigits:sealDigits+len(sealTail)] != sealTail {
		return false
	}
	seal, body := rest[:sealDigits], "{"+rest[sealDigits+len(sealTail):]
	inner := sha256.Sum256(slices.Concat(key, strconv.AppendUint(nil, uint64(n.PID), 10), []byte(body)))
	outer := sha256.Sum256(slices.Concat(key, inner[:]))
	want := hex.EncodeToString(outer[:])[:sealDigits]
	return subtle.ConstantTimeCompare([]byte(seal), []byte(want)) == 1
}

package job

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"
)

// ID names a job: the id column as text, as PostgreSQL writes it. A job has one ID.
type ID string

// IDType is the type of the id column.
type IDType string

// The types of ids. IDBigint stands for all integers.
const (
	IDUUID   IDType = "uuid"
	IDBigint IDType = "bigint"
	IDText   IDType = "text"
)

// MaxID is the longest ID, in bytes.
const MaxID = 200

// Parse reads an ID. A UUID must be of 36 characters, in any letter case; an integer in decimal, without leading zeros or
// a plus; a text of 1 to MaxID bytes of UTF-8.
func (t IDType) Parse(s string) (ID, error) {
	switch t {
	case IDUUID:
		if id, err := uuid.Parse(s); err == nil && len(s) == 36 {
			return ID(id.String()), nil
		}
		return "", fmt.Errorf("job id %.40q is not a UUID of 36 characters", s)
	case IDBigint:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
			return ID(s), nil
		}
		return "", fmt.Errorf("job id %.40q is not an integer", s)
	case IDText:
		if s != "" && len(s) <= MaxID && utf8.ValidString(s) && !strings.ContainsRune(s, 0) {
			return ID(s), nil
		}
		return "", fmt.Errorf("job id %.40q is not a text of 1 to %d bytes", s, MaxID)
	}
	return "", fmt.Errorf("ids of type %q are not known", string(t))
}

// Bucket is the one that the job is in, as the trigger computes it.
func (t IDType) Bucket(id ID) byte {
	switch t {
	case IDUUID: // the last byte, in hexadecimal
		if len(id) != 36 {
			return 0 // it is of a table before this one
		}
		last, _ := strconv.ParseUint(string(id[34:]), 16, 8)
		return byte(last)
	case IDBigint: // the lowest byte
		n, _ := strconv.ParseInt(string(id), 10, 64)
		return byte(n)
	}
	// The last two characters.
	last, size := utf8.DecodeLastRuneInString(string(id))
	before, size := utf8.DecodeLastRuneInString(string(id[:len(id)-size]))
	if size == 0 {
		before = last
	}
	return byte(37*before + last)
}

// Table is what a server must know of the job table. The zero Table is not known yet.
type Table struct {
	IDType  IDType
	Deleted Deleted
}

// Deleted says what it means that the row of a job is deleted.
type Deleted string

// The meanings of a deletion.
const (
	DeletedGone      Deleted = "gone"      // there is no such job any more
	DeletedCompleted Deleted = "completed" // the job has succeeded, and the queue keeps no rows of those
)

package job

import (
	"math"
	"strconv"
)

// Progress counts the items of a job. All counts are between 0 and MaxCount.
type Progress struct {
	Done      int64 `json:"done"`
	Total     int64 `json:"total"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`

	Message string `json:"message,omitempty"` // what is being done; "" when nothing is said
}

// MaxCount is the largest count: the last integer up to which a browser's numbers are exact.
const MaxCount = 1<<53 - 1

// ParseCount reads a JSON value of the progress column. It never fails: what is missing, or is no integer from 0 to
// MaxCount, counts as 0.
func ParseCount(value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		// 5.0 is the integer 5 to a language with one kind of number.
		f, err := strconv.ParseFloat(value, 64)
		if err != nil || f != math.Trunc(f) || math.Abs(f) > MaxCount {
			return 0
		}
		n = int64(f)
	}
	if n < 0 || n > MaxCount {
		return 0
	}
	return n
}

package job

import (
	"encoding/json"
	"math"
	"strconv"
)

// Progress counts the items of a job. All counts are between 0 and MaxCount.
type Progress struct {
	Done      int64 `json:"done"`
	Total     int64 `json:"total"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
}

// MaxCount is the largest count: the last integer up to which a browser's numbers are exact.
const MaxCount = 1<<53 - 1

// ParseProgress reads the progress column. It never fails: whatever is missing, or is no integer from 0 to MaxCount,
// counts as 0.
func ParseProgress(column []byte) Progress {
	var counts struct{ Done, Total, Succeeded, Failed json.RawMessage }
	if json.Unmarshal(column, &counts) != nil {
		return Progress{}
	}
	return Progress{
		Done:      parseCount(counts.Done),
		Total:     parseCount(counts.Total),
		Succeeded: parseCount(counts.Succeeded),
		Failed:    parseCount(counts.Failed),
	}
}

func parseCount(number json.RawMessage) int64 {
	if len(number) == 0 || number[0] == 'n' { // missing, or null
		return 0
	}
	n, err := strconv.ParseInt(string(number), 10, 64)
	if err != nil {
		// 5.0 is the integer 5 to whoever wrote it from a language with one kind of number.
		f, err := strconv.ParseFloat(string(number), 64)
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

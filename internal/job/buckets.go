package job

// Buckets is a set of buckets; it has a place for each there is.
type Buckets [256]bool

// Len is how many are in the set.
func (b Buckets) Len() (n int) {
	for _, in := range b {
		if in {
			n++
		}
	}
	return n
}

// Without is the set of those that are not in c.
func (b Buckets) Without(c Buckets) Buckets {
	for i := range b {
		b[i] = b[i] && !c[i]
	}
	return b
}

// Complement is the set of all the others.
func (b Buckets) Complement() Buckets {
	for i := range b {
		b[i] = !b[i]
	}
	return b
}

// Union is the set of those that are in either.
func (b Buckets) Union(c Buckets) Buckets {
	for i := range b {
		b[i] = b[i] || c[i]
	}
	return b
}

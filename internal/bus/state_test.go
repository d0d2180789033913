package bus

import "testing"

// Other servers probe, too, and anybody may forge an echo.
func TestEchoIsNotLostAmongThoseOfOthers(t *testing.T) {
	l := newListenState()
	l.echo("mine") // of before
	l.expect("mine")
	l.echo("another server's")
	if l.now().echoed {
		t.Error("another server's echo is taken for ours")
	}
	l.echo("mine")
	l.echo("another server's")
	if !l.now().echoed {
		t.Error("our echo is lost")
	}
	l.expect("the next")
	if l.now().echoed {
		t.Error("an echo counts for the next probe")
	}
}

// Package stream is the streams that are open: it writes to their viewers what the hub shows, until they end. It stands
// between httpapi, which lets viewers in, and the network.
//
// A Set has an event loop for each processor. A loop owns its streams, and is the only one that touches them: what comes
// from elsewhere (a topic that has changed, a viewer that left) is put into its inbox. So a quiet stream is a small record,
// without a goroutine and without a timer.
//
//	watch    a topic that streams of a loop show, with those streams        watch.go
//	source   what a stream shows: one job, or many                          one.go, many.go
//	batch    the bytes that all who stand at one place are sent             batch.go
//	sink     where the bytes go: a socket, or a handler of net/http         socket_linux.go, handler.go
//	wheel    when to look at a stream though nothing has changed            wheel.go
//
// On Linux a stream over HTTP/1.1 without TLS takes its socket over from net/http. Others keep their handler's goroutine,
// which does nothing but write. The rest of the package does not know which it is.
package stream

// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// loadCommand has this program be the server or a client of measurements of networks: the
// same one for all that is compared, so that a root needs nothing but it.
const loadCommand = "load"

// Ports of the server.
const (
	portHTTP   = 8080
	portSink   = 8081 // takes all that is sent, and answers once it was
	portSource = 8082 // sends as many bytes as it is asked for
)

// loadBegins is what a client says before it tries to be answered.
const loadBegins = "begin\n"

// loaded is what a client found out.
type loaded struct {
	Took time.Duration `json:"took"`
	P99  time.Duration `json:"p99,omitempty"` // of a request
	At   time.Time     `json:"at,omitzero"`   // when it was answered
}

// runLoad is this program as one of them. Its arguments are what functions like requestsOf
// return.
func runLoad(args []string) error {
	if len(args) == 1 && args[0] == "serve" {
		return serveLoad()
	}
	numbers := make([]int, 0, len(args))
	for _, a := range args {
		n, _ := strconv.Atoi(a) // those that are no numbers are not used as such
		numbers = append(numbers, n)
	}
	var l loaded
	var err error
	switch {
	case len(args) == 4 && args[0] == "requests":
		l, err = workers(numbers[2], numbers[3], func() (func() error, error) { return requests(args[1]) })
	case len(args) == 4 && args[0] == "connections":
		l, err = workers(numbers[2], numbers[3], func() (func() error, error) {
			return func() error { return connection(args[1], 10*time.Second) }, nil
		})
	case len(args) == 3 && args[0] == "send":
		l.Took, err = send(args[1], numbers[2]<<20)
	case len(args) == 3 && args[0] == "receive":
		l.Took, err = receive(args[1], numbers[2]<<20)
	case len(args) == 5 && args[0] == "names":
		l, err = workers(numbers[3], numbers[4], func() (func() error, error) { return questions(args[1], args[2]) })
	case len(args) == 2 && args[0] == "answer":
		fmt.Print(loadBegins)
		l.At, err = firstAnswer(args[1])
	default:
		err = fmt.Errorf("load: %q: unknown", args)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(l)
}

// What a client is told.
func requestsOf(addr string, atOnce, n int) []string {
	return []string{"requests", addr, strconv.Itoa(atOnce), strconv.Itoa(n)}
}

func connectionsOf(addr string, atOnce, n int) []string {
	return []string{"connections", addr, strconv.Itoa(atOnce), strconv.Itoa(n)}
}

func sendOf(addr string, mib int) []string    { return []string{"send", addr, strconv.Itoa(mib)} }
func receiveOf(addr string, mib int) []string { return []string{"receive", addr, strconv.Itoa(mib)} }
func answerOf(addr string) []string           { return []string{"answer", addr} }

func namesOf(server, name string, atOnce, n int) []string {
	return []string{"names", server, name, strconv.Itoa(atOnce), strconv.Itoa(n)}
}

// workers do something n times, some of them at a time, and say how long all of it took, and
// 99 of 100 at most.
func workers(count, n int, prepare func() (func() error, error)) (loaded, error) {
	var mu sync.Mutex
	var all []time.Duration
	var errs []error
	var wg sync.WaitGroup
	began := time.Now()
	for range count {
		wg.Go(func() {
			var own []time.Duration
			do, err := prepare()
			for i := 0; i < n/count && err == nil; i++ {
				at := time.Now()
				err = do()
				own = append(own, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, own...), append(errs, err)
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := errors.Join(errs...); err != nil || len(all) == 0 {
		return loaded{}, errors.Join(err, fmt.Errorf("%d of %d done", len(all), n))
	}
	slices.Sort(all)
	return loaded{Took: took, P99: all[len(all)*99/100]}, nil
}

// page is what the server answers, of the size of the first page of a web server.
var page = strings.Repeat("0123456789abcdef", 40)

func serveLoad() error {
	var listeners []net.Listener
	for _, port := range []int{portHTTP, portSink, portSource} {
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	go each(listeners[1], takeAll)
	go each(listeners[2], giveAll)
	fmt.Println("up")
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, page) // a client that is gone gets nothing
	})}
	return s.Serve(listeners[0])
}

func each(l net.Listener, do func(net.Conn) error) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if err := do(c); err != nil {
				fmt.Fprintln(os.Stderr, "load:", err)
			}
		}()
	}
}

// bufferOf is what is read and written at a time, of streams.
const bufferOf = 256 << 10

func takeAll(c net.Conn) error {
	b := make([]byte, bufferOf)
	var n uint64
	for {
		k, err := c.Read(b)
		n += uint64(k)
		if errors.Is(err, io.EOF) {
			return binary.Write(c, binary.BigEndian, n)
		}
		if err != nil {
			return err
		}
	}
}

func giveAll(c net.Conn) error {
	var n uint64
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		return err
	}
	return give(c, n)
}

func give(c net.Conn, n uint64) error {
	b := make([]byte, bufferOf)
	for n > 0 {
		k, err := c.Write(b[:min(n, uint64(len(b)))])
		if err != nil {
			return err
		}
		n -= uint64(k)
	}
	return nil
}

func dialLoad(addr string, timeout time.Duration) (*net.TCPConn, error) {
	c, err := net.DialTimeout("tcp", addr, timeout)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(within))
}

// send measures a stream to the sandbox, until that says that it has it.
func send(addr string, n int) (time.Duration, error) {
	c, err := dialLoad(addr, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if err := errors.Join(give(c, uint64(n)), c.CloseWrite()); err != nil {
		return 0, err
	}
	var had uint64
	if err := binary.Read(c, binary.BigEndian, &had); err != nil || had != uint64(n) {
		return 0, errors.Join(err, fmt.Errorf("%d bytes of %d came", had, n))
	}
	return time.Since(began), nil
}

// receive measures one from it.
func receive(addr string, n int) (time.Duration, error) {
	c, err := dialLoad(addr, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began := time.Now()
	if err := binary.Write(c, binary.BigEndian, uint64(n)); err != nil {
		return 0, err
	}
	b, had := make([]byte, bufferOf), 0
	for {
		k, err := c.Read(b)
		if had += k; errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if had != n {
		return 0, fmt.Errorf("%d bytes of %d came", had, n)
	}
	return time.Since(began), nil
}

// ask is one request on a connection that has been made.
func ask(c net.Conn, r *bufio.Reader, header string) error {
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: bench\r\n"+header+"\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || n != int64(len(page))) {
		err = fmt.Errorf("%s, %d bytes", resp.Status, n)
	}
	return err
}

// requests are those on one connection.
func requests(addr string) (func() error, error) {
	c, err := dialLoad(addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	r := bufio.NewReader(c)
	return func() error { return ask(c, r, "") }, nil
}

// connection is a new one with one request.
func connection(addr string, timeout time.Duration) error {
	c, err := dialLoad(addr, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	return ask(c, bufio.NewReader(c), "Connection: close\r\n")
}

// questions are those to a DNS server, on one socket.
func questions(server, name string) (func() error, error) {
	asked, err := dnsmessage.NewName(name)
	if err != nil {
		return nil, err
	}
	c, err := net.Dial("udp", net.JoinHostPort(server, "53"))
	if err != nil {
		return nil, err
	}
	id, b := uint16(0), make([]byte, 1500)
	return func() error {
		id++
		m := dnsmessage.Message{Header: dnsmessage.Header{ID: id, RecursionDesired: true}, Questions: []dnsmessage.Question{{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
		packed, err := m.Pack()
		if err != nil {
			return err
		}
		if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		if _, err := c.Write(packed); err != nil {
			return err
		}
		n, err := c.Read(b)
		if err != nil {
			return err
		}
		var reply dnsmessage.Message
		if err := reply.Unpack(b[:n]); err != nil {
			return err
		}
		if reply.ID != id || reply.RCode != dnsmessage.RCodeSuccess || len(reply.Answers) == 0 {
			return fmt.Errorf("the answer about %s is %s with %d addresses", name, reply.RCode, len(reply.Answers))
		}
		return nil
	}, nil
}

// attemptEvery is how often a connection is tried to a port that nobody answers at yet. An
// attempt takes less than a hundredth of that.
const attemptEvery = 5 * time.Millisecond

// firstAnswer is when a server answered for the first time. Attempts overlap: podman has a
// port of the host open, and accepts nothing there, before it leads to the container.
func firstAnswer(addr string) (time.Time, error) {
	answered := make(chan time.Time, 1)
	tick, end := time.NewTicker(attemptEvery), time.After(time.Minute)
	defer tick.Stop()
	for {
		go func() {
			if connection(addr, 2*time.Second) == nil {
				select {
				case answered <- time.Now():
				default: // another one was faster
				}
			}
		}()
		select {
		case at := <-answered:
			return at, nil
		case <-end:
			return time.Time{}, fmt.Errorf("nobody answers at %s", addr)
		case <-tick.C:
		}
	}
}

// copyLoad puts this program into a root, which may have no library that it would need.
func copyLoad(to string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	f, err := elf.Open(self)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("networks are measured with this program in a sandbox, and it needs libraries of the host: build it with CGO_ENABLED=0")
		}
	}
	data, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

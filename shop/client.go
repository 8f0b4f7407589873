package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// maxRequestID is the bound for a request id of docs/product.md, in bytes.
	maxRequestID = 128
	// maxHeaders bounds the answer's header lines, 1xx answers before it
	// included, in bytes.
	maxHeaders = 64 << 10
	// idleConns is how many connections are kept between calls: more than the
	// calls that one process has in flight, so that none is opened anew.
	idleConns = 256
	// idleTimeout closes an unused connection. Servers do so too, some after
	// 5 s; an order that is written at that moment is in doubt. Closing first
	// avoids that, and in a busy run no connection stays unused for so long.
	idleTimeout = 4 * time.Second
)

// Order is what the shop is asked for.
type Order struct {
	// RequestID is the key of the order at the shop, one path segment: 1 to 128
	// bytes of printable characters without slash, backslash and percent sign,
	// and neither "." nor "..".
	RequestID string
	// CustomerID is the shop's own id of the customer, valid UTF-8.
	CustomerID string
	// SKU is the shop's number of the product.
	SKU int
}

// Client calls the shop's order endpoint. It is safe for concurrent use.
// Close it to give its idle connections back.
type Client struct {
	orders    string // URL of the orders, ending in a slash
	timeout   time.Duration
	echo      []string
	transport *http.Transport
	// header is behind a pointer, and so is the redactor's pattern: if fmt finds a
	// Client in a field on which it may not call methods, it prints an address.
	header   *http.Header
	redactor *redactor
	now      func() time.Time
}

// New checks the configuration and returns a client. It opens no connection.
// An error names the field of Config that is wrong and quotes no value.
func New(config Config) (*Client, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	agent := "drayman"
	if config.Version != "" {
		agent += "/" + config.Version
	}
	return &Client{
		orders:    strings.TrimRight(config.URL, "/") + "/order/",
		timeout:   config.Timeout,
		echo:      slices.Clone(config.Echo),
		transport: newTransport(config.Timeout),
		header: &http.Header{
			"Accept":       {"application/json"},
			"Content-Type": {"application/json"},
			"User-Agent":   {agent},
			"X-Api-Key":    {config.APIKey},
			"X-Api-Secret": {string(config.APISecret)},
		},
		redactor: newRedactor(config.APIKey, string(config.APISecret)),
		now:      time.Now,
	}, nil
}

// newTransport is net/http's, without everything that could send an order twice or to
// another host. HTTP/2 repeats requests by rules of its own (RFC 9113
// §8.7), which trust the server's word about what it has processed.
func newTransport(timeout time.Duration) *http.Transport {
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy: nil, // only cmd reads the environment
		// Dialing may outlive the call that asked for it; so it has its own end.
		DialContext:            (&dialer{net.Dialer{Timeout: timeout}}).dial,
		TLSHandshakeTimeout:    timeout,
		Protocols:              &protocols,
		DisableCompression:     true, // answers are small, and a compressed one may be huge
		MaxIdleConnsPerHost:    idleConns,
		IdleConnTimeout:        idleTimeout,
		MaxResponseHeaderBytes: maxHeaders,
	}
}

// Close closes the idle connections. Calls under way go on.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Redact removes the key and the secret from a text, for logs that other packages
// write.
func (c *Client) Redact(text string) string { return c.redactor.redact(text) }

// Format prints the client's address without its credentials, under each verb.
func (c Client) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, "shop.Client("+c.orders+")") // fmt.State keeps its own errors
}

// LogValue shows the client's address to log/slog.
func (c Client) LogValue() slog.Value { return slog.StringValue("shop.Client(" + c.orders + ")") }

// PlaceOrder asks the shop for one order, once: it never sends a second request
// for it. It returns within Config.Timeout, or soon after ctx ends. The answer says
// what went wrong; see [Answer].
func (c *Client) PlaceOrder(ctx context.Context, order Order) Answer {
	if err := order.sendable(); err != nil {
		return Answer{Outcome: Refused, Detail: c.detail("No order was sent: "+err.Error(), "")}
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var witness witness
	request, err := c.request(witness.watch(ctx), order)
	if err != nil {
		return Answer{Outcome: Refused, Detail: c.detail("No order was sent", err.Error())}
	}
	// RoundTrip and not http.Client, which would read Location and send the
	// headers on.
	response, err := c.transport.RoundTrip(request)
	if err != nil {
		return c.noAnswer(ctx, err, witness.sent())
	}
	defer func() { _ = response.Body.Close() }() // a failure here loses nothing
	if !witness.believes() {
		return c.notAsked(response)
	}
	answer, about := c.answered(ctx, response, order)
	if about != "" {
		witness.hangUp() // what comes next on the connection is another's answer, too
	}
	return answer
}

// sendable refuses request ids that a server, or a proxy before it, may read as
// another path: escaping does not make "a/../b" harmless if a server unescapes it
// first.
func (o Order) sendable() error {
	id := o.RequestID
	switch {
	case id == "", id == ".", id == "..":
		return errors.New("the request id is no path segment")
	case len(id) > maxRequestID:
		return fmt.Errorf("the request id is longer than %d bytes", maxRequestID)
	case !utf8.ValidString(id), strings.ContainsAny(id, `/\%`),
		strings.ContainsFunc(id, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("the request id holds a character that may not stand in a path segment")
	case !utf8.ValidString(o.CustomerID):
		return errors.New("the customer id is not valid UTF-8") // JSON would change it
	}
	return nil
}

// request builds the call. NewRequest knows that the body is in memory: so headers and
// body leave in one write, and net/http can read the body again, for another connection,
// if nothing was written to the first.
func (c *Client) request(ctx context.Context, order Order) (*http.Request, error) {
	data, err := json.Marshal(struct {
		CustomerID string `json:"customer_id"`
		SKU        int    `json:"sku_id"`
	}{order.CustomerID, order.SKU})
	if err != nil {
		return nil, err
	}
	target := c.orders + url.PathEscape(order.RequestID)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target, bytes.NewReader(data))
	if err != nil {
		return nil, errors.New("the URL cannot be built")
	}
	request.Header = c.header.Clone()
	return request, nil
}

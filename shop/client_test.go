package shop

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

func TestOrderIsPlacedAndRepeated(t *testing.T) {
	t.Parallel()
	shop := shoptest.Start(t, shoptest.Options{APIKey: testKey, APISecret: testSecret})
	client := newClient(t, shop.URL, longTime)

	first := client.PlaceOrder(t.Context(), testOrder)
	second := client.PlaceOrder(t.Context(), testOrder)

	requireSound(t, first)
	require.Equal(t, Charged, first.Outcome)
	require.Equal(t, http.StatusCreated, first.HTTPStatus)
	require.Equal(t, "The shop answered 201 Created.", first.Detail)
	require.Equal(t, http.StatusOK, second.HTTPStatus)
	require.JSONEq(t, string(first.Order), string(second.Order))
	orders := shop.Orders()
	require.Len(t, orders, 1)
	require.Contains(t, string(first.Order), orders[0].OrderID)
}

func TestWhatGoesOverTheWire(t *testing.T) {
	t.Parallel()
	var seen *http.Request
	var body string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		seen, body = r.Clone(t.Context()), string(data) //nolint:contextcheck // it outlives the request
		w.WriteHeader(http.StatusCreated)
	}))
	defer server.Close()
	client, err := New(Config{
		URL: server.URL + "/ecomm-mock/", APIKey: testKey, APISecret: testSecret, Timeout: longTime, Version: "1.2.3",
	})
	require.NoError(t, err)
	defer client.Close()

	answer := client.PlaceOrder(t.Context(), Order{RequestID: "a b:c;~é", CustomerID: `cust"1`, SKU: 9})

	require.Equal(t, Charged, answer.Outcome)
	require.Nil(t, answer.Order)
	require.Equal(t, http.MethodPost, seen.Method)
	require.Equal(t, "/ecomm-mock/order/a%20b:c%3B~%C3%A9", seen.RequestURI)
	require.JSONEq(t, `{"customer_id":"cust\"1","sku_id":9}`, body)
	require.Equal(t, int64(len(body)), seen.ContentLength)
	want := http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"drayman/1.2.3"},
		"X-Api-Key": {testKey}, "X-Api-Secret": {testSecret}, "Content-Length": {fmt.Sprint(len(body))},
	}
	require.Equal(t, want, seen.Header)
}

func TestUnsendableOrdersNeverLeave(t *testing.T) {
	t.Parallel()
	shop := startRaw(t, func(c *rawConn) { c.request() })
	client := newClient(t, shop.url, longTime)
	ids := []string{
		"", ".", "..", "a/b", "../x", `a\b`, "%2e%2e", "a\x00b", "a\r\nx: y", "\xff", "a\u202eb", strings.Repeat("a", 129),
	}
	for _, id := range ids {
		answer := client.PlaceOrder(t.Context(), Order{RequestID: id, CustomerID: "c", SKU: 1})
		requireSound(t, answer)
		require.Equal(t, Refused, answer.Outcome, "%q", id)
		require.False(t, answer.Doubt)
	}
	answer := client.PlaceOrder(t.Context(), Order{RequestID: "ok", CustomerID: "\xff", SKU: 1})
	require.Equal(t, Refused, answer.Outcome)
	require.Zero(t, shop.conns.Load())
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	statuses := []int{200, 201, 302, 401, 404, 409, 422, 429, 500, 503}
	var calls atomic.Int64
	shop := startRaw(t, func(c *rawConn) {
		for c.request() {
			c.answer(statuses[int(calls.Add(1))%len(statuses)], strings.Repeat(" ", 16<<10))
		}
	})
	client := newClient(t, shop.url, longTime)
	for range 200 {
		client.PlaceOrder(t.Context(), testOrder)
	}
	require.Equal(t, int64(200), shop.requests.Load())
	// net/http gives a connection back a moment after the body's end was read,
	// so that a call now and then opens another one.
	require.LessOrEqual(t, shop.conns.Load(), int64(5))
}

func TestManyCallsAtOnce(t *testing.T) {
	t.Parallel()
	shop := shoptest.Start(t, shoptest.Options{})
	client := newClient(t, shop.URL, longTime)
	var wg sync.WaitGroup
	for worker := range 64 {
		wg.Go(func() {
			for i := range 20 {
				order := Order{RequestID: fmt.Sprintf("r-%d-%d", worker, i), CustomerID: "c", SKU: 1}
				assert.Equal(t, Charged, client.PlaceOrder(t.Context(), order).Outcome)
			}
		})
	}
	wg.Wait()
	require.Len(t, shop.Orders(), 64*20)
	require.Len(t, shop.Calls(), 64*20)
}

func TestTLSWithoutHTTP2(t *testing.T) {
	t.Parallel()
	var protocol atomic.Int64
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		protocol.Store(int64(r.ProtoMajor))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	client := newClient(t, server.URL, longTime)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	client.transport.TLSClientConfig = &tls.Config{RootCAs: pool}

	answer := client.PlaceOrder(t.Context(), testOrder)

	require.Equal(t, Charged, answer.Outcome, answer.Detail)
	require.Equal(t, int64(1), protocol.Load())
}

func TestProxyOfTheEnvironmentIsNotUsed(t *testing.T) {
	proxy := startRaw(t, func(c *rawConn) { c.request() })
	t.Setenv("HTTP_PROXY", proxy.url)
	client := newClient(t, "http://shop.example", longTime)
	client.transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.DNSError{Err: "no such host", Name: "shop.example", IsNotFound: true}
	}
	answer := client.PlaceOrder(t.Context(), testOrder)
	require.Contains(t, answer.Detail, "shop.example")
	require.Zero(t, proxy.conns.Load())
}

func TestAnswerAsJSON(t *testing.T) {
	t.Parallel()
	answer := Answer{
		Outcome: Declined, HTTPStatus: 402, Order: json.RawMessage(`{"a":1}`), Detail: "d", RetryAfter: 5, Doubt: true,
	}
	data, err := json.Marshal(answer)
	require.NoError(t, err)
	require.JSONEq(t, `{"outcome":"declined","http_status":402,"order":{"a":1},"detail":"d","retry_after_ns":5,"doubt":true}`, string(data))
	var back Answer
	require.NoError(t, json.Unmarshal(data, &back))
	require.Equal(t, answer, back)

	data, err = json.Marshal(Answer{Outcome: NotNow})
	require.NoError(t, err)
	require.JSONEq(t, `{"outcome":"not_now","http_status":0,"detail":""}`, string(data))
}

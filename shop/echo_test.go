package shop

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

var bothEchoes = []string{EchoRequestID, EchoCustomerID}

func newEchoClient(t testing.TB, url string, fields ...string) *Client {
	t.Helper()
	client, err := New(Config{URL: url, APIKey: testKey, APISecret: testSecret, Timeout: longTime, Echo: fields})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// with answers the same bytes to each order, in memory.
func with(t testing.TB, fields []string, order Order, status int, body string) Answer {
	t.Helper()
	client := newEchoClient(t, "http://shop.example", fields...)
	answer, _ := client.overPipe(t, order, fmt.Sprintf("HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: %d\r\n\r\n%s", status, len(body), body))
	return answer
}

func TestEcho_SameOrder(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	for name, c := range map[string]struct {
		customer, body string
	}{
		"both":                        {"anna", `{"request_id":"r-1","customer_id":"anna"}`},
		"none":                        {"anna", `{"order_id":"4711"}`},
		"null":                        {"anna", `{"request_id":null,"customer_id":null}`},
		"written with escapes":        {"anna", `{"customer\u005fid":"\u0061nna"}`},
		"twice, and both agree":       {"anna", `{"customer_id":"anna","customer_id":"anna"}`},
		"a number":                    {"42", `{"customer_id":42}`},
		"a number, written otherwise": {"42", `{"customer_id":42.0}`},
		"a large number":              {"12345678901234567890", `{"customer_id":12345678901234567890}`},
		"an id that looks like JSON":  {`"x"`, `{"customer_id":"\"x\""}`},
		"another name's case":         {"anna", `{"Customer_ID":"bert","REQUEST_ID":"x"}`},
		"another deeper down":         {"anna", `{"order":{"request_id":"x","customer_id":"bert"},"all":[{"customer_id":"bert"}]}`},
		"a list":                      {"anna", `[{"customer_id":"bert"}]`},
		"a text":                      {"anna", `"customer_id"`},
		"no JSON":                     {"anna", `{"customer_id":"bert"`},
		"something follows":           {"anna", `{"customer_id":"bert"}{}`},
		"not UTF-8":                   {"anna", "{\"customer_id\":\"bert\xff\"}"},
		"nothing":                     {"anna", ``},
		"too large":                   {"anna", `{"customer_id":"bert","x":"` + strings.Repeat("x", maxOrder) + `"}`},
		"too deep to be kept":         {"anna", `{"customer_id":"anna","x":` + deep + `}`},
		"composed":                    {"jos\u00e9", `{"customer_id":"jos\u00e9"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			order := Order{RequestID: "r-1", CustomerID: c.customer, SKU: 1}
			answer := with(t, bothEchoes, order, 201, c.body)
			requireSound(t, answer)
			require.Equal(t, Charged, answer.Outcome, answer.Detail)
			require.Equal(t, Declined, with(t, bothEchoes, order, 402, c.body).Outcome)
		})
	}
}

func TestEcho_AnotherOrderIsNoVerdict(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		customer, body string
	}{
		"another customer":             {"anna", `{"request_id":"r-1","customer_id":"bert"}`},
		"another request":              {"anna", `{"request_id":"r-2","customer_id":"anna"}`},
		"another case":                 {"anna", `{"request_id":"R-1"}`},
		"an empty text":                {"anna", `{"customer_id":""}`},
		"a space more":                 {"anna", `{"customer_id":"anna "}`},
		"decomposed":                   {"jos\u00e9", `{"customer_id":"jose\u0301"}`},
		"twice, the first is another":  {"anna", `{"customer_id":"bert","customer_id":"anna"}`},
		"twice, the second is another": {"anna", `{"customer_id":"anna","customer_id":"bert"}`},
		"another number":               {"42", `{"customer_id":43}`},
		"a number with zeros before":   {"042", `{"customer_id":42}`},
		"a number for a text":          {"anna", `{"customer_id":42}`},
		"a number without end":         {"1e999", `{"customer_id":2e999}`},
		"numbers that round alike":     {"12345678901234567890", `{"customer_id":12345678901234567000}`},
		"a boolean":                    {"true", `{"customer_id":true}`},
		"a list":                       {"anna", `{"customer_id":["anna"]}`},
		"an object":                    {"anna", `{"customer_id":{"id":"anna"}}`},
		"an id in quotes":              {`"x"`, `{"customer_id":"x"}`},
		"among much else":              {"anna", `{"a":[{"customer_id":"anna"}],"request_id":"r-1","b":{},"customer_id":"bert","c":1}`},
		"too deep to be kept":          {"anna", `{"x":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `,"customer_id":"bert"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			order := Order{RequestID: "r-1", CustomerID: c.customer, SKU: 1}
			for status, want := range map[int]Outcome{200: NotNow, 201: NotNow, 402: NotNow, 422: NotNow, 429: NotNow, 503: NotNow, 401: Refused, 307: Refused} {
				answer := with(t, bothEchoes, order, status, c.body)
				requireSound(t, answer)
				require.Equal(t, want, answer.Outcome, answer.Detail)
				require.True(t, answer.Doubt, "%d: of this order nothing is known", status)
				require.Contains(t, answer.Detail, "about another order: asked for ")
				require.Equal(t, status, answer.HTTPStatus)
				require.Equal(t, 7*time.Second, answer.RetryAfter)
			}
			require.Equal(t, Charged, with(t, nil, order, 200, c.body).Outcome, "nobody asked for a comparison")
		})
	}
}

func TestEcho_OnlyTheNamedFields(t *testing.T) {
	t.Parallel()
	body := `{"request_id":"trace-77","customer_id":"anna"}`
	order := Order{RequestID: "r-1", CustomerID: "anna", SKU: 1}
	require.Equal(t, Charged, with(t, []string{EchoCustomerID}, order, 200, body).Outcome)
	require.Equal(t, NotNow, with(t, []string{EchoRequestID}, order, 200, body).Outcome)
}

// The sentence names what was asked and answered, and keeps no secret.
func TestEcho_DetailIsRedactedAndCut(t *testing.T) {
	t.Parallel()
	order := Order{RequestID: "r-1", CustomerID: testSecret, SKU: 1}
	for name, body := range map[string]string{
		"asked":    `{"customer_id":"bert"}`,
		"answered": `{"request_id":"https://git.example/drayman"}`,
		"long":     `{"request_id":"` + strings.Repeat("y", 10_000) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answer := with(t, bothEchoes, order, 200, body)
			requireSound(t, answer)
			require.Contains(t, answer.Detail, "about another order")
		})
	}
	answer := with(t, bothEchoes, testOrder, 200, `{"customer_id":"bert"}`)
	require.Equal(t, `The shop answered 200 OK about another order: asked for customer_id "customer-1", answered "bert"`, answer.Detail)
}

// Given a second answer that comes when the next order is on its way: the orders
// after it get one another's answers. The first that names another order ends it,
// and the connection with it.
func TestEcho_TheConnectionIsClosed(t *testing.T) {
	t.Parallel()
	shop := startRaw(t, func(c *rawConn) {
		for n := 0; c.request(); n++ {
			if c.number > 1 {
				c.answer(201, fmt.Sprintf(`{"request_id":%q}`, strings.TrimPrefix(c.path, "/order/")))
				continue
			}
			c.answer(201, fmt.Sprintf(`{"request_id":"r-%d"}`, n)) // one behind
		}
	})
	client := newEchoClient(t, shop.url, bothEchoes...)
	order := func(n int) Answer {
		return client.PlaceOrder(t.Context(), Order{RequestID: fmt.Sprintf("r-%d", n), CustomerID: "c", SKU: 1})
	}
	require.Equal(t, Charged, order(0).Outcome)
	require.Equal(t, Charged, order(1).Outcome)

	answer := order(3)

	require.Equal(t, NotNow, answer.Outcome)
	require.True(t, answer.Doubt)
	require.Equal(t, int64(1), shop.conns.Load())
	require.Equal(t, Charged, order(3).Outcome, "asked again, on a connection of its own")
	require.Equal(t, int64(2), shop.conns.Load())
	require.Equal(t, int64(4), shop.requests.Load())
}

func TestParseEcho(t *testing.T) {
	t.Parallel()
	for list, want := range map[string][]string{
		"request_id,customer_id": bothEchoes, " customer_id ": {EchoCustomerID}, "customer_id, request_id": {EchoCustomerID, EchoRequestID},
		"": nil, "none": nil, " none ": nil,
	} {
		fields, err := ParseEcho(list)
		require.NoError(t, err, list)
		require.Equal(t, want, fields)
	}
	for _, bad := range []string{"both", "none,customer_id", "customer_id,", ",", "Customer_ID", "customer_id;request_id", "sku_id"} {
		_, err := ParseEcho(bad)
		require.ErrorContains(t, err, "request_id, customer_id, both or none", bad)
	}
	_, err := New(Config{URL: "http://shop.example", APIKey: "k", APISecret: "s", Timeout: longTime, Echo: []string{"sku_id"}})
	require.ErrorContains(t, err, "Echo")
}

// Given a shop that sends a second answer after each right one, of another order:
// it is never taken for the next order's.
func TestEcho_LateSecondAnswers(t *testing.T) {
	t.Parallel()
	shop := shoptest.Start(t, shoptest.Options{})
	shop.SetFaults(shoptest.Fault{Extra: `{"order_id":"LATE","request_id":"another","customer_id":"another"}`})
	client := newEchoClient(t, shop.URL, bothEchoes...)
	wrong := 0
	next := time.NewTicker(2 * time.Millisecond) // when the second answer comes
	defer next.Stop()
	for n := range 200 {
		<-next.C
		order := Order{RequestID: fmt.Sprintf("r-%d", n), CustomerID: fmt.Sprintf("c-%d", n), SKU: 1}
		answer := client.PlaceOrder(t.Context(), order)
		requireSound(t, answer)
		if answer.Outcome != Charged {
			require.True(t, answer.Doubt, answer.Detail)
			wrong++
			continue
		}
		require.Contains(t, string(answer.Order), `"request_id":"`+order.RequestID+`"`)
	}
	t.Logf("%d of 200 orders in doubt", wrong)
}

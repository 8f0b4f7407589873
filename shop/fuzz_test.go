package shop

import (
	"io"
	"log"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzAnswer feeds raw bytes as the shop's answer. Whatever they are, the answer
// is sound, has no credential, and the request left once.
func FuzzAnswer(f *testing.F) {
	log.SetOutput(io.Discard) // net/http reports bytes that nobody asked for
	for _, seed := range []string{
		"", "\r\n", "HTTP/1.1 200 OK\r\n\r\n", whole(`{"id":1}`), whole(testSecret), whole(`{"a":"` + testKey + `"}`),
		"HTTP/1.1 302 Found\r\nLocation: /" + testSecret + "\r\n\r\n",
		"HTTP/1.1 503 X\r\nRetry-After: 99999999999999999999\r\nContent-Length: 3\r\n\r\n\xff\xfe\x00",
		"HTTP/1.1 429 X\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\nDate: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 000 X\r\n\r\n", "HTTP/1.1 999 X\r\n\r\n",
		whole(`{"a":"\u0073\u0033cret \u003c\"\/\\\u0026+%\u003e 9"}`), whole(`"\ud800\u0000"`), whole("[[[[1e999999]]]]"),
	} {
		f.Add([]byte(seed))
	}
	client := newClient(f, "http://shop.example", longTime)
	f.Fuzz(func(t *testing.T, text []byte) {
		answer, requests := client.overPipe(t, string(text))
		requireSound(t, answer)
		require.NotContains(t, answer.Detail, "the time for the call was over", "the shop hung up, so nothing is waited for")
		require.Equal(t, 1, requests)
	})
}

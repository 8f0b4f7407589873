package cmd_test

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
)

// onShop puts a proxy before the shop and returns its URL. It lets one order
// through at a time, so that orders that go out together have numbers.
func (c *crash) onShop(t *testing.T, shop http.Handler) string {
	t.Helper()
	var one sync.Mutex
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		one.Lock()
		defer one.Unlock()
		if !c.at(before, "order") {
			panic(http.ErrAbortHandler)
		}
		answer := httptest.NewRecorder()
		shop.ServeHTTP(answer, r)
		if !c.at(after, "order") {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), answer.Header())
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the worker may be gone
	}))
	t.Cleanup(server.Close)
	return server.URL
}

package shoptest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const body1 = `{"customer_id":"c-1","sku_id":1}`

// call is one call of the order endpoint, with good headers.
func call(t testing.TB, s *Server, requestID, body string) (status int, answer map[string]any) {
	t.Helper()
	response, err := send(t, s, requestID, body)
	require.NoError(t, err)
	return response.StatusCode, decoded(t, response)
}

func send(t testing.TB, s *Server, requestID, body string) (*http.Response, error) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/order/"+requestID, strings.NewReader(body))
	require.NoError(t, err)
	request.Header.Set("X-Api-Key", "key")
	request.Header.Set("X-Api-Secret", "secret")
	return client(t).Do(request)
}

// client follows no redirects and leaves no connections behind.
func client(t testing.TB) *http.Client {
	t.Helper()
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		Timeout:       20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func decoded(t testing.TB, response *http.Response) (answer map[string]any) {
	t.Helper()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	_ = json.Unmarshal(data, &answer) // nil where it is none
	return answer
}

// control calls the other endpoints and decodes the answer into out.
func control(t testing.TB, s *Server, method, path, body string, out any) (status int) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	require.NoError(t, err)
	response, err := client(t).Do(request)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	data, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	if out != nil {
		require.NoError(t, json.Unmarshal(data, out), string(data))
	}
	return response.StatusCode
}

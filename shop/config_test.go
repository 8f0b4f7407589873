package shop

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	good := Config{URL: "https://shop.example/mock", APIKey: testKey, APISecret: testSecret, Timeout: time.Second}
	_, err := New(good)
	require.NoError(t, err)

	cases := map[string]struct {
		change func(c *Config)
		field  string
	}{
		"no URL":                {func(c *Config) { c.URL = "" }, "URL"},
		"relative URL":          {func(c *Config) { c.URL = "/order" }, "URL"},
		"no scheme":             {func(c *Config) { c.URL = "shop.example" }, "URL"},
		"other scheme":          {func(c *Config) { c.URL = "ftp://shop.example" }, "URL"},
		"opaque":                {func(c *Config) { c.URL = "http:shop.example" }, "URL"},
		"no host":               {func(c *Config) { c.URL = "http:///order" }, "URL"},
		"port only":             {func(c *Config) { c.URL = "http://:80" }, "URL"},
		"broken URL":            {func(c *Config) { c.URL = "http://" + testSecret }, "URL"},
		"query":                 {func(c *Config) { c.URL += "?a=b" }, "URL"},
		"empty query":           {func(c *Config) { c.URL += "?" }, "URL"},
		"fragment":              {func(c *Config) { c.URL += "#a" }, "URL"},
		"empty fragment":        {func(c *Config) { c.URL += "#" }, "URL"},
		"user":                  {func(c *Config) { c.URL = "http://me:s3cret@shop.example" }, "URL"},
		"no key":                {func(c *Config) { c.APIKey = "" }, "APIKey"},
		"key with line end":     {func(c *Config) { c.APIKey = "a\nx: y" }, "APIKey"},
		"no secret":             {func(c *Config) { c.APISecret = "" }, "APISecret"},
		"secret with line end":  {func(c *Config) { c.APISecret = "s3cret\n" }, "APISecret"},
		"secret with space":     {func(c *Config) { c.APISecret = " s3cret" }, "APISecret"},
		"secret with NUL":       {func(c *Config) { c.APISecret = "s3cret\x00x" }, "APISecret"},
		"secret not ASCII":      {func(c *Config) { c.APISecret = "s3crét" }, "APISecret"},
		"secret of great size":  {func(c *Config) { c.APISecret = Secret(strings.Repeat("s", 4097)) }, "APISecret"},
		"no timeout":            {func(c *Config) { c.Timeout = 0 }, "Timeout"},
		"negative timeout":      {func(c *Config) { c.Timeout = -1 }, "Timeout"},
		"version with line end": {func(c *Config) { c.Version = "1\r\n" }, "Version"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config := good
			c.change(&config)
			_, err := New(config)
			require.ErrorContains(t, err, "shop: "+c.field+": ")
			require.NotContains(t, err.Error(), "s3cr")
		})
	}
}

func TestTheSecretIsNotPrinted(t *testing.T) {
	t.Parallel()
	config := Config{URL: "https://shop.example", APIKey: "key", APISecret: "s3cret", Timeout: time.Second}
	client, err := New(config)
	require.NoError(t, err)
	hidden := struct{ client *Client }{client}
	for name, value := range map[string]any{
		"secret": config.APISecret, "config": config, "config pointer": &config, "in a list": []Config{config},
		"client": client, "client value": *client, "hidden client": hidden,
		"error": fmt.Errorf("failed: %v %+v", config, client),
	} {
		out := printed(t, value)
		for _, form := range []string{"s3cret", "733363726574", "[115 51", "0x73, 0x33"} {
			require.NotContains(t, out, form, name)
		}
	}
	hiddenValue := struct{ client Client }{*client}
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", hiddenValue, hiddenValue, hiddenValue), "s3cret")
	require.Contains(t, fmt.Sprintf("%+v", config), "APISecret:***")
	require.Equal(t, `"***" *** ***`, fmt.Sprintf("%#v %x %s", config.APISecret, config.APISecret, config.APISecret))
	require.Empty(t, Secret("").String())
	require.Equal(t, "shop.Client(https://shop.example/order/)", fmt.Sprintf("%+v", client))
}

// printed is a value under every way of printing that comes to mind.
func printed(t *testing.T, value any) string {
	t.Helper()
	var out bytes.Buffer
	for _, verb := range strings.Split("v +v #v s q x X d T t U c o b e # x", " ") {
		fmt.Fprintf(&out, "%"+verb+"\n", value)
	}
	fmt.Fprintln(&out, value)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", value)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", value, slog.Group("g", "v", value))
	data, err := json.Marshal(value)
	require.NoError(t, err)
	out.Write(data)
	_ = xml.NewEncoder(&out).Encode(value) // not all of them can be XML
	return out.String()
}

func TestRedactForLogs(t *testing.T) {
	t.Parallel()
	client := newClient(t, "https://shop.example", time.Second)
	text := fmt.Sprintf("Unsolicited response starting with %q and %s", "x "+testSecret, testKey)
	require.Equal(t, `Unsolicited response starting with "x ***" and ***`, client.Redact(text))
	require.Equal(t, "nothing 100% here", client.Redact("nothing 100% here"))
}

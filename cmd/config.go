package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"time"
	_ "time/tzdata" // BILLING_TIMEZONE must work in a container without zone files

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	sdklog "go.temporal.io/sdk/log"

	"drayman/billing"
	"drayman/guard"
	"drayman/models"
	"drayman/shop"
	"drayman/workflows"
)

type logFlags struct {
	LogLevel  slog.Level `help:"Least level to log: debug, info, warn or error." default:"info"`
	LogFormat string     `help:"Form of the log." enum:"text,json" default:"text"`
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: f.LogLevel}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

type databaseFlags struct {
	DatabaseURL string `name:"database-url" help:"postgres://user:password@host/database or sqlite:PATH." required:"" secret:"" placeholder:"URL"`
	installationFlags
}

func (f databaseFlags) open(ctx context.Context, log *slog.Logger) (*models.Store, error) {
	return models.Open(ctx, f.DatabaseURL, models.Options{Installation: string(f.Installation), Logger: log})
}

// installationFlags name the installation to which a process belongs.
type installationFlags struct {
	Installation installationName `help:"Name of this installation, if several share a Temporal namespace or are copies of one database; task queues and workflow ids carry it. 1 to 32 characters of a-z 0-9 and -." placeholder:"NAME"`
}

func (f installationFlags) names() workflows.Names { return workflows.Names(f.Installation) }

// installationName is a name that [billing.ValidateInstallation] takes.
type installationName string

// UnmarshalText reads a setting.
func (n *installationName) UnmarshalText(text []byte) error {
	*n = installationName(text)
	return billing.ValidateInstallation(string(text))
}

// zoneFlags name the billing time zone, the same for every process.
type zoneFlags struct {
	BillingTimezone string `help:"Zone in which a month begins, such as America/Sao_Paulo; the same for every process." default:"UTC" placeholder:"ZONE"`
}

func (f *zoneFlags) validate() error {
	_, err := f.zone()
	return err
}

func (f *zoneFlags) zone() (*time.Location, error) {
	zone, err := time.LoadLocation(f.BillingTimezone)
	if err != nil || f.BillingTimezone == "" || f.BillingTimezone == "Local" {
		return nil, fmt.Errorf("--billing-timezone ($BILLING_TIMEZONE): %q is no time zone, such as UTC or America/Sao_Paulo", f.BillingTimezone)
	}
	return zone, nil
}

type httpFlags struct {
	HTTPAddr   string        `name:"http-addr" help:"Address to serve the API on." default:"127.0.0.1:8080" placeholder:"HOST:PORT"`
	ChargeWait time.Duration `help:"How long a charge's answer waits for its outcome, 0s to 60s." default:"10s"`

	ChargeRequireEligible bool `help:"Refuse to charge a subscription that is not eligible." default:"true" negatable:""`

	HTTPHosts   []string `name:"http-hosts" help:"Host names of the API, such as drayman.example; IP addresses and localhost always are. Without it, any name beyond loopback, and none there." placeholder:"NAME,..."`
	CORSOrigins []string `name:"cors-origins" help:"Origins, such as https://shop.example, whose web pages may use the API." placeholder:"ORIGIN,..."`

	AllowUnauthenticatedNetworkAccess bool `help:"Serve beyond this machine although the API asks nobody for a key: whoever reaches the address can charge customers."`
}

// validate returns an error that names the first wrong setting.
func (f *httpFlags) validate() error {
	if f.ChargeWait < 0 || f.ChargeWait > time.Minute {
		return fmt.Errorf("--charge-wait ($CHARGE_WAIT): must be 0s to 60s, not %s", f.ChargeWait)
	}
	if _, err := f.guard(); err != nil {
		return err
	}
	host, _, err := net.SplitHostPort(f.HTTPAddr)
	if err != nil {
		return fmt.Errorf("--http-addr ($HTTP_ADDR): %q is no HOST:PORT", f.HTTPAddr)
	}
	if !f.AllowUnauthenticatedNetworkAccess && !isLoopback(host) {
		return fmt.Errorf("--http-addr ($HTTP_ADDR): %q can be reached from other machines, and the API asks nobody for a key; "+
			"use 127.0.0.1, or give --allow-unauthenticated-network-access", f.HTTPAddr)
	}
	return nil
}

// guard is whom the API serves. On loopback only this machine reaches it, under names that
// are known. Elsewhere only HTTP_HOSTS tells its names.
func (f *httpFlags) guard() (guard.Policy, error) {
	hosts, err := guard.ParseHosts(f.HTTPHosts)
	if err != nil {
		return guard.Policy{}, fmt.Errorf("--http-hosts ($HTTP_HOSTS): %w", err)
	}
	origins, err := guard.ParseOrigins(f.CORSOrigins)
	if err != nil {
		return guard.Policy{}, fmt.Errorf("--cors-origins ($CORS_ORIGINS): %w", err)
	}
	host, _, _ := net.SplitHostPort(f.HTTPAddr) // validate refuses what is none
	return guard.Policy{AnyHost: len(hosts) == 0 && !isLoopback(host), Hosts: hosts, Origins: origins}, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

type shopFlags struct {
	ShopURL       string        `name:"shop-url" help:"The shop's address; orders go to POST {URL}/order/{request_id}." required:"" placeholder:"URL"`
	ShopAPIKey    string        `name:"shop-api-key" help:"Sent as x-api-key. Better given as $SHOP_API_KEY or $SHOP_API_KEY_FILE." required:"" secret:"" placeholder:"KEY"`
	ShopAPISecret string        `name:"shop-api-secret" help:"Sent as x-api-secret. Better given as $SHOP_API_SECRET or $SHOP_API_SECRET_FILE." required:"" secret:"" placeholder:"SECRET"`
	ShopTimeout   time.Duration `help:"How long one call to the shop may take, 100ms to 5m." default:"10s"`
	// An order that is asked for twice under one request id is one order.
	ShopIdempotent bool          `help:"The shop takes a repeated request id for the same order." default:"true" negatable:""`
	ChargeRetryFor time.Duration `help:"How long a charge is tried before it is left unresolved, 1s to 720h." default:"24h"`
	ShopEcho       string        `help:"Fields of the shop's answer that must repeat what was asked for, else it is no verdict: request_id, customer_id, both or none." default:"request_id,customer_id" empty:"" placeholder:"FIELDS"`
}

// validate returns an error that names the first wrong setting.
func (f *shopFlags) validate() error {
	if f.ShopTimeout < 100*time.Millisecond || f.ShopTimeout > shop.MaxTimeout {
		return fmt.Errorf("--shop-timeout ($SHOP_TIMEOUT): must be 100ms to 5m, not %s", f.ShopTimeout)
	}
	if f.ChargeRetryFor < time.Second || f.ChargeRetryFor > 720*time.Hour {
		return fmt.Errorf("--charge-retry-for ($CHARGE_RETRY_FOR): must be 1s to 720h, not %s", f.ChargeRetryFor)
	}
	if _, err := shop.ParseEcho(f.ShopEcho); err != nil {
		return fmt.Errorf("--shop-echo ($SHOP_ECHO): %w, not %q", err, f.ShopEcho)
	}
	if f.ShopURL == "" || f.ShopAPIKey == "" || f.ShopAPISecret == "" {
		return nil // kong says what is missing
	}
	client, err := f.client()
	if err != nil {
		return err
	}
	client.Close()
	return nil
}

func (f *shopFlags) client() (*shop.Client, error) {
	echo, err := shop.ParseEcho(f.ShopEcho)
	if err != nil {
		return nil, err
	}
	client, err := shop.New(shop.Config{
		URL: f.ShopURL, APIKey: f.ShopAPIKey, APISecret: shop.Secret(f.ShopAPISecret), Timeout: f.ShopTimeout, Echo: echo, Version: Version,
	})
	if err != nil {
		return nil, fmt.Errorf("SHOP_URL, SHOP_API_KEY or SHOP_API_SECRET: %w", err)
	}
	return client, nil
}

// temporalOptions reads TEMPORAL_* and temporal.toml, and nothing of ours.
func temporalOptions(env *environment, log *slog.Logger) (client.Options, error) {
	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{EnvLookup: temporalEnvironment{env}})
	if err != nil {
		return options, fmt.Errorf("the Temporal settings (TEMPORAL_*): %w", err)
	}
	if options.Namespace == "" {
		options.Namespace = client.DefaultNamespace
	}
	options.Logger = sdklog.NewStructuredLogger(log)
	return options, nil
}

type temporalEnvironment struct{ *environment }

// LookupEnv implements envconfig.EnvLookup.
func (e temporalEnvironment) LookupEnv(name string) (string, bool) {
	value := e.getenv(name)
	return value, value != ""
}

// Environ implements envconfig.EnvLookup, which looks for names with a prefix
// in it; the values are ours to give.
func (e temporalEnvironment) Environ() []string {
	var own []string
	for _, pair := range os.Environ() {
		name, _, _ := strings.Cut(pair, "=")
		if value, set := e.LookupEnv(name); set {
			own = append(own, name+"="+value)
		}
	}
	return own
}

// addressError says which address is taken and how to choose another.
func addressError(flag, addr string, err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("cannot listen on %s: %w; choose another address with --%s ($%s)", addr, err, flag, variable(flag))
}

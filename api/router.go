package api

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humagin"
	"github.com/gin-gonic/gin"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/singleflight"

	"drayman/guard"
	"drayman/models"
	"drayman/workflows"
)

// Config is what the API is made of. All fields are required but Guard, whose zero
// value fits a listener on loopback, and Logger.
type Config struct {
	Store    *models.Store
	Temporal client.Client
	// Names are those of the installation's workflows (INSTALLATION).
	Names workflows.Names
	// Zone is the billing time zone (BILLING_TIMEZONE).
	Zone *time.Location
	// ChargeWait is how long a charge's answer waits for its outcome (CHARGE_WAIT).
	ChargeWait time.Duration
	// RequireEligible refuses to charge who is not eligible (CHARGE_REQUIRE_ELIGIBLE).
	RequireEligible bool
	// Guard says whom the API serves (HTTP_HOSTS, CORS_ORIGINS). Its probes are ours.
	Guard guard.Policy
	// Ready says why the process should get no requests yet; nil if it should.
	Ready func(ctx context.Context) error
	// Stopping is closed when the process should end: charges stop waiting for
	// their outcome and answer 202.
	Stopping <-chan struct{}
	Logger   *slog.Logger
	Version  string
}

type api struct {
	store           *models.Store
	temporal        client.Client
	names           workflows.Names
	zone            *time.Location
	chargeWait      time.Duration
	requireEligible bool
	ready           func(ctx context.Context) error
	stopping        <-chan struct{}
	log             *slog.Logger

	starts, waits singleflight.Group // of charges
	recalls       singleflight.Group
}

// Limits of a request. Ids and statuses are small; nobody sends more in earnest.
const (
	maxBody    = 64 << 10
	maxHeaders = 16 << 10
	// MaxHeaderBytes is for the http.Server: twice what we refuse with a problem
	// response, since the server refuses with a bare line.
	MaxHeaderBytes = 2 * maxHeaders
)

// New makes the handler of the whole API.
func New(cfg Config) http.Handler {
	a := &api{
		store: cfg.Store, temporal: cfg.Temporal, names: cfg.Names, zone: cfg.Zone, chargeWait: cfg.ChargeWait,
		requireEligible: cfg.RequireEligible, ready: cfg.Ready, stopping: cfg.Stopping,
		log: cfg.Logger,
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	engine := a.newEngine()
	a.registerHealth(engine)
	h := humagin.New(engine, humaConfig(cfg.Version))
	a.registerClubs(h)
	a.registerSubscriptions(h)
	a.registerEligible(h)
	a.registerCharges(h)
	a.registerRuns(h)
	a.registerInstallation(h)
	cfg.Guard.Probes = []string{"/livez", "/livez/", "/readyz", "/readyz/"}
	return allowOrigins(cfg.Guard.Origins, cfg.Guard.Handler(limitHeaders(trimSlash(engine)), refuse))
}

func (a *api) newEngine() *gin.Engine {
	gin.SetMode(gin.ReleaseMode)
	engine := gin.New()
	engine.RedirectTrailingSlash = false
	engine.HandleMethodNotAllowed = true
	engine.UseRawPath = true          // an id may contain an escaped slash
	_ = engine.SetTrustedProxies(nil) // gin trusts all by default; nil cannot fail
	engine.Use(a.logRequests, a.recoverPanics)
	engine.NoRoute(func(c *gin.Context) {
		newProblem(codeNotFound, nothingAt(c.Request)).write(c.Writer)
	})
	engine.NoMethod(func(c *gin.Context) {
		newProblem(codeMethodNotAllowed, c.Request.Method+" is not for this path; the Allow header says what is").write(c.Writer)
	})
	return engine
}

// nothingAt quotes the path as it is written in an address: in one line.
func nothingAt(r *http.Request) string {
	return "there is nothing at " + r.URL.EscapedPath() + "; see /docs"
}

func humaConfig(version string) huma.Config {
	cfg := huma.DefaultConfig("Drayman", version)
	cfg.Info.Description = "Subscription billing for beer clubs: who is due, and one order a month for each."
	cfg.OpenAPIPath = "/openapi"
	cfg.DocsPath = ""     // ours works without the network, see health.go
	cfg.SchemasPath = ""  // the schemas are in the OpenAPI document
	cfg.CreateHooks = nil // no $schema member in our answers
	cfg.Formats = map[string]huma.Format{"application/json": jsonFormat, "json": jsonFormat}
	return cfg
}

// operation describes an endpoint for the router and for the OpenAPI document.
func operation(method, path, id, summary, description string, problems ...int) huma.Operation {
	return huma.Operation{
		OperationID: id, Method: method, Path: path, Summary: summary, Description: description,
		Errors:       append(problems, http.StatusUnprocessableEntity, http.StatusInternalServerError, http.StatusServiceUnavailable),
		MaxBodyBytes: maxBody,
	}
}

// trimSlash makes both forms of a path one, so that neither needs a redirect,
// which would lose a POST's body.
func trimSlash(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u := r.URL; len(u.Path) > 1 && strings.HasSuffix(u.EscapedPath(), "/") {
			u.Path = strings.TrimSuffix(u.Path, "/")
			u.RawPath = strings.TrimSuffix(u.RawPath, "/")
		}
		next.ServeHTTP(w, r)
	})
}

func limitHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := len(r.RequestURI)
		for name, values := range r.Header {
			for _, v := range values {
				size += len(name) + len(v) + len(": \r\n")
			}
		}
		if size > maxHeaders {
			newProblem(codeHeadersTooLarge, fmt.Sprintf("the address and headers have more than %d bytes", maxHeaders)).write(w)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (a *api) logRequests(c *gin.Context) {
	start := time.Now()
	c.Next()
	a.log.DebugContext(c, "request", "method", c.Request.Method, "route", c.FullPath(),
		"status", c.Writer.Status(), "duration", time.Since(start))
}

// recoverPanics turns a bug into a 500 and a log line with its stack. The abort
// of a stream that failed half-way is no bug: it must reach the server, which
// cuts the connection so that nobody takes the part for the whole.
func (a *api) recoverPanics(c *gin.Context) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			panic(p)
		default:
			a.log.ErrorContext(c, "panic", "value", fmt.Sprint(p), "stack", string(debug.Stack()))
			c.Abort()
			if !c.Writer.Written() {
				newProblem(codeInternal, "something went wrong on our side; it has been logged").write(c.Writer)
			}
		}
	}()
	c.Next()
}

package api

import (
	"fmt"
	"net/http"
	"slices"

	"drayman/guard"
)

// What pages of the trusted origins may send, and read of the answers beside the
// few headers that every page may. The keys are for proxies that ask for them.
const (
	corsMethods = "GET, POST"
	corsHeaders = "Content-Type, Prefer, Authorization, X-API-Key"
	corsExposed = "Location, Link, Retry-After, Preference-Applied"
	corsMaxAge  = "600" // seconds for which a browser need not ask again
)

// allowOrigins lets pages of the origins read the answers, problems too, and
// answers the question that browsers ask first (CORS preflight). Pages of other
// origins get none of its headers, so that their browser shows them nothing.
func allowOrigins(origins []string, next http.Handler) http.Handler {
	if len(origins) == 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Add("Vary", "Origin")
		origin := r.Header.Get("Origin")
		if !slices.Contains(origins, origin) {
			next.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Origin", origin)
		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
			header.Set("Access-Control-Allow-Methods", corsMethods)
			header.Set("Access-Control-Allow-Headers", corsHeaders)
			header.Set("Access-Control-Max-Age", corsMaxAge)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		header.Set("Access-Control-Expose-Headers", corsExposed)
		next.ServeHTTP(w, r)
	})
}

// refuse answers a request that the guard does not let through.
func refuse(w http.ResponseWriter, r *http.Request, why *guard.Refusal) {
	if why == guard.ForeignHost {
		newProblem(codeHostNotServed, printable(fmt.Sprintf("this API is not known as %q; HTTP_HOSTS names the hosts that it has", r.Host))).write(w)
		return
	}
	newProblem(codeCrossOrigin, "a web page of another origin may change nothing here; CORS_ORIGINS names those that may").write(w)
}

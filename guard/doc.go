// Package guard keeps web pages from using an HTTP server that trusts everybody who
// can reach it. A browser on the same machine or network can reach it, and runs the
// pages of other people.
//
// # What it refuses
//
//   - Requests that may change something and come from a page of another origin: a
//     form, or a fetch that needs no preflight ([http.CrossOriginProtection]). The
//     browser says so in Sec-Fetch-Site and Origin. A request without these headers
//     is not from a browser, and passes.
//   - Requests for a host name that the server does not have. A page of
//     http://evil.example:8080 becomes one of our own origin when its owner lets the
//     name point to 127.0.0.1 (DNS rebinding), and then reads and writes. That needs
//     a name, so IP addresses always pass, and localhost, which no DNS server is
//     asked for.
//
// Safe methods (GET, HEAD, OPTIONS) pass from everywhere; the browser gives their
// answers to no page of another origin unless a CORS header says so. They must
// change nothing.
//
// # Imports
//
// The standard library only, so that every server of ours can use it.
package guard

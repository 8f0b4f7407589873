// Package shop is the client of the shop's order endpoint,
// POST {URL}/order/{request_id}: one call in, one [Answer] out.
//
// # What it owns
//
// It owns the meaning of the shop's answers, and the keeping of the shop's
// credentials. It does not retry, does not wait and does not store anything:
// that belongs to the activities and workflows which call it.
//
// # Terms
//
//   - Request id: the key under which the shop books an order. A shop that is
//     idempotent takes a repeated request id for the same order.
//   - Outcome: what the answer means for the charge. [Charged] and [Declined]
//     are final for the request id; [NotNow] asks for another try; [Refused]
//     says that our own set-up is wrong (URL, key, secret), which is no
//     customer's fault.
//   - Doubt: the order may exist at the shop although no final answer came. It
//     matters for a shop that is not idempotent: to it, such a request must
//     never be sent again.
//
// # Invariants
//
//   - One call of [Client.PlaceOrder] puts the order on the wire at most once.
//     Nothing here or below repeats a request that may have left: net/http
//     sends a POST again only if not a byte of it was written, the headers
//     that would tell it otherwise (Idempotency-Key) are not used, and HTTP/2,
//     with its own rules for repeating, is turned off.
//   - Doubt is false only if it is certain that no order was made by the
//     call (or that the answer is final): no connection, or the request's headers
//     not yet written, or an answer that says so.
//   - An answer that was on the connection before the order began to leave is
//     no verdict on it, and the connection is closed.
//   - The status line decides. A body that is cut, slow, endless or no JSON
//     never turns a 2xx into something else. One exception: JSON that names
//     another request id or customer than were asked for (Config.Echo) makes
//     the answer one about another order. Whatever its status, it leaves the
//     order in doubt, and the connection is closed. An extra answer that names
//     neither cannot be told from the right one.
//   - A call ends within Config.Timeout, and reads at most 64 KiB of headers
//     and 64 KiB + 1 byte of body.
//   - Redirects are not followed and no proxy is used, so that key and secret
//     reach the configured host only. The process's environment is not read.
//   - The secret and the key are in no field of an Answer, even if the shop
//     sends them back, as they are or escaped as in JSON, URLs or HTML.
//     An encoding that hides them (base64, encryption) is not looked into.
//     The secret is not printed by fmt, log/slog or encoding/json either.
//
// One gap is left: net/http writes to the standard logger when a server sends
// bytes that nobody asked for on an idle connection, and quotes them. A program
// that sets log.SetOutput (or slog.SetDefault, which takes it over) can pass
// such lines through [Client.Redact].
//
// # Imports
//
// The standard library only. Tests use package shop/shoptest, a fake shop.
package shop

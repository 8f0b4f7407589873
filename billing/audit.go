package billing

// AuditEntry is one write that a person made by hand. It is kept in the write's own
// transaction and never changed. The database adds its time.
type AuditEntry struct {
	// Actor is who made the write, as the caller said; "" if nobody said.
	Actor string
	// Action names the write, for example "charge.correct".
	Action string
	// Subject is what was written to, for example "charge/2026-11-a".
	Subject string
	// Reason is why, in the person's words.
	Reason string
	// Detail is JSON with what the write changed; nil if the action says it all.
	Detail any
}

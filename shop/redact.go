package shop

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// redactor finds credentials in text from outside, as they are and escaped.
type redactor struct {
	plain   []string
	escaped *regexp.Regexp
	escapes string // without any of these characters, only plain can match
}

// newRedactor prepares for the given credentials; none may be empty. The longer
// is tried first: if the key is the beginning of the secret, the secret's end would
// otherwise be left.
func newRedactor(credentials ...string) *redactor {
	r := &redactor{plain: slices.Clone(credentials), escapes: `\%&`}
	slices.SortFunc(r.plain, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	patterns := make([]string, len(r.plain))
	for i, credential := range r.plain {
		patterns[i] = escapedPattern(credential)
		if strings.Contains(credential, " ") {
			r.escapes = `\%&+`
		}
	}
	r.escaped = regexp.MustCompile(strings.Join(patterns, "|"))
	return r
}

// escapedPattern matches an ASCII text of which any character may be written as
// JSON, Go, JavaScript, a URL or HTML would write it, also several times over.
func escapedPattern(text string) string {
	named := map[byte]string{'"': "quot", '&': "amp", '<': "lt", '>': "gt", '\'': "apos"}
	var b strings.Builder
	for i := range len(text) {
		c := text[i]
		fmt.Fprintf(&b, `(?:\\*%s`, regexp.QuoteMeta(text[i:i+1]))
		fmt.Fprintf(&b, `|\\+(?:u00|u\{0*|x)(?i:%02x)\}?`, c)
		fmt.Fprintf(&b, `|%%(?:25)*(?i:%02x)`, c)
		fmt.Fprintf(&b, `|&(?:amp;)*#(?:0*%d|(?i:x0*%02x));`, c, c)
		if name, ok := named[c]; ok {
			fmt.Fprintf(&b, `|&(?:amp;)*%s;`, name)
		}
		if c == ' ' {
			b.WriteString(`|\+|%(?:25)*2[bB]`) // in a query, and there once more
		}
		b.WriteByte(')')
	}
	return b.String()
}

// in reports whether text contains a credential.
func (r *redactor) in(text string) bool {
	if strings.ContainsAny(text, r.escapes) {
		return r.escaped.MatchString(text)
	}
	return slices.ContainsFunc(r.plain, func(c string) bool { return strings.Contains(text, c) })
}

// redact replaces the credentials in text. If the mask itself
// completes a credential, the whole text is removed.
func (r *redactor) redact(text string) string {
	if !r.in(text) {
		return text
	}
	text = r.escaped.ReplaceAllLiteralString(text, mask)
	if r.in(text) {
		return mask
	}
	return text
}

// quote is the beginning of a text from outside, fit for a sentence: one line,
// printable, redacted, and at most limit bytes of the original (so that a
// credential across the limit is seen whole, and goes whole).
func (r *redactor) quote(text string, limit int) string {
	text = oneLine(text)
	head, rest := cutRunes(text, limit), len(text) > limit
	if r.in(text) {
		head = r.redactHead(text, limit)
	}
	if head != "" && rest {
		head += "…"
	}
	return head
}

func (r *redactor) redactHead(text string, limit int) string {
	var b strings.Builder
	end := 0
	for _, span := range r.escaped.FindAllStringIndex(text, -1) {
		if span[0] >= limit {
			break
		}
		b.WriteString(text[end:span[0]] + mask)
		end = span[1]
	}
	if end < limit {
		b.WriteString(cutRunes(text[end:], limit-end))
	}
	if r.in(b.String()) {
		return ""
	}
	return b.String()
}

// oneLine makes text valid UTF-8, with single spaces in place of white space and of all
// that does not print (control characters, marks that change the direction of writing).
func oneLine(text string) string {
	text = strings.ToValidUTF8(text, string(utf8.RuneError))
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// cutRunes returns at most limit bytes of text, cut between characters.
func cutRunes(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	for limit > 0 && !utf8.RuneStart(text[limit]) {
		limit--
	}
	return text[:limit]
}

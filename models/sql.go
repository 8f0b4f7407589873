package models

import (
	"strings"

	"gorm.io/gorm"
	"gorm.io/gorm/clause"
)

// The SQL that several statements share, and what adapts it to a dialect. In the
// conditions s is a subscription, k its club, c any club, and l, d and o are charges.

// The statuses of charges, in sets. stands is [billing.ChargeStatus.Stands]: the
// database derives closed_as from the status, also if a person changes that. Unsettled
// charges wait for an outcome. A person may correct settled ones.
const (
	stands    = "closed_as = ''"
	unsettled = "status IN ('pending', 'unresolved')"
	settled   = "status IN ('charged', 'declined')"
)

// The status of the subscription s, or of the club c, at the time @at. These
// are [billing.StatusAt] in SQL; a test holds them to it on generated histories.
const (
	subscriptionStatusAt = `(SELECT h.status_id FROM subscription_status_history h
		WHERE h.subscription_id = s.id AND h.effect_date <= @at
		ORDER BY h.effect_date DESC, h.create_date DESC NULLS LAST, h.id COLLATE "C" DESC LIMIT 1)`
	clubStatusAt = `(SELECT h.club_status_id FROM club_status_history h
		WHERE h.club_id = c.id AND h.effect_date <= @at
		ORDER BY h.effect_date DESC, h.create_date DESC NULLS LAST, h.id COLLATE "C" DESC LIMIT 1)`
)

// The ids of the rows that decide about these statuses.
var (
	subscriptionStatusRowAt = strings.Replace(subscriptionStatusAt, "h.status_id", "h.id", 1)
	clubStatusRowAt         = strings.Replace(clubStatusAt, "h.club_status_id", "h.id", 1)
)

// isEligible is [billing.Eligible] in SQL, over subscription s. The clubs are
// few: their statuses are found once, not for every subscription; "+ 0" keeps the
// planner from going the other way, from each club through all its subscriptions.
const isEligible = subscriptionStatusAt + ` = 1
	AND s.club_id + 0 IN (SELECT c.id FROM club c WHERE ` + clubStatusAt + ` IN (1, 2))`

// isDue says of subscription s that it is due in a run: eligible now, which is
// @at, and at the run's @cutoff. "IS TRUE" keeps PostgreSQL's planner from making
// a join of the clubs. It would expect few rows from these conditions, and look through
// all clubs for each subscription, which takes minutes for 100,000.
var isDue = subscriptionStatusAt + ` = 1 AND ` + atCutOff(subscriptionStatusAt) + ` = 1
	AND (s.club_id IN (SELECT c.id FROM club c WHERE ` + clubStatusAt + ` IN (1, 2) AND ` + atCutOff(clubStatusAt) + ` IN (1, 2))) IS TRUE`

// atCutOff asks at @cutoff what the expression asks at @at.
func atCutOff(expression string) string { return strings.ReplaceAll(expression, "@at", "@cutoff") }

// notOpenYet says of subscription s that no charge stands for @period. isUntried also says
// that the run has not claimed s before: a retried page must not charge a subscription
// again that this run was declined for. Nor one whose claim was withdrawn in the run: only
// the end of a run withdraws claims.
//
// The ledger of the month grows while a batch asks about a few subscriptions, and
// PostgreSQL's planner believes that it is as empty as it was. It would read all of it for
// each batch, or once for each subscription of a whole list. A count cannot become a join,
// so the planner has to use the index by subscription and period.
// docs/performance.md has the figures.
const (
	notOpenYet = `(SELECT count(*) FROM charge l
		WHERE l.subscription_id = s.id AND l.period = @period AND l.` + stands + `) = 0`
	isUntried = `(SELECT count(*) FROM charge l
		WHERE l.subscription_id = s.id AND l.period = @period AND (l.` + stands + ` OR l.run_id = @run)) = 0`
)

// isChargeable says of subscription s and its club k that the shop can be asked.
const isChargeable = `COALESCE(s.customer_store_id, '') <> '' AND k.store_sku IS NOT NULL`

// cameLater says of subscription s that it has statuses now and had none at @cutoff: it
// belongs to a later run. A subscription that was cancelled or deleted since did not come
// later.
var cameLater = `(` + atCutOff(subscriptionStatusAt) + ` IS NULL
	AND EXISTS (SELECT 1 FROM subscription_status_history h WHERE h.subscription_id = s.id))`

// sql adapts a statement to the dialect.
func (s *Store) sql(text string) string {
	if s.dialect == SQLite {
		return onSQLite(text)
	}
	return text
}

// time is a column of our own tables with a time, for comparisons. On SQLite a person may
// have written anything there: what cannot be read comes before all times.
func (s *Store) time(column string) string {
	if s.dialect == SQLite {
		return "COALESCE(drayman_time(" + column + "), '')"
	}
	return column
}

// asTimestamp gives a text argument its type, for statements that do not tell it.
func (s *Store) asTimestamp(argument string) string {
	if s.dialect == SQLite {
		return argument
	}
	return "CAST(" + argument + " AS timestamp)"
}

// forUpdate locks the rows that are read; an immediate transaction of SQLite has
// all of them.
func (s *Store) forUpdate(tx *gorm.DB) *gorm.DB {
	if s.dialect == SQLite {
		return tx
	}
	return tx.Clauses(clause.Locking{Strength: "UPDATE"})
}

// preferKeyLookups makes PostgreSQL find each row of a batch by its primary key. Its
// statistics may be those of a table that was empty a moment ago.
func (s *Store) preferKeyLookups(tx *gorm.DB) error {
	if s.dialect == SQLite {
		return nil
	}
	return tx.Exec("SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL enable_bitmapscan = off").Error
}

// preferIndexOrder keeps PostgreSQL from sorting a million ids on disk before it
// gives the first: the index has them in order.
func (s *Store) preferIndexOrder(tx *gorm.DB) error {
	if s.dialect == SQLite {
		return nil
	}
	return tx.Exec("SET LOCAL enable_sort = off").Error
}

// onlyIf is a condition that Go has decided.
func onlyIf(yes bool) string {
	if yes {
		return "1 = 1"
	}
	return "1 = 0"
}

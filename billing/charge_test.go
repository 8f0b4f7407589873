package billing_test

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"drayman/billing"
)

var (
	november = billing.PeriodAt(day(0), time.UTC)
	december = billing.PeriodAt(day(31), time.UTC)
)

// request asks for November's order of the subscription s.
func request() billing.ChargeRequest {
	return billing.ChargeRequest{SubscriptionID: "s", Period: november, RequestID: "r", RequireEligible: true}
}

// facts are those of a subscription that is due.
func facts() billing.ChargeFacts {
	sku := 7
	return billing.ChargeFacts{
		Exists: true, ClubID: 1, CustomerID: "anna", SKU: &sku,
		Standing: billing.Standing{Subscription: billing.Active, Club: billing.ClubClosed, HasClub: true},
	}
}

func charge(request billing.RequestID, status billing.ChargeStatus) *billing.Charge {
	return &billing.Charge{RequestID: request, SubscriptionID: "s", Period: november, Status: status}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	cancelled := func(f *billing.ChargeFacts) { f.Standing.Subscription = billing.Cancelled }
	deleted := func(f *billing.ChargeFacts) { *f = billing.ChargeFacts{SameRequest: f.SameRequest, Open: f.Open} }
	for name, c := range map[string]struct {
		same, open *billing.Charge
		change     func(*billing.ChargeFacts)
		step       billing.Step
		found      billing.RequestID
		code       billing.Code
	}{
		"due":                          {step: billing.StepPlace},
		"unknown":                      {change: deleted, code: billing.CodeSubscriptionNotFound},
		"cancelled":                    {change: cancelled, code: billing.CodeNotEligible},
		"charged under this id":        {same: charge("r", billing.Charged), open: charge("r", billing.Charged), step: billing.StepAnswer, found: "r"},
		"charged under another id":     {open: charge("q", billing.Charged), step: billing.StepAnswer, found: "q"},
		"charged, cancelled since":     {open: charge("q", billing.Charged), change: cancelled, step: billing.StepAnswer, found: "q"},
		"declined under this id":       {same: charge("r", billing.Declined), step: billing.StepAnswer, found: "r"},
		"declined, cancelled since":    {same: charge("r", billing.Declined), change: cancelled, step: billing.StepAnswer, found: "r"},
		"declined here, charged there": {same: charge("r", billing.Declined), open: charge("q", billing.Charged), step: billing.StepAnswer, found: "q"},
		"declined here, pending there": {same: charge("r", billing.Declined), open: charge("q", billing.Pending), step: billing.StepAnswer, found: "r"},
		"declined here, in doubt":      {same: charge("r", billing.Declined), open: charge("q", billing.Unresolved), step: billing.StepAnswer, found: "r"},
		"pending under this id":        {same: charge("r", billing.Pending), open: charge("r", billing.Pending), step: billing.StepJoin, found: "r"},
		"pending under another id":     {open: charge("q", billing.Pending), step: billing.StepJoin, found: "q"},
		"pending, cancelled since":     {open: charge("q", billing.Pending), change: cancelled, step: billing.StepJoin, found: "q"},
		"pending, deleted since":       {open: charge("q", billing.Pending), change: deleted, step: billing.StepJoin, found: "q"},
		"withdrawn under this id":      {same: charge("r", billing.Withdrawn), code: billing.CodeRequestIDReused},
		"withdrawn, cancelled since":   {same: charge("r", billing.Withdrawn), change: cancelled, code: billing.CodeRequestIDReused},
		"withdrawn, charged there":     {same: charge("r", billing.Withdrawn), open: charge("q", billing.Charged), step: billing.StepAnswer, found: "q"},
		"withdrawn, pending there":     {same: charge("r", billing.Withdrawn), open: charge("q", billing.Pending), step: billing.StepJoin, found: "q"},
		"unresolved":                   {open: charge("q", billing.Unresolved), step: billing.StepResume, found: "q"},
		"unresolved, cancelled since":  {open: charge("q", billing.Unresolved), change: cancelled, step: billing.StepResume, found: "q"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := facts()
			f.SameRequest, f.Open = c.same, c.open
			if c.change != nil {
				c.change(&f)
			}

			step, found, err := billing.Decide(request(), f)

			require.Equal(t, c.code, billing.CodeOf(err))
			if c.code != "" {
				require.Nil(t, found)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.step, step)
			if c.found == "" {
				require.Nil(t, found)
			} else {
				require.Equal(t, c.found, found.RequestID)
			}
		})
	}
}

// A request id belongs to one subscription and period, whatever became of it
// there and whatever there is here.
func TestDecideRefusesAReusedRequestID(t *testing.T) {
	t.Parallel()
	for _, status := range []billing.ChargeStatus{billing.Pending, billing.Charged, billing.Declined, billing.Unresolved, billing.Withdrawn} {
		for _, open := range []*billing.Charge{nil, charge("q", billing.Charged), charge("q", billing.Pending), charge("q", billing.Unresolved)} {
			elsewhere, earlier := charge("r", status), charge("r", status)
			elsewhere.SubscriptionID, earlier.Period = "S", december
			for _, used := range []*billing.Charge{elsewhere, earlier} {
				f := facts()
				f.SameRequest, f.Open = used, open

				_, found, err := billing.Decide(request(), f)

				require.Equal(t, billing.CodeRequestIDReused, billing.CodeOf(err))
				require.Nil(t, found, "another customer's charge is nobody's business")
			}
		}
	}
}

func TestDecideWithoutEligibility(t *testing.T) {
	t.Parallel()
	for reason, change := range map[billing.Reason]func(*billing.ChargeFacts){
		billing.ReasonSubscriptionCancelled:     func(f *billing.ChargeFacts) { f.Standing.Subscription = billing.Cancelled },
		billing.ReasonSubscriptionPaused:        func(f *billing.ChargeFacts) { f.Standing.Subscription = billing.Paused },
		billing.ReasonSubscriptionWithoutStatus: func(f *billing.ChargeFacts) { f.Standing.Subscription = 0 },
		billing.ReasonClubInactive:              func(f *billing.ChargeFacts) { f.Standing.Club = billing.ClubInactive },
		billing.ReasonClubWithoutStatus:         func(f *billing.ChargeFacts) { f.Standing.Club = 0 },
	} {
		f := facts()
		change(&f)
		_, _, err := billing.Decide(request(), f)
		requireNotEligible(t, reason, err)

		anybody := request()
		anybody.RequireEligible = false
		step, _, err := billing.Decide(anybody, f)
		require.NoError(t, err)
		require.Equal(t, billing.StepPlace, step)
	}
}

// Nor is the cut-off's of a run, where CHARGE_REQUIRE_ELIGIBLE turns the other off.
func TestDecide_RunNeedsTheCutOffToo(t *testing.T) {
	t.Parallel()
	f, req := facts(), request()
	f.AtCutOff = &billing.Standing{Subscription: billing.Active, Club: billing.ClubClosed, HasClub: true}
	step, _, err := billing.Decide(req, f)
	require.NoError(t, err)
	require.Equal(t, billing.StepPlace, step)
	for _, then := range []billing.Standing{
		{},
		{Subscription: billing.Paused, Club: billing.ClubActive, HasClub: true},
		{Subscription: billing.Active, Club: billing.ClubInactive, HasClub: true},
		{Subscription: billing.Active, HasClub: true},
	} {
		f.AtCutOff = &then
		for _, required := range []bool{true, false} {
			req.RequireEligible = required
			_, _, err := billing.Decide(req, f)
			requireNotEligible(t, billing.ReasonNotDueInRun, err)
		}
	}
}

// No check can be turned off for what the shop must be told.
func TestDecideNeedsWhatTheShopMustBeTold(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		reason billing.Reason
		change func(*billing.ChargeFacts)
	}{
		{billing.ReasonSubscriptionWithoutClub, func(f *billing.ChargeFacts) { f.Standing.HasClub, f.SKU = false, nil }},
		{billing.ReasonWithoutCustomer, func(f *billing.ChargeFacts) { f.CustomerID = "" }},
		{billing.ReasonWithoutSKU, func(f *billing.ChargeFacts) { f.SKU = nil }},
	} {
		for _, required := range []bool{true, false} {
			f, req := facts(), request()
			c.change(&f)
			req.RequireEligible = required
			_, _, err := billing.Decide(req, f)
			requireNotEligible(t, c.reason, err)
		}
	}
}

// An odd customer id, put there by hand, is the shop's to judge: a page of a run
// asks about it as well, and the two must not differ.
func TestDecideLeavesOddCustomersToTheShop(t *testing.T) {
	t.Parallel()
	f := facts()
	f.CustomerID = "a\nb"
	step, _, err := billing.Decide(request(), f)
	require.NoError(t, err)
	require.Equal(t, billing.StepPlace, step)
}

func requireNotEligible(t *testing.T, reason billing.Reason, err error) {
	t.Helper()
	var problem *billing.Error
	require.ErrorAs(t, err, &problem)
	require.Equal(t, billing.CodeNotEligible, problem.Code)
	require.Equal(t, reason, problem.Reason)
	require.Contains(t, problem.Detail, reason.Sentence())
}

func genFacts() *rapid.Generator[billing.ChargeFacts] {
	return rapid.Custom(func(t *rapid.T) billing.ChargeFacts {
		open := rapid.SampledFrom([]billing.ChargeStatus{billing.Pending, billing.Charged, billing.Unresolved})
		any := rapid.SampledFrom([]billing.ChargeStatus{billing.Pending, billing.Charged, billing.Unresolved, billing.Declined})
		f := billing.ChargeFacts{
			Exists: rapid.Bool().Draw(t, "exists"), CustomerID: rapid.SampledFrom([]string{"", "anna"}).Draw(t, "customer"),
			SKU: rapid.Ptr(rapid.IntRange(1, 2), true).Draw(t, "sku"),
			Standing: billing.Standing{
				Subscription: billing.Status(rapid.IntRange(0, 4).Draw(t, "status")),
				Club:         billing.ClubStatus(rapid.IntRange(0, 4).Draw(t, "club")), HasClub: rapid.Bool().Draw(t, "has club"),
			},
		}
		if rapid.Bool().Draw(t, "open") {
			f.Open = charge(rapid.SampledFrom([]billing.RequestID{"r", "q"}).Draw(t, "open id"), open.Draw(t, "open status"))
		}
		if rapid.Bool().Draw(t, "same") {
			f.SameRequest = charge("r", any.Draw(t, "same status"))
			f.SameRequest.SubscriptionID = rapid.SampledFrom([]string{"s", "s2"}).Draw(t, "same subscription")
			f.SameRequest.Period = rapid.SampledFrom([]billing.Period{november, december}).Draw(t, "same period")
		}
		return f
	})
}

func TestDecideNeverPlacesWhatMayBeAnOrderAlready(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, req := genFacts().Draw(t, "facts"), request()
		req.RequireEligible = rapid.Bool().Draw(t, "required")

		step, found, err := billing.Decide(req, f)

		placed := err == nil && step == billing.StepPlace
		switch {
		case f.Open != nil, f.SameRequest != nil && f.SameRequest.Status == billing.Declined:
			require.False(t, placed)
		case req.RequireEligible && !billing.Eligible(f.Standing), !f.Exists, f.SKU == nil:
			require.False(t, placed)
		}
		require.Equal(t, err == nil && !placed, found != nil)
		if found != nil {
			require.Equal(t, "s", found.SubscriptionID)
			require.Equal(t, november, found.Period)
		}
	})
}

// Whatever a workflow hands to an activity arrives there.
func TestCharge_NothingVanishesInJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 12, 0, 0, 123_456_000, time.UTC)
	full := billing.Charge{
		RequestID: "r", SubscriptionID: "s", Period: november, Status: billing.Pending, Attempts: 1, ClubID: 2, CustomerID: "c", SKU: 3,
		Order: json.RawMessage(`{}`), FailureCode: "f", FailureDetail: "d", ResolvedBy: "b", ResolvedNote: "n", CreatedAt: at, SettledAt: &at,
		Owner: "o", ClaimedUntil: at, RunID: "2026-11/1", SentAt: at, Installation: "i", StatusRow: "h", ClubStatusRow: "k",
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[billing.Charge]()) {
		require.False(t, reflect.ValueOf(full).FieldByIndex(field.Index).IsZero(), "the test lacks %s", field.Name)
	}
	text, err := json.Marshal(full)
	require.NoError(t, err)
	var back billing.Charge
	require.NoError(t, json.Unmarshal(text, &back))
	require.Equal(t, full, back)

	asked := billing.ChargeRequest{
		SubscriptionID: "s", Period: november, RequestID: "r", RequireEligible: true, RunID: "2026-11/1", Installation: "i", Remembered: "q",
	}
	for _, field := range reflect.VisibleFields(reflect.TypeFor[billing.ChargeRequest]()) {
		require.False(t, reflect.ValueOf(asked).FieldByIndex(field.Index).IsZero(), "the test lacks %s", field.Name)
	}
	text, err = json.Marshal(asked)
	require.NoError(t, err)
	var read struct {
		billing.ChargeRequest
		ClubID int `json:"club_id"`
	}
	require.NoError(t, billing.DecodeStrict(append([]byte(`{"club_id":7,`), text[1:]...), &read, "subscription_id", "period", "club_id"))
	require.Equal(t, asked, read.ChargeRequest)
	require.Equal(t, 7, read.ClubID)
	err = billing.DecodeStrict([]byte(`{"ChargeRequest":{}}`), &read)
	require.ErrorContains(t, err, "there is no field")
	err = billing.DecodeStrict([]byte(`{"subscription_id":7}`), &read)
	require.ErrorContains(t, err, "subscription_id must be a text")
	err = billing.DecodeStrict([]byte(`{"subscription_id":null}`), &read)
	require.ErrorContains(t, err, "subscription_id must not be null")
}

func TestChargeStatus_Stands(t *testing.T) {
	t.Parallel()
	for status, stands := range map[billing.ChargeStatus]bool{
		billing.Pending: true, billing.Charged: true, billing.Unresolved: true, billing.Declined: false, billing.Withdrawn: false,
	} {
		require.Equal(t, stands, status.Stands(), status)
	}
}

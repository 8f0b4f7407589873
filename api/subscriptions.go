package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// SubscriptionPath names a subscription.
type SubscriptionPath struct {
	ID string `path:"id" doc:"the subscription's id, 1 to 36 characters" example:"00000000-0000-0000-0000-000000000000"`
}

// Resolve implements huma.Resolver: ids are opaque, but not everything is one.
func (p *SubscriptionPath) Resolve(huma.Context) []error {
	return inputErrors("path.id", billing.ValidateID("id", p.ID))
}

// inputErrors is what huma wants of a resolver.
func inputErrors(location string, err error) []error {
	if err == nil {
		return nil
	}
	detail := &huma.ErrorDetail{Location: location, Message: err.Error()}
	if known, ok := err.(*billing.Error); ok { //nolint:errorlint // fresh from a validator, never wrapped
		detail.Message = known.Detail
	}
	return []error{detail}
}

// SubscriptionView is a subscription as it stands now.
type SubscriptionView struct {
	ID         string               `json:"id"`
	ClubID     *int                 `json:"club_id"`
	CustomerID string               `json:"customer_id"`
	CreateDate *time.Time           `json:"create_date"`
	Status     *StatusView          `json:"status" doc:"now; null if it has none"`
	Scheduled  []*StatusView        `json:"scheduled" doc:"status changes to come, the next first"`
	InProgress *ProgressView        `json:"charge_in_progress,omitempty" doc:"after a status change: a charge that was claimed before it and goes on"`
	Charges    []ChargeRecord       `json:"charges,omitempty" doc:"the newest first; only when a single subscription is read"`
	Unreadable []billing.Unreadable `json:"unreadable,omitempty" doc:"times by hand in its rows that cannot be read; a status does not count if its effect_date is one"`
}

// ProgressView is a charge for which a status change came too late.
type ProgressView struct {
	Period    billing.Period       `json:"period" example:"2026-11"`
	State     billing.ChargeStatus `json:"state" enum:"pending,unresolved"`
	RequestID billing.RequestID    `json:"request_id"`
}

func subscriptionView(s *billing.Subscription) SubscriptionView {
	view := SubscriptionView{
		ID: s.ID, CustomerID: s.CustomerID, CreateDate: s.CreateDate,
		Status: subscriptionStatusView(s.Current), Scheduled: []*StatusView{},
		Unreadable: s.Unreadable,
	}
	if s.ClubID != 0 {
		view.ClubID = &s.ClubID
	}
	for _, c := range s.Scheduled {
		view.Scheduled = append(view.Scheduled, subscriptionStatusView(c))
	}
	if c := s.InProgress; c != nil {
		view.InProgress = &ProgressView{Period: c.Period, State: c.Status, RequestID: c.RequestID}
	}
	return view
}

func (a *api) registerSubscriptions(h huma.API) {
	huma.Register(h, operation(http.MethodPost, "/subscription/{id}/status", "change-status", "Activate, cancel or pause",
		"Appends a status. A pause with an interval schedules its return; a status change takes away the automatic "+
			"returns that lie after it. charge_in_progress says that a charge was claimed before and goes on.",
		http.StatusNotFound), a.changeStatus)
	huma.Register(h, operation(http.MethodGet, "/subscription/{id}", "get-subscription", "Read a subscription",
		"Its status now, what is scheduled, and its charges.", http.StatusNotFound), a.getSubscription)
	huma.Register(h, operation(http.MethodGet, "/subscription/{id}/explain", "explain", "Explain eligibility",
		"Whether the subscription is eligible at a time, and the very rows that decide it.", http.StatusNotFound), a.explain)
}

type statusInput struct {
	SubscriptionPath
	Body struct {
		StatusID   int     `json:"status_id" doc:"1 ACTIVE, 2 CANCELLED, 3 PAUSED" enum:"1,2,3"`
		EffectDate *string `json:"effect_date,omitempty" doc:"from when on; RFC 3339, or without a zone, which means UTC; default now" example:"2019-02-18T12:25:56.563000"`
		Details    *string `json:"details,omitempty" doc:"a note, up to 256 characters"`
		Interval   *int    `json:"interval,omitempty" doc:"with PAUSED: the pause's length in whole days" minimum:"1" maximum:"36500"`
	}
}

type subscriptionOutput struct{ Body SubscriptionView }

func (a *api) changeStatus(ctx context.Context, in *statusInput) (*subscriptionOutput, error) {
	change := billing.StatusChange{Status: billing.Status(in.Body.StatusID)}
	if in.Body.Details != nil {
		change.Details = *in.Body.Details
	}
	if in.Body.Interval != nil {
		change.IntervalDays = *in.Body.Interval
	}
	if in.Body.EffectDate != nil {
		at, err := billing.ParseTimestamp("effect_date", *in.Body.EffectDate)
		if err != nil {
			return nil, a.problem(ctx, err)
		}
		change.EffectDate = at
	}
	changed, err := a.store.ChangeStatus(ctx, in.ID, change)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &subscriptionOutput{Body: subscriptionView(changed)}, nil
}

func (a *api) getSubscription(ctx context.Context, in *SubscriptionPath) (*subscriptionOutput, error) {
	subscription, err := a.store.Subscription(ctx, in.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	charges, err := a.store.Charges(ctx, in.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	view := subscriptionView(subscription)
	view.Charges = records(charges)
	return &subscriptionOutput{Body: view}, nil
}

type explainInput struct {
	SubscriptionPath
	At string `query:"at" doc:"the moment asked about, RFC 3339; default now" example:"2026-11-01T00:00:00Z"`
}

// ExplanationView says why a subscription is eligible, or is not.
type ExplanationView struct {
	SubscriptionID     string               `json:"subscription_id"`
	At                 time.Time            `json:"at"`
	Eligible           bool                 `json:"eligible"`
	Reason             billing.Reason       `json:"reason,omitempty" doc:"the first thing that stands against it"`
	Explanation        string               `json:"explanation" example:"not eligible: it is PAUSED now"`
	SubscriptionStatus *DecidingRow         `json:"subscription_status" doc:"the row of subscription_status_history that decides; null if none does"`
	ClubID             *int                 `json:"club_id"`
	ClubStatus         *DecidingRow         `json:"club_status" doc:"the row of club_status_history that decides; null if none does"`
	Unreadable         []billing.Unreadable `json:"unreadable,omitempty" doc:"times by hand in the two histories that cannot be read; a status does not count if its effect_date is one"`
}

// DecidingRow is a row of a history, with its status in words.
type DecidingRow struct {
	billing.Change
	Status string `json:"status" example:"PAUSED"`
}

type explainOutput struct{ Body ExplanationView }

func (a *api) explain(ctx context.Context, in *explainInput) (*explainOutput, error) {
	at, err := optionalTime("at", in.At)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	e, err := a.store.Explain(ctx, in.ID, at)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	view := ExplanationView{SubscriptionID: in.ID, At: e.At, Eligible: e.Reason == "", Reason: e.Reason, Explanation: "eligible", Unreadable: e.Unreadable}
	if !view.Eligible {
		view.Explanation = "not eligible: " + e.Reason.Sentence()
	}
	if e.Subscription.ID != "" {
		view.SubscriptionStatus = &DecidingRow{e.Subscription, billing.Status(e.Subscription.StatusID).String()}
	}
	if e.Club.ID != "" {
		view.ClubStatus = &DecidingRow{e.Club, billing.ClubStatus(e.Club.StatusID).String()}
	}
	if e.ClubID != 0 {
		view.ClubID = &e.ClubID
	}
	return &explainOutput{Body: view}, nil
}

// optionalTime reads a query parameter; "" is the zero time.
func optionalTime(field, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	return billing.ParseTimestamp(field, s)
}

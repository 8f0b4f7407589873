package api

import (
	"context"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// ClubPath names a club. huma fills embedded structs only if they are exported.
type ClubPath struct {
	ID int `path:"id" doc:"the club's id" example:"1"`
}

var wholeNumber = regexp.MustCompile(`^[+-]?[0-9]+$`)

// Resolve implements huma.Resolver. A whole number that an int does not hold, or
// that no id is written like (01, +1), names no club. huma may have cut it to fit,
// so the text is compared, not the number.
func (p *ClubPath) Resolve(ctx huma.Context) []error {
	id := ctx.Param("id")
	if !wholeNumber.MatchString(id) || id == strconv.Itoa(p.ID) {
		return nil
	}
	return []error{newProblem(billing.CodeClubNotFound, "there is no club "+printable(id))}
}

// ClubView is a club as it stands now.
type ClubView struct {
	ID     int         `json:"id" example:"1"`
	Name   string      `json:"name" example:"Lager of the month"`
	SKU    *int        `json:"store_sku" doc:"the product that it sends, at the shop"`
	Status *StatusView `json:"status" doc:"null if it has none"`

	Unreadable []billing.Unreadable `json:"unreadable,omitempty" doc:"times by hand in its history that cannot be read; a status does not count if its effect_date is one"`
}

// StatusView is a row of a status history.
type StatusView struct {
	StatusID   int        `json:"status_id" example:"1"`
	Status     string     `json:"status" example:"ACTIVE"`
	EffectDate *time.Time `json:"effect_date" doc:"from when on it holds"`
	Details    string     `json:"details,omitempty"`
}

func clubStatusView(c billing.Change) *StatusView {
	return statusView(c, billing.ClubStatus(c.StatusID).String())
}

func subscriptionStatusView(c billing.Change) *StatusView {
	return statusView(c, billing.Status(c.StatusID).String())
}

func statusView(c billing.Change, name string) *StatusView {
	if c.ID == "" {
		return nil
	}
	return &StatusView{StatusID: c.StatusID, Status: name, EffectDate: c.EffectDate, Details: c.Details}
}

func clubView(c billing.Club) ClubView {
	return ClubView{ID: c.ID, Name: c.Name, SKU: c.SKU, Status: clubStatusView(c.Current), Unreadable: c.Unreadable}
}

func (a *api) registerClubs(h huma.API) {
	huma.Register(h, operation(http.MethodGet, "/clubs", "list-clubs", "List the clubs",
		"All clubs, by id, with their status now."), a.listClubs)
	huma.Register(h, operation(http.MethodGet, "/club/{id}", "get-club", "Read a club",
		"A club with its status now.", http.StatusNotFound), a.getClub)
	subscribe := operation(http.MethodPost, "/club/{id}/subscribe", "subscribe", "Subscribe a customer to a club",
		"Makes a subscription, ACTIVE from now on. Once per customer and club, whatever the older one's status.",
		http.StatusNotFound, http.StatusConflict)
	subscribe.DefaultStatus = http.StatusCreated
	huma.Register(h, subscribe, a.subscribe)
}

type clubsOutput struct{ Body []ClubView }

func (a *api) listClubs(ctx context.Context, _ *struct{}) (*clubsOutput, error) {
	clubs, err := a.store.Clubs(ctx)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	out := &clubsOutput{Body: []ClubView{}}
	for _, c := range clubs {
		out.Body = append(out.Body, clubView(c))
	}
	return out, nil
}

type clubOutput struct{ Body ClubView }

func (a *api) getClub(ctx context.Context, in *ClubPath) (*clubOutput, error) {
	club, err := a.store.Club(ctx, in.ID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &clubOutput{Body: clubView(*club)}, nil
}

type subscribeInput struct {
	ClubPath
	Body struct {
		CustomerID string `json:"customer_id" doc:"the customer's id at the shop, 1 to 36 characters" example:"00000000-0000-0000-0000-000000000000"`
	}
}

type subscribeOutput struct {
	Location string `header:"Location"`
	Body     SubscriptionView
}

func (a *api) subscribe(ctx context.Context, in *subscribeInput) (*subscribeOutput, error) {
	if err := billing.ValidateCustomerID(in.Body.CustomerID); err != nil {
		return nil, a.problem(ctx, err)
	}
	made, err := a.store.Subscribe(ctx, in.ID, in.Body.CustomerID)
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &subscribeOutput{Location: "/subscription/" + url.PathEscape(made.ID), Body: subscriptionView(made)}, nil
}

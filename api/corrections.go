package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"drayman/billing"
)

// maxCorrectionsBody has room for 1,000 of the longest request ids.
const maxCorrectionsBody = 256 << 10

func (a *api) registerCorrections(h huma.API) {
	huma.Register(h, operation(http.MethodPost, "/subscription/{id}/charges/{period}/correct", "correct-charge", "Correct a settled charge by hand",
		"For a person who knows better: a wrong resolve, an answer of the shop that was no order. Changes charged to declined, "+
			"so that a new request id is a new attempt, or declined to charged. The shop is not asked. Who, when and why are kept "+
			"in the audit. A charge that has the outcome already stays as it is: repeating the request is safe. "+
			"409 charge_not_settled: it is pending, or unresolved; charge_stands: another charge of the period stands, which the problem shows.",
		http.StatusNotFound, http.StatusConflict), a.correctCharge)
	many := operation(http.MethodPost, "/charges/correct", "correct-charges", "Correct settled charges by hand",
		"As for one charge, by request ids of any subscription and period. All are corrected, or none. "+
			"The answer has the charges as they stand, in the order of the request ids.",
		http.StatusNotFound, http.StatusConflict)
	many.MaxBodyBytes = maxCorrectionsBody
	huma.Register(h, many, a.correctCharges)
}

type correctChargeInput struct {
	PeriodPath
	Body struct {
		Verdict
		RequestID string `json:"request_id,omitempty" minLength:"1" maxLength:"128" doc:"which charge; needed if several charges of the period are settled" example:"2026-11-a"`
	}
}

func (a *api) correctCharge(ctx context.Context, in *correctChargeInput) (*chargeRecordOutput, error) {
	var ids []billing.RequestID
	if in.Body.RequestID != "" {
		ids = append(ids, billing.RequestID(in.Body.RequestID))
	}
	corrected, err := a.store.Correct(ctx, billing.Correction{
		RequestIDs: ids, SubscriptionID: in.ID, Period: in.period(),
		Outcome: in.Body.Outcome, By: in.Body.By, Note: in.Body.Note,
	})
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &chargeRecordOutput{Body: record(corrected[0])}, nil
}

type correctChargesInput struct {
	Body struct {
		Verdict
		RequestIDs []billing.RequestID `json:"request_ids" nullable:"false" minItems:"1" maxItems:"1000" doc:"which charges" example:"[\"2026-11-a\"]"`
	}
}

func (a *api) correctCharges(ctx context.Context, in *correctChargesInput) (*chargesOutput, error) {
	corrected, err := a.store.Correct(ctx, billing.Correction{
		RequestIDs: in.Body.RequestIDs, Outcome: in.Body.Outcome, By: in.Body.By, Note: in.Body.Note,
	})
	if err != nil {
		return nil, a.problem(ctx, err)
	}
	return &chargesOutput{Body: records(corrected)}, nil
}

package cmd

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"drayman/billing"
)

// chargeCommands are a client of the HTTP API, as those on billing runs.
type chargeCommands struct {
	Resolve chargeResolveCommand `cmd:"" help:"Settle an unresolved charge, after a look into the shop's books."`
	Correct chargeCorrectCommand `cmd:"" help:"Correct settled charges, charged to declined or declined to charged."`
}

// verdictFlags are what a person says. Their JSON is part of the body.
type verdictFlags struct {
	Outcome billing.ChargeStatus `json:"outcome" once:"" required:"" enum:"charged,declined" help:"What the shop's books say: charged or declined." placeholder:"OUTCOME"`
	Note    string               `json:"note" once:"" required:"" help:"Why, for those who ask later." placeholder:"TEXT"`
	By      string               `json:"by,omitempty" once:"" help:"Who says so." placeholder:"NAME"`
}

func (f *verdictFlags) validate() error {
	err := billing.Resolution{Outcome: f.Outcome, By: f.By, Note: f.Note}.Validate()
	var known *billing.Error
	if errors.As(err, &known) {
		return errors.New("--" + known.Detail)
	}
	return nil
}

type chargeResolveCommand struct {
	Subscription string         `arg:"" help:"The subscription's id."`
	Period       billing.Period `arg:"" help:"A month, such as 2026-11."`
	verdictFlags
	apiFlags
}

// Validate implements kong's validation, as do the other commands'.
func (c *chargeResolveCommand) Validate() error {
	return cmp.Or(billing.ValidateID("<subscription>", c.Subscription), c.verdictFlags.validate(), c.apiFlags.validate())
}

// Run settles the charge and shows it.
func (c *chargeResolveCommand) Run(ctx context.Context, env *environment) error {
	var charge billing.Charge
	path := fmt.Sprintf("/subscription/%s/charges/%s/resolve", url.PathEscape(c.Subscription), c.Period)
	if _, err := newRunAPI(c.APIURL).read(ctx, http.MethodPost, path, c.verdictFlags, &charge); err != nil {
		return err
	}
	showCharge(env.stdout, charge)
	return nil
}

type chargeCorrectCommand struct {
	RequestIDs []string `arg:"" name:"request-id" help:"Request ids of the charges; - reads them from standard input, one a line."`
	verdictFlags
	Yes bool `once:"" help:"Do not ask before several charges are corrected."`
	apiFlags
}

// Help says what a correction does.
func (*chargeCorrectCommand) Help() string {
	return "The shop is not asked. After a correction to declined, the next run or a request with a new request id orders anew. " +
		"A thousand charges at a time are all corrected or none; one that has the outcome already stays as it is, so the command can be repeated."
}

// Validate implements kong's validation.
func (c *chargeCorrectCommand) Validate() error {
	if slices.Contains(c.RequestIDs, "-") {
		if len(c.RequestIDs) > 1 {
			return errors.New("<request-id>: - stands alone")
		}
		if !c.Yes {
			return errors.New("<request-id>: with - the answer to a question cannot be read, so --yes is needed")
		}
	}
	return cmp.Or(validateRequestIDs(c.RequestIDs), c.verdictFlags.validate(), c.apiFlags.validate())
}

// validateRequestIDs looks at all, before the first is corrected.
func validateRequestIDs(ids []string) error {
	for _, id := range ids {
		if _, err := billing.ParseRequestID(id); err != nil && id != "-" {
			return fmt.Errorf("%.50q: %w", id, err)
		}
	}
	return nil
}

// Run corrects the charges, up to a thousand at a time, and shows them.
func (c *chargeCorrectCommand) Run(ctx context.Context, env *environment) error {
	ids := c.RequestIDs
	if ids[0] == "-" {
		var err error
		if ids, err = lines(os.Stdin); err != nil {
			return err
		}
		if err := validateRequestIDs(ids); err != nil {
			return err
		}
	}
	if len(ids) > 1 {
		what := fmt.Sprintf("%d charges become %s; the shop is not asked.", len(ids), c.Outcome)
		if err := env.confirm(ctx, c.Yes, what, "Correct them?", "corrected"); err != nil {
			return err
		}
	}
	api := newRunAPI(c.APIURL)
	done := 0
	for batch := range slices.Chunk(ids, billing.MaxCorrections) {
		var charges []billing.Charge
		body := struct {
			RequestIDs []string `json:"request_ids"`
			verdictFlags
		}{batch, c.verdictFlags}
		if _, err := api.read(ctx, http.MethodPost, "/charges/correct", body, &charges); err != nil {
			if done > 0 {
				err = fmt.Errorf("%w; the first %d are corrected", err, done)
			}
			return err
		}
		done += len(batch)
		for _, charge := range charges {
			showCharge(env.stdout, charge)
		}
	}
	return nil
}

// lines reads what is not blank, one entry a line.
func lines(r io.Reader) (entries []string, err error) {
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		if entry := strings.TrimSpace(scanner.Text()); entry != "" {
			entries = append(entries, entry)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("standard input: %w", err)
	}
	if len(entries) == 0 {
		return nil, errors.New("standard input has no request id")
	}
	return entries, nil
}

func showCharge(w io.Writer, c billing.Charge) {
	fmt.Fprintf(w, "%s: %s, subscription %s, %s\n", oneLine(string(c.RequestID)), c.Status, oneLine(c.SubscriptionID), c.Period)
}

package api_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/api"
	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

func TestInstallation_IsRead(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db modelstest.Database) {
		s := setup(t, db, options{})
		require.JSONEq(t, `{"id":"`+modelstest.Installation+`","name":"","may_charge":true}`, s.do(t, http.MethodGet, "/installation", "").Raw)
		db.Exec(t, "UPDATE installation SET name = 'staging'")
		require.Contains(t, s.do(t, http.MethodGet, "/installation", "").Raw, `"name":"staging","may_charge":false,"refusal":"the database is the installation \"staging\", and INSTALLATION is not set`)
	})
}

// Two databases that pass for the same installation, and a worker on the wrong one: what
// is answered stands in the ledger of the API that answers.
func TestCharge_200StandsInOurOwnLedger(t *testing.T) {
	t.Parallel()
	theirs, ours := modelstest.Postgres(t), modelstest.SQLite(t)
	for _, db := range []modelstest.Database{theirs, ours} {
		db.AddClub(t, 1, 1)
		db.AddSubscription(t, "s", 1, "anna")
		db.AddSubscription(t, "d", 1, "bert")
	}
	s := setup(t, theirs, options{})
	s.shop.SetFaults(shoptest.Fault{CustomerIDs: []string{"bert"}, Status: http.StatusPaymentRequired})
	server := httptest.NewServer(api.New(api.Config{
		Store: ours.Open(t, nil), Temporal: s.temporal, Zone: time.UTC, ChargeWait: 20 * time.Second, RequireEligible: true,
	}))
	t.Cleanup(server.Close)
	s.url = server.URL
	for _, subscription := range []string{"s", "d"} {
		a := s.charge(t, subscription, "r-"+subscription)
		require.Equal(t, http.StatusAccepted, a.Code, a.Raw)
		require.NotEmpty(t, a.Header.Get("Location"))
	}
	require.Empty(t, ours.Lines(t, "SELECT request_id FROM charge"))
	require.Len(t, theirs.Lines(t, "SELECT request_id FROM charge"), 2)
}

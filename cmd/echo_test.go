package cmd_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/shop/shoptest"
)

const anothersOrder = `{"order_id":"LATE","request_id":"another","customer_id":"another"}`

// notOnes finds rows that are charged with an order of somebody else.
const notOnes = `SELECT request_id || ' of ' || customer_id || ': ' || shop_order FROM charge
	WHERE status = 'charged' AND (shop_order::json ->> 'request_id' <> request_id OR shop_order::json ->> 'customer_id' <> customer_id)`

// Given a shop that compares request ids without case, and sends second answers:
// no customer ends with another's order, and nobody has two.
func TestEcho_NobodyEndsWithAnothersOrder(t *testing.T) {
	t.Parallel()
	for name, idempotent := range map[string]bool{"idempotent": true, "not idempotent": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{FoldCase: true})
			s.subscribers(t, 200)
			for _, id := range []string{"abc", "ABC", "Abc"} {
				s.db.AddSubscription(t, id, 1, "c-"+id)
			}
			s.shop.SetFaults(shoptest.Fault{Percent: 20, PercentOfCalls: true, Seed: 1, Extra: anothersOrder})
			serve, api := s.api(t, "serve", fmt.Sprintf("SHOP_IDEMPOTENT=%t", idempotent), "CHARGE_RETRY_FOR=3s")
			serve.find(t, `(worker polls)`)
			mustSend(t, http.MethodPost, runURL(api), `{"page_size":50,"concurrency":8}`)
			eventuallyRun(t, api, "finished")
			s.shop.SetFaults()

			require.Empty(t, s.db.Lines(t, notOnes))
			require.Empty(t, s.db.Lines(t, `SELECT failure_code FROM charge WHERE status <> 'charged' AND failure_code <> 'in_doubt'`))
			if idempotent {
				require.Equal(t, []string{"203"}, s.db.Lines(t, `SELECT count(*)::text FROM charge WHERE status = 'charged'`))
			}
			require.Len(t, s.shop.Orders(), 203)
			for _, o := range s.shop.Orders() {
				require.Len(t, s.shop.OrdersFor(o.CustomerID), 1)
			}

			s.db.AddSubscription(t, "first", 1, "c-first")
			s.db.AddSubscription(t, "second", 1, "c-second")
			require.Equal(t, http.StatusOK, mustSend(t, http.MethodPost, api+"/subscription/first/charge/X", "").Code)
			second := mustSend(t, http.MethodPost, api+"/subscription/second/charge/x", "", "Prefer", "wait=60")
			require.Equal(t, http.StatusConflict, second.Code, second.Body)
			require.Equal(t, "charge_unresolved", second.Body["code"])
			require.Contains(t, second.Body["detail"], `about another order: asked for request_id "x", answered "X"`)
			require.Empty(t, s.db.Lines(t, notOnes))
		})
	}
}

// Given a shop whose answers name something else: SHOP_ECHO, empty or none, turns the
// comparison off.
func TestEcho_CanBeTurnedOff(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"SHOP_ECHO=", "SHOP_ECHO=none"} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, binary(t, "TEST_TEMPORAL_ADDRESS"), shoptest.Options{})
			s.db.AddSubscription(t, "s", 1, "anna")
			s.shop.SetFaults(shoptest.Fault{Body: anothersOrder})
			_, api := s.api(t, "serve", set)
			var charged answer
			require.Eventually(t, func() bool { // until the worker is there
				var err error
				charged, err = send(http.MethodPost, api+"/subscription/s/charge/r-1", "")
				return err == nil && charged.Code == http.StatusOK
			}, time.Minute, 100*time.Millisecond)
			require.Contains(t, fmt.Sprint(charged.Body["order"]), "LATE")
		})
	}
}

package activities

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"drayman/billing"
	"drayman/shop"
)

func TestPage_Adapt(t *testing.T) {
	t.Parallel()
	const concurrency = 16
	for name, c := range map[string]struct {
		batch  int
		took   time.Duration
		orders int
		want   int
	}{
		"quick and full: it grows":           {16, batchTime/4 - 1, 16, 64},
		"quick, but there were fewer orders": {64, 0, 63, 64},
		"it grows up to the most":            {200, 0, 200, maxBatch},
		"neither quick nor slow":             {64, batchTime / 4, 64, 64},
		"just in time":                       {64, batchTime, 64, 64},
		"slow: it shrinks":                   {64, batchTime + 1, 64, 32},
		"slow, whatever it held":             {64, batchTime + 1, 1, 32},
		"no smaller than the concurrency":    {24, time.Hour, 24, concurrency},
		"the smallest stays":                 {concurrency, time.Hour, 16, concurrency},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &page{in: ChargePageInput{Concurrency: concurrency}, batch: c.batch}
			p.adapt(c.took, c.orders)
			require.Equal(t, c.want, p.batch)
		})
	}
}

// outcomes are orders of a batch, as they were placed.
func outcomes(n int, status billing.ChargeStatus, attempts int) []billing.PlacedCharge {
	placed := make([]billing.PlacedCharge, n)
	for i := range placed {
		placed[i] = billing.PlacedCharge{Charge: billing.Charge{Status: status, Attempts: attempts, FailureDetail: string(status)}}
	}
	return placed
}

func TestPage_Judge(t *testing.T) {
	t.Parallel()
	const none = billing.ChargeStatus("")
	for name, c := range map[string]struct {
		batches [][]billing.PlacedCharge
		fails   billing.ChargeStatus // of what the page tells; none: it goes on
	}{
		"all charged":                        {[][]billing.PlacedCharge{outcomes(20, billing.Charged, 1)}, none},
		"declined is an answer":              {[][]billing.PlacedCharge{outcomes(20, billing.Declined, 1)}, none},
		"too few to judge":                   {[][]billing.PlacedCharge{outcomes(19, billing.Pending, 1)}, none},
		"enough to judge":                    {[][]billing.PlacedCharge{outcomes(20, billing.Pending, 1)}, billing.Pending},
		"in doubt":                           {[][]billing.PlacedCharge{outcomes(20, billing.Unresolved, 1)}, billing.Unresolved},
		"half of them":                       {[][]billing.PlacedCharge{outcomes(10, billing.Pending, 1), outcomes(10, billing.Charged, 1)}, none},
		"more than half":                     {[][]billing.PlacedCharge{outcomes(9, billing.Charged, 1), outcomes(11, billing.Pending, 1)}, billing.Pending},
		"the batches of a page are added up": {[][]billing.PlacedCharge{outcomes(10, billing.Pending, 1), outcomes(10, billing.Pending, 2)}, billing.Pending},
		"a good beginning counts":            {[][]billing.PlacedCharge{outcomes(500, billing.Charged, 1), outcomes(400, billing.Pending, 1)}, none},
		"not sent in time":                   {[][]billing.PlacedCharge{outcomes(20, billing.Charged, 1), outcomes(480, billing.Pending, 0)}, none},
		"in doubt since an earlier try":      {[][]billing.PlacedCharge{outcomes(500, billing.Unresolved, 0)}, none},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &page{}
			for _, batch := range c.batches {
				require.False(t, p.stopped(), "too early")
				p.judge(batch)
			}
			require.Equal(t, c.fails != none, p.stopped())
			require.Equal(t, string(c.fails), p.out.Detail)
		})
	}
}

// What has stopped the page first is told.
func TestPage_Judge_KeepsTheReason(t *testing.T) {
	t.Parallel()
	p := &page{}
	p.stop(StopRefused, "401")
	p.judge(outcomes(500, billing.Pending, 1))
	require.Equal(t, ChargePageOutput{Stop: StopRefused, Detail: "401"}, p.out)
}

func TestPauseBefore(t *testing.T) {
	t.Parallel()
	notNow := func(retryAfter time.Duration) shop.Answer {
		return shop.Answer{Outcome: shop.NotNow, RetryAfter: retryAfter}
	}
	refused := func(retryAfter time.Duration) shop.Answer {
		return shop.Answer{Outcome: shop.Refused, RetryAfter: retryAfter}
	}
	for name, c := range map[string]struct {
		attempt int32
		last    shop.Answer
		want    time.Duration
	}{
		"second":                   {2, notNow(0), OrderPause},
		"third":                    {3, notNow(0), 2 * OrderPause},
		"tenth":                    {10, notNow(0), 256 * OrderPause},
		"the longest":              {11, notNow(0), OrderPauseMax},
		"without an overflow":      {1 << 30, notNow(0), OrderPauseMax},
		"the shop names a wait":    {2, notNow(time.Hour), time.Hour},
		"a short one":              {20, notNow(time.Millisecond), time.Millisecond},
		"refused":                  {2, refused(0), refusedRetry},
		"refused, names a wait":    {2, refused(time.Hour), time.Hour},
		"refused, names too short": {20, refused(time.Second), refusedRetry},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, pauseBefore(c.attempt, c.last))
		})
	}
}

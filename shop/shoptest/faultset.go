package shoptest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
)

// faultSet is the list of faults with their counts.
type faultSet struct {
	mu    sync.Mutex
	rules []*rule
}

// rule is a fault at work.
type rule struct {
	Fault
	draws *rand.Rand
	all   int            // how often it acted
	each  map[string]int // the same, for each request id
}

func (s *faultSet) replace(faults []Fault) error {
	rules := make([]*rule, len(faults))
	for i, fault := range faults {
		if err := fault.Validate(); err != nil {
			return fmt.Errorf("fault %d: %w", i+1, err)
		}
		fault.CustomerIDs = slices.Clone(fault.CustomerIDs)
		rules[i] = &rule{Fault: fault, draws: rand.New(rand.NewPCG(fault.Seed, 0)), each: map[string]int{}}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rules = rules
	return nil
}

func (s *faultSet) list() []Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	faults := make([]Fault, len(s.rules))
	for i, rule := range s.rules {
		faults[i] = rule.Fault
	}
	return faults
}

// take returns the first fault for a call, and counts it; false if there is none.
func (s *faultSet) take(requestID string, order orderBody) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rule := range s.rules {
		if rule.fits(requestID, order) && rule.drawn(order.customerID) && rule.count(requestID) {
			return rule.Fault, true
		}
	}
	return Fault{}, false
}

// drawn reports whether the call is within the share of the fault.
func (r *rule) drawn(customerID string) bool {
	switch {
	case r.Percent == 0:
		return true
	case r.PercentOfCalls:
		return r.draws.Float64()*100 < r.Percent
	}
	return share(r.Seed, customerID)*100 < r.Percent
}

// share maps a customer to a place in [0, 1), evenly spread, which depends on seed and
// id alone.
func share(seed uint64, customerID string) float64 {
	sum := sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, seed), customerID...))
	return float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
}

// count takes one of the fault's times, or reports that they are used up.
func (r *rule) count(requestID string) bool {
	if r.Times == 0 {
		return true
	}
	if r.TimesInAll {
		r.all++
		return r.all <= r.Times
	}
	if r.each[requestID] >= r.Times {
		return false
	}
	r.each[requestID]++
	return true
}

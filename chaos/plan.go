package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// sizes are how large a campaign is. With a seed they make its plan.
type sizes struct {
	Seed              uint64        `json:"seed"`
	Idempotent        bool          `json:"shop_idempotent"`
	Subscriptions     int           `json:"subscriptions"`
	Months            int           `json:"months"` // number of months with a billing run: the current one and those before it
	Kills             int           `json:"kills"`
	Duration          time.Duration `json:"duration"` // from the beginning until all faults end
	Restores          int           `json:"restores"`
	Failovers         int           `json:"failovers"`
	SetbacksOnly      bool          `json:"setbacks_only"`
	PermanentDeclines bool          `json:"permanent_declines"` // no card is fixed at half-time
}

// plan is what will be done. Times count from the beginning.
type plan struct {
	Sizes       sizes        `json:"sizes"`
	Subscribers []subscriber `json:"subscribers"`
	Joins       []join       `json:"joins"`
	Charges     []charge     `json:"charges"`
	Changes     []change     `json:"changes"`
	Runs        []runStep    `json:"runs"`
	Kills       []kill       `json:"kills"`
	Toxics      []toxic      `json:"toxics"`
	Storms      []storm      `json:"storms"`
	Setbacks    []setback    `json:"setbacks"`
	Aftermath   *aftermath   `json:"aftermath,omitempty"`
}

// kinds of subscribers at the beginning. Only those who are eligible may ever be
// charged; the changes of the plan are made to no others.
const (
	kindEligible   = "eligible"
	kindClosedClub = "closed_club" // eligible as well
	kindPaused     = "paused"
	kindInactive   = "inactive_club"
	kindNoStatus   = "no_status"
)

type subscriber struct {
	ID       string `json:"id"`
	Customer string `json:"customer"` // has this subscription only
	Kind     string `json:"kind"`
	// Declined says whether the shop declines the customer: until half-time, when
	// the card is fixed, or to the end.
	Declined string `json:"declined,omitempty"`
}

// The values of subscriber.Declined.
const (
	declinedAtFirst = "at first"
	declinedAlways  = "always"
)

// declined are the customers whom the shop declines, before half-time or after it.
func (p *plan) declined(atLast bool) []string {
	var customers []string
	for _, s := range p.Subscribers {
		if s.Declined == declinedAlways || s.Declined == declinedAtFirst && !atLast {
			customers = append(customers, s.Customer)
		}
	}
	return customers
}

// joining begins the names of new customers.
const joining = "new-"

// join is a new customer, who subscribes and then charges.
type join struct {
	At       time.Duration `json:"at"`
	Customer string        `json:"customer"`
}

// charge is a customer who wants this month's order and asks until there is an
// answer.
type charge struct {
	At           time.Duration `json:"at"`
	Subscription string        `json:"subscription"`
	RequestID    string        `json:"request_id"`
}

// change is a customer who cancels or pauses, and, after a pause, comes back.
type change struct {
	At           time.Duration `json:"at"`
	Subscription string        `json:"subscription"`
	Status       int           `json:"status"`
	Back         time.Duration `json:"back,omitempty"` // 0: never
}

type runStep struct {
	At    time.Duration `json:"at"`
	Month int           `json:"month"` // 0 is the current one, 1 the one before …
	Do    string        `json:"do"`    // start, pause, resume, cancel, pace
	Pace  float64       `json:"pace,omitempty"`
}

type kill struct {
	At   time.Duration `json:"at"`
	Node string        `json:"node"`
	Down time.Duration `json:"down"` // until it is started again
}

// toxic is what toxiproxy does to a link; Type "down" refuses connections.
type toxic struct {
	At         time.Duration  `json:"at"`
	For        time.Duration  `json:"for"`
	Link       string         `json:"link"`
	Type       string         `json:"type"`
	Stream     string         `json:"stream,omitempty"`
	Attributes map[string]int `json:"attributes,omitempty"`
}

// storm is a time in which the shop does one wrong thing to a share of its calls.
type storm struct {
	At      time.Duration `json:"at"`
	For     time.Duration `json:"for"`
	Kind    string        `json:"kind"`
	Percent float64       `json:"percent"`
}

// setback puts the database back to the backup of an earlier moment.
type setback struct {
	Backup time.Duration `json:"backup"`
	At     time.Duration `json:"at"`
	Kind   string        `json:"kind"`
	// Down is how long nobody answers before a copy of the cluster takes over; Adopt is
	// how long a person takes to adopt a database that was restored from a dump.
	Down  time.Duration `json:"down,omitempty"`
	Adopt time.Duration `json:"adopt,omitempty"`
}

// kinds of setbacks. A dump comes back as another database, which a person has to
// adopt; a copy of the cluster is the same one, of another server start.
const (
	setbackDump = "dump"
	setbackCopy = "copy"
)

// aftermath is a setback when all months are closed, and who asks after it. The
// charges' times count from the end of the setback.
type aftermath struct {
	setback
	Charges []charge `json:"charges"`
}

// drawing makes a plan from one source of chance.
type drawing struct {
	*rand.Rand
	sizes
}

func newPlan(s sizes) *plan {
	d := drawing{rand.New(rand.NewPCG(s.Seed, 0)), s}
	p := &plan{Sizes: s, Subscribers: d.subscribers()}
	var eligible []string
	for _, sub := range p.Subscribers {
		if sub.Kind == kindEligible || sub.Kind == kindClosedClub {
			eligible = append(eligible, sub.ID)
		}
	}
	p.Joins = d.joins()
	p.Charges = d.charges(eligible)
	p.Changes = d.changes(eligible)
	p.Runs = d.runs()
	p.Kills = d.kills()
	p.Toxics = d.toxics()
	p.Storms = d.storms()
	p.Setbacks = d.setbacks()
	if d.Restores > 0 {
		p.Aftermath = d.aftermath(eligible)
	}
	if d.SetbacksOnly {
		p.Kills, p.Toxics, p.Storms = nil, nil, nil
	}
	return p
}

// when is a time before the given share of the campaign is over.
func (d drawing) when(share float64) time.Duration {
	return time.Duration(d.Float64() * share * float64(d.Duration)).Truncate(time.Millisecond)
}

func (d drawing) between(low, high time.Duration) time.Duration {
	return low + time.Duration(d.Int64N(int64(high-low)+1)).Truncate(time.Millisecond)
}

// perMinute is how many steps at that rate the campaign has.
func (d drawing) perMinute(rate float64) int { return int(rate * d.Duration.Minutes()) }

func (d drawing) subscribers() []subscriber {
	subscribers := make([]subscriber, d.Subscriptions)
	for i := range subscribers {
		kind := kindEligible
		switch x := d.Float64(); {
		case x < 0.02:
			kind = kindPaused
		case x < 0.03:
			kind = kindInactive
		case x < 0.04:
			kind = kindNoStatus
		case x < 0.14:
			kind = kindClosedClub
		}
		declined := ""
		switch x := d.Float64(); {
		case x < 0.015:
			declined = declinedAlways
		case x < 0.03:
			declined = declinedAtFirst
			if d.PermanentDeclines {
				declined = declinedAlways
			}
		}
		subscribers[i] = subscriber{ID: fmt.Sprintf("s-%06d", i), Customer: fmt.Sprintf("c-%06d", i), Kind: kind, Declined: declined}
	}
	return subscribers
}

func (d drawing) joins() []join {
	joins := make([]join, d.perMinute(15))
	for i := range joins {
		joins[i] = join{At: d.when(0.9), Customer: fmt.Sprintf(joining+"%06d", i)}
	}
	return inOrder(joins, func(j join) time.Duration { return j.At })
}

// charges are asked for by some one in four; of those some twice, on another
// key, at about the same time.
func (d drawing) charges(eligible []string) []charge {
	var charges []charge
	for i := range len(eligible) / 4 {
		id := eligible[d.IntN(len(eligible))]
		at := d.when(0.95)
		charges = append(charges, charge{At: at, Subscription: id, RequestID: fmt.Sprintf("front-%s-%d", id, i)})
		if d.Float64() < 0.1 {
			charges = append(charges, charge{
				At: at + d.between(0, 300*time.Millisecond), Subscription: id, RequestID: fmt.Sprintf("front-%s-%d-b", id, i),
			})
		}
	}
	return inOrder(charges, func(c charge) time.Duration { return c.At })
}

// changes are made by one in twelve, at most one by each.
func (d drawing) changes(eligible []string) []change {
	shuffled := slices.Clone(eligible)
	d.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	var changes []change
	for _, id := range shuffled[:len(shuffled)/12] {
		c := change{At: d.when(0.95), Subscription: id, Status: statusCancelled}
		if d.Float64() < 0.5 {
			c.Status = statusPaused
			if d.Float64() < 0.5 {
				c.Back = d.between(2*time.Second, 20*time.Second)
			}
		}
		changes = append(changes, c)
	}
	return inOrder(changes, func(c change) time.Duration { return c.At })
}

// runs starts the months one after the other, so that about two are under way at
// any time, disturbs each, and starts them again towards the end.
func (d drawing) runs() []runStep {
	var steps []runStep
	pace := float64(d.Subscriptions) / (0.3 * d.Duration.Seconds())
	slice := 0.8 * float64(d.Duration) / float64(d.Months)
	verb := deck(d, []string{"pause", "cancel", "pace"})
	for month := range d.Months {
		begin := time.Duration((float64(month) + 0.3*d.Float64()) * slice)
		step := func(after time.Duration, do string, pace float64) {
			steps = append(steps, runStep{At: begin + after, Month: month, Do: do, Pace: pace})
		}
		step(0, "start", pace)
		span := d.Duration / 5
		for at := d.between(0, span/2); at < span; at += d.between(span/8, span/2) {
			switch verb() {
			case "pause":
				step(at, "pause", 0)
				step(at+d.between(time.Second, 4*time.Second), "resume", 0)
			case "cancel":
				step(at, "cancel", 0)
				step(at+d.between(500*time.Millisecond, 3*time.Second), "start", pace)
			default:
				step(at, "pace", pace*(0.5+1.5*d.Float64()))
			}
		}
		step(d.Duration-begin-d.between(0, d.Duration/8), "start", 0)
	}
	return inOrder(steps, func(s runStep) time.Duration { return s.At })
}

// kills hit everything, workers most.
func (d drawing) kills() []kill {
	nodes := []struct {
		share float64
		names []string
	}{
		{0.48, []string{"worker-1", "worker-2", "worker-3"}},
		{0.68, []string{"api-1", "api-2"}},
		{0.80, []string{"postgres"}},
		{0.91, []string{"temporal"}},
		{1, []string{"shop"}},
	}
	kills := make([]kill, d.Kills)
	for i := range kills {
		x := d.Float64()
		for _, n := range nodes {
			if x < n.share {
				kills[i].Node = n.names[d.IntN(len(n.names))]
				break
			}
		}
		kills[i].At = d.when(0.97)
		kills[i].Down = d.between(0, 1500*time.Millisecond)
	}
	return inOrder(kills, func(k kill) time.Duration { return k.At })
}

// deck deals all before it deals one again, so that no kind is left out by chance.
func deck[T any](d drawing, all []T) func() T {
	var left []T
	return func() T {
		if len(left) == 0 {
			left = slices.Clone(all)
			d.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
		}
		next := left[0]
		left = left[1:]
		return next
	}
}

func (d drawing) toxics() []toxic {
	var toxics []toxic
	link := deck(d, []string{linkShop, linkShop, linkAPIDatabase, linkWorkerDatabase, linkWorkerDatabase, linkTemporal})
	kinds := map[string]func() int{}
	for _, name := range []string{linkShop, linkAPIDatabase, linkWorkerDatabase, linkTemporal} {
		kinds[name] = deck(d, []int{0, 1, 2, 3, 4, 5, 6})
	}
	for range d.perMinute(20) {
		name := link()
		t := d.toxic(kinds[name]())
		t.Link, t.At, t.For = name, d.when(0.95), d.between(300*time.Millisecond, 4*time.Second)
		toxics = append(toxics, t)
	}
	return inOrder(toxics, func(t toxic) time.Duration { return t.At })
}

func (d drawing) toxic(kind int) toxic {
	stream := []string{"upstream", "downstream"}[d.IntN(2)]
	switch kind {
	case 0:
		return toxic{Type: "latency", Stream: stream, Attributes: map[string]int{"latency": 50 + d.IntN(1500), "jitter": d.IntN(200)}}
	case 1: // one direction goes nowhere, the connection stays up: half open
		return toxic{Type: "timeout", Stream: stream, Attributes: map[string]int{"timeout": 0}}
	case 2: // cut in the middle of a message
		return toxic{Type: "limit_data", Stream: stream, Attributes: map[string]int{"bytes": 20 + d.IntN(6000)}}
	case 3:
		return toxic{Type: "reset_peer", Stream: stream, Attributes: map[string]int{"timeout": d.IntN(300)}}
	case 4:
		return toxic{Type: "bandwidth", Stream: stream, Attributes: map[string]int{"rate": 1 + d.IntN(20)}} // KB/s
	case 5: // the one side has closed, the other does not hear of it
		return toxic{Type: "slow_close", Stream: stream, Attributes: map[string]int{"delay": 500 + d.IntN(4000)}}
	}
	return toxic{Type: "down"}
}

func (d drawing) storms() []storm {
	var storms []storm
	kind := deck(d, stormKinds)
	for range d.perMinute(6) {
		storms = append(storms, storm{
			At: d.when(0.95), For: d.between(time.Second, 5*time.Second),
			Kind: kind(), Percent: float64(20 + d.IntN(81)),
		})
	}
	return inOrder(storms, func(s storm) time.Duration { return s.At })
}

// setbacks are spread over the campaign. A failover lacks what came in the last second
// or two, a restore up to a third of the campaign: it leads to before a run, into it
// or to after it.
func (d drawing) setbacks() []setback {
	kinds := make([]bool, d.Restores+d.Failovers) // whether it is a restore
	for i := range d.Restores {
		kinds[i] = true
	}
	d.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
	restored := deck(d, []string{setbackDump, setbackCopy})
	var setbacks []setback
	for i, restore := range kinds {
		share := 0.15 + 0.8*(float64(i)+0.6*d.Float64())/float64(len(kinds))
		s := setback{At: time.Duration(share * float64(d.Duration)).Truncate(time.Millisecond), Kind: setbackCopy}
		age := d.between(0, time.Second)
		if restore {
			s.Kind, age = restored(), d.between(time.Second, d.Duration/3)
		}
		s.Backup = max(0, s.At-age)
		s.Down, s.Adopt = d.between(0, 1500*time.Millisecond), d.between(0, 3*time.Second)
		setbacks = append(setbacks, s)
	}
	return setbacks
}

// aftermath goes back to the time at which the current month is charged. One in twenty
// asks.
func (d drawing) aftermath(eligible []string) *aftermath {
	kind := deck(d, []string{setbackDump, setbackCopy})
	a := &aftermath{setback: setback{Backup: d.when(0.5), Kind: kind(), Down: d.between(0, time.Second), Adopt: d.between(0, 3*time.Second)}}
	for i := range len(eligible) / 20 {
		id := eligible[d.IntN(len(eligible))]
		a.Charges = append(a.Charges, charge{At: d.between(0, 6*time.Second), Subscription: id, RequestID: fmt.Sprintf("late-%s-%d", id, i)})
	}
	a.Charges = inOrder(a.Charges, func(c charge) time.Duration { return c.At })
	return a
}

func inOrder[T any](steps []T, at func(T) time.Duration) []T {
	slices.SortStableFunc(steps, func(a, b T) int { return int(at(a) - at(b)) })
	return steps
}

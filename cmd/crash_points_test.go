package cmd_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// A worker has three sockets: to the database, to the shop and to Temporal. What
// the world knows of it has gone through one of them, so its possible deaths can
// be counted: it dies before a message is handed on, or after the other side has
// acted on it and before the worker hears of that. Proxies on the three sockets
// number the messages and kill at one of them.

// crash is a worker's way through its messages, and where on it the worker dies.
type crash struct {
	armed string        // the point to die at; "": it lives
	page  bool          // count while a ChargePage is at work, not from the start
	hit   chan struct{} // closed when the worker is dead

	telling sync.Mutex // held while the worker tells Temporal something

	mu        sync.Mutex
	victim    *process
	counting  bool
	dead      bool
	pageToken []byte         // of the page's activity task
	seen      map[string]int // points without their number
	points    []string
}

// The two sides of a message.
const (
	before = "before"
	after  = "after"
)

func newCrash(armed string, page bool) *crash {
	return &crash{armed: armed, page: page, hit: make(chan struct{}), seen: map[string]int{}}
}

// watch begins to count the messages of the process; those of a page begin when
// the process gets it.
func (c *crash) watch(p *process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.victim, c.counting = p, !c.page
}

// at passes a point, such as "before commit of insert charge" or, the third time,
// "after order 3". It returns false when the worker is dead: nothing may be
// handed on any more.
func (c *crash) at(side, what string) (alive bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead || !c.counting {
		return !c.dead
	}
	point := side + " " + what
	c.seen[point]++
	if n := c.seen[point]; n > 1 {
		point = fmt.Sprintf("%s %d", point, n)
	}
	c.points = append(c.points, point)
	if point != c.armed {
		return true
	}
	// Other connections wait for the lock meanwhile, with what they carry.
	c.victim.kill(syscall.SIGKILL)
	c.dead = true
	close(c.hit)
	return false
}

// pageTaken begins to count with the page's activity task.
func (c *crash) pageTaken(token []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.victim != nil && c.page && c.pageToken == nil {
		c.pageToken, c.counting = token, true
	}
}

// pageEnded ends the count.
func (c *crash) pageEnded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counting = c.counting && !c.page
}

// concerns says whether the activity task is one to count.
func (c *crash) concerns(token []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.page || len(token) > 0 && bytes.Equal(token, c.pageToken)
}

// passed returns the points in order.
func (c *crash) passed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.points)
}

// between puts the proxies on the sockets of a worker of the site and returns
// the settings that lead it through them.
func (c *crash) between(t *testing.T, s *site) []string {
	t.Helper()
	return []string{
		"DATABASE_URL=" + c.onDatabase(t, s.db.URL),
		"SHOP_URL=" + c.onShop(t, s.shop),
		"TEMPORAL_ADDRESS=" + c.onTemporal(t, binary(t, "TEST_TEMPORAL_ADDRESS")),
	}
}

package main

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"text/tabwriter"
)

// writeTable prints the median of each figure over the rounds and, if there are several,
// the least and the greatest.
func writeTable(w io.Writer, results []result) {
	first := results[0]
	fmt.Fprintf(w, "%d charges, %d rounds, %d processors, fsync and synchronous_commit on: %t\n\n",
		first.Charges, len(results), runtime.NumCPU(), first.Durable)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\tmedian\tleast\tgreatest\t\n")
	row := func(name, format string, figure func(r result) float64) {
		var values []float64
		for _, r := range results {
			values = append(values, figure(r))
		}
		slices.Sort(values)
		fmt.Fprintf(table, "%s\t"+format+"\t"+format+"\t"+format+"\t\n", name, median(values), values[0], values[len(values)-1])
	}
	row("charges/s, request to end of run", "%.0f", func(r result) float64 { return r.Run.PerSecond })
	row("orders/s, first to last order", "%.0f", func(r result) float64 { return r.Run.OrderRate })
	row("run, s", "%.1f", func(r result) float64 { return r.Run.Wall })
	row("orders asked for twice", "%.0f", func(r result) float64 { return float64(r.Run.Repeated) })
	row("worker, peak memory, MB", "%.0f", func(r result) float64 { return float64(r.Run.WorkerMemory) / 1e6 })
	row("worker, processor s", "%.1f", func(r result) float64 { return r.Run.WorkerTime })
	row("PostgreSQL, processor s", "%.1f", func(r result) float64 { return r.Run.DatabaseTime })
	row("shop, processor s", "%.1f", func(r result) float64 { return r.Run.ShopTime })
	row("everything on the machine, processor s", "%.1f", func(r result) float64 { return r.Run.MachineTime })
	row("workflows", "%.0f", func(r result) float64 { return float64(r.Temporal.Workflows) })
	row("histories", "%.0f", func(r result) float64 { return float64(r.Temporal.Histories) })
	row("events in all histories", "%.0f", func(r result) float64 { return float64(r.Temporal.Events) })
	row("size of all histories, kB", "%.0f", func(r result) float64 { return float64(r.Temporal.Bytes) / 1e3 })
	row("Temporal actions", "%.0f", func(r result) float64 { return float64(r.Temporal.Actions.total()) })
	row("Temporal actions a charge", "%.5f", func(r result) float64 { return r.PerCharge })
	if first.Calls > 0 {
		row("baseline: calls alone, orders/s", "%.0f", func(r result) float64 { return r.Calls })
		row("baseline: row by row, charges/s", "%.0f", func(r result) float64 { return r.RowByRow })
		row("run : calls alone", "%.2f", func(r result) float64 { return r.OfCalls })
		row("run : row by row", "%.2f", func(r result) float64 { return r.OfRows })
	}
	_ = table.Flush() // to a terminal
	fmt.Fprintf(w, "\nActions of the last round: %+v\n", results[len(results)-1].Temporal.Actions)
	fmt.Fprintln(w, "The shop held exactly one order for each charge in every round.")
}

func median(sorted []float64) float64 {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

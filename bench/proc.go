package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// ticks a second of the times in /proc, on every Linux that Go runs on.
const ticks = 100

// peakMemory is the most memory that the process has had at once, in bytes.
func peakMemory(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kilobytes, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}

// processorTime is what the processes have used so far, in seconds.
func processorTime(pids ...int) float64 {
	total := 0.0
	for _, pid := range pids {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything; utime and stime are the
		// 12th and 13th field after it.
		_, rest, _ := strings.Cut(string(data[strings.LastIndexByte(string(data), ')')+1:]), " ")
		if fields := strings.Fields(rest); len(fields) > 12 {
			user, _ := strconv.ParseFloat(fields[11], 64)
			system, _ := strconv.ParseFloat(fields[12], 64)
			total += (user + system) / ticks
		}
	}
	return total
}

// machineTime is how long the processors of the machine have worked, all
// together, in seconds.
func machineTime() float64 {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(data), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0
	}
	total := 0.0
	for i, field := range fields[1:9] {
		if i == 3 || i == 4 { // idle, waiting for a disk
			continue
		}
		value, _ := strconv.ParseFloat(field, 64)
		total += value / ticks
	}
	return total
}

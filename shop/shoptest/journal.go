package shoptest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// journal keeps the order book in a file, one order a line as JSON. A line that
// was written survives the death of the process, not that of the machine: it
// is not synced to disk. One process at a time.
type journal struct {
	file *os.File
	size int64 // end of the last whole line
}

// openJournal gives each order of the file to add, and cuts off a torn last line.
func openJournal(path string, add func(Order)) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("shoptest: open the journal: %w", err)
	}
	j := &journal{file: file}
	if err := j.load(add); err != nil {
		return nil, errors.Join(fmt.Errorf("shoptest: read the journal %s: %w", path, err), file.Close())
	}
	if err := file.Truncate(j.size); err != nil {
		return nil, errors.Join(fmt.Errorf("shoptest: repair the journal: %w", err), file.Close())
	}
	return j, nil
}

func (j *journal) load(add func(Order)) error {
	lines := bufio.NewReader(j.file)
	for number := 1; ; number++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil // what is in line has no end: torn
		}
		if err != nil {
			return err
		}
		var order Order
		if err := json.Unmarshal(line, &order); err != nil {
			if _, more := lines.Peek(1); errors.Is(more, io.EOF) {
				return nil // the last line: torn as well
			}
			return fmt.Errorf("line %d: %w", number, err)
		}
		add(order)
		j.size += int64(len(line))
	}
}

// append writes one order. A line that was written in part is cut off if possible,
// and is otherwise overwritten by the next.
func (j *journal) append(order Order) error {
	line, err := json.Marshal(order)
	if err != nil {
		return fmt.Errorf("shoptest: journal: %w", err)
	}
	line = append(line, '\n')
	if _, err := j.file.WriteAt(line, j.size); err != nil {
		return errors.Join(fmt.Errorf("shoptest: journal: %w", err), j.file.Truncate(j.size))
	}
	j.size += int64(len(line))
	return nil
}

func (j *journal) reset() error {
	j.size = 0
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("shoptest: empty the journal: %w", err)
	}
	return nil
}

func (j *journal) close() error { return j.file.Close() }

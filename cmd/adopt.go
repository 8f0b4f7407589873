package cmd

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"drayman/billing"
	"drayman/models"
)

// adoptCommand is a person's word that the database may charge where it stands now.
type adoptCommand struct {
	Note string `once:"" help:"Why, for those who ask later. Required, but with --copy." placeholder:"TEXT"`
	Copy bool   `once:"" help:"The database is a copy: it gets an id of its own, and the other one goes on charging."`
	By   string `once:"" help:"Who says so." placeholder:"NAME"`
	Yes  bool   `once:"" help:"With --copy: do not ask, also if the database may charge already."`
	databaseFlags
	logFlags
}

// Help implements kong's HelpProvider.
func (*adoptCommand) Help() string {
	return "A database that was restored on another server, moved, copied, or opened under another INSTALLATION charges nobody until " +
		"a person has said what it is. With --note alone it takes the place of the one that it was made from, which must charge no longer. " +
		"With --copy it is another installation: give it a shop of its own, or the customers are charged by both. Who, when and why are kept " +
		"in the table audit."
}

// Validate implements kong's validation.
func (c *adoptCommand) Validate() error {
	if c.Note == "" && !c.Copy {
		return errors.New("--note: say why the database may charge here; or give --copy, if the one that it was copied from goes on charging")
	}
	for field, text := range map[string]string{"note": c.Note, "by": c.By} {
		if err := billing.ValidateText(field, text, 0, map[string]int{"note": 1024, "by": 128}[field]); err != nil {
			return flagError(err)
		}
	}
	return nil
}

// Run adopts the database.
func (c *adoptCommand) Run(ctx context.Context, env *environment) error {
	return withDatabase(ctx, env, c.databaseFlags, c.logFlags, func(store *models.Store, _ *sql.DB) error {
		if err := checkSchema(ctx, store); err != nil {
			return err
		}
		if err := c.confirmCopy(ctx, env, store); err != nil {
			return err
		}
		adopted, changed, err := store.Adopt(ctx, billing.Adoption{Copy: c.Copy, By: c.By, Note: c.Note})
		switch {
		case err != nil:
			return err
		case adopted.ID == "":
			return errors.New("the database has no installation; run `drayman migrate up`")
		case !changed:
			fmt.Fprintf(env.stdout, "nothing to do: the database is the installation %s and charges here already\n", adopted.ID)
		case c.Copy:
			fmt.Fprintf(env.stdout, "the database is a new installation, %s; mind that its shop is not the other one's\n", adopted.ID)
		default:
			fmt.Fprintf(env.stdout, "the database is the installation %s and charges here from now on; the one that it was made from must charge no longer\n", adopted.ID)
		}
		return nil
	})
}

// confirmCopy asks before a database gets a new id although it may charge as it stands. On
// the original, nobody would go on with its runs and charges.
func (c *adoptCommand) confirmCopy(ctx context.Context, env *environment, store *models.Store) error {
	found, err := store.Installation(ctx)
	if err != nil || !c.Copy || found.MayCharge() != nil {
		return err
	}
	what := fmt.Sprintf("The database charges here already, as the installation %s. As a copy it gets a new id: runs and charges that are under way, "+
		"and the schedule, keep the old one and are not done. Only a clone, whose original goes on charging, is meant.", found.ID)
	return env.confirm(ctx, c.Yes, what, "Is this a clone?", "changed")
}

package billing

import (
	"fmt"
	"regexp"
)

// Installation is one database that charges at one shop. Its row is made once and
// moves with the database: a backup that is restored elsewhere still says where it
// was at home.
type Installation struct {
	ID   string // made at random, never changed but for a copy
	Name string // INSTALLATION, under which it was made or adopted; "" by default
	Seat string // the server and database in which it was made or adopted

	// Recalled is the incarnation of the database that the recall has looked through:
	// what Temporal remembers of charges is in its ledger. See models.Store.Recalled.
	Recalled string

	// Configured, Here and Incarnation are the name, the seat and the incarnation that
	// the process which reads the row finds.
	Configured, Here, Incarnation string
}

// Adoption is a person's word that the database which stands here may charge.
type Adoption struct {
	// Copy gives the database a new id: the installation that it was copied from
	// goes on charging elsewhere. Without it, the database is the same installation,
	// restored or moved.
	Copy     bool
	By, Note string
}

// MaxInstallation is the length of an installation's name, in bytes.
const MaxInstallation = 32

var installationForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// ValidateInstallation checks the name of an installation: "", or 1 to 32 characters
// of a-z 0-9 and hyphens, none at an end. It stands in workflow ids and task queues.
func ValidateInstallation(name string) error {
	if name != "" && !installationForm.MatchString(name) {
		return Invalid("installation", "must have 1 to 32 characters of a-z 0-9 and -, and neither begin nor end with -")
	}
	return nil
}

// MayCharge returns an error with [CodeNotAdopted] if no person has said that the
// database may charge here, see [Installation.Adopted]; or with [CodeDatabaseReplaced] if
// the database was restarted, restored or replaced since the last recall: it may lack
// charges, so nobody is charged until the recall has looked through it.
func (i Installation) MayCharge() error {
	if err := i.Adopted(); err != nil {
		return err
	}
	if i.Incarnation != i.Recalled {
		return Errorf(CodeDatabaseReplaced, "the database was restarted, or another stands in its place; "+
			"nobody is charged until the workflow Recall has put back what the ledger may lack, which takes some seconds")
	}
	return nil
}

// Permits is [Installation.MayCharge] for a charge or a run that the installation with the id
// asked has asked for; "" is not checked. recalled is the incarnation with which a run began:
// another one is [CodeDatabaseReplaced]; "" is any that is recalled.
func (i Installation) Permits(asked, recalled string) error {
	if recalled != "" && i.Adopted() == nil && i.Recalled != recalled {
		return Errorf(CodeDatabaseReplaced, "the database was replaced since the run began")
	}
	if err := i.MayCharge(); err != nil || asked == "" {
		return err
	}
	return i.Requires(asked)
}

// Adopted returns an error with [CodeNotAdopted] if the database was copied, restored or
// moved, or is opened under another name, and no person has said that it may charge.
func (i Installation) Adopted() error {
	var found string
	switch {
	case i.ID == "":
		return Errorf(CodeNotAdopted, "the database has no installation, so nobody is charged; run `drayman migrate up`")
	case i.Name != i.Configured:
		found = fmt.Sprintf("is the installation %s, and INSTALLATION is %s",
			named(i.Name, "without a name"), named(i.Configured, "not set"))
	case i.Seat != i.Here:
		found = fmt.Sprintf("was made or adopted in another place (%s) than where it stands (%s): it is a copy, was restored, or was moved", i.Seat, i.Here)
	default:
		return nil
	}
	return Errorf(CodeNotAdopted, "the database %s. So nobody is charged until a person runs `drayman adopt --note …` "+
		"(it takes the place of the other one) or `drayman adopt --copy` (the other one goes on charging), with the DATABASE_URL and INSTALLATION of this process", found)
}

func named(name, none string) string {
	if name == "" {
		return none
	}
	return fmt.Sprintf("%q", name)
}

// Requires returns an error with [CodeOtherInstallation] if a charge or a run was
// asked for by another installation than this one, or by none.
func (i Installation) Requires(asked string) error {
	if asked == "" {
		return Errorf(CodeOtherInstallation, "the input names no installation; that of this worker's database is %q", i.ID)
	}
	if asked != i.ID {
		return Errorf(CodeOtherInstallation, "the input is of installation %q and this worker's database is %q: two installations "+
			"share a Temporal namespace, or a worker has a wrong DATABASE_URL; give each a TEMPORAL_NAMESPACE or an INSTALLATION of its own", asked, i.ID)
	}
	return nil
}

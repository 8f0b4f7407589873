package cmd_test

import (
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"drayman/models/modelstest"
	"drayman/shop/shoptest"
)

// These tests hold docker-compose.yml and the Dockerfile to what the program
// really takes. They need no Docker: no image is built or pulled.

const (
	composeFile = "../docker-compose.yml"
	dockerfile  = "../Dockerfile"
)

type composeService struct {
	Image       string
	Build       any
	Command     []string
	Environment map[string]string
	Secrets     []string
	Ports       []string
	Profiles    []string
	Healthcheck struct{ Test []string }
	DependsOn   map[string]struct{ Condition string } `yaml:"depends_on"`
}

type composition struct {
	Services map[string]composeService
	Secrets  map[string]struct{ File string }
}

var interpolation = regexp.MustCompile(`\$\$|\$\{[A-Z_]+(?::-([^}]*))?\}`)

// requireHosts requires that a server is known by the names, "" being that of the
// URL, and by no other.
func requireHosts(t *testing.T, url string, names []string) {
	t.Helper()
	for _, host := range append(names, "rebind.evil.example", "rebind.evil.example:8080") {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		req.Host = host
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		if slices.Contains(names, host) {
			require.Equal(t, http.StatusOK, res.StatusCode, host)
		} else {
			require.Equal(t, http.StatusMisdirectedRequest, res.StatusCode, host)
		}
	}
}

// compose reads the file as Docker Compose does where no variable is set.
func compose(t *testing.T) composition {
	t.Helper()
	text, err := os.ReadFile(composeFile)
	require.NoError(t, err)
	text = interpolation.ReplaceAllFunc(text, func(found []byte) []byte {
		if string(found) == "$$" {
			return []byte("$")
		}
		return interpolation.FindSubmatch(found)[1]
	})
	var c composition
	require.NoError(t, yaml.Unmarshal(text, &c))
	require.NotEmpty(t, c.Services)
	return c
}

// ours are the services that run Drayman itself, by name.
func (c composition) ours() map[string]composeService {
	ours := maps.Clone(c.Services)
	maps.DeleteFunc(ours, func(_ string, s composeService) bool { return !strings.HasPrefix(s.Image, "drayman:") })
	return ours
}

func TestComposePublishesOnThisMachineOnly(t *testing.T) {
	for name, service := range compose(t).Services {
		for _, port := range service.Ports {
			require.Regexp(t, `^127\.0\.0\.1:\d+:\d+$`, port, name)
		}
	}
}

func TestComposePinsItsImages(t *testing.T) {
	for name, service := range compose(t).Services {
		if service.Build == nil {
			require.Regexp(t, `:\d+\.\d+(\.\d+)?(-[a-z0-9.]+)?$`, service.Image, name)
		} else {
			require.Regexp(t, `:local$`, service.Image, name) // never pulled in place of the build
		}
	}
	text, err := os.ReadFile(dockerfile)
	require.NoError(t, err)
	stages := []string{"scratch"}
	for _, from := range regexp.MustCompile(`(?m)^FROM (\S+) AS (\S+)$`).FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(stages, from[1]) {
			require.Regexp(t, `:\d+\.\d+\.\d+-[a-z0-9.]+$`, from[1])
		}
		stages = append(stages, from[2])
	}
	require.Equal(t, strings.Count(string(text), "\nFROM "), len(stages)-1, "a stage without a name")
	require.Equal(t, "drayman", stages[len(stages)-1], "the last stage is what docker build makes")
}

func TestComposeIsWhole(t *testing.T) {
	c := compose(t)
	for name, service := range c.Services {
		for dependency, on := range service.DependsOn {
			require.Contains(t, c.Services, dependency, name)
			if on.Condition == "service_healthy" {
				require.NotEmpty(t, c.Services[dependency].Healthcheck.Test, "%s waits for the health of %s", name, dependency)
			} else {
				require.Equal(t, "service_completed_successfully", on.Condition, name)
			}
		}
		for _, secret := range service.Secrets {
			require.Contains(t, c.Secrets, secret, name)
		}
		for variable, value := range service.Environment {
			if file, ok := strings.CutPrefix(value, "/run/secrets/"); ok {
				require.Contains(t, service.Secrets, file, "%s: %s", name, variable)
			} else {
				require.NotRegexp(t, `SECRET|PASSWORD|PWD|API_KEY|DATABASE_URL`, variable, "%s: a secret belongs into a file", name)
			}
		}
	}
}

// A misspelt variable would be ignored in silence.
func TestComposeSetsVariablesThatExist(t *testing.T) {
	drayman := binary(t, "TEST_DRAYMAN")
	for name, service := range compose(t).ours() {
		words := slices.DeleteFunc(slices.Clone(service.Command), func(word string) bool { return strings.HasPrefix(word, "-") })
		help, err := exec.CommandContext(t.Context(), drayman, append(words, "--help")...).Output()
		require.NoError(t, err, name)
		for variable := range service.Environment {
			if !strings.HasPrefix(variable, "TEMPORAL_") {
				require.Contains(t, strings.Join(strings.Fields(string(help)), " "), "($"+strings.TrimSuffix(variable, "_FILE")+")", name)
			}
		}
	}
}

// deployment runs services of the composition as processes of this machine: the
// command line and the environment are theirs, but for the addresses.
type deployment struct {
	composition
	values map[string]string // in place of the composition's
}

func newDeployment(t *testing.T) *deployment {
	t.Helper()
	temporal := binary(t, "TEST_TEMPORAL_ADDRESS")
	db := modelstest.Postgres(t)
	db.Exec(t, "DROP SCHEMA public CASCADE; CREATE SCHEMA public")
	d := &deployment{composition: compose(t), values: map[string]string{
		"TEMPORAL_ADDRESS": temporal, "TEMPORAL_NAMESPACE": newNamespace(t, temporal),
		"SHOP_URL": shoptest.Start(t, shoptest.Options{APIKey: "key", APISecret: "secret"}).URL,
	}}
	dir := t.TempDir()
	for name, content := range map[string]string{"database_url": db.URL, "shop_api_key": "key", "shop_api_secret": "secret\n"} {
		file := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(file, []byte(content), 0o600))
		d.values["/run/secrets/"+name] = file
	}
	return d
}

func (d *deployment) start(t *testing.T, name string) *process {
	t.Helper()
	service := d.ours()[name]
	require.NotEmpty(t, service.Command, "no service %s that runs Drayman", name)
	env := []string{"HOME=" + t.TempDir()}
	for variable, value := range service.Environment {
		if other, ok := d.values[variable]; ok {
			value = other
		}
		if file, ok := d.values[value]; ok {
			value = file
		}
		require.NotContains(t, value, "/run/secrets/", "%s: %s", name, variable)
		env = append(env, variable+"="+value)
	}
	return start(t, binary(t, "TEST_DRAYMAN"), env, service.Command...)
}

func TestComposeServicesStart(t *testing.T) {
	d := newDeployment(t)

	migrate := d.start(t, "migrate")
	<-migrate.exited
	require.Zero(t, migrate.cmd.ProcessState.ExitCode())

	// Its port is published where it listens, and its own health check asks there.
	_, published, _ := strings.Cut(strings.TrimPrefix(d.Services["api"].Ports[0], "127.0.0.1:"), ":")
	require.Equal(t, "0.0.0.0:"+published, d.Services["api"].Environment["HTTP_ADDR"])
	d.values["HTTP_ADDR"] = "0.0.0.0:0"
	api := d.start(t, "api")
	served, err := url.Parse(api.find(t, `"api serves","url":"([^"]+)"`))
	require.NoError(t, err)
	check := d.Services["api"].Healthcheck.Test
	require.Equal(t, []string{"CMD", "/drayman"}, check[:2])
	healthy := start(t, binary(t, "TEST_DRAYMAN"), []string{"HTTP_ADDR=0.0.0.0:" + served.Port()}, check[2:]...)
	requireHosts(t, "http://127.0.0.1:"+served.Port()+"/clubs", []string{"", "api:8080", "localhost:8080", "[::1]:8080", "172.18.0.5"})
	healthy.find(t, `("temporal":"ok")`)
	<-healthy.exited
	require.Zero(t, healthy.cmd.ProcessState.ExitCode())

	d.start(t, "worker").find(t, `(worker polls)`)
	require.ElementsMatch(t, []string{"migrate", "api", "worker"}, slices.Collect(maps.Keys(d.ours())), "a service that no test starts")

	require.Zero(t, api.kill(syscall.SIGTERM), "docker stop")
}

func TestHealthcheckOfAnAPIThatIsNotThere(t *testing.T) {
	code, _, stderr := run(t, map[string]string{"HTTP_ADDR": "127.0.0.1:1"}, "healthcheck")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "connection refused")

	code, _, stderr = run(t, map[string]string{"HTTP_ADDR": "8080"}, "healthcheck")
	require.Equal(t, 1, code)
	require.Contains(t, stderr, "HTTP_ADDR")
}

func TestComposeFakeShopStarts(t *testing.T) {
	shop := compose(t).Services["shop"]
	require.Equal(t, []string{"fake-shop"}, shop.Profiles)
	command := slices.Clone(shop.Command)
	require.Equal(t, []string{"--addr", "0.0.0.0:8090", "--data", "/data", "--hosts", "shop,host.docker.internal"}, command[1:])
	command[2], command[4] = "0.0.0.0:0", t.TempDir()
	url := start(t, binary(t, "TEST_DRAYMAN_DEV"), []string{"HOME=" + t.TempDir()}, command...).find(t, `(http://127\.0\.0\.1:\d+)`)
	requireHosts(t, url+"/faults", []string{"", "shop:8090", "localhost:8090"})
}

// The commands of the Dockerfile build the program, with its version in it, and
// without a C library, which an image from scratch does not have.
func TestDockerfileBuildsTheProgram(t *testing.T) {
	text, err := os.ReadFile(dockerfile)
	require.NoError(t, err)
	require.Contains(t, string(text), "\nENV CGO_ENABLED=0 ")
	commands := regexp.MustCompile(`(?m)^RUN (go build .* -o /out/drayman \S+)$`).FindStringSubmatch(string(text))
	require.NotNil(t, commands)
	out := t.TempDir()

	build := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(commands[1], "/out/", out+"/"))
	build.Dir = ".."
	build.Env = append(os.Environ(), "VERSION=9.8.7", "CGO_ENABLED=0")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))

	version, err := exec.CommandContext(t.Context(), filepath.Join(out, "drayman"), "version").Output()
	require.NoError(t, err)
	require.Contains(t, string(version), "drayman 9.8.7 ")
	require.Contains(t, string(text), "\nENTRYPOINT [\"/drayman\"]\n")
	require.Equal(t, 2, strings.Count(string(text), "\nUSER 65532:65532\n"), "root in an image")
}

package main

import (
	"time"

	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/temporal"
)

const (
	clusterName = "active"
	storeName   = "sqlite"

	// historyShards is fixed for the life of a temporal.db. A shard looks for
	// new tasks at most 20 times a second. On one shard a lone workflow took
	// 50 ms from start to result, on four 12 ms; more gained nothing.
	historyShards = 4

	// unlimited is far above what one machine does, per second. The defaults of
	// the rate limits are made for clusters and would slow down a load test.
	unlimited = 1_000_000
)

// temporalConfig is the static configuration of the server.
type temporalConfig = config.Config

// newTemporalConfig describes one cluster in one process, on loopback. The
// frontend listens at address, the other services on free ports.
func newTemporalConfig(address flagAddress) (*temporalConfig, error) {
	ip, port, err := loopbackAddress(address)
	if err != nil {
		return nil, err
	}
	services := map[string]config.Service{}
	for _, name := range temporal.DefaultServices {
		rpc := config.RPC{GRPCPort: port, BindOnIP: ip}
		if name != string(primitives.FrontendService) {
			if rpc.GRPCPort, err = freePort(ip); err != nil {
				return nil, err
			}
		}
		services[name] = config.Service{RPC: rpc}
	}
	frontend := hostPort(ip, port)
	c := &temporalConfig{Services: services}
	c.PublicClient.HostPort = frontend
	c.Global.Membership.BroadcastAddress = ip
	c.DCRedirectionPolicy.Policy = "noop"
	c.ClusterMetadata = soleCluster(frontend)
	c.Archival.History.State = "disabled"
	c.Archival.Visibility.State = "disabled"
	c.NamespaceDefaults.Archival.History.State = "disabled"
	c.NamespaceDefaults.Archival.Visibility.State = "disabled"
	return c, nil
}

// soleCluster says that there is no other cluster to replicate to.
func soleCluster(frontend string) *cluster.Config {
	return &cluster.Config{
		FailoverVersionIncrement: 10,
		MasterClusterName:        clusterName,
		CurrentClusterName:       clusterName,
		ClusterInformation: map[string]cluster.ClusterInformation{
			clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
		},
	}
}

// useStore keeps workflows and visibility in the same SQLite database.
func useStore(c *temporalConfig, store *config.SQL) {
	c.Persistence = config.Persistence{
		DefaultStore:     storeName,
		VisibilityStore:  storeName,
		NumHistoryShards: historyShards,
		DataStores:       map[string]config.DataStore{storeName: {SQL: store}},
	}
}

// serverOptions are what NewServer wants besides the static configuration. The
// services find each other by a fixed list instead of by gossip, which saves a
// second at the start and a few ports.
func serverOptions(c *temporalConfig, suggestContinueAsNew int, log *temporalLog) []temporal.ServerOption {
	hosts := map[primitives.ServiceName]static.Hosts{}
	for name, service := range c.Services {
		hosts[primitives.ServiceName(name)] = static.SingleLocalHost(hostPort(service.RPC.BindOnIP, service.RPC.GRPCPort))
	}
	return []temporal.ServerOption{
		temporal.WithConfig(c),
		temporal.ForServices(temporal.DefaultServices),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(log),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper {
			return authorization.NewNoopClaimMapper()
		}),
		temporal.WithDynamicConfigClient(dynamicConfig(suggestContinueAsNew)),
	}
}

// dynamicConfig is where this server differs from the defaults of a cluster.
func dynamicConfig(suggestContinueAsNew int) dynamicconfig.StaticClient {
	values := dynamicconfig.StaticClient{
		// The version check would call a server on the internet.
		dynamicconfig.EnableServerVersionCheck.Key(): false,
		// How long a new search attribute may stay unknown to a start request (by
		// default 2 s). Each time, each service reads two rows.
		dynamicconfig.NamespaceCacheRefreshInterval.Key(): 100 * time.Millisecond,
		// How long a workflow that a person deletes may stay (by default 30 s).
		dynamicconfig.TransferProcessorUpdateAckInterval.Key():   time.Second,
		dynamicconfig.VisibilityProcessorUpdateAckInterval.Key(): time.Second,
		// Open workflows held in memory, some 10 KB each; by default 128,000.
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key(): 16_384,
	}
	for _, key := range []dynamicconfig.Key{
		dynamicconfig.FrontendRPS.Key(),
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key(),
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(),
		dynamicconfig.FrontendNamespaceReplicationInducingAPIsRPS.Key(),
		dynamicconfig.FrontendMaxNamespaceNamespaceReplicationInducingAPIsRPSPerInstance.Key(),
		dynamicconfig.FrontendMaxConcurrentLongRunningRequestsPerInstance.Key(),
		dynamicconfig.FrontendPersistenceMaxQPS.Key(),
		dynamicconfig.HistoryRPS.Key(),
		dynamicconfig.HistoryPersistenceMaxQPS.Key(),
		dynamicconfig.MatchingRPS.Key(),
		dynamicconfig.MatchingPersistenceMaxQPS.Key(),
		dynamicconfig.WorkerPersistenceMaxQPS.Key(),
		dynamicconfig.VisibilityPersistenceMaxReadQPS.Key(),
		dynamicconfig.VisibilityPersistenceMaxWriteQPS.Key(),
	} {
		values[key] = unlimited
	}
	if suggestContinueAsNew > 0 {
		values[dynamicconfig.HistoryCountSuggestContinueAsNew.Key()] = suggestContinueAsNew
	}
	return values
}

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// prepareNamespace waits until the server at address answers, and lengthens the
// retention of the namespace if an older database has a shorter one.
func prepareNamespace(ctx context.Context, address string) error {
	c, err := dialTemporal(ctx, address)
	if err != nil {
		return err
	}
	defer c.Close()
	var described *workflowservice.DescribeNamespaceResponse
	err = retry(ctx, func() (err error) {
		described, err = c.WorkflowService().DescribeNamespace(ctx,
			&workflowservice.DescribeNamespaceRequest{Namespace: temporalNamespace})
		return err
	})
	if err != nil {
		return err
	}
	if described.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration() >= namespaceRetention {
		return nil
	}
	_, err = c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: temporalNamespace,
		Config:    &namespace.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(namespaceRetention)},
	})
	return err
}

// dialTemporal connects to the server at address as soon as it listens.
func dialTemporal(ctx context.Context, address string) (c client.Client, err error) {
	err = retry(ctx, func() (err error) {
		c, err = client.DialContext(ctx, client.Options{
			HostPort:  address,
			Namespace: temporalNamespace,
			Logger:    slog.New(slog.DiscardHandler),
		})
		return err
	})
	return c, err
}

// retry calls try every 50 ms until it succeeds or ctx ends.
func retry(ctx context.Context, try func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up (%w): %w", context.Cause(ctx), errors.Join(err))
		case <-tick.C:
		}
	}
}

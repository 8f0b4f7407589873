package cmd_test

import (
	"fmt"
	"net"
	"path"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/encoding/gzip" // the SDK compresses
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// onTemporal puts a proxy before a Temporal server and returns its address. It
// hands on the calls of all services as they are. Its points are the tasks that
// the worker gets, has done, and reports on.
func (c *crash) onTemporal(t *testing.T, address string) string {
	t.Helper()
	server, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	proxy := grpc.NewServer(grpc.ForceServerCodec(asItIs{}), grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		return c.call(server, stream)
	}))
	go func() { _ = proxy.Serve(listener) }() // ends with Stop
	t.Cleanup(func() {
		proxy.Stop()
		_ = server.Close()
	})
	return listener.Addr().String()
}

// raw is a message as it came; asItIs is its codec.
type (
	raw    struct{ data []byte }
	asItIs struct{}
)

// Marshal implements encoding.Codec.
func (asItIs) Marshal(message any) ([]byte, error) { return message.(*raw).data, nil }

// Unmarshal implements encoding.Codec.
func (asItIs) Unmarshal(data []byte, into any) error {
	into.(*raw).data = data
	return nil
}

// Name implements encoding.Codec.
func (asItIs) Name() string { return "proto" }

// call hands on one call; all of Temporal's have one message each way.
func (c *crash) call(server *grpc.ClientConn, stream grpc.ServerStream) error {
	var request, response raw
	if err := stream.RecvMsg(&request); err != nil {
		return err
	}
	name, _ := grpc.MethodFromServerStream(stream)
	step := c.reports(path.Base(name), request.data)
	if step != "" {
		// The next task must not overtake the answer that brought it about.
		c.telling.Lock()
		defer c.telling.Unlock()
	}
	if step != "" && !c.at(before, step) {
		return errDead
	}
	ctx := stream.Context()
	headers, _ := metadata.FromIncomingContext(ctx)
	err := server.Invoke(metadata.NewOutgoingContext(ctx, headers), name, &request, &response, grpc.ForceCodec(asItIs{}))
	if step != "" && !c.at(after, step) {
		return errDead
	}
	if err != nil {
		return err
	}
	if step == "activity task completed" {
		c.pageEnded()
	}
	taken := c.takes(path.Base(name), response.data)
	if taken != "" && step == "" {
		c.telling.Lock()
		defer c.telling.Unlock()
	}
	if taken != "" && !c.at(after, taken) {
		return errDead
	}
	return stream.SendMsg(&response)
}

// decode reads a message that the worker or the server has written.
func decode[M proto.Message](data []byte, into M) M {
	if err := proto.Unmarshal(data, into); err != nil {
		panic(fmt.Sprintf("%T: %v", into, err))
	}
	return into
}

// reports says what a worker's call tells the server.
func (c *crash) reports(method string, request []byte) string {
	var token []byte
	step := ""
	switch method {
	case "RespondWorkflowTaskCompleted":
		step = "workflow task completed"
	case "RespondWorkflowTaskFailed":
		step = "workflow task failed"
	case "RespondActivityTaskCompleted":
		step, token = "activity task completed", decode(request, &workflowservice.RespondActivityTaskCompletedRequest{}).GetTaskToken()
	case "RespondActivityTaskFailed":
		step, token = "activity task failed", decode(request, &workflowservice.RespondActivityTaskFailedRequest{}).GetTaskToken()
	case "RecordActivityTaskHeartbeat":
		step, token = heartbeat, decode(request, &workflowservice.RecordActivityTaskHeartbeatRequest{}).GetTaskToken()
	}
	if !c.concerns(token) {
		return ""
	}
	return step
}

// heartbeat is a step that comes by the clock.
const heartbeat = "heartbeat"

// takes says which task a worker gets with a response: by polling, or at once
// with the end of the workflow task that asked for it.
func (c *crash) takes(method string, response []byte) string {
	var tasks []*workflowservice.PollActivityTaskQueueResponse
	switch method {
	case "PollWorkflowTaskQueue":
		if !c.page && len(decode(response, &workflowservice.PollWorkflowTaskQueueResponse{}).GetTaskToken()) > 0 {
			return "workflow task taken"
		}
	case "PollActivityTaskQueue":
		tasks = append(tasks, decode(response, &workflowservice.PollActivityTaskQueueResponse{}))
	case "RespondWorkflowTaskCompleted":
		tasks = decode(response, &workflowservice.RespondWorkflowTaskCompletedResponse{}).GetActivityTasks()
	}
	for _, task := range tasks {
		if task.GetActivityType().GetName() == "ChargePage" {
			c.pageTaken(task.GetTaskToken())
		}
		if len(task.GetTaskToken()) > 0 && c.concerns(task.GetTaskToken()) {
			return "activity task taken"
		}
	}
	return ""
}

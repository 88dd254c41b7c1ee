// Command operator does what an operator does: it takes the lock of a resource, keeps it while it works, writes down what
// it does, and completes. Meanwhile another peer asks for the same resource, and reads why it is refused. docs/go.md
// explains the parts.
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	operationv1alpha "n0st.ac/n0stack/operation/v1alpha"
	"n0st.ac/n0stack/protobuf"
)

// newPeerToken makes what tells this process from all others. It is made once, and the same in every call.
func newPeerToken() string {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		panic(err)
	}
	host, _ := os.Hostname()
	return fmt.Sprintf("%.100s-%d-%x", host, os.Getpid(), random)
}

// refusal is what an error tells.
type refusal struct {
	code     codes.Code
	reason   string            // a value of ErrorReason without its prefix; empty: it was not the service that refused
	metadata map[string]string // what the proto says of that reason, such as holder and locked_until
	retryIn  time.Duration     // 0: the service does not say
}

// explain reads the details of an error.
func explain(err error) refusal {
	var answered interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answered) {
		return refusal{code: codes.Unknown}
	}
	answer := answered.GRPCStatus()
	told := refusal{code: answer.Code()}
	for _, detail := range answer.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.GetDomain() == "operation.n0stack" {
				told.reason, told.metadata = detail.GetReason(), detail.GetMetadata()
			}
		case *errdetails.RetryInfo:
			delay := detail.GetRetryDelay()
			told.retryIn = time.Duration(delay.GetSeconds())*time.Second + time.Duration(delay.GetNanos())
		}
	}
	return told
}

// isPassing says whether the same call, sent again with the same token, may succeed soon.
func (told refusal) isPassing() bool {
	switch told.reason {
	case "CONTENTION", "ETCD_UNAVAILABLE", "OVERLOADED":
		return true
	case "": // the service cannot be reached, was too slow, or was just stopping
		return told.code == codes.Unavailable || told.code == codes.DeadlineExceeded || told.code == codes.Canceled
	default:
		return false
	}
}

// call sends a call until it is answered for good, or ctx ends. A try that is not answered is given up after 2 s.
func call(ctx context.Context, send func(context.Context) error) error {
	for wait := 100 * time.Millisecond; ; wait *= 2 {
		try, cancel := context.WithTimeout(ctx, 2*time.Second)
		err := send(try)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		told := explain(err)
		if !told.isPassing() {
			return err
		}
		if wait > 5*time.Second {
			wait = 5 * time.Second
		}
		if wait < told.retryIn {
			wait = told.retryIn
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(wait):
		}
	}
}

// peer asks for one resource, and holds it if it was granted.
type peer struct {
	client       operationv1alpha.OperationServiceClient
	token        string
	project      string
	name         string
	lockFor      time.Duration
	fencingToken string    // empty: nothing was granted yet
	until        time.Time // by the monotonic clock of this process, and never later than what the service promises
}

// outgoing adds the fencing token to a call: it is refused if the lock is not that one any more.
func (p *peer) outgoing(ctx context.Context) context.Context {
	if p.fencingToken == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "n0stack-fencing-token", p.fencingToken)
}

// propose takes the lock, or renews it once it was granted.
func (p *peer) propose(ctx context.Context, logMessage string) error {
	request := &protobuf.ProposeOperationRequest{
		Project:            p.project,
		Name:               p.name,
		LockForSeconds:     uint32(p.lockFor / time.Second),
		LogMessage:         logMessage,
		ProposingPeerToken: p.token,
	}
	return call(ctx, func(ctx context.Context) error {
		sent := time.Now()
		var trailer metadata.MD
		if _, err := p.client.ProposeOperation(p.outgoing(ctx), request, grpc.Trailer(&trailer)); err != nil {
			return err
		}
		p.until = sent.Add(time.Duration(request.LockForSeconds) * time.Second)
		if p.fencingToken == "" {
			p.fencingToken = trailer.Get("n0stack-fencing-token")[0]
		}
		return nil
	})
}

// keep renews the lock until ctx ends. It returns an error as soon as the lock is lost, or may be.
func (p *peer) keep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(p.lockFor / 3):
		}
		renewal, cancel := context.WithDeadline(ctx, p.until)
		err := p.propose(renewal, "")
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the lock is lost, stop working on the resource: %w", err)
		}
		fmt.Println("renewed")
	}
}

// appendLog writes down what was done. Sent again after an unclear answer, the line may stand there twice.
func (p *peer) appendLog(ctx context.Context, message string) error {
	return call(ctx, func(ctx context.Context) error {
		_, err := p.client.AppendOperationLog(p.outgoing(ctx), &operationv1alpha.AppendOperationLogRequest{
			Project: p.project, Name: p.name, LogMessage: message, ProposingPeerToken: p.token,
		})
		return err
	})
}

// complete ends the operation, as FAILED if there is a failure, and frees the lock. Sending it again does no harm.
func (p *peer) complete(ctx context.Context, failure error) error {
	request := &operationv1alpha.CompleteOperationRequest{
		Project: p.project, Name: p.name, ProposingPeerToken: p.token,
	}
	if failure != nil {
		request.Error = status.New(codes.Internal, failure.Error()).Proto()
	}
	return call(ctx, func(ctx context.Context) error {
		_, err := p.client.CompleteOperation(p.outgoing(ctx), request)
		return err
	})
}

// carryOut works while the lock is held, and completes.
func (p *peer) carryOut(ctx context.Context, work func(context.Context) error) error {
	holding, stop := context.WithCancel(ctx)
	kept := make(chan error, 1)
	go func() {
		kept <- p.keep(holding)
		stop() // work has to end when the lock is lost
	}()
	failure := work(holding)
	stop()
	if err := <-kept; err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // told to stop: the operation is not complete, and its lock runs out
	}
	ending, cancel := context.WithDeadline(ctx, p.until)
	defer cancel()
	return p.complete(ending, failure)
}

// isRefused asks for a resource that another peer holds, and tells what the refusal says.
func isRefused(ctx context.Context, other *peer) error {
	err := other.propose(ctx, "")
	if err == nil {
		return errors.New("both peers hold the resource")
	}
	told := explain(err)
	if told.reason != "LOCKED" {
		return err
	}
	fmt.Printf("refused: %s by %s since %s until %s, last log %q, ask again in %s\n",
		told.reason, told.metadata["holder"], told.metadata["locked_since"], told.metadata["locked_until"],
		told.metadata["last_log"], told.retryIn.Round(time.Second))
	return nil
}

func run() error {
	address := flag.String("address", "127.0.0.1:50051", "where the service listens")
	project := flag.String("project", "demo", "the project of the resource")
	name := flag.String("name", "virtual_machines/web-1", "the name of the resource")
	lockFor := flag.Duration("lock-for", 6*time.Second, "how long each lock lasts, in whole seconds")
	workFor := flag.Duration("work-for", 5*time.Second, "how long the work takes")
	flag.Parse()

	// From gRPC 1.63 on: grpc.NewClient(*address, grpc.WithTransportCredentials(insecure.NewCredentials())).
	connection, err := grpc.Dial(*address, grpc.WithInsecure())
	if err != nil {
		return err
	}
	defer connection.Close()
	client := operationv1alpha.NewOperationServiceClient(connection)

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	operator := &peer{client: client, token: newPeerToken(), project: *project, name: *name, lockFor: *lockFor}
	if err := operator.propose(ctx, "stopping"); err != nil {
		return err
	}
	fmt.Println("locked with the fencing token", operator.fencingToken)

	err = operator.carryOut(ctx, func(ctx context.Context) error {
		if err := operator.appendLog(ctx, "the guest was told"); err != nil {
			return err
		}
		// Another process would have made a token of its own when it started.
		other := &peer{client: client, token: newPeerToken(), project: *project, name: *name, lockFor: *lockFor}
		if err := isRefused(ctx, other); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(*workFor):
			return nil
		}
	})
	if err != nil {
		return err
	}
	fmt.Println("completed")
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "operator: %v (reason: %q)\n", err, explain(err).reason)
		os.Exit(1)
	}
}

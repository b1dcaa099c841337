// SPDX-License-Identifier: Apache-2.0

package wire

// Control methods of the sentry (runsc/boot/controller.go).
const (
	MethodStartRoot    = "containerManager.StartRoot"
	MethodExecuteAsync = "containerManager.ExecuteAsync"
	MethodWait         = "containerManager.Wait"
	MethodWaitPID      = "containerManager.WaitPID"
	MethodProcesses    = "containerManager.Processes"
	MethodEvent        = "containerManager.Event"
	MethodSignal       = "containerManager.Signal"
	MethodPause        = "containerManager.Pause"
	MethodResume       = "containerManager.Resume"
	MethodRuntimeState = "containerManager.ContainerRuntimeState"
	MethodCheckpoint   = "containerManager.Checkpoint"
	MethodRestore      = "containerManager.Restore"
	MethodRead         = "Fs.Read"
)

// Answers to MethodRuntimeState (runsc/boot.ContainerRuntimeState).
const (
	StateInvalid  = iota
	StateCreating // the application has not been started
	StateRunning
	StateStopped // it has ended, or could not be started
)

// Values of SignalArgs.Mode (runsc/boot.SignalDeliveryMode).
const (
	SignalProcess = iota
	SignalAllProcesses
	SignalForegroundProcessGroup
	SignalProcessGroup
)

// SignalArgs is the argument of MethodSignal. PID 0 is the container's init.
type SignalArgs struct {
	CID   string
	Signo int32
	PID   int32
	Mode  int
}

// CheckpointArgs is the argument of MethodCheckpoint; the state file travels
// beside it.
type CheckpointArgs struct {
	Metadata map[string]string `json:"metadata"`
	// Resume lets the sandbox go on when its state is saved.
	Resume bool
}

// StateForm is the metadata of a state file that is compressed, fast, or is not.
func StateForm(compressed bool) map[string]string {
	if compressed {
		return map[string]string{"compression": "flate-best-speed"}
	}
	return map[string]string{"compression": "none"}
}

// RestoreArgs is the argument of MethodRestore; the state file travels beside
// it.
type RestoreArgs struct{}

// WaitPIDArgs is the argument of MethodWaitPID.
type WaitPIDArgs struct {
	PID int32
	CID string
}

// ExecArgs is the argument of MethodExecuteAsync; the files of GuestFDs travel
// beside it as SCM_RIGHTS, in the same order.
type ExecArgs struct {
	Filename         string            `json:"filename"`
	Argv             []string          `json:"argv"`
	Envv             []string          `json:"envv"`
	WorkingDirectory string            `json:"wd"`
	KUID             uint32            `json:"KUID"`
	KGID             uint32            `json:"KGID"`
	ExtraKGIDs       []uint32          `json:"ExtraKGIDs"`
	NoNewPrivileges  bool              `json:"NoNewPrivileges"`
	Capabilities     *TaskCapabilities `json:"Capabilities"`
	StdioIsPty       bool              `json:"StdioIsPty"`
	GuestFDs         []int             `json:"GuestFDs"`
	ContainerID      string            `json:"ContainerID"`
}

// TaskCapabilities are capability bit sets (auth.TaskCapabilities).
type TaskCapabilities struct {
	PermittedCaps   uint64
	InheritableCaps uint64
	EffectiveCaps   uint64
	BoundingCaps    uint64
	AmbientCaps     uint64
}

// ReadArgs is the argument of MethodRead; where to write the file travels beside it.
type ReadArgs struct {
	ContainerID string `json:"container_id"`
	Path        string `json:"path"`
	Size        int64  `json:"size"`
}

// Process is one entry of the reply to MethodProcesses.
type Process struct {
	UID     uint32  `json:"uid"`
	PID     int32   `json:"pid"`
	PPID    int32   `json:"ppid"`
	PGID    int32   `json:"pgid"`
	Threads []int32 `json:"threads"`
	C       int32   `json:"c"`
	TTY     string  `json:"tty"`
	STime   string  `json:"stime"`
	Time    string  `json:"time"`
	Cmd     string  `json:"cmd"`
	// State is not gVisor's but from the States of the StatesSink.
	State string `json:"state,omitempty"`
}

// EventOut is the reply to MethodEvent.
type EventOut struct {
	Event          Event             `json:"event"`
	ContainerUsage map[string]uint64 `json:"containerUsage"`
}

// Event carries Stats.
type Event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data Stats  `json:"data"`
}

// Stats is what the sentry knows of its own use: CPU in nanoseconds, memory in
// bytes.
type Stats struct {
	CPU               CPU                 `json:"cpu"`
	Memory            Memory              `json:"memory"`
	Pids              Pids                `json:"pids"`
	NetworkInterfaces []*NetworkInterface `json:"network_interfaces"`
}

// CPU is processor time in nanoseconds.
type CPU struct {
	Usage CPUUsage `json:"usage"`
}

// CPUUsage is processor time in nanoseconds.
type CPUUsage struct {
	Kernel uint64   `json:"kernel,omitempty"`
	User   uint64   `json:"user,omitempty"`
	Total  uint64   `json:"total,omitempty"`
	PerCPU []uint64 `json:"percpu,omitempty"`
}

// Memory is in bytes.
type Memory struct {
	Cache     uint64            `json:"cache,omitempty"`
	Usage     MemoryEntry       `json:"usage"`
	Swap      MemoryEntry       `json:"swap"`
	Kernel    MemoryEntry       `json:"kernel"`
	KernelTCP MemoryEntry       `json:"kernelTCP"`
	Raw       map[string]uint64 `json:"raw,omitempty"`
}

// MemoryEntry is one kind of memory, in bytes.
type MemoryEntry struct {
	Limit   uint64 `json:"limit"`
	Usage   uint64 `json:"usage,omitempty"`
	Max     uint64 `json:"max,omitempty"`
	Failcnt uint64 `json:"failcnt"`
}

// Pids counts processes.
type Pids struct {
	Current uint64 `json:"current,omitempty"`
	Limit   uint64 `json:"limit,omitempty"`
}

// NetworkInterface counts the traffic of one interface.
type NetworkInterface struct {
	Name      string
	RxBytes   uint64
	RxPackets uint64
	RxErrors  uint64
	RxDropped uint64
	TxBytes   uint64
	TxPackets uint64
	TxErrors  uint64
	TxDropped uint64
}

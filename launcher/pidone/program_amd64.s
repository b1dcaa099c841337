// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

// This is the text of the init process. It does not run where the linker put it:
// onepage copies it into a file, which the sentry executes as process 1 of a
// sandbox. It must not refer to anything but itself.
//
// It is called with
//
//	argv: Name, then the command line of the application
//	envp: the environment of the application
//	descriptor 3: where it reports, see report.go
//	in the file: the files to try for the application, see program.go
//
// Registers that outlive a system call (the kernel changes AX, CX and R11):
//
//	R12  the initial stack: argc, argv, 0, envp, 0; then envp
//	BX   the variables below
//	R13  argv of the application
//	R14  the next file to try; the last string is empty
//	R15  the process id of the application, 0 if there is none: see Hold

// The variables, by their distance from BX.
#define ALL 0       // uint64: the set of all signals, then the one to end by
#define OLD 8       // uint64: the signals that were blocked at the start, then SIGPIPE
#define RESULT 16   // uint32: a report, see report.go; 0 if there is none
#define GROUP 24    // int32: a process group; then the status of a child
#define NAME 32     // [16]byte: what ps calls this process
#define INFO 64     // siginfo_t, 128 bytes, which nobody reads; a time
#define SIZE 256

// The file, by the distance from its beginning.
#define MEMSZ 104   // p_memsz of its first segment
#define FILES 2048  // onepage.Data

#define REPORT_FD 3

// System calls.
#define WRITE 1
#define CLOSE 3
#define MMAP 9
#define MPROTECT 10
#define RT_SIGPROCMASK 14
#define IOCTL 16
#define ACCESS 21
#define MREMAP 25
#define GETPID 39
#define VFORK 58
#define EXECVE 59
#define WAIT4 61
#define KILL 62
#define FCNTL 72
#define SETPGID 109
#define RT_SIGTIMEDWAIT 128
#define PRCTL 157
#define EXIT_GROUP 231

#define ENOENT 2
#define EACCES 13
#define SIGPIPE 13
#define SIGCHLD 17

// The report is kept in R8 and R9 by the child while it tries files.
#define REPORT_FAILED 0x15 // report.go: failed
#define NO_FILE 0xffff     // report.go: noFile
#define NO_CHILD 0xfffe    // report.go: noChild

TEXT program<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ SP, R12
	SUBQ $SIZE, SP
	MOVQ SP, BX
	MOVQ $0, RESULT(BX)
	MOVQ $-1, ALL(BX)

	// argv of the application is argv without its first string, envp begins after
	// the zero that ends argv.
	MOVQ 0(R12), AX
	CMPQ AX, $2
	JLT  usage
	LEAQ 16(R12), R13
	LEAQ 16(R12)(AX*8), R12

	// Replace this file in memory by a copy of it: after a checkpoint and restore the
	// sentry has no file to read it from. The copy has the same address, so that the
	// next instruction is the same one.
	LEAQ program<>(SB), R15
	ANDQ $~4095, R15
	LEAQ FILES(R15), R14
	MOVQ $MMAP, AX
	MOVQ $0, DI
	MOVQ MEMSZ(R15), SI
	MOVQ $3, DX         // PROT_READ|PROT_WRITE
	MOVQ $0x22, R10     // MAP_PRIVATE|MAP_ANONYMOUS
	MOVQ $-1, R8
	MOVQ $0, R9
	SYSCALL
	CMPQ AX, $-4095
	JAE  failed
	MOVQ AX, R8
	MOVQ AX, DI
	MOVQ R15, SI
	MOVQ MEMSZ(R15), R9
	MOVQ R9, CX
	SHRQ $3, CX
	CLD
	REP; MOVSQ
	MOVQ $MPROTECT, AX
	MOVQ R8, DI
	MOVQ R9, SI
	MOVQ $5, DX         // PROT_READ|PROT_EXEC
	SYSCALL
	CMPQ AX, $-4095
	JAE  failed
	MOVQ $MREMAP, AX
	MOVQ R8, DI
	MOVQ R9, SI
	MOVQ R9, DX
	MOVQ $3, R10        // MREMAP_MAYMOVE|MREMAP_FIXED
	MOVQ R15, R8
	SYSCALL
	CMPQ AX, $-4095
	JAE  failed

	// ps shows "sandboxctl-init".
	MOVQ $0x63786f62646e6173, AX
	MOVQ AX, NAME(BX)
	MOVQ $0x0074696e692d6c74, AX
	MOVQ AX, (NAME+8)(BX)
	MOVQ $PRCTL, AX
	MOVQ $15, DI        // PR_SET_NAME
	LEAQ NAME(BX), SI
	SYSCALL

	// The application must not have the descriptor of the report.
	MOVQ $FCNTL, AX
	MOVQ $REPORT_FD, DI
	MOVQ $2, SI         // F_SETFD
	MOVQ $1, DX         // FD_CLOEXEC
	SYSCALL

	// Signals are not handled but waited for, so all of them are blocked. None is
	// lost from here on: they stay pending until the loop below.
	MOVQ $RT_SIGPROCMASK, AX
	MOVQ $2, DI         // SIG_SETMASK
	LEAQ ALL(BX), SI
	LEAQ OLD(BX), DX
	MOVQ $8, R10
	SYSCALL

	// The only file to try may be this one, see Hold: two strings, of which the last is empty,
	// in 16 bytes. Nothing is executed then.
	MOVQ $0x65732f636f72702f, AX // "/proc/se"
	CMPQ AX, 0(R14)
	JNE  start
	MOVQ $0x00006578652f666c, AX // "lf/exe"
	CMPQ AX, 8(R14)
	JNE  start
	MOVQ $0, R15
	JMP  runs

	// The child has this process's memory until it executes the application, and
	// this process waits for that: RESULT is how it learns of a failure.
start:
	MOVQ $VFORK, AX
	SYSCALL
	TESTQ AX, AX
	JZ   child
	JS   failed
	MOVQ AX, R15
	MOVL RESULT(BX), AX
	TESTL AX, AX
	JNZ  report

	// It runs.
runs:
	MOVL $6, RESULT(BX) // report.go: started
	MOVQ $WRITE, AX
	MOVQ $REPORT_FD, DI
	LEAQ RESULT(BX), SI
	MOVQ $1, DX
	SYSCALL
	MOVQ $CLOSE, AX
	MOVQ $REPORT_FD, DI
	SYSCALL
	// If nobody was there to read it, a signal of that is pending, which is not for
	// the application.
	MOVQ $(1<<(SIGPIPE-1)), AX
	MOVQ AX, OLD(BX)
	MOVQ $0, INFO(BX)
	MOVQ $0, (INFO+8)(BX)
	MOVQ $RT_SIGTIMEDWAIT, AX
	LEAQ OLD(BX), DI
	MOVQ $0, SI
	LEAQ INFO(BX), DX   // no time at all
	MOVQ $8, R10
	SYSCALL

loop:
	MOVQ $RT_SIGTIMEDWAIT, AX
	LEAQ ALL(BX), DI
	LEAQ INFO(BX), SI
	MOVQ $0, DX         // for ever
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $SIGCHLD
	JEQ  reap
	TESTQ AX, AX
	JLE  loop           // interrupted
	TESTQ R15, R15
	JZ   release
	MOVQ AX, SI
	MOVQ $KILL, AX
	MOVQ R15, DI
	SYSCALL
	JMP  loop

	// Nobody is there to pass the signal on to.
release:
	MOVQ AX, DI
	ADDQ $128, DI
	JMP  exit

	// One SIGCHLD may stand for the end of many.
reap:
	MOVQ $WAIT4, AX
	MOVQ $-1, DI
	LEAQ GROUP(BX), SI
	MOVQ $1, DX         // WNOHANG
	MOVQ $0, R10
	SYSCALL
	TESTQ AX, AX
	JLE  loop
	CMPQ AX, R15
	JNE  reap

	// The application has ended: end as it did, and all that is left with it.
	MOVL GROUP(BX), DI
	MOVL DI, R13
	ANDL $0x7f, R13
	JNZ  killed
	SHRL $8, DI
	ANDL $0xff, DI
	JMP  exit

	// By the same signal, and by none of those that are pending.
killed:
	MOVL R13, CX
	DECL CX
	MOVQ $1, AX
	SHLQ CX, AX
	NOTQ AX
	MOVQ AX, ALL(BX)
	MOVQ $GETPID, AX
	SYSCALL
	MOVQ AX, DI
	MOVL R13, SI
	MOVQ $KILL, AX
	SYSCALL
	MOVQ $RT_SIGPROCMASK, AX
	MOVQ $2, DI         // SIG_SETMASK
	LEAQ ALL(BX), SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL
	// Linux does not let process 1 die by its own signal; gVisor does.
	MOVL R13, DI
	ADDL $128, DI
	JMP  exit

	// A process group of its own, in the foreground of the terminal if there is
	// one: what the application sends to its group is not for its init, and what a
	// terminal sends is for the application. Whether there is one is the kernel's
	// to say.
child:
	MOVQ $SETPGID, AX
	MOVQ $0, DI
	MOVQ $0, SI
	SYSCALL
	MOVQ $GETPID, AX
	SYSCALL
	MOVL AX, GROUP(BX)
	MOVQ $IOCTL, AX
	MOVQ $0, DI
	MOVQ $0x5410, SI    // TIOCSPGRP
	LEAQ GROUP(BX), DX
	SYSCALL
	MOVQ $RT_SIGPROCMASK, AX
	MOVQ $2, DI         // SIG_SETMASK
	LEAQ OLD(BX), SI
	MOVQ $0, DX
	MOVQ $8, R10
	SYSCALL

	// Try the files. R8 is the number of the one that is tried, R9 the error if
	// none will do: EACCES if there was one that is not executable, else the last.
	MOVQ $0, R8
	MOVQ $ENOENT, R9
try:
	CMPB 0(R14), $0
	JEQ  none
	MOVQ $ACCESS, AX
	MOVQ R14, DI
	MOVQ $1, SI         // X_OK
	SYSCALL
	TESTQ AX, AX
	JNZ  unusable
	MOVQ $EXECVE, AX
	MOVQ R14, DI
	MOVQ R13, SI
	MOVQ R12, DX
	SYSCALL
	CMPQ AX, $-EACCES
	JEQ  unusable
	// It is there, and can't be executed.
	NEGQ AX
	MOVQ R8, CX
	JMP  unfit
unusable:
	CMPQ R9, $EACCES
	JEQ  next
	NEGQ AX
	MOVQ AX, R9
next:
	INCQ R8
skip:
	INCQ R14
	CMPB -1(R14), $0
	JNE  skip
	JMP  try
none:
	MOVQ R9, AX
	MOVQ $NO_FILE, CX
unfit:
	SHLL $8, AX
	SHLL $16, CX
	ORL  CX, AX
	ORL  $REPORT_FAILED, AX
	MOVL AX, RESULT(BX)
	MOVQ $127, DI
	JMP  exit

	// No child could be made: AX is the error.
failed:
	NEGQ AX
	SHLL $8, AX
	ORL  $(NO_CHILD<<16|REPORT_FAILED), AX
	MOVL AX, RESULT(BX)
report:
	MOVQ $WRITE, AX
	MOVQ $REPORT_FD, DI
	LEAQ RESULT(BX), SI
	MOVQ $4, DX
	SYSCALL
	TESTQ AX, AX
	JLE  unheard
	MOVQ $CLOSE, AX
	MOVQ $REPORT_FD, DI
	SYSCALL
	// The report is gone when this process is, and with it the difference to an
	// application that ended with 127. It may be for a launcher that has not been
	// started yet: wait until one has read it and ends the sandbox.
wait:
	MOVQ $RT_SIGTIMEDWAIT, AX
	LEAQ ALL(BX), DI
	LEAQ INFO(BX), SI
	MOVQ $0, DX         // for ever
	MOVQ $8, R10
	SYSCALL
	CMPQ AX, $SIGCHLD   // of the child that could not execute it
	JEQ  wait
	TESTQ AX, AX
	JLE  wait           // interrupted
unheard:
	MOVQ $127, DI
	JMP  exit

usage:
	MOVQ $2, DI
exit:
	MOVQ $EXIT_GROUP, AX
	SYSCALL
	JMP  exit

	// The end, which onepage looks for.
	LONG $0x0b0f0b0f
	LONG $0x74696e69
	LONG $0x646e652d
	LONG $0x0b0f0b0f

// func text() *byte
TEXT ·text(SB),NOSPLIT,$0-8
	LEAQ program<>(SB), AX
	MOVQ AX, ret+0(FP)
	RET

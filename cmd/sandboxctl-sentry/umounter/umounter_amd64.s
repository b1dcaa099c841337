// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

#define READ 0
#define UMOUNT2 166
#define EXIT_GROUP 231

#define PATH 0x400800  // onepage.Start + onepage.Data
#define UNTOLD 255     // ExitUntold

TEXT program<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVQ $READ, AX
	MOVQ $0, DI
	LEAQ -64(SP), SI
	MOVQ $1, DX
	SYSCALL
	CMPQ AX, $1
	JNE  untold
	MOVQ $UMOUNT2, AX
	MOVQ $PATH, DI
	MOVQ $2, SI         // MNT_DETACH
	SYSCALL
	NEGQ AX
	MOVQ AX, DI
	JMP  exit
untold:
	MOVQ $UNTOLD, DI
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

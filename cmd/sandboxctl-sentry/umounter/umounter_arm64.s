// SPDX-License-Identifier: Apache-2.0

#include "textflag.h"

#define READ 63
#define UMOUNT2 39
#define EXIT_GROUP 94

#define PATH 0x400800  // onepage.Start + onepage.Data
#define UNTOLD 255     // ExitUntold

TEXT program<>(SB),NOSPLIT|NOFRAME,$0-0
	MOVD $READ, R8
	MOVD $0, R0
	SUB  $64, RSP, R1
	MOVD $1, R2
	SVC
	CMP  $1, R0
	BNE  untold
	MOVD $UMOUNT2, R8
	MOVD $PATH, R0
	MOVD $2, R1         // MNT_DETACH
	SVC
	NEG  R0, R0
	B    exit
untold:
	MOVD $UNTOLD, R0
exit:
	MOVD $EXIT_GROUP, R8
	SVC
	B    exit

	// The end, which onepage looks for.
	WORD $0x0b0f0b0f
	WORD $0x74696e69
	WORD $0x646e652d
	WORD $0x0b0f0b0f

// func text() *byte
TEXT ·text(SB),NOSPLIT,$0-8
	MOVD $program<>(SB), R0
	MOVD R0, ret+0(FP)
	RET

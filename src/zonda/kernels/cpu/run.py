"""The loop that every thread runs over a program's instructions.

Pieces of an instruction are taken one by one by whoever comes; an instruction is over when all its pieces are done,
not when all threads have come. So a thread that the system holds back delays nothing but the piece in its hands, and
the calling thread alone would also finish. Tickets carry the step's number: a thread that wakes up too late takes
nothing and leaves.
"""
from __future__ import annotations

from zonda.kernels.cpu.frame import INSTRUCTION, LINE
from zonda.kernels.cpu.words import (
    atomic_add,
    atomic_load,
    atomic_store,
    atomic_swap_if,
    call4,
    call_yield,
    load_i64,
    pause,
)

_SPINS = 4000
"""Pauses, some 40 µs, before a waiting thread offers its core to others."""


def reset(count: int, sync: int, epoch: int) -> None:
    """Begin a step: close the last one, and set every instruction's tickets to the new epoch."""
    atomic_store(sync, epoch)
    for i in range(count):
        line = sync + LINE * (i + 1)
        atomic_store(line + 8, 0)
        atomic_store(line, epoch << 32)


def run(program: int, count: int, frame: int, sync: int, thread: int, epoch: int, give_up: int) -> None:
    """Take part in the step `epoch` until its end. `give_up`: the address of sched_yield, or 0."""
    for i in range(count):
        op = program + 8 * INSTRUCTION * i
        line = sync + LINE * (i + 1)
        kernel = load_i64(op, 0)
        pieces = load_i64(frame, load_i64(op, 1)) * load_i64(op, 2)
        while True:
            ticket = atomic_load(line)
            if ticket >> 32 != epoch:
                return
            piece = ticket & 0xFFFFFFFF
            if piece >= pieces:
                break
            if atomic_swap_if(line, ticket, ticket + 1):
                call4(kernel, op, frame, piece, thread)
                atomic_add(line + 8, 1)
        spins = 0
        while atomic_load(line + 8) < pieces:
            if atomic_load(sync) != epoch:
                return
            pause()
            spins += 1
            if spins > _SPINS and give_up:
                call_yield(give_up)

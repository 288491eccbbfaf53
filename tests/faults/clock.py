"""A clock that can be set for single processes: a library that their linker loads first, and a file with an offset."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static double *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULTS_CLOCK");
    int file = path ? open(path, O_RDONLY) : -1;
    void *seen = file < 0 ? MAP_FAILED : mmap(0, sizeof(double), PROT_READ, MAP_SHARED, file, 0);
    if (seen != MAP_FAILED) offset = seen;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(which, now);
    if (!status && which == CLOCK_REALTIME && offset) now->tv_sec += (time_t)*offset;
    return status;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec found;
    int status = clock_gettime(CLOCK_REALTIME, &found);
    now->tv_sec = found.tv_sec;
    now->tv_usec = found.tv_nsec / 1000;
    return status;
}

time_t time(time_t *result) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (result) *result = found.tv_sec;
    return found.tv_sec;
}
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of some processes.

    Attributes:
        library, offset: Files.
    """

    library: Path
    offset: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that goes by it."""
        return {"LD_PRELOAD": str(self.library), "FAULTS_CLOCK": str(self.offset)}

    def shift(self, seconds: float) -> None:
        """Set it so far from the machine's, now, for all processes that go by it."""
        with self.offset.open("r+b") as file:
            file.write(struct.pack("d", seconds))


def make_clock(folder: Path, name: str) -> Clock:
    """A clock that is right until it is shifted."""
    folder.mkdir(parents=True, exist_ok=True)
    library, offset = folder / "clock.so", folder / f"{name}.clock"
    if not library.exists():
        compiler = ["cc", "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(library), "-ldl"]
        subprocess.run(compiler, input=_SOURCE.encode(), check=True)
    offset.write_bytes(struct.pack("d", 0.0))
    return Clock(library, offset)

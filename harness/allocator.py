"""The C allocator of a process that decodes: memory once taken is kept, as GPU allocators keep theirs.

By default glibc hands big blocks back to the system as soon as they are freed, so that every call takes its tensors anew, page
by page.
"""

from __future__ import annotations

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's <malloc.h>
_NEVER = 2**31 - 1
_GROW_BY = 64 * 2**20


def keep_freed_memory() -> bool:
    """Set this process's allocator to keep what is freed; False where it is not glibc's, and nothing is done.

    Called by processes of msbench's own, at their start; never by a function that others import.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _GROW_BY))
    answers = [library.mallopt(name, value) for name, value in settings]
    return all(answer == 1 for answer in answers)

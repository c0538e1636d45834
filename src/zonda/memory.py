"""How much memory is free, as the machine and the control group of this process allow."""
from __future__ import annotations

import os
from pathlib import Path

# of version 2 and of version 1: the limit, what is used, and which of its statistics count the file cache
_FILES = (("memory.max", "memory.current", ("active_file", "inactive_file")),
          ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_active_file", "total_inactive_file")))


def available() -> int:
    """Bytes that can be taken without pushing anything out."""
    root = Path("/sys/fs/cgroup")
    limits = [_machine(Path("/proc/meminfo")), *(_group(folder) for folder in _groups(Path("/proc/self/cgroup"), root))]
    known = [limit for limit in limits if limit is not None]
    return max(0, min(known)) if known else _physical() // 2


def _machine(meminfo: Path) -> int | None:
    try:
        lines = meminfo.read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(sizes["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in sizes else None


def _groups(listing: Path, root: Path) -> list[Path]:
    """The folders of this process's control group and of those around it."""
    try:
        lines = listing.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            base = root / controllers if controllers else root
            own = base / path.lstrip("/")
            folders += [own, *(above for above in own.parents if above.is_relative_to(base))]
    return folders


def _group(folder: Path) -> int | None:
    """What a control group has left, its file cache counted as free; None without a limit."""
    for limit, used, cached in _FILES:
        try:
            most = (folder / limit).read_text().strip()
            if most == "max":
                return None
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            return int(most) - int((folder / used).read_text()) + sum(int(stat.get(name, 0)) for name in cached)
        except (OSError, ValueError):
            continue
    return None


def _physical() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 << 30


def mb(size: int) -> str:
    """A size for people to read, rounded up."""
    return f"{-(-size // (1 << 20)):,} MB"

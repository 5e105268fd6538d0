"""Where a training keeps its checkpoints and metrics: in a folder, or in memory."""

from vaepriors.store.folder import (
    LOCKS,
    RESTORE,
    Busy,
    Folder,
    Memory,
    Store,
    check_settings,
    commit_of,
    load_weights,
    session,
)

__all__ = [
    "LOCKS",
    "RESTORE",
    "Busy",
    "Folder",
    "Memory",
    "Store",
    "check_settings",
    "commit_of",
    "load_weights",
    "session",
]

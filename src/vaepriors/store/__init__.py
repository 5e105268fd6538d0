"""Where a training keeps its checkpoints and metrics: in a folder, or in memory.

    experiment.json    the settings, the digest of the data, and for each session its commit, versions and hardware
    metrics.jsonl      a line per epoch
    last.ckpt          everything needed to resume; previous.ckpt is the one before it, in case that is damaged
    best.ckpt          the model of the best validation loss; epoch-N.ckpt, those asked for as snapshots
    run.lock           locked by the process that writes in the folder; run.holder says which one that is

Every checkpoint has the digest of what it belongs to, and experiment.json has it too: files that do not belong together
are refused.
"""

from vaepriors.store.folder import RESTORE, Folder
from vaepriors.store.lock import LOCKS, Busy
from vaepriors.store.memory import Memory
from vaepriors.store.protocol import Store, check_settings
from vaepriors.store.sessions import commit_of, session
from vaepriors.store.weights import load_weights

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

"""How long a process waits for others before it ends, in seconds, and with which exit status then.

They are here because the flags of the command line have them as defaults, and `kdjax --help` must not
wait for jax.
"""

GRACE_SECONDS = 120.0
"""How long a stop by SIGTERM or SIGINT may take: it then ends without the checkpoint."""

JOIN_SECONDS, PEER_SECONDS = 300, 60
"""How long all processes may take to come; after how long without a sign of life one of them is lost."""

LOST = 75
"""Exit status where another process is lost or never came: EX_TEMPFAIL of sysexits.h, try again."""

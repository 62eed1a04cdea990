"""What must outlive a pass, in one SQLite file: attempts, conditions, what checks said, open
troubles, messages on their way, pauses, reports and history.

It must hold nothing that a pass needs in order to be right: losing it loses backoff and history.
A pass with nothing to remember does not even load SQLite; see ``folder.quiet``.
"""

from reconciler.state.store.tables import Store as Store

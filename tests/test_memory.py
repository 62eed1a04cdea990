"""What is remembered while the store cannot be read."""

from __future__ import annotations

from pathlib import Path

from reconciler import kinds
from reconciler.host.clock import Clock
from reconciler.memory import Memory
from reconciler.store import Store


def test_what_is_paused_stays_so_while_the_store_cannot_be_read(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    told: list[str] = []
    store = Store(str(folder), Clock(), False)
    store.pauses.pause("process:p", "new disk", None, "me")

    def paused() -> dict[str, str]:
        memory = Memory((), kinds.get, store, told.append, set(), lambda: "me", str, {}, {})
        return dict(memory.past().paused)

    assert paused() == {"process:p": "new disk (by me)"}
    (folder / "store.db").write_bytes(b"no store at all, but long enough to be looked at" * 50)
    store.close()
    assert paused() == {"process:p": "new disk (by me)"}
    assert "cannot use the store" in told[0]

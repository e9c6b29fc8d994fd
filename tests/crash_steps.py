"""Run in a process of its own: writes one batch into a store for each line of input, so that its files can be copied.

    python tests/crash_steps.py STORE PAGES

PAGES: after how many pages of the journal SQLite copies it into the database.
"""

import sys
from pathlib import Path

from crash_store import batch_of
from headstart.store import Store


def main() -> None:
    with Store(Path(sys.argv[1])) as store:
        store.info()
        store._database.run(lambda connection: connection.execute(f"PRAGMA wal_autocheckpoint = {int(sys.argv[2])}"))
        print("open", flush=True)
        for number, _ in enumerate(sys.stdin):
            store.put_many(batch_of(number))
            print("committed", number, flush=True)


if __name__ == "__main__":
    main()

"""Object storage: where a corpus is read from, and where manifests, parts and receipts live.

locations.py   which file system serves a URI, and the one spelling of a URI
entries.py     what is there: fresh listings, page by page
store.py       the work location: atomic writes, exclusive creation
refusals.py    the one place where foreign errors become StorageError or StorageUnavailable
"""

from corpuscore.storage.entries import Entry, find_entry, list_entries
from corpuscore.storage.locations import canonical_uri, filesystem, uri_of
from corpuscore.storage.refusals import translated
from corpuscore.storage.store import Store

__all__ = ["Entry", "Store", "canonical_uri", "filesystem", "find_entry", "list_entries", "translated", "uri_of"]
